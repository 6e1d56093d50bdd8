"""The small checkpoint in the released layout, and what the released code computed with it."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sr_cli.models.checkpoints import read_state_dict
from sr_cli.models.dossr.convert import Converted, convert
from sr_cli.models.dossr.model import DossrCodec, DossrDenoiser
from sr_cli.models.dossr.networks import network

FOLDER = Path(__file__).parents[1] / "golden"
CHECKPOINT = FOLDER / "tiny_controlldm.ckpt"
CPU = torch.device("cpu")


@cache
def golden() -> dict[str, Tensor]:
    with np.load(FOLDER / "dossr_net.npz") as arrays:
        return {name: torch.from_numpy(array) for name, array in arrays.items()}


def full_shapes() -> dict[str, list[int]]:
    shapes: dict[str, list[int]] = json.loads((FOLDER / "full_state_dict_shapes.json").read_text())
    return shapes


@cache
def tiny_state() -> dict[str, Tensor]:
    return read_state_dict(CHECKPOINT)


@cache
def converted() -> Converted:
    return convert(tiny_state())


def net(part: str, dtype: torch.dtype = torch.float32) -> Any:
    return network(part, converted().architecture, converted().parts[part], CPU, dtype)


@cache
def denoiser() -> DossrDenoiser:
    return DossrDenoiser(net("unet"), net("control"), golden()["ctx"])


@cache
def codec() -> DossrCodec:
    return DossrCodec(net("vae"), net("condition"))


def difference(left: Tensor, right: Tensor) -> float:
    """The largest, relative to the largest value of `right`."""
    return float((left - right).abs().max() / right.abs().max())
