"""What changes with a model that sees its whole window and works in latents of 8 pixels a cell."""

from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from reference import solve
from torch import Tensor

from sr_cli.diffusion.solvers import start
from sr_cli.engine import finish, upscaler
from sr_cli.engine.finish import overflowed
from sr_cli.engine.options import UpscaleOptions
from sr_cli.engine.timing import Stopwatch
from sr_cli.engine.upscaler import Upscaler
from sr_cli.errors import DeviceError
from sr_cli.models.model import Model

FACTOR, TILE = 8, 128


def photo(height: int, width: int, seed: int = 0) -> Tensor:
    """A smooth picture, (3, H, W) in [0.1, 0.9]."""
    coarse = torch.rand(1, 3, 5, 5, generator=torch.Generator().manual_seed(seed))
    return 0.1 + 0.8 * F.interpolate(coarse, (height, width), mode="bilinear")[0]


@dataclass
class Autoencoder:
    """Means of 8×8 pixels and a channel more; both ways it sees its whole window."""

    seen: list[tuple[int, ...]] = field(default_factory=list)

    def encode(self, image: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        self.seen.append(tuple(image.shape[-2:]))
        rgb = 2 * F.avg_pool2d(image, FACTOR) - 1
        mean = torch.cat((rgb, rgb.mean(1, keepdim=True).tanh()), dim=1)
        mean = mean + 0.02 * mean.std(dim=(1, 2, 3), keepdim=True)
        return mean + 0.05 * noise, mean

    def decode(self, state: Tensor) -> Tensor:
        self.seen.append(tuple(FACTOR * side for side in state.shape[-2:]))
        rgb: Tensor = F.interpolate(state[:, :3], scale_factor=FACTOR, mode="bilinear")
        return (rgb + 0.02 * state.std(dim=(1, 2, 3), keepdim=True) + 1) / 2


@dataclass
class Attentive:
    """Pulls the state towards the hint, by a mean over all of its window."""

    calls: list[tuple[int, ...]] = field(default_factory=list)
    limit: int = 1 << 30
    result: float | None = None

    def predict_x0(self, x: Tensor, **values: Any) -> Tensor:
        self.calls.append(tuple(x.shape))
        if len(x) * x.shape[-1] * x.shape[-2] > self.limit:
            raise torch.OutOfMemoryError("out of memory")
        if self.result is not None:
            return torch.full_like(x, self.result)
        hint: Tensor = values["hint"]
        state: Tensor = x - (values["a"] + values["m"]) * values["y"]
        return hint + 0.1 * hint.mean(dim=(2, 3), keepdim=True) + 0.1 * state.tanh()


@dataclass
class Fake:
    """What stands in for a registered model."""

    model: Model
    denoiser: Attentive
    codec: Autoencoder
    low: Attentive | None = None
    """The denoiser of lower precisions, where it differs."""
    loaded: list[torch.dtype] = field(default_factory=list)
    """Each time that it was loaded."""


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Fake:
    denoiser, codec = Attentive(), Autoencoder()
    model = Model(
        denoiser=denoiser,
        codec=codec,
        schedule="scaled_linear",
        last_step="step",
        multiple_of=2,
        margin=48,
        bytes_per_pixel=1,
        cell=FACTOR,
        channels=4,
        tiling="blend",
        tile=TILE,
        preprocess="none",
        t1=300,
    )
    fake = Fake(model, denoiser, codec)

    def load(name: str, device: torch.device, dtype: torch.dtype, kinds: object) -> Model:
        fake.loaded.append(dtype)
        low = fake.low if dtype != torch.float32 else None
        return replace(fake.model, denoiser=low or fake.denoiser)

    monkeypatch.setattr(upscaler, "load_model", load)
    return fake


def engine(dtype: str = "float32", **options: Any) -> Upscaler:
    return Upscaler(UpscaleOptions(**options), device="cpu", dtype=dtype)


# ------------------------------------------------------------------------------------- one picture


@pytest.mark.parametrize("size", [(16, 16), (97, 61), (128, 128), (300, 77), (1, 1)])
@pytest.mark.parametrize("scale", [0.3, 1.5, 2, 2.7, 4, 6])
def test_sizes_are_rounded_exactly(fake: Fake, size: tuple[int, int], scale: float) -> None:
    height, width = size
    result = engine(scale=scale, steps=1)(photo(height, width))
    assert tuple(result.shape) == (3, *(max(1, int(side * scale + 0.5)) for side in size))
    assert result.isfinite().all()
    unit = FACTOR * fake.model.multiple_of
    assert all(side % unit == 0 and side <= TILE for seen in fake.codec.seen for side in seen)


def untiled(upscaler: Upscaler, lr: Tensor) -> Tensor:
    """What the released code does: encode, walk and decode the whole picture."""
    assert upscaler._course
    path, steps, model = upscaler._course.path, upscaler._course.steps, upscaler.model
    noise = upscaler._noise(lr)
    source = F.interpolate(lr[None], scale_factor=4, mode="bicubic", antialias=True).clamp(0, 1)
    window = tuple(slice(0, side // FACTOR) for side in source.shape[-2:])
    y, hint = model.codec.encode(source, noise(-1, window))  # type: ignore[arg-type]

    def denoise(x: Tensor, step: Any) -> Tensor:
        values = {name: float(getattr(path, name)[step.s]) for name in ("alpha", "sigma", "a", "m")}
        return model.denoiser.predict_x0(x, y=y, hint=hint, t=step.s, **values)

    alpha, sigma = start(path, steps[0].s)
    x = alpha * y + sigma * noise(0, window)  # type: ignore[arg-type]
    x = solve(steps, denoise, y, x, lambda i: noise(i, window))  # type: ignore[arg-type]
    return model.codec.decode(x)[0].clamp(0, 1)


@pytest.mark.usefixtures("fake", "unguarded")
def test_a_picture_within_one_tile_is_what_the_whole_gives() -> None:
    small, large = photo(32, 24), photo(60, 24)
    upscaler = engine(color="none")
    torch.testing.assert_close(upscaler(small), untiled(upscaler, small), atol=1e-5, rtol=0)
    assert (upscaler(large) - untiled(upscaler, large)).abs().max() > 1e-3  # the control: two tiles
    whole = engine(color="none", tile=0)
    torch.testing.assert_close(whole(large), untiled(whole, large), atol=1e-5, rtol=0)


def test_nothing_ever_sees_more_than_one_window_shape(fake: Fake) -> None:
    engine()(photo(100, 130))
    assert set(fake.codec.seen) == {(TILE, TILE)}
    assert {call[-2:] for call in fake.denoiser.calls} == {(TILE // FACTOR, TILE // FACTOR)}


@pytest.mark.usefixtures("fake")
def test_a_result_does_not_depend_on_what_came_before() -> None:
    first, second = photo(50, 40, 1), photo(50, 40, 2)
    upscaler = engine()
    alone = upscaler(first)
    upscaler(second)
    assert torch.equal(upscaler(first), alone)


# ------------------------------------------------------------------------------- several pictures


def test_pictures_share_batches_and_nothing_else(fake: Fake) -> None:
    lrs = [photo(32, 24, 1), photo(32, 24, 2), photo(30, 20, 3), photo(70, 40, 4)]
    alone = [engine()(lr) for lr in lrs]
    upscaler = engine(batch=4)
    fake.denoiser.calls.clear()
    for lr, together, expected in zip(lrs, upscaler.together(lrs), alone, strict=True):
        assert together.shape[-2:] == (4 * lr.shape[-2], 4 * lr.shape[-1])
        torch.testing.assert_close(together, expected, atol=1e-5, rtol=0)
    backwards = upscaler.together(lrs[::-1])[::-1]
    for image, expected in zip(backwards, alone, strict=True):
        torch.testing.assert_close(image, expected, atol=1e-5, rtol=0)
    assert max(call[0] for call in fake.denoiser.calls) == 4
    assert (2, 4, 16, 12) in fake.denoiser.calls  # the first two pictures at a time


@pytest.mark.usefixtures("tiny")
def test_pictures_of_an_exact_model_share_batches_too() -> None:
    lrs = [photo(20, 24, 1), photo(20, 24, 2), photo(37, 20, 3)]
    upscaler = engine(batch=3, steps=2)
    for together, lr in zip(upscaler.together(lrs), lrs, strict=True):
        torch.testing.assert_close(together, engine(steps=2)(lr), atol=1e-5, rtol=0)


@pytest.mark.usefixtures("fake")
def test_progress_is_told_for_each_picture() -> None:
    steps: dict[int, list[tuple[int, int]]] = {}
    lrs = [photo(32, 24), photo(70, 40)]
    upscaler = engine(batch=4, steps=2)
    upscaler.together(lrs, on_step=lambda i, *at: steps.setdefault(i, []).append(at))
    for i, lr in enumerate(lrs):
        total = 2 * int(4 * upscaler.share(lr.shape[-1], lr.shape[-2]))
        assert steps[i] == [(done, total) for done in range(1, total + 1)]
    assert upscaler.share(24, 32) == Fraction(1, 4) < upscaler.share(40, 70)


# ------------------------------------------------------------------------------- memory, precision


def test_short_memory_means_smaller_batches_before_smaller_tiles(fake: Fake) -> None:
    fake.model = replace(fake.model, tile=512, margin=64)
    notes: list[str] = []
    lr = photo(200, 150)
    usual = engine()(lr)
    fake.denoiser.limit = 64 * 64
    result = engine(batch=4)(lr, on_note=notes.append)
    torch.testing.assert_close(result, usual, atol=1e-5, rtol=0)
    assert not notes
    fake.denoiser.limit = 40 * 40
    engine(batch=4)(lr, on_note=notes.append)
    assert notes == ["memory is short: tiles of 256 pixels"]
    fake.denoiser.limit = 20 * 20
    with pytest.raises(DeviceError, match="too little free memory for tiles of 256"):
        engine(batch=4)(lr)


@pytest.mark.parametrize("wrong", [torch.nan, torch.inf, -1e4])
def test_an_overflow_is_repeated_in_float32(fake: Fake, wrong: float) -> None:
    """NaN, infinite or black pictures of a lower precision."""
    notes: list[str] = []
    lr = photo(32, 24)
    usual = engine()(lr)
    fake.low = Attentive(result=wrong)
    assert torch.equal(engine("bfloat16")(lr, on_note=notes.append), usual)
    assert notes == ["bfloat16 overflowed: repeated in float32"]
    fake.low = None
    engine("bfloat16")(lr, on_note=notes.append)
    assert len(notes) == 1  # the control


def test_copies_share_the_model_in_float32(fake: Fake) -> None:
    lr = photo(32, 24)
    usual = [engine(seed=seed)(lr) for seed in (1, 2)]
    fake.low = Attentive(result=torch.nan)
    fake.loaded.clear()
    first = engine("bfloat16")
    for seed, expected in zip((1, 2), usual, strict=True):
        assert torch.equal(first.using(seed=seed)(lr), expected)
    assert fake.loaded == [torch.bfloat16, torch.float32]


@pytest.mark.parametrize("pixels", [0, 2**24])
def test_only_the_picture_that_overflows_is_repeated(
    fake: Fake, monkeypatch: pytest.MonkeyPatch, pixels: int
) -> None:
    """Also where several are finished as one."""
    monkeypatch.setattr(finish, "at_once", lambda _: pixels)
    fake.low = Attentive()
    real = fake.low.predict_x0

    def predict(x: Tensor, **values: Any) -> Tensor:
        result = real(x, **values)
        result[values["hint"].mean(dim=(1, 2, 3)) < -0.5] = torch.nan
        return result

    fake.low.predict_x0 = predict  # type: ignore[method-assign]
    notes: list[int] = []
    lrs = [photo(32, 24), 0.1 * photo(32, 24), photo(32, 24, 3)]
    results = engine("bfloat16", batch=3).together(lrs, on_note=lambda i, _: notes.append(i))
    assert notes == [1]
    for lr, result in zip(lrs, results, strict=True):
        torch.testing.assert_close(result, engine()(lr), atol=1e-5, rtol=0)


def test_a_result_that_is_none_in_float32_either_is_an_error(fake: Fake) -> None:
    fake.denoiser.result = torch.nan
    with pytest.raises(DeviceError, match="even with --dtype float32"):
        engine("bfloat16")(photo(16, 16))


def test_a_black_picture_of_a_black_source_is_right() -> None:
    black, grey = torch.zeros(1, 3, 4, 4), torch.full((1, 3, 4, 4), 0.5)
    assert not overflowed(black, black)
    assert overflowed(black, grey)
    assert not overflowed(grey, black)


# ------------------------------------------------------------------------------------------ hooks


@pytest.mark.usefixtures("fake")
def test_a_stopwatch_counts_each_part() -> None:
    watch = Stopwatch("cpu")
    options = UpscaleOptions(steps=3)
    Upscaler(options, device="cpu", dtype="float32", timer=watch)(photo(32, 24))
    counts = {part: len(seconds) for part, seconds in watch.seconds.items()}
    once = ("preprocess", "encode", "decode", "colour", "guard")
    assert counts == {"network": 3} | dict.fromkeys(once, 1)
    assert all(second > 0 for seconds in watch.seconds.values() for second in seconds)


def test_compiling_changes_nothing_but_the_time(
    fake: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a backend that only traces, as real compiling takes a minute."""
    network = torch.nn.Conv2d(4, 4, 3, padding=1).requires_grad_(False)
    compiled: list[torch.fx.GraphModule] = []

    def trace(module: torch.fx.GraphModule, _: list[Tensor]) -> Any:
        compiled.append(module)
        return module.forward

    real = torch.nn.Module.compile
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self: real(self, backend=trace))
    monkeypatch.setattr(Attentive, "predict_x0", lambda self, x, **values: network(values["hint"]))
    fake.model = replace(fake.model, networks=(network,))
    usual = engine(steps=1)(photo(32, 24))
    upscaler = engine(steps=1)
    upscaler.compile()
    torch.testing.assert_close(upscaler(photo(32, 24)), usual, atol=1e-6, rtol=0)
    assert compiled
