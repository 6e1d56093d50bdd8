"""How large a result becomes: by a factor, in pixels, or by one of its sides."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from math import floor

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


@dataclass(frozen=True)
class LongSide:
    """The longer side gets this many pixels. Raises UsageError below 1."""

    long_side: int

    def __post_init__(self) -> None:
        _check_side("long side", self.long_side)

    def of(self, width: int, height: int) -> tuple[int, int]:
        """(width, height) in pixels of the result of a picture of width x height."""
        return _times(Fraction(self.long_side, max(width, height)), width, height)


@dataclass(frozen=True)
class ShortSide:
    """The shorter side gets this many pixels. Raises UsageError below 1."""

    short_side: int

    def __post_init__(self) -> None:
        _check_side("short side", self.short_side)

    def of(self, width: int, height: int) -> tuple[int, int]:
        """(width, height) in pixels of the result of a picture of width x height."""
        return _times(Fraction(self.short_side, min(width, height)), width, height)


@dataclass(frozen=True)
class Width:
    """So many pixels wide, and as high as the proportions say. Raises UsageError below 1."""

    width: int

    def __post_init__(self) -> None:
        _check_side("width", self.width)

    def of(self, width: int, height: int) -> tuple[int, int]:
        """(width, height) in pixels of the result of a picture of width x height."""
        return _times(Fraction(self.width, width), width, height)


@dataclass(frozen=True)
class Height:
    """So many pixels high, and as wide as the proportions say. Raises UsageError below 1."""

    height: int

    def __post_init__(self) -> None:
        _check_side("height", self.height)

    def of(self, width: int, height: int) -> tuple[int, int]:
        """(width, height) in pixels of the result of a picture of width x height."""
        return _times(Fraction(self.height, height), width, height)


Size = Scale | Exact | LongSide | ShortSide | Width | Height


def _check_side(name: str, pixels: int) -> None:
    if pixels < 1:
        raise UsageError(f"{name} must be at least 1 pixel, not {pixels}.")


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
