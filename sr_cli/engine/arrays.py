"""Colours as files have them, (H, W, 3), and as networks take them, (3, H, W)."""

import math

import torch
from torch import Tensor

from sr_cli.engine.images import Floats


def to_tensor(rgb: Floats) -> Tensor:
    """(H, W, 3) → (3, H, W), contiguous."""
    return torch.from_numpy(rgb).permute(2, 0, 1).contiguous()


def to_rgb(image: Tensor) -> Floats:
    """(3, H, W) on any device → (H, W, 3), contiguous."""
    rgb: Floats = image.permute(1, 2, 0).contiguous().cpu().numpy()
    return rgb


def levels(image: Tensor) -> Tensor:
    """An image of uint8, or of float32 in [0, 1], as the latter."""
    return image.float().div_(255) if image.dtype == torch.uint8 else image


def finite(image: Tensor) -> bool:
    """Whether all of it are numbers, in one pass."""
    return math.isfinite(image.sum(dtype=torch.float64))
