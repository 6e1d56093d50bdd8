"""The engine on a GPU that is made up: the CPU's pixels, and what would be slow on a real one."""

from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from made_up import GPU, TOTAL, MadeUp, made_up
from torch import Tensor

from sr_cli.engine import arrays, batch
from sr_cli.engine.arrays import to_rgb
from sr_cli.engine.events import Event, Finished, Job
from sr_cli.engine.images import Picture, load, save
from sr_cli.engine.options import UpscaleOptions
from sr_cli.engine.stream import plan, walk, windows
from sr_cli.engine.upscaler import Upscaler
from sr_cli.evaluation.suite import checks, run, speed
from sr_cli.evaluation.suite.networks import SMALL, write_dossr
from sr_cli.evaluation.suite.scope import QUICK, Scope, photo
from sr_cli.models import graphs

SIZES = (32, 24), (32, 24), (20, 40)
GUARD = 2
"""What it has recorded: the colours' low frequencies and what it decides."""


@pytest.fixture
def gpu() -> Iterator[MadeUp]:
    with made_up() as device:
        yield device


def lrs() -> list[Tensor]:
    return [photo(*size, i) for i, size in enumerate(SIZES)]


def on(device: str, dtype: str = "float32", **options: Any) -> Upscaler:
    return Upscaler(UpscaleOptions(**options), device=device, dtype=dtype)


def enlarged(device: str, **options: Any) -> list[Tensor]:
    """In batches, three times, so that what can be recorded is."""
    engine = on(device, **options)
    for _ in range(3):
        found = engine.together(lrs())
    return found


OPTIONS: list[dict[str, Any]] = [
    {"steps": 3, "preprocess": "compact"},
    {"steps": 2, "tile": 16, "batch": 4},
    {"scale": 1.5, "color": "adain"},
    {"scale": 2, "color": "none", "preprocess": "none"},
    {"best_of": 2},
    {"method": "diffsr", "t1": 100, "steps": 2, "sampler": "ddpm"},
]


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_pixels_are_those_of_a_cpu(options: dict[str, Any]) -> None:
    expected = enlarged("cpu", **options)
    with made_up() as gpu:
        found = enlarged(str(GPU), **options)
        assert gpu.replays > 0
    for one, other in zip(found, expected, strict=True):
        assert type(one) is Tensor
        assert one.device.type == "cpu"
        assert float((one - other).abs().max()) < 1e-4


@pytest.mark.usefixtures("tiny")
def test_half_precision_is_float16_with_weights_cast_once(gpu: MadeUp) -> None:
    engine = on(str(GPU), "auto")
    exact = on(str(GPU))
    assert engine.dtype == "float16"
    assert {p.dtype for net in engine.model.networks for p in net.parameters()} == {torch.float16}
    for lr in lrs():
        assert float((engine(lr) - exact(lr)).abs().max()) < 4 / 255


def test_latents_are_those_of_a_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SRX_WEIGHTS", str(tmp_path))
    torch.manual_seed(0)
    write_dossr(tmp_path, "random", SMALL, half=False)
    lr = photo(24, 16)
    options: dict[str, Any] = {"model": "random", "steps": 3}
    expected = on("cpu", **options)(lr)
    with made_up() as gpu:
        found = on(str(GPU), **options)(lr)
        assert gpu.replays == 2  # of three calls
    assert float((found - expected).abs().max()) < 1e-3


@pytest.mark.usefixtures("tiny")
def test_a_walk_neither_waits_nor_sends_whatever_its_steps_and_tiles(gpu: MadeUp) -> None:
    def crossings(**options: Any) -> tuple[int, int]:
        engine = on(str(GPU), **options)
        engine.together(lrs())
        gpu.clear()
        engine.together(lrs())
        return sum(gpu.waits.values()), sum(gpu.uploads.values())

    few = crossings(steps=1)
    assert 0 < few[0] <= 6 * len(SIZES)
    assert 0 < few[1] <= 5 * len(SIZES)
    assert crossings(steps=4) == few
    assert crossings(steps=4, tile=16) == few


