"""What is known of results, beside them: a line of JSON for each thing that happened to a picture.

A line is appended whole before a result takes its name, so that after a kill at any moment a result
that is there has a line, and a line that was cut is the last one and is not counted.
"""

from __future__ import annotations

import json
import os
import threading
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, Final

from sr_cli import __version__
from sr_cli.engine.events import Failed, Finished, Job, Outcome
from sr_cli.engine.options import OutputOptions, UpscaleOptions
from sr_cli.errors import FullDiskError, GoneError, InputError, is_full_disk
from sr_cli.files import digest

NAME: Final = ".srx-manifest.jsonl"
WORKER: Final = "worker-"
"""How the labels of a cluster's workers begin."""
_LONGEST = 1 << 16  # bytes of a line that is read
_MACHINE = {"tile", "batch"}  # which no pixel depends on by more than one 8-bit level
_WRITTEN = {"format", "quality", "strip", "tag"}


@dataclass(frozen=True, slots=True)
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
        return {**_usual(), **options} == {**_usual(), **self.options}


class Manifest:
    """The manifest of a folder; `add` makes the file. Whatever is in it, reading it raises nothing.

    Each shard of a run and each worker of a cluster writes a file of its own, and reads the others'
    when it meets a result that it does not know.

    folder: of the results. label: of the shard or worker. unfinished: inputs on which the last runs
    ended without a word.
    """

    def __init__(self, folder: Path, label: str = "") -> None:
        self.folder = folder
        self.path = folder / name_of(label)
        self.unfinished: Counter[str] = Counter()
        self._done: defaultdict[str, list[_Result]] = defaultdict(list)
        self._recipes: dict[str, tuple[Any, Any]] = {}
        self._identity: tuple[int, int] | None = None
        self._writing = threading.Lock()
        self._begun: dict[str, Job] = {}
        self._others = [path for path in parts(folder) if path != self.path]
        self._torn = self._read(self.path)
        if not label:
            self._read_others()

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
        return bool(self._results(path))

    def is_done(self, job: Job, recipe: Recipe) -> bool:
        """Whether the result is whole, and of this input and this recipe."""
        return any(
            recipe.is_same(*result.recipe)
            and result.source.is_same(job.input)
            and result.file.is_same(job.output)
            for result in reversed(self._results(job.output))
        )

    def is_ours(self, path: Path) -> bool:
        """Whether a file is, byte for byte, what some run wrote under this name."""
        digests = {result.file.sha256 for result in self._results(path)}
        with suppress(OSError):
            return bool(digests) and digest(path) in digests
        return False

    def _results(self, path: Path) -> list[_Result]:
        key = self._key(path)
        if key not in self._done:
            self._read_others()
        return self._done.get(key, [])

    def start(self, jobs: int) -> None:
        """Tell that a run begins, and how many pictures it has to do."""
        self._add({"status": "run", "pictures": jobs})

    def settled(self, outcomes: Iterable[Outcome]) -> None:
        """Tell of pictures that failed before anything was done."""
        for outcome in outcomes:
            if isinstance(outcome, Failed):
                self.end(outcome.job, outcome.reason)

    def begin(self, job: Job) -> None:
        """Name a picture before it is opened."""
        with self._writing:
            self._begun[str(job.input)] = job
        self.add("begun", job)

    def done(
        self, finished: Finished, recipe: Recipe, source: File, partial: Path, seconds: float
    ) -> None:
        """Tell of a result that is about to take its name; seconds: it took up to now."""
        facts = {
            "options": recipe.options,
            "networks": recipe.networks,
            "source": asdict(source),
            "result": asdict(file_of(partial)),
            "size_in": finished.size_in,
            "size_out": finished.size_out,
            "seconds": round(seconds, 3),
        }
        self.add("done", finished.job, facts, flush=True)
        files = {"input": str(finished.job.input), "output": self._key(finished.job.output)}
        self._take({"status": "done", **files, **facts})  # the run may come by again

    def end(self, job: Job, reason: str) -> None:
        """Tell that a picture failed, or was left."""
        with suppress(InputError):
            self.add("failed", job, {"reason": reason[:1000]})

    def absorb(self) -> None:
        """Take over what the workers of a cluster wrote, in the order in which it happened."""
        workers = parts(self.folder, WORKER)
        told = [line for path in workers for line, _ in read_lines(path) if isinstance(line, dict)]
        told.sort(key=lambda line: str(line.get("time")))
        text = "".join(json.dumps(line) + "\n" for line in told)
        with suppress(OSError):  # then the next run does
            if text:
                with self._writing:
                    self._append(("\n" * self._torn + text).encode(), flush=True)
            for path in workers:
                path.unlink(missing_ok=True)

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
        self._add(head | dict(facts or {}), flush=flush)

    def _add(self, facts: Mapping[str, Any], *, flush: bool = False) -> None:
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        line = json.dumps({**facts, "time": now, "srx": __version__})
        with self._writing:
            try:
                self._append(("\n" * self._torn + line + "\n").encode(), flush=flush)
            except OSError as error:
                kind = FullDiskError if is_full_disk(error) else InputError
                raise kind(f"{self.path} cannot be written: {error.strerror}.") from error

    def _append(self, data: bytes, *, flush: bool) -> None:
        self.check_folder()
        handle = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
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

    def _read_others(self) -> None:
        while self._others:
            self._read(self._others.pop(0))

    def _read(self, path: Path) -> bool:
        """Read a file of lines; whether its last one is cut."""
        torn = False
        for line, whole in read_lines(path):
            torn = not whole
            with suppress(ValueError, RecursionError, TypeError):
                self._take(line)
        return torn

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
        was, result = _file(line.get("source")), _file(line.get("result"))
        if status == "done" and was and result:
            recipe = line.get("options"), line.get("networks")
            recipe = self._recipes.setdefault(json.dumps(recipe), recipe)
            self._done[output].append(_Result(recipe, was, result))


@dataclass(frozen=True, slots=True)
class _Result:
    """Of a line: options and networks, which many share, the input and the result."""

    recipe: tuple[Any, Any]
    source: File
    file: File


def name_of(label: str = "") -> str:
    """The file that a run writes; label: of a shard, or of a worker of a cluster."""
    return NAME.replace(".jsonl", f".{label}.jsonl") if label else NAME


def parts(folder: Path, labels: str = "") -> list[Path]:
    """The files of a folder's manifest; labels: how those begin that are meant."""
    pattern = NAME.replace(".jsonl", f".{labels}*.jsonl" if labels else "*.jsonl")
    return sorted(path for path in folder.glob(pattern) if path.is_file())


def read_lines(path: Path) -> Iterator[tuple[Any, bool]]:
    """The values in a file of JSON, None where a line is none, and whether the line is whole.

    Raises nothing; a line of over 64 KiB is no line.
    """
    with suppress(OSError), path.open("rb") as file:
        while line := file.readline(_LONGEST):
            value = None
            with suppress(ValueError, RecursionError, TypeError):
                value = json.loads(line)
            yield value, line.endswith(b"\n")


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
    kept = {k: v for k, v in options.recorded.items() if k not in _MACHINE}
    if options.alone:
        kept["model"] = options.model_name  # the digest among the networks says which file
    return kept | {k: v for k, v in asdict(files).items() if k in _WRITTEN}


@cache
def _usual() -> dict[str, Any]:
    return _recorded(UpscaleOptions(), OutputOptions())


def _networks(options: UpscaleOptions) -> dict[str, str]:
    from sr_cli.models import alone, registry

    if options.alone:
        return {"model": alone.identity(options.model)}
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
