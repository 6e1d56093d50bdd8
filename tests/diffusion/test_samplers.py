"""Samplers of diffusers on our ᾱ: exact where theory knows the result, and one with our solver.

For x0 ~ N(μ, s²) the exact denoiser is affine and so is every sampler: a batch of unit impulses
gives mean and variance of the result without Monte Carlo, as in laws.py.
"""

import sys
import threading
import types
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext, suppress
from itertools import pairwise
from typing import Any, get_args

import diffusers
import numpy as np
import pytest
import torch
from reference import solve
from torch import Tensor

from sr_cli.diffusion import samplers
from sr_cli.diffusion.names import LastStep, SamplerName
from sr_cli.diffusion.path import Path, time_grid
from sr_cli.diffusion.samplers import sample, table
from sr_cli.diffusion.schedules import SCHEDULES, alpha_bar
from sr_cli.diffusion.solvers import plan
from sr_cli.errors import UsageError

NAMES = get_args(SamplerName)
MU, S2 = -0.4, 0.3
SCHEDULE = alpha_bar()
LAST = len(SCHEDULE) - 1


def exact(x: Tensor, alpha: float, sigma: float, t: int) -> Tensor:
    """E[x0 | x] of x0 ~ N(μ, s²)."""
    del t
    gain = alpha * S2 / (alpha**2 * S2 + sigma**2)
    return (x - alpha * MU) * gain + MU


def world(x: Tensor, alpha: float, sigma: float, t: int) -> Tensor:
    """The same of a network trained on SCHEDULE, which goes by t alone."""
    del alpha, sigma
    return exact(x, float(np.sqrt(SCHEDULE[t])), float(np.sqrt(1 - SCHEDULE[t])), t)


def moments(x: Tensor) -> tuple[float, float]:
    """Mean and variance over the noise, from rows of unit impulses and a last row without any."""
    return float(x[-1]), float(((x - x[-1]) ** 2).sum())


def run(name: SamplerName, steps: int, denoise: Any = exact, **options: Any) -> Tensor:
    """Rows of x0 that started where the true x_t lies; `schedule` is what the sampler believes."""
    t_start = options.get("t_start", LAST)
    rows = torch.eye(steps + 2)
    alpha_bar_t = SCHEDULE[t_start]
    start = np.sqrt(alpha_bar_t * S2 + 1 - alpha_bar_t) * rows[0] + np.sqrt(alpha_bar_t) * MU
    schedule = options.get("schedule", SCHEDULE)
    return torch.as_tensor(
        sample(name, schedule, t_start, steps, start, denoise, lambda i: rows[i])
    )


def last_state_error(name: SamplerName, steps: int) -> float:
    """Of the variance at the last call, relative to α² s² + σ²: the sampler without its ending."""
    errors: list[float] = []

    def denoise(x: Tensor, alpha: float, sigma: float, t: int) -> Tensor:
        mean, variance = moments(x)
        assert mean == pytest.approx(alpha * MU, abs=1e-4)
        errors.append(variance / (alpha**2 * S2 + sigma**2) - 1)
        return exact(x, alpha, sigma, t)

    run(name, steps, denoise)
    return abs(errors[-1])


@pytest.mark.parametrize("t_start", [LAST, 400])
def test_ddpm_in_all_steps_samples_the_distribution(t_start: int) -> None:
    mean, variance = moments(run("ddpm", t_start, t_start=t_start))
    assert mean == pytest.approx(MU, abs=1e-3)
    assert variance == pytest.approx(S2, rel=0.02)
    _, variance = moments(run("ddpm", 5, t_start=t_start))
    assert variance != pytest.approx(S2, rel=0.02)


@pytest.mark.parametrize("name", NAMES)
def test_more_steps_come_closer(name: SamplerName) -> None:
    assert last_state_error(name, 160) < last_state_error(name, 20) / 3


def test_dpm_solver_converges_faster_than_ddim() -> None:
    slopes = {
        name: np.log2(last_state_error(name, 40) / last_state_error(name, 160)) / 2
        for name in NAMES
    }
    assert slopes["ddim"] < 1
    assert slopes["dpmsolver++"] > 1.5
    for steps in (10, 20, 40):
        assert last_state_error("dpmsolver++", steps) < last_state_error("ddim", steps) / 10


@pytest.mark.parametrize("name", NAMES)
def test_another_schedule_than_the_networks_is_noticed(name: SamplerName) -> None:
    mean, variance = moments(run(name, 80, world))
    assert mean == pytest.approx(MU, abs=1e-3)
    assert variance == pytest.approx(S2, rel=0.15)
    _, variance = moments(run(name, 80, world, schedule=SCHEDULE**3))
    assert variance != pytest.approx(S2, rel=0.3)


