"""What happens to each file of a batch, as frozen values."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from sr_cli.errors import ExitCode, SrxError


@dataclass(frozen=True)
class Job:
    """One input file and the file it becomes.

    replaces: whether that may replace what has its name. notes: what is known before the work.
    """

    input: Path
    output: Path
    replaces: bool = field(default=True, compare=False)
    notes: tuple[str, ...] = field(default=(), compare=False)


@dataclass(frozen=True)
class Planned:
    """What a run would do; sizes are (width, height)."""

    job: Job
    size_in: tuple[int, int]
    size_out: tuple[int, int]


@dataclass(frozen=True)
class Started:
    """This picture is read and the network begins, once it has enough of them for a batch."""

    job: Job


@dataclass(frozen=True)
class Stepped:
    """`done` of `total` network calls (solver steps × tiles) are behind this picture."""

    job: Job
    done: int
    total: int


@dataclass(frozen=True)
class Finished:
    """The output is written.

    Sizes are (width, height); `seconds` add reading, network and writing, for pictures of one batch
    by their share of its output pixels; `peak_memory` is in bytes, of the GPU where one is used,
    else None: no file's part of a process is known. `notes`: what went otherwise than usual.
    """

    job: Job
    size_in: tuple[int, int]
    size_out: tuple[int, int]
    seconds: float
    peak_memory: int | None
    notes: tuple[str, ...] = ()

    @property
    def megapixels_per_second(self) -> float:
        """Output megapixels for each second."""
        width, height = self.size_out
        return width * height / 1e6 / self.seconds


@dataclass(frozen=True)
class Failed:
    """This picture could not be read, enlarged or written.

    error: without its traceback and its cause once its listener has returned.
    """

    job: Job
    error: Exception

    @property
    def exit_code(self) -> ExitCode:
        """What a run that ended by this error would exit with."""
        return self.error.exit_code if isinstance(self.error, SrxError) else ExitCode.SOME_FAILED

    @property
    def reason(self) -> str:
        """One line for the user."""
        if isinstance(self.error, SrxError):
            return str(self.error)
        return f"{type(self.error).__name__}: {self.error}".rstrip(": ")


@dataclass(frozen=True)
class Skipped:
    """Nothing was done."""

    job: Job
    reason: str


Outcome = Planned | Finished | Failed | Skipped
Event = Started | Stepped | Outcome
