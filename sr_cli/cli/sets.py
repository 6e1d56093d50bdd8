"""The sets of images that `srx bench` measures on, from its arguments."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sr_cli.cli import reports
from sr_cli.engine.options import UpscaleOptions
from sr_cli.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sr_cli.evaluation.datasets import Pairs
    from sr_cli.evaluation.selection import Half


@dataclass(frozen=True)
class Taken:
    """How pairs are made of the images, and which of them: as `datasets.pairs` takes it."""

    lr: Path | None
    degradation: str | None
    seed: int
    half: Half
    per_folder: int | None
    crop: int | None


def sets(data: Sequence[Path] | None, scales: Sequence[float], taken: Taken) -> list[Pairs]:
    """Each folder is a set, whatever it is called by, at each scale; the files together are one.

    Raises UsageError where something is missing, or where LR images do not fit one of several
    scales.
    """
    from sr_cli.evaluation import datasets

    chosen = list({path.resolve(): path for path in data or datasets.examples()}.values())
    folders = [path for path in chosen if path.is_dir()]
    files = [path for path in chosen if not path.is_dir()]
    if taken.lr and (files or len(folders) != 1):
        raise UsageError("--lr belongs to one folder of HR images: give exactly one.")
    for file in files:
        if not file.exists():
            raise UsageError(f"The input {file} does not exist.")
    found: list[Path | list[Path]] = [*folders, files] if files else [*folders]
    made = []
    for scale in scales:
        UpscaleOptions(scale=scale)  # checks it
        same = [datasets.pairs(each, scale=scale, **vars(taken)) for each in found]
        names = _names(same, folders)
        named = [pairs.called(name) for pairs, name in zip(same, names, strict=True)]
        made.append([reports.usable(pairs) for pairs in named])
    by_set = [pairs for same in zip(*made, strict=True) for pairs in same]
    if len(scales) > 1:
        for pairs in by_set:
            if pairs.given:
                pairs[0]  # which is read, to see that the sizes fit
    return by_set


def _names(sets: Sequence[Pairs], folders: Sequence[Path]) -> list[str]:
    """The sets' names; of those that share one, the ends of their folders' paths that differ.

    A set of files, which has no folder, stands last and keeps its name.
    """
    names = [pairs.name for pairs in sets]
    depth = 1
    while shared := {name for name in names if names.count(name) > 1}:
        depth += 1
        for i, folder in enumerate(folders):
            if names[i] in shared:
                names[i] = Path(*folder.resolve().parts[-depth:]).as_posix()
    return names
