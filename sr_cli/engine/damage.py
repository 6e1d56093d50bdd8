"""Whether a JPEG or JPEG 2000 file that its decoder would complete by itself is whole."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from typing import Final

from PIL import Image

_EOI = b"\xff\xd9"
_STANDALONE = {0x01, *range(0xD0, 0xD9)}
_FRAMES = {0xC0, 0xC1, 0xC2, 0xC9, 0xCA}
_NEEDED: Final = {*range(0xC0, 0xE0), 0xEE}  # what decodes pixels, with Adobe's word on colours


def completed_jpeg(data: bytes) -> bytes | None:
    """A JPEG that lacks its end alone, with it; None where pixels are missing too.

    No decoder tells of those, but each would use further bits if it lacked any: where two different
    continuations give the same picture, none are missing. A progressive file may also lack whole
    scans, which its other scans tell of.
    """
    if not _all_scans(data):
        return None
    data = data.removesuffix(b"\xff")
    one, other = (data + tail * 64 + _EOI for tail in (b"\xaa", b"\x55"))
    with _opened(one) as first, _opened(other) as second:
        same = first.tobytes() == second.tobytes()
    return data + _EOI if same else None


def bare_jpeg(data: bytes) -> bytes:
    """The JPEG without the segments that pixels do not need (EXIF, XMP, ICC, comments, …)."""
    kept = [data[:2]]
    begin = 2
    for marker, start, end in _segments(data):
        if marker in _NEEDED:
            kept.append(data[start:end])
        begin = end
    return b"".join(kept) + data[begin:]


def check_jpeg2000(data: bytes, size: tuple[int, int]) -> str | None:
    """None where every tile part is there and the size is the code stream's own; else what is
    wrong (ISO/IEC 15444-1, A.4.2 and A.5.1)."""
    begin = data.find(b"\xff\x4f\xff\x51")
    if begin < 0 or len(data) < begin + 40:
        return "it has no code stream"
    x1, y1, x0, y0 = struct.unpack_from(">4I", data, begin + 8)
    own = x1 - x0, y1 - y0
    if own != size:
        return f"its code stream has {own[0]}×{own[1]} pixels, its header {size[0]}×{size[1]}"
    at = begin + 2
    while data[at : at + 2] != b"\xff\x90":
        if at + 4 > len(data) or data[at] != 0xFF:
            return "its code stream ends in its header"
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    while data[at : at + 2] == b"\xff\x90":
        length = int.from_bytes(data[at + 6 : at + 10], "big")
        if length == 0:  # the last one, up to the end
            return None if data.rfind(_EOI) > at else "its end is missing"
        if length < 14:
            return "a tile is damaged"
        at += length
    return None if len(data) >= at else "its end is missing"


def _opened(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data), formats=("JPEG", "MPO"))
    image.load()
    return image


def _segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Marker, start and end of each segment before the first scan's data."""
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:
            at += 1
            continue
        if marker == 0xDA:
            return
        length = 0 if marker in _STANDALONE else int.from_bytes(data[at + 2 : at + 4], "big")
        end = at + 2 + length
        yield marker, at, end
        at = end


def _all_scans(data: bytes) -> bool:
    """Whether the scans of a JPEG, by their headers, give every coefficient in full precision."""
    frames = [data[start + 4 : end] for marker, start, end in _segments(data) if marker in _FRAMES]
    if not frames or len(frames[0]) < 6:
        return False
    components = {frames[0][6 + 3 * i] for i in range(frames[0][5]) if 6 + 3 * i < len(frames[0])}
    missing = {(component, k) for component in components for k in range(64)}
    at = data.find(b"\xff\xda")
    while at >= 0 and at + 5 <= len(data):
        count = data[at + 4]
        body = data[at + 5 : at + 8 + 2 * count]
        if len(body) == 2 * count + 3:
            first, last, low = body[-3], body[-2], body[-1] & 15
            if low == 0:
                done = body[: 2 * count : 2]
                missing -= {(c, k) for c in done for k in range(first, last + 1)}
        at = data.find(b"\xff\xda", at + 2)
    return not missing
