"""Arguments to input files: what folders and patterns hold, in natural order."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from pathlib import Path

from sr_cli.engine.images import SUFFIXES
from sr_cli.errors import InputError, UsageError


@dataclass(frozen=True)
class Source:
    """An input file, and its folder below the argument that named it; `found` by folder or pattern
    rather than named by an argument of its own."""

    path: Path
    folder: Path = Path()
    found: bool = True


def natural(path: Path) -> tuple[list[tuple[str | int, ...]], str]:
    """Sorting key by which img2 comes before img10."""
    parts = [re.split(r"(\d+)", part.casefold()) for part in path.parts]
    key = [tuple(int(p) if i % 2 else p for i, p in enumerate(part)) for part in parts]
    return key, str(path)


def collect(
    arguments: Sequence[Path], *, recursive: bool, exclude: Path
) -> tuple[list[Source], list[Path]]:
    """Every input file once, in natural order within each file, folder or glob of `arguments`, and
    the folders without an image, where other arguments or matches have some.

    A folder gives the files in it that have an image's suffix and are not hidden; with `recursive`
    those of its folders too, but for links and for the folder `exclude`. There a pattern matches
    nothing either, unless it begins there. What has such a name and is no file, or a link to
    nothing, is an input too, which fails by itself.

    Raises:
        UsageError: an argument does not exist or matches nothing, or there is no image.
        InputError: a folder cannot be read.
    """
    sources: dict[str, Source] = {}
    empty = []
    left_out = Path(os.path.realpath(exclude))
    try:
        for argument in arguments:
            for path in _matches(argument, left_out):
                inside = _inside(path, recursive, left_out, found=path != argument)
                if not inside:
                    empty.append(path)
                for source in inside:
                    real = os.path.realpath(
                        source.path
                    )  # unlike resolve() it bears links in circles
                    first = sources.get(real, source)
                    sources[real] = replace(first, found=first.found and source.found)
    except OSError as error:
        raise InputError(f"{error.filename} cannot be read: {error.strerror}.") from error
    if not sources:
        hint = "" if recursive else " Folders inside it are read with --recursive."
        raise UsageError(f"There is no image in {', '.join(map(str, arguments))}.{hint}")
    return list(sources.values()), empty


def _matches(argument: Path, exclude: Path) -> list[Path]:
    """The argument, or what it matches as a pattern: nothing hidden unless the pattern says so."""
    if argument.exists() or argument.is_symlink():
        return [argument]
    if not set(str(argument)) & set("*?["):
        raise UsageError(f"The input {argument} does not exist.")
    start = Path(argument.anchor)
    try:  # unlike glob.glob it follows no links where ** stands, which may lead in circles
        matches = sorted(start.glob(str(argument.relative_to(start))), key=natural)
    except ValueError as error:
        raise UsageError(f"{argument} is no pattern: {error}.") from error
    shown = [m for m in matches if not (_hidden(m, argument) or _strays(m, argument, exclude))]
    if not shown:
        raise UsageError(f"No file matches {argument}.")
    return shown


def _hidden(match: Path, pattern: Path) -> bool:
    asked_for = any(re.match(r"\..*[*?[]", part) for part in pattern.parts)
    new = set(match.parts) - set(pattern.parts)
    return not asked_for and any(part.startswith(".") for part in new)


def _strays(match: Path, pattern: Path, folder: Path) -> bool:
    """Whether a match lies in a folder in which its pattern does not begin."""
    base = Path(*takewhile(lambda part: not set(part) & set("*?["), pattern.parts))
    real, begin = (Path(os.path.realpath(path)) for path in (match, base))
    return real.is_relative_to(folder) and not begin.is_relative_to(folder)


def _inside(path: Path, recursive: bool, exclude: Path, *, found: bool) -> list[Source]:
    if not path.is_dir():
        return [Source(path, found=found)]
    images = sorted(_images(path, recursive, exclude), key=natural)
    return [Source(image, image.parent.relative_to(path)) for image in images]


def _images(folder: Path, recursive: bool, exclude: Path) -> Iterator[Path]:
    for entry in folder.iterdir():
        if entry.name.startswith("."):
            continue
        if recursive and entry.is_dir():
            if not entry.is_symlink() and entry.resolve() != exclude:
                yield from _images(entry, recursive, exclude)
        elif entry.suffix.lower() in SUFFIXES:
            yield entry
