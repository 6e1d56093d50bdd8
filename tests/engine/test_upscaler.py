"""The engine's promises: exact sizes, exact tiles, noise of the picture's own, memory that fits."""

import shutil
import tempfile
from contextlib import nullcontext
from dataclasses import replace
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from reference import solve
from torch import Tensor

from sr_cli.device import resolve_dtype
from sr_cli.diffusion.solvers import Step, start
from sr_cli.engine import finish, guard, sampling
from sr_cli.engine.images import load
from sr_cli.engine.options import UpscaleOptions
from sr_cli.engine.steps import conditions
from sr_cli.engine.upscaler import Upscaler
from sr_cli.errors import DeviceError, ModelError, UsageError
from sr_cli.models import registry
from sr_cli.models.embedded import EmbeddedDenoiser

ONE_LEVEL = 1
EXAMPLES = Path(__file__).parents[2] / "examples"


CPU: dict[str, Any] = {"device": "cpu", "dtype": "float32"}


def photo(height: int, width: int, seed: int = 0) -> Tensor:
    """Smooth structure and some grain, (3, H, W), 8-bit levels in [0, 1]."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 3, 9, 9, generator=generator)
    image = torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic")[0]
    image = image + 0.05 * torch.randn(3, height, width, generator=generator)
    return (image.clamp(0, 1) * 255).round() / 255


def upscaled(lr: Tensor, dtype: str = "float32", **options: Any) -> Tensor:
    return Upscaler(UpscaleOptions(**options), device="cpu", dtype=dtype)(lr)


def levels_apart(one: Tensor, other: Tensor) -> int:
    """Largest difference of the two when both are written in 8 bits."""
    return int(((one * 255).round() - (other * 255).round()).abs().max())


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize("size", [(16, 16), (97, 61), (30, 77), (1, 1), (5, 1)])
@pytest.mark.parametrize("scale", [0.5, 1.5, 2, 2.7, 4, 6])
def test_sizes_are_rounded_exactly(size: tuple[int, int], scale: float) -> None:
    height, width = size
    result = upscaled(photo(height, width), scale=scale, steps=1)
    expected = (3, *(max(1, int(side * scale + 0.5)) for side in size))
    assert tuple(result.shape) == expected
    assert result.isfinite().all()
    assert 0 <= result.min() <= result.max() <= 1


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("scale", [4.0, 2.7])
def test_tiles_and_batches_do_not_show(scale: float, dtype: str) -> None:
    lr = photo(83, 63)
    whole = upscaled(lr, dtype, scale=scale, tile=0)
    for tile, batch in product((16, 40), (1, 4)):
        tiled = upscaled(lr, dtype, scale=scale, tile=tile, batch=batch)
        assert levels_apart(tiled, whole) <= ONE_LEVEL


@pytest.mark.usefixtures("tiny")
def test_tiles_without_their_margin_do_show() -> None:
    lr = photo(83, 63)
    assert levels_apart(upscaled(lr, tile=16, overlap=0), upscaled(lr, tile=0)) > ONE_LEVEL


@pytest.mark.usefixtures("tiny")
def test_threads_do_not_show() -> None:
    lr = photo(40, 30)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = upscaled(lr)
        torch.set_num_threads(2)
        assert levels_apart(upscaled(lr), one) <= ONE_LEVEL
    finally:
        torch.set_num_threads(threads)


@pytest.mark.usefixtures("tiny")
def test_a_result_depends_on_the_picture_and_the_seed_alone() -> None:
    engine = Upscaler(UpscaleOptions(), device="cpu")
    first, second = photo(20, 20, 1), photo(20, 20, 2)
    alone = engine(first)
    engine(second)
    assert torch.equal(engine(first), alone)
    assert not torch.equal(upscaled(first, seed=1), alone)


@pytest.mark.usefixtures("tiny")
def test_noise_differs_between_pictures() -> None:
    """Two pictures that differ in one corner differ far from it too: each has noise of its own."""
    lr = photo(100, 100)
    other = lr.clone()
    other[:, 0, 0] = 1 - other[:, 0, 0]
    one, two = (upscaled(image, color="none", preprocess="none") for image in (lr, other))
    assert (one - two)[:, 350:, 350:].abs().max() > 1e-3


@pytest.mark.usefixtures("tiny", "unguarded")
def test_the_tiled_walk_is_the_solver() -> None:
    """The engine's loop over one shared state against the plain one."""
    engine = Upscaler(
        UpscaleOptions(preprocess="none", color="none", tile=16), device="cpu", dtype="float32"
    )
    lr = photo(16, 24)
    assert engine._course
    path, steps, model = engine._course.path, engine._course.steps, engine.model
    noise = engine._noise(lr)
    window = (slice(0, 64), slice(0, 96))
    y = (
        2
        * torch.nn.functional.interpolate(
            lr[None], scale_factor=4, mode="bicubic", antialias=True
        ).clamp(0, 1)
        - 1
    )

    def denoise(x: Tensor, step: Any) -> Tensor:
        s = step.s
        values = {
            k: float(v[s])
            for k, v in (("alpha", path.alpha), ("sigma", path.sigma), ("a", path.a), ("m", path.m))
        }
        return model.denoiser.predict_x0(x, y=y, hint=y, t=s, **values)

    alpha, sigma = start(path, steps[0].s)
    x = solve(steps, denoise, y, alpha * y + sigma * noise(0, window), lambda i: noise(i, window))
    expected = ((x + 1) / 2).clamp(0, 1)[0]
    torch.testing.assert_close(engine(lr), expected, atol=1e-4, rtol=0)


