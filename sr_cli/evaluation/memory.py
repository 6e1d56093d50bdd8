"""How much memory a piece of work takes."""

import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from sr_cli.memory import hand_back, held

INTERVAL = 0.01
"""Seconds between two looks at the process, where the work is on a CPU."""


class MemoryMeter:
    """What a method holds and at most works with, in bytes.

    Of a CUDA device the allocator's own counts. Elsewhere what the resident memory of this process
    grows by, looked at from time to time: short peaks escape.
    """

    def __init__(self, device: torch.device) -> None:
        self._cuda = device if device.type == "cuda" else None
        self._held = 0
        self._worked = 0

    @property
    def bytes(self) -> int:
        """Peak of what was held and used."""
        return self._held + self._worked

    @contextmanager
    def holding(self) -> Iterator[None]:
        """Around what loads networks: they stay."""
        gc.collect()
        before = self._settled()
        yield
        self._held += max(0, self._now() - before)

    @contextmanager
    def working(self) -> Iterator[None]:
        """Around what uses them."""
        before = self._settled()
        with self._peak() as peak:
            yield
        self._worked = max(self._worked, max(peak) - before)

    @contextmanager
    def _peak(self) -> Iterator[list[int]]:
        """A list that holds the peak in the end."""
        seen = [self._now()]
        if self._cuda:
            torch.cuda.reset_peak_memory_stats(self._cuda)
            yield seen
            seen.append(torch.cuda.max_memory_allocated(self._cuda))
            return
        stop = threading.Event()

        def watch() -> None:
            while not stop.wait(INTERVAL):
                seen.append(max(seen.pop(), self._now()))

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        try:
            yield seen
        finally:
            stop.set()
            watcher.join()

    def _settled(self) -> int:
        """What is in use when all that was freed has been given back."""
        hand_back()  # or what was freed is still held, and the next method would seem frugal
        return self._now()

    def _now(self) -> int:
        if self._cuda:
            return torch.cuda.memory_allocated(self._cuda)
        return held()
