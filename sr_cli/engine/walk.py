"""A solver's walk over a state of any size: tiles inside each step, one state between the steps.

Because all tiles of a step read the same state, a tile needs the context of one network call only,
not of all steps.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import count
from pathlib import Path as FilePath

import torch
from torch import Tensor

from sr_cli.diffusion.path import Path
from sr_cli.diffusion.solvers import Step, start
from sr_cli.engine.device import free_memory, is_out_of_memory
from sr_cli.engine.tiling import Tile, Window, sweep, tiles
from sr_cli.errors import DeviceError
from sr_cli.models.model import Model

SMALLEST_TILE = 64
"""Output pixels: where even this tile does not fit, memory is short for other reasons."""
MEMORY_SHARE = 0.5
"""Of the free memory: what one network call, or the state, may take."""

Noise = Callable[[int, Window], Tensor]
"""z of a step (0: the start) in a window: (1, C, h, w) float32 on the CPU."""
OnStep = Callable[[int, int], None]


class Walk:
    """One model's walk along `steps` of `path`, in tiles of `core` pixels, `batch` at a time.

    core: output pixels, 0 for the whole state, None to choose by the free memory.
    margin: context of a tile in output pixels. scratch: a folder for states larger than memory.
    """

    def __init__(
        self,
        model: Model,
        path: Path,
        steps: Sequence[Step],
        *,
        device: torch.device,
        batch: int,
        core: int | None,
        margin: int,
        scratch: FilePath,
    ) -> None:
        self.model, self.path, self.steps = model, path, steps
        self.device, self.batch, self.margin, self.scratch = device, batch, margin, scratch
        self.core = core
        self.depth = max(len(step.x0) for step in steps)  # predictions that a step looks back on

    def __call__(self, y: Tensor, noise: Noise, on_step: OnStep) -> Tensor:
        """x after the last step from the source y: both (1, C, H, W) float32, model space.

        on_step(done, total) counts network calls. Raises DeviceError when memory does not suffice.
        """
        y, new = self._buffers(y)
        if self.core is None:
            self.core = self._core_by_memory(y)
        alpha, sigma = start(self.path, self.steps[0].s)
        x = new()
        for tile in self._tiles(y):
            place = (..., *tile.core)
            x[place] = alpha * y[place] + sigma * noise(0, tile.core).to(y.device)
        history: list[Tensor] = []
        for number, step in enumerate(self.steps, 1):
            x0 = history.pop() if len(history) == self.depth else new()
            for tile, prediction, done, total in self._predicted(x, y, step):
                x0[(..., *tile.core)] = prediction
                on_step((number - 1) * total + done, len(self.steps) * total)
            history.insert(0, x0)
            for tile in self._tiles(y):
                place = (..., *tile.core)
                z = noise(number, tile.core).to(y.device) if step.noise else None
                x[place] = step.apply(x[place], y[place], [h[place] for h in history], z)
        return x

    def _predicted(
        self, x: Tensor, y: Tensor, step: Step
    ) -> Iterator[tuple[Tile, Tensor, int, int]]:
        """(tile, x0, calls done, calls in all); all again in halved tiles if memory runs out."""
        path, s = self.path, step.s
        alpha, sigma, a, m = (float(v[s]) for v in (path.alpha, path.sigma, path.a, path.m))

        def predict(x: Tensor, y: Tensor) -> Tensor:
            denoiser = self.model.denoiser
            return denoiser.predict_x0(x, y=y, alpha=alpha, sigma=sigma, a=a, m=m, t=s)

        while True:
            places = self._tiles(y)
            results = sweep(predict, (x, y), places, batch=self.batch, device=self.device)
            try:
                for done, (tile, prediction) in enumerate(results, 1):
                    yield tile, prediction, done, len(places)
                return
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                self._halve(y)

    def _halve(self, y: Tensor) -> None:
        core = (self.core or max(y.shape[-2:])) // 2
        if core < SMALLEST_TILE:
            raise DeviceError(
                f"{self.device} has too little free memory for tiles of {SMALLEST_TILE} pixels: "
                "close other programs or use another --device."
            )
        self.core = core

    def _tiles(self, y: Tensor) -> list[Tile]:
        height, width = y.shape[-2:]
        multiple = self.model.multiple_of
        return tiles(height, width, core=self.core or 0, margin=self.margin, multiple=multiple)

    def _core_by_memory(self, y: Tensor) -> int:
        budget = MEMORY_SHARE * free_memory(self.device) / self.batch
        side = int((budget / self.model.bytes_per_pixel) ** 0.5)
        height, width = y.shape[-2:]
        return 0 if height * width <= side**2 else max(SMALLEST_TILE, side - 2 * self.margin)

    def _buffers(self, y: Tensor) -> tuple[Tensor, Callable[[], Tensor]]:
        """y where the state lives, and what allocates more: the device, memory, or files."""
        size = 2 * (2 + self.depth) * y.nbytes  # x, y and predictions; as much again to work with
        if size < MEMORY_SHARE * free_memory(self.device):
            y = y.to(self.device)
        elif size > MEMORY_SHARE * free_memory(torch.device("cpu")):
            names = (str(self.scratch / f"state-{i}") for i in count())
            return y, lambda: torch.from_file(next(names), shared=True, size=y.numel()).view_as(y)
        return y, lambda: torch.empty_like(y)
