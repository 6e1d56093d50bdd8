"""Where the time goes: a hook around each part of the engine's work."""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch

Timer = Callable[[str], AbstractContextManager[object]]
"""`with timer(part):` around the parts preprocess, encode, network (each call), decode, colour,
guard."""


def untimed(part: str) -> AbstractContextManager[object]:
    """A `Timer` that costs nothing."""
    del part
    return nullcontext()


class Stopwatch:
    """A `Timer` that keeps the seconds of every pass through each part, in `seconds`.

    The GPU is waited for before and after, so a timed run is a little slower than others.
    """

    def __init__(self, device: str | torch.device) -> None:
        self.seconds: dict[str, list[float]] = {}
        self._device = torch.device(device)

    @contextmanager
    def __call__(self, part: str) -> Iterator[None]:
        """Measure what happens inside `with`."""
        self._wait()
        begin = time.perf_counter()
        yield
        self._wait()
        self.seconds.setdefault(part, []).append(time.perf_counter() - begin)

    def _wait(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        elif self._device.type == "mps":
            torch.mps.synchronize()
