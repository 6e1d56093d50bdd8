"""The weave: the pattern that a network of cells leaves in a result, found to be removed.

A network that makes its pixels in cells of one size may draw the same in every cell of a
neighbourhood. No LR picture bears out what has a period of less than two of its pixels. Where half
a cell is smaller than that, this is all of a cell but its mean, its slope and its slowest wave; and
of this, what recurs from cell to cell is weave. What is in one cell alone, as an outline is, is
none.
"""

import math
from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from sr_cli.engine.between import extended
from sr_cli.engine.tiling import Tiler, Window

NEAR = 2
"""Cells on each side of one that its weave depends on: it is shared with those beside it, and their
slopes are between the next ones."""
LARGER = 3
"""Times what all three have: as much as that is taken for shared."""
TILE = 256
"""Output pixels: what is worked on at a time stays in a processor's cache."""


def weaves(cell: int, size: Sequence[int], grid: Sequence[int]) -> bool:
    """Whether half a cell of an image of size (H, W), made from (h, w) pixels, is smaller than two
    of these."""
    return cell > 0 and all(cell * few < 4 * side for side, few in zip(size, grid, strict=True))


def weave(image: Tensor, source: Tensor, cell: int, device: torch.device) -> Tensor:
    """What of the image is weave, (N, 1, H, W) float32: the same in all channels.

    image: what the networks gave, source: the plain enlargement, both (N, 3, H, W). cell: pixels
    along its side; what is left beside the last whole cells has no weave. A pixel depends on those
    at most NEAR cells from its own. device: computes.
    """
    height, width = (side - side % cell for side in image.shape[-2:])
    found = image.new_zeros(len(image), 1, *image.shape[-2:])

    def read(_: int, window: Window) -> tuple[Tensor, Tensor]:
        return image[(..., *window)], source[(..., *window)]

    if height and width:
        tiler = Tiler.in_cache(TILE, NEAR * cell, device)
        tiler.fill(partial(pattern, cell=cell), read, [found[..., :height, :width]])
    return found


def pattern(image: Tensor, source: Tensor, *, cell: int) -> Tensor:
    """`weave` of whole cells: first along rows, then, of what that leaves, along columns."""
    detail, fast = (image - source).mean(dim=1, keepdim=True), _fast(cell, image.device)
    rows = _shared(_quick(detail.mT, *fast)).mT
    return rows + _shared(_quick(detail - rows, *fast))


def _fast(cell: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """What takes its mean and its slowest wave from a cell, (cell, cell), and what that makes of a
    slope of 1, (cell, 1)."""
    place = torch.arange(cell, device=device)[:, None]
    waves = torch.cos((place - place.T) * (2 * math.pi / cell))
    fast = torch.eye(cell, device=device) - (1 + 2 * waves) / cell
    return fast, fast @ (place - (cell - 1) / 2)


def _quick(x: Tensor, fast: Tensor, ramp: Tensor) -> Tensor:
    """Of each cell down a column all but its mean, its slowest wave and its slope, which is that
    between the means of the cells beside it, the border's repeated: (N, 1, cells, cell, W)."""
    cell, (height, width) = len(fast), x.shape[-2:]
    cells = x.reshape(*x.shape[:-2], height // cell, cell, width)
    means = extended(cells.mean(dim=-2, keepdim=True), 1, -3)
    slope = (means[..., 2:, :, :] - means[..., :-2, :, :]) / (2 * cell)
    quick: Tensor = fast @ cells
    return quick.addcmul_(slope, ramp, value=-1)


def _shared(x: Tensor) -> Tensor:
    """What each of the cells down a column shares with those before and after it, the border's
    repeated, place by place, (N, 1, H, W): their median, but at most LARGER times what all three
    have, and 0 where they are of both signs. It changes little where x does."""
    wider = extended(x, 1, -3)
    before, own, after = wider[..., :-2, :, :], x, wider[..., 2:, :, :]
    least, most = torch.minimum(before, own), torch.maximum(before, own)
    median = torch.maximum(least, torch.minimum(most, after))
    least, most = torch.minimum(least, after), torch.maximum(most, after)
    median.clamp_(most.clamp_(max=0).mul_(LARGER), least.clamp_(min=0).mul_(LARGER))
    return median.flatten(-3, -2)
