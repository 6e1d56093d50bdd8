"""Parts of pictures, and of an input and its result that belong together."""

from fractions import Fraction

from torch import Tensor

from sr_cli.evaluation.page import Box


def box(size: tuple[int, int], side: int, scale: float, at: tuple[int, int] | None = None) -> Box:
    """The part of an input of (width, height), at most `side` pixels wide and high (0: all of it),
    around `at` or its middle. Where a pixel of the input is no whole number of pixels of the
    result, its corner is one that falls onto a whole one."""
    grid = Fraction(str(scale)).limit_denominator(100).denominator
    middle = at or (size[0] // 2, size[1] // 2)
    corner, sides = [], []
    for place, length in zip(middle, size, strict=True):
        kept = min(side or length, length)
        start = max(0, min(place - kept // 2, length - kept))
        corner.append(start - start % grid)
        sides.append(kept)
    return corner[0], corner[1], sides[0], sides[1]


def corner(
    part: Box, scale: float, whole: tuple[int, int], shown: tuple[int, int]
) -> tuple[int, int]:
    """Where in the result, of (width, height), a part of the input begins that has `shown` there:
    (left, top)."""
    return (
        min(round(part[0] * scale), whole[0] - shown[0]),
        min(round(part[1] * scale), whole[1] - shown[1]),
    )


def cut(image: Tensor, corner: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """(width, height) pixels of (3, H, W) from (left, top) on."""
    (left, top), (width, height) = corner, size
    return image[:, top : top + height, left : left + width].contiguous()


def centre(image: Tensor, side: int) -> Tensor:
    """The middle of (3, H, W), at most `side` pixels high and wide."""
    top, left = (max(0, (length - side) // 2) for length in image.shape[-2:])
    return image[:, top : top + side, left : left + side].contiguous()
