"""Files that appear whole or not at all; the user's folder; digests and room on the disk."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
import stat
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from platformdirs import user_data_path

from sr_cli.errors import InputError, ModelError

Committing = Callable[[Path], None]
"""Told of the whole file under its hidden name, before it takes its own."""
_PREFIX = len(".srx-") + 16 + len("-")


def home() -> Path:
    """$SRX_HOME, else the user's data folder: cache cleaners should not cost anybody gigabytes."""
    chosen = os.environ.get("SRX_HOME")
    return Path(chosen).expanduser() if chosen else user_data_path("srx")


def is_file_name(name: object) -> bool:
    """Whether a name that came from elsewhere is one of a plain file: it leads to no other folder,
    hides nothing, and is a word on every disk and terminal."""
    return isinstance(name, str) and bool(re.fullmatch(r"[A-Za-z0-9_][\w.+ -]{0,199}", name))


def is_file(path: Path) -> bool:
    """As Path.is_file, and False where that cannot be known: below a folder that may not be
    entered, or of a name that is too long."""
    with suppress(OSError):
        return path.is_file()
    return False


def is_folder(path: Path) -> bool:
    """As Path.is_dir, and False where that cannot be known."""
    with suppress(OSError):
        return path.is_dir()
    return False


def digest(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def require_space(folder: Path, needed: int) -> None:
    """Raise ModelError unless `needed` bytes are free where `folder` is or will be."""
    existing = next(path for path in (folder, *folder.parents) if path.is_dir())
    free = shutil.disk_usage(existing).free
    if free < needed:
        raise ModelError(
            f"{folder} needs {needed / 1e9:.1f} GB and its disk has {free / 1e9:.1f} GB free: "
            "make room, or let SRX_HOME name a folder on a larger disk."
        )


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Make `folder`, and turn failures to write in it into ModelError."""
    from safetensors import SafetensorError

    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ModelError(
            f"{folder} cannot be written ({reason}): make room or set its rights, "
            "or let SRX_HOME name another folder."
        ) from error


@contextmanager
def whole(
    path: Path, *, replace: bool = True, committing: Committing | None = None
) -> Iterator[Path]:
    """A hidden, empty file beside `path`, which takes its name when `with` ends well.

    Until then nothing has the name that had it not before; where `with` fails, the hidden file is
    removed. What is written is on the disk before it takes its name. A file that it replaces gives
    it its mode, and a link is replaced itself, not what it points to.

    Raises InputError where `replace` is false and something of this name has appeared, which stays.
    """
    partial = path.with_name(f"{_prefix(path.name)}{uuid4().hex[:8]}.partial")
    try:
        partial.open("xb").close()
        mode = _mode(path) or _mode(partial)
        yield partial
        _flush(partial, os.O_RDWR)  # Windows flushes only what may be written
        if committing:
            committing(partial)
        if mode:
            with suppress(OSError):
                partial.chmod(mode)  # safetensors makes files for their owner alone
        if replace:
            partial.replace(path)
        else:
            _link(partial, path)
        with suppress(OSError):  # a power cut shall not take the name back
            _flush(path.parent, os.O_RDONLY)
    finally:
        partial.unlink(missing_ok=True)


def left_over(folder: Path, names: Collection[str] | None = None) -> list[Path]:
    """Hidden files of killed runs in a folder; of results of these names alone if there are any."""
    with suppress(OSError):
        found = [
            entry
            for entry in folder.iterdir()
            if entry.name.startswith(".srx-") and entry.name.endswith(".partial")
        ]
        if found and names is not None:
            prefixes = {_prefix(name) for name in names}
            found = [entry for entry in found if entry.name[:_PREFIX] in prefixes]
        return found
    return []


def _prefix(name: str) -> str:
    return f".srx-{hashlib.sha256(os.fsencode(name)).hexdigest()[:16]}-"


def _mode(path: Path) -> int | None:
    """Of a regular file, else None."""
    with suppress(OSError):
        mode = path.lstat().st_mode
        return stat.S_IMODE(mode) if stat.S_ISREG(mode) else None
    return None


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


def _flush(path: Path, flags: int) -> None:
    handle = os.open(path, flags)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
