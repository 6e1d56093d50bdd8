"""The weights between those before and after a training, which often have the better of both."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from safetensors.torch import save_file

from sr_cli.errors import UsageError
from sr_cli.models.checkpoints import narrowed
from sr_cli.models.registry import Card, load_weights, require_free, write_card
from sr_cli.models.store import Staging


def average(one: Card, other: Card, share: float, name: str) -> Card:
    """(1 − share) · one + share · other, installed as a model; its card has the limits of `one`.

    Raises UsageError unless 0 < share < 1, both are the same network, in one file each, and no
    model has the name; ModelError when weights are damaged or cannot be stored.
    """
    if not 0 < share < 1:
        raise UsageError(f"--share must be more than 0 and less than 1, not {share}.")
    if (one.kind, one.architecture) != (other.kind, other.architecture):
        raise UsageError(
            f"{one.name} and {other.name} are not the same network: average a model and what was "
            "trained from it with --init."
        )
    if one.shards or other.shards:
        raise UsageError(f"{one.name} has several files: srx averages models of one file.")
    require_free(name)
    first, second = load_weights(one), load_weights(other)
    weights = {
        key: narrowed(
            key, torch.lerp(value.float(), second[key].float(), share), value.dtype, "train anew"
        )
        for key, value in first.items()
    }
    origin = {"averaged": [one.identity, other.identity], "share": share}
    staging = Staging(name, origin)
    file = f"{name}.safetensors"
    staging.add(file, lambda path: save_file(weights, path))
    card = Card(
        name=name,
        kind=one.kind,
        file=file,
        architecture=one.architecture,
        licence=one.licence if one.licence == other.licence else "not stated",
        training=_described(one, other, share),
        limits=one.limits,
        scores={},
        folder=staging.folder,
    )
    written = write_card(card)
    return replace(written, folder=staging.install())


def _described(one: Card, other: Card, share: float) -> Mapping[str, Any]:
    said = f"{1 - share:g} of {one.name} and {share:g} of {other.name}"
    return {"averaged": said, one.name: one.training, other.name: other.training}
