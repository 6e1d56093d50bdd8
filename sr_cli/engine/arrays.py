"""Colours as files have them, (H, W, 3), and as networks take them, (3, H, W)."""

import math
from dataclasses import dataclass
from typing import Final, Literal

import cv2
import numpy as np
import torch
from torch import Tensor

from sr_cli.device import widest
from sr_cli.engine.images import Floats
from sr_cli.errors import UsageError


@dataclass(frozen=True)
class Form:
    """What a result leaves the engine as: levels of 8 or 16 bits, or, of 32, float32 in [0, 1].

    grey: one channel, the mean of the three.
    """

    bits: Literal[8, 16, 32] = 32
    grey: bool = False

    @property
    def dtype(self) -> torch.dtype:
        """uint8, uint16 or float32."""
        return {8: torch.uint8, 16: torch.uint16, 32: torch.float32}[self.bits]

    def empty(self, count: int, height: int, width: int, device: torch.device) -> Tensor:
        """(N, C, H, W) for so many results."""
        channels = 1 if self.grey else 3
        return torch.empty(count, channels, height, width, dtype=self.dtype, device=device)

    def __call__(self, image: Tensor) -> Tensor:
        """(N, 3, H, W) float32 in [0, 1] → (N, C, H, W), rounded to the nearest level."""
        if self.grey:
            image = image.mean(dim=1, keepdim=True)
        if self.bits == 32:
            return image
        on_cpu, white = image.device.type == "cpu", float(2**self.bits - 1)
        if on_cpu and self.bits == 8:  # in one pass
            rows = image.reshape(-1, image.shape[-1]).numpy()
            return torch.from_numpy(cv2.convertScaleAbs(rows, alpha=white)).view(image.shape)
        levels = (image * white).round_()
        if not on_cpu:
            return levels.to(self.dtype)
        result = torch.empty_like(levels, dtype=self.dtype)
        np.copyto(result.numpy(), levels.numpy(), casting="unsafe")  # in a quarter of torch's time
        return result


FLOATS: Final = Form()


def usable(image: Tensor) -> Tensor:
    """The same: (3, H, W), uint8 or floats in [0, 1]. Raises UsageError for any other tensor."""
    shape, kind = tuple(image.shape), str(image.dtype).removeprefix("torch.")
    if len(shape) != 3 or shape[0] != 3 or 0 in shape:
        raise UsageError(f"A tensor must be (3, H, W), of one picture's colours, not {shape}.")
    if not (image.is_floating_point() or image.dtype == torch.uint8):
        raise UsageError(f"A tensor must hold uint8 or floats in [0, 1], not {kind}.")
    if image.is_floating_point() and not (image.min() >= 0 and image.max() <= 1):  # NaN too
        raise UsageError(f"A tensor of {kind} must lie in [0, 1].")
    return image


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
    """Whether all of it are numbers, in one pass; the sum takes a copy in float64 on a CPU."""
    if image.device.type == "cpu":
        return all(map(math.isfinite, torch.aminmax(image)))
    return math.isfinite(image.sum(dtype=widest(image.device)))
