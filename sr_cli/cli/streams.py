"""Where pictures come from and go to beside files and folders: lists of names, stdin, stdout."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from sr_cli.engine.events import Event, Failed
from sr_cli.engine.options import OutputOptions
from sr_cli.errors import InputError, SrxError, UsageError

STREAM = Path("-")
AnyEvent = TypeVar("AnyEvent", bound=Event)


def given(
    inputs: Sequence[Path] | None, output: Path | None, files_from: Path | None
) -> tuple[list[Path], Path]:
    """The arguments, with those of a list. Raises UsageError where some are missing."""
    arguments = list(inputs or [])
    if output is None:
        raise UsageError("INPUT and OUTPUT are missing: srx upscale photo.png out/")
    if not (arguments or files_from):  # the only argument is taken for the last
        raise UsageError(f"OUTPUT is missing: srx upscale {output} out/")
    if files_from:
        arguments += listed(files_from)
    if not arguments:
        raise UsageError(f"{files_from} names no file.")
    return arguments, output


def listed(path: Path) -> list[Path]:
    """The names in a file, or in stdin for "-": one a line, or between zero bytes (`find -print0`).

    Raises UsageError where it cannot be read.
    """
    try:
        data = sys.stdin.buffer.read() if path == STREAM else path.read_bytes()
    except OSError as error:
        raise UsageError(f"The list {path} cannot be read: {error.strerror}.") from error
    names = data.split(b"\0") if b"\0" in data else data.splitlines()
    found = [Path(name.decode(errors="surrogateescape")) for name in names if name.strip()]
    if STREAM in found:
        raise UsageError(f"The list {path} names -, which is no file.")
    return found


class Aliases:
    """What people read where a file has a temporary path: the names of streams.

    names: what is read, by path.
    """

    def __init__(self, names: dict[Path, str] | None = None) -> None:
        self.names = names or {}

    def path(self, path: Path) -> Path:
        """The name of a file."""
        return Path(self.names.get(path, path))

    def event(self, event: AnyEvent) -> AnyEvent:
        """An event of files by their names, in the reason of a failure too."""
        job = replace(
            event.job, input=self.path(event.job.input), output=self.path(event.job.output)
        )
        if isinstance(event, Failed) and isinstance(event.error, SrxError):
            return replace(event, job=job, error=type(event.error)(self.text(str(event.error))))
        return replace(event, job=job)

    def text(self, text: str) -> str:
        """A sentence that says names instead of paths."""
        for path, name in self.names.items():
            text = text.replace(str(path), name)
        return text


@contextmanager
def streams(
    arguments: list[Path], output: Path, files: OutputOptions, *, reports: bool
) -> Iterator[tuple[list[Path], Path, Aliases]]:
    """The arguments with files instead of stdin and stdout, which is written at the end."""
    if STREAM not in (*arguments, output):
        yield arguments, output, Aliases()
        return
    if len(arguments) > 1:
        raise UsageError("stdin and stdout (-) are for one picture alone: name files or folders.")
    if reports and output == STREAM:
        raise UsageError(
            "--json or --json-events and the picture would both go to stdout: name an output file."
        )
    with tempfile.TemporaryDirectory(prefix="srx-") as name:
        source, result = arguments[0], output
        if source == STREAM:
            source = Path(name) / "stdin"
            with source.open("wb") as file:
                shutil.copyfileobj(sys.stdin.buffer, file)
        if output == STREAM:
            if source.is_dir():
                raise UsageError(f"{source} is a folder; stdout (-) takes one picture.")
            chosen = files.format if files.format not in (None, "same") else "png"
            result = Path(name) / f"stdout.{chosen}"
        names = {source: "stdin"} if arguments[0] == STREAM else {}
        aliases = Aliases(names | ({result: "stdout"} if output == STREAM else {}))
        yield [source], result, aliases
        if output == STREAM and result.exists():
            _send(result)


def _send(result: Path) -> None:
    try:
        with result.open("rb") as file:
            shutil.copyfileobj(file, sys.stdout.buffer)
        sys.stdout.buffer.flush()
    except OSError as error:
        raise InputError(f"The picture cannot be written to stdout: {error.strerror}.") from error
