"""The guard: a result that the low-resolution picture does not bear out is brought back to it.

Networks trained on photographs break down on saturated graphics, and what they say there is garbage
that spreads. Whatever the model, the guard holds three laws. R is the contrast of the LR picture:
the largest minus the least level of a pixel and its eight neighbours, channel by channel.

1. *Agreement.* The result, made smaller again by area, is within R/2 and two levels of the LR
   picture: that much is explained by a camera's blur and sharpening. Its mean distance over 7×7
   pixels is within 14 levels, and within 6 where the contrast is that of print and patterns.
2. *Range.* No pixel leaves the levels of the LR pixels around it by more than R/2 + min(R, 8), and
   none gets colour where they are neutral: the plain stays plain, and grey stays grey.
3. *Doubt.* Where the distance is about as large as the contrast no blur explains it: the network
   has strayed: there the plain enlargement is shown, for which laws 1 and 2 are to hold too.

Range holds exactly, agreement about, since a smooth correction within the range cannot always reach
it. What holds all three is left as it is. The maps that say what to do have one cell for each LR
pixel and are enlarged smoothly, so that neither blocks nor plateaus show; they and what is made of
them depend on finite surroundings, so tiles do not show either.
"""

from collections.abc import Callable, Sequence
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor

from sr_cli.engine.arrays import FLOATS, Form
from sr_cli.engine.between import Between, extended
from sr_cli.engine.color import COLOR_TILE, WAVELET_MARGIN, low_frequencies
from sr_cli.engine.small import SmallTiler
from sr_cli.engine.tiling import Window
from sr_cli.models.graphs import graphed

LEVEL: Final = 1 / 255
STRAYED: Final = (0.4, 0.9)
"""Distance / (R + 8 levels), averaged over 5×5 pixels: where doubt begins and where it is complete.
Of a photograph's pixels about one in a thousand is above 0.4."""
LIMITS: Final = (14 * LEVEL, 6 * LEVEL)
"""Mean distance over 7×7 pixels that is let pass, at the two contrasts of PATTERN."""
PATTERN: Final = (60 * LEVEL, 120 * LEVEL)
"""Mean of R over 7×7 pixels: in the roughest parts of a photograph, and in dense print."""
TERMS: Final = 3
"""Of Neumann's series in `_concentrated`."""
REACH: Final = 10
"""A cell of `limits` depends on the cells at most this far from it."""
TILE: Final = 256
"""Output pixels: what is worked on at a time stays in a processor's cache."""
CELLS: Final = 512
"""Cells: so few of them are read more than once."""
MAPS: Final = [3, 3, 3, 1, 1]
"""Channels of correction, least, largest, colour and doubt."""
CORRECTION, COLOUR, DOUBT = slice(0, 3), slice(9, 10), slice(10, 11)
"""Their places."""


def guarded(
    image: Tensor,
    y: Tensor,
    lr: Tensor,
    device: torch.device | None = None,
    *,
    smaller: Tensor | None = None,
    woven: Tensor | None = None,
    recolour: bool = False,
    form: Form = FLOATS,
) -> tuple[Tensor, Tensor]:
    """The guarded results of N pictures of one size, and the share of each, (N,), where the network
    had strayed.

    image: what the networks gave, y: the plain enlargement, both (N, 3, H, W), finite, about in
    [0, 1]; lr: (N, 3, h, w) in [0, 1]; all float32 on one device, as is what comes back. device:
    computes. smaller: `shrunk` of the image, where it is known. woven: what is taken out of the
    image first, (N, 1, H, W), and is out of `smaller`. recolour: give the image the low frequencies
    of y then, by a wavelet whose finest scale is a cell. form: of the results, (N, C, H, W).
    """
    device = device or image.device
    smaller = shrunk(image, lr) if smaller is None else smaller
    size, grid = ((x.shape[-2], x.shape[-1]) for x in (image, smaller))
    scale = size[0] / grid[0], size[1] / grid[1]
    lr, smaller_y = (reduced(x, grid) for x in (lr, y))
    maps = cell_maps(smaller, smaller_y, lr, device, scale=scale, recolour=recolour)
    used = in_use(maps)
    between = Between.of(grid, size, maps.device)

    def pixels(_: int, w: Window) -> tuple[Tensor, ...]:
        place, near = (..., *w), maps[(..., *between.cells(w))]
        shown = image[place] if woven is None else image[place] - woven[place]
        return with_limits(shown, y[place], near, between, w, used=used)

    result = form.empty(len(image), *size, image.device)
    tiler = SmallTiler.of(TILE, 0, device)
    tiler.fill(lambda *read: form(limited(*read)), pixels, [result])
    return result, (maps[:, DOUBT] > 0.5).float().mean(dim=(1, 2, 3))


