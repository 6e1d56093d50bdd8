"""DoS-SDE solvers of orders 1, 2 and 3 (DoSSR, arXiv 2409.17778, Eq. 12, 44, 47; Algorithms 1–3).

Each step is linear in the state, in y, in the network's predictions of x0 and in the noise, so a
solver is a table of numbers: `plan` computes it in float64, `Step.apply` uses it, on whole images
or tile by tile, with NumPy arrays or torch tensors of any dtype.

With u = x − m y, r = λ_t/λ_s and z ~ N(0, I), one step s → t (t < s) is

    u_t = (a_t/a_s) r² u_s + a_t (1 − r²) x0 + σ_t √(1 − r²) z                    (order 1, Eq. 12)
          − a_t (λ_t − λ_s)²/λ_s · D                                             (order 2, Eq. 44)
          + a_t ((λ_s − 3λ_t)(λ_s − λ_t)/2 − λ_t² ln r) · U                      (order 3, Eq. 47)

where D and U are estimates of the first and second derivative of x0 in λ from earlier predictions.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import reduce
from itertools import pairwise
from operator import add
from typing import Any, Protocol, TypeVar, get_args

import numpy as np
from numpy.typing import NDArray

from sr_cli.diffusion.names import LastStep, Variant
from sr_cli.diffusion.path import Path
from sr_cli.errors import UsageError

MAX_ORDER = 3


class Linear(Protocol):
    """What a state must be able to do: NumPy arrays and torch tensors both can."""

    def __add__(self, other: Any, /) -> Any: ...
    def __rmul__(self, other: Any, /) -> Any: ...


V = TypeVar("V", bound=Linear)


@dataclass(frozen=True)
class Step:
    """x_t = x·x_s + y·y + Σ_k x0[k]·(x0 predicted k steps ago) + noise·z; all are plain floats."""

    s: int
    t: int
    x: float
    y: float
    x0: tuple[float, ...]
    noise: float

    def apply(self, x: V, y: V, history: Sequence[V], z: V | None) -> V:
        """The next state, of the shape and dtype of `x`.

        `history` holds the predictions of x0, newest first, at least as many as `self.x0`
        (ValueError otherwise). Terms with coefficient 0 are not read: z may be None if noise = 0.
        """
        weights = (self.x, self.y, self.noise, *self.x0)
        terms: tuple[Any, ...] = (x, y, z, *history[: len(self.x0)])
        total: V = reduce(add, (c * v for c, v in zip(weights, terms, strict=True) if c))
        return total


def plan(
    path: Path,
    times: Sequence[int],
    *,
    order: int = 3,
    variant: Variant = "paper",
    last_step: LastStep = "step",
) -> tuple[Step, ...]:
    """The steps of one solver along `times` (descending indices into `path`).

    The first step has order 1 and the second at most 2: there is no more history yet.
    `variant` matters to order 3 only: `paper` is Eq. 47 as printed and released; `corrected` makes
    it exact for an x0 that is quadratic in λ. `last_step` says what is returned in the end: `step`,
    the noisy state at `times[-1]`, as released; `mean`, that state without its noise, divided by α,
    so that the order counts to the end; `x0`, the last prediction itself. a = 0 (λ = ∞) is allowed
    at the first time.

    Raises UsageError for any other order, variant, last_step or times.
    """
    _check(path, times, order, variant, last_step)
    steps = []
    for i in range(1, len(times)):
        nodes = tuple(reversed(times[max(0, i - order) : i]))
        steps.append(_step(path, nodes, times[i], variant))
    if last_step == "mean":
        steps[-1] = _mean(steps[-1], float(path.alpha[times[-1]]))
    elif last_step == "x0":
        steps[-1] = replace(steps[-1], x=0.0, y=0.0, x0=(1.0,), noise=0.0)
    return tuple(steps)


def start(path: Path, t: int) -> tuple[float, float]:
    """(α_t, σ_t) of the start x = α y + σ z: the source image is all that the start knows."""
    return float(path.alpha[t]), float(path.sigma[t])


def _step(path: Path, nodes: Sequence[int], t: int, variant: Variant) -> Step:
    """The step from nodes[0] to t; `nodes` are the times at which x0 is known, newest first."""
    s = nodes[0]
    lam, lam_s, lam_t = path.lam[list(nodes)], path.lam[s], path.lam[t]
    a_t, sigma_t = path.a[t], path.sigma[t]
    ratio = sigma_t / path.sigma[s]
    r = ratio * path.a[s] / a_t  # λ_t/λ_s, finite at a_s = 0 too
    x = ratio * r  # (a_t/a_s) r²

    x0 = a_t * (1 - r**2) * np.eye(len(nodes))[0]
    if len(nodes) > 1:
        D, U = _derivatives(lam, variant)
        x0 += -a_t * (lam_t - lam_s) ** 2 / lam_s * D
    if len(nodes) > 2:
        x0 += a_t * ((lam_s - 3 * lam_t) * (lam_s - lam_t) / 2 - lam_t**2 * math.log(r)) * U
    return Step(
        s,
        t,
        x=float(x),
        y=float(path.m[t] - x * path.m[s]),
        x0=tuple(x0.tolist()),
        noise=float(sigma_t * math.sqrt(1 - r**2)),
    )


def _mean(step: Step, alpha: float) -> Step:
    """The step without noise, as an image: m y + a x0 ≈ α x0 where the shift is nearly done."""
    x0 = tuple(weight / alpha for weight in step.x0)
    return replace(step, x=step.x / alpha, y=step.y / alpha, x0=x0, noise=0.0)


def _derivatives(
    lam: NDArray[np.float64], variant: Variant
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """D and U as rows of weights for the predictions at λ = lam[0] < lam[1] (< lam[2]).

    A node at λ = ∞ has weight 0. U is 0 where there are only two nodes.
    """
    slopes = np.diff(np.eye(len(lam)), axis=0) / np.diff(lam)[:, None]
    if len(lam) == 2:
        return slopes[0], np.zeros(2)
    U = 2 * (slopes[0] - slopes[1]) / (lam[0] - lam[2])
    D = slopes[0] if variant == "paper" else slopes[0] + U * (lam[0] - lam[1]) / 2
    return D, U


def _check(path: Path, times: Sequence[int], order: int, variant: str, last_step: str) -> None:
    if order not in range(1, MAX_ORDER + 1):
        raise UsageError(f"The solver's order is 1, 2 or 3, not {order}.")
    if variant not in get_args(Variant):
        raise UsageError(f"The solver is one of {', '.join(get_args(Variant))}, not {variant!r}.")
    if last_step not in get_args(LastStep):
        raise UsageError(
            f"The last step is one of {', '.join(get_args(LastStep))}, not {last_step!r}."
        )
    if len(times) < 2 or not all(s > t for s, t in pairwise(times)):
        raise UsageError("A solver needs at least two times, each smaller than the one before.")
    if not (times[0] < len(path.alpha) and times[-1] >= 0):
        raise UsageError(f"The solver's times lie in 0..{len(path.alpha) - 1}.")
    if not all(path.lam[t] < path.lam[s] for s, t in pairwise(times)):
        raise UsageError("The path's noise-to-signal ratio λ must fall from each time to the next.")
