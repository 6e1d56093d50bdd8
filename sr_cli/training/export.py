"""Between runs and shipped weights: float16 safetensors and a card."""

import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from sr_cli.errors import ModelError
from sr_cli.files import whole, writing
from sr_cli.models.checkpoints import narrowed
from sr_cli.models.registry import Card, card, load_weights, write_card
from sr_cli.training.data import TEXTURED
from sr_cli.training.objectives import Objective
from sr_cli.training.train import CHECKPOINT, TrainOptions, read_checkpoint


def export(
    objective: Objective,
    options: TrainOptions,
    folder: Path,
    training: Mapping[str, Any],
    name: str | None = None,
) -> Card:
    """Write the averaged weights of a run as `folder`/NAME.safetensors with NAME.json and NAME.md.

    training: what the card says of the data, beside what the run itself knows. name: of the card,
    that of the objective if None. Raises ModelError when the run has no checkpoint or a damaged
    one, float16 cannot hold its weights, or the folder cannot be written.
    """
    path = options.run / CHECKPOINT
    if not path.is_file():
        raise ModelError(f"{path} does not exist: train first.")
    state = read_checkpoint(path)
    weights = {
        key.removeprefix("module."): narrowed(key, value, torch.float16, "train at a lower --lr")
        for key, value in state["ema"].items()
        if key.startswith("module.")
    }
    name = name or objective.name
    card = Card(
        name=name,
        kind=objective.name,
        file=f"{name}.safetensors",
        architecture=objective.architecture,
        licence="not stated",  # whoever trained, and on whose photographs, decides that
        training={
            **training,
            "objective": objective.describe(),
            "iterations": state["iteration"],
            "batch": options.batch,
            "crop": options.crop,
            "learning rate": options.lr,
            "seed": options.seed,
            "graphics": options.graphics,
            **({"textures": TEXTURED} if options.textures else {}),
            "minutes": round(state["elapsed"] / 60, 1),
            "hardware": hardware(options.device),
        },
        limits=objective.limits,
        scores={},
        folder=folder,
    )
    with writing(folder):
        with whole(card.path) as partial:
            save_file(weights, partial)
        return write_card(card)


def begin_with(objective: Objective, name: str) -> None:
    """Give the objective's model the weights of a card.

    Raises ModelError when there is no such card or its network has another shape.
    """
    found = card(name)
    state = {key: value.float() for key, value in load_weights(found).items()}
    try:
        objective.model.load_state_dict(state)
    except RuntimeError as error:
        raise ModelError(
            f"The weights {found.path} have another shape than the network to train: "
            "leave --widths and --blocks out, or make it larger with --widen-from."
        ) from error


def hardware(device: str) -> str:
    """What computed, for a card."""
    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    name = torch.cpu.get_capabilities().get("cpu_name", platform.processor())
    return f"{torch.get_num_threads()} CPU threads, {name}"
