"""The pixels of a PNG as a zlib stream: filtered and deflated in strips, on torch's threads.

Of a photograph what the average of the left and the upper neighbour leaves is kept (PNG, third
edition, §9.2: filter type 3). That has no repetitions worth a search, so Huffman codes alone give
the smallest files in a fraction of the time. A drawing has some, and more in what the upper
neighbour alone leaves (type 2).
"""

import zlib as standard
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Final

import numpy as np
import numpy.typing as npt

try:
    from zlib_ng import zlib_ng
except ImportError:  # twice as slow, and the same pixels
    zlib: Any = standard
else:
    zlib = zlib_ng

crc32: Callable[[bytes, int], int] = zlib.crc32
"""As the standard library's, in a tenth of the time where it can be."""
Bytes = npt.NDArray[np.uint8]
"""Rows: (height, bytes)."""

STRIP: Final = 1 << 20
"""Bytes of filtered rows: small against a picture, and large against what ends a strip."""
DRAWN_FROM: Final = 0.125
"""Share of zeros that come eight at a time in what is left of a strip, from which it is a drawing.
A smooth photograph has many more, but alone, and a search for them makes it larger."""
AVERAGE, UP = 3, 2
"""Types of filters."""
LEVEL: Final = 3
"""Of zlib's search in drawings."""
_BEGIN: Final = b"\x78\x01"  # of a stream with windows of 32 KiB
_MODULUS: Final = 65_521  # of Adler's checksum


def stream(samples: npt.NDArray[np.uint8 | np.uint16]) -> Iterator[bytes]:
    """The stream of (H, W) or (H, W, C) in pieces. The same for any number of cores."""
    return Pixels(len(samples), samples[0].nbytes, samples[0, 0].nbytes).of(samples)


class Pixels:
    """The stream of a picture whose rows come in parts: the same for any parts."""

    def __init__(self, height: int, row: int, pixel: int) -> None:
        """height: rows in all. row, pixel: bytes of one."""
        self._left, self._pixel = height, pixel
        self._strip = max(1, STRIP // row)
        self._above, self._rest = np.zeros(row, np.uint8), np.empty((0, row), np.uint8)
        self._begin, self._checksum = _BEGIN, 1

    def of(self, samples: npt.NDArray[np.uint8 | np.uint16]) -> Iterator[bytes]:
        """Pieces of the stream when these rows, (n, W) or (n, W, C), have come too."""
        rows = samples.astype(samples.dtype.newbyteorder(">"), copy=False).view(np.uint8)
        rows = rows.reshape(len(samples), -1)
        if len(self._rest):
            rows = np.concatenate([self._rest, rows])
        whole = len(rows) if len(rows) == self._left else len(rows) // self._strip * self._strip
        tops = range(0, whole, self._strip)
        import torch

        with ThreadPoolExecutor(max_workers=torch.get_num_threads()) as pool:
            deflated = partial(self._deflated, rows)
            results = (pool.map if len(tops) > 1 else map)(deflated, tops)
            for top, (data, own, length) in zip(tops, results, strict=True):
                self._checksum = _joined(self._checksum, own, length)
                last = top + self._strip >= self._left
                yield self._begin + data + self._checksum.to_bytes(4, "big") * last
                self._begin = b""
        if whole:
            self._above = rows[whole - 1].copy()
        self._rest = rows[whole:].copy()
        self._left -= whole

    def _deflated(self, rows: Bytes, top: int) -> tuple[bytes, int, int]:
        """Of the strip that begins there: its part of the stream, its checksum, its length."""
        own = rows[top : top + self._strip]
        above = np.zeros_like(own)
        above[1:] = own[:-1]
        above[:1] = rows[top - 1] if top else self._above
        raw, strategy = _from_average(own, above, self._pixel), zlib.Z_HUFFMAN_ONLY
        if _plain(raw) > DRAWN_FROM:
            raw, strategy = _from_above(own, above), zlib.Z_DEFAULT_STRATEGY
        deflate = zlib.compressobj(LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS, 9, strategy)
        end = zlib.Z_FINISH if top + self._strip >= self._left else zlib.Z_FULL_FLUSH
        return deflate.compress(raw) + deflate.flush(end), zlib.adler32(raw), raw.nbytes


def _from_above(own: Bytes, above: Bytes) -> Bytes:
    result = np.empty((len(own), 1 + own.shape[1]), np.uint8)
    result[:, 0] = UP
    np.subtract(own, above, out=result[:, 1:])
    return result


def _from_average(own: Bytes, above: Bytes, pixel: int) -> Bytes:
    result = np.empty((len(own), 1 + own.shape[1]), np.uint8)
    result[:, 0] = AVERAGE
    np.subtract(own[:, :pixel], above[:, :pixel] >> 1, out=result[:, 1 : 1 + pixel])
    left, above = own[:, :-pixel], above[:, pixel:]
    average = left ^ above
    average >>= 1
    average += left & above  # rounded down, without a ninth bit
    np.subtract(own[:, pixel:], average, out=result[:, 1 + pixel :])
    return result


def _plain(raw: Bytes) -> float:
    """The share of eight bytes side by side that are all zeros, from every eighth row."""
    some = raw[::8].ravel()
    eights = some[: some.size // 8 * 8].view(np.uint64)
    return 1 - np.count_nonzero(eights) / max(1, eights.size)


def _joined(first: int, second: int, length: int) -> int:
    """Adler's checksum of two pieces, the second of so many bytes."""
    low = (first & 0xFFFF) + (second & 0xFFFF) - 1
    high = (first >> 16) + (second >> 16) + length * ((first & 0xFFFF) - 1)
    return (high % _MODULUS) << 16 | low % _MODULUS
