"""How large a result becomes: by a factor, in pixels, or by one of its sides."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from math import floor
from typing import Final, Literal

from sr_cli.errors import UsageError

MAX_SCALE = 32


@dataclass(frozen=True)
class Scale:
    """`factor` times as wide and as high; above 0, at most 32. Raises UsageError."""

    factor: float

    def __post_init__(self) -> None:
        if not 0 < self.factor <= MAX_SCALE:
            raise UsageError(f"scale must be above 0 and at most {MAX_SCALE}, not {self.factor:g}.")

    def of(self, width: int, height: int) -> tuple[int, int]:
        """(width, height) in pixels of the result of a picture of width x height."""
        return _times(Fraction(str(self.factor)), width, height)


@dataclass(frozen=True)
class Exact:
    """Exactly these pixels, whatever the proportions. Raises UsageError below 1x1."""

    width: int
    height: int

    def __post_init__(self) -> None:
        if self.width < 1 or self.height < 1:
            raise UsageError(f"size must be at least 1x1, not {self.width}x{self.height}.")

    def of(self, width: int, height: int) -> tuple[int, int]:
        """(width, height) in pixels of any result."""
        del width, height
        return self.width, self.height


Measure = Literal["width", "height", "long_side", "short_side"]
_MEASURES: Final[dict[Measure, Callable[[int, int], int]]] = {
    "width": lambda width, height: width,
    "height": lambda width, height: height,
    "long_side": max,
    "short_side": min,
}


@dataclass(frozen=True)
class Side:
    """So many pixels wide, high, or at the longer or shorter side, in the same proportions.

    Raises UsageError below 1, and for a measure that is none.
    """

    measure: Measure
    pixels: int

    def __post_init__(self) -> None:
        if self.measure not in _MEASURES:
            raise UsageError(f"A side is one of {', '.join(_MEASURES)}, not {self.measure!r}.")
        if self.pixels < 1:
            name = self.measure.replace("_", " ")
            raise UsageError(f"{name} must be at least 1 pixel, not {self.pixels}.")

    def of(self, width: int, height: int) -> tuple[int, int]:
        """(width, height) in pixels of the result of a picture of width x height."""
        measured = _MEASURES[self.measure](width, height)
        return _times(Fraction(self.pixels, measured), width, height)

    @property
    def recorded(self) -> dict[str, int]:
        """For reports and manifests: pixels by measure."""
        return {self.measure: self.pixels}


Size = Scale | Exact | Side


def _times(ratio: Fraction, width: int, height: int) -> tuple[int, int]:
    """Rounded half up, at least 1 pixel."""
    half = Fraction(1, 2)
    return max(1, floor(width * ratio + half)), max(1, floor(height * ratio + half))


def oddities(before: tuple[int, int], after: tuple[int, int]) -> Iterator[str]:
    """What few want of an enlargement: a ratio of the sides that changed by more than rounding both
    to whole pixels can, or fewer pixels."""
    (width, height), (wide, high) = before, after
    if 2 * abs(wide * height - high * width) > width + height:
        yield "stretched to other proportions"
    if wide * high < width * height:
        yield "made smaller"
