"""What is taken of a set of images.

A half of a set, to choose settings on one and to report the other: of the paths of the HR
images, sorted as text, the 1st, 3rd, … are the first half, the 2nd, 4th, … the second; of several
sequences every other one, since frames of one are alike.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from sr_cli.errors import UsageError
from sr_cli.evaluation.matching import Named

LEAST_CROP = 32
"""Pixels of the smallest crops."""

Half = Literal["first", "second", "all"]


@dataclass(frozen=True)
class Selection:
    """What is taken of a set.

    half: every other image. per_folder: of each folder so many images, spread evenly (1: the middle
    one of a sequence); None: all. crop: the centre of HR, of this side at most; None: whole images.

    Raises:
        UsageError: a value makes no sense.
    """

    half: Half = "all"
    per_folder: int | None = None
    crop: int | None = None

    def __post_init__(self) -> None:
        if self.half not in get_args(Half):
            raise UsageError(f"half must be one of {', '.join(get_args(Half))}, not {self.half!r}.")
        if self.per_folder is not None and self.per_folder < 1:
            raise UsageError(f"per_folder must be at least 1, not {self.per_folder}.")
        if self.crop is not None and self.crop < LEAST_CROP:
            raise UsageError(f"crop must be at least {LEAST_CROP}, not {self.crop}.")

    @property
    def text(self) -> str:
        """For reports, after the set's name."""
        parts = [] if self.half == "all" else [f"{self.half} half"]
        parts += [f"{self.per_folder} of each folder"] if self.per_folder else []
        parts += [f"crops of {self.crop}"] if self.crop else []
        return "".join(f", {part}" for part in parts)

    def of(self, files: Sequence[Named], name: str) -> Sequence[Named]:
        """What is taken of these images. Raises UsageError where that is nothing of `name`."""
        if self.half != "all":
            files = self._half(files, name)
        if self.per_folder is None:
            return files
        folders: dict[Path, list[Named]] = {}
        for each in files:
            folders.setdefault(each.path.parent, []).append(each)
        kept = {id(each) for group in folders.values() for each in self._spread(group)}
        return [each for each in files if id(each) in kept]

    def _spread(self, group: Sequence[Named]) -> list[Named]:
        count = min(self.per_folder or len(group), len(group))
        return [group[(2 * i + 1) * len(group) // (2 * count)] for i in range(count)]

    def _half(self, files: Sequence[Named], name: str) -> Sequence[Named]:
        order = sorted(files, key=lambda each: each.path.as_posix())
        second = self.half == "second"
        if len(folders := sorted({each.folder for each in files})) > 1:
            kept = set(folders[second::2])
            return [each for each in order if each.folder in kept]
        if not (chosen := order[second::2]):
            raise UsageError(f"{name} has a single image, so no second half.")
        return chosen
