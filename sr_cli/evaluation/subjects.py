"""Pictures that are compared, or parts of them: which part, and what its result is a part of."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from math import sqrt
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sr_cli.engine.arrays import to_rgb, to_tensor
from sr_cli.engine.images import load
from sr_cli.engine.options import UpscaleOptions
from sr_cli.errors import UsageError
from sr_cli.evaluation import page
from sr_cli.evaluation.datasets import Pair, Pairs, rgb_profile
from sr_cli.evaluation.matching import Named
from sr_cli.evaluation.page import Box, Levels
from sr_cli.evaluation.parts import box, corner, cut

CROP, LEAST = 256, 32
"""Input pixels of a side that are compared unless told: at most, and at least."""
BUDGET = 12e6
"""Pixels of all results in one page, to which the default keeps."""


@dataclass(frozen=True)
class Part:
    """Which part of each picture is compared.

    crop: its longest side in input pixels; 0: the whole picture; None: as many as keep a page
    small, at most CROP. at: (x, y) of its middle in input pixels; None: that of the picture.

    Raises:
        UsageError: a number is negative.
    """

    crop: int | None = None
    at: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if (self.crop or 0) < 0:
            raise UsageError(f"crop must not be negative, but it is {self.crop}.")
        if self.at and min(self.at) < 0:
            raise UsageError(f"at must be a place in the picture, not {self.at[0]},{self.at[1]}.")

    def side(self, results: int, scale: float) -> int:
        """Input pixels, 0 for all of them, in a page of so many results."""
        if self.crop is not None:
            return self.crop
        return max(LEAST, min(CROP, int(sqrt(BUDGET / results) / scale)))

    def box(self, size: tuple[int, int], side: int, scale: float) -> Box:
        """The part of a picture of (width, height), as `parts.box`."""
        return box(size, side, scale, self.at)


@dataclass(frozen=True, eq=False)
class Subject:
    """One picture that is compared.

    title: its name for people. pair: its part, by a name of its own in the group; where there is no
    original, hr has the right size and says nothing. size: (width, height) of the whole input; box:
    the part of it. whole: like pair, with the size of the whole result and nothing else of it.
    corner: the part's (left, top) in the result.
    """

    title: str
    pair: Pair
    size: tuple[int, int]
    box: Box
    whole: Pair
    corner: tuple[int, int]
    original: bool
    thumbnail: str

    @property
    def text(self) -> str:
        """What is shown, for people."""
        height, width = self.whole.hr.shape[1:]
        sizes = f"{self.size[0]}×{self.size[1]} → {width}×{height} pixels"
        left, top, wide, high = self.box
        if (wide, high) == self.size:
            return sizes
        return f"{sizes}; compared: {wide}×{high} pixels of the input from ({left}, {top}) on"


@dataclass(frozen=True, eq=False)
class Group:
    """Pictures that belong together, as `peers` want them; originals: whether `pairs` has HR images
    that are originals, rather than inputs without any."""

    pairs: Pairs
    originals: bool
    part: Part
    side: int

    @cached_property
    def subjects(self) -> tuple[Subject, ...]:
        """Raises InputError when a file cannot be read, UsageError when sizes do not fit."""
        return tuple(self._subjects())

    def _subjects(self) -> Iterator[Subject]:
        scale = self.pairs.scale
        size_of = UpscaleOptions(scale=scale).size.of
        for i, file in enumerate(self.pairs.hr_files):
            if self.originals:
                pair = self.pairs[i]
            else:
                picture = load(file)
                hr = nothing(size_of(*picture.size))
                pair = Pair(file.name, to_tensor(picture.rgb), hr, rgb_profile(picture))
            size = (pair.lr.shape[2], pair.lr.shape[1])
            left, top, width, height = part = self.part.box(size, self.side, scale)
            large, shown = (pair.hr.shape[2], pair.hr.shape[1]), size_of(width, height)
            place = corner(part, scale, large, shown)
            lr = cut(pair.lr, (left, top), (width, height))
            hr = cut(pair.hr, place, shown) if self.originals else nothing(shown)
            name = self.names[i]
            shown_pair, whole = Pair(name, lr, hr, pair.icc), Pair(name, lr, nothing(large))
            small = page.thumbnail(levels(pair.lr), pair.icc)
            yield Subject(pair.name, shown_pair, size, part, whole, place, self.originals, small)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Of the pairs; files of several folders that share one are told apart."""
        names = self.pairs.names
        shared = {name for name in names if names.count(name) > 1}
        return tuple(f"{name}-{i}" if name in shared else name for i, name in enumerate(names))

    @cached_property
    def parts(self) -> Pairs:
        """What methods are made for: the parts, by the names of the whole pictures."""
        return _Parts(self)


class _Parts(Pairs):
    """Pairs that are in memory."""

    def __init__(self, group: Group) -> None:
        pairs = group.pairs
        super().__init__(pairs.name, (), pairs.scale, "", 0, selection=pairs.selection)
        self._group = group

    @property
    def names(self) -> tuple[str, ...]:
        return self._group.names

    @property
    def hr_files(self) -> tuple[Path, ...]:
        return self._group.pairs.hr_files

    @property
    def hr_named(self) -> tuple[Named, ...]:
        return self._group.pairs.hr_named

    def __len__(self) -> int:
        return len(self._group.subjects)

    def __getitem__(self, index: Any) -> Any:
        found = self._group.subjects[index]
        return found.pair if isinstance(found, Subject) else [each.pair for each in found]


def levels(image: Tensor) -> Levels:
    """(3, H, W) in [0, 1] → (H, W, 3) of 8 bits."""
    rgb: Levels = (to_rgb(image).clip(0, 1) * 255).round().astype("uint8")
    return rgb


def nothing(size: tuple[int, int]) -> Tensor:
    """A picture of (width, height) that takes no memory."""
    return torch.zeros(()).expand(3, size[1], size[0])
