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
    share: of the latter, (pixels, 1), where the maps are.
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
        return cls(cells, beside, beside.to(device), (places - before).float()[:, None].to(device))

    def used(self, span: slice) -> slice:
        """The cells beside a span of pixels."""
        return slice(int(self.beside[0, span.start]), int(self.beside[1, span.stop - 1]) + 1)

    def enlarged(self, x: Tensor, span: slice) -> Tensor:
        """(…, cells, W) → (…, pixels of the span, W); of x there are the cells `used` alone."""
        pixels = len(self.share)
        if pixels == self.cells:
            return x[..., : span.stop - span.start, :]
        factor, rest = divmod(pixels, self.cells)
        if rest or span.start % factor or span.stop % factor:
            before, after = self.near[:, span] - self.used(span).start
            x = x.contiguous()
            return x.index_select(-2, before).lerp_(x.index_select(-2, after), self.share[span])
        first = [x[..., :1, :]] if span.start == 0 else []
        last = [x[..., -1:, :]] if span.stop == pixels else []
        return _multiplied(together([*first, x, *last], dim=-2), factor)


def _multiplied(x: Tensor, factor: int) -> Tensor:
    """Each of the inner cells of (…, 1 + h + 1, W) as so many: (…, factor·h, W)."""
    *lead, height, width = x.shape
    result = x.new_empty(*lead, height - 2, factor, width)
    for phase in range(factor):
        place = (phase + 0.5) / factor + 0.5  # from the middle of the cell before
        begin = int(place)
        before, after = (x[..., k : k + height - 2, :] for k in (begin, begin + 1))
        torch.lerp(before, after, place - begin, out=result[..., phase, :])
    return result.flatten(-3, -2)


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
        wide = self.cols.enlarged(there.mT.contiguous(), window[1])
        return self.rows.enlarged(wide.mT.contiguous(), window[0])


def extended(x: Tensor, by: int, dim: int) -> Tensor:
    """Along a side by so many of its first and of its last values."""
    sides = [by if side == dim % x.dim() else -1 for side in range(x.dim())]
    first, last = (x.narrow(dim, start, 1).expand(*sides) for start in (0, x.shape[dim] - 1))
    return torch.cat((first, x, last), dim=dim)
