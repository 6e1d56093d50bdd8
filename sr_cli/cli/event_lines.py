"""`--json-events`: what happens, as lines of JSON on stdout while it does.

The lines are the dataclasses below; events.schema.json in the package is their JSON Schema.
"""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal, TextIO

import typer

from sr_cli import __version__
from sr_cli.engine.events import Event, Failed, Finished, Planned, Skipped, Started, Stepped
from sr_cli.errors import ExitCode, SrxError

VERSION: Final = 1
"""Of the lines: it rises when a field goes or changes its meaning. New ones may come without."""
SCHEMA: Final = "events.schema.json"
"""Its file, beside the package's modules."""


class _Closed:
    """A line that has no other fields than these."""

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012  (pydantic's own form)


@dataclass(frozen=True)
class RunLine(_Closed):
    """The first line: `srx` began. version: of these lines."""

    event: Literal["run"]
    version: Literal[1]
    srx: str


@dataclass(frozen=True)
class CollectedLine(_Closed):
    """So many files were found, of which each ends with one line that is planned, finished, failed
    or skipped. With --watch there are more such lines."""

    event: Literal["collected"]
    inputs: int


@dataclass(frozen=True)
class StartedLine(_Closed):
    """A picture is read."""

    event: Literal["started"]
    input: str
    output: str


@dataclass(frozen=True)
class SteppedLine(_Closed):
    """`done` of `total` network calls are behind this picture."""

    event: Literal["stepped"]
    input: str
    output: str
    done: int
    total: int


@dataclass(frozen=True)
class PlannedLine(_Closed):
    """What a run would do (--dry-run); sizes are [width, height]."""

    event: Literal["planned"]
    input: str
    output: str
    size_in: tuple[int, int]
    size_out: tuple[int, int]


@dataclass(frozen=True)
class FinishedLine(_Closed):
    """The output is written; sizes are [width, height], the peak is of the GPU's memory."""

    event: Literal["finished"]
    input: str
    output: str
    size_in: tuple[int, int]
    size_out: tuple[int, int]
    seconds: float
    megapixels_per_second: float
    peak_memory_bytes: int | None
    notes: tuple[str, ...]


@dataclass(frozen=True)
class FailedLine(_Closed):
    """There is no output, and why; exit_code: 1 for this picture's own fault, 2 for that of an
    option, 3 of a model, 4 of the device or its memory."""

    event: Literal["failed"]
    input: str
    output: str
    reason: str
    exit_code: int


@dataclass(frozen=True)
class SkippedLine(_Closed):
    """Nothing was to do."""

    event: Literal["skipped"]
    input: str
    output: str
    reason: str


@dataclass(frozen=True)
class EndLine(_Closed):
    """The last line. error: what ended the run before its time."""

    event: Literal["end"]
    exit_code: int
    error: str | None


Line = (
    RunLine
    | CollectedLine
    | StartedLine
    | SteppedLine
    | PlannedLine
    | FinishedLine
    | FailedLine
    | SkippedLine
    | EndLine
)


def line_of(event: Event) -> Line:
    """An event as its line."""
    files = str(event.job.input), str(event.job.output)
    match event:
        case Started():
            return StartedLine("started", *files)
        case Stepped(_, done, total):
            return SteppedLine("stepped", *files, done, total)
        case Planned(_, size_in, size_out):
            return PlannedLine("planned", *files, size_in, size_out)
        case Skipped(_, reason):
            return SkippedLine("skipped", *files, reason)
        case Failed():
            return FailedLine("failed", *files, event.reason, event.exit_code)
        case Finished():
            return FinishedLine(
                "finished",
                *files,
                event.size_in,
                event.size_out,
                event.seconds,
                event.megapixels_per_second,
                event.peak_memory,
                event.notes,
            )


class Listener:
    """Who is told of events, from any thread; this one keeps them to itself."""

    def collected(self, inputs: int) -> None:
        """So many files were found."""

    def __call__(self, event: Event) -> None:
        """Something happened."""


class Writer(Listener):
    """Writes lines. Once nobody reads them any more it does so no more: that costs no picture."""

    def __init__(self, stream: TextIO) -> None:
        self._stream: TextIO | None = stream
        self._writing = threading.Lock()

    def collected(self, inputs: int) -> None:
        self.write(CollectedLine("collected", inputs))

    def __call__(self, event: Event) -> None:
        self.write(line_of(event))

    def write(self, line: Line) -> None:
        """One line, at once."""
        with self._writing:
            if self._stream is None:
                return
            try:
                print(json.dumps(asdict(line)), file=self._stream, flush=True)
            except (OSError, ValueError):  # a pipe without reader; closed
                self._stream = None


@contextmanager
def event_lines(*, wanted: bool) -> Iterator[Listener]:
    """Who is told of what happens: on stdout, between a first and a last line, if `wanted`."""
    if not wanted:
        yield Listener()
        return
    writer = Writer(sys.stdout)
    writer.write(RunLine("run", VERSION, __version__))
    code, reason = int(ExitCode.SOME_FAILED), None
    try:
        yield writer
        code = ExitCode.DONE
    except typer.Exit as ending:
        code = ending.exit_code
        raise
    except KeyboardInterrupt:
        code = ExitCode.INTERRUPTED
        raise
    except Exception as error:
        reason = str(error)
        code = error.exit_code if isinstance(error, SrxError) else code
        raise
    finally:
        writer.write(EndLine("end", code, reason))


def schema() -> dict[str, Any]:
    """The JSON Schema of a line, by pydantic out of the dataclasses above."""
    from pydantic import TypeAdapter

    document: dict[str, Any] = TypeAdapter(Line).json_schema(mode="serialization")
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"A line of srx --json-events, version {VERSION}",
        **document,
    }
