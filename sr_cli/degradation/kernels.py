"""Blur kernels of a batch: (N, KERNEL, KERNEL) float64, centred, each of sum 1."""

import math

import numpy as np
import torch
from numpy.typing import NDArray

Array = NDArray[np.float64]
KERNEL = 21
"""Cells of a side."""
_SHARES = (0.45, 0.25, 0.12, 0.03, 0.12, 0.03)
"""Of Real-ESRGAN's families: Gaussian, generalised and plateau, each isotropic and anisotropic."""


def gaussians(pick: np.random.Generator, count: int, sigma: tuple[float, float]) -> Array:
    """Isotropic or anisotropic Gaussians, equal chance; σ in pixels."""
    sigma_x = pick.uniform(*sigma, count)
    sigma_y = np.where(pick.random(count) < 0.5, pick.uniform(*sigma, count), sigma_x)
    distance = _distances(sigma_x, sigma_y, pick.uniform(0, math.pi, count))
    return _windowed(np.exp(-0.5 * distance), np.full(count, KERNEL))


def families(
    pick: np.random.Generator, count: int, sigma: tuple[float, float], sinc: float
) -> Array:
    """Of the six blur families of Real-ESRGAN, or with probability `sinc` a sinc."""
    family = pick.choice(len(_SHARES), count, p=_SHARES)
    sigma_x = pick.uniform(*sigma, count)
    sigma_y = np.where(family % 2 == 1, pick.uniform(*sigma, count), sigma_x)
    generalised, plateau = family // 2 == 1, family // 2 == 2
    power = np.where(generalised, shapes(pick, count, 0.5, 4), 1.0)
    power = np.where(plateau, shapes(pick, count, 1, 2), power)
    distance = _distances(sigma_x, sigma_y, pick.uniform(0, math.pi, count))
    distance **= power[:, None, None]
    kernels = np.where(plateau[:, None, None], 1 / (1 + distance), np.exp(-0.5 * distance))
    kernels = _windowed(kernels, _sizes(pick, count))
    chosen = pick.random(count) < sinc
    kernels[chosen] = sincs(pick, int(chosen.sum()))
    return kernels


def shapes(pick: np.random.Generator, count: int, low: float, high: float) -> Array:
    """β: below or above 1 with equal chance, as Real-ESRGAN draws it (BasicSR's
    `random_bivariate_generalized_Gaussian` and `random_bivariate_plateau`); from 1 on up, 1 itself
    half of the time."""
    below = pick.random(count) < 0.5
    return np.where(below, pick.uniform(low, 1, count), pick.uniform(1, high, count))


def sincs(pick: np.random.Generator, count: int, *, last: bool = False) -> Array:
    """Circular low-pass filters: J1(ω r)·ω / (2π r), ω the cut-off in radians.

    last: of Real-ESRGAN's last filter, whose cut-off begins at π/3 whatever its size; else it does
    at π/5 from 13 cells on.
    """
    size = _sizes(pick, count)
    cutoff = pick.uniform(np.where((size < 13) | last, math.pi / 3, math.pi / 5), math.pi)
    cutoff = cutoff[:, None, None]
    radius = np.sqrt(_distances(np.ones(1), np.ones(1), np.zeros(1)))
    radius[:, KERNEL // 2, KERNEL // 2] = 1
    kernels = torch.special.bessel_j1(torch.from_numpy(cutoff * radius)).numpy()
    kernels = cutoff * kernels / (2 * math.pi * radius)
    kernels[:, KERNEL // 2, KERNEL // 2] = cutoff[:, 0, 0] ** 2 / (4 * math.pi)
    return _windowed(kernels, size)


def identity() -> Array:
    """(KERNEL, KERNEL): what changes nothing."""
    kernel = np.zeros((KERNEL, KERNEL))
    kernel[KERNEL // 2, KERNEL // 2] = 1
    return kernel


def _sizes(pick: np.random.Generator, count: int) -> NDArray[np.int64]:
    return pick.choice(np.arange(7, KERNEL + 1, 2), count)


def _distances(sigma_x: Array, sigma_y: Array, angle: Array) -> Array:
    """The squared Mahalanobis distance of each kernel cell from the centre."""
    axis = np.arange(KERNEL) - KERNEL // 2
    xx, yy = np.meshgrid(axis, axis)
    cosine, sine = np.cos(angle)[:, None, None], np.sin(angle)[:, None, None]
    u, v = xx * cosine + yy * sine, yy * cosine - xx * sine
    distances: Array = (u / sigma_x[:, None, None]) ** 2 + (v / sigma_y[:, None, None]) ** 2
    return distances


def _windowed(kernels: Array, size: NDArray[np.int64]) -> Array:
    """Zero outside the central size × size cells, sum 1."""
    axis = np.abs(np.arange(KERNEL) - KERNEL // 2)
    inside = np.maximum(axis[:, None], axis) <= size[:, None, None] // 2
    inner = np.where(inside, kernels, 0)
    normalised: Array = inner / inner.sum(axis=(1, 2), keepdims=True)
    return normalised
