"""From what the networks gave to what is shown: colours, the guard, and whether it is a picture."""

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from sr_cli.engine.arrays import Form, finite, levels
from sr_cli.engine.color import COLOR_TILE, WAVELET_MARGIN, color_fix
from sr_cli.engine.guard import guarded, shrunk
from sr_cli.engine.options import Color
from sr_cli.engine.tiling import Tiler
from sr_cli.engine.timing import Timer
from sr_cli.errors import DeviceError

WORTH_A_NOTE = 0.01
"""Share of a picture on which the guard doubted the network."""


def finished(
    image: Tensor,
    smaller: Tensor,
    source: Tensor,
    lr: Tensor,
    *,
    color: Color,
    exact: bool,
    form: Form,
    device: torch.device,
    timer: Timer,
    on_note: Callable[[str], None],
) -> Tensor:
    """The result in that form, (C, H, W).

    image: what the networks gave; source: the plain enlargement, both (1, 3, H, W); smaller: what
    the guard's `shrunk` makes of the image; lr: (3, h, w), float32 or uint8. exact: the wavelet fix
    is the released code's at every pixel; else its low frequencies are those of the guard's cells,
    which costs next to nothing. device: computes. Raises DeviceError where the image holds what is
    no number.
    """
    if not finite(smaller):
        raise DeviceError(
            f"The networks gave no picture, even with --dtype float32 on {device}: "
            "their weights may be damaged; try another --t1 or --steps."
        )
    by_cells = color == "wavelet" and not exact
    if color != "none" and not by_cells:
        with timer("colour"):
            image = _recoloured(image, source, color, device)
            smaller = shrunk(image, lr[None])
    with timer("guard"):
        result, strayed = guarded(
            image,
            source,
            levels(lr.to(source.device))[None],
            device,
            smaller=smaller,
            recolour=by_cells,
            form=form,
        )
    if strayed >= WORTH_A_NOTE:
        on_note(
            f"the network strayed on {strayed:.0%} of the picture: "
            "the plain enlargement is shown there"
        )
    return result[0]


def _recoloured(image: Tensor, source: Tensor, color: Color, device: torch.device) -> Tensor:
    """By the colour fix, in tiles where it is one of tiles (AdaIN is not); float32.

    May be `image` itself.
    """
    fix = partial(color_fix, color)
    if color != "wavelet":
        return fix(image, source)
    fixed = torch.empty_like(image)
    tiler = Tiler(device, 1, [COLOR_TILE], WAVELET_MARGIN)
    tiler.fill(fix, lambda _, w: (image[(..., *w)], source[(..., *w)]), [fixed])
    return fixed


def overflowed(smaller: Tensor, source: Tensor) -> bool:
    """Whether an image, made smaller, is no image, or black although its source is not."""
    largest = float(smaller.max()) if finite(smaller) else math.nan
    return math.isnan(largest) or (largest <= 0 and bool(source.max() > 0))
