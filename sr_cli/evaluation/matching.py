"""Files of one image by their names: LR, HR and results."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sr_cli.errors import UsageError

MARK = re.compile(r"(?<=.)(_(HR|GT|LR[\d.]*|LQ)|_?x\d+(\.\d+)?)$", re.IGNORECASE)


@dataclass(frozen=True)
class Named:
    """A file, and the folder below its set's folder that it lies in."""

    path: Path
    folder: Path = Path()

    @property
    def name(self) -> str:
        """Its path below the set's folder, without suffix: 0801, 000/00000012."""
        return (self.folder / self.path.stem).as_posix()

    @property
    def key(self) -> str:
        """The name that HR, LR and results of one image share: 0801 for 0801x4.png."""
        return (self.folder / MARK.sub("", self.path.stem)).as_posix()

    @property
    def root(self) -> Path:
        """The set's folder."""
        return self.path.parents[len(self.folder.parts)]


def named(file: Path, folder: Path) -> Named:
    """A file of a folder, or of one below it."""
    return Named(file, file.parent.relative_to(folder))


def flat(names: Sequence[str]) -> dict[str, str]:
    """A file name for each name, without folders and of its own: 000_00000012 for 000/00000012."""
    found = [name.replace("/", "_") for name in names]
    if len(set(found)) < len(set(names)):
        found = [f"{i}_{name}" for i, name in enumerate(found)]
    return dict(zip(names, found, strict=True))


def partners(hr: Sequence[Named], others: Sequence[Named]) -> list[Path]:
    """Of each HR file the one of `others` that has its name, or has it but for the marks.

    Raises UsageError when one has no partner, or when marks alone tell two files apart.
    """
    names = {each.name: each.path for each in others}
    if all(each.name in names for each in hr):
        return [names[each.name] for each in hr]
    high, low = _by_key(hr), _by_key(others)
    for key, file in high.items():
        if key not in low:
            raise UsageError(f"{file} has no partner in {others[0].root}.")
    return [low[each.key] for each in hr]


def _by_key(files: Sequence[Named]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for each in files:
        other = found.setdefault(each.key, each.path)
        if other != each.path:
            raise UsageError(f"{other} and {each.path} have the same name but for their marks.")
    return found
