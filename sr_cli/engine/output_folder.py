"""The folder of the results while a run works on it: made, locked, tidied."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from filelock import FileLock, Timeout

from sr_cli.engine.manifest import Manifest
from sr_cli.errors import InputError
from sr_cli.files import left_over

LOCK: Final = ".srx-lock"


@contextmanager
def working(output: Path, folders: Collection[Path], *, single: bool) -> Iterator[Manifest]:
    """The manifest of the output while nobody else works on it.

    output: a folder, or with `single` a file, of which alone others keep off. folders: of results,
    which are tidied of what killed runs left. A lock is of a process, and ends with it.
    Raises InputError where another run works there, or the folder cannot be made or written.
    """
    folder = output.parent if single else output
    made = _make(folder)
    lock_file = folder / (f"{LOCK}-{output.name}"[:200] if single else LOCK)
    lock = FileLock(lock_file, timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise InputError(
            f"Another run of srx works on {output}: wait for its end, or name another output."
        ) from error
    except OSError as error:
        raise InputError(f"The folder {folder} is not writable: {error.strerror}.") from error
    try:
        for place in {folder, *folders}:
            for path in left_over(place, output if single else None):
                path.unlink(missing_ok=True)
        manifest = Manifest(folder)
        manifest.watch()
        try:
            yield manifest
        finally:
            with suppress(OSError):
                manifest.close()
    finally:
        with suppress(OSError):
            lock_file.unlink()
        lock.release()
        for path in reversed(made):  # but what has become of use
            with suppress(OSError):
                path.rmdir()


def check_writable(folder: Path) -> None:
    """Raise InputError where results could not be written, without making anything."""
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not existing.is_dir():
        raise InputError(f"The folder {folder} cannot be made: {existing} is a file.")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise InputError(f"The folder {existing} is not writable.")


def _make(folder: Path) -> list[Path]:
    """Make a folder; those that there were not, the outermost first."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    check_writable(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"The folder {folder} cannot be made: {error.strerror}.") from error
    return missing[::-1]
