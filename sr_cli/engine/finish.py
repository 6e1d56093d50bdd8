"""From what the networks gave to what is shown: colours, the guard, and whether it is a picture."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from sr_cli.engine.arrays import Form, finite, levels
from sr_cli.engine.color import COLOR_TILE, WAVELET_MARGIN, color_fix
from sr_cli.engine.guard import guarded, shrunk
from sr_cli.engine.options import Color, UpscaleOptions
from sr_cli.engine.tiling import Tiler
from sr_cli.engine.timing import Timer
from sr_cli.errors import DeviceError
from sr_cli.models.model import Model
from sr_cli.models.resampling import resize

WORTH_A_NOTE = 0.01
"""Share of a picture on which the guard doubted the network."""


@dataclass(frozen=True)
class Finish:
    """What the networks gave → the result.

    exact: the wavelet fix is the released code's at every pixel; else its low frequencies are those
    of the guard's cells, which costs next to nothing. device: computes.
    """

    color: Color
    exact: bool
    device: torch.device
    timer: Timer

    def __call__(
        self,
        image: Tensor,
        smaller: Tensor,
        source: Tensor,
        lr: Tensor,
        *,
        form: Form,
        on_note: Callable[[str], None],
    ) -> Tensor:
        """The result in that form, (C, H, W).

        image: what the networks gave; source: the plain enlargement, both (1, 3, H, W); smaller:
        what the guard's `shrunk` makes of the image; lr: (3, h, w), float32 or uint8. Raises
        DeviceError where the image holds what is no number.
        """
        check_numbers(smaller, self.device)
        lr = levels(lr.to(source.device))[None]
        by_cells = self.color == "wavelet" and not self.exact
        if not by_cells and self.color != "none":
            with self.timer("colour"):
                image = recoloured(image, source, self.color, self.device)
                smaller = shrunk(image, lr)
        with self.timer("guard"):
            result, strayed = guarded(
                image,
                source,
                lr,
                self.device,
                smaller=smaller,
                recolour=by_cells,
                form=form,
            )
        for note in strayed_notes(strayed):
            on_note(note)
        return result[0]


@dataclass(frozen=True)
class Unguarded:
    """What a network alone gave → the result: the same, but for a colour fix that was asked for.

    device: computes.
    """

    color: Color
    device: torch.device
    timer: Timer

    def __call__(
        self,
        image: Tensor,
        smaller: Tensor,
        source: Tensor,
        lr: Tensor,
        *,
        form: Form,
        on_note: Callable[[str], None],
    ) -> Tensor:
        """As `Finish`; but `source` is the image itself, whose colours are those of `lr` enlarged
        by bicubic interpolation."""
        check_numbers(smaller, self.device, "fetch them again")
        with self.timer("colour"):
            if self.color != "none":
                height, width = image.shape[-2:]
                plain = resize(levels(lr.to(image.device))[None], (height, width))
                image = recoloured(image, plain, self.color, self.device)
        return form(image.clamp(0, 1))[0]


def finish_of(
    options: UpscaleOptions, model: Model, device: torch.device, timer: Timer
) -> Finish | Unguarded:
    """What is done after these options' walk with that model."""
    if options.alone:
        return Unguarded(options.color_fix, device, timer)
    return Finish(options.color_fix, model.tiling == "blend", device, timer)


def recoloured(image: Tensor, source: Tensor, color: Color, device: torch.device) -> Tensor:
    """By the colour fix, in tiles where it is one of tiles (AdaIN is not); float32.

    May be `image` itself.
    """
    fix = partial(color_fix, color)
    if color != "wavelet":
        return fix(image, source)
    fixed = torch.empty_like(image)
    Tiler.in_cache(COLOR_TILE, WAVELET_MARGIN, device).fill(
        fix, lambda _, w: (image[(..., *w)], source[(..., *w)]), [fixed]
    )
    return fixed


def check_numbers(
    image: Tensor, device: torch.device, remedy: str = "try another --t1 or --steps"
) -> None:
    """Raise DeviceError where an image that float32 gave on a device holds what is no number."""
    if not finite(image):
        raise DeviceError(
            f"The networks gave no picture, even with --dtype float32 on {device}: "
            f"their weights may be damaged; {remedy}."
        )


def strayed_notes(share: float) -> list[str]:
    """What a user should know of the share of a picture where the guard doubted, if anything."""
    there = "the plain enlargement is shown there"
    said = f"the network strayed on {share:.0%} of the picture: {there}"
    return [said] * (share >= WORTH_A_NOTE)


def overflowed(smaller: Tensor, source: Tensor) -> bool:
    """Whether an image, made smaller, is no image, or black although its source is not."""
    largest = float(smaller.max()) if finite(smaller) else math.nan
    return math.isnan(largest) or (largest <= 0 and bool(source.max() > 0))