def walked(
    steps: int, noise: Callable[[int], Tensor], denoise: Any, x: Tensor, **plan_: Any
) -> Any:
    path = Path.plain(SCHEDULE)
    schedule = plan(path, time_grid(LAST + 1, steps), **plan_)

    def predict(x: Tensor, step: Any) -> Tensor:
        s = step.s
        return denoise(x, float(path.alpha[s]), float(path.sigma[s]), s)  # type: ignore[no-any-return]

    return solve(schedule, predict, 0 * x, x, noise)


@pytest.mark.parametrize("steps", [1, 2, 7, 40])
def test_our_order_1_without_shift_is_ddpm(steps: int) -> None:
    """DoSSR's Eq. 12 with η = 0 is the ancestral sampler, so ᾱ, times and noise are the same."""
    x, *z = torch.randn(steps + 1, 1, 3, 4, 4, generator=torch.Generator().manual_seed(0))

    def denoise(x: Tensor, alpha: float, sigma: float, t: int) -> Tensor:
        return torch.tanh(x) * alpha - sigma * t / 1000

    got = sample("ddpm", SCHEDULE, LAST, steps, x, denoise, lambda i: z[i - 1])
    want = walked(steps, lambda i: z[i - 1], denoise, x, order=1, last_step="x0")
    torch.testing.assert_close(got, want, atol=1e-4, rtol=0)
    if steps > 2:
        other = walked(steps, lambda i: z[i - 1], denoise, x, order=2, last_step="x0")
        assert (got - other).abs().max() > 1e-2
        other = sample("ddpm", alpha_bar("linear"), LAST, steps, x, denoise, lambda i: z[i - 1])
        assert (got - other).abs().max() > 1e-2


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("t_start", [LAST, 300])
def test_the_network_sees_one_diffusion(name: SamplerName, t_start: int) -> None:
    """Calls: as many as steps, α² + σ² = 1, from t_start downwards, t beside its own noise."""
    seen: list[tuple[float, float, int]] = []

    def denoise(x: Tensor, alpha: float, sigma: float, t: int) -> Tensor:
        seen.append((alpha, sigma, t))
        return 0 * x + 0.25

    got = sample(
        name, SCHEDULE, t_start, 7, torch.ones(1, 1, 2, 2), denoise, lambda _: torch.ones(1)
    )
    assert len(seen) == 7
    assert torch.allclose(got, torch.tensor(0.25), atol=1e-5)  # ends on the last prediction
    assert seen[0][2] == t_start
    for alpha, sigma, t in seen:
        assert alpha**2 + sigma**2 == pytest.approx(1)
        near = SCHEDULE[min(t + 1, LAST)], SCHEDULE[max(t - 1, 0)]
        assert near[0] - 1e-6 <= alpha**2 <= near[1] + 1e-6
    assert all(one[0] < two[0] for one, two in pairwise(seen))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("schedule", [alpha_bar(name) for name in SCHEDULES], ids=SCHEDULES)
