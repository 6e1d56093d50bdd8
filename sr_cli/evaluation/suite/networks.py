"""Networks of full size with random weights, as cards and checkpoints in a folder.

What they take does not depend on what their weights say.
"""

from collections.abc import Mapping
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from sr_cli.diffusion.path import Moment
from sr_cli.errors import ModelError
from sr_cli.files import digest
from sr_cli.models.ncnn import read_rrdbnet
from sr_cli.models.preprocess import realesrgan_files
from sr_cli.models.registry import Card, write_card
from sr_cli.models.store import Shard

MOMENT: Moment = {"alpha": 0.5, "sigma": 0.5, "a": 0.3, "m": 0.2, "t": 250}
"""Some level of noise."""

FULL: Mapping[str, Any] = {
    "unet": {
        "in_channels": 4,
        "out_channels": 4,
        "block_out_channels": [320, 640, 1280, 1280],
        "layers_per_block": 2,
        "down_block_types": [*["CrossAttnDownBlock2D"] * 3, "DownBlock2D"],
        "up_block_types": ["UpBlock2D", *["CrossAttnUpBlock2D"] * 3],
        "attention_head_dim": [5, 10, 20, 20],
        "cross_attention_dim": 1024,
        "use_linear_projection": True,
    },
    "vae": {
        "block_out_channels": [128, 256, 512, 512],
        "layers_per_block": 2,
        "down_block_types": ["DownEncoderBlock2D"] * 4,
        "up_block_types": ["UpDecoderBlock2D"] * 4,
        "latent_channels": 4,
    },
    "rrdbnet": {"num_feat": 64, "num_block": 23, "num_grow_ch": 32},
}
"""DoSSR as released, by the shapes of its checkpoint."""

SMALL: Mapping[str, Any] = {
    "unet": {
        **FULL["unet"],
        "block_out_channels": [32, 64],
        "layers_per_block": 1,
        "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
        "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
        "attention_head_dim": [2, 4],
        "cross_attention_dim": 32,
    },
    "vae": {
        **FULL["vae"],
        "block_out_channels": [32, 32, 32, 64],
        "layers_per_block": 1,
    },
}
"""The same kind of model, of a size for tests."""

TOKENS = 77
"""Of a prompt."""


def write_dossr(folder: Path, name: str, architecture: Mapping[str, Any], *, half: bool) -> None:
    """A card of a DoSSR model with random weights; `half`: stored in bfloat16.

    Its own preprocessor is left out where the package that has its architecture is missing.
    """
    from sr_cli.models.dossr.convert import LIMITS

    parts = [part for part in architecture if part != "rrdbnet" or find_spec("kornia")]
    shards = {}
    for part in ("control", *parts, "context"):
        file = folder / f"{name}-{part}.safetensors"
        tensors = _tensors(part, architecture)
        dtype = torch.bfloat16 if half else torch.float32
        save_file({k: v.to(dtype).cpu().contiguous() for k, v in tensors.items()}, file)
        shards[file.name] = Shard(digest(file), file.stat().st_size)
    card = Card(
        name=name,
        kind="dossr",
        file="",
        architecture={part: architecture[part] for part in parts},
        licence="CC0-1.0",
        training={"weights": "random"},
        limits=LIMITS,
        scores={},
        shards=shards,
        folder=folder,
    )
    write_card(card)


def _tensors(part: str, architecture: Mapping[str, Any]) -> dict[str, Tensor]:
    """Random ones by their names in the card's files."""
    if part == "context":
        return {part: torch.randn(1, TOKENS, architecture["unet"]["cross_attention_dim"])}
    from sr_cli.models.dossr.networks import PARTS

    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        net: nn.Module = PARTS[part](architecture)
    for parameter in net.parameters():
        if not parameter.any():  # a ControlNet begins silent, and biases at zero
            nn.init.normal_(parameter.data, std=0.02)
    return {f"{part}.{name}": tensor for name, tensor in net.state_dict().items()}


def rrdbnet(blocks: int = 23) -> nn.Module:
    """Real-ESRGAN x4plus, (N, 3, H, W) → (N, 3, 4·H, 4·W); with random weights where those are not
    installed, or of another number of blocks."""
    from spandrel import ModelLoader
    from spandrel.architectures.ESRGAN import ESRGAN

    net: nn.Module = ESRGAN(num_blocks=blocks, scale=4)
    with suppress(ModelError):
        files = realesrgan_files()
        if blocks == 23:
            net = ModelLoader().load_from_state_dict(read_rrdbnet(*files)).model
    return net.eval().requires_grad_(False)
