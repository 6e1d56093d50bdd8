"""Resizing, the same everywhere: training, engine and evaluation."""

import torch.nn.functional as F
from torch import Tensor


def resize(image: Tensor, size: tuple[int, int], mode: str = "bicubic") -> Tensor:
    """(N, C, H, W) → (N, C, *size) by Pillow's kernels: antialiased where it shrinks.

    mode: "bicubic", "bilinear" or "area". Bicubic may overshoot the range of its input.
    """
    if tuple(image.shape[-2:]) == size:
        return image
    if mode == "area":
        return F.interpolate(image, size, mode="area")
    if size[1] == 1:  # torch mixes up rows of one pixel, though not columns of one
        return F.interpolate(image.mT, size[::-1], mode=mode, antialias=True).mT.contiguous()
    return F.interpolate(image, size, mode=mode, antialias=True)
