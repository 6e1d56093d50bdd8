"""From what the networks gave to what is shown: colours, the guard, and whether it is a picture."""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from sr_cli.engine.arrays import Form, finite, levels
from sr_cli.engine.color import COLOR_TILE, WAVELET_MARGIN, color_fix
from sr_cli.engine.guard import guarded, shrunk
from sr_cli.engine.options import Color, UpscaleOptions
from sr_cli.engine.small import SmallTiler
from sr_cli.engine.tiling import OnNote, of_group, together
from sr_cli.engine.timing import Timer
from sr_cli.engine.weave import weave, weaves
from sr_cli.errors import DeviceError
from sr_cli.models.model import Model
from sr_cli.models.resampling import resize

WORTH_A_NOTE = 0.01
"""Share of a picture on which the guard doubted the network."""


@dataclass(frozen=True)
class Finish:
    """What the networks gave → the result.

    exact: the wavelet fix is the released code's at every pixel; else its low frequencies are those
    of the guard's cells, which costs next to nothing. device: computes. cell: output pixels along
    the side of one whose `weave` is taken out; 0: none is.
    """

    color: Color
    exact: bool
    device: torch.device
    timer: Timer
    cell: int = 0

    def __call__(
        self,
        image: Tensor,
        smaller: Tensor,
        source: Tensor,
        lr: Tensor,
        *,
        form: Form,
        on_note: OnNote,
    ) -> Tensor:
        """The results of N pictures of one size in that form, (N, C, H, W).

        image: what the networks gave, of which nothing else is made, since the weave is taken out
        of it in its place; source: the plain enlargement, both (N, 3, H, W); smaller: what the
        guard's `shrunk` makes of the image; lr: (N, 3, h, w), float32 or uint8. on_note is told
        which of the N. Raises DeviceError where the image holds what is no number.
        """
        check_numbers(smaller, self.device)
        lr = levels(lr.to(source.device))
        woven = None
        if weaves(self.cell, image.shape[-2:], lr.shape[-2:]):
            with self.timer("guard"):
                woven = weave(image, source, self.cell, self.device)
                smaller = smaller - shrunk(woven, lr)
        by_cells = self.color == "wavelet" and not self.exact
        if not by_cells and self.color != "none":
            with self.timer("colour"):
                image = image if woven is None else image.sub_(woven)
                image, woven = recoloured(image, source, self.color, self.device), None
                smaller = shrunk(image, lr)
        with self.timer("guard"):
            result, strayed = guarded(
                image,
                source,
                lr,
                self.device,
                smaller=smaller,
                woven=woven,
                recolour=by_cells,
                form=form,
            )
        for i, share in enumerate(strayed.tolist()):
            for note in strayed_notes(share):
                on_note(i, note)
        return result


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
        on_note: OnNote,
    ) -> Tensor:
        """As `Finish`; but `source` is the image itself, whose colours are those of `lr` enlarged
        by bicubic interpolation."""
        check_numbers(smaller, self.device, "fetch them again")
        with self.timer("colour"):
            if self.color != "none":
                height, width = image.shape[-2:]
                plain = resize(levels(lr.to(image.device)), (height, width))
                image = recoloured(image, plain, self.color, self.device)
        return form(image.clamp(0, 1))


def finish_of(
    options: UpscaleOptions, model: Model, device: torch.device, timer: Timer
) -> Finish | Unguarded:
    """What is done after these options' walk with that model."""
    if options.alone:
        return Unguarded(options.color_fix, device, timer)
    return Finish(options.color_fix, model.tiling == "blend", device, timer, model.weave)


def recoloured(image: Tensor, source: Tensor, color: Color, device: torch.device) -> Tensor:
    """By the colour fix, in tiles where it is one of tiles (AdaIN is not); float32.

    May be `image` itself.
    """
    fix = partial(color_fix, color)
    if color != "wavelet":
        return fix(image, source)
    fixed = torch.empty_like(image)
    SmallTiler.of(COLOR_TILE, WAVELET_MARGIN, device).fill(
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
    """Whether of some images, (N, 3, h, w), made smaller, one is no image, or black although its
    source is not."""
    if not finite(smaller):
        return True
    black = smaller.amax(dim=(1, 2, 3)) <= 0
    return bool(black.any()) and bool((black & (source.amax(dim=(1, 2, 3)) > 0)).any())


def at_once(device: torch.device) -> int:
    """Output pixels of pictures of one size that are finished as one: on a GPU launches cost more
    than the work of a small picture, on a CPU what stays in its cache is fastest."""
    return 0 if device.type == "cpu" else 2**24


def finished(
    finish: Finish | Unguarded,
    images: Sequence[Tensor],
    lrs: Sequence[Tensor],
    sources: Sequence[Tensor],
    *,
    forms: Sequence[Form],
    on_note: OnNote,
    repeated: Callable[[int], Tensor] | None,
) -> list[Tensor]:
    """The result of each picture in its form, (C, H, W).

    images: what the networks gave, (1, 3, H, W) or larger; lrs: (3, h, w), float32 or uint8;
    sources: the plain enlargements, (1, 3, H, W). repeated: makes the i-th result again where
    `overflowed`; None: there is no better. Raises DeviceError as `finish`.
    """
    left = dict(enumerate(images))
    del images
    results = dict[int, Tensor]()
    groups = deque(_of_one_size(lrs, sources, forms, at_once(finish.device)))
    while groups:
        group = groups.popleft()
        height, width = sources[group[0]].shape[-2:]
        image = together([left[i][..., :height, :width] for i in group])
        source, lr = together([sources[i] for i in group]), together([lrs[i][None] for i in group])
        smaller = shrunk(image, lr)
        if repeated and overflowed(smaller, source):
            if len(group) == 1:
                results[group[0]] = repeated(group[0])
            else:
                groups.extendleft([i] for i in group)
            continue
        for i in group:
            del left[i]
        own = partial(of_group, on_note, group)
        made = finish(image, smaller, source, lr, form=forms[group[0]], on_note=own)
        results |= zip(group, made, strict=True)
    return [results[i] for i in range(len(lrs))]


def _of_one_size(
    lrs: Sequence[Tensor], sources: Sequence[Tensor], forms: Sequence[Form], most: int
) -> list[list[int]]:
    """Which pictures differ in nothing but their levels, of at most so many pixels together."""
    groups: dict[Any, list[int]] = {}
    for i, (lr, source, form) in enumerate(zip(lrs, sources, forms, strict=True)):
        groups.setdefault((lr.shape, lr.dtype, source.shape, form), []).append(i)
    parts = []
    for group in groups.values():
        count = max(1, most // sources[group[0]][0, 0].numel())
        parts += [group[k : k + count] for k in range(0, len(group), count)]
    return parts
