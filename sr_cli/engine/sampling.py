"""A solver's walk over states of any size: tiles inside each step, one state between the steps.

Because all tiles of a step read the same state, an exact tile needs the context of one network call
only, not of all steps, and blended tiles agree again after each step.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from sr_cli.device import free_memory
from sr_cli.engine.scratch import require_disk, scratch
from sr_cli.engine.states import ENCODING, Buffer, Noise, States
from sr_cli.engine.steps import Course
from sr_cli.engine.tiling import MEMORY_SHARE, OnTile, Tiler, Window, scaled
from sr_cli.engine.timing import Timer
from sr_cli.models.model import Model
from sr_cli.models.protocol import Denoiser


class Walk:
    """A denoiser's walk along a course, all pictures at a time.

    tiler: of the pictures' states.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        course: Course,
        *,
        tiler: Tiler,
        timer: Timer,
    ) -> None:
        self.denoiser, self.course, self.steps = denoiser, course, course.steps
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
        for group in groups:
            group.start(*self.course.start)
        for number in range(1, len(self.steps) + 1):
            self._predict(found, number, on_step)
            for group in groups:
                group.advance(number)
        return [group.x[k : k + 1] for _, (group, k) in sorted(found.items())]

    def _predict(
        self, found: Mapping[int, tuple[States, int]], number: int, on_step: OnTile
    ) -> None:
        """Predict x0 of every picture, which is the k-th of its group, at this step."""
        moment = self.course.path.moment(self.steps[number - 1].s)

        def predict(x: Tensor, y: Tensor, hint: Tensor) -> Tensor:
            with self.timer("network"):
                return self.denoiser.predict_x0(x, y=y, hint=hint, **moment)

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
        require_disk(needed)
        return _in_file


def _in_file(shape: tuple[int, ...]) -> Tensor:
    """A buffer in a file that is gone with it."""
    with scratch(4 * math.prod(shape)) as file:
        return torch.from_numpy(np.memmap(file, np.float32, "r+", shape=shape))


@dataclass(frozen=True)
class TiledCodec:
    """A model's codec, for images of any size."""

    model: Model
    tiler: Tiler
    timer: Timer

    def encode(
        self, images: Sequence[Tensor], noises: Sequence[Noise]
    ) -> list[tuple[Tensor, Tensor]]:
        """y and hint of each image, (1, 3, H, W) with sides that the model takes, beside it."""
        codec, cell, channels = self.model.codec, self.model.cell, self.model.channels
        if self.model.tiling == "exact":  # the codec of such a model has no context and no noise
            with self.timer("encode"):
                return [
                    codec.encode(image, image.new_zeros(1).expand_as(image)) for image in images
                ]

        def encode(image: Tensor, noise: Tensor) -> Tensor:
            with self.timer("encode"):
                return torch.cat(codec.encode(image, noise), dim=1)

        def read(picture: int, window: Window) -> tuple[Tensor, Tensor]:
            place = (..., *scaled(window, cell))
            return images[picture][place], noises[picture](ENCODING, window)

        states = [_blank(image, 2 * channels, 1 / cell) for image in images]
        self.tiler.fill(encode, read, states)
        return [(state[:, :channels], state[:, channels:]) for state in states]

    def decode(self, states: Sequence[Tensor]) -> list[Tensor]:
        """The image of each state, (1, 3, H, W) float32, beside it."""
        codec, cell = self.model.codec, self.model.cell

        def decode(state: Tensor) -> Tensor:
            with self.timer("decode"):
                return codec.decode(state)

        if self.model.tiling == "exact":
            return [decode(state) for state in states]
        images = [_blank(state, 3, cell) for state in states]
        self.tiler.fill(decode, lambda i, w: (states[i][(..., *w)],), images, scale=cell)
        return images


def _blank(image: Tensor, channels: int, cell: float) -> Tensor:
    height, width = (round(side * cell) for side in image.shape[-2:])
    return torch.empty(1, channels, height, width, device=image.device)
