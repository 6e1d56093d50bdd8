"""Resizing is Pillow's, whatever the sides."""

import numpy as np
import torch
from hypothesis import example, given
from hypothesis.strategies import integers, sampled_from, tuples
from PIL import Image
from torch.nn.functional import interpolate

from sr_cli.models.resampling import resize

MODES = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}
SIDES = tuples(integers(1, 40), integers(1, 40))


def distance(ours: torch.Tensor, image: torch.Tensor, size: tuple[int, int], mode: str) -> float:
    """From what Pillow makes of each channel."""
    planes = [Image.fromarray(plane.numpy()).resize(size[::-1], MODES[mode]) for plane in image[0]]
    theirs = torch.from_numpy(np.stack([np.asarray(plane) for plane in planes]))
    return float((ours[0] - theirs).abs().max())


def picture(size: tuple[int, int]) -> torch.Tensor:
    return torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(0))


@given(SIDES, SIDES, sampled_from(sorted(MODES)))
@example((17, 1), (22, 1), "bicubic")
@example((364, 4), (118, 1), "bilinear")
@example((1, 17), (1, 22), "bicubic")
def test_sizes_of_all_kinds_are_resized_as_by_pillow(
    before: tuple[int, int], after: tuple[int, int], mode: str
) -> None:
    image = picture(before)
    assert distance(resize(image, after, mode), image, after, mode) < 1e-5


def test_torch_alone_mixes_up_rows_of_one_pixel() -> None:
    """If this fails torch has been mended, and `resize` needs no exception."""
    image, size = picture((17, 1)), (22, 1)
    mixed = interpolate(image, size, mode="bicubic", antialias=True)
    assert distance(mixed, image, size, "bicubic") > 0.1
