"""CUDA graphs: a network's launches, recorded for each shape of its inputs and replayed as one.

The host tells a GPU of every kernel, and tells it of a small batch's more slowly than it computes
them. What is recorded is told at once. Shapes recur, since a picture's tiles have one shape and so
have the steps of a walk, so recording pays from the third call on.
"""

import logging
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache, lru_cache, partial
from typing import Any
from weakref import WeakSet

import torch
from torch import Tensor

from sr_cli.errors import is_out_of_memory

SHAPES = 4
"""Recordings of one function that are kept: those used last."""
VALUES = 2**25
"""Of the inputs together: what is larger keeps a GPU busy as it is, and would hold much memory."""

Key = tuple[Any, ...]
"""Shapes, strides and types of inputs."""

_log = logging.getLogger(__name__)
_all: "WeakSet[Graphed]" = WeakSet()


class Graphed:
    """A function of tensors that gives one tensor, recorded on CUDA in inference mode.

    function: reads no other tensors but such as stay where they are (a network's parameters), does
    the same whatever the values are, and never waits for the device. most: values of the inputs
    together that are recorded.

    The first call of a shape is made as it is, so that libraries choose their algorithms, and so
    are all calls elsewhere, of large inputs, and of a function that cannot be recorded. All
    recordings share one pool of memory, which is safe because they run one after another and no
    result stays in it.
    """

    def __init__(self, function: Callable[..., Tensor], most: int = VALUES) -> None:
        self._function, self._most = function, most
        self._seen: set[Key] = set()
        self._recordings: OrderedDict[Key, _Recording] = OrderedDict()
        self._refused = False
        _all.add(self)

    def __call__(self, *inputs: Tensor) -> Tensor:
        """What the function gives, in memory of its own."""
        if self._refused or not _suit(inputs, self._most):
            return self._function(*inputs)
        key = (
            *((given.shape, given.stride(), given.dtype, given.device) for given in inputs),
            *(torch.get_autocast_dtype("cuda"), torch.is_autocast_enabled("cuda")),
        )
        if key not in self._seen:
            self._seen.add(key)
            return self._function(*inputs)
        if key not in self._recordings and not self._record(key, inputs):
            return self._function(*inputs)
        self._recordings.move_to_end(key)
        return self._recordings[key](inputs)

    def release(self) -> None:
        """Forget what was recorded, and the memory it holds."""
        self._recordings.clear()
        self._seen.clear()

    def _record(self, key: Key, inputs: Sequence[Tensor]) -> bool:
        """Whether it succeeded."""
        pool = next((recording.pool for recording in self._recordings.values()), None)
        try:
            self._recordings[key] = _Recording(self._function, inputs, pool)
        except Exception as error:
            self.release()
            causes = filter(None, (error, error.__context__))  # the end of a recording may fail too
            if not any(map(is_out_of_memory, causes)):
                self._refused = True
                _log.warning("no CUDA graph, so every kernel is launched by itself: %s", error)
            return False
        if len(self._recordings) > SHAPES:
            self._recordings.popitem(last=False)
        return True


@lru_cache(maxsize=16)
def graphed(function: Callable[..., Tensor], **settings: Hashable) -> Graphed:
    """A function of tensors with these settings; what was recorded for it is kept."""
    return Graphed(partial(function, **settings))


def release() -> None:
    """Let all functions forget their recordings, where memory is short."""
    for function in _all:
        function.release()


def give_back(device: torch.device) -> None:
    """Give back what torch keeps of a GPU's memory, before less is tried where that was short:
    cuBLAS and cuDNN take theirs beside it."""
    if device.type == "cuda":
        release()
        torch.cuda.empty_cache()


def _suit(inputs: Sequence[Tensor], most: int) -> bool:
    """Whether these can be recorded, and recording pays."""
    return (
        _on_gpu(inputs)
        and torch.is_inference_mode_enabled()
        and sum(given.numel() for given in inputs) <= most
    )


def _on_gpu(inputs: Sequence[Tensor]) -> bool:
    return all(given.is_cuda for given in inputs)


@cache
def _aside(device: torch.device) -> torch.cuda.Stream:
    """The stream of all recordings, which share memory, and cuBLAS's workspace, on one alone."""
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


class _Recording:
    """Of one function for inputs like these."""

    def __init__(
        self, function: Callable[..., Tensor], inputs: Sequence[Tensor], pool: Any
    ) -> None:
        self._inputs = [given.clone() for given in inputs]
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.device(inputs[0].device), _casting_anew():
            here, aside = torch.cuda.current_stream(), _aside(inputs[0].device)
            aside.wait_stream(here)
            with torch.cuda.stream(aside):  # cuBLAS and cuDNN get ready on a stream by calls on it
                function(*self._inputs)
            here.wait_stream(aside)
            # Of other threads' calls, such as those that pin memory, none may end the recording;
            # and one that cannot end leaves its stream the current one.
            recording = torch.cuda.graph(
                self._graph, pool=pool, stream=aside, capture_error_mode="thread_local"
            )
            with torch.cuda.stream(here), recording:
                self._result = function(*self._inputs)

    @property
    def pool(self) -> Any:
        """Where its memory is."""
        return self._graph.pool()

    def __call__(self, inputs: Sequence[Tensor]) -> Tensor:
        for own, given in zip(self._inputs, inputs, strict=True):
            own.copy_(given)
        self._graph.replay()
        return self._result.clone()


@contextmanager
def _casting_anew() -> Iterator[None]:
    """Let autocast cast weights wherever they are used, and keep none that is gone later."""
    kept = torch.is_autocast_cache_enabled()
    torch.clear_autocast_cache()
    torch.set_autocast_cache_enabled(False)
    try:
        yield
    finally:
        torch.set_autocast_cache_enabled(kept)
