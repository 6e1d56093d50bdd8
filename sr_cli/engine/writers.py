"""PNG and TIFF, written row by row, so that no picture has to be in memory for it."""

from __future__ import annotations

import zlib
from itertools import accumulate
from typing import IO, Any, Final, Protocol

import numpy as np
import numpy.typing as npt
from PIL import TiffImagePlugin

from sr_cli.engine.png import SIGNATURE
from sr_cli.engine.png_pixels import Pixels, crc32

Samples = npt.NDArray[np.uint8 | np.uint16]
Shape = tuple[int, int, int]
"""Rows, columns and channels: 1 grey, 2 grey with alpha, 3 RGB, 4 RGB with alpha."""

BY_ROWS: Final = ("png", "tiff")
"""Formats that are written as rows come; encoders of the others take whole pictures."""
_STRIP_BYTES = 1 << 18  # of a TIFF, before compression
_CLASSIC: Final = (1 << 32) - (1 << 26)
"""Bytes of samples from which on a TIFF is a BigTIFF: offsets of 32 bits end a little later."""
_BIG: Final = b"II\x2b\0\x08\0\0\0" + (16).to_bytes(8, "little")
_LITTLE: Final = b"II\x2a\0" + bytes(4)
_LONG8: Final = 16


class Writer(Protocol):
    """What takes the rows of a picture from above to below."""

    def write(self, rows: Samples) -> None:
        """The next rows, (n, W) or (n, W, C)."""
        ...

    def close(self) -> None:
        """After the last row; the file stays open."""
        ...


class TiffWriter:
    """A little-endian TIFF, deflated with the horizontal predictor (TIFF 6.0, §14).

    Pillow writes neither 16-bit colour nor, compressed, the EXIF directory; OpenCV no metadata.
    """

    def __init__(
        self, file: IO[bytes], shape: Shape, dtype: npt.DTypeLike, tags: dict[int, Any]
    ) -> None:
        """tags: of the metadata. Raises what Pillow does where it cannot write them."""
        self._file, self._width, self._channels = file, shape[1], shape[2]
        bits = np.dtype(dtype).itemsize * 8
        row_bytes = shape[1] * shape[2] * bits // 8
        self._rows = max(1, _STRIP_BYTES // row_bytes)
        self._big = row_bytes * shape[0] > _CLASSIC
        self._tags = {
            **tags,
            256: shape[1], 257: shape[0], 258: (bits,) * shape[2], 277: shape[2],
            259: 8, 317: 2,  # Adobe deflate, horizontal differencing
            262: 2 if shape[2] >= 3 else 1,  # RGB or black is zero
            278: self._rows,
        }  # fmt: skip
        if shape[2] in (2, 4):
            self._tags[338] = 2  # alpha, not premultiplied
        self._lengths: list[int] = []
        self._rest: Samples = np.empty((0, shape[1], shape[2]), dtype)
        self._head([0] * -(-shape[0] // self._rows))  # room for what is known at the end

    def write(self, rows: Samples) -> None:
        """The next rows, (n, W) or (n, W, C)."""
        rows = rows.reshape(-1, self._width, self._channels)
        if len(self._rest):
            lacking = self._rows - len(self._rest)
            self._rest = np.concatenate([self._rest, rows[:lacking]])
            rows = rows[lacking:]
            if len(self._rest) == self._rows:
                self._strip(self._rest)
                self._rest = self._rest[:0]
        whole = len(rows) - len(rows) % self._rows
        for top in range(0, whole, self._rows):
            self._strip(rows[top : top + self._rows])
        if len(rows) > whole:
            self._rest = rows[whole:].copy()

    def close(self) -> None:
        """After the last row; the file stays open."""
        if len(self._rest):
            self._strip(self._rest)
        self._file.seek(0)
        self._head(self._lengths)
        self._file.seek(0, 2)

    def _head(self, lengths: list[int]) -> None:
        ifd = TiffImagePlugin.ImageFileDirectory_v2(_BIG if self._big else _LITTLE)
        for tag, value in self._tags.items():
            ifd[tag] = value
        ifd[273] = tuple(accumulate(lengths[:-1], initial=0))  # save() adds the start
        ifd[279] = tuple(lengths)
        if self._big:
            ifd.tagtype[273] = _LONG8
        ifd.save(self._file)

    def _strip(self, samples: Samples) -> None:
        differences = samples.copy()
        differences[:, 1:] -= samples[:, :-1]
        little = differences.astype(samples.dtype.newbyteorder("<"), copy=False)
        data = zlib.compress(little.tobytes())
        self._file.write(data)
        self._lengths.append(len(data))


class PngWriter:
    """A PNG of 8 or 16 bits."""

    def __init__(
        self,
        file: IO[bytes],
        shape: Shape,
        dtype: npt.DTypeLike,
        chunks: list[tuple[bytes, bytes]],
    ) -> None:
        """chunks: name and body of those between the header and the pixels."""
        height, width, channels = shape
        self._file = file
        itemsize = np.dtype(dtype).itemsize
        colour = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
        head = width.to_bytes(4, "big") + height.to_bytes(4, "big")
        file.write(SIGNATURE)
        self._chunk(b"IHDR", head + bytes([8 * itemsize, colour, 0, 0, 0]))
        for name, body in chunks:
            self._chunk(name, body)
        pixel = itemsize * channels
        self._pixels = Pixels(height, width * pixel, pixel)

    def write(self, rows: Samples) -> None:
        """The next rows, (n, W) or (n, W, C)."""
        for data in self._pixels.of(rows):
            self._chunk(b"IDAT", data)

    def close(self) -> None:
        """After the last row; the file stays open."""
        self._chunk(b"IEND", b"")

    def _chunk(self, name: bytes, body: bytes) -> None:
        self._file.write(len(body).to_bytes(4, "big") + name + body)
        self._file.write(crc32(body, crc32(name, 0)).to_bytes(4, "big"))
