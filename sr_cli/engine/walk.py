"""A solver's walk over states of any size: tiles inside each step, one state between the steps.

Because all tiles of a step read the same state, an exact tile needs the context of one network call
only, not of all steps, and blended tiles agree again after each step.
"""

import tempfile
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from sr_cli.diffusion.path import Path
from sr_cli.diffusion.solvers import Step, start
from sr_cli.engine.device import free_memory
from sr_cli.engine.tiler import MEMORY_SHARE, OnTile, Tiler
from sr_cli.engine.tiling import Window, tiles
from sr_cli.engine.timing import Timer
from sr_cli.errors import DeviceError, ModelError
from sr_cli.models.protocol import Denoiser
from sr_cli.models.store import home, require_space, writing

PATCH = 1024
"""Cells: side of the parts in which a state is updated, so that little memory is needed beside."""

Noise = Callable[[int, Window], Tensor]
"""z of a step (0: the start, ENCODING: the codec) in a window: (1, C, h, w) float32 on the CPU."""
ENCODING = -1


class Walk:
    """A denoiser's walk along `steps` of `path`, all pictures at a time.

    tiler: of the pictures' states.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        path: Path,
        steps: Sequence[Step],
        *,
        tiler: Tiler,
        timer: Timer,
    ) -> None:
        self.denoiser, self.path, self.steps = denoiser, path, steps
        self.tiler, self.timer = tiler, timer
        self.depth = max((len(step.x0) for step in steps), default=0)  # predictions looked back on

    def __call__(
        self, sources: Sequence[tuple[Tensor, Tensor]], noises: Sequence[Noise], on_step: OnTile
    ) -> list[Tensor]:
        """x of each picture after the last step; y where there is no step.

        sources: y and hint of each picture, which are (1, C, H, W) float32, model space, as is x.
        on_step(picture, done, total) counts network calls for its tiles. Raises DeviceError when
        memory does not suffice, nor the disk where states larger than memory live.
        """
        if not self.steps:
            return [y for y, _ in sources]
        device, new = self._buffers([y for y, _ in sources])
        states = [
            _State(y, hint, z, device, new) for (y, hint), z in zip(sources, noises, strict=True)
        ]
        alpha, sigma = start(self.path, self.steps[0].s)
        for state in states:
            state.start(alpha, sigma)
        for number, step in enumerate(self.steps, 1):
            self._predict(states, number, on_step)
            for state in states:
                state.advance(number, step)
        return [state.x for state in states]

    def _predict(self, states: Sequence["_State"], number: int, on_step: OnTile) -> None:
        """Put the prediction of x0 at this step before each state's history."""
        path, s = self.path, self.steps[number - 1].s
        alpha, sigma, a, m = (float(v[s]) for v in (path.alpha, path.sigma, path.a, path.m))

        def predict(x: Tensor, y: Tensor, hint: Tensor) -> Tensor:
            with self.timer("network"):
                return self.denoiser.predict_x0(
                    x, y=y, hint=hint, alpha=alpha, sigma=sigma, a=a, m=m, t=s
                )

        def on_tile(picture: int, done: int, total: int) -> None:
            on_step(picture, (number - 1) * total + done, len(self.steps) * total)

        predictions = [state.next_prediction(self.depth) for state in states]
        self.tiler.fill(predict, lambda i, w: states[i].read(w), predictions, on_tile=on_tile)
        for state, x0 in zip(states, predictions, strict=True):
            state.history.insert(0, x0)

    def _buffers(
        self, sources: Sequence[Tensor]
    ) -> tuple[torch.device, Callable[[Tensor], Tensor]]:
        """Where states live, the device, memory or files, and what allocates one like y there."""
        own, cpu = self.tiler.device, torch.device("cpu")
        nbytes = sum(y.nbytes for y in sources)
        size = 2 * (2 + self.depth) * nbytes  # x, y and predictions; as much again to work with
        if size < MEMORY_SHARE * free_memory(own):
            return own, torch.empty_like
        if size <= MEMORY_SHARE * free_memory(cpu):
            return cpu, torch.empty_like
        _require_disk((1 + self.depth) * nbytes)
        return cpu, _in_file


def _require_disk(nbytes: int) -> None:
    """Raise DeviceError unless files of that size have room: a full disk ends the process."""
    try:
        with writing(home()):
            require_space(home(), nbytes)
    except ModelError as error:
        raise DeviceError(f"Memory is too small for this picture. {error}") from error


def _in_file(y: Tensor) -> Tensor:
    """A buffer like y, in a file without a name that is gone with it; /tmp may be memory too."""
    with tempfile.TemporaryFile(dir=home()) as file:
        return torch.from_numpy(np.memmap(file, np.float32, "w+", shape=tuple(y.shape)))


class _State:
    """One picture on its way: x, the source y, the hint, noise, and predictions, newest first."""

    def __init__(
        self,
        y: Tensor,
        hint: Tensor,
        noise: Noise,
        device: torch.device,
        new: Callable[[Tensor], Tensor],
    ) -> None:
        self.y = y.to(device)
        self.hint = self.y if hint is y else hint.to(device)
        self.noise = noise
        self.new = new
        self.x = new(self.y)
        self.history: list[Tensor] = []

    def read(self, window: Window) -> tuple[Tensor, Tensor, Tensor]:
        """x, y and hint there."""
        place = (..., *window)
        return self.x[place], self.y[place], self.hint[place]

    def next_prediction(self, depth: int) -> Tensor:
        """A buffer: the one that no step looks back on any more, or a new one."""
        return self.history.pop() if len(self.history) == depth else self.new(self.y)

    def start(self, alpha: float, sigma: float) -> None:
        """x = α y + σ z."""
        for window in self._patches():
            place = (..., *window)
            self.x[place] = alpha * self.y[place] + sigma * self._noise(0, window)

    def advance(self, number: int, step: Step) -> None:
        """x after the step of this number (from 1)."""
        for window in self._patches():
            place = (..., *window)
            history = [x0[place] for x0 in self.history]
            z = self._noise(number, window) if step.noise else None
            self.x[place] = step.apply(self.x[place], self.y[place], history, z)

    def _noise(self, number: int, window: Window) -> Tensor:
        return self.noise(number, window).to(self.x.device)

    def _patches(self) -> Iterator[Window]:
        height, width = self.y.shape[-2:]
        return (tile.core for tile in tiles(height, width, core=PATCH, margin=0, multiple=1))
