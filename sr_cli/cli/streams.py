"""Where pictures come from and go to beside files and folders: lists of names, stdin, stdout."""

from __future__ import annotations

import codecs
import os
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, TypeVar

import typer

from sr_cli.cli.ui import terminal
from sr_cli.engine.events import Event, Failed
from sr_cli.engine.options import OutputOptions
from sr_cli.errors import ExitCode, FullDiskError, GoneError, SrxError, UsageError, is_full_disk
from sr_cli.files import is_file

STREAM = Path("-")
BLOCK: Final = 512
"""Bytes of a tar's header, of which its first is enough to know it."""
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

    Raises UsageError where it cannot be read, or is in UTF-16.
    """
    try:
        data = sys.stdin.buffer.read() if path == STREAM else path.read_bytes()
    except OSError as error:
        raise UsageError(f"The list {path} cannot be read: {error.strerror}.") from error
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise UsageError(f"The list {path} is in UTF-16: save it as UTF-8.")
    data = data.removeprefix(codecs.BOM_UTF8)
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
        for path in sorted(self.names, key=lambda path: len(str(path)), reverse=True):
            text = text.replace(str(path), self.names[path])
        return text


class Stdin:
    """Bytes of stdin, of which the first have been looked at."""

    def __init__(self) -> None:
        if sys.stdin.isatty():
            raise UsageError("stdin is a terminal: name a file, or send a picture through a pipe.")
        self.head = sys.stdin.buffer.read(BLOCK)
        self._ahead = self.head

    @property
    def is_tar(self) -> bool:
        """Whether a tar without compression begins here."""
        return self.head[257:262] == b"ustar"

    def read(self, size: int = -1) -> bytes:
        """At most so many bytes; all where it is negative."""
        if size < 0:
            size = sys.maxsize
        taken, self._ahead = self._ahead[:size], self._ahead[size:]
        rest = size - len(taken)
        return taken + sys.stdin.buffer.read(-1 if size == sys.maxsize else rest)


class ClosedError(GoneError):
    """Nobody reads stdout any more: the run ends."""


class Stdout:
    """Bytes to stdout."""

    def write(self, data: bytes | memoryview) -> int:
        """All of these bytes, now.

        Raises ClosedError where nobody reads them, FullDiskError where they have no room.
        """
        try:
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()
        except BrokenPipeError as error:
            _close()
            raise ClosedError("Nobody reads stdout any more.") from error
        except OSError as error:
            kind = FullDiskError if is_full_disk(error) else GoneError
            raise kind(f"stdout cannot be written: {error.strerror}.") from error
        return len(data)


def _close() -> None:
    """Let stdout lead nowhere: what is left would be written again at the exit."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@contextmanager
def sending() -> Iterator[Stdout]:
    """stdout for pictures. A reader that goes away ends it with a note and exit code 1.

    Raises UsageError where it is a terminal, or closed.
    """
    if sys.__stdout__ is None:  # sys.stdout then leads nowhere
        raise UsageError("stdout is closed: end the line with > FILE, or with a pipe.")
    if sys.stdout.isatty():
        raise UsageError("stdout is a terminal: end the line with > FILE, or with a pipe.")
    try:
        yield Stdout()
    except ClosedError as error:
        terminal.note(str(error))
        raise typer.Exit(ExitCode.SOME_FAILED) from None
    except (FullDiskError, GoneError):
        _close()
        raise


@dataclass
class Piped:
    """The arguments, with files instead of streams.

    arguments, output: none of them is `-`. aliases: what people read for temporary files. tar: the
    results go to stdout as a tar, of the pictures of the tar `source` or of those of files.
    """

    arguments: list[Path]
    output: Path
    aliases: Aliases = field(default_factory=Aliases)
    tar: bool = False
    source: Stdin | None = None


@contextmanager
def streams(
    arguments: list[Path],
    output: Path,
    files: OutputOptions,
    *,
    others: Iterable[str],
    dry_run: bool,
) -> Iterator[Piped]:
    """The arguments with files instead of stdin and stdout, which for one picture is written at the
    end. others: options that contradict an output on stdout."""
    if STREAM not in (*arguments, output):
        yield Piped(arguments, output)
        return
    if len(arguments) > 1 and STREAM in arguments:
        raise UsageError("stdin (-) is one picture or one tar: name files or folders without it.")
    if output == STREAM and (flags := " and ".join(others)):
        raise UsageError(f"{flags} and results on stdout (-) exclude each other: name an output.")
    with tempfile.TemporaryDirectory(prefix="srx-") as name:
        folder = Path(name)
        stdin = Stdin() if STREAM in arguments else None
        if stdin and stdin.is_tar:
            if dry_run:
                raise UsageError("--dry-run lists files, and stdin is a tar: leave it out.")
            if output != STREAM:
                raise UsageError(
                    "stdin is a tar, whose results are a tar on stdout: srx upscale - - > x.tar, "
                    f"or srx upscale - - | tar x -C {output}"
                )
            yield Piped([], folder, Aliases({folder: "stdout"}), tar=True, source=stdin)
        elif output == STREAM and not (stdin or (len(arguments) == 1 and is_file(arguments[0]))):
            yield Piped(arguments, folder, Aliases({folder: "stdout"}), tar=True)
        else:
            with _one_picture(arguments[0], output, files, folder, stdin) as piped:
                yield piped


@contextmanager
def _one_picture(
    source: Path, output: Path, files: OutputOptions, folder: Path, stdin: Stdin | None
) -> Iterator[Piped]:
    names = {}
    if stdin:
        source = folder / "stdin"
        names[source] = "stdin"
        with source.open("wb") as file:
            shutil.copyfileobj(stdin, file)
    if output != STREAM:
        yield Piped([source], output, Aliases(names))
        return
    chosen = files.format if files.format not in (None, "same") else "png"
    result = folder / f"stdout.{chosen}"
    names[result] = "stdout"
    with sending() as stdout:
        yield Piped([source], result, Aliases(names))
        if result.exists():
            with result.open("rb") as file:
                shutil.copyfileobj(file, stdout)
