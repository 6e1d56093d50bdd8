"""The path from the source domain to the target, and the times at which a solver stops on it.

Equations are those of DoSSR (Cui et al., NeurIPS 2024, arXiv 2409.17778). With source `y`, target
`x0` and ε ~ N(0, I), the forward marginal is (Eq. 2)

    x_t = α_t (η_t y + (1 − η_t) x0) + σ_t ε = m_t y + a_t x0 + σ_t ε.

u_t = x_t − m_t y is an ordinary diffusion with signal a and noise σ. Diff-SR (Li et al. 2023) and
plain DDPM are the same object with η = 0.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Self, TypedDict

import numpy as np
from numpy.typing import NDArray

from sr_cli.errors import UsageError

Array = NDArray[np.float64]


class Moment(TypedDict):
    """α, σ, a and m at a time, and what networks call it."""

    alpha: float
    sigma: float
    a: float
    m: float
    t: int


@dataclass(frozen=True, eq=False)
class Path:
    """α, σ and η at the times 0..T−1, each float64 of shape (T,).

    called: what networks call each time, where that is not its index.
    Raises UsageError unless the shapes agree, σ > 0 and 0 ≤ η ≤ 1.
    """

    alpha: Array
    sigma: Array
    eta: Array
    called: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if not self.alpha.ndim == 1 or not self.alpha.shape == self.sigma.shape == self.eta.shape:
            raise UsageError("A path needs α, σ and η as vectors of one length.")
        if not np.all(self.sigma > 0):
            raise UsageError("A path needs noise at each of its times: σ > 0, so ᾱ < 1.")
        if not np.all((self.eta >= 0) & (self.eta <= 1)):
            raise UsageError("A path needs its domain shift η inside 0..1.")

    @classmethod
    def domain_shift(cls, alpha_bar: Array, t1: int) -> Self:
        """DoSSR: from x0 at time 0 to y at t1. Raises UsageError unless 2 ≤ t1 ≤ T."""
        eta = shifting_sequence(t1, len(alpha_bar))
        return cls(np.sqrt(alpha_bar), np.sqrt(1 - alpha_bar), eta)

    @classmethod
    def plain(cls, alpha_bar: Array, called: tuple[int, ...] | None = None) -> Self:
        """DDPM and Diff-SR: no domain shift, η = 0."""
        zero = np.zeros(len(alpha_bar))
        return cls(np.sqrt(alpha_bar), np.sqrt(1 - alpha_bar), zero, called)

    def name(self, t: int) -> int:
        """What networks call the time t."""
        return t if self.called is None else self.called[t]

    def moment(self, t: int) -> Moment:
        """What networks are told of the time t."""
        alpha, sigma, a, m = (float(v[t]) for v in (self.alpha, self.sigma, self.a, self.m))
        return {"alpha": alpha, "sigma": sigma, "a": a, "m": m, "t": self.name(t)}

    @cached_property
    def a(self) -> Array:
        """a_t = α_t (1 − η_t), what multiplies x0; 0 where the shift is complete."""
        return self.alpha * (1 - self.eta)

    @cached_property
    def m(self) -> Array:
        """m_t = α_t η_t, what multiplies y."""
        return self.alpha * self.eta

    @cached_property
    def lam(self) -> Array:
        """λ_t = σ_t / a_t, the noise-to-signal ratio; ∞ where a_t = 0."""
        with np.errstate(divide="ignore"):
            return self.sigma / self.a


def shifting_sequence(t1: int, T: int) -> Array:
    """η_t of Eq. 4, float64 of shape (T,): (1 − cos(π t/t1))/2 for t < t1, 1 from t1 on.

    As in the released code t/t1 is sampled as linspace(0.001, 0.999, t1), so that 1 − η is never 0
    before t1. Raises UsageError unless 2 ≤ t1 ≤ T.
    """
    _check_t1(t1)
    if t1 > T:
        raise UsageError(f"The starting time t1 is at most T = {T}, not {t1}.")
    eta = np.ones(T)
    eta[:t1] = (1 - np.cos(np.pi * np.linspace(0.001, 0.999, t1))) / 2
    return eta


def time_grid(t1: int, steps: int) -> tuple[int, ...]:
    """The `steps` + 1 times from t1 − 1 down to 0 that `steps` network calls walk through.

    As in the released code (after guided-diffusion's `space_timesteps`): a float stride is summed
    up from 0 and each sum rounded half to even, so t1 = 500 in 5 steps is 499, 399, 299, 200, 100,
    0. Raises UsageError unless t1 ≥ 2 and 1 ≤ steps ≤ t1 − 1.
    """
    _check_t1(t1)
    if not 1 <= steps <= t1 - 1:
        raise UsageError(f"With t1 = {t1} the number of steps is 1 to {t1 - 1}, not {steps}.")
    stride = (t1 - 1) / steps
    position, times = 0.0, [0]
    for _ in range(steps):
        position += stride
        times.append(round(position))
    return tuple(reversed(times))


def _check_t1(t1: int) -> None:
    if t1 < 2:
        raise UsageError(f"The starting time t1 is at least 2, not {t1}.")
