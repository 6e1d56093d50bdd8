"""A diffusion model by name: its denoiser, its codec and the limits of its card."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from sr_cli.diffusion.solvers import Final
from sr_cli.errors import ModelError
from sr_cli.models.embedded import EmbeddedConfig, EmbeddedDenoiser, EmbeddedNet, PixelCodec
from sr_cli.models.protocol import Codec, Denoiser
from sr_cli.models.registry import Card, card, load_weights


@dataclass(frozen=True)
class Model:
    """What the engine needs to know.

    schedule: name of ᾱ in `diffusion.schedules`. final: what the last solver step returns.
    multiple_of: sides of the state. margin: context that makes a tile exact, in output pixels.
    bytes_per_pixel: peak memory of one network call, for each output pixel of a float32 window.
    """

    denoiser: Denoiser
    codec: Codec
    schedule: str
    final: Final
    multiple_of: int
    margin: int
    bytes_per_pixel: int


def load_model(name: str, device: torch.device, dtype: torch.dtype) -> Model:
    """The model of a card, on the device. Raises ModelError when it is missing or damaged."""
    found = card(name)
    if found.kind != "embedded":
        raise ModelError(f"{name} is a {found.kind} network, not a diffusion model for --model.")
    limits: Mapping[str, Any] = found.limits
    try:
        return Model(
            denoiser=EmbeddedDenoiser(_network(found).to(device), dtype),
            codec=PixelCodec(),
            schedule=limits["schedule"],
            final=limits["last_step"],
            multiple_of=limits["multiple_of"],
            margin=limits["margin"],
            bytes_per_pixel=limits["bytes_per_pixel"],
        )
    except (KeyError, TypeError, RuntimeError) as error:
        raise ModelError(
            f"The weights {found.path} do not fit their card ({error}): install srx again."
        ) from error


def _network(card: Card) -> EmbeddedNet:
    net = EmbeddedNet(EmbeddedConfig.from_json(card.architecture))
    net.load_state_dict({k: v.float() for k, v in load_weights(card).items()})
    return net.eval().requires_grad_(False).to(memory_format=torch.channels_last)
