"""A folder of over a hundred odd, damaged and hostile pictures: python tests/torture.py OUT

Each file comes with what is right for it: the pixels that its enlargement by 1 must have, or None
where it must be refused by its name. They are written by numpy, zlib and tifffile where Pillow
would not, and checked by `png_pixels`, a reader of a screen that shares nothing with those of srx.
"""

from __future__ import annotations

import io
import struct
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tifffile
from PIL import Image

W, H = 12, 10
Array = npt.NDArray[Any]
Y, X = np.mgrid[0:H, 0:W]
RGB = np.dstack([X * 20, Y * 25, (X + Y) * 11]).astype(np.uint8)
GREY = RGB[..., 0]
ALPHA = (255 - 20 * X).astype(np.uint8)
SIGNATURE = b"\x89PNG\r\n\x1a\n"

Case = tuple[str, bytes, Array | None]
"""Name, content, and samples (H, W, C) of 8 or 16 bits, or None for a refusal."""


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(
    bits: int, colour: int, rows: Array, extra: bytes = b"", *, size: tuple[int, int] = (W, H)
) -> bytes:
    """rows: (H, bytes) of packed samples."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", *size, bits, colour, 0, 0, 0))
    raw = b"".join(b"\0" + row.tobytes() for row in rows)
    return SIGNATURE + head + extra + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")


def packed(values: Array, bits: int) -> Array:
    unpacked = np.unpackbits(values[..., None], axis=2)[..., 8 - bits :]
    return np.packbits(unpacked.reshape(len(values), -1), axis=1)


def deep(values: Array) -> Array:
    return values.astype(np.uint16) * 257


def big(values: Array) -> Array:
    return deep(values).astype(">u2").reshape(H, -1)


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    data = io.BytesIO()
    image.save(data, kind, **options)
    return data.getvalue()


def pngs() -> Iterator[Case]:
    la, rgba = np.dstack([GREY, ALPHA]), np.dstack([RGB, ALPHA])
    for colour, values in ((0, GREY), (2, RGB), (4, la), (6, rgba)):
        flat = values.reshape(H, -1)
        yield f"png_{colour}_8", png(8, colour, flat), np.atleast_3d(values)
        yield f"png_{colour}_16", png(16, colour, big(values)), np.atleast_3d(deep(values))
    for bits in (1, 2, 4, 8, 16):
        few = GREY >> (8 - min(bits, 8))
        scaled = few * np.uint8(255 // (2 ** min(bits, 8) - 1))
        rows = big(GREY) if bits == 16 else packed(few, bits)
        wide: Array = deep(GREY) if bits == 16 else scaled
        yield f"png_grey_{bits}", png(bits, 0, rows), wide[..., None]
        key = int(deep(GREY)[0, 5]) if bits == 16 else int(few[0, 5])
        seen = (deep(GREY) if bits == 16 else few) != key
        alpha = np.where(seen, np.iinfo(wide.dtype).max, 0).astype(wide.dtype)
        extra = chunk(b"tRNS", struct.pack(">H", key))
        yield f"png_grey_{bits}_key", png(bits, 0, rows, extra), np.dstack([wide, alpha])
    for bits, values in ((8, RGB), (16, deep(RGB))):
        extra = chunk(b"tRNS", struct.pack(">3H", *map(int, values[3, 4])))
        alpha = np.where((values == values[3, 4]).all(2), 0, 2**bits - 1).astype(values.dtype)
        rows = RGB.reshape(H, -1) if bits == 8 else big(RGB)
        yield f"png_rgb_{bits}_key", png(bits, 2, rows, extra), np.dstack([values, alpha])
    palette = chunk(b"PLTE", bytes(range(48)))
    index = (X % 16).astype(np.uint8)
    colours = np.arange(48, dtype=np.uint8).reshape(16, 3)[index]
    for bits in (4, 8):
        yield f"png_palette_{bits}", png(bits, 3, packed(index, bits), palette), colours
        extra = palette + chunk(b"tRNS", b"\0\x80")
        alpha = np.array([0, 128, *[255] * 14], np.uint8)[index]
        rows = packed(index, bits)
        yield f"png_palette_{bits}_key", png(bits, 3, rows, extra), np.dstack([colours, alpha])
    text = chunk(b"tEXt", b"Title\0abc")
    for name, extra in {
        "wrong_crc": text.replace(b"\0abc", b"\0abd"),
        "huge_text": chunk(b"zTXt", b"x\0\0" + zlib.compress(bytes(3 << 20))),
        "bad_profile": chunk(b"iCCP", b"x\0\0" + zlib.compress(b"none")),
        "huge_profile": chunk(b"iCCP", b"x\0\0" + zlib.compress(bytes(3 << 20))),
        "bad_exif": chunk(b"eXIf", b"MM\0*\xff\xff\xff\xff"),
        "bad_gamma": chunk(b"gAMA", b"\0"),
        "bad_primaries": chunk(b"cHRM", b"\0" * 32) + chunk(b"gAMA", b"\0\0\0\1"),
        "bad_key": chunk(b"tRNS", b"\1"),
        "unknown": chunk(b"abCd", b"x" * 100),
        "many_texts": text * 3000,
    }.items():
        yield f"png_{name}", png(8, 2, RGB.reshape(H, -1), extra), RGB
    whole = png(8, 2, RGB.reshape(H, -1))
    for cut in (4, 12, 16, 18):
        yield f"png_without_last_{cut}", whole[:-cut], RGB
    for name, data in {
        "5_rows": png(8, 2, RGB.reshape(H, -1)[:5]),
        "half": whole[: len(whole) // 2],
        "header": whole[:30],
        "signature": whole[:8],
        "wrong_data_crc": whole[:-20] + bytes([whole[-20] ^ 1]) + whole[-19:],
        "bomb": png(16, 2, RGB.reshape(H, -1), size=(20_000, 20_000)),
        "two_headers": whole[:33] + whole[8:33] + whole[33:],
        "zero_wide": png(8, 2, RGB.reshape(H, -1), size=(0, H)),
        "odd_depth": png(5, 2, RGB.reshape(H, -1)),
        "critical": png(8, 2, RGB.reshape(H, -1), chunk(b"CgBI", b"x")),
    }.items():
        yield f"png_{name}", data, None


def tiffs() -> Iterator[Case]:
    for bits, change in ((8, np.asarray), (16, deep)):
        rgb, grey, alpha = change(RGB), change(GREY), change(ALPHA)
        straight = np.dstack([rgb, alpha])
        options: dict[str, tuple[Array, dict[str, Any], Array]] = {
            "rgb": (rgb, {"photometric": "rgb"}, rgb),
            "grey": (grey, {"photometric": "minisblack"}, grey[..., None]),
            "tiled": (rgb, {"photometric": "rgb", "tile": (16, 16)}, rgb),
            "big": (rgb, {"photometric": "rgb", "bigtiff": True}, rgb),
            "motorola": (rgb, {"photometric": "rgb", "byteorder": ">"}, rgb),
            "deflated": (rgb, {"photometric": "rgb", "compression": "zlib"}, rgb),
            "predicted": (
                rgb, {"photometric": "rgb", "compression": "zlib", "predictor": True}, rgb
            ),
            "planes": (
                np.moveaxis(rgb, 2, 0), {"photometric": "rgb", "planarconfig": "separate"}, rgb
            ),
            "rgba": (straight, {"photometric": "rgb", "extrasamples": ["unassalpha"]}, straight),
            "inverted": (
                np.iinfo(grey.dtype).max - grey, {"photometric": "miniswhite"}, grey[..., None]
            ),
        }  # fmt: skip
        for name, (samples, how, expected) in options.items():
            data = io.BytesIO()
            tifffile.imwrite(data, samples.copy(), **how)
            yield f"tiff_{name}_{bits}", data.getvalue(), expected
            if bits == 16 and name in ("rgb", "deflated", "planes"):
                yield f"tiff_{name}_cut", data.getvalue()[: len(data.getvalue()) * 2 // 3], None


def others() -> Iterator[Case]:
    image, grey = Image.fromarray(RGB), Image.fromarray(GREY)
    yield "bmp", encoded(image, "BMP"), RGB
    yield "tga", encoded(image, "TGA"), RGB
    yield "ppm", encoded(image, "PPM"), RGB
    yield "pgm", encoded(grey, "PPM"), GREY[..., None]
    yield "gif", encoded(grey, "GIF"), RGB[..., :1].repeat(3, 2)
    yield "jp2", encoded(image, "JPEG2000"), RGB
    yield "j2k", encoded(image, "JPEG2000", no_jp2=True), RGB
    yield "webp", encoded(image, "WEBP", lossless=True), RGB
    for white in (65_535, 1023):
        samples = (RGB.astype(np.uint32) * white // 255).astype(">u2")
        head = b"P6\n%d %d\n%d\n" % (W, H, white)
        exact = np.rint(samples.astype(np.float64) * 65_535 / white).astype(np.uint16)
        yield f"ppm_{white}", head + samples.tobytes(), exact
    for kind, options in (("JPEG", {}), ("JPEG", {"progressive": True}), ("MPO", {})):
        name = f"{kind}{len(options)}".lower()
        data = encoded(image, kind, quality=100, subsampling=0, **options)
        pixels = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
        yield name, data, pixels
        yield f"{name}_without_end", data[:-2], pixels
        yield f"{name}_half", data[: len(data) * 2 // 3], None
    for kind in ("BMP", "PPM", "JPEG2000", "WEBP", "GIF", "AVIF"):
        data = encoded(image, kind)
        yield f"{kind.lower()}_cut", data[: len(data) // 2], None
        yield f"{kind.lower()}_sixth", data[: len(data) // 6], None
    jp2 = encoded(image, "JPEG2000", no_jp2=True)
    yield (
        "j2k_larger",
        jp2.replace(struct.pack(">2I", W, H), struct.pack(">2I", 50_000, 50_000), 1),
        None,
    )
    frames = [image, image.rotate(180)]
    for kind in ("GIF", "PNG", "WEBP", "TIFF"):
        data = encoded(frames[0], kind, save_all=True, append_images=frames[1:])
        yield f"{kind.lower()}_animated", data, None
    for name, data in {"empty": b"", "text": b"Dear diary", "zeros": bytes(999)}.items():
        yield name, data, None


def cases() -> list[Case]:
    """All of them."""
    return [*pngs(), *tiffs(), *others()]


def png_pixels(data: bytes) -> Array:
    """The samples (H, W, C) of a PNG of 8 or 16 bits without palette and interlacing, in pure
    Python (PNG, third edition, §9)."""
    at, body, head = 8, b"", b""
    while at < len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        kind, content = data[at + 4 : at + 8], data[at + 8 : at + 8 + length]
        assert zlib.crc32(kind + content) == int.from_bytes(data[at + 8 + length :][:4], "big")
        head = content if kind == b"IHDR" else head
        body += content if kind == b"IDAT" else b""
        at += 12 + length
    assert kind == b"IEND"
    width, height, bits, colour, _, _, interlaced = struct.unpack(">IIBBBBB", head)
    assert bits in (8, 16)
    assert not interlaced
    channels = {0: 1, 2: 3, 4: 2, 6: 4}[colour]
    unit, raw = channels * bits // 8, zlib.decompress(body)
    stride = width * unit
    assert len(raw) == height * (stride + 1)
    above, rows = bytes(stride), []
    for top in range(0, len(raw), stride + 1):
        above = _unfiltered(raw[top], raw[top + 1 : top + 1 + stride], above, unit)
        rows.append(above)
    samples = np.frombuffer(b"".join(rows), ">u2" if bits == 16 else np.uint8)
    return samples.reshape(height, width, channels)


def _unfiltered(kind: int, line: bytes, above: bytes, unit: int) -> bytes:
    row = bytearray(line)
    for i, value in enumerate(line):
        a, b = row[i - unit] if i >= unit else 0, above[i]
        c = above[i - unit] if i >= unit else 0
        p = a + b - c
        nearest = min((abs(p - a), 0, a), (abs(p - b), 1, b), (abs(p - c), 2, c))[2]
        row[i] = (value + (0, a, b, (a + b) // 2, nearest)[kind]) & 255
    return bytes(row)


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for name, data, _ in cases():
        (folder / f"{name}.bin").write_bytes(data)