@pytest.mark.usefixtures("tiny")
def test_what_is_recorded_is_told_at_once(gpu: MadeUp, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = on(str(GPU), steps=2)
    for _ in range(3):
        gpu.clear()
        engine(lrs()[0])
    assert gpu.replays == 2 + GUARD  # the network in each step
    launches = gpu.launches
    monkeypatch.setattr(graphs, "_suit", lambda *_: False)
    gpu.clear()
    engine(lrs()[0])
    assert gpu.replays == 0
    assert launches < 0.6 * gpu.launches


@pytest.mark.usefixtures("tiny")
def test_its_memory_is_asked_for_once_a_stage_not_for_each_picture(gpu: MadeUp) -> None:
    engine = on(str(GPU))
    asked = []
    for number in (1, 12):
        gpu.clear()
        engine.together(number * lrs()[:1])
        asked.append(gpu.asked)
    assert 0 < asked[0] == asked[1] <= 6


@pytest.mark.usefixtures("tiny")
def test_what_is_kept_does_not_grow_with_pictures(gpu: MadeUp) -> None:
    engine = on(str(GPU))
    held = []
    for _ in range(5):
        engine.together(lrs())
        held.append(gpu.used)
    assert held[2] == held[3] == held[4]
    graphs.release()
    assert gpu.used < held[4]


@pytest.mark.usefixtures("tiny")
def test_the_suite_finds_that_all_holds(gpu: MadeUp, tmp_path: Path) -> None:
    """By its lines for CUDA too, such as those that make memory short."""
    scope = Scope(GPU, "float32", QUICK, tmp_path)
    tasks = checks.noise, checks.precision, checks.tiles, checks.faults
    found = [finding for task in tasks for finding in task(scope)]
    assert [finding for finding in found if finding.failed] == []
    assert sum(finding.name.startswith("memory of the GPU made short") for finding in found) == 1
    assert sum(bool(finding.passed) for finding in found) >= 8
    assert gpu.limit == TOTAL


@pytest.mark.usefixtures("tiny")
def test_the_suite_counts_launches_where_they_are_recorded(
    gpu: MadeUp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Profile(nullcontext[Any]):
        def __init__(self, activities: object) -> None:
            super().__init__(self)
            gpu.clear()

        def key_averages(self) -> list[SimpleNamespace]:
            told = {"cudaGraphLaunch": gpu.replays, "cudaStreamSynchronize": 9, "aten::add": 7}
            return [SimpleNamespace(key=key, count=count) for key, count in told.items()]

    monkeypatch.setattr(torch.profiler, "profile", Profile)
    scope = Scope(GPU, "float32", QUICK, tmp_path)
    launches, waits = speed.launches(scope)
    assert launches.value == scope.default.steps + GUARD
    assert waits.value == 9
    assert run.TASKS["speed"][-1] is speed.launches


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize("scale", [1.5, 4])
def test_rows_of_large_pictures_need_no_float64_where_there_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scale: float
) -> None:
    """As on MPS; and a GPU gives the same."""
    monkeypatch.setattr(plan, "streams", lambda *_: True)
    monkeypatch.setattr(walk, "ahead", iter)  # another thread would not see the made-up GPU
    source = tmp_path / "in.png"
    save(Picture(to_rgb(photo(40, 32).float() / 255), depth=16), source)

    def made(device: str) -> Any:
        result = tmp_path / f"{device[:3]}.png"
        engine, told = on(device, steps=2, scale=scale), list[Event]()
        batch.run([Job(source, result)], engine.options, engine, told.append)
        assert isinstance(told[-1], Finished)
        return load(result).rgb

    expected = made("cpu")
    monkeypatch.setattr(arrays, "widest", lambda _: torch.float32)
    monkeypatch.setattr(windows, "widest", lambda _: torch.float32)
    with made_up(missing=[torch.float64]) as gpu:
        found = made(str(GPU))
        assert gpu.launches > 100
    assert abs(found - expected).max() < 2e-4


def test_what_a_gpu_would_refuse_is_refused(gpu: MadeUp) -> None:
    """The controls."""
    x = torch.ones(2, 3, device=GPU)
    with pytest.raises(RuntimeError, match="same device"):
        x + torch.ones(2, 3)
    assert torch.equal((x + torch.tensor(1.0)).cpu(), torch.full((2, 3), 2.0))
    gpu.clear()
    assert float(x.sum()) == 6
    assert (sum(gpu.waits.values()), gpu.launches) == (1, 2)

    def waiting(given: Tensor) -> Tensor:
        return given * float(given.sum())

    graphed = graphs.Graphed(waiting)
    with torch.inference_mode():
        for _ in range(3):
            assert torch.equal(graphed(x).cpu(), torch.full((2, 3), 6.0))
    assert graphed._refused
    gpu.limit = gpu.used + 100
    with pytest.raises(torch.OutOfMemoryError):
        torch.empty(1000, device=GPU)
    with made_up(missing=[torch.float64]), pytest.raises(TypeError, match=r"no torch\.float64"):
        torch.ones(2, device=GPU).double()
