"""Who reads, enlarges and writes the pictures of a run: threads, with few pictures between them."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from functools import partial
from types import TracebackType
from typing import Any, Final, Generic, Self, TypeVar

import torch

from sr_cli.errors import FullDiskError

Item = TypeVar("Item")

SMALL: Final = 1024**2
"""Output pixels of a picture, or of a batch, that one thread enlarges about as well as several."""
WAITING: Final = 2**24
"""Bytes of files or of samples that wait beside what always may."""


def usual_workers() -> int:
    """Pictures that are read, and written, at a time, where nobody says."""
    return min(8, os.cpu_count() or 1)


class StoppedError(BaseException):
    """The run has ended meanwhile. No Exception, so that it counts as no picture's failure."""


class Queue(Generic[Item]):
    """Of `least` items of any size, and of at most so many of not too many bytes."""

    def __init__(self, least: int, most: int) -> None:
        self.least, self.most = least, most
        self._queue: deque[tuple[Item, int]] = deque()

    def has_room(self, size: int) -> bool:
        """For another one of so many bytes."""
        if len(self._queue) < self.least:
            return True
        held = sum(each for _, each in self._queue)
        return len(self._queue) < self.most and held + size <= WAITING

    def add(self, item: Item, size: int) -> None:
        """At the end."""
        self._queue.append((item, size))

    def next(self) -> Item:
        """The first one, taken out."""
        return self._queue.popleft()[0]

    def __len__(self) -> int:
        return len(self._queue)


class Crew:
    """Threads for one run, as long as `with` lasts; when that ends by an exception, what goes on in
    lanes is stopped at its next step, and what is being written is written.

    workers: how many pictures are read, and written, at a time. stopped: whether it has ended so.
    """

    def __init__(self, workers: int) -> None:
        self.workers, self.threads = workers, torch.get_num_threads()
        self.stopped = False
        begin = partial(torch.set_num_threads, self.threads)  # of a thread's own
        self.readers, self.writers = (ThreadPoolExecutor(workers, "", begin) for _ in range(2))
        self.lanes = ThreadPoolExecutor(min(workers, self.threads))
        self.writing = Queue[Future[None]](1, workers)
        self._running: set[Future[None]] = set()
        self._busy, self._begin = 0.0, time.perf_counter()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stopped = kind is not None
        for pool in (self.readers, self.lanes):
            pool.shutdown(cancel_futures=True)
        self.writers.shutdown()
        torch.set_num_threads(self.threads)

    @property
    def worked(self) -> float:
        """The share of the time so far in which the device worked, 0 to 1."""
        return min(1.0, self._busy / (time.perf_counter() - self._begin))

    @contextmanager
    def working(self, lanes: int = 1) -> Iterator[None]:
        """One of so many lanes, with its share of the threads; what happens inside is work."""
        torch.set_num_threads(max(1, self.threads // lanes))
        begin = time.perf_counter()
        try:
            yield
        finally:
            self._busy += (time.perf_counter() - begin) / lanes

    def write(self, write: Callable[..., None], *what: Any, size: int) -> None:
        """Let something of so many bytes be written, when there is room in what waits for that."""
        while not self.writing.has_room(size):
            self.writing.next().result()
        self.writing.add(self.writers.submit(write, *what), size)

    def go(self, lanes: int, work: Callable[..., None], *what: Any) -> None:
        """Begin with some work beside what goes on, when there is a lane; one more may wait."""
        self._until(lanes)
        self._running.add(self.lanes.submit(work, *what))

    def leave_lanes(self) -> None:
        """Wait for what goes on in them."""
        self._until(0)

    def settle(self) -> None:
        """Wait for all, before others come."""
        self.leave_lanes()
        while self.writing:
            self.writing.next().result()

    def finish(self) -> None:
        """Wait for all; what found no room on the disk has failed, and no others are to come."""
        while self._running or self.writing:
            with suppress(FullDiskError):
                self.settle()

    def _until(self, running: int) -> None:
        while len(self._running) > running:
            done, self._running = wait(self._running, return_when=FIRST_COMPLETED)
            for future in done:
                future.result()
