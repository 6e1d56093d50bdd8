"""A walk over a picture that is nowhere whole: tiles from above to below, states in files."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import torch
from torch import Tensor

from sr_cli.diffusion.solvers import Step
from sr_cli.engine.states import Noise, place_of, weights_of
from sr_cli.engine.steps import Course
from sr_cli.engine.stream.plane import Plane
from sr_cli.engine.stream.source import Source
from sr_cli.engine.tiling import Tile
from sr_cli.engine.timing import Timer
from sr_cli.models.model import Model


def even_spans(side: int, most: int, margin: int, multiple: int) -> list[tuple[slice, slice]]:
    """Cores and windows along a side: as few windows as can be, all of one length up to `most`.

    side, margin and most are multiples of `multiple`, and most is above 2·margin; a window has the
    margin where it does not end with the side.
    """
    if side <= most:
        return [(slice(0, side), slice(0, side))]
    count = -(-(side - 2 * margin) // (most - 2 * margin))
    even = -(-(side + 2 * margin * (count - 1)) // count)
    window = -(-even // multiple) * multiple
    spans, begin = [], 0
    for number in range(count):
        outer = min(number * (window - 2 * margin), side - window)
        end = side if number == count - 1 else outer + window - margin
        spans.append((slice(begin, end), slice(outer, outer + window)))
        begin = end
    return spans


def even_tiles(size: tuple[int, int], most: int, margin: int, multiple: int) -> list[list[Tile]]:
    """Rows of tiles of one window shape."""
    rows, cols = (even_spans(side, most, margin, multiple) for side in size)
    return [[Tile((y, x), (window_y, window_x)) for x, window_x in cols] for y, window_y in rows]


@dataclass(frozen=True)
class Walk:
    """A denoiser's walk along a course over one picture of pixels.

    rows: of tiles, over the picture's sides padded to what the model takes. noise: the picture's.
    on_step(done, total) counts network calls.
    """

    model: Model
    course: Course
    source: Source
    noise: Noise
    rows: Sequence[Sequence[Tile]]
    timer: Timer
    on_step: Callable[[int, int], None]

    def __call__(self) -> Iterator[tuple[Tile, Tensor, Tensor]]:
        """Tiles from left to right and from above to below: the tile, what the walk ends with in
        its core, about [0, 1], and the source there, in [0, 1], both (1, 3, h, w).

        Raises DeviceError where the disk has no room for the states between the steps.
        """
        steps = self.course.steps
        if not steps:
            for tile in self._tiles:
                source = self.source(tile.core)
                yield tile, self.model.codec.decode(self._encoded(source)[0]), source
            return
        size = self._tiles[-1].core[0].stop, self._tiles[-1].core[1].stop
        depth = max(len(step.x0) for step in steps)
        kept: dict[int, Plane] = {}
        state: Plane | None = None
        with ExitStack() as files:
            for number in range(1, len(steps)):
                following = files.enter_context(Plane(size))
                if depth > 1:
                    kept[number] = files.enter_context(Plane(size))
                for tile, x, x0, _ in self._step(number, depth, state, kept):
                    following.write(tile.core, x)
                    if depth > 1:
                        kept[number].write(tile.core, x0)
                if state:
                    state.close()
                if number - depth + 1 in kept:  # the next step looks back on later ones alone
                    kept.pop(number - depth + 1).close()
                state = following
            for tile, x, _, source in self._step(len(steps), depth, state, kept):
                yield tile, self.model.codec.decode(x), source

    def _step(
        self, number: int, depth: int, state: Plane | None, kept: Mapping[int, Plane]
    ) -> Iterator[tuple[Tile, Tensor, Tensor, Tensor]]:
        """Of every tile: the state after the step of this number, the x0 that it found, and the
        source, all in its core; state: before it, None at the start."""
        tiles = self._tiles
        for done, tile in enumerate(tiles, start=1):
            yield tile, *self._moved(tile, number, depth, state, kept)
            self.on_step((number - 1) * len(tiles) + done, len(self.course.steps) * len(tiles))

    def _moved(
        self, tile: Tile, number: int, depth: int, state: Plane | None, kept: Mapping[int, Plane]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Of one tile: its core alone, so that nothing of its window stays in memory."""
        step = self.course.steps[number - 1]
        with self.timer("preprocess"):
            source = self.source(tile.window)
        y, hint = self._encoded(source)
        x = self._started(tile, y) if state is None else state.read(tile.window).to(y.device)
        core = (..., *tile.core_in_window)
        x0 = self._predicted(step, x, y, hint)[core].clone()
        looked_back = {n: kept[n] for n in range(max(1, number - depth + 1), number)}
        terms = {place_of(n, depth): plane.read(tile.core) for n, plane in looked_back.items()}
        terms |= {0: y[core], place_of(number, depth): x0}
        stacked = torch.stack([terms[place].to(y.device) for place in sorted(terms)])
        weights = torch.tensor(weights_of(self.course.steps, number, depth), device=y.device)
        x = x[core].clone()
        x.flatten().addmv_(stacked.flatten(1).T, weights[: len(terms)], beta=step.x)
        if step.noise:
            x.add_(self.noise(number, tile.core), alpha=step.noise)
        return x, x0, source[core].clone()

    def _encoded(self, source: Tensor) -> tuple[Tensor, Tensor]:
        """y and hint; the codec of such a model has no context and no noise."""
        return self.model.codec.encode(source, source.new_zeros(1).expand_as(source))

    def _started(self, tile: Tile, y: Tensor) -> Tensor:
        source, noise = self.course.start
        return (y * source).add_(self.noise(0, tile.window), alpha=noise)

    def _predicted(self, step: Step, x: Tensor, y: Tensor, hint: Tensor) -> Tensor:
        moment = self.course.path.moment(step.s)
        with self.timer("network"):
            return self.model.denoiser.predict_x0(x, y=y, hint=hint, **moment)

    @property
    def _tiles(self) -> list[Tile]:
        return [tile for row in self.rows for tile in row]
