"""Domain shift as a plain diffusion on another grid of noise levels, and what it is not.

A denoiser is sufficient in (z, λ, y) if it looks at x_t only through z/σ with z = x_t − α_t·y, and
at the time only through λ_t = σ_t/a_t. Of such a one DoSSR's walk equals a plain diffusion's
(η = 0) that stops at the same λ, as docs/papers.md proves; one that looks at α, at t or at x itself
breaks that.
"""

from collections.abc import Callable
from itertools import product
from pathlib import Path as File
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from reference import solve

from sr_cli.diffusion.path import Path, time_grid
from sr_cli.diffusion.schedules import alpha_bar
from sr_cli.diffusion.solvers import plan, start
from sr_cli.engine.options import UpscaleOptions
from sr_cli.engine.steps import Course
from sr_cli.engine.upscaler import Upscaler

Array = NDArray[np.float64]
Denoise = Callable[[Array, Any, Path], Array]
Y, *Z = np.random.default_rng(0).normal(size=(9, 40))
WALKS = list(product((1000, 500, 333), (1, 2, 3)))


def twin(shifted: Path) -> Path:
    """The plain path with the same noise-to-signal ratio at each time."""
    return Path.plain(1 / (1 + shifted.lam**2))


def sufficient(x: Array, step: Any, path: Path) -> Array:
    """What no one would take for a denoiser, but for what it looks at."""
    t = step.s
    seen = (x - path.alpha[t] * Y) / path.sigma[t]
    return np.asarray(Y + np.tanh(seen + np.sin(3 * Y)) / (1 + path.lam[t]))


def unaware(x: Array, step: Any, path: Path) -> Array:
    """Goes by t as well, as a network that is told nothing else does."""
    return sufficient(x, step, path) + 0.1 * float(path.alpha[step.s])


def walked(path: Path, t1: int, denoise: Denoise, **solver: Any) -> Array:
    steps = plan(path, time_grid(t1, 7), **solver)
    alpha, sigma = start(path, steps[0].s)

    def predict(x: Array, step: Any) -> Array:
        return denoise(x, step, path)

    return solve(steps, predict, Y, alpha * Y + sigma * Z[0], lambda i: Z[i])


def difference(denoise: Denoise, t1: int, **solver: Any) -> float:
    shifted = Path.domain_shift(alpha_bar(), t1)
    results = [walked(path, t1, denoise, **solver) for path in (shifted, twin(shifted))]
    return float(np.abs(results[0] - results[1]).max())


@pytest.mark.parametrize("variant", ["paper", "corrected"])
@pytest.mark.parametrize(("t1", "order"), WALKS)
def test_domain_shift_is_a_plain_diffusion_on_another_grid(
    t1: int, order: int, variant: Any
) -> None:
    solver = {"order": order, "variant": variant}
    assert difference(sufficient, t1, **solver, last_step="x0") < 1e-9
    assert difference(sufficient, t1, **solver, last_step="mean") < 1e-5  # η_0 is 2.5e-6, not 0


def test_a_denoiser_that_looks_at_more_tells_them_apart() -> None:
    assert difference(unaware, 500, last_step="x0") > 1e-2


def test_on_the_usual_grid_the_pictures_differ() -> None:
    """It is the grid that t1 and η choose: with the schedule's own λ the walk is another one."""
    plain = Path.plain(alpha_bar())
    other = walked(plain, 500, sufficient, last_step="x0")
    assert np.abs(other - walked(twin(plain), 500, sufficient, last_step="x0")).max() < 1e-9
    shifted = walked(Path.domain_shift(alpha_bar(), 500), 500, sufficient, last_step="x0")
    assert np.abs(other - shifted).max() > 1e-2


@pytest.mark.parametrize("order", [1, 3])
def test_through_a_network_it_is_the_same_picture(order: int, tiny: File) -> None:
    """Within 3e-4 of an 8-bit level; a network that is told another λ makes another picture."""
    assert tiny
    options = UpscaleOptions(t1=500, steps=5, order=order, last_step="mean", color="none")
    engine = Upscaler(options, device="cpu", dtype="float32")
    lr = torch.rand(3, 12, 12, generator=torch.Generator().manual_seed(0))
    shifted = Path.domain_shift(engine.model.alpha_bar, 500)

    def levels(path: Path) -> torch.Tensor:
        steps = plan(path, time_grid(500, 5), order=order, last_step="mean")
        return 255 * engine.along(Course(path, steps, start(path, steps[0].s)))(lr)

    want = 255 * engine(lr)
    assert (levels(twin(shifted)) - want).abs().max() < 3e-4
    assert (levels(Path.plain(engine.model.alpha_bar)) - want).abs().max() > 3e-3
