"""Colours and guard behind a walk: rows come from above to below, and so do finished ones.

What a pixel needs of its surroundings lies up to `reach` from it: so far what is finished lags
behind what has come. The far surroundings count as cells alone, so no more pixels are kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import ceil

import torch
from torch import Tensor

from sr_cli.engine.between import Between
from sr_cli.engine.color import radii
from sr_cli.engine.guard import DOUBT, REACH, TILE, cell_maps, in_use, limited, with_limits
from sr_cli.engine.options import Color
from sr_cli.engine.small import ROUND, SmallTiler
from sr_cli.engine.stream.band import Band
from sr_cli.engine.stream.source import Held
from sr_cli.engine.stream.windows import (
    below,
    grown,
    inside,
    pixels_of,
    reduced,
    size_of,
    spans,
)
from sr_cli.engine.tiling import Window
from sr_cli.engine.timing import Timer
from sr_cli.engine.weave import NEAR, weave, weaves


def least(width: int) -> int:
    """Rows that are finished at a time, a multiple of ROUND, as those of the guard's own tiles are:
    about a megapixel, and enough that the surroundings of the cells among them are not much more
    than these."""
    return max(48, (1 << 20) // width // ROUND * ROUND)


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


@dataclass
class Finisher:
    """What `finish.finished` does, to rows from above to below.

    size: (H, W). cell: as of `Finish`. strayed: cells on which the guard doubted.
    """

    held: Held
    size: tuple[int, int]
    color: Color
    device: torch.device
    timer: Timer
    cell: int = 0
    strayed: int = 0

    def __call__(self, strips: Iterable[tuple[slice, Tensor]]) -> Iterator[tuple[slice, Tensor]]:
        """Which rows, and the result there, (3, h, W) float32 in [0, 1]: all of them in the end.

        strips: rows, and result and source there, (1, 6, h, W).
        """
        height, width = self.size
        lag, most = reach(self.size, self.held.size, self.color, self.cell), least(width)
        waiting, ready = _Waiting(self, lag + most + ROUND, most), 0
        for rows, values in strips:
            waiting.rows.add(values)
            del values
            done = height if rows.stop == height else (rows.stop - lag) // ROUND * ROUND
            if rows.stop < height and done - ready < most:
                continue
            with self.timer("guard"):
                waiting.prepare()
            for top in range(ready, done, most):
                part = slice(top, min(done, top + most))
                with self.timer("guard"):
                    result = self._guarded(waiting, (part, slice(0, width)))
                yield part, result
                del result
            ready = max(ready, done)
            waiting.forget(ready)

    def _guarded(self, waiting: _Waiting, ready: Window) -> Tensor:
        between = Between.of(self.held.size, self.size, self.device)
        cells = between.cells(ready)
        maps = self._maps(waiting, cells)
        self._count(cells, maps, ready)
        used = in_use(maps)

        def pixels(_: int, w: Window) -> tuple[Tensor, ...]:
            part = below(w, ready[0].start)
            near = maps[(..., *inside(between.cells(part), cells))]
            source = waiting.rows[part][:, 3:]
            return with_limits(waiting.shown(part), source, near, between, part, used=used)

        result = torch.empty(1, 3, *size_of(ready), device=maps.device)
        SmallTiler.of(TILE, 0, self.device).fill(limited, pixels, [result])
        return result[0]

    def _maps(self, waiting: _Waiting, cells: Window) -> Tensor:
        """What the guard does in these cells."""
        scale = [side / cells for side, cells in zip(self.size, self.held.size, strict=True)]
        read = grown(cells, waiting.around, self.held.size)
        small = waiting.cells[read]
        maps = cell_maps(
            small[:, :3],
            small[:, 3:],
            self.held.window(read, small.device),
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


class _Waiting:
    """Rows that are not finished yet, and what is known of them.

    rows: result and source. cells: both made smaller, without the weave. around: cells on every
    side that what the guard does in one depends on.
    """

    def __init__(self, finisher: Finisher, kept: int, most: int) -> None:
        """kept: rows that are not finished yet when the next ones come. most: rows at a time."""
        self._size, self._grid = finisher.size, finisher.held.size
        self._cell, self._device = finisher.cell, finisher.device
        self._weaves = weaves(self._cell, self._size, self._grid)
        self._most = max(most // self._cell, 1) * self._cell if self._weaves else most
        self.rows, self.cells, self._woven = Band(kept), Band(), Band(kept)
        self._known = 0  # rows whose weave is known
        scale = [side / cells for side, cells in zip(self._size, self._grid, strict=True)]
        self.around = REACH + lows(scale, finisher.color)

    def prepare(self) -> None:
        """All that can be known of the rows so far."""
        end = self.rows.bottom
        if self._weaves and end < self._size[0]:
            end = end // self._cell * self._cell - NEAR * self._cell
        while self._known < end:
            begin, self._known = self._known, min(end, self._known + self._most)
            if self._weaves:
                self._weave((slice(begin, self._known), slice(0, self._size[1])))
            self._shrink()

    def _weave(self, own: Window) -> None:
        """Find the weave of these rows, which begin with whole cells."""
        read = grown(own, NEAR * self._cell, self._size)[0], own[1]
        values = self.rows[read]
        found = weave(values[:, :3], values[:, 3:], self._cell, self._device)
        self._woven.add(found[(..., *inside(own, read))])

    def _shrink(self) -> None:
        """Make the cells that are known now."""
        rows = slice(self.cells.bottom, self._known * self._grid[0] // self._size[0])
        if rows.start == rows.stop:
            return
        window = rows, slice(0, self._grid[1])
        pixels = pixels_of(window, self._grid, self._size)
        small = reduced(self.rows[pixels], self._grid, self._size, window)
        if self._weaves:
            woven = reduced(self._woven[pixels], self._grid, self._size, window)
            small = torch.cat((small[:, :3] - woven, small[:, 3:]), dim=1)
        self.cells.add(small)

    def shown(self, window: Window) -> Tensor:
        """The result without the weave."""
        image = self.rows[window][:, :3]
        return image - self._woven[window] if self._weaves else image

    def forget(self, before: int) -> None:
        """Rows above this one are finished."""
        self.rows.forget(before)
        self._woven.forget(before)
        self.cells.forget(before * self._grid[0] // self._size[0] - 1 - self.around)
