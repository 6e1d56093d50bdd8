"""How LR images come about: clean bicubic, mild (a camera's), and the Real-ESRGAN pipeline.

Batched on the device, but for JPEG: every image of a batch has its own kernel, noise and JPEG
quality; the intermediate sizes are drawn once a batch. Figures of `realesrgan`: Wang et al. 2021,
§3 and its released configuration, as DoSSR trained with it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from sr_cli.models.resampling import resize

KINDS = ("bicubic", "mild", "realesrgan")
KERNEL = 21
_FAMILIES = ("iso", "aniso", "generalised_iso", "generalised_aniso", "plateau_iso", "plateau_aniso")
_SHARES = (0.45, 0.25, 0.12, 0.03, 0.12, 0.03)


@dataclass(frozen=True)
class Randomness:
    """One source of randomness for a batch: `numbers` for parameters, `fields` for noise images."""

    numbers: np.random.Generator
    fields: torch.Generator

    @classmethod
    def keyed(cls, device: torch.device, *key: int) -> "Randomness":
        """The same key gives the same draws, whatever was drawn before."""
        numbers = np.random.Generator(np.random.Philox(np.random.SeedSequence(key)))
        fields = torch.Generator(device).manual_seed(int(numbers.integers(2**63)))
        return cls(numbers, fields)


def degrade(hr: Tensor, size: tuple[int, int], kind: str, rng: Randomness) -> Tensor:
    """HR (N, 3, H, W) in [0, 1] → LR (N, 3, *size) in [0, 1], rounded to 8 bit.

    kind: "bicubic" (antialiased, as Pillow), "mild" or "realesrgan". Raises ValueError on another.
    """
    if kind == "bicubic":
        lr = resize(hr, size)
    elif kind == "mild":
        lr = _mild(hr, size, rng)
    elif kind == "realesrgan":
        lr = _realesrgan(hr, size, rng)
    else:
        raise ValueError(f"degradation {kind!r} is none of {', '.join(KINDS)}")
    return (lr.clamp(0, 1) * 255).round() / 255


def _mild(hr: Tensor, size: tuple[int, int], rng: Randomness) -> Tensor:
    """A camera: optical blur of up to 4.5 HR pixels, sampling, light noise, its own sharpening, a
    good JPEG."""
    pick = rng.numbers
    x = _blur(hr, [_gaussian(pick, (1, 4.5)) for _ in hr], rng, probability=0.9)
    x = resize(x, size, str(pick.choice(("area", "bilinear", "bicubic"))))
    x = _noise(x, rng, gaussian=(0.5, 5), poisson=(0.02, 0.3), probability=0.5)
    x = _sharpen(x, rng, radius=(0.7, 4), amount=(0, 1.2), probability=0.8)
    return _jpeg(x, rng, (70, 98), probability=0.5)


def _realesrgan(hr: Tensor, size: tuple[int, int], rng: Randomness) -> Tensor:
    height, width = hr.shape[-2:]
    x = _blur(hr, [_kernel(rng.numbers, (0.2, 3), sinc=0.1) for _ in hr], rng)
    x = _random_resize(x, (height, width), (0.2, 0.7, 0.1), (0.15, 1.5), rng)
    x = _noise(x, rng, gaussian=(1, 30), poisson=(0.05, 3))
    x = _jpeg(x, rng, (30, 95))
    x = _blur(x, [_kernel(rng.numbers, (0.2, 1.5), sinc=0.1) for _ in hr], rng, probability=0.8)
    x = _random_resize(x, size, (0.3, 0.4, 0.3), (0.3, 1.2), rng)
    x = _noise(x, rng, gaussian=(1, 25), poisson=(0.05, 2.5))
    sinc = [_sinc(rng.numbers) for _ in hr]
    mode = str(rng.numbers.choice(("area", "bilinear", "bicubic")))
    if rng.numbers.random() < 0.5:
        x = _blur(resize(x, size, mode), sinc, rng, probability=0.8)
        return _jpeg(x, rng, (30, 95))
    x = _jpeg(x, rng, (30, 95))
    return _blur(resize(x, size, mode), sinc, rng, probability=0.8)


def _random_resize(
    x: Tensor,
    base: tuple[int, int],
    shares: tuple[float, float, float],
    bounds: tuple[float, float],
    rng: Randomness,
) -> Tensor:
    """Resize to `base` × a factor: up, down or keep with the given shares."""
    low, high = bounds
    factor = (rng.numbers.uniform(1, high), rng.numbers.uniform(low, 1), 1.0)[
        rng.numbers.choice(3, p=shares)
    ]
    size = (max(1, round(base[0] * factor)), max(1, round(base[1] * factor)))
    return resize(x, size, str(rng.numbers.choice(("area", "bilinear", "bicubic"))))


def _blur(
    x: Tensor, kernels: Sequence[NDArray[np.float64]], rng: Randomness, probability: float = 1.0
) -> Tensor:
    """Convolve each image with its kernel (21×21, sum 1) by FFT, borders replicated."""
    delta = np.zeros((KERNEL, KERNEL))
    delta[KERNEL // 2, KERNEL // 2] = 1
    chosen = [k if rng.numbers.random() < probability else delta for k in kernels]
    height, width = x.shape[-2:]
    padded = F.pad(x, (KERNEL // 2,) * 4, mode="replicate")
    weight = torch.from_numpy(np.stack(chosen)).to(x)[:, None]
    shape = padded.shape[-2:]
    product = torch.fft.rfft2(padded) * torch.fft.rfft2(weight, s=shape)
    full: Tensor = torch.fft.irfft2(product, s=shape)
    return full[..., KERNEL - 1 : KERNEL - 1 + height, KERNEL - 1 : KERNEL - 1 + width]


def _sharpen(
    x: Tensor,
    rng: Randomness,
    *,
    radius: tuple[float, float],
    amount: tuple[float, float],
    probability: float,
) -> Tensor:
    """Unsharp masks: x + amount · (x − its Gaussian blur), σ = radius in pixels.

    What cameras do to their pictures: against the reduced HR the LR of DRealSR has more contrast at
    low and middle frequencies (amplitudes × 1.1) and a quarter at the highest.
    """
    pick = rng.numbers
    amounts = pick.uniform(*amount, len(x)) * (pick.random(len(x)) < probability)
    smooth = _blur(x, [_gaussian(pick, radius) for _ in x], rng)
    return (x + _for_each(x, amounts) * (x - smooth)).clamp(0, 1)


def _for_each(x: Tensor, values: NDArray[np.float64] | NDArray[np.bool_]) -> Tensor:
    """A value for each image of x, (N, 1, 1, 1) float32 on its device."""
    return torch.from_numpy(values.astype(np.float32)).to(x.device)[:, None, None, None]


def _noise(
    x: Tensor,
    rng: Randomness,
    *,
    gaussian: tuple[float, float],
    poisson: tuple[float, float],
    probability: float = 1.0,
) -> Tensor:
    """Gaussian (8-bit σ) or Poisson (scale) noise with equal chance, grey in 40 % of images."""
    column = partial(_for_each, x)
    count, pick = len(x), rng.numbers
    white = torch.randn(x.shape, generator=rng.fields, device=x.device)
    grey = column(pick.random(count) < 0.4)
    white = grey * white[:, :1] + (1 - grey) * white
    active = column(pick.random(count) < probability)
    is_gaussian = column(pick.random(count) < 0.5)
    sigma = column(pick.uniform(*gaussian, count)) / 255
    # Poisson noise of 8-bit counts in its normal limit: variance = signal / 255, times scale².
    shot = column(pick.uniform(*poisson, count)) * (x.clamp(0, 1) / 255).sqrt()
    return (x + active * white * (is_gaussian * sigma + (1 - is_gaussian) * shot)).clamp(0, 1)


def _jpeg(x: Tensor, rng: Randomness, quality: tuple[int, int], probability: float = 1.0) -> Tensor:
    """Compress a share of the images, each with its own quality, by libjpeg (4:2:0, on the CPU)."""
    chosen = rng.numbers.random(len(x)) < probability
    qualities = rng.numbers.uniform(*quality, len(x)).round().astype(int)
    levels = (x.clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
    x = x.clone()
    for i in np.flatnonzero(chosen):
        # The channels' order counts for the codec: cv2 reads and writes BGR.
        settings = [cv2.IMWRITE_JPEG_QUALITY, int(qualities[i])]
        _, file = cv2.imencode(".jpg", levels[i, ..., ::-1], settings)
        image = cv2.imdecode(file, cv2.IMREAD_COLOR_RGB)
        x[i] = torch.from_numpy(image).permute(2, 0, 1).to(x) / 255
    return x


def _grid(sigma_x: float, sigma_y: float, angle: float) -> NDArray[np.float64]:
    """The squared Mahalanobis distance of each kernel cell from the centre."""
    axis = np.arange(KERNEL) - KERNEL // 2
    xx, yy = np.meshgrid(axis, axis)
    u = xx * math.cos(angle) + yy * math.sin(angle)
    v = yy * math.cos(angle) - xx * math.sin(angle)
    distance: NDArray[np.float64] = (u / sigma_x) ** 2 + (v / sigma_y) ** 2
    return distance


def _gaussian(pick: np.random.Generator, sigma: tuple[float, float]) -> NDArray[np.float64]:
    """Isotropic or anisotropic Gaussian, equal chance."""
    sigma_x = pick.uniform(*sigma)
    sigma_y = pick.uniform(*sigma) if pick.random() < 0.5 else sigma_x
    kernel = np.exp(-0.5 * _grid(sigma_x, sigma_y, pick.uniform(0, math.pi)))
    return _windowed(kernel, KERNEL)


def _kernel(
    pick: np.random.Generator, sigma: tuple[float, float], sinc: float
) -> NDArray[np.float64]:
    """One of the six blur families of Real-ESRGAN, or a sinc with probability `sinc`."""
    if pick.random() < sinc:
        return _sinc(pick)
    family = str(pick.choice(_FAMILIES, p=_SHARES))
    sigma_x = pick.uniform(*sigma)
    sigma_y = sigma_x if family.endswith("_iso") or family == "iso" else pick.uniform(*sigma)
    distance = _grid(sigma_x, sigma_y, pick.uniform(0, math.pi))
    if family.startswith("generalised"):
        kernel = np.exp(-0.5 * distance ** _shape(pick, 0.5, 4))
    elif family.startswith("plateau"):
        kernel = 1 / (1 + distance ** _shape(pick, 1, 2))
    else:
        kernel = np.exp(-0.5 * distance)
    return _windowed(kernel, int(pick.choice(range(7, KERNEL + 1, 2))))


def _shape(pick: np.random.Generator, low: float, high: float) -> float:
    """β: below or above 1 with equal chance, as Real-ESRGAN draws it (BasicSR's
    `random_bivariate_generalized_Gaussian` and `random_bivariate_plateau`); from 1 on up, 1 itself
    half of the time."""
    return pick.uniform(low, 1) if pick.random() < 0.5 else pick.uniform(1, high)


def _sinc(pick: np.random.Generator) -> NDArray[np.float64]:
    """Circular low-pass filter: J1(ω r)·ω / (2π r), ω the cut-off in radians."""
    size = int(pick.choice(range(7, KERNEL + 1, 2)))
    cutoff = pick.uniform(math.pi / (3 if size < 13 else 5), math.pi)
    radius = np.sqrt(_grid(1, 1, 0))
    radius[KERNEL // 2, KERNEL // 2] = 1
    kernel = torch.special.bessel_j1(torch.from_numpy(cutoff * radius)).numpy()
    kernel = cutoff * kernel / (2 * math.pi * radius)
    kernel[KERNEL // 2, KERNEL // 2] = cutoff**2 / (4 * math.pi)
    return _windowed(kernel, size)


def _windowed(kernel: NDArray[np.float64], size: int) -> NDArray[np.float64]:
    """Zero outside the central size×size cells, sum 1."""
    edge = (KERNEL - size) // 2
    inner = np.zeros_like(kernel)
    window = slice(edge, KERNEL - edge)
    inner[window, window] = kernel[window, window]
    normalised: NDArray[np.float64] = inner / inner.sum()
    return normalised
