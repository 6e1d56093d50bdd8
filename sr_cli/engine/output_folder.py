"""The folder of the results while a run works on it: made, locked, tidied."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Final

from filelock import FileLock, Timeout

from sr_cli.engine.manifest import Manifest
from sr_cli.engine.shards import Shard
from sr_cli.errors import InputError
from sr_cli.files import left_over

LOCK: Final = ".srx-lock"
PATIENCE = 30.0
"""Seconds that a shard waits for the lock of the folder, which the others hold for a moment."""


@contextmanager
def working(
    output: Path, results: Collection[Path], *, single: bool, shard: Shard | None = None
) -> Iterator[Manifest]:
    """The manifest of the output while nobody else works on it.

    output: a folder, or with `single` a file, of which alone others keep off; with a shard, all but
    the others of as many. results: which are tidied of what killed runs left. A lock is of a
    process, and ends with it.
    Raises InputError where another run works there, or the folder cannot be made or written.
    """
    folder = output.parent if single else output
    made = _make(folder)
    try:
        with _locked(output, folder, single=single, shard=shard):
            tidy(folder, results, alone=not (single or shard))
            manifest = Manifest(folder, shard.label if shard else "")
            manifest.watch()
            try:
                if not (single or shard):
                    manifest.absorb()  # of a run on a cluster that was killed
                yield manifest
            finally:
                with suppress(OSError):
                    if not (single or shard):
                        manifest.absorb()
                    manifest.close()
    finally:
        if shard is None:  # another may be about to use them
            for path in reversed(made):  # but what has become of use
                with suppress(OSError):
                    path.rmdir()


@contextmanager
def _locked(output: Path, folder: Path, *, single: bool, shard: Shard | None) -> Iterator[None]:
    """A run has the lock of the folder, or of its file; a shard has one of its own, that it takes
    while it has the folder's for a moment."""
    whole = folder / (f"{LOCK}-{output.name}"[:200] if single else LOCK)
    with ExitStack() as held:
        try:
            if shard is None:
                held.enter_context(_lock(whole))
                if not single:
                    _keep_off(folder, None)
            else:
                with _lock(whole, PATIENCE):
                    _keep_off(folder, shard)
                    held.enter_context(_lock(folder / f"{LOCK}.{shard.label}"))
        except Timeout as error:
            raise InputError(
                f"Another run of srx works on {output}: wait for its end, or name another output."
            ) from error
        except OSError as error:
            reason = error.strerror
            raise InputError(f"The folder {folder} is not writable: {reason}.") from error
        yield


@contextmanager
def _lock(path: Path, patience: float = 0) -> Iterator[None]:
    """Raises Timeout and OSError."""
    lock = FileLock(path, timeout=patience)
    lock.acquire()
    try:
        yield
    finally:
        with suppress(OSError):
            path.unlink()
        lock.release()


def _keep_off(folder: Path, shard: Shard | None) -> None:
    """Raise Timeout where a shard works, but for those of as many as this one."""
    for path in folder.glob(f"{LOCK}.*-of-*"):
        if shard is None or not path.name.endswith(f"-of-{shard.count}"):
            with _lock(path):
                pass


def tidy(folder: Path, results: Collection[Path], *, alone: bool) -> None:
    """Remove what killed runs left of these results, or, if nobody else works there, of any.

    alone: no other run has the folder; one of a single file may be at work in it all the same.
    """
    names: defaultdict[Path, set[str]] = defaultdict(set)
    names[folder] = set()
    for path in results:
        names[path.parent].add(path.name)
    for place, own in names.items():
        every = alone and not _has_single(place)
        for path in left_over(place, None if every else own):
            path.unlink(missing_ok=True)


def _has_single(folder: Path) -> bool:
    """Whether a run of a single file works in a folder."""
    try:
        for path in folder.glob(f"{LOCK}-*"):
            with _lock(path):  # of a run that was killed, and goes with it
                pass
    except (Timeout, OSError):
        return True
    return False


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
