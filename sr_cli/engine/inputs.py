"""Arguments to input files: what folders and patterns hold, in natural order."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import takewhile
from pathlib import Path

from sr_cli.engine.signatures import SUFFIXES, resembles_picture
from sr_cli.errors import InputError, UsageError

SHOWN = 3
"""Arguments that an error names."""


class NoImageError(UsageError):
    """There are folders, and no image in them."""


@dataclass(frozen=True)
class Input:
    """An input file, and its folder below the argument that named it; `found` by folder or pattern
    rather than named by an argument of its own."""

    path: Path
    folder: Path = Path()
    found: bool = True


class Links:
    """Real paths of many files: each folder is resolved once."""

    def __init__(self) -> None:
        self._folders: dict[str, str] = {}

    def resolved(self, path: Path) -> str:
        """As os.path.realpath, which unlike resolve() bears links in circles."""
        folder, name = os.path.split(path)
        if folder not in self._folders:
            self._folders[folder] = os.path.realpath(folder)
        found = os.path.join(self._folders[folder], name)  # noqa: PTH118
        special = name in ("", os.pardir) or os.path.islink(found)  # noqa: PTH114
        return os.path.realpath(path) if special else found


def natural(path: Path) -> tuple[list[tuple[str | int, ...]], str]:
    """Sorting key by which img2 comes before img10."""
    parts = [re.split(r"(\d+)", part.casefold()) for part in path.parts]
    key = [tuple(int(p) if i % 2 else p for i, p in enumerate(part)) for part in parts]
    return key, str(path)


@dataclass(frozen=True)
class Collected:
    """What arguments hold: input files, folders without an image, files that were left out, what
    failed (what is not there, or cannot be reached or read), and folders inside that are not
    entered."""

    inputs: list[Input]
    empty: list[Path]
    others: list[Path]
    failed: list[tuple[Path, InputError]]
    closed: list[Path] = field(default_factory=list)


def collect(arguments: Sequence[Path], *, recursive: bool, exclude: Path) -> Collected:
    """Every input file of `arguments` once, by its own name rather than a found link's: of each
    file, folder or pattern in natural order.

    A folder gives its files that have an image's suffix or begin as an image does; hidden ones are
    left out. With `recursive` its folders give theirs too, but not links to folders, and not the
    folder `exclude`, where results go. A pattern matches nothing in `exclude`, unless it begins
    there. A broken link with an image's name is an input, which fails when it is read.

    Where there is an input, what is not there or cannot be read is in `failed`, and ends nothing.

    Raises:
        UsageError: nothing but arguments that do not exist or match nothing.
        NoImageError: there is no image.
        InputError: nothing but what cannot be read.
    """
    inputs: dict[str, Input] = {}
    missing: list[UsageError] = []
    found, links = Collected([], [], [], []), Links()
    left_out = Path(os.path.realpath(exclude))
    for argument in arguments:
        try:
            matches = _matches(argument, left_out)
        except UsageError as error:
            missing.append(error)
            found.failed.append((argument, InputError(str(error))))
            continue
        except InputError as error:
            found.failed.append((argument, error))
            continue
        for path in matches:
            failures = len(found.failed)
            inside = _inside(path, recursive, left_out, found, named=path == argument)
            if not inside and len(found.failed) == failures:
                found.empty.append(path)
            for given in inside:
                real = links.resolved(given.path)
                first = inputs.get(real, given)
                if first.found and first.path.is_symlink() and not given.path.is_symlink():
                    first = given
                inputs[real] = replace(first, found=first.found and given.found)
    found.inputs.extend(inputs.values())
    if missing and not inputs:
        raise UsageError(_first(missing))
    if found.failed and not inputs:
        raise found.failed[0][1]
    if not inputs:
        hint = "" if recursive else " Folders inside it are read with --recursive."
        raise NoImageError(f"There is no image in {', '.join(map(str, arguments))}.{hint}")
    return found


def _first(missing: Sequence[UsageError]) -> str:
    more = f" {len(missing) - SHOWN} more are missing too." if len(missing) > SHOWN else ""
    return " ".join(map(str, missing[:SHOWN])) + more


def pictures(folder: Path, *, recursive: bool = False) -> list[Path]:
    """The picture files of a folder in natural order: those that are not hidden and have an image's
    suffix, or else begin as an image does; with `recursive` those of its folders too, but for
    hidden folders and links.

    Raises InputError when a folder cannot be read.
    """
    found = Collected([], [], [], [])
    files = [path for path in _images(folder, recursive, None, found) if path.is_file()]
    if found.failed:
        raise found.failed[0][1]
    return sorted(files, key=natural)


def _matches(argument: Path, exclude: Path) -> list[Path]:
    """The argument, or what it matches as a pattern: nothing hidden unless the pattern says so.

    Raises UsageError where there is nothing, InputError where that cannot be known.
    """
    if _is_there(argument):
        return [argument]
    if not set(str(argument)) & set("*?["):
        raise UsageError(f"The input {argument} does not exist.")
    literal = _literal(argument)
    shown: list[Path] = []
    for pattern in (argument, Path(str(argument).replace("[", "[[]"))):
        try:  # unlike glob.glob it follows no links where ** stands, which may lead in circles
            rest = pattern.parts[len(literal.parts) :]
            matches = sorted(literal.glob(str(Path(*rest))), key=natural)
        except (ValueError, OSError) as error:
            raise UsageError(f"{argument} is no pattern: {error}.") from error
        shown = [m for m in matches if not (_hidden(m, argument) or _strays(m, argument, exclude))]
        if shown:
            return shown
    raise UsageError(f"No file matches {argument}.")


def _is_there(path: Path) -> bool:
    """Whether a file, a folder or a link has this name. Raises InputError where that cannot be
    known: below a folder that may not be entered, or of a name that is too long."""
    try:
        path.lstat()
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.EINVAL):  # the last of Windows, for *
            return False
        raise InputError(f"The input {path} cannot be read: {error.strerror}.") from error
    return True


def _literal(pattern: Path) -> Path:
    """The folder that a pattern begins with, whose name may have brackets itself."""
    folder = Path(pattern.anchor)
    for part in pattern.parts[len(folder.parts) : -1]:
        if not (folder / part).is_dir():
            break
        folder /= part
    return folder


def _hidden(match: Path, pattern: Path) -> bool:
    asked_for = any(re.match(r"\..*[*?[]", part) for part in pattern.parts)
    new = set(match.parts) - set(pattern.parts)
    return not asked_for and any(part.startswith(".") for part in new)


def _strays(match: Path, pattern: Path, folder: Path) -> bool:
    """Whether a match lies in a folder in which its pattern does not begin."""
    base = Path(*takewhile(lambda part: not set(part) & set("*?["), pattern.parts))
    real, begin = (Path(os.path.realpath(path)) for path in (match, base))
    return real.is_relative_to(folder) and not begin.is_relative_to(folder)


def _inside(
    path: Path, recursive: bool, exclude: Path, found: Collected, *, named: bool
) -> list[Input]:
    if not path.is_dir():
        return [Input(path, found=not named)]
    images = sorted(_images(path, recursive, exclude, found), key=natural)
    return [Input(image, image.parent.relative_to(path)) for image in images]


def _images(
    folder: Path, recursive: bool, exclude: Path | None, found: Collected
) -> Iterator[Path]:
    try:
        entries = list(folder.iterdir())
        if not os.access(folder, os.X_OK):  # names that lead to nothing
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        found.failed.append((folder, InputError(f"{folder} cannot be read: {error.strerror}.")))
        return
    for entry in entries:
        if entry.name.startswith("."):
            continue
        if recursive and entry.is_dir():
            if not entry.is_symlink() and entry.resolve() != exclude:
                yield from _images(entry, recursive, exclude, found)
        elif entry.suffix.lower() in SUFFIXES or resembles_picture(entry):
            yield entry
        elif not entry.is_dir():
            found.others.append(entry)
        elif not recursive and entry.resolve() != exclude:
            found.closed.append(entry)
