"""DoSSR's weights out of the files of others: its released checkpoint, or Stable Diffusion 2.1.

Every name is accounted for: each parameter of the networks is found with its shape, and nothing
else is in the file but what is known not to be needed.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from spandrel import canonicalize_state_dict
from torch import Tensor

from sr_cli.errors import ModelError
from sr_cli.models.checkpoints import read_state_dict
from sr_cli.models.dossr import shapes
from sr_cli.models.dossr.names import PREFIXES, original
from sr_cli.models.dossr.networks import Architecture, skeleton
from sr_cli.models.limits import Limits

State = Mapping[str, Tensor]
Shape = tuple[int, ...]

LIMITS = Limits(scale=4, tile=512, margin=128, bytes_per_pixel=5000)
"""For the card of the released weights. tile, margin: output pixels of a window, and of those that
it shares with the next; the released training's crops are 512 wide."""

TEXT = "cond_stage_model."
"""Prefix of the text tower, which `prompt` reads."""

SCHEDULE = frozenset(
    {
        "lambdas",
        "one_minus_lambdas",
        "betas",
        "alphas_cumprod",
        "alphas_cumprod_prev",
        "sqrt_alphas_cumprod",
        "sqrt_one_minus_alphas_cumprod",
        "log_one_minus_alphas_cumprod",
        "sqrt_recip_alphas_cumprod",
        "sqrt_recipm1_alphas_cumprod",
        "posterior_variance",
        "posterior_log_variance_clipped",
        "posterior_mean_coef1",
        "posterior_mean_coef2",
        "logvar",
    }
)
"""Tables that follow from the noise schedule and t1 (`lambdas` is the shifting sequence η)."""

SHOWN = 12
"""Names in a message; the rest are counted."""

OLD_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
"""The autoencoder's attention as diffusers called it when SD 2.1 was published."""


@dataclass(frozen=True)
class Converted:
    """A DoSSR model on diffusers' modules.

    architecture: JSON-able dimensions, as in `dossr_networks`. parts: tensors by diffusers' names
    for `unet`, `control`, `vae`, `condition` (absent where it is the VAE's encoder) and `rrdbnet`
    (absent where the source has none). Tensors are those of the source or views of them, no copies;
    two parts may share one.
    """

    architecture: Architecture
    parts: Mapping[str, State]


def convert(state: Mapping[str, Any], source: str = "The checkpoint") -> Converted:
    """From the released layout; `state_dict` around it and `module.` before its names may be there.

    Raises ModelError naming what is missing, unexpected or of a wrong shape in `source`.
    """
    content = canonicalize_state_dict(dict(state))
    tensors: State = {name: value for name, value in content.items() if isinstance(value, Tensor)}
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    try:
        architecture = _architecture(shapes)
        wanted = {part: _wanted(part, architecture) for part in PREFIXES}
    except (ValueError, TypeError) as error:
        raise ModelError(
            f"{source} is no DoSSR checkpoint ({error}): use dossr_default.ckpt or "
            "dossr_onestep.ckpt as released."
        ) from error
    names = {
        part: {own: original(part, own, architecture) for own in rows}
        for part, rows in wanted.items()
    }
    _account(
        {names[part][own]: shape for part, rows in wanted.items() for own, shape in rows.items()},
        {k: v for k, v in shapes.items() if not k.startswith(TEXT) and k not in SCHEDULE},
        source,
    )
    parts = {
        part: {own: tensors[names[part][own]].reshape(shape) for own, shape in rows.items()}
        for part, rows in wanted.items()
    }
    if all(torch.equal(tensor, parts["vae"][name]) for name, tensor in parts["condition"].items()):
        del parts["condition"]
    return Converted(architecture, parts)


