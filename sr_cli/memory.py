"""How much memory there is for this process: the machine's, its container's, its own limit's."""

from __future__ import annotations

import atexit
import ctypes
import os
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from threading import Event, Thread

import psutil

ROOT = Path("/")
"""Where /proc and /sys are."""
UNLIMITED = 1 << 60
"""Limits from here on are none: cgroup v1 says a number near 2^63."""
EVERY = 0.01
"""Seconds after which a bound is looked at again; each time takes some 20 µs."""


_LATER = 256 << 20
"""Bytes of an address space that stacks of threads and libraries take, which come later: libraries
that find none crash or wait for ever."""


@dataclass(frozen=True)
class Limit:
    """What bounds a process: bytes in all, and those that are left of them."""

    total: int
    free: int


def total() -> int:
    """Bytes that this process could have if nothing else ran: RAM and swap, or less by a limit."""
    machine = psutil.virtual_memory().total + psutil.swap_memory().total
    return min([int(machine), *(limit.total for limit in limits())])


def free(*, swap: bool = False) -> int:
    """Bytes that can be allocated now without swapping, or with it."""
    machine = psutil.virtual_memory().available + (psutil.swap_memory().free if swap else 0)
    return max(0, min([int(machine), *(limit.free for limit in limits())]))


def keep_freed() -> None:
    """Let this process keep memory that it frees for what it allocates next.

    The GNU C library gives large blocks back to the system at once; networks need them again at
    once, and the page faults of that are up to a third of their time. Kept are at most a GiB and an
    eighth of the memory, for all threads together, which hand large blocks to each other; of blocks
    above 32 MiB older versions keep none. Other C libraries are left as they are.
    """
    if platform.libc_ver()[0] == "glibc":
        mallopt, most = ctypes.CDLL(None).mallopt, min(1 << 30, total() // 8)
        if not mallopt(_M_MMAP_THRESHOLD, most):  # the next call fixes it as it is, at 128 KiB
            mallopt(_M_MMAP_THRESHOLD, 32 << 20)
        mallopt(_M_TRIM_THRESHOLD, most)
        mallopt(_M_ARENA_MAX, 1)
        atexit.register(hand_back)  # or the peak is in what torch does after that: 126 MiB more


_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
"""Of mallopt(3)."""


class Bound:
    """Keeps what this process holds near a limit, as far as that is memory which it has freed.

    What is freed between blocks that are in use, the C library keeps in pieces, and they grow in
    number as long as blocks of many sizes come and go.
    """

    def __init__(self, more: int) -> None:
        """more: bytes that it may hold beside what it uses now."""
        hand_back()
        self._more = more
        self._least = self._limit = held() + more

    def keep(self) -> None:
        """Hand freed memory back if more is held; seldom where that does not help."""
        if held() > self._limit:
            hand_back()
            self._limit = max(self._least, held() + self._more // 8)

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Inside `with` a thread keeps it, since much is allocated within one call of a network."""
        ended = Event()

        def watch() -> None:
            while not ended.wait(EVERY):
                self.keep()

        thread = Thread(target=watch, name="srx memory", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()


def hand_back() -> None:
    """Give the system what is freed, which it is slow to give again; of the GNU C library's."""
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)


def held() -> int:
    """Bytes of this process that are in the machine's memory."""
    return int(_process(os.getpid()).memory_info().rss)


@cache
def _process(number: int) -> psutil.Process:
    return psutil.Process(number)


def limits() -> Iterator[Limit]:
    """Of the control groups that this process is in, and of its address space (`ulimit -v`)."""
    if sys.platform != "win32":
        import resource

        most, _ = resource.getrlimit(resource.RLIMIT_AS)
        if most not in (resource.RLIM_INFINITY, -1):
            used = psutil.Process().memory_info().vms - _kept()
            yield Limit(most, most - used - _LATER)
    with suppress(OSError):
        for line in (ROOT / "proc/self/cgroup").read_text("utf-8").splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers == "":
                yield from _of_groups("sys/fs/cgroup", path, _V2)
            elif "memory" in controllers.split(","):
                yield from _of_groups("sys/fs/cgroup/memory", path, _V1)


class _Mallinfo(ctypes.Structure):
    """Of mallinfo2(3)."""

    _fields_ = (
        ("others", ctypes.c_size_t * 8),
        ("fordblks", ctypes.c_size_t),
        ("keepcost", ctypes.c_size_t),
    )


def _kept() -> int:
    """Bytes that were freed and that the GNU C library keeps for what is allocated next: the space
    of addresses is theirs, but no reason for smaller tiles. 0 where nothing tells."""
    told = getattr(ctypes.CDLL(None), "mallinfo2", None)  # from 2.33 on
    if told is None:
        return 0
    told.restype = _Mallinfo
    return int(told().fordblks)


_V2 = ("memory.max", "memory.current", "inactive_file")
_V1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
"""Files of the limit and of what is used, and the line of memory.stat of what files in memory take,
which the kernel gives up before anything is refused."""


def _of_groups(mount: str, path: str, names: tuple[str, str, str]) -> Iterator[Limit]:
    """Of a group and all above it; a container sees its own group at the mount itself."""
    group = ROOT / mount / path.lstrip("/")
    for folder in (group, *group.parents):
        with suppress(OSError, ValueError):  # "max" is no number: no limit
            most = int((folder / names[0]).read_text("utf-8"))
            if most < UNLIMITED:
                used = int((folder / names[1]).read_text("utf-8"))
                stat = dict(s.split() for s in (folder / "memory.stat").read_text().splitlines())
                yield Limit(most, most - used + int(stat.get(names[2], 0)))
        if folder == ROOT / mount:
            return
