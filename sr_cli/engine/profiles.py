"""Colour spaces: ICC profiles that are checked, made of what a file says, or applied."""

from __future__ import annotations

import io
import struct
from collections.abc import Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

Matrix = NDArray[np.float64]

WHITE_D65: Final = (0.3127, 0.3290)
PRIMARIES: Final = {  # ITU-T H.273, table 2: red, green and blue in x, y, and white
    1: ((0.64, 0.33), (0.30, 0.60), (0.15, 0.06), WHITE_D65),
    9: ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046), WHITE_D65),
    11: ((0.68, 0.32), (0.265, 0.69), (0.15, 0.06), (0.314, 0.351)),
    12: ((0.68, 0.32), (0.265, 0.69), (0.15, 0.06), WHITE_D65),
}
_CURVES: Final = {4: 2.2, 5: 2.8, 8: 1.0}  # H.273, table 3: powers
_LIKE_SRGB = {1, 2, 6, 13, 14, 15}  # what photographs with BT.709's curve are shown as
_BRADFORD: Matrix = np.array(
    [[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]]
)
_D50: Matrix = np.array([0.9642, 1.0, 0.8249])


def usable(icc: bytes, mode: str) -> bool:
    """Whether a profile can be applied to an image of this mode."""
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(icc))
        ImageCms.buildTransform(profile, ImageCms.createProfile("sRGB"), mode, "RGB")
    except Exception:  # whatever a damaged profile makes of LittleCMS and Pillow
        return False
    return True


def to_srgb(image: Image.Image, icc: bytes) -> Image.Image:
    """8-bit RGB of an image in the colour space of an ICC profile, relative colorimetric."""
    srgb = ImageCms.profileToProfile(
        image,
        ImageCms.ImageCmsProfile(io.BytesIO(icc)),
        ImageCms.createProfile("sRGB"),
        renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
        outputMode="RGB",
        flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
    )
    assert srgb is not None  # None comes only of a conversion in place
    srgb.info.pop("icc_profile", None)
    return srgb


def of_png(chunks: Mapping[bytes, bytes], *, gray: bool) -> tuple[bytes | None, str]:
    """The profile that cICP, or else gAMA and cHRM, describe (PNG, third edition, §4.3), None for
    sRGB; and what must be said of it."""
    if len(chunks.get(b"cICP", b"")) == 4:
        return of_code_points(chunks[b"cICP"][0], chunks[b"cICP"][1], gray=gray)
    if b"sRGB" in chunks or b"gAMA" not in chunks:
        return None, ""
    gamma = int.from_bytes(chunks[b"gAMA"][:4], "big") / 100_000
    primaries = PRIMARIES[1]
    if len(chunks.get(b"cHRM", b"")) == 32:
        v = [value / 100_000 for value in struct.unpack(">8I", chunks[b"cHRM"])]
        primaries = ((v[2], v[3]), (v[4], v[5]), (v[6], v[7]), (v[0], v[1]))
    plain = np.abs(np.subtract(primaries, PRIMARIES[1])).max() < 0.002
    if plain and abs(gamma - 1 / 2.2) < 0.002:
        return None, ""
    if not 0.1 <= gamma <= 10:
        return None, "its gamma makes no sense and was left out"
    return _made(primaries, 1 / gamma, gray=gray)


def of_code_points(primaries: int, transfer: int, *, gray: bool) -> tuple[bytes | None, str]:
    """The profile of H.273's code points, None for sRGB; and what must be said of them."""
    if transfer in (16, 18):
        kind = "PQ" if transfer == 16 else "HLG"
        return None, f"high dynamic range ({kind}): its levels are kept, but not what they mean"
    if primaries == 2 or (primaries == 1 and transfer in _LIKE_SRGB):
        return None, ""
    if primaries not in PRIMARIES or transfer not in _LIKE_SRGB | set(_CURVES):
        return None, f"its colour space (H.273: {primaries}, {transfer}) is taken for sRGB"
    return _made(PRIMARIES[primaries], _CURVES.get(transfer), gray=gray)


def _made(
    primaries: tuple[tuple[float, float], ...], power: float | None, *, gray: bool
) -> tuple[bytes | None, str]:
    try:
        icc = _profile(primaries, power, gray=gray)
    except (np.linalg.LinAlgError, struct.error, ZeroDivisionError):
        return None, "its primaries make no colour space and were left out"
    return (icc, "") if usable(icc, "L" if gray else "RGB") else (None, "its colour space is odd")


def _profile(
    primaries: tuple[tuple[float, float], ...], power: float | None, *, gray: bool
) -> bytes:
    """An ICC v2 matrix profile (ICC.1:2001) of primaries and white in x, y, and of a power or
    sRGB's curve."""
    columns = np.array([[x / y, 1, (1 - x - y) / y] for x, y in primaries[:3]]).T
    x, y = primaries[3]
    white = np.array([x / y, 1, (1 - x - y) / y])
    to_xyz = columns * np.linalg.solve(columns, white)
    adapt = np.linalg.inv(_BRADFORD) @ np.diag((_BRADFORD @ _D50) / (_BRADFORD @ white)) @ _BRADFORD
    tags = {b"desc": _description(), b"cprt": b"text\0\0\0\0CC0\0", b"wtpt": _xyz(_D50)}
    if gray:
        tags[b"kTRC"] = _curve(power)
    else:
        for name, column in zip((b"r", b"g", b"b"), (adapt @ to_xyz).T, strict=True):
            tags |= {name + b"XYZ": _xyz(column), name + b"TRC": _curve(power)}
    table, body = struct.pack(">I", len(tags)), b""
    start = 128 + 4 + 12 * len(tags)
    for name, element in tags.items():
        table += name + struct.pack(">II", start + len(body), len(element))
        body += element + bytes(-len(element) % 4)
    space = b"GRAY" if gray else b"RGB "
    head = struct.pack(">4xI4s4s4s12x4s", 0x02400000, b"mntr", space, b"XYZ ", b"acsp")
    head = head.ljust(64, b"\0") + _xyz(_D50)[4:]
    whole = head.ljust(124, b"\0")[:124] + table + body
    return struct.pack(">I", len(whole) + 4) + whole


def _description() -> bytes:
    name = b"as the file said\0"
    return b"desc\0\0\0\0" + struct.pack(">I", len(name)) + name + bytes(12 + 67)


def _xyz(value: Matrix) -> bytes:
    return b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(v * 65536) for v in value))


def _curve(power: float | None) -> bytes:
    if power is not None:
        return b"curv\0\0\0\0" + struct.pack(">IH", 1, round(power * 256))
    level = np.linspace(0, 1, 1024)
    linear = np.where(level <= 0.04045, level / 12.92, ((level + 0.055) / 1.055) ** 2.4)
    table = np.rint(linear * 65535).astype(">u2")
    return b"curv\0\0\0\0" + struct.pack(">I", len(table)) + bytes(table.tobytes())
