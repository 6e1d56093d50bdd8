"""Samples of more than 8 bits, which Pillow cuts to 8 or does not read at all."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import tifffile

Floats = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]


def by_opencv(data: Bytes, bits: int, pillows: Floats, slack: int) -> Floats | None:
    """The samples (H, W, C) in [0, 1] of a file that OpenCV decodes in full, or None.

    OpenCV is mistaken about separate planes, premultiplied alpha and turned pictures, so its array
    counts only where it is Pillow's samples (H, W, C) in [0, 1], or within `slack` of 255 levels
    of them on average. White is 2^bits − 1.
    """
    samples = np.rint(pillows * 255).astype(np.uint8)
    decoded = cv2.imdecode(data, cv2.IMREAD_UNCHANGED)
    order = {1: [0], 2: [0, 3], 3: [2, 1, 0], 4: [2, 1, 0, 3]}[samples.shape[2]]  # of B, G, R, A
    if decoded is None or decoded.dtype != np.uint16:
        return None
    decoded = np.atleast_3d(decoded)
    if decoded.shape[2] <= max(order) or decoded.shape[:2] != samples.shape[:2]:
        return None
    wide = decoded[..., order]
    found: Floats = np.divide(wide, 2**bits - 1, dtype=np.float32)
    # In JPEG 2000 Pillow rounds its levels, and there so that white overflows to 0.
    alike = any(np.array_equal((wide + half).astype(np.uint16) >> 8, samples) for half in (0, 128))
    if not alike and (slack == 0 or np.abs(found - pillows).mean() > slack / 255):
        return None
    return found


def avif_bits(head: bytes) -> int:
    """Bits of an AVIF's samples (AV1-ISOBMFF, §2.3.3: the flags of its av1C box)."""
    at = head.find(b"av1C")
    flags = head[at + 6] if 0 <= at < len(head) - 6 else 0
    return 12 if flags & 0x60 == 0x60 else 10 if flags & 0x40 else 8


def pnm(data: bytes) -> Floats | None:
    """The samples (H, W, C) of a binary PGM or PPM of more than 8 bits, big-endian; or None."""
    head = re.match(rb"P([56])(?:\s+|\s*#[^\n]*\n)+(\d+)\s+(\d+)\s+(\d+)\s", data[:4096])
    if head is None or not 255 < int(head[4]) < 65_536:
        return None
    channels = 1 if head[1] == b"5" else 3
    shape = int(head[3]), int(head[2]), channels
    levels = np.frombuffer(data, ">u2", int(np.prod(shape)), head.end()).reshape(shape)
    samples: Floats = np.minimum(np.divide(levels, int(head[4]), dtype=np.float32), 1)
    return samples


def tiff_pages(file: tifffile.TiffFile) -> list[int]:
    """Numbers of the pages that are no thumbnails."""
    return [i for i, page in enumerate(file.pages) if not _tag(page, 254, 0) & 1]


def tiff(path: Path, max_pixels: int) -> tuple[Floats, int]:
    """Samples (H, W, C) in [0, 1] of a TIFF's only full-size page, alpha not multiplied into them,
    and their depth. C is 1 or 3, and one more with alpha.

    Raises ValueError where it is of another kind, and whatever tifffile does.
    """
    with tifffile.TiffFile(path) as file:
        pages = tiff_pages(file)
        if len(pages) != 1:
            raise ValueError("several pages")
        page: Any = file.pages[pages[0]]
        photometric, count = int(page.photometric), int(page.samplesperpixel)
        colours = {0: 1, 1: 1, 2: 3}.get(photometric, 0)
        pixels = page.imagewidth * page.imagelength * page.imagedepth
        if not colours or not colours <= count <= 8 or pixels > max_pixels:
            raise ValueError("neither grey nor RGB, or too large")
        raw = page.asarray()
        bits = page.bitspersample
        raw = np.moveaxis(raw, 0, -1) if int(page.planarconfig) == 2 and count > 1 else raw
        samples = _scaled(raw.reshape(page.imagelength, page.imagewidth, count), bits)
        extra = [int(kind) for kind in page.extrasamples]
    if photometric == 0:
        samples[..., 0] = 1 - samples[..., 0]
    alpha = next((colours + i for i, kind in enumerate(extra) if kind in (1, 2)), None)
    if alpha is None or alpha >= count:
        return samples[..., :colours], 8 if bits <= 8 else 16
    if extra[alpha - colours] == 1:
        seen = np.maximum(samples[..., alpha, None], np.float32(1e-6))
        samples[..., :colours] = np.minimum(samples[..., :colours] / seen, 1)
    return samples[..., [*range(colours), alpha]], 8 if bits <= 8 else 16


def tiff_header(path: Path) -> tuple[tuple[int, int], int, int]:
    """(width, height) as stored, orientation, and the number of pages that are no thumbnails."""
    with tifffile.TiffFile(path) as file:
        pages = tiff_pages(file)
        page: Any = file.pages[pages[0] if pages else 0]
        turn = _tag(page, 274, 1)
        size = page.imagewidth, page.imagelength
        return size, turn if turn in range(1, 9) else 1, len(pages)


def tiff_tags(path: Path) -> dict[str, Any]:
    """What Pillow would have had in `info`: icc_profile and xmp."""
    with tifffile.TiffFile(path) as file:
        page = file.pages[tiff_pages(file)[0]]
        info: dict[str, Any] = {}
        for name, number in (("icc_profile", 34675), ("xmp", 700)):
            if isinstance(value := _tag(page, number, None), bytes):
                info[name] = value
    return info


def _tag(page: Any, number: int, default: Any) -> Any:
    tag = page.tags.get(number)
    return default if tag is None else tag.value


def _scaled(raw: npt.NDArray[Any], bits: int) -> Floats:
    """In [0, 1]. Raises ValueError where floats go beyond it, or samples are signed."""
    if raw.dtype.kind == "f":
        found = raw.astype(np.float32)
        if not (found.min() >= 0 and found.max() <= 1):  # NaN too
            raise ValueError("floats beyond 0 and 1")
        return found
    if raw.dtype.kind not in "ub":
        raise ValueError("signed samples")
    exact = np.divide(raw, 2.0**bits - 1, dtype=np.float32 if bits <= 16 else np.float64)
    scaled: Floats = exact.astype(np.float32, copy=False)
    return scaled
