"""Recorded launches, on a CUDA that is made up: it keeps the operations and does them again."""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from sr_cli.engine.options import UpscaleOptions
from sr_cli.engine.tiling import Tiler
from sr_cli.engine.upscaler import Upscaler
from sr_cli.models import graphs
from sr_cli.models.embedded import EmbeddedDenoiser
from sr_cli.models.graphs import SHAPES, Graphed


class Tape(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Operations with the very tensors that they read and write."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.done: list[tuple[Callable[..., Any], Any, Any, Any]] = []

    def __torch_dispatch__(self, func: Any, _: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self.done.append((func, args, kwargs or {}, result))
        return result

    def replay(self) -> None:
        for func, args, kwargs, result in self.done:
            again = func(*args, **kwargs)
            if isinstance(result, Tensor) and again is not result:
                result.copy_(again)


class FakeGraph:
    """As torch.cuda.CUDAGraph, as far as it is used."""

    def __init__(self) -> None:
        self.tape = Tape()
        self.replays = 0
        FakeGraph.made.append(self)

    made: list["FakeGraph"] = []  # noqa: RUF012

    def replay(self) -> None:
        self.replays += 1
        self.tape.replay()

    def pool(self) -> str:
        return "pool"


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> Iterator[SimpleNamespace]:
    """A device that records; `error` is raised by the recording, `pools` are those it was given."""
    told = SimpleNamespace(error=None, pools=[])
    FakeGraph.made = []

    @contextmanager
    def recording(graph: FakeGraph, *, pool: Any, **_: Any) -> Iterator[None]:
        told.pools.append(pool)
        if told.error:
            raise told.error
        with graph.tape:
            yield

    stream = SimpleNamespace(wait_stream=lambda _: None)
    fakes = {
        "CUDAGraph": FakeGraph,
        "graph": recording,
        "Stream": lambda _: stream,
        "current_stream": lambda: stream,
        "stream": lambda _: nullcontext(),
        "device": lambda _: nullcontext(),
    }
    for name, fake in fakes.items():
        monkeypatch.setattr(torch.cuda, name, fake)
    monkeypatch.setattr(graphs, "_on_gpu", lambda _: True)
    graphs._aside.cache_clear()
    with torch.inference_mode():
        yield told


class Counted:
    """A network, and how often it is called by itself."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.SiLU(), nn.Conv2d(4, 3, 1))
        self.calls = 0

    def __call__(self, x: Tensor, shift: Tensor) -> Tensor:
        self.calls += 1
        result: Tensor = self.net(x) + shift
        return result


def inputs(side: int = 8) -> tuple[Tensor, Tensor]:
    return torch.randn(2, 3, side, side), torch.randn(1)


def test_what_is_replayed_is_what_the_network_says(cuda: SimpleNamespace) -> None:
    network = Counted()
    graphed, results = Graphed(network), []
    for _ in range(6):
        x, shift = inputs()
        results.append((graphed(x, shift), network.net(x) + shift))
    assert network.calls == 1 + 2  # as it is; getting ready, and recording
    (graph,) = FakeGraph.made
    assert graph.replays == 5
    for found, expected in results:  # no result is overwritten by a later one
        torch.testing.assert_close(found, expected)


def test_each_shape_and_precision_has_its_own(
    cuda: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = Counted()
    graphed = Graphed(network)
    for side in (8, 12, 8, 12, 8, 12):
        x, shift = inputs(side)
        torch.testing.assert_close(graphed(x, shift), network.net(x) + shift)
    assert len(FakeGraph.made) == 2
    assert cuda.pools == [None, "pool"]  # one memory for both
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda _: True)
    for made in (2, 3, 3):
        graphed(*inputs())
        assert len(FakeGraph.made) == made


def test_the_shapes_used_last_are_kept(cuda: SimpleNamespace) -> None:
    graphed = Graphed(Counted())
    for side in [*range(1, SHAPES + 2), 1]:
        for _ in range(2):
            graphed(*inputs(side))
    assert len(FakeGraph.made) == SHAPES + 2  # the first was forgotten, and made again
    graphed(*inputs(SHAPES + 1))
    assert len(FakeGraph.made) == SHAPES + 2
    assert len(graphed._recordings) == SHAPES


def test_what_cannot_be_recorded_goes_on_as_it_was(
    cuda: SimpleNamespace, caplog: pytest.LogCaptureFixture
) -> None:
    network = Counted()
    graphed = Graphed(network)
    cuda.error = RuntimeError("operation not permitted when stream is capturing")
    for _ in range(4):
        x, shift = inputs()
        torch.testing.assert_close(graphed(x, shift), network.net(x) + shift)
    assert len(cuda.pools) == 1  # it is tried once
    assert "not permitted" in caplog.text


def test_without_memory_for_it_the_call_is_made_and_tried_again_later(
    cuda: SimpleNamespace,
) -> None:
    network = Counted()
    graphed = Graphed(network)
    cuda.error = torch.OutOfMemoryError("CUDA out of memory.")
    for _ in range(2):
        x, shift = inputs()
        torch.testing.assert_close(graphed(x, shift), network.net(x) + shift)
    cuda.error = None
    for _ in range(3):
        graphed(*inputs())
    assert FakeGraph.made[-1].replays == 2


def test_a_recording_that_memory_ends_and_that_cannot_end_is_tried_again(
    cuda: SimpleNamespace,
) -> None:
    graphed = Graphed(Counted())
    cuda.error = RuntimeError("CUDA error: capture was invalidated")
    cuda.error.__context__ = torch.OutOfMemoryError("CUDA out of memory.")
    for _ in range(2):
        graphed(*inputs())
    assert not graphed._refused


def test_all_recordings_are_made_on_one_stream(
    cuda: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which torch asks of those that share memory."""
    made = []

    def stream(_: object) -> SimpleNamespace:
        made.append(SimpleNamespace(wait_stream=lambda _: None))
        return made[-1]

    monkeypatch.setattr(torch.cuda, "Stream", stream)
    for graphed in (Graphed(Counted()), Graphed(Counted())):
        for side in (8, 8, 12, 12):
            graphed(*inputs(side))
    assert len(FakeGraph.made) == 4
    assert len(made) == 1


def test_large_inputs_training_and_other_devices_are_left_alone(
    cuda: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    with torch.inference_mode(False):
        graphed = Graphed(Counted())
        for _ in range(3):
            graphed(*inputs())
    small = Graphed(Counted(), 100)
    for _ in range(3):
        small(*inputs())
    with monkeypatch.context() as patch:
        patch.setattr(graphs, "_on_gpu", lambda _: False)
        for _ in range(3):
            graphed(*inputs())
    assert not FakeGraph.made
    for _ in range(2):  # the control
        graphed(*inputs())
    assert FakeGraph.made


def test_recordings_are_given_up_where_memory_is_short(
    cuda: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    graphed = Graphed(Counted())
    for _ in range(2):
        graphed(*inputs())
    assert graphed._recordings
    emptied = []
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: emptied.append(len(graphed._recordings)))

    def network(x: Tensor) -> Tensor:
        if len(x) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return x

    image = torch.rand(1, 3, 8, 16)
    out = torch.empty_like(image)
    tiler = Tiler(torch.device("cpu"), 2, [8], 0)
    monkeypatch.setattr(tiler, "device", SimpleNamespace(type="cuda"))
    monkeypatch.setattr(Tensor, "to", lambda self, *_: self)
    tiler.fill(network, lambda _, w: (image[(..., *w)],), [out])
    assert torch.equal(out, image)
    assert emptied == [0]


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_pictures_are_the_same_byte_for_byte(
    monkeypatch: pytest.MonkeyPatch, dtype: str, cuda: SimpleNamespace
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(graphs, "_on_gpu", lambda _: False)
        eager = Upscaler(UpscaleOptions(steps=4, tile=16), device="cpu", dtype=dtype)
        lrs = [torch.rand(3, 40, 24) for _ in range(2)]
        expected = [eager(lr) for lr in lrs]
    for lr, want in zip(lrs, expected, strict=True):
        assert torch.equal(eager(lr), want)
    assert sum(graph.replays for graph in FakeGraph.made) > 10


@pytest.mark.usefixtures("tiny")
def test_another_network_of_a_denoiser_is_the_one_that_is_called(cuda: SimpleNamespace) -> None:
    """As where a network is taken apart for another program; its original stays as it was."""
    denoiser = Upscaler(UpscaleOptions(), device="cpu", dtype="float32").model.denoiser
    assert isinstance(denoiser, EmbeddedDenoiser)
    x = torch.rand(1, 3, 16, 16)

    def said(by: EmbeddedDenoiser) -> list[Tensor]:
        return [by.recover(x, x, sigma=0.5, a=0.3, m=0.2) for _ in range(3)]

    other = copy.copy(denoiser)
    before = said(denoiser)[0]
    other.net = copy.deepcopy(denoiser.net)
    for parameter in other.net.parameters():
        parameter.mul_(1.5)
    assert all(not torch.allclose(found, before) for found in said(other))
    assert all(torch.equal(found, before) for found in said(denoiser))
