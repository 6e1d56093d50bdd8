"""Enlarge a picture with what `srx weights export` wrote: NumPy, Pillow and onnxruntime, no torch.

    python run_onnx.py embedded_x4.json photo.jpg large.png

The result is that of `srx upscale --dtype float32` to one 8-bit level, for 8-bit RGB.
"""

import json
import sys
from hashlib import blake2b
from pathlib import Path
from statistics import NormalDist

import numpy as np
import onnxruntime
from PIL import Image, ImageOps

TILE = 192  # input pixels of a tile, beside its margin; a multiple of all plans' `multiple`
ROW, CHANNEL = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9


def quantiles():
    """The middles of 65,536 parts of N(0, 1) of one probability, scaled to a variance of 1."""
    upper = np.array([NormalDist().inv_cdf((i + 0.5) / 2**16) for i in range(2**15, 2**16)])
    upper /= np.sqrt(np.mean(upper**2))
    return np.float32(np.concatenate((-upper[::-1], upper)))


QUANTILES = quantiles()


def key(picture, draw, seed=0):
    """The key of a picture's draw: odd, and each half of eight different digits without 0."""
    name = blake2b(f"|u1 {picture.shape} ".encode() + picture.tobytes(), digest_size=16).digest()
    chance = blake2b(f"{seed} {draw} ".encode() + name, digest_size=16).digest()
    chance, found = int.from_bytes(chance, "little"), 0
    for half in range(2):
        digits = list(range(1, 16))
        for place in range(8):
            choices = digits[::2] if half == place == 0 else digits
            chance, choice = divmod(chance, len(choices))
            found |= choices[choice] << 4 * (8 * half + place)
            digits.remove(choices[choice])
    return np.uint64(found)


def noise(key, top, left, height, width):
    """(3, height, width) ~ N(0, 1) by position: quantiles that Widynski's squares64 chooses."""
    right = left + width
    channel, row, word = np.ogrid[:3, top : top + height, left // 4 : -(-right // 4)]
    counter = [v.astype(np.uint64) * np.uint64(by) for v, by in ((channel, CHANNEL), (row, ROW))]
    x = y = (counter[0] + counter[1] + word.astype(np.uint64)) * key
    for addend in (y, y + key, y):
        x = x * x + addend
        x = x >> np.uint64(32) | x << np.uint64(32)
    last = x * x + y + key
    x = last >> np.uint64(32) | last << np.uint64(32)
    bits = last ^ (x * x + y) >> np.uint64(32)
    sixteen = bits.astype("<u8", copy=False).view("<i2").astype(int)
    return QUANTILES[sixteen + 2**15][:, :, left % 4 : left % 4 + width]


def enlarge(session, plan, picture):
    """(3, h, w) uint8 → (3, scale·h, scale·w) uint8, tile by tile."""
    scale, unit, size = plan["scale"], plan["unit"], picture.shape[1:]
    margin = -(-plan["margin"] // plan["multiple"]) * plan["multiple"]
    keys = [key(picture, draw) for draw in plan["draws"]]
    result = np.empty((3, scale * size[0], scale * size[1]), np.uint8)
    for top in range(0, size[0], TILE):
        for left in range(0, size[1], TILE):
            y, x = max(top - margin, 0), max(left - margin, 0)
            lr = picture[:, y : top + TILE + margin, x : left + TILE + margin]
            sides = [-(-scale * side // unit) * unit for side in lr.shape[1:]]
            given = np.stack([noise(k, scale * y, scale * x, *sides) for k in keys])
            (hr,) = session.run(None, {"lr": np.float32(lr[None]) / 255, "noise": given})
            core = hr[0, :, scale * (top - y) :, scale * (left - x) :]
            place = result[
                :, scale * top : scale * (top + TILE), scale * left : scale * (left + TILE)
            ]
            place[:] = np.rint(core[:, : place.shape[1], : place.shape[2]] * 255)
    return result


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit("usage: python run_onnx.py embedded_x4.json photo.jpg large.png")
    file, source, target = map(Path, sys.argv[1:])
    plan = json.loads(file.read_text("utf-8"))
    session = onnxruntime.InferenceSession(file.with_name(plan["file"]))
    upright = ImageOps.exif_transpose(Image.open(source)).convert("RGB")
    rgb = np.asarray(upright).transpose(2, 0, 1)
    picture = np.ascontiguousarray(rgb)
    Image.fromarray(enlarge(session, plan, picture).transpose(1, 2, 0)).save(target)
