"""Files for what does not fit in memory: without a name, gone with the process, never short of
room once they are there."""

from __future__ import annotations

import os
import tempfile
from typing import IO

from sr_cli.errors import DeviceError, ModelError
from sr_cli.files import home, require_space, writing


def require_disk(nbytes: int) -> None:
    """Raise DeviceError unless scratch files of so many bytes in all have room."""
    try:
        with writing(home()):
            require_space(home(), nbytes)
    except ModelError as error:
        raise DeviceError(f"Memory is too small for this picture. {error}") from error


def scratch(nbytes: int) -> IO[bytes]:
    """A file of that size, unbuffered, in the user's folder, since /tmp may be memory too.

    All of it is allocated, so that a disk that others fill neither fails a later write nor ends a
    process that has it mapped. Raises DeviceError where the disk has no room.
    """
    try:
        with writing(home()):
            file = tempfile.TemporaryFile(dir=home(), buffering=0)  # noqa: SIM115
            try:
                if hasattr(os, "posix_fallocate"):
                    os.posix_fallocate(file.fileno(), 0, max(1, nbytes))
                else:
                    file.truncate(nbytes)
            except OSError:
                file.close()
                raise
    except ModelError as error:
        raise DeviceError(f"Memory is too small for this picture. {error}") from error
    return file
