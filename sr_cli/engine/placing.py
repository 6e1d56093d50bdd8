"""Files that appear whole or not at all, and in the place of no other file unasked."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO
from uuid import uuid4

from sr_cli.errors import InputError

Committing = Callable[[Path], None]
"""Told of the whole file under its hidden name, before it takes its own."""


@contextlib.contextmanager
def placing(
    path: Path, *, replace: bool = True, committing: Committing | None = None
) -> Iterator[IO[bytes]]:
    """A hidden file beside `path`, which takes its name when `with` ends well and else is removed.

    It is on the disk by then. A file that it replaces gives it its mode; a link is replaced itself,
    and not what it points to. Raises InputError where `replace` is false and something of this name
    has appeared, which stays.
    """
    partial = path.with_name(f"{_prefix(path)}{uuid4().hex[:8]}.partial")
    try:
        with partial.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if committing:
            committing(partial)
        if replace:
            _keep_mode(path, partial)
            partial.replace(path)
        else:
            _link(partial, path)
        _flush_folder(path.parent)
    finally:
        partial.unlink(missing_ok=True)


def left_over(folder: Path, path: Path | None = None) -> list[Path]:
    """Hidden files of killed runs in a folder; of one result alone where `path` is given."""
    with contextlib.suppress(OSError):
        prefix = ".srx-" if path is None else _prefix(path)
        return [
            entry
            for entry in folder.iterdir()
            if entry.name.startswith(prefix) and entry.name.endswith(".partial")
        ]
    return []


def _prefix(path: Path) -> str:
    name = hashlib.sha256(os.fsencode(path.name)).hexdigest()[:16]
    return f".srx-{name}-"


def _keep_mode(path: Path, partial: Path) -> None:
    with contextlib.suppress(OSError):
        mode = path.lstat().st_mode
        if stat.S_ISREG(mode):
            partial.chmod(stat.S_IMODE(mode))


def _link(partial: Path, path: Path) -> None:
    try:
        os.link(partial, path)
    except FileExistsError as error:
        raise InputError(
            f"{path} appeared while the run went on, and was kept: remove it, or use --overwrite."
        ) from error
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOSPC, errno.EROFS, errno.EDQUOT):
            raise
        # A disk without hard links: an empty file takes the name first, and only one run can.
        try:
            path.open("xb").close()
        except FileExistsError as taken:
            raise InputError(f"{path} appeared while the run went on, and was kept.") from taken
        partial.replace(path)


def _flush_folder(folder: Path) -> None:
    """So that a power cut does not take the name back; where folders can be opened."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
