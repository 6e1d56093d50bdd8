"""DoSSR's networks out of diffusers' and kornia's modules, first without memory, then with weights.

Their dimensions are the `architecture` of a card, JSON-able:

- `unet`: arguments of diffusers' UNet2DConditionModel; the ControlNet's follow from them
- `vae`: arguments of diffusers' AutoencoderKL, for the condition encoder too
- `rrdbnet`: arguments of kornia's RRDBNet, absent where a model brings no preprocessor
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from diffusers import AutoencoderKL, ControlNetModel, UNet2DConditionModel
from torch import Tensor, nn

from sr_cli.device import layout
from sr_cli.errors import ModelError
from sr_cli.models.dossr.fusing import fuse

Architecture = Mapping[str, Any]
"""See the module's text."""


def _unet(architecture: Architecture) -> Any:
    return UNet2DConditionModel(**architecture["unet"])  # type: ignore[no-untyped-call]


def _control(architecture: Architecture) -> Any:
    """The UNet's encoder behind a first convolution that takes the state and the hint.

    The released network has no encoder of hints, so nothing is added behind that convolution: the
    module that diffusers has there only hands its input on, which is 0.
    """
    own = {"in_channels", "out_channels", "up_block_types"}
    shared = {key: value for key, value in architecture["unet"].items() if key not in own}
    channels = 2 * architecture["unet"]["in_channels"]
    net: Any = ControlNetModel(in_channels=channels, **shared)  # type: ignore[no-untyped-call]
    net.controlnet_cond_embedding = nn.Identity()
    net._repeated_blocks = UNet2DConditionModel._repeated_blocks  # diffusers names none of it
    return net


def _vae(architecture: Architecture) -> Any:
    return AutoencoderKL(**architecture["vae"])  # type: ignore[no-untyped-call]


def _condition(architecture: Architecture) -> Any:
    """An autoencoder that can only encode."""
    net = _vae(architecture)
    del net.decoder, net.post_quant_conv
    return net


def _rrdbnet(architecture: Architecture) -> Any:
    try:
        from kornia.models.rrdbnet import RRDBNet
    except ImportError as error:
        raise ModelError(
            "DoSSR's own preprocessor needs kornia 0.9: run pip install 'srx[import]'."
        ) from error
    return RRDBNet(3, 3, scale=4, **architecture["rrdbnet"])


PARTS: dict[str, Callable[[Architecture], Any]] = {
    "unet": _unet,
    "control": _control,
    "vae": _vae,
    "condition": _condition,
    "rrdbnet": _rrdbnet,
}


def skeleton(part: str, architecture: Architecture) -> nn.Module:
    """One of PARTS with parameters that have shapes and no memory.

    Raises KeyError, TypeError or ValueError for an architecture that makes no sense.
    """
    with torch.device("meta"):
        net: nn.Module = PARTS[part](architecture)
    return net.eval().requires_grad_(False)


def network(
    part: str,
    architecture: Architecture,
    weights: Mapping[str, Tensor],
    device: torch.device,
    dtype: torch.dtype,
) -> nn.Module:
    """One of PARTS with its weights, on the device, in `dtype`, for inference.

    Weights that are mapped from a file are converted one by one, so that memory holds the network
    once. It is channels-last but in float32: there PyTorch's group norm on CPUs cancels digits in
    that layout (the latents of the golden VAE are 8e-5 off instead of 1e-6).
    Raises RuntimeError when the weights do not fit the architecture.
    """
    net = skeleton(part, architecture)
    fast = torch.preserve_format if dtype == torch.float32 else layout(device)
    converted = {
        name: tensor.to(
            device, dtype, memory_format=fast if tensor.ndim == 4 else torch.preserve_format
        )
        for name, tensor in weights.items()
    }
    net.load_state_dict(converted, assign=True)
    fuse(net)
    return net.requires_grad_(False)
