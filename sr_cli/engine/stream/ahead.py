"""Stages of a large picture's way that go on side by side, each in a thread of its own: its source
and noise, the networks, and what finishes and writes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from threading import Event
from typing import TypeVar

import torch

from sr_cli.stopping import listen

Item = TypeVar("Item")


def ahead(items: Iterable[Item]) -> Iterator[Item]:
    """The same items, each made in a thread while the one before it is used.

    That thread has as many threads to compute with as the caller, and no gradients. What is raised
    there is raised here, and once it is caught nothing of what raised it is held. Where the rest is
    not wanted, the thread is told by `stopping`, and waited for.
    """
    making, threads = iter(items), torch.get_num_threads()

    @torch.inference_mode()
    def made() -> list[Item]:
        return list(islice(making, 1))

    def begin() -> None:
        torch.set_num_threads(threads)
        listen(unwanted)

    unwanted = Event()
    with ThreadPoolExecutor(1, "srx", begin) as pool:
        try:
            coming = [pool.submit(made)]  # popped: what it raises holds the frames that name it
            while found := coming.pop().result():
                coming.append(pool.submit(made))
                yield found.pop()
        finally:
            unwanted.set()
