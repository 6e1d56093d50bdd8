"""Tiles of an image: exact ones, with all that their network can see, and blended ones.

Exact tiles have disjoint cores inside windows that hold the receptive field. Where a network sees
its whole window (attention, group norm) no margin is exact: then windows overlap, and what they
give is averaged with Gaussian weights (Jiménez, *Mixture of Diffusers*, arXiv 2302.02412), so that
one fades into the next.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby, product

import torch
from torch import Tensor

Window = tuple[slice, slice]
"""Rows and columns of an image."""


@dataclass(frozen=True)
class Tile:
    """`core`: what the tile gives. `window`: what it reads. Cores cover the image.

    Exact cores are disjoint. Blended ones are windows that overlap: `grid` holds the rows and the
    columns of all of them, since they share the weight of a cell.
    """

    core: Window
    window: Window
    grid: tuple[Sequence[slice], Sequence[slice]] | None = None

    @property
    def core_in_window(self) -> Window:
        """The core's place inside the window."""
        rows, cols = (
            slice(core.start - window.start, core.stop - window.start)
            for core, window in zip(self.core, self.window, strict=True)
        )
        return rows, cols

    @property
    def blends(self) -> bool:
        """Whether other tiles have a share in its core."""
        return self.grid is not None

    def weight(self, scale: int = 1, device: torch.device | str = "cpu") -> Tensor:
        """A blended tile's share in its core, (scale·h, scale·w) float32; all tiles' sum is 1."""
        assert self.grid is not None
        rows, cols = (
            _share(own.start, tuple((span.start, span.stop) for span in every), scale, device)
            for own, every in zip(self.core, self.grid, strict=True)
        )
        return rows[:, None] * cols


def tiles(height: int, width: int, *, core: int, margin: int, multiple: int) -> list[Tile]:
    """Tiles of one window shape over an image whose sides are multiples of `multiple`.

    Cores are `core` pixels wide (rounded up to the multiple; 0: the whole image); windows add
    `margin` on each side, shifted inwards at the image's border so that all have one shape.
    """
    rows, cols = (_spans(side, core or side, margin, multiple) for side in (height, width))
    return [
        Tile((inner_y, inner_x), (outer_y, outer_x))
        for (inner_y, outer_y), (inner_x, outer_x) in product(rows, cols)
    ]


def _spans(side: int, core: int, margin: int, multiple: int) -> list[tuple[slice, slice]]:
    core, margin = (-(-length // multiple) * multiple for length in (core, margin))
    window = min(side, core + 2 * margin)
    spans = []
    for start in range(0, side, core):
        outer = min(max(start - margin, 0), side - window)
        spans.append((slice(start, min(start + core, side)), slice(outer, outer + window)))
    return spans


def blended_tiles(height: int, width: int, *, window: int, overlap: int) -> list[Tile]:
    """Windows of one shape, evenly spaced, that share at least `overlap` cells with the next.

    window: side in cells, the image's own side where that is smaller; 0: the whole image.
    overlap: at most half a window, else that.
    """
    rows, cols = (_even(side, min(window or side, side), overlap) for side in (height, width))
    return [Tile((y, x), (y, x), (rows, cols)) for y, x in product(rows, cols)]


def _even(side: int, window: int, overlap: int) -> list[slice]:
    stride = window - min(overlap, window // 2)
    gaps = -(-(side - window) // stride)
    starts = [round(i * (side - window) / gaps) for i in range(gaps + 1)] if gaps else [0]
    return [slice(start, start + window) for start in starts]


@lru_cache(maxsize=1024)  # a step asks for what the last one did
def _share(
    begin: int, every: tuple[tuple[int, int], ...], scale: int, device: torch.device | str
) -> Tensor:
    """Share, float32, of the window that begins there in each of its cells.

    It is a Gaussian over the sum of all windows'. Their deviation is such that a window has 2 % of
    the weight (1/(1 + e⁴)) at its edge inside a neighbour, and all of it where it is alone.
    """
    own = [start for start, _ in every].index(begin)
    begin, end = every[own]
    if len(every) == 1:
        return torch.ones(scale * (end - begin), device=device)
    window, stride = end - begin, (every[-1][0] - every[0][0]) / (len(every) - 1)
    variance = max(window - stride, 1) * stride / 8
    cells = (torch.arange(scale * begin, scale * end, dtype=torch.float64) + 0.5) / scale
    start, stop = torch.tensor(every, dtype=torch.float64).T[..., None]
    bells = -(((start + stop) / 2 - cells) ** 2) / (2 * variance)
    bells[(cells < start) | (cells > stop)] = -torch.inf
    shares: Tensor = bells.softmax(dim=0)[own].float().to(device)
    return shares


def scaled(window: Window, scale: int) -> Window:
    """The window in an image `scale` times as large."""
    rows, cols = (slice(scale * side.start, scale * side.stop) for side in window)
    return rows, cols


Read = Callable[[int, Window], tuple[Tensor, ...]]
"""Picture and window → what a network reads there, each (1, C, h, w) on any device."""


def sweep(
    function: Callable[..., Tensor],
    read: Read,
    places: Sequence[Sequence[Tile]],
    *,
    batch: int,
    device: torch.device,
    scale: int = 1,
) -> Iterator[tuple[int, Tile, Tensor]]:
    """function(what is read) for every tile of every picture: (picture, tile, its core).

    places: the tiles of each picture. Up to `batch` tiles of one window shape are read at a time,
    from whatever pictures; the function gets (N, C, h, w) on `device` and gives
    (N, C', scale·h, scale·w).
    """
    queue = [(picture, tile) for picture, found in enumerate(places) for tile in found]
    for _, alike in groupby(sorted(queue, key=_shape), key=_shape):
        same = list(alike)
        for first in range(0, len(same), batch):
            group = same[first : first + batch]
            windows = zip(*(read(picture, tile.window) for picture, tile in group), strict=True)
            results = function(*(torch.cat(parts).to(device) for parts in windows))
            for i, (picture, tile) in enumerate(group):
                core = scaled(tile.core_in_window, scale)
                yield picture, tile, results[(slice(i, i + 1), ..., *core)]


def _shape(place: tuple[int, Tile]) -> tuple[int, int]:
    rows, cols = place[1].window
    return rows.stop - rows.start, cols.stop - cols.start


def paste(image: Tensor, tile: Tile, values: Tensor, scale: int = 1) -> None:
    """Put what a tile gives into an image `scale` times as large; blended tiles are added to it."""
    place = (..., *scaled(tile.core, scale))
    if tile.blends:
        image[place] += (tile.weight(scale, values.device) * values).to(image.device)
    else:
        image[place] = values
