"""Pairs of LR and HR images: matched by name in the published layouts, or LR made of HR.

Names match when they are equal but for what tells the two apart: 0801 and 0801x4, a_HR and a_LR4,
a_x1 and a_x4; of sequences their folders count too.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import overload

import numpy as np
from PIL import Image
from torch import Tensor

from sr_cli.degradation.degrade import KINDS, Randomness, degrade
from sr_cli.diffusion.noise import digest
from sr_cli.engine.arrays import to_tensor
from sr_cli.engine.images import Picture, load, probe
from sr_cli.engine.options import UpscaleOptions
from sr_cli.errors import UsageError
from sr_cli.evaluation.layouts import layout
from sr_cli.evaluation.matching import Named, partners
from sr_cli.evaluation.parts import box, centre, corner, cut
from sr_cli.evaluation.selection import Half, Selection

PACKAGE = Path(__file__).parents[1]
EXAMPLES = ("astronaut.png", "cat.png", "coffee.png", "galaxies.png")


@dataclass(frozen=True, eq=False)
class Pair:
    """lr (3, h, w) and hr (3, H, W), float32 in [0, 1]; (H, W) is round(scale · (h, w)).

    icc: the RGB profile of LR's colours, None for sRGB.
    """

    name: str
    lr: Tensor
    hr: Tensor
    icc: bytes | None = None


@dataclass(frozen=True)
class _Files:
    name: str
    hr: Named
    lr: Path | None


class Pairs(Sequence[Pair]):
    """Pairs in the natural order of their names, each read when it is asked for."""

    def __init__(
        self,
        name: str,
        files: Sequence[_Files],
        scale: float,
        degradation: str,
        seed: int,
        *,
        selection: Selection,
    ) -> None:
        self.name = name
        self.selection = selection
        self.scale = scale
        self._files = files
        self._degradation = degradation
        self._seed = seed

    @property
    def title(self) -> str:
        """The set's name, and what of it these are, for reports."""
        return self.name + self.selection.text

    @property
    def given(self) -> bool:
        """Whether the LR images are files, rather than made of the HR images."""
        return self._files[0].lr is not None

    @property
    def made_by(self) -> str:
        """Where the LR images come from, for reports."""
        return "given LR" if self.given else f"LR by {self._degradation} x1/{self.scale:g}"

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the pairs."""
        return tuple(files.name for files in self._files)

    @property
    def hr_files(self) -> tuple[Path, ...]:
        """Where the HR images are."""
        return tuple(files.hr.path for files in self._files)

    @property
    def hr_named(self) -> tuple[Named, ...]:
        """The same with their folders below the set's."""
        return tuple(files.hr for files in self._files)

    def __len__(self) -> int:
        return len(self._files)

    @overload
    def __getitem__(self, index: int) -> Pair: ...
    @overload
    def __getitem__(self, index: slice) -> "Pairs": ...
    def __getitem__(self, index: int | slice) -> "Pair | Pairs":
        """One pair, or some of them.

        Raises InputError when a file cannot be read, UsageError when the sizes do not fit.
        """
        if isinstance(index, slice):
            return self._with(self._files[index])
        files = self._files[index]
        picture = load(files.hr.path)
        hr = to_tensor(picture.rgb)
        if files.lr is None:
            return Pair(files.name, *self._made(files.hr.path, hr), rgb_profile(picture))
        picture = load(files.lr)
        lr = to_tensor(picture.rgb)
        height, width = self._target(lr)
        spare = (hr.shape[1] - height, hr.shape[2] - width)
        if not all(0 <= side < max(self.scale, 1) for side in spare):
            raise UsageError(
                f"{files.hr.path} ({hr.shape[2]}x{hr.shape[1]}) is not {self.scale:g} times as "
                f"large as {files.lr} ({lr.shape[2]}x{lr.shape[1]}): give the right --scale."
            )
        hr = hr[:, :height, :width]
        return Pair(files.name, *self._cropped(lr, hr), rgb_profile(picture))

    def large_enough(self) -> tuple["Pairs", list[Path]]:
        """Those without an HR image that is too small to be reduced, and the files of the others.

        Raises InputError when a file cannot be read.
        """
        small = [
            files.hr.path
            for files in self._files
            if files.lr is None and min(probe(files.hr.path)) < self.scale
        ]
        return self._with([files for files in self._files if files.hr.path not in small]), small

    def called(self, name: str) -> "Pairs":
        """The same pairs under another name."""
        return self._with(self._files, name)

    def _with(self, files: Sequence[_Files], name: str | None = None) -> "Pairs":
        other = copy.copy(self)
        other._files, other.name = files, name or self.name
        return other

    def _cropped(self, lr: Tensor, hr: Tensor) -> tuple[Tensor, Tensor]:
        """The centre of both, where a part is wanted."""
        if self.selection.crop is None:
            return lr, hr
        side = max(fitting(self.selection.crop, self.scale), 1)
        part = box((lr.shape[2], lr.shape[1]), side, self.scale)
        lr = cut(lr, part[:2], part[2:])
        height, width = self._target(lr)
        place = corner(part, self.scale, (hr.shape[2], hr.shape[1]), (width, height))
        return lr, cut(hr, place, (width, height))

    def _made(self, file: Path, hr: Tensor) -> tuple[Tensor, Tensor]:
        """LR of 1/scale the size, and HR cropped to what an enlargement of that gives."""
        if self.selection.crop is not None:
            hr = centre(hr, self.selection.crop)
        size = [fitting(side, self.scale) for side in hr.shape[1:]]
        if min(size) < 1:
            raise UsageError(f"{file} is too small to be reduced by {self.scale:g}.")
        height, width = self._target(hr[:, : size[0], : size[1]])
        hr = hr[:, :height, :width].contiguous()
        return reduced(hr, (size[0], size[1]), self._degradation, self._seed), hr

    def _target(self, lr: Tensor) -> tuple[int, int]:
        width, height = UpscaleOptions(scale=self.scale).size.of(lr.shape[2], lr.shape[1])
        return height, width


