"""The weave: the pattern that a network of cells leaves in a result, found to be removed.

A network that makes its pixels in cells of one size may draw the same in every cell of a
neighbourhood. No LR picture bears out what has a period of less than two of its pixels. Where half
a cell is smaller than that, this is all of a cell but its mean, its slope and its slowest wave; and
of this, what recurs from cell to cell is weave. What is in one cell alone, as an outline is, is
none.
"""

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from sr_cli.device import side_by_side
from sr_cli.engine.between import extended
from sr_cli.engine.small import cached
from sr_cli.errors import is_out_of_memory
from sr_cli.models.graphs import give_back

NEAR = 2
"""Cells on each side of one that its weave depends on: it is shared with those beside it, and their
slopes are between the next ones."""
LARGER = 3
"""Times what all three have: as much as that is taken for shared."""
TILE = 512
"""Side of a square of as many pixels as are worked on at a time: they stay in a processor's cache.
They are whole rows, and then whole columns, so that no pixel is looked at twice."""

Fast = tuple[Tensor, Tensor, Tensor]
"""What takes its mean and its slowest wave from a cell, (cell, cell), and from two at a time; and
what that makes of a slope by which the sums of the cells beside it differ by 1, (1, cell)."""


def weaves(cell: int, size: Sequence[int], grid: Sequence[int]) -> bool:
    """Whether half a cell of an image of size (H, W), made from (h, w) pixels, is smaller than two
    of these."""
    return cell > 0 and all(cell * few < 4 * side for side, few in zip(size, grid, strict=True))


def weave(image: Tensor, source: Tensor, cell: int, device: torch.device) -> Tensor:
    """What of the image is weave, (N, 1, H, W) float32: the same in all channels.

    image: what the networks gave, source: the plain enlargement, both (N, 3, H, W). cell: pixels
    along its side; what is left beside the last whole cells has no weave. A pixel depends on those
    at most NEAR cells from its own. device: computes. Where its memory is short, parts are smaller;
    where they cannot be, what its allocator raises is raised.
    """
    height, width = (side - side % cell for side in image.shape[-2:])
    found = image.new_zeros(len(image), 1, *image.shape[-2:])
    if not (height and width):
        return found
    left, fast = found.new_empty(len(image), 1, height, width), fast_of(cell, device)

    def along_rows(rows: slice) -> None:
        here = ..., rows, slice(width)
        detail = _detail(image[here].to(device), source[here].to(device))
        found[here] = own = in_rows(detail, fast)
        left[here] = detail.sub_(own)

    def along_columns(cols: slice) -> None:
        found[..., :height, cols] += in_columns(left[..., cols].to(device), fast).to(found.device)

    passes = (along_rows, height, width), (along_columns, width, height)
    pixels, fewest = min(cached(TILE, device) ** 2, height * width), cell * max(height, width)
    while True:
        try:
            with side_by_side(device) as each:
                for along, side, other in passes:
                    for _ in each(along, _parts(side, pixels // other, cell)):
                        pass
            return found
        except Exception as error:
            if pixels <= fewest or not is_out_of_memory(error):
                raise
            pixels //= 4
        give_back(device)


def _parts(side: int, most: int, cell: int) -> Iterator[slice]:
    """A side in parts of whole cells, of at most so many pixels if there is more than one."""
    part = max(most // cell, 1) * cell
    return (slice(start, min(start + part, side)) for start in range(0, side, part))


def pattern(image: Tensor, source: Tensor, *, cell: int) -> Tensor:
    """`weave` of whole cells: first along rows, then, of what that leaves, along columns."""
    detail, fast = _detail(image, source), fast_of(cell, image.device)
    rows = in_rows(detail, fast)
    return rows + in_columns(detail - rows, fast)


def fast_of(cell: int, device: torch.device) -> Fast:
    """Of cells of that many pixels along a side."""
    place = torch.arange(cell, device=device)[:, None]
    waves = torch.cos((place - place.T) * (2 * math.pi / cell))
    fast = torch.eye(cell, device=device) - (1 + 2 * waves) / cell
    slope = (place - (cell - 1) / 2).T / (2 * cell**2)
    return fast, torch.kron(torch.eye(2, device=device), fast), slope @ fast


def _detail(image: Tensor, source: Tensor) -> Tensor:
    """What the network added, the mean of the channels, (N, 1, H, W)."""
    detail = image[:, :1] - source[:, :1]
    for channel in (1, 2):  # one by one: less goes through memory
        detail += image[:, channel : channel + 1]
        detail -= source[:, channel : channel + 1]
    return detail.mul_(1 / 3)


def in_rows(detail: Tensor, fast: Fast) -> Tensor:
    """What recurs from cell to cell along the rows of (N, 1, H, W), as many as in whole cells: of
    each cell all but its mean, its slowest wave and its slope, which is that between the means of
    the cells beside it, as far as these three share it."""
    _, pair, ramp = fast  # of a matrix for one cell a processor makes half as much
    cell = ramp.shape[1]
    cells = detail.view(*detail.shape[:-1], -1, cell)
    steps = _steps(cells @ cells.new_ones(cell, 1), -2)
    quick = (detail.reshape(-1, 2 * cell) @ pair).view(-1, cell)
    quick.addmm_(steps.view(-1, 1), ramp, alpha=-1)
    return _shared(quick.view(cells.shape), -2).flatten(-2)


def in_columns(detail: Tensor, fast: Fast) -> Tensor:
    """The same along its columns, without copies that turn them into rows."""
    one, _, ramp = fast
    cells = detail.view(*detail.shape[:-2], -1, len(one), detail.shape[-1])
    steps = _steps(cells.sum(dim=-2, keepdim=True), -3)
    return _shared((one @ cells).addcmul_(ramp.T, steps, value=-1), -3).flatten(-3, -2)


def _steps(x: Tensor, dim: int) -> Tensor:
    """Between what is before and after each cell, the border's repeated."""
    wider, cells = extended(x, 1, dim), x.shape[dim]
    return wider.narrow(dim, 2, cells) - wider.narrow(dim, 0, cells)


def _shared(x: Tensor, dim: int) -> Tensor:
    """What each cell shares with those before and after it, the border's repeated, place by place:
    their median, but at most LARGER times what all three have, and 0 where they are of both signs.
    It changes little where x does."""
    wider, cells = extended(x, 1, dim), x.shape[dim]
    before, after = wider.narrow(dim, 0, cells), wider.narrow(dim, 2, cells)
    least, most = torch.minimum(before, x), torch.maximum(before, x)
    median = torch.maximum(least, torch.minimum(most, after))
    torch.minimum(least, after, out=least)
    torch.maximum(most, after, out=most)
    return median.clamp_(most.clamp_(max=0).mul_(LARGER), least.clamp_(min=0).mul_(LARGER))
