"""Exact tiling: each tile is computed with all the context that its network can see."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor

Window = tuple[slice, slice]
"""Rows and columns of an image."""


@dataclass(frozen=True)
class Tile:
    """`core`: what the tile gives. `window`: what it reads. Cores are disjoint and cover all."""

    core: Window
    window: Window

    @property
    def core_in_window(self) -> Window:
        """The core's place inside the window."""
        rows, cols = (
            slice(core.start - window.start, core.stop - window.start)
            for core, window in zip(self.core, self.window, strict=True)
        )
        return rows, cols


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


def sweep(
    function: Callable[..., Tensor],
    images: Sequence[Tensor],
    places: Sequence[Tile],
    *,
    batch: int,
    device: torch.device,
    scale: int = 1,
) -> Iterator[tuple[Tile, Tensor]]:
    """function(windows of each image) for every tile, `batch` at a time: (tile, its core).

    images: (1, C, H, W) of one size, on any device; the function gets (N, C, h, w) on `device` and
    gives (N, C', scale·h, scale·w).
    """
    for first in range(0, len(places), batch):
        group = places[first : first + batch]
        windows = [
            torch.cat([image[(..., *tile.window)] for tile in group]).to(device) for image in images
        ]
        results = function(*windows)
        for i, tile in enumerate(group):
            yield tile, results[(slice(i, i + 1), ..., *scaled(tile.core_in_window, scale))]


def scaled(window: Window, scale: int) -> Window:
    """The window in an image `scale` times as large."""
    rows, cols = (slice(scale * side.start, scale * side.stop) for side in window)
    return rows, cols
