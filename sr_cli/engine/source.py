"""The source of the diffusion: the LR picture, preprocessed and at its final size."""

from collections.abc import Sequence

import torch
from torch import Tensor

from sr_cli.device import home
from sr_cli.engine.arrays import levels
from sr_cli.engine.tiling import MEMORY_SHARE, OnTile, Tiler, ignore
from sr_cli.models.protocol import Preprocessor
from sr_cli.models.resampling import resize

PREPROCESS_TILE = 512
"""LR pixels: keeps a large network's memory within a few GiB."""

BYTES_PER_PIXEL = 12 * 6
"""Of output: float32 pictures that are held at a time, preprocessed, enlarged, decoded, fixed."""


def enlargements(
    network: Preprocessor,
    lrs: Sequence[Tensor],
    sizes: Sequence[tuple[int, int]],
    *,
    device: torch.device,
    batch: int,
    core: int,
    on_tile: OnTile = ignore,
) -> list[Tensor]:
    """LR (3, h, w) → (1, 3, H, W) in [0, 1] for sizes (W, H), in tiles of `core` LR pixels.

    They are on the device if it has room for all that is made of them, else on the CPU.
    """
    nbytes = sum(BYTES_PER_PIXEL * width * height for width, height in sizes)
    place = home(device, nbytes, MEMORY_SHARE)
    lrs = [levels(lr.to(place)) for lr in lrs]
    larger_ones = preprocessed(network, lrs, device=device, batch=batch, core=core, on_tile=on_tile)
    return [
        resize(larger, (height, width)).clamp_(0, 1)
        for larger, (width, height) in zip(larger_ones, sizes, strict=True)
    ]


def preprocessed(
    network: Preprocessor,
    lrs: Sequence[Tensor],
    *,
    device: torch.device,
    batch: int = 1,
    core: int = PREPROCESS_TILE,
    on_tile: OnTile = ignore,
) -> list[Tensor]:
    """LR (3, h, w) → (1, 3, scale·h, scale·w) in [0, 1] beside it, in tiles of `core` pixels."""
    scale = network.scale
    tiler = Tiler(device, batch, [core] * len(lrs), network.margin)
    images = [lr.new_empty(1, 3, *(scale * side for side in lr.shape[-2:])) for lr in lrs]
    tiler.fill(
        network, lambda i, w: (lrs[i][(None, ..., *w)],), images, scale=scale, on_tile=on_tile
    )
    return images
