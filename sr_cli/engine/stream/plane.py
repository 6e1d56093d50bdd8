"""Values of a whole picture in a file, read and written by windows, by several threads if need
be."""

from __future__ import annotations

from threading import Lock
from types import TracebackType
from typing import Self

import numpy as np
import torch
from torch import Tensor

from sr_cli.engine.scratch import scratch
from sr_cli.engine.stream.windows import size_of
from sr_cli.engine.tiling import Window

CHANNELS = 3
ITEM = 4
"""Bytes of a float32."""


class Plane:
    """(1, 3, H, W) float32 in a file, which is gone with it.

    It is not mapped into memory, where its pages would count, and need room in an address space
    that may be limited.
    """

    def __init__(self, size: tuple[int, int]) -> None:
        """size: H and W. Raises DeviceError where the disk has no room for all of it."""
        self._size = size
        self._file, self._lock = scratch(CHANNELS * size[0] * size[1] * ITEM), Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give the room back; may be called again."""
        self._file.close()

    def read(self, window: Window) -> Tensor:
        """(1, 3, h, w) on the CPU."""
        values = np.empty((CHANNELS, *size_of(window)), np.float32)
        with self._lock:
            for channel, rows in enumerate(values):
                for row, line in enumerate(rows, start=window[0].start):
                    self._seek(channel, row, window[1].start)
                    self._file.readinto(line.data)  # type: ignore[attr-defined]
        return torch.from_numpy(values)[None]

    def write(self, window: Window, values: Tensor) -> None:
        """values: (1, 3, h, w) of any device."""
        planes = values[0].cpu().contiguous().numpy()
        with self._lock:
            for channel, rows in enumerate(planes):
                for row, line in enumerate(rows, start=window[0].start):
                    self._seek(channel, row, window[1].start)
                    self._file.write(line.data)

    def _seek(self, channel: int, row: int, col: int) -> None:
        height, width = self._size
        self._file.seek(((channel * height + row) * width + col) * ITEM)