def rgb_profile(picture: Picture) -> bytes | None:
    """The profile of its colours, in which greys have none."""
    return None if picture.gray else picture.metadata.icc


def matched(lr: Sequence[Path], hr: Sequence[Path], scale: float) -> Pairs:
    """LR images, each with the HR image of its name; where there is one of each, whatever they are
    called. Raises UsageError when one has no partner."""
    low, high = ([Named(file) for file in files] for files in (lr, hr))
    found = hr if len(lr) == len(hr) == 1 else partners(low, high)
    files = [
        _Files(each.name, Named(other), each.path) for each, other in zip(low, found, strict=True)
    ]
    return Pairs("images", files, scale, "bicubic", 0, selection=Selection())


def fitting(side: int, scale: float) -> int:
    """The most pixels that, `scale` times as many, are no more than `side`: 648 has 240 at 2.7.

    In floating point 648 / 2.7 is less than 240, by less than a millionth.
    """
    return int(side / scale + 1e-6)


def reduced(hr: Tensor, size: tuple[int, int], degradation: str, seed: int) -> Tensor:
    """HR (3, H, W) in [0, 1] → LR (3, *size), 8-bit levels in [0, 1].

    `bicubic` is Pillow's; the others (`degradations.KINDS`) draw from (seed, the image), so that
    neither order nor other images matter.
    """
    if degradation == "bicubic":
        levels = (hr.permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
        small = Image.fromarray(levels).resize(size[::-1], Image.Resampling.BICUBIC)
        return to_tensor(np.asarray(small, np.float32) / np.float32(255))
    key = int.from_bytes(digest(hr.numpy()), "little")
    rng = Randomness.keyed(hr.device, seed, key)
    return degrade(hr[None], size, degradation, rng)[0]


def pairs(
    path: Path | Sequence[Path],
    *,
    lr: Path | None = None,
    scale: float = 4,
    degradation: str | None = None,
    seed: int = 0,
    half: Half = "all",
    per_folder: int | None = None,
    crop: int | None = None,
) -> Pairs:
    """The pairs of a folder in one of the `layouts`, of HR files, or of two folders.

    lr: the folder of the LR images, where `path` has only HR. degradation: one of
    `degradations.KINDS` makes LR of HR, whether there is LR or not; None takes what is there, or
    else makes it by "bicubic". half, per_folder, crop: of a `Selection`. Nothing is read yet but
    folders.

    Raises:
        UsageError: no image is there, or none in this half; a file has no partner; two files have
            one name; both `lr` and `degradation` are given.
        InputError: a folder cannot be read.
    """
    if degradation is not None and degradation not in KINDS:
        known = ", ".join(KINDS)
        raise UsageError(f"The degradation is one of {known}, not {degradation!r}.")
    if degradation is not None and lr is not None:
        raise UsageError("--lr gives LR images and --degradation makes them: choose one.")
    selection = Selection(half, per_folder, crop)
    if isinstance(path, Path):
        found = layout(path, lr, scale, alone=degradation is not None)
        name, high, low = found.name, found.hr, found.lr
    else:
        name, high, low = "images", [Named(file) for file in path], None
    files = [_Files(each.name, each, None) for each in high] if low is None else _matched(high, low)
    by_hr = {each.hr: each for each in files}
    chosen = [by_hr[hr] for hr in selection.of([each.hr for each in files], name)]
    return Pairs(name, chosen, scale, degradation or "bicubic", seed, selection=selection)


def _matched(hr: Sequence[Named], lr: Sequence[Named]) -> list[_Files]:
    """The files of each pair; none may be left over on either side."""
    found = partners(hr, lr)
    left = sorted({each.path for each in lr} - set(found))
    if left:
        raise UsageError(f"{left[0]} has no partner in {hr[0].root}.")
    return [_Files(each.key, each, other) for each, other in zip(hr, found, strict=True)]


def examples() -> list[Path]:
    """The photographs that come with srx, in the package or in the source tree beside it.

    Raises UsageError when they are not installed.
    """
    for folder in (PACKAGE / "_examples", PACKAGE.parent / "examples"):
        files = [folder / name for name in EXAMPLES]
        if all(file.is_file() for file in files):
            return files
    raise UsageError("The examples are not installed: name images or folders of them.")
