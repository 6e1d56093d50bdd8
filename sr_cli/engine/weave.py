"""The weave: the pattern that a pixel shuffle leaves in a result, found so that it can be removed.

A network that makes its pixels in cells of one size may draw the same in every cell of a
neighbourhood. Where a cell is smaller than two LR pixels no LR picture bears that out: its finest
pattern has a period of two. What is in one cell alone, as an outline is, is no weave.
"""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from sr_cli.engine.tiling import Tiler, Window

NEAR = 2
"""Cells on each side of one that are looked at."""
LARGER = 3
"""Times what four of five cells have: as much as that is taken for shared."""
TILE = 256
"""Output pixels: what is worked on at a time stays in a processor's cache."""


def weaves(cell: int, size: Sequence[int], grid: Sequence[int]) -> bool:
    """Whether an image of size (H, W), made from (h, w) pixels, has cells smaller than two."""
    return cell > 0 and all(cell * few < 2 * side for side, few in zip(size, grid, strict=True))


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
    detail = (image - source).mean(dim=1, keepdim=True)
    rows = _common(_uneven(detail.mT, cell), cell).mT
    return rows + _common(_uneven(detail - rows, cell), cell)


def _uneven(x: Tensor, cell: int) -> Tensor:
    """Deviations down a column from their mean in a cell: (N, 1, H, W)."""
    cells = x.reshape(*x.shape[:2], -1, cell, x.shape[-1])
    uneven: Tensor = (cells - cells.mean(dim=-2, keepdim=True)).flatten(-3, -2)
    return uneven


def _common(x: Tensor, cell: int) -> Tensor:
    """Down a column, at each place of a cell, what it shares with its 2 · NEAR neighbours, the
    border's repeated: their median, but at most LARGER times what all of them but one have, and 0
    where these are of both signs. It changes little where x does."""
    first, last = x[..., :cell, :], x[..., -cell:, :]
    wider = torch.cat((first, first, x, last, last), dim=-2)
    a, b, c, d, e = (wider.narrow(-2, k * cell, x.shape[-2]) for k in range(2 * NEAR + 1))
    (a, b), (c, d) = _sorted(a, b), _sorted(c, d)
    (least, b), (c, most) = _sorted(a, c), _sorted(b, d)
    b, c = _sorted(b, c)  # the four are in order now, and e comes among them
    second, median, fourth = (
        torch.maximum(low, torch.minimum(high, e)) for low, high in ((least, b), (b, c), (c, most))
    )
    return median.clamp(fourth.clamp(max=0) * LARGER, second.clamp(min=0) * LARGER)


def _sorted(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    return torch.minimum(a, b), torch.maximum(a, b)
