"""Samplers without domain shift, on the same network: thin adapters over diffusers' schedulers.

The rivals of DoSSR's Table 6, and what Diff-SR walks with. All see an ordinary diffusion
x_t = α_t x0 + σ_t ε (η = 0) from a chosen time down to a clean x0:

- `ddim`: Song et al. 2021 with η = 0, no noise on the way
- `ddpm`: the same with η = 1, the ancestral sampler of Ho et al. 2020
- `edm`: Karras et al. 2022, the Euler sampler on its σ grid (ρ = 7), no churn
- `dpmsolver++`: Lu et al. 2022, multistep of order 3

Each makes one network call a step. `edm` has times of its own, the others those of `time_grid`.
"""

from collections.abc import Callable
from typing import Any, Literal, TypeVar, get_args

import numpy as np
from numpy.typing import NDArray

from sr_cli.diffusion.path import time_grid
from sr_cli.diffusion.solvers import Linear
from sr_cli.errors import UsageError

SamplerName = Literal["ddim", "ddpm", "edm", "dpmsolver++"]
Array = NDArray[np.float64]
V = TypeVar("V", bound=Linear)
Denoise = Callable[[V, float, float, int], V]


def sample(  # noqa: PLR0917
    name: SamplerName,
    alpha_bar: Array,
    t_start: int,
    steps: int,
    x: V,
    denoise: Denoise[V],
    noise: Callable[[int], V],
) -> V:
    """x0 from the torch tensor x = α x0 + σ ε at time `t_start`, by `steps` network calls.

    alpha_bar: ᾱ_t, float64 of shape (T,). `denoise(x, alpha, sigma, t)` predicts x0 from
    x = alpha·x0 + sigma·ε; with `edm` alpha and sigma lie between two times and t is the nearer
    one. `noise(i)` is z ~ N(0, I) of step i = 1, 2, …; only `ddpm` asks for it, but for the last.

    Raises UsageError for another name, for t_start outside 1..T − 1 and steps outside 1..t_start.
    """
    if name not in get_args(SamplerName):
        raise UsageError(f"A baseline is one of {', '.join(get_args(SamplerName))}, not {name!r}.")
    if not 1 <= t_start < len(alpha_bar):
        raise UsageError(f"A baseline starts in 1..{len(alpha_bar) - 1}, not at {t_start}.")
    times = time_grid(t_start + 1, steps)[:-1]
    if name == "edm":
        return _edm(alpha_bar, t_start, steps, x, denoise)
    scheduler = _scheduler(name, alpha_bar[list(times)])
    for i, (t, index) in enumerate(zip(times, scheduler.timesteps, strict=True), 1):
        x0 = denoise(x, *_alpha_sigma(alpha_bar[t]), t)
        ancestral = name == "ddpm" and i < steps
        extra = {"eta": 1.0, "variance_noise": noise(i)} if ancestral else {}
        x = scheduler.step(x0, index, x, **extra).prev_sample
    return x


def _scheduler(name: str, alpha_bar: Array) -> Any:
    """Of a diffusion that has these times only, ᾱ rising along it; its last step gives x0."""
    from diffusers import DDIMScheduler, DPMSolverMultistepScheduler

    if name == "dpmsolver++":
        solver = _made(DPMSolverMultistepScheduler, alpha_bar[::-1], solver_order=3)
        solver.set_timesteps(timesteps=range(len(alpha_bar) - 1, -1, -1))
        return solver
    ddim = _made(DDIMScheduler, alpha_bar[::-1], clip_sample=False)
    ddim.set_timesteps(len(alpha_bar))
    return ddim


def _edm(alpha_bar: Array, t_start: int, steps: int, x: V, denoise: Denoise[V]) -> V:
    """Karras et al. walk on x/α with noise σ/α; the scheduler gives the network α times that."""
    from diffusers import EulerDiscreteScheduler

    ratios = np.sqrt(1 / alpha_bar - 1)
    scheduler = _made(
        EulerDiscreteScheduler,
        alpha_bar,
        use_karras_sigmas=True,
        sigma_min=float(ratios[0]),
        sigma_max=float(ratios[t_start]),
    )
    scheduler.set_timesteps(steps)
    state: Any = (1 / _alpha_sigma(alpha_bar[t_start])[0]) * x
    for t, ratio in zip(scheduler.timesteps, scheduler.sigmas[:-1].tolist(), strict=True):
        scaled = scheduler.scale_model_input(state, t)
        x0 = denoise(scaled, *_alpha_sigma(1 / (1 + ratio**2)), round(float(t)))
        state = scheduler.step(x0, t, state).prev_sample
    result: V = state
    return result


def _made(kind: Any, alpha_bar: Array, **settings: Any) -> Any:
    """A scheduler of a falling ᾱ for a network that predicts x0.

    It gets ᾱ itself: as betas, which it keeps in float32, a small ᾱ would become 0.
    """
    import torch

    n = len(alpha_bar)
    scheduler = kind(num_train_timesteps=n, prediction_type="sample", **settings)
    scheduler.alphas_cumprod = torch.from_numpy(alpha_bar.copy())
    return scheduler


def _alpha_sigma(alpha_bar: float) -> tuple[float, float]:
    return float(np.sqrt(alpha_bar)), float(np.sqrt(1 - alpha_bar))