def from_diffusers(folder: Path) -> Converted:
    """The start of a fine-tuning: a folder in diffusers' layout, such as SD 2.1-base's.

    It needs `unet/` and `vae/` with their config.json and safetensors. Without `controlnet/` the
    ControlNet begins as ControlNets do (Zhang et al. 2023, §3): the UNet's encoder, blind to the
    hint, before convolutions of zeros. Raises ModelError naming what is missing, unexpected or of a
    wrong shape.
    """
    try:
        architecture = {
            "unet": _config(folder / "unet", shapes.UNET),
            "vae": _config(folder / "vae", shapes.VAE),
        }
        wanted = {part: _wanted(part, architecture) for part in ("unet", "vae", "control")}
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise ModelError(
            f"{folder} is no Stable Diffusion that DoSSR can start from ({error}): "
            "use SD 2.1-base in diffusers' layout."
        ) from error
    unet, vae = (_read(folder / part, wanted[part]) for part in ("unet", "vae"))
    if (folder / "controlnet").is_dir():
        control = _read(folder / "controlnet", wanted["control"])
    else:
        control = _silent(unet, wanted["control"])
    return Converted(architecture, {"unet": unet, "control": control, "vae": vae})


def _architecture(found: Mapping[str, Shape]) -> dict[str, Any]:
    derive = {
        "unet": shapes.unet,
        "vae": shapes.vae,
        "rrdbnet": shapes.rrdbnet,
    }
    architecture = {}
    for part, function in derive.items():
        prefix = PREFIXES[part]
        own = {k.removeprefix(prefix): v for k, v in found.items() if k.startswith(prefix)}
        if not own:
            raise ValueError(f"it has no {prefix}*")
        architecture[part] = function(own)
    return architecture


def _wanted(part: str, architecture: Architecture) -> dict[str, Shape]:
    parameters = skeleton(part, architecture).state_dict()
    return {name: tuple(tensor.shape) for name, tensor in parameters.items()}


def _account(wanted: Mapping[str, Shape], found: Mapping[str, Shape], source: str) -> None:
    """Raise ModelError unless both have the same names and shapes."""
    misshapen = [
        f"{name} is {found[name]}, not {shape}"
        for name, shape in wanted.items()
        if name in found and not _same(found[name], shape)
    ]
    faults = {
        "missing": [name for name in wanted if name not in found],
        "unexpected": [name for name in found if name not in wanted],
        "of a wrong shape": misshapen,
    }
    if any(faults.values()):
        told = "; ".join(_told(what, names) for what, names in faults.items() if names)
        raise ModelError(
            f"{source} does not fit DoSSR's networks. {told}. Fetch it again or use another."
        )


def _same(found: Shape, wanted: Shape) -> bool:
    """A linear layer may be stored as the 1×1 convolution that it is."""
    return found == wanted or (len(wanted) == 2 and found == (*wanted, 1, 1))


def _told(what: str, names: list[str]) -> str:
    rest = f", … ({len(names) - SHOWN} more)" if len(names) > SHOWN else ""
    return f"{what[0].upper()}{what[1:]}: {', '.join(names[:SHOWN])}{rest}"


def _config(folder: Path, keys: tuple[str, ...]) -> dict[str, Any]:
    config = json.loads((folder / "config.json").read_text("utf-8"))
    return {key: config[key] for key in keys if key in config}


def _read(folder: Path, wanted: Mapping[str, Shape]) -> State:
    names = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.fp16.safetensors")
    files = [folder / name for name in names if (folder / name).is_file()]
    if not files:
        raise ModelError(f"There is no {folder / names[0]}: give a folder in diffusers' layout.")
    tensors = {_renamed(name): tensor for name, tensor in read_state_dict(files[0]).items()}
    _account(wanted, {name: tuple(t.shape) for name, t in tensors.items()}, str(files[0]))
    return {name: tensors[name].reshape(shape) for name, shape in wanted.items()}


def _renamed(name: str) -> str:
    path, _, end = name.rpartition(".")
    owner, _, layer = path.rpartition(".")
    return f"{owner}.{OLD_ATTENTION[layer]}.{end}" if layer in OLD_ATTENTION else name


def _silent(unet: State, wanted: Mapping[str, Shape]) -> State:
    """A ControlNet that says nothing yet."""
    conv_in = unet["conv_in.weight"]
    widened = torch.cat((conv_in, torch.zeros_like(conv_in)), dim=1)
    zeros = {
        name: conv_in.new_zeros(shape)
        for name, shape in wanted.items()
        if name.startswith("controlnet_")
    }
    copied = {name: unet[name] for name in wanted.keys() & unet.keys()}
    return copied | zeros | {"conv_in.weight": widened}
