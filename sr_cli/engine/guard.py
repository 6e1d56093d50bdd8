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

from collections.abc import Sequence
from functools import partial
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor

from sr_cli.engine.tiling import Tiler, Window

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
"""Cells, or output pixels: what is worked on at a time stays in a processor's cache."""
MAPS: Final = [1, 3, 3, 3, 1]
"""Channels of doubt, correction, least, largest and colour."""


def guarded(
    image: Tensor, y: Tensor, lr: Tensor, device: torch.device | None = None
) -> tuple[Tensor, float]:
    """The guarded result, in [0, 1], and the share of the picture where the network had strayed.

    image: the result, y: the plain enlargement, both (1, 3, H, W), finite, about in [0, 1]; lr:
    (1, 3, h, w) in [0, 1]; all float32 on the CPU, as is what comes back. device: computes.
    """
    device = device or image.device
    size = (image.shape[-2], image.shape[-1])
    grid = min(size[0], lr.shape[-2]), min(size[1], lr.shape[-1])
    lr, smaller, smaller_y = (_reduced(x, grid) for x in (lr, image, y))
    maps, result = lr.new_empty(1, sum(MAPS), *grid), torch.empty_like(image)
    decide = partial(limits, scale=(size[0] / grid[0], size[1] / grid[1]))

    def cells(_: int, w: Window) -> tuple[Tensor, ...]:
        return tuple(x[(..., *w)] for x in (smaller, smaller_y, lr))

    def pixels(_: int, w: Window) -> tuple[Tensor, ...]:
        return image[(..., *w)], y[(..., *w)], enlarged(maps, size, w)

    Tiler(device, 1, [TILE], REACH).fill(decide, cells, [maps])
    Tiler(device, 1, [TILE], 0).fill(limited, pixels, [result])
    return result, float((maps[:, 0] > 0.5).float().mean())


def limits(image: Tensor, y: Tensor, lr: Tensor, *, scale: Sequence[float]) -> Tensor:
    """The maps of what `limited` does, (N, 11, h, w): doubt, correction, least, largest, colour.

    image, y: the result and the plain enlargement made as small as lr, (N, 3, h, w). scale: what a
    cell's sides are enlarged by, at least 1. Doubt is the share of the plain enlargement in the
    result, and colour that of the result's colour which stays, both 0 to 1; the correction is added
    to the result, and least and largest are its range, all in units of 255 levels.
    """
    least, largest = -_largest(-lr), _largest(lr)
    contrast = largest - least
    distance = (lr - image).abs()
    strayed = _mean(distance / (contrast + 8 * LEVEL), 5).amax(dim=1, keepdim=True)
    doubt = _step(strayed, *STRAYED)
    doubt = doubt.square() * (3 - 2 * doubt)
    error = _not_let_pass(lr - image.lerp(y, doubt), contrast, 1 - doubt)
    margin = contrast / 2 + contrast.clamp(max=8 * LEVEL)
    tint = (lr - lr.mean(dim=1, keepdim=True)).abs().amax(dim=1, keepdim=True)
    return torch.cat(
        (
            doubt,
            _concentrated(error, scale),
            (least - margin).clamp(min=0),
            (largest + margin).clamp(max=1),
            _step(_largest(tint), 0, 2 * LEVEL),
        ),
        dim=1,
    )


def limited(image: Tensor, y: Tensor, maps: Tensor) -> Tensor:
    """The result, from what it is and y, (N, 3, H, W), as `limits` enlarged to that size say."""
    doubt, correction, least, largest, colour = torch.split(maps, MAPS, dim=1)
    result = image.lerp(y, doubt).add_(correction).clamp_(least, largest)
    grey = result.mean(dim=1, keepdim=True)
    return grey.lerp(result, colour).clamp_(0, 1)


def enlarged(maps: Tensor, size: tuple[int, int], window: Window) -> Tensor:
    """A window of maps, (1, C, h, w), enlarged to `size` bilinearly: as if cut from the whole."""
    down, right = (
        (2 * torch.arange(span.start, span.stop, dtype=torch.float64) + 1) / side - 1
        for side, span in zip(size, window, strict=True)
    )
    places = torch.stack(torch.meshgrid(right, down, indexing="xy"), dim=-1)[None].to(maps)
    return F.grid_sample(maps, places, padding_mode="border", align_corners=False)


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
        correction = correction + error - spread
    return correction


def _shared(x: Tensor, dim: int, share: float) -> Tensor:
    """Every cell gives a share of itself to each of its two neighbours along a side."""
    sides = (0, 0, 1, 1) if dim == -2 else (1, 1, 0, 0)
    wider = F.pad(x, sides, mode="replicate")
    before, after = (wider.narrow(dim, start, x.shape[dim]) for start in (0, 2))
    return (1 - 2 * share) * x + share * (before + after)


def _reduced(image: Tensor, size: tuple[int, int]) -> Tensor:
    return image if tuple(image.shape[-2:]) == size else F.interpolate(image, size, mode="area")


def _largest(x: Tensor) -> Tensor:
    """Of each cell and its eight neighbours."""
    return F.max_pool2d(x, 3, stride=1, padding=1)


def _mean(x: Tensor, side: int) -> Tensor:
    """Over the cells around each, the border's repeated."""
    by = side // 2
    return F.avg_pool2d(F.pad(x, (by, by, by, by), mode="replicate"), side, stride=1)


def _step(x: Tensor, begin: float, end: float) -> Tensor:
    """0 up to where it begins, 1 from where it ends on, linear between."""
    return ((x - begin) / (end - begin)).clamp(0, 1)
