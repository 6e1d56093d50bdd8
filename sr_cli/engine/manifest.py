"""What is known of results, beside them: a line of JSON for each thing that happened to a picture.

A line is appended whole before a result takes its name, so that after a kill at any moment a result
that is there has a line, and a line that was cut is the last one and is not counted.
"""

from __future__ import annotations

import json
import os
import threading
from collections import Counter, defaultdict
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from sr_cli import __version__
from sr_cli.engine.events import Job
from sr_cli.engine.options import OutputOptions, UpscaleOptions
from sr_cli.errors import FullDiskError, GoneError, InputError, is_full_disk
from sr_cli.files import digest

NAME: Final = ".srx-manifest.jsonl"
_LONGEST = 1 << 16  # bytes of a line that is read
_MACHINE = {"tile", "batch"}  # which no pixel depends on by more than one 8-bit level
_WRITTEN = {"format", "quality", "strip", "tag"}


@dataclass(frozen=True)
class File:
    """What a file was: SHA-256, size in bytes, time of change in nanoseconds."""

    sha256: str
    bytes: int
    mtime_ns: int

    def is_same(self, path: Path) -> bool:
        """Whether a file still is this; its content is read only where its time has changed."""
        with suppress(OSError):
            stat = path.stat()
            if stat.st_size != self.bytes:
                return False
            return stat.st_mtime_ns == self.mtime_ns or digest(path) == self.sha256
        return False


@dataclass(frozen=True)
class Recipe:
    """What decides the pixels of a result beside its input: options by name, and the SHA-256 of
    each network by its part."""

    options: Mapping[str, Any]
    networks: Mapping[str, str]

    @staticmethod
    def of(options: UpscaleOptions, files: OutputOptions) -> Recipe:
        """Raises ModelError where a model is not there."""
        kept = _recorded(options, files)
        return Recipe(json.loads(json.dumps(kept)), _networks(options))

    def is_same(self, options: object, networks: object) -> bool:
        """Whether a line of a manifest tells of this recipe; an option that it lacks is younger
        than the line, and had its default."""
        if not isinstance(options, dict) or networks != self.networks:
            return False
        usual = _recorded(UpscaleOptions(), OutputOptions())
        return {**usual, **options} == {**usual, **self.options}


