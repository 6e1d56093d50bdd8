"""Colours and guard behind a walk: tiles come from above to below, and so do finished ones.

What a pixel needs of its surroundings lies up to `reach` from it. So what is finished lags behind
what has come by `reach`, to the right and below, and twice that much of what has come is carried
over to the next tile and the next row of tiles.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import ceil

import torch
from torch import Tensor

from sr_cli.engine.between import Between
from sr_cli.engine.color import radii
from sr_cli.engine.guard import DOUBT, REACH, TILE, cell_maps, limited
from sr_cli.engine.options import Color
from sr_cli.engine.stream.source import Held
from sr_cli.engine.stream.windows import (
    grown,
    inside,
    parts,
    pixels_of,
    reduced,
    size_of,
    spans,
)
from sr_cli.engine.tiling import Tile, Window
from sr_cli.engine.timing import Timer

ROUND = 16
"""Pixels: what is finished at a time begins where the guard's own parts may."""


def lows(scale: Sequence[float], color: Color) -> int:
    """Cells at most so far away have a share in the low frequencies of one."""
    return max(sum(radii(factor)) for factor in scale) if color == "wavelet" else 0


def reach(size: tuple[int, int], grid: tuple[int, int], color: Color) -> int:
    """Pixels on every side that a finished pixel may depend on, rounded up to a round number.

    It lies between cells at most one and a half away, which reach further cells.
    """
    scale = [side / cells for side, cells in zip(size, grid, strict=True)]
    cells = REACH + lows(scale, color) + 3
    return ceil(cells * max(scale) / ROUND) * ROUND


def carried_bytes(width: int, reach: int) -> int:
    """Of what `Carried` keeps of one row of tiles for the next, and of the next one's own, in
    float32: result and source of a picture so wide."""
    return 2 * (2 * reach) * width * 6 * 4


class Carried:
    """Blocks of a picture, each with as much of what lies above and left of it as is carried."""

    def __init__(self, size: tuple[int, int], reach: int) -> None:
        self.size, self.reach = size, reach
        self._above: Tensor | None = None
        self._row: Tensor | None = None
        self._left: Tensor | None = None

    def blocks(
        self, tiles: Iterable[tuple[Tile, Tensor]]
    ) -> Iterator[tuple[Window, Tensor, Window]]:
        """Of tiles (1, C, h, w) from left to right and from above to below: where the block is,
        what is in it, and which part of it can be finished. These parts cover the picture."""
        height, width = self.size
        for tile, values in tiles:
            rows, cols = tile.core
            if cols.start == 0:
                self._above, self._row, self._left = self._row, None, None
            place, block = self._grown(rows, cols, values)
            yield (
                place,
                block,
                (self._ready(rows, height), self._ready(cols, width)),
            )

    def _ready(self, span: slice, side: int) -> slice:
        begin = max(0, span.start - self.reach)
        return slice(begin, side if span.stop == side else max(begin, span.stop - self.reach))

    def _grown(self, rows: slice, cols: slice, values: Tensor) -> tuple[Window, Tensor]:
        """The block, and what of it the next ones need is kept."""
        top, left = rows.start, cols.start
        if self._above is not None:
            above = self._above[..., cols]
            values = torch.cat((above.to(values.device), values), dim=-2)
            top -= above.shape[-2]
        if self._row is None:
            kept = min(2 * self.reach, values.shape[-2])
            self._row = torch.empty(1, values.shape[1], kept, self.size[1])
        self._row[..., cols] = values[..., values.shape[-2] - self._row.shape[-2] :, :].cpu()
        if self._left is not None:
            values = torch.cat((self._left, values), dim=-1)
            left -= self._left.shape[-1]
        self._left = values[..., max(0, values.shape[-1] - 2 * self.reach) :].clone()
        return (slice(top, rows.stop), slice(left, cols.stop)), values


@dataclass
class Finisher:
    """What `finish.finished` does, to blocks. strayed: cells on which the guard doubted."""

    held: Held
    size: tuple[int, int]
    color: Color
    device: torch.device
    timer: Timer
    strayed: int = 0

    def __call__(self, place: Window, block: Tensor, ready: Window) -> Tensor:
        """The result in the part that is ready, (3, h, w) float32 in [0, 1].

        block: result and source, (1, 6, H, W), in their place.
        """
        with self.timer("guard"):
            return self._guarded(place, block[:, :3], block[:, 3:], ready)

    def _guarded(self, place: Window, image: Tensor, source: Tensor, ready: Window) -> Tensor:
        between = Between.of(self.held.size, self.size, image.device)
        cells = between.cells(ready)
        maps = self._maps(place, image, source, cells)
        self._count(cells, maps, ready)
        result = image.new_empty(1, 3, *size_of(ready))
        for part in parts(ready, TILE):
            own = (..., *inside(part, place))
            near = maps[(..., *inside(between.cells(part), cells))]
            doubted = float(near[:, DOUBT].max()) > 0
            values = limited(
                image[own], between.enlarged(near, part), source[own] if doubted else None
            )
            result[(..., *inside(part, ready))] = values
        return result[0]

    def _maps(self, place: Window, image: Tensor, source: Tensor, cells: Window) -> Tensor:
        """What the guard does in these cells."""
        grid = self.held.size
        scale = [side / cells for side, cells in zip(self.size, grid, strict=True)]
        read = grown(cells, REACH + lows(scale, self.color), grid)
        pixels = (..., *inside(pixels_of(read, grid, self.size), place))
        small, small_y = (reduced(x[pixels], grid, self.size, read) for x in (image, source))
        maps = cell_maps(
            small,
            small_y,
            self.held.window(read, image.device),
            self.device,
            scale=scale,
            recolour=self.color == "wavelet",
        )
        return maps[(..., *inside(cells, read))]

    def _count(self, cells: Window, maps: Tensor, ready: Window) -> None:
        """Cells belong to the part that their first pixel is in."""
        own = [
            ((first[at] >= part.start) & (first[at] < part.stop)).to(maps.device)
            for (first, _), at, part in zip(
                (spans(*sides) for sides in zip(self.held.size, self.size, strict=True)),
                cells,
                ready,
                strict=True,
            )
        ]
        doubted = (maps[0, DOUBT][0] > 0.5) & own[0][:, None] & own[1]
        self.strayed += int(doubted.sum())
