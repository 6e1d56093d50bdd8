"""An array in a file, so that what is as large as a picture counts little beside its strips."""

from __future__ import annotations

import math
from collections.abc import Iterator
from threading import Lock
from typing import Self

import numpy as np
import numpy.typing as npt

from sr_cli.engine.scratch import scratch

Values = npt.NDArray[np.uint8 | np.uint16 | np.float32]


class Shelf:
    """(…, H, W), of which rows are written and read, by several threads if need be.

    It is not mapped into memory, where its pages would count, and need room in an address space
    that may be limited. The file is gone with it. shape, dtype: the array's.
    """

    def __init__(self, shape: tuple[int, ...], dtype: npt.DTypeLike = np.float32) -> None:
        """Raises DeviceError where the disk has no room for all of it."""
        self.shape, self.dtype = shape, np.dtype(dtype)
        self._file, self._lock = scratch(math.prod(shape) * self.dtype.itemsize), Lock()

    @classmethod
    def of(cls, values: Values) -> Self:
        """With these values. Raises as `Shelf`."""
        shelf = cls(values.shape, values.dtype)
        shelf.put(slice(0, values.shape[-2]), values)
        return shelf

    def close(self) -> None:
        """Give the room back; may be called again."""
        self._file.close()

    def rows(self, span: slice) -> Values:
        """(…, h, W)."""
        *lead, _, width = self.shape
        found = np.empty((*lead, span.stop - span.start, width), self.dtype)
        with self._lock:
            for plane in self._planes(found, span):
                self._file.readinto(plane.data)  # type: ignore[attr-defined]
        return found

    def put(self, span: slice, values: Values) -> None:
        """values: (…, h, W)."""
        with self._lock:
            for plane in self._planes(values, span):
                left = np.ascontiguousarray(plane).data.cast("B")
                while left:  # Linux writes at most 2 GiB at a time
                    left = left[self._file.write(left) :]

    def _planes(self, values: Values, span: slice) -> Iterator[Values]:
        """Each (h, W), when the file is where its rows are."""
        height, width = self.shape[-2:]
        for number, plane in enumerate(values.reshape(-1, *values.shape[-2:])):
            self._file.seek((number * height + span.start) * width * self.dtype.itemsize)
            yield plane
