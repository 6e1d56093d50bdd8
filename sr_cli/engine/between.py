"""Cells and the pixels between them: bilinear enlargement of maps, window by window."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from sr_cli.engine.tiling import Window, together


@dataclass(frozen=True)
class Along:
    """Where the pixels along a side lie between its cells.

    beside: the cells before and after each pixel, (2, pixels), on the CPU; near: the same, and
    share: of the latter, (pixels,), where the maps are.
    """

    cells: int
    beside: Tensor
    near: Tensor
    share: Tensor

    @classmethod
    @lru_cache(maxsize=16)  # pictures of one size follow each other, and large ones come in blocks
    def of(cls, cells: int, pixels: int, device: torch.device) -> "Along":
        """A side of so many cells, enlarged to so many pixels."""
        places = (torch.arange(pixels, dtype=torch.float64) + 0.5) * (cells / pixels) - 0.5
        places.clamp_(0, cells - 1)
        before = places.long()
        after = (before + 1).clamp_(max=cells - 1)
        beside = torch.stack((before, after))
        return cls(cells, beside, beside.to(device), (places - before).float().to(device))

    def used(self, span: slice) -> slice:
        """The cells beside a span of pixels."""
        return slice(int(self.beside[0, span.start]), int(self.beside[1, span.stop - 1]) + 1)

    def enlarged(self, x: Tensor, span: slice, dim: int) -> Tensor:
        """A side of x, cells, as the pixels of a span; there are the cells `used` alone."""
        pixels = len(self.share)
        if pixels == self.cells:
            return x.narrow(dim, 0, span.stop - span.start)
        factor, rest = divmod(pixels, self.cells)
        if rest or span.start % factor or span.stop % factor:
            before, after = self.near[:, span] - self.used(span).start
            x = x.transpose(dim, -2).contiguous()  # rows are picked much faster than columns
            picked = x.index_select(-2, before)
            picked.lerp_(x.index_select(-2, after), self.share[span, None])
            return picked.transpose(dim, -2).contiguous()
        first = [x.narrow(dim, 0, 1)] if span.start == 0 else []
        last = [x.narrow(dim, x.shape[dim] - 1, 1)] if span.stop == pixels else []
        return _multiplied(together([*first, x, *last], dim=dim), factor, dim)


def _multiplied(x: Tensor, factor: int, dim: int) -> Tensor:
    """Along a side, each of the inner cells as so many."""
    cells = x.shape[dim] - 2
    result = x.new_empty(*x.shape[:dim], cells, factor, *x.shape[dim:][1:])
    for phase in range(factor):
        place = (phase + 0.5) / factor + 0.5  # from the middle of the cell before
        begin = int(place)
        before, after = (x.narrow(dim, k, cells) for k in (begin, begin + 1))
        torch.lerp(before, after, place - begin, out=result.select(dim, phase))
    return result.flatten(dim - 1, dim)


@dataclass(frozen=True)
class Between:
    """Where the pixels of an image lie between cells, which are enlarged to them bilinearly."""

    rows: Along
    cols: Along

    @classmethod
    def of(cls, grid: Sequence[int], size: Sequence[int], device: torch.device) -> "Between":
        """For `grid` cells, (h, w), and an image of `size`, (H, W)."""
        rows, cols = (Along.of(*sides, device) for sides in zip(grid, size, strict=True))
        return cls(rows, cols)

    def cells(self, window: Window) -> Window:
        """The cells that a window of pixels lies between."""
        return self.rows.used(window[0]), self.cols.used(window[1])

    def enlarged(self, there: Tensor, window: Window) -> Tensor:
        """A window of maps enlarged to the image, as if cut from the whole; there: its `cells`
        alone, (N, C, h, w)."""
        return self.rows.enlarged(self.cols.enlarged(there, window[1], -1), window[0], -2)


def extended(x: Tensor, by: int, dim: int) -> Tensor:
    """Along a side by so many of its first and of its last values."""
    sides = [by if side == dim % x.dim() else -1 for side in range(x.dim())]
    first, last = (x.narrow(dim, start, 1).expand(*sides) for start in (0, x.shape[dim] - 1))
    return torch.cat((first, x, last), dim=dim)
