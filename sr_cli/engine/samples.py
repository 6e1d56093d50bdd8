"""Decoded images to samples in [0, 1]: their depth, their turn, and the profile that fits them."""

import contextlib
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, TiffImagePlugin

from sr_cli.engine import deep, profiles
from sr_cli.engine.metadata import Metadata
from sr_cli.errors import InputError

Floats = npt.NDArray[np.float32]
ROWS = 256
"""That are converted at a time."""


def samples_of(
    image: Image.Image, info: Metadata, notes: list[str]
) -> tuple[Floats, int, Metadata]:
    """Samples (H, W, C) in [0, 1], their depth, and the metadata that are true of them."""
    mode = "L" if image.mode in ("1", "L", "LA", "La") else "RGB"
    if image.has_transparency_data:
        mode += "A"
    icc = info.icc
    if image.mode == "CMYK":
        info = replace(info, icc=None)
        if icc and icc[16:20] == b"CMYK" and profiles.usable(icc, "CMYK"):
            image = profiles.to_srgb(image, icc)
        elif icc:
            notes.append("its colour profile is damaged and was left out")
    if image.mode != mode:
        image = image.convert(mode)
    samples = np.empty((image.height, image.width, len(mode)), np.float32)
    for top in range(0, image.height, ROWS):  # of all at once there would be two more copies
        rows = image.crop((0, top, image.width, min(image.height, top + ROWS)))
        part = np.atleast_3d(np.asarray(rows))
        np.divide(part, 255, out=samples[top : top + ROWS], dtype=np.float32)
    return samples, 8, info


def wide_gray(image: Image.Image, path: Path) -> Floats:
    """Greys (H, W, 1) of over 8 bits: integers are 16-bit, floats go from 0, black, to 1, white."""
    tags = image.tag_v2 if isinstance(image, TiffImagePlugin.TiffImageFile) else {}
    white = 1 if image.mode == "F" else 4095 if tags.get(258) == (12,) else 65_535
    gray = np.asarray(image, dtype=np.float32)
    low, high = gray.min(), gray.max()
    if not (low >= 0 and high <= white):  # NaN too
        raise InputError(
            f"{path} has grey levels from {low:g} to {high:g}; bring them to 0…{white} first."
        )
    white_is_zero = tags.get(262) == 0
    return ((white - gray if white_is_zero else gray) / np.float32(white))[..., None]


def upright(samples: Floats, orientation: int) -> Floats:
    """Turn an array (H, W, C) the way its EXIF orientation asks for."""
    if orientation in (5, 6, 7, 8):
        samples = samples.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        samples = samples[:, ::-1]
    if orientation in (3, 4, 7, 8):
        samples = samples[::-1]
    return samples


def fitting(icc: bytes | None, gray: bool, notes: list[str]) -> bytes | None:
    """The ICC profile if it is one of such pixels (ICC.1:2022, §7.2.8: byte 16 of its header)."""
    if not icc:
        return None
    if icc[16:20] != (b"GRAY" if gray else b"RGB "):
        if icc[36:40] != b"acsp" or icc[16:20] not in (b"GRAY", b"RGB ", b"CMYK"):
            notes.append("its colour profile is damaged and was left out")
        return None
    if not profiles.usable(icc, "L" if gray else "RGB"):
        notes.append("its colour profile is damaged and was left out")
        return None
    return icc


def uncut(path: Path, kind: str, page: int, cut: Floats, max_pixels: int) -> tuple[Floats, int]:
    """Samples (H, W, C) in their own depth where Pillow has `cut` them to 8 bits; and the bits that
    were lost all the same, 8 or 0 for none.

    kind: Pillow's name of the format. page: of a TIFF.
    """
    with path.open("rb") as file:
        head = file.read(1 << 14)
    if kind == "PPM":
        plain = re.match(rb"P[23]\s+\d+\s+\d+\s+(\d+)", head)
        wide, bits = deep.pnm(path.read_bytes()), 16 if plain and int(plain[1]) > 255 else 8
    elif kind == "TIFF":
        wide, bits = deep.by_opencv(_bytes(path), 16, cut, 0) if page == 0 else None, 16
        with contextlib.suppress(Exception):  # of a compression that tifffile has no codec for
            wide = deep.tiff(path, max_pixels)[0] if wide is None else wide
    elif kind == "AVIF":
        bits = deep.avif_bits(head)
        wide = deep.by_opencv(_bytes(path), bits, cut, 2)
    else:
        wide, bits = deep.by_opencv(_bytes(path), 16, cut, 0), 8
    return (cut, bits) if wide is None else (wide, 0)


def _bytes(path: Path) -> npt.NDArray[np.uint8]:
    return np.fromfile(path, np.uint8)


def deepened(data: bytes, cut: Floats, notes: list[str]) -> tuple[Floats, int]:
    """The samples of a PNG of 16 bits, which Pillow has `cut` to 8, and their depth."""
    wide = deep.by_opencv(np.frombuffer(data, np.uint8), 16, cut, 0)
    if wide is None:
        notes.append("16 bits became 8")
        return cut, 8
    return wide, 16


def code_points(path: Path, gray: bool, notes: list[str]) -> bytes | None:
    """The colour space that an AVIF or HEIC file states in numbers (ISO/IEC 23091-2, box colr)."""
    with path.open("rb") as file:
        head = file.read(1 << 16)
    at = head.find(b"colrnclx")
    if at < 0 or len(head) < at + 12:
        return None
    primaries, transfer = head[at + 9], head[at + 11]
    icc, note = profiles.of_code_points(primaries, transfer, gray=gray)
    notes += [note] * bool(note)
    return icc
