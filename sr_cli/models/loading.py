"""Models by name: the one file that knows every kind of card."""

from collections.abc import Collection
from dataclasses import replace

import torch

from sr_cli.errors import ModelError, UsageError, enough_memory
from sr_cli.models import alone, embedded, prior, registry
from sr_cli.models.kinds import is_alone
from sr_cli.models.model import Model
from sr_cli.models.registry import Card

DIFFUSION = ("embedded", "dossr")
"""Kinds of cards that --model takes."""
UPSCALING = (*DIFFUSION, "alone")
"""What --model takes: these, and regression networks that are models of their own."""


def load_model(
    name: str, device: torch.device, dtype: torch.dtype, kinds: Collection[str] = ()
) -> Model:
    """The model of a card, of one of these kinds where some are given, on the device.

    Raises:
        ModelError: it is missing, damaged, of another kind or no diffusion model.
        DeviceError: it does not fit into the device's memory, or the device failed.
    """
    if "alone" in kinds and is_alone(name):
        with enough_memory(f"the weights of {name}"):
            return alone.load(name, device, dtype)
    found = registry.card(name, kinds)
    try:
        with enough_memory(f"the weights of {name}"):
            return replace(_load(found, device, dtype), identity=found.identity)
    except (KeyError, TypeError, RuntimeError, UsageError) as error:
        raise ModelError(
            f"The weights {found.path} do not fit their card ({error}): install srx again."
        ) from error


def _load(card: Card, device: torch.device, dtype: torch.dtype) -> Model:
    match card.kind:
        case "embedded":
            return embedded.load(card, device, dtype)
        case "prior":
            return prior.load(card, device, dtype)
        case "dossr":
            from sr_cli.models.dossr import model as dossr  # brings diffusers, which takes seconds

            return dossr.load(card, device, dtype)
        case _:
            raise ModelError(f"{card.name} is a {card.kind} network, not a diffusion model.")


def load_prior(name: str, device: torch.device, dtype: torch.dtype) -> Model:
    """A prior by the name of its card, by a folder in diffusers' layout, or by its hub id.

    Raises ModelError when there is no such prior, it is damaged, or of another kind.
    """
    if name not in registry.names():
        return prior.from_diffusers(name, device, dtype)
    kind = registry.card(name).kind
    if kind != "prior":
        raise ModelError(f"{name} is of the kind {kind!r}, not an unconditional prior for --prior.")
    return load_model(name, device, dtype)
