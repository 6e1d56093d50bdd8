"""Colours and guard behind a walk: rows come from above to below, and so do finished ones.

What a pixel needs of its surroundings lies up to `reach` from it. So what is finished lags behind
what has come by `reach`, and twice that much of what has come is carried over to the next rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import ceil

import torch
from torch import Tensor

from sr_cli.device import side_by_side
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
from sr_cli.engine.tiling import Window
from sr_cli.engine.timing import Timer
from sr_cli.engine.weave import NEAR, weave, weaves

ROUND = 16
"""Pixels: what is finished at a time begins where the guard's own parts may."""


def least(width: int) -> int:
    """Rows that are finished at a time: few, which take little memory, and enough that the
    surroundings of the cells among them are no more than these; half as many of wide pictures,
    which takes a twentieth more CPU time."""
    return max(64, min(128, (1 << 20) // width))


def lows(scale: Sequence[float], color: Color) -> int:
    """Cells at most so far away have a share in the low frequencies of one."""
    return max(sum(radii(factor)) for factor in scale) if color == "wavelet" else 0


def reach(size: tuple[int, int], grid: tuple[int, int], color: Color, cell: int = 0) -> int:
    """Pixels on every side that a finished pixel may depend on, rounded up to a round number.

    It lies between cells at most one and a half away, which reach further cells, and the weave of
    what is there, of cells of so many pixels, further ones of its own.
    """
    scale = [side / cells for side, cells in zip(size, grid, strict=True)]
    cells = REACH + lows(scale, color) + 3
    own = (NEAR + 1) * cell if weaves(cell, size, grid) else 0
    return ceil((cells * max(scale) + own) / ROUND) * ROUND


@dataclass(frozen=True)
class Carried:
    """Rows of a picture, put together with as many of those above them as they need.

    size: (H, W). reach: pixels around one that its result depends on. least: rows that are finished
    at a time, but for the last ones.
    """

    size: tuple[int, int]
    reach: int
    least: int

    def blocks(
        self, strips: Iterable[tuple[slice, Tensor]]
    ) -> Iterator[tuple[Window, Tensor, Window]]:
        """Of rows (1, C, h, W) from above to below: where the block is, what is in it, and which
        part of it can be finished. These parts cover the picture."""
        height, width = self.size
        across = slice(0, width)
        block: Tensor | None = None
        top = filled = ready = 0  # first row in the block, rows in it, and the next to be finished
        for rows, values in strips:
            block = self._with_room(block, filled, values)
            block[..., filled : filled + values.shape[-2], :] = values
            filled += values.shape[-2]
            del values
            last = rows.stop == height
            done = height if last else (rows.stop - self.reach) // ROUND * ROUND
            if done - ready < self.least and not last:
                continue
            place = slice(top, top + filled), across
            yield place, block[..., :filled, :], (slice(ready, done), across)
            ready = done
            if (gone := ready - self.reach - top) > 0:
                top, filled = top + gone, filled - gone
                for to in range(0, filled, gone):  # so many rows, which do not overlap their source
                    moved = block[..., to + gone : min(to + gone, filled) + gone, :]
                    block[..., to : to + moved.shape[-2], :] = moved

    def _with_room(self, block: Tensor | None, filled: int, values: Tensor) -> Tensor:
        """The block, for more rows."""
        need = filled + values.shape[-2]
        if block is not None and block.shape[-2] >= need:
            return block
        most = max(need, 2 * self.reach + self.least + ROUND + values.shape[-2])
        roomy = values.new_empty(*values.shape[:2], most, values.shape[-1])
        if block is not None:
            roomy[..., :filled, :] = block[..., :filled, :]
        return roomy


@dataclass
class Finisher:
    """What `finish.finished` does, to blocks. cell: as of `Finish`. strayed: cells on which the
    guard doubted."""

    held: Held
    size: tuple[int, int]
    color: Color
    device: torch.device
    timer: Timer
    cell: int = 0
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
        woven = None
        if weaves(self.cell, self.size, self.held.size):
            woven = weave(image, source, self.cell, self.device)
        maps = self._maps(place, image, source, woven, cells)
        self._count(cells, maps, ready)
        result = image.new_empty(1, 3, *size_of(ready))

        def limit(part: Window) -> None:
            own = (..., *inside(part, place))
            near = maps[(..., *inside(between.cells(part), cells))]
            doubted = float(near[:, DOUBT].max()) > 0
            shown = image[own] if woven is None else image[own] - woven[own]
            result[(..., *inside(part, ready))] = limited(
                shown, between.enlarged(near, part), source[own] if doubted else None
            )

        with side_by_side(self.device) as each:
            for _ in each(limit, parts(ready, TILE)):
                pass
        return result[0]

    def _maps(
        self, place: Window, image: Tensor, source: Tensor, woven: Tensor | None, cells: Window
    ) -> Tensor:
        """What the guard does in these cells."""
        grid = self.held.size
        scale = [side / cells for side, cells in zip(self.size, grid, strict=True)]
        read = grown(cells, REACH + lows(scale, self.color), grid)
        pixels = (..., *inside(pixels_of(read, grid, self.size), place))
        small, small_y = (reduced(x[pixels], grid, self.size, read) for x in (image, source))
        if woven is not None:
            small = small - reduced(woven[pixels], grid, self.size, read)
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
