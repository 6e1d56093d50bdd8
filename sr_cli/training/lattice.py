"""The pattern that a pixel shuffle leaves: the same error at the same place of every cell.

A feature loss is pleased by such a pattern where it stands for texture, and the eye is not.
"""

import torch.nn.functional as F
from torch import Tensor

CELL = 4
"""Pixels along a side of a cell."""
NEAR = 4
"""Cells along a side of a neighbourhood."""


def lattice(error: Tensor) -> Tensor:
    """How much of the error (N, 3, H, W) recurs from cell to cell: a scalar.

    By place within the cell the error is averaged over neighbourhoods of 4×4 cells and over the
    whole crop: what is irregular averages out, and what is smooth is the same at all places and
    taken off. Mean absolute values; those of the whole, which are smaller, weigh three times as
    much. H and W are multiples of 4, 16 or more.
    """
    cells = F.pixel_unshuffle(error, CELL)
    near = F.avg_pool2d(cells, NEAR, stride=NEAR // 2)
    whole = cells.mean(dim=(-2, -1), keepdim=True)
    return 2 * _uneven(near) + 6 * _uneven(whole)


def _uneven(cells: Tensor) -> Tensor:
    """Mean absolute distance of the 16 places of a cell from their mean, of (N, 3·16, h, w)."""
    places = cells.reshape(len(cells), -1, CELL**2, *cells.shape[-2:])
    uneven: Tensor = (places - places.mean(dim=2, keepdim=True)).abs().mean()
    return uneven
