"""A solver's walk over states of any size: tiles inside each step, one state between the steps.

Because all tiles of a step read the same state, an exact tile needs the context of one network call
only, not of all steps, and blended tiles agree again after each step.
"""

import tempfile
from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor

from sr_cli.diffusion.path import Path
from sr_cli.diffusion.solvers import Step, start
from sr_cli.engine.device import free_memory
from sr_cli.engine.states import Buffer, Noise, States
from sr_cli.engine.tiler import MEMORY_SHARE, OnTile, Tiler
from sr_cli.engine.tiling import Window
from sr_cli.engine.timing import Timer
from sr_cli.errors import DeviceError, ModelError
from sr_cli.models.protocol import Denoiser
from sr_cli.models.store import home, require_space, writing


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

    def __call__(
        self, sources: list[tuple[Tensor, Tensor]], noises: Sequence[Noise], on_step: OnTile
    ) -> list[Tensor]:
        """x of each picture after the last step; y where there is no step.

        sources: y and hint of each picture, which are (1, C, H, W) float32, model space, as is x.
        The list is emptied, so that memory holds no source twice. on_step(picture, done, total)
        counts network calls for its tiles. Raises DeviceError when memory does not suffice, nor the
        disk where states larger than memory live.
        """
        if not self.steps:
            return [y for y, _ in sources]
        buffer = self._buffer(sum(y.nbytes for y, _ in sources))
        sizes: dict[torch.Size, list[int]] = {}  # the pictures of each size
        for i, (y, _) in enumerate(sources):
            sizes.setdefault(y.shape, []).append(i)
        found: dict[int, tuple[States, int]] = {}
        groups = []
        for members in sizes.values():
            own = [sources[i] for i in members], [noises[i] for i in members]
            groups.append(States(*own, self.steps, buffer))
            found |= {i: (groups[-1], k) for k, i in enumerate(members)}
        sources.clear()
        alpha, sigma = start(self.path, self.steps[0].s)
        for group in groups:
            group.start(alpha, sigma)
        for number in range(1, len(self.steps) + 1):
            self._predict(found, number, on_step)
            for group in groups:
                group.advance(number)
        return [group.x[k : k + 1] for _, (group, k) in sorted(found.items())]

    def _predict(
        self, found: Mapping[int, tuple[States, int]], number: int, on_step: OnTile
    ) -> None:
        """Predict x0 of every picture, which is the k-th of its group, at this step."""
        path, s = self.path, self.steps[number - 1].s
        alpha, sigma, a, m = (float(v[s]) for v in (path.alpha, path.sigma, path.a, path.m))

        def predict(x: Tensor, y: Tensor, hint: Tensor) -> Tensor:
            with self.timer("network"):
                return self.denoiser.predict_x0(
                    x, y=y, hint=hint, alpha=alpha, sigma=sigma, a=a, m=m, t=s
                )

        def read(picture: int, window: Window) -> tuple[Tensor, ...]:
            group, k = found[picture]
            return group.read(k, window)

        def on_tile(picture: int, done: int, total: int) -> None:
            on_step(picture, (number - 1) * total + done, len(self.steps) * total)

        predictions = [group.predictions(number)[k] for _, (group, k) in sorted(found.items())]
        self.tiler.fill(predict, read, predictions, on_tile=on_tile)

    def _buffer(self, nbytes: int) -> Buffer:
        """What allocates where states whose sources have so many bytes live: on the device, in
        memory or in files."""
        depth = max(len(step.x0) for step in self.steps)
        needed = (2 + depth) * nbytes  # x, y and predictions; as much again to work with
        own, cpu = self.tiler.device, torch.device("cpu")
        if 2 * needed < MEMORY_SHARE * free_memory(own):
            return partial(torch.empty, device=own)
        if 2 * needed <= MEMORY_SHARE * free_memory(cpu):
            return torch.empty
        _require_disk(needed)
        return _in_file


def _require_disk(nbytes: int) -> None:
    """Raise DeviceError unless files of that size have room: a full disk ends the process."""
    try:
        with writing(home()):
            require_space(home(), nbytes)
    except ModelError as error:
        raise DeviceError(f"Memory is too small for this picture. {error}") from error


def _in_file(shape: tuple[int, ...]) -> Tensor:
    """A buffer in a file without a name that is gone with it; /tmp may be memory too."""
    with tempfile.TemporaryFile(dir=home()) as file:
        return torch.from_numpy(np.memmap(file, np.float32, "w+", shape=shape))
