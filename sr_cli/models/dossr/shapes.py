"""The architecture of a DoSSR network from the shapes of its released checkpoint.

Each dimension is what most of the tensors that have it say, so that one tensor of a wrong shape is
found to be wrong instead of making all others look so.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import count, takewhile
from typing import Any

Shapes = Mapping[str, tuple[int, ...]]
"""Shapes by the checkpoint's own names, the part's prefix taken off."""

UNET = (
    "in_channels",
    "out_channels",
    "block_out_channels",
    "layers_per_block",
    "down_block_types",
    "up_block_types",
    "attention_head_dim",
    "cross_attention_dim",
    "use_linear_projection",
)
VAE = (
    "block_out_channels",
    "layers_per_block",
    "down_block_types",
    "up_block_types",
    "latent_channels",
)
"""The arguments that `unet` and `vae` derive; in all others DoSSR has diffusers' defaults."""

HEAD_WIDTH = 64
"""Width of an attention head in Stable Diffusion 2.1; shapes do not tell it."""
SMALL_HEAD_WIDTH = 16
"""The same for networks whose channels are no multiple of it; a card may say otherwise."""


def unet(shapes: Shapes) -> dict[str, Any]:
    """Arguments of diffusers' UNet2DConditionModel. Raises ValueError when this is no such net."""
    blocks = _count(shapes, "input_blocks.{}.")
    levels = 1 + sum(_has(shapes, f"input_blocks.{i}.0.op.") for i in range(blocks))
    each = blocks // levels  # the residual blocks of a level, and what leads to it
    first = [1 + level * each for level in range(levels)]
    widths = [_vote(_lengths(shapes, f"input_blocks.{i}.0.out_layers.")) for i in first]
    attention = [_has(shapes, f"input_blocks.{i}.1.") for i in first]
    head = SMALL_HEAD_WIDTH if widths[0] % HEAD_WIDTH else HEAD_WIDTH
    channels = _vote(
        [*_lengths(shapes, "out.2."), *_lengths(shapes, "input_blocks.0.0.weight", axis=1)]
    )
    context = _lengths(shapes, "", ("attn2.to_k.weight", "attn2.to_v.weight"), axis=1)
    projections = [len(shape) for name, shape in shapes.items() if name.endswith("proj_in.weight")]
    return {
        "in_channels": channels,
        "out_channels": channels,
        "block_out_channels": widths,
        "layers_per_block": each - 1,
        "down_block_types": ["CrossAttnDownBlock2D" if a else "DownBlock2D" for a in attention],
        "up_block_types": ["CrossAttnUpBlock2D" if a else "UpBlock2D" for a in attention[::-1]],
        "attention_head_dim": [width // head for width in widths],  # diffusers' name for heads
        "cross_attention_dim": _vote(context),
        "use_linear_projection": _vote(projections) == 2,
    }


def vae(shapes: Shapes) -> dict[str, Any]:
    """Arguments of diffusers' AutoencoderKL. Raises ValueError when this is no such net."""
    levels = _count(shapes, "encoder.down.{}.")
    ends = ("conv2.weight", "conv2.bias", "norm2.weight", "norm2.bias")
    widths = [_lengths(shapes, f"encoder.down.{level}.block.", ends) for level in range(levels)]
    channels = _lengths(shapes, "decoder.conv_in.weight", axis=1)
    return {
        "block_out_channels": [_vote(width) for width in widths],
        "layers_per_block": _count(shapes, "encoder.down.0.block.{}."),
        "down_block_types": ["DownEncoderBlock2D"] * levels,
        "up_block_types": ["UpDecoderBlock2D"] * levels,
        "latent_channels": _vote([*_lengths(shapes, "post_quant_conv."), *channels]),
    }


def rrdbnet(shapes: Shapes) -> dict[str, Any]:
    """Arguments of kornia's RRDBNet. Raises ValueError when this is no such net."""
    return {
        "num_feat": _vote(_lengths(shapes, "conv_")),
        "num_block": _count(shapes, "body.{}."),
        "num_grow_ch": _vote(_lengths(shapes, "body.", ("conv1.weight", "conv1.bias"))),
    }


def _has(shapes: Shapes, prefix: str) -> bool:
    return any(name.startswith(prefix) for name in shapes)


def _count(shapes: Shapes, template: str) -> int:
    """How many of the prefixes template.format(0), template.format(1), … are there, unbroken."""
    return sum(1 for _ in takewhile(lambda i: _has(shapes, template.format(i)), count()))


def _lengths(
    shapes: Shapes, prefix: str, ends: tuple[str, ...] = ("weight", "bias"), *, axis: int = 0
) -> list[int]:
    """The lengths of `axis` in all tensors with this prefix and one of these ends."""
    return [
        shape[axis]
        for name, shape in shapes.items()
        if name.startswith(prefix) and name.endswith(ends) and len(shape) > axis
    ]


def _vote(lengths: Iterable[int]) -> int:
    """The commonest of them. Raises ValueError when there are none."""
    counted = Counter(lengths).most_common(1)
    if not counted:
        raise ValueError("a part of the network is missing")
    return counted[0][0]
