"""Images to states and back, in the same tiles as the walk between them."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sr_cli.engine.states import ENCODING, Noise
from sr_cli.engine.tiler import Tiler
from sr_cli.engine.tiling import Window, scaled
from sr_cli.engine.timing import Timer
from sr_cli.models.model import Model


@dataclass(frozen=True)
class Coder:
    """A model's codec, for images of any size."""

    model: Model
    tiler: Tiler
    timer: Timer

    def encode(
        self, images: Sequence[Tensor], noises: Sequence[Noise]
    ) -> list[tuple[Tensor, Tensor]]:
        """y and hint of each image, (1, 3, H, W) with sides that the model takes, beside it."""
        codec, factor, channels = self.model.codec, self.model.factor, self.model.channels
        if self.model.tiling == "exact":  # the codec of such a model has no context and no noise
            with self.timer("encode"):
                return [
                    codec.encode(image, image.new_zeros(1).expand_as(image)) for image in images
                ]

        def encode(image: Tensor, noise: Tensor) -> Tensor:
            with self.timer("encode"):
                return torch.cat(codec.encode(image, noise), dim=1)

        def read(picture: int, window: Window) -> tuple[Tensor, Tensor]:
            place = (..., *scaled(window, factor))
            return images[picture][place], noises[picture](ENCODING, window)

        states = [_blank(image, 2 * channels, 1 / factor) for image in images]
        self.tiler.fill(encode, read, states)
        return [(state[:, :channels], state[:, channels:]) for state in states]

    def decode(self, states: Sequence[Tensor]) -> list[Tensor]:
        """The image of each state, (1, 3, H, W) float32, beside it."""
        codec, factor = self.model.codec, self.model.factor

        def decode(state: Tensor) -> Tensor:
            with self.timer("decode"):
                return codec.decode(state)

        if self.model.tiling == "exact":
            return [decode(state) for state in states]
        images = [_blank(state, 3, factor) for state in states]
        self.tiler.fill(decode, lambda i, w: (states[i][(..., *w)],), images, scale=factor)
        return images


def _blank(image: Tensor, channels: int, factor: float) -> Tensor:
    height, width = (round(side * factor) for side in image.shape[-2:])
    return torch.empty(1, channels, height, width, device=image.device)
