"""Noise schedules ᾱ(t): how much of the signal is left at each of T discrete times."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from sr_cli.errors import UsageError

Array = NDArray[np.float64]


def alpha_bar(name: str = "scaled_linear", T: int = 1000) -> Array:
    """ᾱ_t = Π_{i≤t} (1 − β_i), float64, shape (T,), falling inside (0, 1).

    `name`, and the name that diffusers' schedulers give to the same betas:

    - `scaled_linear`: Stable Diffusion, √β linear from √0.00085 to √0.012 (`scaled_linear`)
    - `linear`: Ho et al. 2020, β linear from 1e-4 to 0.02 (`linear`)
    - `sigmoid`: β a sigmoid over −6..6 from 1e-4 to 0.02 (`sigmoid`, from GeoDiff)
    - `squared_cosine`: Nichol & Dhariwal 2021, Eq. 17, ᾱ = cos²((t + 0.008)/1.008 · π/2) with
      β ≤ 0.999 (`squaredcos_cap_v2`)
    - `cosine`: Chen 2023 (arXiv 2301.10972) with start 0, end 1, τ = 1, ᾱ = cos²(t π/2) ≥ 1e-9:
      no offset at t = 0 and no cap on β, so both ends differ from `squared_cosine`

    Raises UsageError for another name or T < 2.
    """
    if name not in SCHEDULES:
        raise UsageError(f"Unknown noise schedule {name!r}; choose one of {', '.join(SCHEDULES)}.")
    if T < 2:
        raise UsageError(f"A noise schedule needs at least 2 times, not {T}.")
    return SCHEDULES[name](T)


def _from_betas(betas: Array) -> Array:
    return np.cumprod(1 - betas, dtype=np.float64)


def _scaled_linear(T: int) -> Array:
    return _from_betas(np.linspace(0.00085**0.5, 0.012**0.5, T) ** 2)


def _linear(T: int) -> Array:
    return _from_betas(np.linspace(1e-4, 0.02, T))


def _sigmoid(T: int) -> Array:
    return _from_betas(1e-4 + (0.02 - 1e-4) / (1 + np.exp(-np.linspace(-6, 6, T))))


def _squared_cosine(T: int) -> Array:
    f = np.cos((np.arange(T + 1) / T + 0.008) / 1.008 * np.pi / 2) ** 2
    return _from_betas(np.minimum(1 - f[1:] / f[:-1], 0.999))


def _cosine(T: int) -> Array:
    gamma: Array = np.cos(np.arange(1, T + 1) / T * np.pi / 2) ** 2
    return gamma.clip(min=1e-9)


SCHEDULES: dict[str, Callable[[int], Array]] = {
    "scaled_linear": _scaled_linear,
    "linear": _linear,
    "cosine": _cosine,
    "sigmoid": _sigmoid,
    "squared_cosine": _squared_cosine,
}
