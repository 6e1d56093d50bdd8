"""A regression network as a model of its own: what it makes of a picture is the answer."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sr_cli.files import digest
from sr_cli.models.model import Model
from sr_cli.models.preprocess import anime_files, load_preprocessor, realesrgan_files

BYTES_PER_PIXEL = 512
"""For each pixel of a tile's result: what the widest common networks take in float32."""


class NoCodec:
    """States that are the images themselves, to the last bit."""

    def encode(self, image: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        return image, image

    def decode(self, state: Tensor) -> Tensor:
        return state


class NoDenoiser:
    """Of a walk without a step, which calls none."""

    def predict_x0(self, x: Tensor, **_: Any) -> Tensor:
        raise AssertionError("a network alone is not walked with")


def load(name: str, device: torch.device, dtype: torch.dtype) -> Model:
    """The model of no steps whose preprocessor is the network of that name or file.

    Raises ModelError when it is missing, damaged or of a kind that srx cannot use.
    """
    network = load_preprocessor(name, device, dtype)
    return Model(
        denoiser=NoDenoiser(),
        codec=NoCodec(),
        schedule="scaled_linear",
        last_step="x0",
        multiple_of=1,
        margin=0,
        bytes_per_pixel=BYTES_PER_PIXEL,
        preprocess=network,
        t1=0,
        steps=0,
        identity=identity(name),
    )


def identity(name: str) -> str:
    """SHA-256 of the network's weights. Raises ModelError when they are not there."""
    known = {"anime": anime_files, "realesrgan": realesrgan_files}
    return digest(known[name]()[1] if name in known else Path(name))
