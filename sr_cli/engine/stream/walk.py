"""A walk over a picture that is nowhere whole: rows from above to below, states in files."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass

import torch
from torch import Tensor

from sr_cli.engine.states import Noise, place_of, weights_of
from sr_cli.engine.steps import Course
from sr_cli.engine.stream.ahead import Item, ahead
from sr_cli.engine.stream.shelf import Shelf
from sr_cli.engine.stream.source import Source
from sr_cli.engine.tiling import Window
from sr_cli.engine.timing import Timer
from sr_cli.models.model import Model
from sr_cli.models.protocol import DenoiserByRows
from sr_cli.models.rows import Waiting


def strips(height: int, most: int) -> list[slice]:
    """Rows from above to below, `most` at a time."""
    return [slice(top, min(height, top + most)) for top in range(0, height, most)]


@dataclass(frozen=True)
class WalkByRows:
    """A denoiser's walk along a course over one picture of pixels.

    size: (H, W), the picture's sides padded to what the model takes. most: rows at a time, a
    multiple of what the model takes. noise: the picture's. on_step(done, total) counts network
    calls.
    """

    model: Model
    course: Course
    source: Source
    noise: Noise
    size: tuple[int, int]
    most: int
    timer: Timer
    on_step: Callable[[int, int], None]

    def __call__(self) -> Iterator[tuple[slice, Tensor, Tensor]]:
        """From above to below: which rows, what the walk ends with there, about [0, 1], and the
        source, in [0, 1], both (1, 3, h, W).

        Raises DeviceError where the disk has no room for the states between the steps.
        """
        steps = self.course.steps
        if not steps:
            read = self.source.begun()
            for rows in self._strips:
                source = read(self.across(rows))
                yield rows, self.model.codec.decode(self.encoded(source)), source
            return
        depth = self.depth
        kept: dict[int, Shelf] = {}
        state: Shelf | None = None
        with ExitStack() as files:
            for number in range(1, len(steps)):
                following = files.enter_context(closing(Shelf(self._shape)))
                if depth > 1:
                    kept[number] = files.enter_context(closing(Shelf(self._shape)))
                for rows, x, x0, _ in self._ahead(self._step(number, state, kept)):
                    following.put(rows, x.cpu().numpy())
                    if depth > 1:
                        kept[number].put(rows, x0.cpu().numpy())
                if state:
                    state.close()
                if number - depth + 1 in kept:  # the next step looks back on later ones alone
                    kept.pop(number - depth + 1).close()
                state = following
            for rows, x, _, source in self._ahead(self._step(len(steps), state, kept)):
                yield rows, self.model.codec.decode(x), source

    def _step(
        self, number: int, state: Shelf | None, kept: Mapping[int, Shelf]
    ) -> Iterator[tuple[slice, Tensor, Tensor, Tensor]]:
        """Rows: which, the state after the step of this number, the x0 that it found, and the
        source; state: before it, None at the start."""
        going, strips = _Pass(self, number, state, kept), self._strips
        coming = self._ahead(map(going.entered, strips))
        total = len(self.course.steps) * len(strips)
        for done in range(1, len(strips) + 1):
            yield from going(next(coming))
            self.on_step((number - 1) * len(strips) + done, total)

    def _ahead(self, items: Iterable[Item]) -> Iterator[Item]:
        """`ahead`; but one item after another where rows are so few that memory must be short."""
        return ahead(items) if self.most > self.model.multiple_of else iter(items)

    def encoded(self, source: Tensor) -> Tensor:
        """y, as a new tensor; the codec of such a model has no context, no noise, y as its hint."""
        return self.model.codec.encode(source, source.new_zeros(1).expand_as(source))[0]

    def across(self, rows: slice) -> Window:
        """These rows of the picture."""
        return rows, slice(0, self.size[1])

    @property
    def depth(self) -> int:
        """Predictions that are looked back on."""
        return max(len(step.x0) for step in self.course.steps)

    @property
    def _shape(self) -> tuple[int, ...]:
        return 1, self.model.channels, *self.size

    @property
    def _strips(self) -> Sequence[slice]:
        return strips(self.size[0], self.most)


class _Pass:
    """One step of a walk, over all rows."""

    def __init__(
        self, walk: WalkByRows, number: int, state: Shelf | None, kept: Mapping[int, Shelf]
    ) -> None:
        """As `WalkByRows._step`."""
        self._walk, self._number, self._state = walk, number, state
        self._step = walk.course.steps[number - 1]
        self._weights = weights_of(walk.course.steps, number, walk.depth)
        first = max(1, number - walk.depth + 1)
        self._earlier = {place_of(n, walk.depth): kept[n] for n in range(first, number)}
        assert isinstance(walk.model.denoiser, DenoiserByRows)
        moment = walk.course.path.moment(self._step.s)
        self._network = walk.model.denoiser.by_rows(walk.size[0], moment)
        self._read = walk.source.begun()
        self._waiting = Waiting()  # the source, until the network has seen what is below
        self._top = 0

    def __call__(
        self, entered: tuple[Tensor, Tensor]
    ) -> Iterator[tuple[slice, Tensor, Tensor, Tensor]]:
        """Of the rows that are done when these have `entered`: as `WalkByRows._step`."""
        x, source = entered
        outputs = self._network(x, self._walk.encoded(self._waiting.put(source)))
        del entered, x, source
        while True:
            with self._walk.timer("network"):
                output = next(outputs, None)
            if output is None:
                return
            ready = slice(self._top, self._top + output.shape[-2])
            self._top = ready.stop
            yield ready, *self._moved(self._walk.across(ready), output)

    def entered(self, rows: slice) -> tuple[Tensor, Tensor]:
        """x and the source of rows, (1, 3, h, W)."""
        place = self._walk.across(rows)
        with self._walk.timer("preprocess"):
            source = self._read(place)
        return self._before(place, source), source

    def _before(self, place: Window, source: Tensor) -> Tensor:
        """x before the step. It is made twice: kept for so long it would take as much memory as the
        source does, for a hundredth of the time."""
        if self._state is not None:
            return _read(self._state, place[0]).to(source.device)
        share, noise = self._walk.course.start
        return self._walk.encoded(source).mul_(share).add_(self._walk.noise(0, place), alpha=noise)

    def _moved(self, place: Window, output: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The next state, x0 and the source of rows, by what the network makes of them."""
        walk, step = self._walk, self._step
        source = self._waiting.take(output.shape[-2])
        x, y = self._before(place, source), walk.encoded(source)
        x0 = self._network.x0(x, y, output)
        if not (step.x or step.y or step.noise) and step.x0 == (1.0,):
            return x0, x0, source
        terms = {k: _read(shelf, place[0]) for k, shelf in self._earlier.items()}
        terms |= {0: y, place_of(self._number, walk.depth): x0}
        stacked = torch.stack([terms[k].to(x.device) for k in sorted(terms)])
        weights = torch.tensor(self._weights[: len(terms)], device=x.device)
        x.flatten().addmv_(stacked.flatten(1).T, weights, beta=step.x)
        if step.noise:
            x.add_(walk.noise(self._number, place), alpha=step.noise)
        return x, x0, source


def _read(shelf: Shelf, rows: slice) -> Tensor:
    """(1, C, h, W) on the CPU."""
    return torch.from_numpy(shelf.rows(rows))
