"""What can go wrong, by exit code. Messages are whole sentences: what, which file, what next."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum


class ExitCode(IntEnum):
    """How a command ended."""

    DONE = 0
    SOME_FAILED = 1
    WRONG_USAGE = 2
    MODEL = 3
    DEVICE = 4
    INTERRUPTED = 130


class SrxError(Exception):
    """Base of every error that srx reports without a traceback."""

    exit_code = ExitCode.SOME_FAILED


class InputError(SrxError):
    """One input cannot be read or one output cannot be written; the batch goes on."""


class DamagedError(InputError):
    """One input is a picture of which a part is missing or wrong."""


class NoRoomError(InputError):
    """One input does not fit into the memory that is free."""

    exit_code = ExitCode.DEVICE


class FullDiskError(InputError):
    """An output has no room, nor would the next have: the batch ends."""


class GoneError(InputError):
    """The output folder was removed, with what was done: the batch ends."""


class UsageError(SrxError):
    """An option or argument has a value that makes no sense."""

    exit_code = ExitCode.WRONG_USAGE


class ModelError(SrxError):
    """A model, its weights or its card is missing, damaged or of the wrong kind."""

    exit_code = ExitCode.MODEL


class DeviceError(SrxError):
    """The device is missing or its memory does not suffice."""

    exit_code = ExitCode.DEVICE


class BrokenDeviceError(DeviceError):
    """The device failed and does nothing more in this process: the batch ends."""


NO_MEMORY = (
    "allocate memory",
    "bad_alloc",
    "can't start new thread",
    "failed to map segment",
    "insufficient memory",
    "not enough memory",
    "out of memory",
    "cublas_status_alloc_failed",
    "cublas_status_not_initialized",
    "cudnn_status_alloc_failed",
    "cudnn_status_not_initialized",
    "unable to find an engine to execute this computation",
    "unable to find a valid cudnn algorithm",
)
"""Words, in lower case, of allocators that gave up: of glibc and its loader, C++, OpenCV, Python
without room for a stack, Windows, CUDA and MPS, and of cuBLAS and cuDNN when there is no room for
them or for any of their algorithms."""
NO_PRIMITIVE = "could not create a primitive"
"""How oneDNN's message ends where there is no room for a kernel; where it has no such kernel, more
words follow."""
BROKEN = ("CUDA error:", "HIP error:")
"""How torch begins to tell of a failed kernel, after which every other call fails too."""


def is_full_disk(error: BaseException) -> bool:
    """Whether a write failed for want of room, on the disk or of the user's share of it."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the allocator of any device gave up (torch.OutOfMemoryError is a RuntimeError)."""
    if isinstance(error, MemoryError) or getattr(error, "errno", None) == errno.ENOMEM:
        return True
    text = str(error).lower()
    known = isinstance(error, RuntimeError | ImportError) or type(error).__module__ == "cv2"
    return known and (text.endswith(NO_PRIMITIVE) or any(words in text for words in NO_MEMORY))


@contextmanager
def enough_memory(what: str, advice: str = "") -> Iterator[None]:
    """Make a DeviceError of what an allocator raises: `what` does not fit, and what may help.

    Of any other error of CUDA's or HIP's it makes a BrokenDeviceError.
    """
    try:
        yield
    except Exception as error:
        if is_out_of_memory(error):
            raise DeviceError(
                f"There is too little free memory for {what}: "
                f"{advice}close other programs or use another --device."
            ) from error
        if isinstance(error, RuntimeError) and any(words in str(error) for words in BROKEN):
            reason = str(error).partition("\n")[0]
            raise BrokenDeviceError(
                f"The device failed at {what} ({reason}): "
                "run the same command again, or use another --device."
            ) from error
        raise