def cell_maps(
    smaller: Tensor,
    smaller_y: Tensor,
    lr: Tensor,
    device: torch.device,
    *,
    scale: Sequence[float],
    recolour: bool,
) -> Tensor:
    """`limits` of all cells, (N, 11, h, w), with the colour fix in the correction.

    smaller, smaller_y: the result and the plain enlargement made as small as lr, (N, 3, h, w).
    """
    low = torch.zeros_like(lr)
    if recolour:
        difference, blur = smaller_y - smaller, graphed(low_frequencies, scale=tuple(scale))
        SmallTiler.of(COLOR_TILE, WAVELET_MARGIN, device).fill(
            blur, lambda _, w: (difference[(..., *w)],), [low]
        )
    maps = lr.new_empty(len(lr), sum(MAPS), *lr.shape[-2:])

    def cells(_: int, w: Window) -> tuple[Tensor, ...]:
        return tuple(x[(..., *w)] for x in (smaller, smaller_y, lr, low))

    decide = graphed(recoloured_limits, scale=tuple(scale))
    SmallTiler.of(CELLS, REACH, device).fill(decide, cells, [maps])
    return maps


def recoloured_limits(
    image: Tensor, y: Tensor, lr: Tensor, low: Tensor, *, scale: Sequence[float]
) -> Tensor:
    """`limits` of an image to which the colour fix adds `low`, (N, 3, h, w), with that in the
    correction as far as the image is shown."""
    maps = limits(image + low, y, lr, scale=scale)
    maps[:, CORRECTION].addcmul_(low, 1 - maps[:, DOUBT])
    return maps


def limits(image: Tensor, y: Tensor, lr: Tensor, *, scale: Sequence[float]) -> Tensor:
    """The maps of what `limited` does, (N, 11, h, w): correction, least, largest, colour, doubt.

    image, y: the result and the plain enlargement made as small as lr, (N, 3, h, w). scale: what a
    cell's sides are enlarged by, at least 1. Doubt is the share of the plain enlargement in the
    result, and colour that of the result's colour which stays, both 0 to 1; the correction is added
    to the result, and least and largest are its range, all in units of 255 levels.
    """
    least, largest = _extreme(lr, torch.minimum), _extreme(lr, torch.maximum)
    contrast = largest - least
    distance = (lr - image).abs_()
    strayed = _mean(distance.div_(contrast + 8 * LEVEL), 5).amax(dim=1, keepdim=True)
    doubt = _step(strayed, *STRAYED)
    doubt = doubt.square() * (3 - 2 * doubt)
    error = _not_let_pass(lr - image.lerp(y, doubt), contrast, 1 - doubt)
    margin = contrast / 2 + contrast.clamp(max=8 * LEVEL)
    tint = (lr - lr.mean(dim=1, keepdim=True)).abs_().amax(dim=1, keepdim=True)
    return torch.cat(
        (
            _concentrated(error, scale),
            (least - margin).clamp_(min=0),
            (largest + margin).clamp_(max=1),
            _step(_extreme(tint, torch.maximum), 0, 2 * LEVEL),
            doubt,
        ),
        dim=1,
    )


def in_use(maps: Tensor) -> tuple[bool, bool]:
    """Whether there is doubt anywhere, and whether colour goes anywhere."""
    doubt, colour = torch.stack((maps[:, DOUBT].amax(), maps[:, COLOUR].amin())).tolist()
    return doubt > 0, colour < 1


def with_limits(
    image: Tensor,
    y: Tensor,
    near: Tensor,
    between: Between,
    window: Window,
    *,
    used: tuple[bool, bool],
) -> tuple[Tensor, ...]:
    """What `limited` takes for a window of pixels, of which image and y are given.

    near: the maps of the cells that it lies between. used: what is `in_use` of all cells; these
    are looked at only where something is, and not on a GPU, which would be awaited.
    """
    doubted, tinted = in_use(near) if any(used) and not near.is_cuda else used
    if doubted:
        return image, between.enlarged(near, window), y
    return image, between.enlarged(near[:, : COLOUR.start + tinted], window)


