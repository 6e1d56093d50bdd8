"""The Perceptual Recoverable Field: how much noise an enlarged image should get before Diff-SR.

Li et al., "Dissecting Arbitrary-scale Super-resolution Capability from Pre-trained Diffusion
Generative Models" (2023). Noise hides what the enlargement y lacks against the target x0, and the
denoiser invents what the noise hides. At time t two losses weigh these against each other:

    L^F_t = K_t ‖x0 − y‖²,   K_t = ᾱ_t / (2 (1 − ᾱ_t))                   fidelity, falls with t
    L^S_t = Σ_{i<t} w_i E_i,  w_i = β_i / (2 (1 − β_i) (1 − ᾱ_{i−1}))    signature, rises with t

L^F is the KL divergence of q(x_t | x0) from q(x_t | y): Eq. 17 without the term A_t, with which it
would not be 0 at y = x0. L^S sums the KL divergences of the reverse steps with Σ_i² = β̃_i, where
E_i = ‖ε − ε_θ(x_i, i)‖². Theorem 1: one falls and the other rises.

Times are 0..T−1 as everywhere here; the paper's are 1..T, so its sum from 2 begins at 1. Norms are
sums over a 256×256×3 image in [−1, 1] (`squared_norm`), so that no threshold depends on the size.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sr_cli.errors import UsageError

Array = NDArray[np.float64]

ELEMENTS = 256 * 256 * 3
"""Elements of the image in which the paper states its norms and ω."""
OMEGA = 0.004
"""ω: what the fidelity loss counts for beside the signature loss."""


@dataclass(frozen=True)
class Thresholds:
    """C^S and C^F: the most that L^S and ω L^F may be inside the field.

    Raises UsageError unless both are positive numbers.
    """

    signature: float
    fidelity: float

    def __post_init__(self) -> None:
        if not (self.signature > 0 and self.fidelity > 0):
            raise UsageError("The thresholds of the PRF must be positive numbers.")


@dataclass(frozen=True)
class Field:
    """PRF(scale): the times `low`..`high`, both inside, and t* = `best` among them."""

    low: int
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


def signature_loss(alpha_bar: Array, times: Sequence[int], errors: Sequence[float]) -> Array:
    """L^S_t, (T,), from E_i measured at some `times`: straight lines between them, level outside.

    Raises UsageError unless times rise inside 0..T−1, with as many errors, none negative.
    """
    at, values = np.asarray(times, np.float64), np.asarray(errors, np.float64)
    if not len(at) == len(values) > 0 or np.any(np.diff(at) <= 0):
        raise UsageError("The signature loss needs rising times with one error each.")
    if at[0] < 0 or at[-1] >= len(alpha_bar) or np.any(values < 0):
        raise UsageError("The signature loss needs times in 0..T-1 and errors of at least 0.")
    terms = signature_weights(alpha_bar) * np.interp(np.arange(len(alpha_bar)), at, values)
    return np.append(0.0, np.cumsum(terms)[:-1])


def find(
    signature: Array, fidelity: Array, thresholds: Thresholds, *, omega: float = OMEGA
) -> Field | None:
    """{t : L^S_t ≤ C^S and ω L^F_t ≤ C^F} with t* = argmin L^S + ω L^F in it; None if it is empty.

    signature, fidelity: L^S rising and L^F falling, each (T,).
    """
    inside = (signature <= thresholds.signature) & (omega * fidelity <= thresholds.fidelity)
    times = np.flatnonzero(inside)
    if not len(times):
        return None
    best = times[np.argmin((signature + omega * fidelity)[times])]
    return Field(int(times[0]), int(times[-1]), int(best))
