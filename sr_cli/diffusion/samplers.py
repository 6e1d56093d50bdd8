"""Samplers without domain shift, on the same network: thin adapters over diffusers' schedulers.

The rivals of DoSSR's Table 6, and what Diff-SR walks with. All see an ordinary diffusion
x_t = α_t x0 + σ_t ε (η = 0) from a chosen time down to a clean x0:

- `ddim`: Song et al. 2021 with η = 0, no noise on the way
- `ddpm`: the same with η = 1, the ancestral sampler of Ho et al. 2020
- `edm`: Karras et al. 2022, the Euler sampler on its σ grid (ρ = 7), no churn
- `dpmsolver++`: Lu et al. 2022, multistep of order 3

Each makes one network call a step. `edm` has times of its own, the others those of `time_grid`.
They end on the last prediction of x0, or on the mean of the state at time 0, as `plan` can: that
state without what is noise in it, over α. Of samplers of order 1 without noise on the way (`ddim`,
`edm`) the mean is x0; for `dpmsolver++` its order then counts to the end.
"""

from collections.abc import Callable
from itertools import pairwise
from threading import Lock
from typing import Any, TypeVar, get_args

import numpy as np
from numpy.typing import NDArray

from sr_cli.diffusion.names import LastStep, SamplerName
from sr_cli.diffusion.path import Path, time_grid
from sr_cli.diffusion.solvers import MAX_ORDER, Linear, Step
from sr_cli.errors import UsageError

Array = NDArray[np.float64]
V = TypeVar("V", bound=Linear)
IMPORTING = Lock()
"""One thread at a time asks diffusers for a class: it imports what it is asked for, and a second
thread that asks meanwhile is told that there is no such class."""
Denoise = Callable[[V, float, float, int], V]


def sample(  # noqa: PLR0917
    name: SamplerName,
    alpha_bar: Array,
    t_start: int,
    steps: int,
    x: V,
    denoise: Denoise[V],
    noise: Callable[[int], V],
    last_step: LastStep = "x0",
) -> V:
    """x0 from the torch tensor x = α x0 + σ ε at time `t_start`, by `steps` network calls.

    alpha_bar: ᾱ_t, float64 of shape (T,). `denoise(x, alpha, sigma, t)` predicts x0 from
    x = alpha·x0 + sigma·ε; with `edm` alpha and sigma lie between two times and t is the nearer
    one. `noise(i)` is z ~ N(0, I) of step i = 1, 2, …; only `ddpm` asks for it, but for the last.
    last_step: `x0`, or `mean`.

    Raises UsageError for another name or last_step, for t_start outside 1..T − 1 and steps outside
    1..t_start.
    """
    if last_step not in {"x0", "mean"}:
        raise UsageError(f"A sampler ends on x0 or mean, not on {last_step!r}.")
    if name not in get_args(SamplerName):
        raise UsageError(f"A sampler is one of {', '.join(get_args(SamplerName))}, not {name!r}.")
    if not 1 <= t_start < len(alpha_bar):
        raise UsageError(f"A sampler starts in 1..{len(alpha_bar) - 1}, not at {t_start}.")
    times = time_grid(t_start + 1, steps)
    if name == "edm":
        return _edm(alpha_bar, t_start, steps, x, denoise)
    mean = last_step == "mean" and name != "ddim"
    scheduler = _scheduler(name, alpha_bar[list(times if mean else times[:-1])], clean=not mean)
    for i, (t, index) in enumerate(zip(times, scheduler.timesteps[:steps], strict=False), 1):
        alpha, sigma = _alpha_sigma(alpha_bar[t])
        x0 = denoise(x, alpha, sigma, t)
        if mean and i == steps:
            last: V = _mean(name, scheduler, index, x, x0, (alpha, sigma), alpha_bar[0])
            return last
        ancestral = name == "ddpm" and i < steps
        extra = {"eta": 1.0, "variance_noise": noise(i)} if ancestral else {}
        x = scheduler.step(x0, index, x, **extra).prev_sample
    return x


def _mean(  # noqa: PLR0917
    name: str, scheduler: Any, index: Any, x: Any, x0: Any, at: tuple[float, float], bar: float
) -> Any:
    """Of the state at time 0, from the last x at α, σ = at and its x0; bar: ᾱ_0."""
    alpha, sigma = _alpha_sigma(bar)
    if name == "ddpm":
        return (1 / alpha) * scheduler.step(
            x0, index, x, eta=1.0, variance_noise=0.0 * x
        ).prev_sample
    noise = (1 / at[1]) * (x + -at[0] * x0)
    return (1 / alpha) * (scheduler.step(x0, index, x).prev_sample + -sigma * noise)


def table(
    name: SamplerName,
    alpha_bar: Array,
    t_start: int,
    steps: int,
    last_step: LastStep = "x0",
) -> tuple[Path, tuple[Step, ...]]:
    """A sampler as a path and a table of its steps, which give what `sample` gives.

    It is linear, so its answers to unit impulses tell all. `edm` has a path of its own times, of
    which each is called by the nearest time of `alpha_bar`. Raises as `sample`.
    """
    import torch

    impulses = torch.eye(1 + 2 * steps, dtype=torch.float64)  # the start, then x0 and z by step
    states, ratios, called = [], [], []

    def predicted(x: Any, alpha: float, sigma: float, t: int) -> Any:
        states.append(x)
        ratios.append(sigma / alpha)
        called.append(t)
        return impulses[2 * len(states) - 1]

    def noise(i: int) -> Any:
        return impulses[2 * i]

    last = sample(name, alpha_bar, t_start, steps, impulses[0], predicted, noise, last_step)
    rows = torch.stack([*states, last]).numpy()
    if name == "edm":
        own = 1 / (1 + np.array(ratios[::-1]) ** 2)
        path = Path.plain(np.concatenate((alpha_bar[:1], own)), (0, *called[::-1]))
        times: tuple[int, ...] = tuple(range(steps, -1, -1))
    else:
        path, times = Path.plain(alpha_bar), time_grid(t_start + 1, steps)
    found = []
    for i, (s, t) in enumerate(pairwise(times)):
        kept = float(rows[i + 1, 0] / rows[i, 0])
        added = rows[i + 1] - kept * rows[i]
        history = added[1 : 2 * i + 2 : 2][::-1][: MAX_ORDER if name == "dpmsolver++" else 1]
        found.append(Step(s, t, kept, 0.0, tuple(history.tolist()), float(added[2 * i + 2])))
    return path, tuple(found)


def _scheduler(name: str, alpha_bar: Array, *, clean: bool) -> Any:
    """Of a diffusion that has these times only, ᾱ rising along it; its last step gives x0 if it
    is to end clean, else the state at the last of the times."""
    with IMPORTING:
        from diffusers import DDIMScheduler, DPMSolverMultistepScheduler

    if name == "dpmsolver++":
        ending = {} if clean else {"final_sigmas_type": "sigma_min", "lower_order_final": False}
        solver = _made(DPMSolverMultistepScheduler, alpha_bar[::-1], solver_order=3, **ending)
        solver.set_timesteps(timesteps=range(len(alpha_bar) - 1, 0 if not clean else -1, -1))
        return solver
    ddim = _made(DDIMScheduler, alpha_bar[::-1], clip_sample=False)
    ddim.set_timesteps(len(alpha_bar))
    return ddim


def _edm(alpha_bar: Array, t_start: int, steps: int, x: V, denoise: Denoise[V]) -> V:
    """Karras et al. walk on x/α with noise σ/α; the scheduler gives the network α times that."""
    with IMPORTING:
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
