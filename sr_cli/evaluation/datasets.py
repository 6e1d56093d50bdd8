"""Pairs of LR and HR images, matched by name in the layouts that data sets are published in.

    Set5/HR + Set5/LR                          also GT, target, GTmod12 / LQ, input; any case
    Set5/HR + Set5/LR_bicubic/X4               also LR/X4, LRbicx4, LR_unknown/x4
    DIV2K_valid_HR + DIV2K_valid_LR_bicubic/X4 the folder that holds both, or the HR folder itself
    test_HR + test_LR                          DRealSR and StableSR's crops
    x_HR.png + x_LR4.png                       RealSR: both in one folder
    x.png                                      HR alone: LR is made of it, as on demand elsewhere

Names match when they are equal but for what tells the two apart: 0801 and 0801x4, a_HR and a_LR4,
a_x1 and a_x4.

A half of a set, to choose settings on one and to report the other: of the paths of the HR
images, sorted as text, the 1st, 3rd, … are the first half, the 2nd, 4th, … the second.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args, overload

import numpy as np
from PIL import Image
from torch import Tensor

from sr_cli.degradation.degrade import KINDS, Randomness, degrade
from sr_cli.diffusion.noise import digest
from sr_cli.engine.arrays import to_tensor
from sr_cli.engine.images import Picture, load, probe
from sr_cli.engine.inputs import pictures
from sr_cli.engine.options import UpscaleOptions
from sr_cli.errors import UsageError
from sr_cli.evaluation.matching import key, partners

PACKAGE = Path(__file__).parents[1]
EXAMPLES = ("astronaut.png", "cat.png", "coffee.png", "galaxies.png")
HR_FOLDER = re.compile(r"(?P<set>.*?)[_-]?(HR|GT|target|original)(mod\d+)?", re.IGNORECASE)
LR_FOLDER = re.compile(
    r"(?P<set>.*?)[_-]?(LR|LQ|input)(_?(bicubic|bic|unknown))?(_?x(?P<scale>[\d.]+))?",
    re.IGNORECASE,
)
LR_FILE = re.compile(r"(?P<key>.+)_LR(?P<scale>[\d.]*)", re.IGNORECASE)


Half = Literal["first", "second", "all"]


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
    hr: Path
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
        half: Half,
    ) -> None:
        self.name = name
        self.half = half
        self.scale = scale
        self._files = files
        self._degradation = degradation
        self._seed = seed

    @property
    def title(self) -> str:
        """The set's name, and which half of it these are, for reports."""
        return self.name if self.half == "all" else f"{self.name}, {self.half} half"

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
        picture = load(files.hr)
        hr = to_tensor(picture.rgb)
        if files.lr is None:
            return Pair(files.name, *self._made(files, hr), rgb_profile(picture))
        picture = load(files.lr)
        lr = to_tensor(picture.rgb)
        height, width = self._target(lr)
        spare = (hr.shape[1] - height, hr.shape[2] - width)
        if not all(0 <= side < max(self.scale, 1) for side in spare):
            raise UsageError(
                f"{files.hr} ({hr.shape[2]}x{hr.shape[1]}) is not {self.scale:g} times as large "
                f"as {files.lr} ({lr.shape[2]}x{lr.shape[1]}): give the right --scale."
            )
        return Pair(files.name, lr, hr[:, :height, :width], rgb_profile(picture))

    def large_enough(self) -> tuple["Pairs", list[Path]]:
        """Those without an HR image that is too small to be reduced, and the files of the others.

        Raises InputError when a file cannot be read.
        """
        small = [
            files.hr
            for files in self._files
            if files.lr is None and min(probe(files.hr)) < self.scale
        ]
        return self._with([files for files in self._files if files.hr not in small]), small

    def called(self, name: str) -> "Pairs":
        """The same pairs under another name."""
        return Pairs(name, self._files, self.scale, self._degradation, self._seed, half=self.half)

    def _with(self, files: Sequence[_Files]) -> "Pairs":
        return Pairs(self.name, files, self.scale, self._degradation, self._seed, half=self.half)

    def _made(self, files: _Files, hr: Tensor) -> tuple[Tensor, Tensor]:
        """LR of 1/scale the size, and HR cropped to what an enlargement of that gives."""
        size = [int(side / self.scale) for side in hr.shape[1:]]
        if min(size) < 1:
            raise UsageError(f"{files.hr} is too small to be reduced by {self.scale:g}.")
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
    found = dict(zip(lr, hr, strict=True)) if len(lr) == len(hr) == 1 else partners(lr, hr)
    files = [_Files(file.stem, other, file) for file, other in found.items()]
    return Pairs("images", files, scale, "bicubic", 0, half="all")


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
) -> Pairs:
    """The pairs of a folder in one of the layouts above, of HR files, or of two folders.

    lr: the folder of the LR images, where `path` has only HR. degradation: one of
    `degradations.KINDS` makes LR of HR, whether there is LR or not; None takes what is there, or
    else makes it by "bicubic". half: see above. Nothing is read yet but folders.

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
    name, hr_files, lr_files = _found(path, lr, scale)
    if lr_files is None or degradation is not None:
        files = [_Files(file.stem, file, None) for file in hr_files]
    else:
        files = _matched(hr_files, lr_files)
    return Pairs(name, _half(files, half, name), scale, degradation or "bicubic", seed, half=half)


def _half(files: Sequence[_Files], half: Half, name: str) -> Sequence[_Files]:
    if half not in get_args(Half):
        raise UsageError(f"half must be one of {', '.join(get_args(Half))}, not {half!r}.")
    if half == "all":
        return files
    order = sorted(files, key=lambda each: each.hr.as_posix())
    chosen = order[half == "second" :: 2]
    if not chosen:
        raise UsageError(f"{name} has a single image, so no second half.")
    return chosen


def examples() -> list[Path]:
    """The photographs that come with srx, in the package or in the source tree beside it.

    Raises UsageError when they are not installed.
    """
    for folder in (PACKAGE / "_examples", PACKAGE.parent / "examples"):
        files = [folder / name for name in EXAMPLES]
        if all(file.is_file() for file in files):
            return files
    raise UsageError("The examples are not installed: name images or folders of them.")


def images(folder: Path) -> list[Path]:
    """What `inputs.pictures` finds in a folder. Raises UsageError when there is nothing."""
    _check_folder(folder)
    found = pictures(folder)
    if not found:
        raise UsageError(f"There is no image in {folder}.")
    return found


def _check_folder(path: Path) -> None:
    if not path.is_dir():
        missing = f"There is no folder {path}."
        raise UsageError(f"{path} is a file, not a folder." if path.exists() else missing)


def _found(
    path: Path | Sequence[Path], lr: Path | None, scale: float
) -> tuple[str, Sequence[Path], Sequence[Path] | None]:
    """A name for the set, its HR files, and its LR files if there are any."""
    if not isinstance(path, Path):
        return "images", path, None
    if lr is not None:
        return _title(path), images(path), images(lr)
    _check_folder(path)
    folders = list(_folders(path, scale))
    if len(folders) > 1:
        several = " and ".join(str(hr) for hr, _ in folders)
        raise UsageError(f"{path} holds several sets, {several}: name one of them.")
    if folders:
        hr_folder, lr_folder = folders[0]
        low = images(lr_folder) if lr_folder else None
        return _title(path), images(hr_folder), low
    files = images(path)
    marked = [(file, LR_FILE.fullmatch(file.stem)) for file in files]
    beside = [file for file, match in marked if match and _is_scale(match["scale"], scale)]
    return _title(path), [file for file, match in marked if not match], beside or None


def _title(folder: Path) -> str:
    """The folder's name; its parent's if it is only a mark: Set5 of Set5/HR."""
    folder = folder.resolve()
    own = HR_FOLDER.fullmatch(folder.name)
    return folder.parent.name if own and not own["set"] else folder.name


def _folders(path: Path, scale: float) -> Iterator[tuple[Path, Path | None]]:
    """HR folders with their LR folder: of `path`, or `path` itself and its neighbours."""
    own = HR_FOLDER.fullmatch(path.resolve().name)
    inside = sorted(entry for entry in path.iterdir() if entry.is_dir())
    beside = sorted(e for e in path.resolve().parent.iterdir() if e.is_dir()) if own else []
    for folder in inside:
        match = HR_FOLDER.fullmatch(folder.name)
        if match:
            yield folder, _partner(match["set"], inside, scale)
    if own and (partner := _partner(own["set"], beside, scale)):
        yield path, partner


def _partner(name: str, folders: Sequence[Path], scale: float) -> Path | None:
    """The LR folder of the set `name` at this scale."""
    for folder in folders:
        match = LR_FOLDER.fullmatch(folder.name)
        if not match or match["set"].lower() != name.lower():
            continue
        if not _is_scale(match["scale"], scale):
            continue
        inner = {entry.name.lower(): entry for entry in folder.iterdir() if entry.is_dir()}
        return inner.get(f"x{scale:g}", folder)
    return None


def _is_scale(text: str | None, scale: float) -> bool:
    return not text or float(text) == scale


def _matched(hr: Sequence[Path], lr: Sequence[Path]) -> list[_Files]:
    """The files of each pair; none may be left over on either side."""
    found = partners(hr, lr)
    left = sorted(set(lr) - set(found.values()))
    if left:
        raise UsageError(f"{left[0]} has no partner in {hr[0].parent}.")
    return [_Files(key(file), file, other) for file, other in found.items()]
