"""What a parameter of DoSSR's networks is called in the released checkpoint.

The networks have diffusers' names; the checkpoint those of LDM (UNet and autoencoder), ControlNet
and BasicSR (RRDBNet). Each rule takes diffusers' name apart and says LDM's.
"""

from collections.abc import Mapping

from sr_cli.models.dossr.networks import Architecture

PREFIXES: Mapping[str, str] = {
    "unet": "model.diffusion_model.",
    "control": "control_model.",
    "vae": "first_stage_model.",
    "condition": "cond_encoder.",
    "rrdbnet": "preprocess_model.",
}
"""Of each part, before its own names."""

_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
_UNET = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
    "controlnet_mid_block": "middle_block_out.0",
}
_VAE = {
    "conv_norm_out": "norm_out",
    "conv_shortcut": "nin_shortcut",
    "group_norm": "norm",
    "to_q": "q",
    "to_k": "k",
    "to_v": "v",
    "to_out.0": "proj_out",
}


def original(part: str, name: str, architecture: Architecture) -> str:
    """The released name of a parameter of this part, with its prefix."""
    if part in {"unet", "control"}:
        name = _unet(name, architecture["unet"])
    elif part in {"vae", "condition"}:
        name = _vae(name, len(architecture["vae"]["block_out_channels"]))
    return PREFIXES[part] + name


def _unet(name: str, config: Architecture) -> str:
    """LDM counts blocks through all levels: each has `layers_per_block` and one that resizes.

    Inside a block 0 is the residual block, 1 the transformer where there is one, and the last the
    resizing; the transformer's inner names are the same.
    """
    each = config["layers_per_block"] + 1
    path, _, end = name.rpartition(".")
    match path.split("."):
        case ["down_blocks", level, "resnets", i, layer]:
            path = f"input_blocks.{1 + int(level) * each + int(i)}.0.{_RESNET[layer]}"
        case ["down_blocks", level, "attentions", i, *rest]:
            path = ".".join([f"input_blocks.{1 + int(level) * each + int(i)}.1", *rest])
        case ["down_blocks", level, "downsamplers", *_]:
            path = f"input_blocks.{(int(level) + 1) * each}.0.op"
        case ["mid_block", "resnets", i, layer]:
            path = f"middle_block.{2 * int(i)}.{_RESNET[layer]}"
        case ["mid_block", "attentions", _, *rest]:
            path = ".".join(["middle_block.1", *rest])
        case ["up_blocks", level, "resnets", i, layer]:
            path = f"output_blocks.{int(level) * each + int(i)}.0.{_RESNET[layer]}"
        case ["up_blocks", level, "attentions", i, *rest]:
            path = ".".join([f"output_blocks.{int(level) * each + int(i)}.1", *rest])
        case ["up_blocks", level, "upsamplers", *_]:
            last = 1 + ("CrossAttn" in config["up_block_types"][int(level)])
            path = f"output_blocks.{(int(level) + 1) * each - 1}.{last}.conv"
        case ["controlnet_down_blocks", i]:
            path = f"zero_convs.{i}.0"
        case _:
            path = _UNET[path]
    return f"{path}.{end}"


def _vae(name: str, levels: int) -> str:
    """LDM counts the decoder's levels from the finest, diffusers from the coarsest."""
    path, _, end = name.rpartition(".")
    match path.split("."):
        case [side, "down_blocks", level, "resnets", i, layer]:
            path = f"{side}.down.{level}.block.{i}.{_VAE.get(layer, layer)}"
        case [side, "down_blocks", level, "downsamplers", *_]:
            path = f"{side}.down.{level}.downsample.conv"
        case [side, "up_blocks", level, "resnets", i, layer]:
            path = f"{side}.up.{levels - 1 - int(level)}.block.{i}.{_VAE.get(layer, layer)}"
        case [side, "up_blocks", level, "upsamplers", *_]:
            path = f"{side}.up.{levels - 1 - int(level)}.upsample.conv"
        case [side, "mid_block", "resnets", i, layer]:
            path = f"{side}.mid.block_{int(i) + 1}.{layer}"
        case [side, "mid_block", "attentions", _, *layers]:
            path = f"{side}.mid.attn_1.{_VAE['.'.join(layers)]}"
        case [side, layer]:
            path = f"{side}.{_VAE.get(layer, layer)}"
    return f"{path}.{end}"