def test_x_is_at_the_scale_that_the_network_was_told(name: SamplerName, schedule: Any) -> None:
    """A denoiser that knows ε recovers x0 at once, if the x it gets is α x0 + σ ε."""
    draws = torch.randn(2, 1, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    x0, eps = draws.unbind()
    alpha, sigma = np.sqrt(schedule[LAST]), np.sqrt(1 - schedule[LAST])

    def denoise(x: Tensor, alpha: float, sigma: float, t: int) -> Tensor:
        del t
        if name != "ddpm":
            torch.testing.assert_close(x, alpha * x0 + sigma * eps, atol=1e-3, rtol=0)
        return x0

    got = sample(name, schedule, LAST, 6, alpha * x0 + sigma * eps, denoise, lambda _: eps)
    torch.testing.assert_close(got, x0, atol=1e-4, rtol=0)


def test_noise_is_asked_for_by_ddpm_alone() -> None:
    for name, expected in {"ddim": [], "edm": [], "dpmsolver++": [], "ddpm": [1, 2, 3]}.items():
        asked: list[int] = []

        def noise(i: int, asked: list[int] = asked) -> Tensor:
            asked.append(i)
            return torch.zeros(1)

        sample(name, SCHEDULE, LAST, 4, torch.ones(1, 1, 2, 2), exact, noise)  # type: ignore[arg-type]
        assert asked == expected


def test_what_makes_no_sense_is_refused() -> None:
    x = torch.ones(1, 1, 2, 2)
    with pytest.raises(UsageError, match="x0 or mean"):
        sample("ddim", SCHEDULE, LAST, 4, x, exact, lambda _: x, "step")
    with pytest.raises(UsageError, match="one of ddim"):
        sample("euler", SCHEDULE, LAST, 4, x, exact, lambda _: x)  # type: ignore[arg-type]
    for t_start, steps in ((0, 1), (1000, 5), (9, 10), (9, 0)):
        with pytest.raises(UsageError):
            sample("ddim", SCHEDULE, t_start, steps, x, exact, lambda _: x)


@pytest.mark.parametrize("steps", [1, 2, 7])
def test_the_mean_of_ddpm_is_that_of_our_order_1(steps: int) -> None:
    x, *z = torch.randn(steps + 1, 1, 3, 4, 4, generator=torch.Generator().manual_seed(0))

    def denoise(x: Tensor, alpha: float, sigma: float, t: int) -> Tensor:
        return torch.tanh(x) * alpha - sigma * t / 1000

    def draw(i: int) -> Tensor:
        return torch.as_tensor(z[i - 1])

    got = sample("ddpm", SCHEDULE, LAST, steps, x, denoise, draw, "mean")
    want = walked(steps, draw, denoise, x, order=1, last_step="mean")
    torch.testing.assert_close(got, want, atol=1e-4, rtol=0)
    other = sample("ddpm", SCHEDULE, LAST, steps, x, denoise, draw)
    assert (got - other).abs().max() > 1e-4


@pytest.mark.parametrize("name", NAMES)
def test_the_mean_of_a_walk_that_knows_x0_is_x0(name: SamplerName) -> None:
    x, x0 = torch.randn(2, 1, 3, 4, 4, generator=torch.Generator().manual_seed(2))
    got = sample(name, SCHEDULE, LAST, 5, x, lambda *_: x0, lambda _: x, "mean")
    torch.testing.assert_close(got, x0, atol=1e-2 if name == "ddpm" else 1e-5, rtol=0)


def test_with_the_mean_the_order_of_dpm_solver_counts_to_the_end() -> None:
    def read(name: SamplerName, last_step: LastStep) -> list[float]:
        """The predictions that the last of five steps reads."""
        return [weight for weight in table(name, SCHEDULE, LAST, 5, last_step)[1][-1].x0 if weight]

    assert len(read("dpmsolver++", "mean")) == 3
    assert read("dpmsolver++", "x0") == pytest.approx([1])
    assert read("ddim", "mean") == read("ddim", "x0") == pytest.approx([1])


@pytest.mark.parametrize("last_step", ["x0", "mean"])
@pytest.mark.parametrize("steps", [1, 2, 5, 12])
@pytest.mark.parametrize("name", NAMES)
def test_a_table_gives_what_the_sampler_gives(
    name: SamplerName, steps: int, last_step: LastStep
) -> None:
    """On a network that is no Gaussian's, asked at the same times with the same α and σ."""
    x, z = torch.randn(2, 20, 50, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    asked: list[tuple[float, float, int]] = []

    def denoise(x: Tensor, alpha: float, sigma: float, t: int) -> Tensor:
        asked.append((alpha, sigma, t))
        return torch.tanh(x / np.hypot(alpha, sigma) + t / 900)

    ended = sample(name, SCHEDULE, LAST, steps, x, denoise, lambda i: z[i - 1], last_step)
    want = torch.as_tensor(ended)
    expected, asked = asked, []
    path, found = table(name, SCHEDULE, LAST, steps, last_step)
    history: list[Tensor] = []
    for i, step in enumerate(found):
        values = float(path.alpha[step.s]), float(path.sigma[step.s]), path.name(step.s)
        history.insert(0, denoise(x, *values))
        x = step.apply(x, 0 * x, history, z[i])
    torch.testing.assert_close(x, want, rtol=0, atol=1e-6)
    np.testing.assert_allclose(asked, expected, rtol=1e-9)


def test_another_table_would_be_noticed() -> None:
    tables = [table(name, SCHEDULE, LAST, 5)[1] for name in NAMES]
    for one, other in pairwise(tables):
        weights = [[step.x, *step.x0[:1], step.noise] for step in one]
        rivals = [[step.x, *step.x0[:1], step.noise] for step in other]
        assert np.abs(np.array(weights) - np.array(rivals)).max() > 1e-3


@pytest.mark.parametrize("locked", [True, False], ids=["locked", "the control"])
def test_threads_ask_diffusers_one_after_another(
    locked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pictures that are enlarged side by side do, each for its own start. While it imports what it
    is asked for, diffusers tells another thread that there is no such class."""
    real, meeting, met = diffusers, threading.Barrier(2), []

    class Asked(types.ModuleType):
        def __getattr__(self, name: str) -> Any:
            with suppress(threading.BrokenBarrierError):
                meeting.wait(timeout=0.3)
                met.append(name)
            return getattr(real, name)

    monkeypatch.setitem(sys.modules, "diffusers", Asked("diffusers"))
    if not locked:
        monkeypatch.setattr(samplers, "IMPORTING", nullcontext())
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda name: table(name, SCHEDULE, LAST, 3)[1], ("edm", "ddim")))
    assert list(map(len, found)) == [3, 3]
    assert bool(met) != locked
