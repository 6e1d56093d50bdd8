"""Files of one image by their names: LR, HR and results."""

import re
from collections.abc import Sequence
from pathlib import Path

from sr_cli.errors import UsageError

MARK = re.compile(r"(?<=.)(_(HR|GT|LR[\d.]*|LQ)|_?x\d+(\.\d+)?)$", re.IGNORECASE)


def partners(hr: Sequence[Path], others: Sequence[Path]) -> dict[Path, Path]:
    """Of each HR file the one of `others` that has its name, or has it but for the marks.

    Raises UsageError when one has no partner, or when marks alone tell two files apart.
    """
    stems = {file.stem: file for file in others}
    if all(file.stem in stems for file in hr):
        return {file: stems[file.stem] for file in hr}
    high, low = _by_key(hr), _by_key(others)
    for name, file in high.items():
        if name not in low:
            raise UsageError(f"{file} has no partner in {others[0].parent}.")
    return {file: low[name] for name, file in high.items()}


def key(file: Path) -> str:
    """The name that HR, LR and results of one image share: 0801 for 0801x4.png."""
    return MARK.sub("", file.stem)


def _by_key(files: Sequence[Path]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for file in files:
        other = found.setdefault(key(file), file)
        if other != file:
            raise UsageError(f"{other} and {file} have the same name but for their marks.")
    return found
