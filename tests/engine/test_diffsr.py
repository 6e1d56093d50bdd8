"""Diff-SR in the engine: linear samplers as tables, starts from calibrations, any prior."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel
from torch import Tensor

from sr_cli.diffusion.names import SamplerName
from sr_cli.diffusion.path import Path as Diffusion
from sr_cli.diffusion.path import time_grid
from sr_cli.diffusion.samplers import sample, table
from sr_cli.diffusion.schedules import SCHEDULES, alpha_bar
from sr_cli.diffusion.solvers import plan
from sr_cli.engine.options import UpscaleOptions
from sr_cli.engine.size import Side
from sr_cli.engine.steps import setting
from sr_cli.engine.upscaler import Upscaler
from sr_cli.errors import UsageError
from sr_cli.models.calibration import Calibration, Start, keep
from sr_cli.models.resampling import resize

BAR = alpha_bar()
SAMPLERS: tuple[SamplerName, ...] = ("ddim", "ddpm", "dpmsolver++")
CPU: dict[str, Any] = {"device": "cpu", "dtype": "float32"}


@pytest.fixture(autouse=True)
def _home(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert tiny
    monkeypatch.setenv("SRX_HOME", str(tmp_path / "home"))


def photo(height: int, width: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 3, 7, 7, generator=generator)
    image = torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic")[0]
    return (image.clamp(0, 1) * 255).round() / 255


def diffsr(**options: Any) -> Upscaler:
    return Upscaler(UpscaleOptions(method="diffsr", **options), **CPU)


# --------------------------------------------------------------------------------------- samplers
@pytest.mark.parametrize("steps", [1, 2, 5, 12])
def test_ddim_is_its_closed_form(steps: int) -> None:
    """x_t = (σ_t/σ_s) x_s + (α_t − α_s σ_t/σ_s) x0, and the last step gives x0."""
    _, found = table("ddim", BAR, 300, steps)
    times = time_grid(301, steps)
    alpha, sigma = np.sqrt(BAR), np.sqrt(1 - BAR)
    assert [(step.s, step.t) for step in found] == list(pairwise(times))
    for step in found[:-1]:
        kept = sigma[step.t] / sigma[step.s]
        assert step.x == pytest.approx(kept, abs=1e-6)
        assert step.x0 == pytest.approx((alpha[step.t] - alpha[step.s] * kept,), abs=1e-6)
        assert (step.y, step.noise) == (0, 0)
    last = found[-1]
    assert (last.x, last.noise) == (0, 0)
    assert last.x0 == pytest.approx((1,))


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("steps", [1, 3, 40])
def test_a_prediction_that_stays_stays_on_the_diffusion(
    name: SamplerName, schedule: str, steps: int
) -> None:
    """Of one x0, α_s x0 + σ_s ε becomes α_t x0 + σ_t ε, at the latest start and the last ᾱ too."""
    bar = alpha_bar(schedule)
    _, found = table(name, bar, len(bar) - 1, steps)
    bar[0] = 1  # where the last step ends: a clean x0
    alpha, sigma = np.sqrt(bar), np.sqrt(1 - bar)
    for step in found:
        signal = step.x * alpha[step.s] + sum(step.x0)
        noise = np.hypot(step.x * sigma[step.s], step.noise)
        assert signal == pytest.approx(alpha[step.t], abs=1e-6)
        assert noise == pytest.approx(sigma[step.t], abs=1e-6)


def test_ddpm_is_dossr_of_order_1_without_shift() -> None:
    _, found = table("ddpm", BAR, 400, 7)
    expected = plan(Diffusion.plain(BAR), time_grid(401, 7), order=1, last_step="x0")
    for step, want in zip(found, expected, strict=True):
        assert (step.s, step.t) == (want.s, want.t)
        got = (step.x, *step.x0, step.noise)
        assert got == pytest.approx((want.x, *want.x0, want.noise), abs=1e-6)
    other = plan(Diffusion.plain(BAR), time_grid(401, 7), order=1, last_step="step")
    assert found[-1].noise != pytest.approx(other[-1].noise, abs=1e-3)


# ----------------------------------------------------------------------------------------- engine
@pytest.mark.parametrize("scale", [1.3, 2.7, 4])
def test_without_noise_the_result_is_the_enlargement(scale: float) -> None:
    lr = photo(20, 31)
    result = diffsr(scale=scale, t1=0, color="none")(lr)
    size = (int(20 * scale + 0.5), int(31 * scale + 0.5))
    torch.testing.assert_close(result, resize(lr[None], size)[0].clamp(0, 1), atol=1e-6, rtol=0)
    assert (diffsr(scale=scale, t1=100, color="none")(lr) - result).abs().max() > 1e-2


@pytest.mark.usefixtures("unguarded")
@pytest.mark.parametrize("name", SAMPLERS)
def test_the_engine_walks_from_the_noised_enlargement(name: SamplerName) -> None:
    """x_t = α y + σ z at t1, then the sampler of diffusers with the prior, all on one tile."""
    lr = photo(16, 24)
    engine = diffsr(scale=2, t1=80, steps=4, sampler=name, color="none")
    noise = engine._noise(lr)
    window = (slice(0, 32), slice(0, 48))
    y = 2 * resize(lr[None], (32, 48)).clamp(0, 1) - 1
    x = float(BAR[80] ** 0.5) * y + float((1 - BAR[80]) ** 0.5) * noise(0, window)

    def network(x: Tensor, alpha: float, sigma: float, t: int) -> Tensor:
        denoiser = engine.model.denoiser
        return denoiser.predict_x0(x, alpha=alpha, sigma=sigma, a=alpha, m=0, y=y, hint=y, t=t)

    want = sample(name, BAR, 80, 4, x, network, lambda i: noise(i, window))
    torch.testing.assert_close(
        engine(lr), ((want[0] + 1) / 2).clamp(0, 1), atol=1e-4, rtol=0, check_dtype=False
    )


def test_tiles_do_not_show() -> None:
    lr = photo(60, 45)
    settings = {"scale": 2.7, "t1": 60, "steps": 3, "sampler": "ddpm"}
    whole = diffsr(**settings, tile=0)(lr)
    assert (diffsr(**settings, tile=16)(lr) - whole).abs().max() < 1 / 255
    assert (diffsr(**settings, tile=16, overlap=0)(lr) - whole).abs().max() > 1 / 255


def test_fewer_times_than_steps_are_all_taken() -> None:
    lr = photo(8, 8)
    torch.testing.assert_close(
        diffsr(scale=2, t1=3, steps=50)(lr), diffsr(scale=2, t1=3, steps=3)(lr)
    )


def test_another_schedule_is_another_noise_at_the_same_time() -> None:
    lr = photo(16, 16)
    usual = diffsr(scale=2, t1=100)(lr)
    assert (diffsr(scale=2, t1=100, schedule="cosine")(lr) - usual).abs().max() > 1e-2
    torch.testing.assert_close(diffsr(scale=2, t1=100, schedule="scaled_linear")(lr), usual)


def test_a_pipeline_of_diffusers_enlarges(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net: Any = UNet2DModel(  # type: ignore[no-untyped-call]
        sample_size=32,
        block_out_channels=(8, 16),
        layers_per_block=1,
        norm_num_groups=4,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=4,
    )
    scheduler: Any = DDPMScheduler(num_train_timesteps=200)  # type: ignore[no-untyped-call]
    pipeline: Any = DDPMPipeline(net, scheduler)  # type: ignore[no-untyped-call]
    pipeline.save_pretrained(tmp_path / "ddpm")
    engine = diffsr(scale=2.7, t1=20, steps=2, prior=str(tmp_path / "ddpm"))
    lr = photo(17, 20)
    result = engine(lr)
    assert tuple(result.shape) == (3, 46, 54)
    assert result.isfinite().all()
    assert len(engine.model.alpha_bar) == 200
    assert (result - diffsr(scale=2.7, t1=0)(lr)).abs().max() > 1e-3


# ---------------------------------------------------------------------------------------- starts
def calibrate(options: UpscaleOptions, starts: dict[float, int], **origin: object) -> None:
    engine = Upscaler(UpscaleOptions(method=options.method, t1=20), **CPU)
    found = {scale: Start(t, origin) for scale, t in starts.items()}
    keep(setting(options, engine.model), Calibration(found))


def test_each_picture_starts_where_its_scale_is_calibrated() -> None:
    calibrate(UpscaleOptions(method="diffsr"), {2.0: 0, 4.0: 200})
    small, large = photo(10, 16, 1), photo(12, 24, 2)
    auto = diffsr(scale=Side("long_side", 64), steps=3)  # 4x and 2.67x
    results = auto.together([small, large])
    for lr, t1, result in zip((small, large), (200, 67), results, strict=True):
        scale = 64 / lr.shape[2]
        torch.testing.assert_close(result, diffsr(scale=scale, t1=t1, steps=3)(lr))
        torch.testing.assert_close(auto(lr), result)
    assert (results[0] - diffsr(scale=4, t1=100, steps=3)(small)).abs().max() > 1e-2


def test_the_progress_of_each_picture_is_its_own() -> None:
    calibrate(UpscaleOptions(method="diffsr"), {2.0: 50, 4.0: 200})
    seen: list[tuple[int, int, int]] = []
    lrs = [photo(8, 16), photo(8, 32), photo(16, 16)]
    diffsr(scale=Side("long_side", 64), steps=2).together(lrs, on_step=lambda *at: seen.append(at))
    assert {(i, total) for i, _, total in seen} == {(0, 2), (1, 2), (2, 2)}


def test_no_calibration_is_a_sentence_at_once() -> None:
    with pytest.raises(UsageError, match=r"run srx prf-search --prior prior .* choose --t1"):
        diffsr(scale=2)
    with pytest.raises(UsageError, match="run srx prf-search --method dossr"):
        Upscaler(UpscaleOptions(t1="auto"), **CPU)
    calibrate(UpscaleOptions(method="diffsr"), {2.0: 0})
    diffsr(scale=2)
    for other in ({"sampler": "ddpm"}, {"degradation": "mild"}, {"schedule": "linear"}):
        with pytest.raises(UsageError, match="No calibration"):
            diffsr(scale=2, **other)


def test_a_start_that_was_found_otherwise_is_taken_with_a_note() -> None:
    """Steps 5, bicubic input and x0 in the end here; the same found otherwise says so."""
    origin = {"steps": 5, "preprocess": "none", "order": 3, "variant": "paper", "last_step": "x0"}
    calibrate(UpscaleOptions(), {4.0: 320}, **origin)
    said: list[str] = []
    Upscaler(UpscaleOptions(t1="auto"), **CPU)(photo(9, 9), on_note=said.append)
    assert said == ["t1 = 320"]
    for option, value in {
        "steps": 1,
        "preprocess": "compact",
        "order": 1,
        "last_step": "step",
    }.items():
        changed = UpscaleOptions(**{"t1": "auto", option: value})  # type: ignore[arg-type]
        Upscaler(changed, **CPU)(photo(9, 9), on_note=said.append)
        assert said.pop() == f"t1 was found with {option} {origin[option]}, not {value}"
    calibrate(UpscaleOptions(method="diffsr"), {2.0: 40}, **origin)
    said.clear()
    diffsr(scale=2, steps=5, order=1, last_step="step")(photo(9, 9), on_note=said.append)
    assert said == ["t1 = 40"]  # a prior's samplers know neither order nor last step
    diffsr(scale=2, steps=2)(photo(9, 9), on_note=said.append)
    assert said[1:] == ["t1 = 40", "t1 was found with steps 5, not 2"]
    calibrate(UpscaleOptions(method="diffsr"), {2.0: 0}, **origin)
    diffsr(scale=2, steps=5)(photo(9, 9), on_note=said.append)
    assert said[-1].startswith("t1 = 0: the enlargement")
    diffsr(scale=2, t1=7)(photo(9, 9), on_note=said.append)
    assert "t1 = 7" not in said  # which the user knows


def test_dossr_starts_where_it_is_calibrated_too() -> None:
    calibrate(UpscaleOptions(), {4.0: 320})
    lr = photo(9, 9)
    auto = Upscaler(UpscaleOptions(t1="auto"), **CPU)(lr)
    torch.testing.assert_close(auto, Upscaler(UpscaleOptions(t1=320), **CPU)(lr))
    assert (auto - Upscaler(UpscaleOptions(), **CPU)(lr)).abs().max() > 1e-3


@pytest.mark.parametrize(
    "options",
    [
        {"t1": 1000},
        {"t1": -1},
        {"prior": ""},
        {"sampler": "euler"},
        {"schedule": "none"},
        {"degradation": "none"},
        {"method": "other"},
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        UpscaleOptions(**{"method": "diffsr"} | options)