def limited(image: Tensor, maps: Tensor, y: Tensor | None = None) -> Tensor:
    """The result, in [0, 1], from what it is, (N, 3, H, W), as `limits` enlarged to that size say.

    maps: without doubt where there is none, and then without y; and without colour where all stays.
    """
    correction, least, largest = torch.split(maps[:, : COLOUR.start], MAPS[:3], dim=1)
    result = image if y is None else image.lerp(y, maps[:, DOUBT])
    result = torch.add(result, correction).clamp_(least, largest)  # which are in [0, 1]
    if maps.shape[1] == COLOUR.start:
        return result
    return result.mean(dim=1, keepdim=True).lerp(result, maps[:, COLOUR]).clamp_(0, 1)


def _not_let_pass(error: Tensor, contrast: Tensor, trust: Tensor) -> Tensor:
    """What law 1 says of an error that is trusted so much, 0 (let nothing pass) to 1."""
    bound = trust * (contrast / 2 + 2 * LEVEL)
    passes = error.clamp(-bound, bound)
    found = _mean(passes.abs().mean(dim=1, keepdim=True), 7)
    pattern = _step(_mean(contrast.mean(dim=1, keepdim=True), 7), *PATTERN)
    limit = trust * (LIMITS[0] + (LIMITS[1] - LIMITS[0]) * pattern)
    return error - passes * (limit / found.clamp(min=LEVEL / 100)).clamp(max=1)


def _concentrated(error: Tensor, scale: Sequence[float]) -> Tensor:
    """What is about `error` when it is enlarged bilinearly and made smaller again.

    Along a side that is at least doubled, that gives an eighth of a cell to each of its neighbours.
    """
    correction = error
    for _ in range(TERMS):
        spread = correction
        for dim, factor in zip((-2, -1), scale, strict=True):
            spread = _shared(spread, dim, min(factor - 1, 1) / 8)
        correction = (correction + error).sub_(spread)
    return correction


def _shared(x: Tensor, dim: int, share: float) -> Tensor:
    """Every cell gives a share of itself to each of its two neighbours along a side."""
    wider = extended(x, 1, dim)
    before, after = (wider.narrow(dim, start, x.shape[dim]) for start in (0, 2))
    return (before + after).mul_(share).add_(x, alpha=1 - 2 * share)


def shrunk(image: Tensor, lr: Tensor) -> Tensor:
    """An image, (N, 3, H, W), by area to the cells of the guard: pixels of the LR picture,
    (N, 3, h, w), but never larger than itself. What is no number in it is none there either."""
    sides = zip(image.shape[-2:], lr.shape[-2:], strict=True)
    return reduced(image, tuple(min(pair) for pair in sides))


def reduced(image: Tensor, size: tuple[int, ...]) -> Tensor:
    """(N, C, H, W) by area to `size`; itself where it has that size."""
    (height, width), (h, w) = image.shape[-2:], size
    if (height, width) == (h, w):
        return image
    if height % h or width % w:
        return F.interpolate(image, size, mode="area")
    down, across = height // h, width // w
    rows = sum((image[..., k::down, :] for k in range(1, down)), image[..., ::down, :])
    share = image.new_full((across,), 1 / (down * across))
    return rows.reshape(*rows.shape[:-1], w, across) @ share


def _extreme(x: Tensor, of_two: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """The least or the largest of each cell and its eight neighbours."""
    for dim in (-2, -1):
        wider = extended(x, 1, dim)
        before, after = (wider.narrow(dim, start, x.shape[dim]) for start in (0, 2))
        x = of_two(of_two(before, x), after)
    return x


def _mean(x: Tensor, side: int) -> Tensor:
    """Over the cells around each, the border's repeated."""
    for dim in (-2, -1):
        wider, length = extended(x, side // 2, dim), x.shape[dim]
        x = wider.narrow(dim, 0, length) + wider.narrow(dim, 1, length)
        for start in range(2, side):
            x += wider.narrow(dim, start, length)
    return x.div_(side**2)


def _step(x: Tensor, begin: float, end: float) -> Tensor:
    """0 up to where it begins, 1 from where it ends on, linear between."""
    return ((x - begin) / (end - begin)).clamp(0, 1)
