"""Sharper targets, after Wang et al. 2021, §3.3: who aims beyond the truth arrives at it."""

import torch
import torch.nn.functional as F
from torch import Tensor

SIGMA, REACH = 2.0, 6
"""Of the Gaussian, and where it ends, in pixels."""
THRESHOLD = 8 / 255
"""Contrast in [−1, 1] below which there is no edge: grain and plain areas stay as they are."""


def sharpened(image: Tensor, amount: Tensor) -> Tensor:
    """Images (N, 3, H, W) in [−1, 1] by an unsharp mask at their edges, of `amount` (N,) ≥ 0."""
    detail = image - _smoothed(image)
    edges = _smoothed((detail.abs() > THRESHOLD).to(image))
    return (image + amount[:, None, None, None] * edges * detail).clamp(-1, 1)


def _smoothed(image: Tensor) -> Tensor:
    """By the Gaussian, borders replicated."""
    channels, place = image.shape[1], torch.arange(-REACH, REACH + 1).to(image)
    kernel = torch.exp(-0.5 * (place / SIGMA).square())
    kernel = (kernel / kernel.sum()).expand(channels, 1, 1, -1)
    padded = F.pad(image, (REACH,) * 4, mode="replicate")
    along = F.conv2d(padded, kernel, groups=channels)
    smoothed: Tensor = F.conv2d(along, kernel.transpose(-2, -1), groups=channels)
    return smoothed