@pytest.mark.usefixtures("tiny")
def test_the_last_step_is_the_cards_unless_an_option_says_otherwise() -> None:
    """Of five steps only the last is another; ending on x0, it makes the order unimportant."""
    engine = Upscaler(UpscaleOptions(), **CPU)
    assert engine.model.last_step == "x0"

    def steps(engine: Upscaler) -> tuple[Step, ...]:
        assert engine._course
        return engine._course.steps

    ends = {end: steps(engine.using(last_step=end)) for end in ("x0", "mean", "step")}
    assert ends["x0"] == steps(engine)
    assert ends["x0"][-1].x0 == (1.0,)
    assert ends["x0"][:-1] == ends["mean"][:-1] == ends["step"][:-1]
    assert len(ends["mean"][-1].x0) == 3
    assert ends["mean"][-1].noise == 0 < ends["step"][-1].noise


@pytest.fixture
def dialled(dialled_weights: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SRX_WEIGHTS", str(dialled_weights))
    return dialled_weights


@pytest.mark.usefixtures("dialled")
def test_texture_reaches_the_network_and_is_the_cards_without_an_option() -> None:
    lr = photo(20, 30)
    engine = Upscaler(UpscaleOptions(), **CPU)
    own = engine(lr)
    smooth = engine.using(texture=0)
    assert (engine.texture, smooth.texture) == (1, 0)
    assert levels_apart(smooth(lr), own) > ONE_LEVEL
    assert torch.equal(smooth(lr), upscaled(lr, texture=0))
    assert torch.equal(engine(lr), own)  # the first engine has not changed
    assert torch.equal(smooth.using(texture=None)(lr), own)
    assert torch.equal(smooth.using(texture=1.0, steps=5)(lr), own)


@pytest.mark.usefixtures("dialled")
def test_a_card_can_say_how_much_texture(monkeypatch: pytest.MonkeyPatch) -> None:
    lr, found = photo(20, 30), registry.card("embedded")
    half = replace(found, limits=replace(found.limits, texture=0.5))
    expected = upscaled(lr, texture=0.5)
    monkeypatch.setattr(registry, "card", lambda *_: half)
    engine = Upscaler(UpscaleOptions(), **CPU)
    assert engine.texture == 0.5
    assert torch.equal(engine(lr), expected)
    assert conditions(engine.options, engine.model)["texture"] == 0.5
    assert conditions(engine.using(texture=0).options, engine.model)["texture"] == 0


@pytest.mark.usefixtures("dialled")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_tiles_and_batches_do_not_show_at_any_texture(dtype: str) -> None:
    lrs = [photo(53, 33), photo(20, 30, 1)]
    wholes = [upscaled(lr, dtype, texture=0.3, tile=0) for lr in lrs]
    engine = Upscaler(UpscaleOptions(texture=0.3, tile=16, batch=4), device="cpu", dtype=dtype)
    for tiled, whole in zip(engine.together(lrs), wholes, strict=True):
        assert levels_apart(tiled, whole) <= ONE_LEVEL


@pytest.mark.usefixtures("dialled")
def test_a_model_without_a_dial_refuses_a_texture_and_names_those_that_have_one() -> None:
    refusals = {"clean": {"model": "clean"}, "prior": {"method": "diffsr", "t1": 100}}
    for name, options in refusals.items():
        plain = Upscaler(UpscaleOptions(**options), **CPU)  # type: ignore[arg-type]
        assert plain.texture is None
        assert "texture" not in conditions(plain.options, plain.model)
        with pytest.raises(UsageError, match=f"{name} has no dial .*--model embedded"):
            plain.using(texture=1)
        with pytest.raises(UsageError, match=f"{name} has no dial .*--model embedded"):
            Upscaler(UpscaleOptions(texture=0, **options), **CPU)  # type: ignore[arg-type]


def limited(monkeypatch: pytest.MonkeyPatch, pixels: int, error: type[Exception]) -> list[int]:
    """Make calls on windows of more than `pixels` fail; the list gets the sizes that worked."""
    seen: list[int] = []
    real = EmbeddedDenoiser.predict_x0

    def predict(self: EmbeddedDenoiser, x: Tensor, **values: Any) -> Tensor:
        if x.shape[-1] * x.shape[-2] > pixels:
            raise error("out of memory")
        seen.append(x.shape[-1] * x.shape[-2])
        return real(self, x, **values)

    monkeypatch.setattr(EmbeddedDenoiser, "predict_x0", predict)
    return seen


@pytest.mark.usefixtures("tiny")
def test_tiles_are_halved_when_memory_runs_out(monkeypatch: pytest.MonkeyPatch) -> None:
    lr = photo(120, 120)
    whole = upscaled(lr, tile=0)
    seen = limited(monkeypatch, 400 * 400, torch.OutOfMemoryError)
    assert levels_apart(upscaled(lr, tile=0), whole) <= ONE_LEVEL
    assert max(seen) <= 400 * 400


@pytest.mark.usefixtures("tiny")
def test_too_little_memory_for_any_tile_is_a_device_error(monkeypatch: pytest.MonkeyPatch) -> None:
    limited(monkeypatch, 32 * 32, torch.OutOfMemoryError)
    with pytest.raises(DeviceError, match="too little free memory"):
        upscaled(photo(40, 40))


@pytest.mark.usefixtures("tiny")
def test_other_errors_are_not_taken_for_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    limited(monkeypatch, 32 * 32, ValueError)
    with pytest.raises(ValueError, match="out of memory"):
        upscaled(photo(40, 40))


@pytest.mark.usefixtures("tiny")
def test_a_state_larger_than_memory_lives_in_files(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    lr = photo(30, 20)
    usual = upscaled(lr, tile=16)
    monkeypatch.setenv("SRX_HOME", str(tmp_path / "home"))
    folders: list[Path] = []
    real = tempfile.TemporaryFile

    def temporary_file(**values: Any) -> Any:
        folders.append(values["dir"])
        return real(**values)

    monkeypatch.setattr(tempfile, "TemporaryFile", temporary_file)
    monkeypatch.setattr(sampling, "free_memory", lambda device: 10_000)
    assert torch.equal(upscaled(lr, tile=16), usual)
    assert folders == [tmp_path / "home"] * 2  # x; y and the predictions
    assert not list((tmp_path / "home").iterdir())


@pytest.mark.usefixtures("tiny")
def test_a_full_disk_is_told_before_it_ends_the_process(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """x, y and three predictions of 80 × 128 pixels in float32 take 600 KiB."""
    monkeypatch.setenv("SRX_HOME", str(tmp_path))
    monkeypatch.setattr(sampling, "free_memory", lambda device: 10_000)
    needed = 5 * 80 * 128 * 3 * 4
    for free in (needed, needed - 1):
        usage = SimpleNamespace(free=free)
        monkeypatch.setattr(shutil, "disk_usage", lambda path, usage=usage: usage)
        with nullcontext() if free == needed else pytest.raises(DeviceError, match="SRX_HOME"):
            upscaled(photo(20, 32))
    (tmp_path / "file").touch()
    monkeypatch.setenv("SRX_HOME", str(tmp_path / "file"))
    with pytest.raises(DeviceError, match="Memory is too small for this picture"):
        upscaled(photo(20, 32))


@pytest.mark.usefixtures("tiny")
def test_a_result_that_is_no_number_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    overflow = torch.full((1, 3, 64, 64), torch.inf)
    monkeypatch.setattr(EmbeddedDenoiser, "predict_x0", lambda self, x, **values: overflow)
    with pytest.raises(DeviceError, match="--dtype float32"):
        upscaled(photo(16, 16))


@pytest.mark.usefixtures("tiny")
def test_progress_counts_to_its_total() -> None:
    calls: list[tuple[int, int]] = []
    engine = Upscaler(UpscaleOptions(tile=16, steps=3), device="cpu")
    engine(photo(20, 20), on_step=lambda done, total: calls.append((done, total)))
    assert calls == [(i, 12) for i in range(1, 13)]


@pytest.mark.usefixtures("tiny")
def test_unknown_models_and_devices_are_refused() -> None:
    with pytest.raises(ModelError, match="no weights named"):
        Upscaler(UpscaleOptions(model="nonsense"))
    with pytest.raises(ModelError, match="compact network"):
        Upscaler(UpscaleOptions(model="compact"))
    if not torch.cuda.is_available():
        with pytest.raises(DeviceError, match="no CUDA device"):
            Upscaler(UpscaleOptions(), device="cuda")


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize("color", ["wavelet", "adain"])
@pytest.mark.parametrize("exact", [True, False])
def test_the_tiles_of_the_colour_fix_do_not_show(
    monkeypatch: pytest.MonkeyPatch, color: str, *, exact: bool
) -> None:
    real = finish.Finish

    def finishing(color: Any, _: bool, *rest: Any) -> finish.Finish:
        return real(color, exact, *rest)

    lr = photo(30, 40)
    monkeypatch.setattr(finish, "Finish", finishing)
    module, name = (finish, "COLOR_TILE") if exact else (guard, "COLOR_TILE")
    usual = upscaled(lr, color=color)
    monkeypatch.setattr(module, name, 50 if exact else 12)
    assert torch.equal(upscaled(lr, color=color), usual)
    monkeypatch.setattr(module, "WAVELET_MARGIN", 8 if exact else 2)
    assert torch.equal(upscaled(lr, color=color), usual) == (color == "adain")  # the control


def strip() -> Tensor:
    """A face beside a cup, (3, 32, 231): wide enough for tiles that do not see all of it."""
    faces, cup = (
        torch.from_numpy(load(EXAMPLES / name).rgb).permute(2, 0, 1)
        for name in ("astronaut.png", "coffee.png")
    )
    return torch.cat((faces[:, 20:52], cup[:, 40:72, :105]), dim=2)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("scale", [4.0, 2.7])
def test_shipped_weights_tile_within_one_level(scale: float, dtype: str) -> None:
    """The promise itself, on photographs: 5 steps, tiles of 64 against the whole picture."""
    cpu = torch.device("cpu")
    if dtype == "bfloat16" and resolve_dtype("auto", cpu) != torch.bfloat16:
        pytest.skip("bfloat16 is emulated here, which takes minutes")
    lr = strip()
    whole = upscaled(lr, dtype, scale=scale, tile=0)
    for batch in (1, 4):
        tiled = upscaled(lr, dtype, scale=scale, tile=64, batch=batch)
        assert levels_apart(tiled, whole) <= ONE_LEVEL
    short = upscaled(lr, dtype, scale=scale, tile=64, overlap=0)
    assert levels_apart(short, whole) > ONE_LEVEL  # the control


@pytest.mark.usefixtures("tiny")
def test_bytes_give_what_their_floats_give() -> None:
    """And what is kept of a picture for its noise is its bytes: deeper ones share it."""
    lr = photo(20, 24)
    usual = upscaled(lr)
    assert torch.equal(upscaled((lr * 255).round().to(torch.uint8)), usual)
    deeper = lr + 0.3 / 255
    assert 0 < levels_apart(upscaled(deeper.clamp(0, 1)), usual) < 20
