"""An array in a file, so that a large input counts little beside what is made of it."""

from __future__ import annotations

import math
from threading import Lock

import numpy as np
import numpy.typing as npt

from sr_cli.engine.scratch import scratch

Integers = npt.NDArray[np.uint8 | np.uint16 | np.float32]


class Shelf:
    """(…, H, W), of which rows are read, by several threads if need be.

    It is not mapped into memory, where its pages would count. shape, dtype: the array's.
    """

    def __init__(self, values: Integers) -> None:
        """Raises DeviceError where the disk has no room."""
        self.shape, self.dtype = values.shape, values.dtype
        self._file, self._lock = scratch(values.nbytes), Lock()
        for row in values.reshape(-1, values.shape[-1]):
            self._file.write(np.ascontiguousarray(row).data)

    def rows(self, span: slice) -> Integers:
        """(…, h, W)."""
        *lead, height, width = self.shape
        found = np.empty((math.prod(lead), span.stop - span.start, width), self.dtype)
        row = width * self.dtype.itemsize
        with self._lock:
            for number, plane in enumerate(found):
                self._file.seek((number * height + span.start) * row)
                self._file.readinto(plane.data)  # type: ignore[attr-defined]
        return found.reshape(*lead, *found.shape[1:])

    def close(self) -> None:
        """Give the room back."""
        self._file.close()
