"""A network's last layers in strips of rows: what they hold at full resolution stays small."""

from collections.abc import Callable

import torch
from torch import Tensor

STRIP = 16
"""Rows of cells at a time: of a whole window the channels at full resolution take more memory than
all else, and more than a processor's cache."""


def by_strips(function: Callable[[Tensor], Tensor], x: Tensor, *, cell: int, margin: int) -> Tensor:
    """function(x), (N, C, h, w) → (N, C', cell·h, cell·w), where a result depends on the cells at
    most `margin` rows away; in training, compiled and on a GPU at once."""
    if torch.is_grad_enabled() or torch.compiler.is_compiling() or x.device.type != "cpu":
        return function(x)
    height = x.shape[-2]
    strips = []
    for top in range(0, height, STRIP):
        bottom = min(height, top + STRIP)
        begin, end = max(0, top - margin), min(height, bottom + margin)
        strip = function(x[..., begin:end, :])
        strips.append(strip[..., cell * (top - begin) : cell * (bottom - begin), :])
    return torch.cat(strips, dim=-2)
