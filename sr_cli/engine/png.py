"""PNG before a decoder sees it: its chunks checked one by one, so that a damaged or huge text costs
no picture, and a picture that ends early is never completed with black.

Third edition of the PNG specification; numbers of sections below are its own.
"""

import io
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Final

from PIL import Image

from sr_cli.engine.png_pixels import crc32, zlib
from sr_cli.errors import DamagedError

SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
MAX_SIDE_DATA: Final = 1 << 20
"""Bytes of a text or profile once inflated: the most that Pillow, and so most programs, read."""

_COLOURS: frozenset[bytes] = frozenset({b"gAMA", b"cHRM", b"sRGB", b"cICP"})
_KEPT = _COLOURS | {b"tRNS", b"iCCP", b"pHYs", b"eXIf"}
_TEXTS = {b"tEXt", b"zTXt", b"iTXt"}
_MAX_KEPT = 2000  # chunks
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_BITS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
_PASSES = (  # of Adam7 (§8.1): x0, y0, dx, dy
    (0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)
)  # fmt: skip


@dataclass(frozen=True)
class Header:
    """IHDR (§11.2.1), and what else is known before the pixels.

    frames: 1 but for an animation. exif: the bytes of eXIf.
    """

    width: int
    height: int
    bits: int
    colour: int
    interlaced: bool
    frames: int = 1
    exif: bytes = b""

    @property
    def raw_bytes(self) -> int:
        """How many bytes the inflated picture has, filter types included."""
        passes = _PASSES if self.interlaced else ((0, 0, 1, 1),)
        bits = self.bits * _CHANNELS[self.colour]
        total = 0
        for x0, y0, dx, dy in passes:
            wide = max(0, -(-(self.width - x0) // dx))
            high = max(0, -(-(self.height - y0) // dy))
            total += high * (1 + (wide * bits + 7) // 8) if wide else 0
        return total


@dataclass(frozen=True)
class Cleaned:
    """A PNG that any decoder takes.

    data: critical chunks and the sound ones beside them, without tRNS where `key` tells of it.
    key: the transparent grey or colour (§11.3.1.1), in samples of the file's own depth.
    ancillary: bodies of the first gAMA, cHRM, sRGB, cICP by name. profile: whether iCCP is there.
    notes: what was wrong.
    """

    header: Header
    data: bytes
    key: tuple[int, ...] | None
    ancillary: dict[bytes, bytes]
    profile: bool
    notes: tuple[str, ...]


def is_png(path: Path) -> bool:
    """Whether the file begins as one."""
    with path.open("rb") as file:
        return file.read(8) == SIGNATURE


def header(path: Path) -> Header:
    """The header alone, without reading pixels. Raises DamagedError where it is damaged."""
    found: Header | None = None
    frames, exif = 1, b""
    with path.open("rb") as file:
        file.seek(8)
        while (head := _head(file)) is not None:
            length, name = head
            if found is None or name in (b"acTL", b"eXIf"):
                body = file.read(min(length, 1 << 16))
                file.seek(length - len(body) + 4, 1)
                if found is None:
                    found = _ihdr(path, name, body)
                elif name == b"acTL" and len(body) == 8:
                    frames = struct.unpack(">I", body[:4])[0]
                elif name == b"eXIf":
                    exif = body
            else:
                file.seek(length + 4, 1)
            if name == b"IEND":
                break
    if found is None:
        raise DamagedError(f"{path} is damaged: it ends in its header.")
    return replace(found, frames=frames, exif=exif)


def clean(path: Path, found: Header) -> Cleaned:
    """What a decoder gets. found: of `header`, whose size the caller has agreed to.

    Raises DamagedError where pixels are missing or a critical chunk is damaged.
    """
    notes: list[str] = []
    palette, pieces, side = b"", list[bytes](), list[tuple[bytes, bytes]]()
    headed = ended = False
    with path.open("rb") as file:
        file.seek(8)
        for name, body, whole, sound in _chunks(file):
            if name == b"IEND":
                ended = sound
                break
            critical = not name[:1].islower()
            if critical and not sound and not (name == b"IDAT" and not whole):
                raise DamagedError(
                    f"{path} is damaged: the checksum of its {_text(name)} is wrong."
                )
            if name == b"IDAT":
                pieces.append(body)
            elif name == b"PLTE":
                palette = body
            elif critical and (name != b"IHDR" or headed):
                raise DamagedError(f"{path} is damaged: it has a chunk {_text(name)} out of place.")
            elif name == b"IHDR":
                headed = True
            elif name in _KEPT | _TEXTS and len(side) < _MAX_KEPT:
                if sound and whole:
                    side.append((name, body))
                else:
                    notes.append(f"a damaged {_text(name)} was left out")
    data = _pixels(path, found, b"".join(pieces), notes)
    if not ended:
        notes.append("the end of the file is missing")
    kept = _sound(found, palette, side, notes)
    return _assembled(found, palette, data, kept, notes)


def _assembled(
    found: Header,
    palette: bytes,
    data: bytes,
    kept: list[tuple[bytes, bytes]],
    notes: list[str],
) -> Cleaned:
    key = None
    first: dict[bytes, bytes] = {}
    for name, body in kept:
        first.setdefault(name, body)
    if b"tRNS" in first and found.colour in (0, 2):
        values = struct.unpack(f">{_CHANNELS[found.colour]}H", first[b"tRNS"])
        key = tuple(value & ((1 << found.bits) - 1) for value in values)
        kept = [chunk for chunk in kept if chunk[0] != b"tRNS"]
    colours: dict[bytes, bytes] = {k: body for k, body in first.items() if k in _COLOURS}
    stream = _chunk(b"PLTE", palette) if palette else b""
    stream += b"".join(_chunk(*chunk) for chunk in kept)
    whole = SIGNATURE + _chunk(b"IHDR", _ihdr_body(found)) + stream + _chunk(b"IDAT", data)
    return Cleaned(
        found, whole + _chunk(b"IEND", b""), key, colours, b"iCCP" in first, tuple(notes)
    )


def _head(file: IO[bytes]) -> tuple[int, bytes] | None:
    head = file.read(8)
    return (int.from_bytes(head[:4], "big"), head[4:]) if len(head) == 8 else None


def _chunks(file: IO[bytes]) -> Iterator[tuple[bytes, bytes, bool, bool]]:
    """Name, body, whether it is whole, and whether its checksum is right."""
    size = os.fstat(file.fileno()).st_size
    while (head := _head(file)) is not None:
        length, name = head
        body = file.read(min(length, size))  # the length may be a lie of four gigabytes
        crc = file.read(4)
        whole = len(body) == length and len(crc) == 4
        yield name, body, whole, crc == crc32(body, crc32(name, 0)).to_bytes(4, "big")


def _ihdr(path: Path, name: bytes, body: bytes) -> Header:
    if name != b"IHDR" or len(body) != 13:
        raise DamagedError(f"{path} is damaged: it does not begin with a header.")
    width, height, bits, colour, packing, filtering, interlace = struct.unpack(">IIBBBBB", body)
    if bits not in _BITS.get(colour, ()) or packing or filtering or interlace > 1:
        raise DamagedError(f"{path} is damaged: its header describes no PNG.")
    if not (0 < width < 1 << 31 and 0 < height < 1 << 31):
        raise DamagedError(f"{path} is damaged: its header says {width}×{height} pixels.")
    return Header(width, height, bits, colour, bool(interlace))


def _ihdr_body(found: Header) -> bytes:
    return struct.pack(
        ">IIBBBBB", found.width, found.height, found.bits, found.colour, 0, 0, found.interlaced
    )


def _pixels(path: Path, found: Header, data: bytes, notes: list[str]) -> bytes:
    """The compressed pixels, when all of them are there; else DamagedError.

    They are inflated piece by piece and not kept, so that a lie in the header takes no memory.
    """
    inflater, rest, seen = zlib.decompressobj(), data, 0
    try:
        while seen < found.raw_bytes or not inflater.eof:
            part = inflater.decompress(rest, MAX_SIDE_DATA)
            rest = inflater.unconsumed_tail
            seen += len(part)
            if not (part or rest) or seen > found.raw_bytes + MAX_SIDE_DATA:
                break
    except zlib.error as error:
        raise DamagedError(
            f"{path} is damaged: its pixels cannot be inflated ({error})."
        ) from error
    if seen < found.raw_bytes:
        share = int(100 * seen / found.raw_bytes)
        raise DamagedError(f"{path} is damaged: only {share} % of its pixels are there.")
    if inflater.eof:
        return data
    notes.append("the last bytes of the pixels are missing, but no pixel is")
    whole: bytes = zlib.compress(zlib.decompressobj().decompress(data, found.raw_bytes), 1)
    return whole


def _sound(
    found: Header, palette: bytes, side: list[tuple[bytes, bytes]], notes: list[str]
) -> list[tuple[bytes, bytes]]:
    """The side data that Pillow reads, each tried in a picture of its own: a broken or an inflated
    one would cost the whole file."""
    kept, texts = [], 0
    head = struct.pack(">IIBBBBB", 1, 1, found.bits, found.colour, 0, 0, 0)
    begin = SIGNATURE + _chunk(b"IHDR", head) + (_chunk(b"PLTE", palette) if palette else b"")
    end = _chunk(b"IDAT", b"") + _chunk(b"IEND", b"")
    for name, body in side:
        texts += len(body) if name in _TEXTS else 0
        try:
            if texts > 16 * MAX_SIDE_DATA:
                raise ValueError("too many texts")
            if name == b"tRNS" and len(body) != 2 * _CHANNELS[found.colour] and found.colour != 3:
                raise ValueError("of another length")
            with Image.open(io.BytesIO(begin + _chunk(name, body) + end), formats=("PNG",)):
                kept.append((name, body))
        except Exception:  # Pillow raises nearly anything here
            what = _text(body.split(b"\0")[0][:79]) if name in _TEXTS else ""
            notes.append(f"a {_text(name)} {what}".rstrip() + " is damaged or too large: left out")
    return kept


def _chunk(name: bytes, body: bytes) -> bytes:
    crc = crc32(body, crc32(name, 0))
    return len(body).to_bytes(4, "big") + name + body + crc.to_bytes(4, "big")


def _text(name: bytes) -> str:
    return name.decode("latin-1")
