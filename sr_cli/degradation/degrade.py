"""How LR images come about: clean bicubic, mild (a camera's), and the Real-ESRGAN pipeline.

Batched on the device: every image of a batch has its own kernel, noise and JPEG quality; the
intermediate sizes are drawn once a batch. Figures of `realesrgan`: Wang et al. 2021,
§3 and its released configuration, as DoSSR trained with it.
"""

from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from sr_cli.degradation.jpeg import compressed
from sr_cli.degradation.kernels import KERNEL, families, gaussians, identity, sincs
from sr_cli.models.resampling import resize

KINDS = ("bicubic", "mild", "realesrgan")


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
    with torch.autocast(hr.device.type, enabled=False):  # also inside of training
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
    x = _blur(hr, gaussians(pick, len(hr), (1, 4.5)), rng, probability=0.9)
    x = resize(x, size, str(pick.choice(("area", "bilinear", "bicubic"))))
    x = _noise(x, rng, gaussian=(0.5, 5), poisson=(0.02, 0.3), probability=0.5)
    x = _sharpen(x, rng, radius=(0.7, 4), amount=(0, 1.2), probability=0.8)
    return _jpeg(x, rng, (70, 98), probability=0.5)


def _realesrgan(hr: Tensor, size: tuple[int, int], rng: Randomness) -> Tensor:
    height, width = hr.shape[-2:]
    x = _blur(hr, families(rng.numbers, len(hr), (0.2, 3), sinc=0.1), rng)
    x = _random_resize(x, (height, width), (0.2, 0.7, 0.1), (0.15, 1.5), rng)
    x = _noise(x, rng, gaussian=(1, 30), poisson=(0.05, 3))
    x = _jpeg(x, rng, (30, 95))
    x = _blur(x, families(rng.numbers, len(hr), (0.2, 1.5), sinc=0.1), rng, probability=0.8)
    x = _random_resize(x, size, (0.3, 0.4, 0.3), (0.3, 1.2), rng)
    x = _noise(x, rng, gaussian=(1, 25), poisson=(0.05, 2.5))
    sinc = sincs(rng.numbers, len(hr), last=True)
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
    x: Tensor, kernels: NDArray[np.float64], rng: Randomness, probability: float = 1.0
) -> Tensor:
    """Convolve a share of the images, each with its kernel, by FFT; borders replicated."""
    chosen = rng.numbers.random(len(x)) < probability
    kernels = np.where(chosen[:, None, None], kernels, identity())
    height, width = x.shape[-2:]
    padded = F.pad(x, (KERNEL // 2,) * 4, mode="replicate")
    weight = torch.from_numpy(kernels.astype(np.float32)).to(x.device)[:, None]
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
    smooth = _blur(x, gaussians(pick, len(x), radius), rng)
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
    """Compress a share of the images, each with its own quality."""
    chosen = rng.numbers.random(len(x)) < probability
    qualities = rng.numbers.uniform(*quality, len(x)).round().astype(int)
    if not chosen.any():
        return x
    places = torch.from_numpy(np.flatnonzero(chosen)).to(x.device)
    return x.index_copy(0, places, compressed(x[places], qualities[chosen]))
