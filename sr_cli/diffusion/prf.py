"""The Perceptual Recoverable Field: how much noise an enlarged image should get before Diff-SR.

Li et al., "Dissecting Arbitrary-scale Super-resolution Capability from Pre-trained Diffusion
Generative Models" (2023). Noise hides what the enlargement y lacks against the target x0, and the
denoiser invents what the noise hides. At time t two losses weigh these against each other:

    L^F_t = K_t ‖x0 − y‖²,   K_t = ᾱ_t / (2 (1 − ᾱ_t))                   fidelity, falls with t
    L^S_t = Σ_{i<t} w_i E_i,  w_i = β_i / (2 (1 − β_i) (1 − ᾱ_{i−1}))    signature, rises with t

L^F is the KL divergence of q(x_t | x0) from q(x_t | y): Eq. 17 without the term A_t, with which it
would not be 0 at y = x0. L^S sums the KL divergences of the reverse steps with Σ_i² = β̃_i, where
E_i = ‖ε − ε_θ(x_i, i)‖². Theorem 1: one falls and the other rises.

With e_t = E_t / (2 K_t), the denoiser's squared error of x0, w_i E_i = (K_{i−1} − K_i) e_i: the
step to t adds (K_{t−1} − K_t)(e_t − ω ‖x0 − y‖²) to L^S + ω L^F. So the sum is least where e_t
reaches ω ‖x0 − y‖², whatever the schedule, and no more than that is needed of it. (This is with
step t in the sum, as Eq. 14's derivation has it; the printed sum ends one earlier.) The field's
limits, which the paper leaves open, are such ratios here as well: see `Thresholds`.

Times are 0..T−1 as everywhere here; the paper's are 1..T, so its sum from 2 begins at 1. Norms are
sums over a 256×256×3 image in [−1, 1] (`squared_norm`), so that no number depends on the size.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sr_cli.errors import UsageError

Array = NDArray[np.float64]

ELEMENTS = 256 * 256 * 3
"""Elements of the image in which the paper states its norms."""


@dataclass(frozen=True)
class Thresholds:
    """What the field is found by: three ratios, as they depend on neither size nor texture then.

    omega: ω, at which e_t / ‖x0 − y‖² the best time is. signature: C^S, the most that e_t may be of
    the energy of the finest octave of x0, so that an error is not seen as grain. fidelity: C^F, the
    most that e_0 may be of ‖x0 − y‖²: if the least noise costs more, none pays. ω and C^F are
    fitted on Set14 with the prior that ships; C^S = 1 means that both are equal.

    Raises UsageError unless all are positive numbers.
    """

    omega: float = 0.21
    signature: float = 1.0
    fidelity: float = 0.086

    def __post_init__(self) -> None:
        if not (self.omega > 0 and self.signature > 0 and self.fidelity > 0):
            raise UsageError("ω and the thresholds of the PRF must be positive numbers.")


@dataclass(frozen=True)
class Field:
    """PRF(scale): the times 0..`high`, and t* = `best` among them; 0 is the enlargement itself."""

    high: int
    best: int


def squared_norm(difference: NDArray[np.floating]) -> float:
    """‖·‖² of an image difference of any size and shape, as if it were 256×256×3.

    Raises UsageError where there are no elements.
    """
    if not difference.size:
        raise UsageError("An image without pixels has no norm.")
    return float(np.mean(np.square(difference, dtype=np.float64))) * ELEMENTS


def divergence(alpha_bar: Array) -> Array:
    """K_t, (T,): the KL divergence of N(√ᾱ x0, 1 − ᾱ) from N(√ᾱ y, 1 − ᾱ) over ‖x0 − y‖²."""
    return alpha_bar / (2 * (1 - alpha_bar))


def fidelity_loss(alpha_bar: Array, distance: float) -> Array:
    """L^F_t, (T,), for distance = ‖x0 − y‖² ≥ 0."""
    return divergence(alpha_bar) * distance


def signature_weights(alpha_bar: Array) -> Array:
    """w_i, (T,). Time 0 has weight 0: its step ends at the image and is not in the sum."""
    kept = alpha_bar[1:] / alpha_bar[:-1]  # 1 − β_i
    return np.append(0.0, (1 - kept) / (2 * kept * (1 - alpha_bar[:-1])))


def at_all_times(length: int, times: Sequence[int], errors: Sequence[float]) -> Array:
    """E_t, (T,), from E at some `times`: its logarithm on straight lines between, level outside.

    A time with E = 0, as where ᾱ is 0, tells nothing.

    Raises UsageError unless times rise inside 0..T−1, with as many errors, none negative.
    """
    at, values = np.asarray(times, np.float64), np.asarray(errors, np.float64)
    if not len(at) == len(values) > 0 or np.any(np.diff(at) <= 0):
        raise UsageError("The signature loss needs rising times with one error each.")
    if at[0] < 0 or at[-1] >= length or np.any(values < 0):
        raise UsageError("The signature loss needs times in 0..T-1 and errors of at least 0.")
    told = values > 0
    if not told.any():
        return np.zeros(length)
    return np.exp(np.interp(np.arange(length), at[told], np.log(values[told])))


def signature_loss(alpha_bar: Array, errors: Array) -> Array:
    """L^S_t, (T,), from E_t, (T,)."""
    return np.append(0.0, np.cumsum(signature_weights(alpha_bar) * errors)[:-1])


def restoration_error(alpha_bar: Array, errors: Array) -> Array:
    """e_t, (T,), from E_t: ‖x0 − x̂0‖², where x̂0 is the denoiser's at time t; ∞ where ᾱ is 0."""
    ratio = 2 * divergence(alpha_bar)
    return np.divide(errors, ratio, out=np.full_like(errors, np.inf), where=ratio > 0)


def find(restored: Array, distance: float, texture: float, thresholds: Thresholds) -> Field | None:
    """{t : e_t ≤ C^S · texture} if e_0 ≤ C^F · distance, and the last time in it at which
    e_t ≤ ω · distance; None if there is no such time.

    restored: e_t, (T,); distance: ‖x0 − y‖²; texture: the squared norm of x0's finest octave.
    """
    inside = restored <= thresholds.signature * texture
    before = inside & (restored <= thresholds.omega * distance)
    if restored[0] > thresholds.fidelity * distance or not before.any():
        return None
    return Field(int(np.flatnonzero(inside)[-1]), int(np.flatnonzero(before)[-1]))
