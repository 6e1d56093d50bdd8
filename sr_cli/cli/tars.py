"""Pictures in tar streams: one after another from stdin to stdout, or from files to stdout."""

from __future__ import annotations

import os
import shutil
import tarfile
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, cast

import typer

from sr_cli.cli.progress import Lines
from sr_cli.cli.streams import Piped, Stdin, Stdout, sending
from sr_cli.cli.ui import terminal
from sr_cli.engine.events import Event, Failed, Finished, Job, Started, Stepped
from sr_cli.errors import ExitCode, FullDiskError, InputError, SrxError, UsageError, is_full_disk

if TYPE_CHECKING:
    from sr_cli.cli.running import Run


class Results:
    """The tar of results on stdout; results are removed once they are in it."""

    def __init__(self, stream: Stdout) -> None:
        file = cast(IO[bytes], stream)
        self._tar = tarfile.open(fileobj=file, mode="w|", format=tarfile.PAX_FORMAT)  # noqa: SIM115
        self._writing = threading.Lock()

    def add(self, path: Path, name: str) -> None:
        """A file under its name, from any thread, with nothing of this machine's users."""
        with self._writing:
            entry = self._tar.gettarinfo(path, arcname=name)
            entry.uid = entry.gid = 0
            entry.uname = entry.gname = ""
            entry.mode = 0o644
            with path.open("rb") as file:
                self._tar.addfile(entry, file)
        path.unlink()

    def close(self) -> None:
        """The end of the archive."""
        self._tar.close()


class Members:
    """The pictures of a tar, each a job between temporary files of its own, when it is asked for.

    run: is told what they are called, and which of them fail before they are read.
    """

    def __init__(self, stream: Stdin, folder: Path, run: Run) -> None:
        self._stream, self._folder, self._run = stream, folder, run
        self._owners: dict[str, str] = {}
        self.others = 0

    def __iter__(self) -> Iterator[Job]:
        name = ""
        try:
            with tarfile.open(
                fileobj=cast(IO[bytes], self._stream), mode="r|", errorlevel=2
            ) as tar:
                for number, member in enumerate(tar):
                    name = member.name
                    if job := self._job(tar, member, self._folder / str(number)):
                        yield job
        except (tarfile.TarError, EOFError) as error:
            where = f"inside {name}" if name else "before its first file"
            reason = f"The tar on stdin is damaged or ends {where}: {error}."
            self._fail(Path(name or "stdin"), reason)

    def _job(self, tar: tarfile.TarFile, member: tarfile.TarInfo, folder: Path) -> Job | None:
        """A picture's job; None of what is none, or fails."""
        from sr_cli.engine.jobs import TWIN
        from sr_cli.engine.naming import file_name

        name = PurePosixPath(member.name)
        if member.isdir() or name.name.startswith("."):
            return None
        notes: tuple[str, ...] = ()
        try:
            source = _extracted(tar, member, folder)
            if source is None:
                self.others += 1
                return None
            result = file_name(source, self._run.options, self._run.files)
            named = str(name.parent / result)
            if named.casefold() in self._owners:  # which is written: this one gives way
                result = file_name(source, self._run.options, self._run.files, twin=True)
                named, notes = str(name.parent / result), (TWIN.format(result),)
            if owner := self._owners.get(named.casefold()):
                raise InputError(f"{owner} and {name} would both become {named}.")
        except FullDiskError:
            raise
        except (UsageError, InputError) as error:
            self._fail(Path(name), str(error))
            return None
        self._owners[named.casefold()] = str(name)
        job = Job(source, folder / "out" / result, notes=notes)
        self._run.aliases.names |= {job.input: str(name), job.output: named}
        return job

    def forget(self, job: Job) -> None:
        """Remove the files of a job that has ended."""
        shutil.rmtree(job.input.parent, ignore_errors=True)
        for path in (job.input, job.output):
            self._run.aliases.names.pop(path, None)

    def _fail(self, name: Path, reason: str) -> None:
        self._run.settle([Failed(Job(name, name), InputError(reason))])


def _extracted(tar: tarfile.TarFile, member: tarfile.TarInfo, folder: Path) -> Path | None:
    """A picture as a file in a folder of its own, with its time; None of what is no picture.

    Raises InputError where its name is none for a file here, FullDiskError without room.
    """
    from sr_cli.engine.signatures import SUFFIXES, resembles_picture

    name = PurePosixPath(member.name)
    data = tar.extractfile(member) if member.isreg() else None
    if data is None:
        return None
    if name.is_absolute() or ".." in name.parts:
        raise InputError(f"{name} names a place outside of the tar: rename it.")
    path = folder / name.name
    try:
        folder.mkdir()
        with data, path.open("wb") as file:
            shutil.copyfileobj(data, file)
    except OSError as error:
        kind = FullDiskError if is_full_disk(error) else InputError
        raise kind(f"{name} cannot be kept while it is enlarged: {error.strerror}.") from error
    with suppress(OSError, OverflowError):
        os.utime(path, (member.mtime, member.mtime))
    if path.suffix.lower() in SUFFIXES or resembles_picture(path):
        return path
    shutil.rmtree(folder)
    return None


def pipe_tar(run: Run, piped: Piped) -> None:
    """Enlarge the pictures of a tar, or those of the plan, each into the tar on stdout as soon as
    it is done.

    Raises:
        InputError: there is none in the tar.
        typer.Exit: interrupted, or nobody reads stdout any more.
    """
    from sr_cli.engine.batch import run as enlarge

    members = Members(piped.source, piped.output, run) if piped.source else None
    show = Lines(terminal, None if members else len(run.planned.jobs))
    for job in run.planned.jobs:
        run.aliases.names[job.output] = job.output.relative_to(piped.output).as_posix()

    def notify(event: Event) -> None:
        named = run.aliases.event(event)
        if isinstance(event, Finished):
            results.add(event.job.output, str(named.job.output))
        if not isinstance(named, Started | Stepped):
            if members:
                members.forget(event.job)
            run.outcomes.append(named)
        show(named)
        if isinstance(event, Failed) and not isinstance(event.error, SrxError):
            terminal.trace(event.error)

    try:
        with sending() as stdout:
            results = Results(stdout)
            enlarge(
                members or run.planned.jobs, run.options, run.loaded([]), notify, files=run.files
            )
            results.close()
    except KeyboardInterrupt:
        terminal.line("interrupted")
        raise typer.Exit(ExitCode.INTERRUPTED) from None
    if members and members.others:
        terminal.note(f"Other files in the tar, left out: {members.others}.")
    if not run.outcomes:
        raise InputError("There is no image in the tar on stdin.")