class Manifest:
    """The manifest of a folder; `add` makes the file. Whatever is in it, reading it raises nothing.

    folder: of the results. unfinished: inputs on which the last runs ended without a word.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.unfinished: Counter[str] = Counter()
        self._done: dict[str, Mapping[str, Any]] = {}
        self._digests: defaultdict[str, set[str]] = defaultdict(set)
        self._torn = False
        self._identity: tuple[int, int] | None = None
        self._writing = threading.Lock()
        self._begun: dict[str, Job] = {}
        self._read()

    def watch(self) -> None:
        """Remember which folder this is, for `check_folder`."""
        stat = self.folder.stat()
        self._identity = stat.st_dev, stat.st_ino

    def check_folder(self) -> None:
        """Raise GoneError where the folder is not the one that was watched."""
        if self._identity is None:
            return
        with suppress(OSError):
            stat = self.folder.stat()
            if (stat.st_dev, stat.st_ino) == self._identity:
                return
        raise GoneError(f"The output folder {self.folder} was removed while the run went on.")

    def knows(self, path: Path) -> bool:
        """Whether a run wrote a result of this name."""
        return self._key(path) in self._done

    def is_done(self, job: Job, recipe: Recipe) -> bool:
        """Whether the result is whole, and of this input and this recipe."""
        line = self._done.get(self._key(job.output))
        if line is None or not recipe.is_same(line.get("options"), line.get("networks")):
            return False
        source, result = _file(line.get("source")), _file(line.get("result"))
        if source is None or result is None:
            return False
        return source.is_same(job.input) and result.is_same(job.output)

    def is_ours(self, path: Path) -> bool:
        """Whether a file is, byte for byte, what some run wrote under this name."""
        digests = self._digests.get(self._key(path))
        with suppress(OSError):
            return bool(digests) and digest(path) in (digests or ())
        return False

    def begin(self, job: Job) -> None:
        """Name a picture before it is opened."""
        with self._writing:
            self._begun[str(job.input)] = job
        self.add("begun", job)

    def done(self, job: Job, recipe: Recipe, source: File, partial: Path) -> None:
        """Tell of a result that is about to take its name."""
        facts = {
            "options": recipe.options,
            "networks": recipe.networks,
            "source": asdict(source),
            "result": asdict(file_of(partial)),
        }
        self.add("done", job, facts, flush=True)

    def end(self, job: Job, reason: str) -> None:
        """Tell that a picture failed, or was left."""
        with suppress(InputError):
            self.add("failed", job, {"reason": reason[:1000]})

    def close(self) -> None:
        """Tell of those that were begun and are left: this run was not killed."""
        for job in list(self._begun.values()):
            self.end(job, "the run ended before it")

    def add(
        self, status: str, job: Job, facts: Mapping[str, Any] | None = None, *, flush: bool = False
    ) -> None:
        """Append a line. Raises FullDiskError or InputError where that is impossible."""
        with self._writing:
            if status != "begun":
                self._begun.pop(str(job.input), None)
            head = {"status": status, "output": self._key(job.output), "input": str(job.input)}
            now = datetime.now(UTC).isoformat(timespec="seconds")
            line = json.dumps({**head, "time": now, "srx": __version__, **(facts or {})})
            try:
                self._append(("\n" * self._torn + line + "\n").encode(), flush=flush)
            except OSError as error:
                kind = FullDiskError if is_full_disk(error) else InputError
                raise kind(f"{self.folder / NAME} cannot be written: {error.strerror}.") from error

    def _append(self, data: bytes, *, flush: bool) -> None:
        self.check_folder()
        handle = os.open(self.folder / NAME, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        try:
            self._torn = True
            written = os.write(handle, data)
            if written < len(data):
                os.write(handle, data[written:])  # says why it was cut
            self._torn = False
            if flush:
                os.fsync(handle)
        finally:
            os.close(handle)

    def _key(self, path: Path) -> str:
        return os.path.relpath(path, self.folder)

    def _read(self) -> None:
        with suppress(OSError), (self.folder / NAME).open("rb") as file:
            while line := file.readline(_LONGEST):
                self._torn = not line.endswith(b"\n")
                with suppress(ValueError, RecursionError, TypeError):
                    self._take(json.loads(line))

    def _take(self, line: Any) -> None:
        if not isinstance(line, dict):
            return
        status, source, output = (line.get(key) for key in ("status", "input", "output"))
        if not (isinstance(source, str) and isinstance(output, str)):
            return
        if status == "begun":
            self.unfinished[source] += 1
        elif status in ("done", "failed"):
            self.unfinished.pop(source, None)
        if status == "done" and (result := _file(line.get("result"))):
            self._done[output] = line
            self._digests[output].add(result.sha256)


def file_of(path: Path) -> File:
    """What a file is now. Raises OSError."""
    stat = path.stat()
    return File(digest(path), stat.st_size, stat.st_mtime_ns)


def _file(value: Any) -> File | None:
    if isinstance(value, dict) and value.keys() == {field.name for field in fields(File)}:
        found = File(**value)
        if isinstance(found.sha256, str):
            return found
    return None


def _recorded(options: UpscaleOptions, files: OutputOptions) -> dict[str, Any]:
    kept = {k: v for k, v in asdict(options).items() if k not in _MACHINE}
    return kept | {k: v for k, v in asdict(files).items() if k in _WRITTEN}


def _networks(options: UpscaleOptions) -> dict[str, str]:
    from sr_cli.models import registry

    names = {"model": options.model if options.method == "dossr" else options.prior}
    first = options.preprocess
    if first is None and options.method == "dossr":
        first = registry.card(options.model).limits.preprocess
    if first is not None:
        names["preprocess"] = str(first)
    known = registry.names()
    found = {}
    for part, name in names.items():
        if name in known:
            found[part] = registry.card(name).identity
        else:
            found[part] = digest(Path(name)) if Path(name).is_file() else name
    return found
