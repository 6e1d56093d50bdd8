"""How pictures begin: which files are pictures, and why one cannot be read."""

import contextlib
import re
from pathlib import Path
from typing import Final

from sr_cli.errors import DamagedError, InputError

#: Extensions that count as images when a folder is walked. What a file is, its content decides.
SUFFIXES: Final = frozenset(
    {
        *(".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".tif", ".tiff", ".avif", ".heic"),
        *(".heif", ".bmp", ".gif", ".jp2", ".j2k", ".jpf", ".jpx", ".ppm", ".pgm", ".pnm", ".pbm"),
        *(".mpo", ".tga", ".apng"),
    }
)
CUT_HEADER: Final = 512
"""Bytes of a picture of which nothing but a part of its header is there."""
_HEIC = (b"heic", b"heix", b"hevc", b"mif1", b"msf1")
_TIFF = (b"II*\0", b"MM\0*")
_SIGNATURE = re.compile(
    rb"\x89PNG\r\n\x1a\n|\xff\xd8\xff|GIF8[79]a|RIFF....WEBP|\xff\x4f\xff\x51|P[1-6]\s+[#\d]"
    rb"|\0\0\0\x0cjP  \r\n|\xff\x0a|\0\0\0\x0cJXL |....ftyp(avif|heic|heix|mif1|msf1)",
    re.DOTALL,
)
"""Of formats that nothing but pictures has: raw camera files are TIFF, and BM begins a text too."""


def resembles_picture(path: Path) -> bool:
    """Whether a file whose suffix says nothing begins as a picture does."""
    with contextlib.suppress(OSError):
        if path.is_file():
            with path.open("rb") as file:
                return _SIGNATURE.match(file.read(32)) is not None
    return False


def unidentified(path: Path) -> InputError:
    """Why no decoder takes the file for its own; a DamagedError of the header that is left of a
    picture."""
    with path.open("rb") as file:
        head = file.read(CUT_HEADER)
    if not head:
        return InputError(f"{path} is empty (0 bytes).")
    if head[4:8] == b"ftyp" and head[8:12] in _HEIC:
        return InputError(f"{path} is a HEIC image; to read it, run pip install 'srx[heic]'.")
    if head[:2] == b"\xff\x0a" or head[4:8] == b"JXL ":
        return InputError(
            f"{path} is a JPEG XL image; to read it, install the package pillow-jxl-plugin."
        )
    tiff = head.startswith(_TIFF)
    cut = len(head) < CUT_HEADER and (tiff or _SIGNATURE.match(head) is not None)
    kind = DamagedError if cut else InputError
    if tiff:
        return kind(
            f"{path} is a TIFF of a kind that srx cannot read, such as floating-point colour, or "
            "its header is damaged; convert it to 8 or 16 bits first."
        )
    return kind(
        f"{path} is no image that can be read: its format is unknown or its header is damaged."
    )
