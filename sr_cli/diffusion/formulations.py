"""Other ways from y to x0 than domain shift, which DoSSR's Table 5 sets beside it.

Each says what a state is at the times 0 … T − 1 and how a walk comes back, all in NumPy. Every walk
ends on the network's x0, so that the endings do not differ.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Final, Literal, get_args

import numpy as np

from sr_cli.diffusion.path import Array, Path, time_grid
from sr_cli.diffusion.schedules import alpha_bar
from sr_cli.diffusion.solvers import Step, plan
from sr_cli.errors import UsageError

FormulationName = Literal["domain-shift", "plain", "resshift", "colddiff", "flow"]

T: Final = 1000
SOFTEST: Final = 2.0
"""ColdDiff's blur at T − 1 in pixels: about that of a picture reduced and enlarged by 4."""


@dataclass(frozen=True, eq=False)
class Formulation:
    """x_t = x0[t]·blurred(x0) + y[t]·y + noise[t]·ε, and a walk back from start·(y, z).

    blur: standard deviation in pixels of the Gaussian that x0 is blurred with at each time. All
    four are float64 of one shape (T,), 0 being the time next to x0.
    """

    name: FormulationName
    x0: Array
    y: Array
    noise: Array
    blur: Array
    steps: tuple[Step, ...]
    start: tuple[float, float]

    @property
    def noisy(self) -> bool:
        """Whether its states have noise at all."""
        return bool(self.noise.any())


def formulation(name: FormulationName, steps: int) -> Formulation:
    """The formulation of this name, with a walk of so many network calls.

    domain-shift: DoSSR from t1 = T/2, order 3. plain: DDPM from noise at T − 1, by the same solver,
    so that the path alone differs. resshift: Yue et al. 2023, κ = 2, p = 0.3, by its own posterior.
    colddiff: Bansal et al. 2022, blur instead of noise, its Algorithm 2. flow: rectified flow from
    y as in FlowIE (Zhu et al. 2024), Euler's steps. Raises UsageError for other names.
    """
    match name:
        case "domain-shift":
            return _of_path(name, Path.domain_shift(alpha_bar("scaled_linear"), T // 2), steps)
        case "plain":
            return _of_path(name, Path.plain(alpha_bar("scaled_linear")), steps)
        case "resshift":
            return _resshift(steps)
        case "colddiff":
            still = (Step(s, t, 1.0, 0.0, (0.0,), 0.0) for s, t in _pairs(steps))
            zero, time = np.zeros(T), np.linspace(0, 1, T)
            return Formulation(
                name, np.ones(T), zero, zero, SOFTEST * time, _ended(still), (1.0, 0.0)
            )
        case "flow":
            time = np.linspace(0, 1, T)
            # x − (s − t)·v with v = (x − x0)/s, in units of the whole way.
            euler = (Step(s, t, t / s, 0.0, (1 - t / s,), 0.0) for s, t in _pairs(steps))
            zero = np.zeros(T)
            return Formulation(name, 1 - time, time, zero, zero, _ended(euler), (1.0, 0.0))
    raise UsageError(f"A formulation is one of {', '.join(get_args(FormulationName))}, not {name}.")


def _of_path(name: FormulationName, path: Path, steps: int) -> Formulation:
    t1 = int(np.argmax(path.eta == 1)) or T
    times = time_grid(t1, steps)
    begin = float(path.m[times[0]] + path.a[times[0]]) if path.eta.any() else 0.0
    walk = plan(path, times, order=3, last_step="x0")
    part = slice(t1)
    return Formulation(
        name,
        path.a[part],
        path.m[part],
        path.sigma[part],
        np.zeros(t1),
        walk,
        (begin, float(path.sigma[times[0]])),
    )


def _resshift(steps: int) -> Formulation:
    """Its η grows geometrically in a power of time (its Eq. 10); x_t = x0 + η(y − x0) + κ√η ε."""
    kappa, power, first, last = 2.0, 0.3, (0.04 / 2.0) ** 2, 0.999
    eta = first * np.exp(np.linspace(0, 1, T) ** power * np.log(last / first))
    noise = kappa * np.sqrt(eta)
    walk = []
    for s, t in _pairs(steps):  # its Eq. 7, for η_t/η_s over more than one time
        share = float(eta[t] / eta[s])
        walk.append(Step(s, t, share, 0.0, (1 - share,), float(noise[t] * np.sqrt(1 - share))))
    return Formulation(
        "resshift", 1 - eta, eta, noise, np.zeros(T), _ended(walk), (1.0, float(noise[-1]))
    )


def _pairs(steps: int) -> Iterator[tuple[int, int]]:
    return pairwise(time_grid(T, steps))


def _ended(steps: Iterable[Step]) -> tuple[Step, ...]:
    """On x0 at last."""
    walk = list(steps)
    walk[-1] = replace(walk[-1], x=0.0, y=0.0, x0=(1.0,), noise=0.0)
    return tuple(walk)
