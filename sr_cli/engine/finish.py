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
from sr_cli.engine.options import Color
from sr_cli.engine.tiling import Tiler, cached
from sr_cli.engine.timing import Timer
from sr_cli.errors import DeviceError

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
        if not by_cells:
            with self.timer("colour"):
                image = self._recoloured(image, source)
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

    def _recoloured(self, image: Tensor, source: Tensor) -> Tensor:
        """By the colour fix, in tiles where it is one of tiles (AdaIN is not); float32.

        May be `image` itself.
        """
        fix = partial(color_fix, self.color)
        if self.color != "wavelet":
            return fix(image, source)
        fixed = torch.empty_like(image)
        tiler = Tiler(self.device, 1, [cached(COLOR_TILE, self.device)], WAVELET_MARGIN)
        tiler.fill(fix, lambda _, w: (image[(..., *w)], source[(..., *w)]), [fixed])
        return fixed


def check_numbers(image: Tensor, device: torch.device) -> None:
    """Raise DeviceError where an image that float32 gave on a device holds what is no number."""
    if not finite(image):
        raise DeviceError(
            f"The networks gave no picture, even with --dtype float32 on {device}: "
            "their weights may be damaged; try another --t1 or --steps."
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
