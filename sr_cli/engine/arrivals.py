"""Pictures that come into folders, each as a job once it is complete."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sr_cli.engine import collisions
from sr_cli.engine.events import Failed, Job
from sr_cli.engine.inputs import Links, NoImageError, collect
from sr_cli.engine.jobs import Plan, named, told_apart
from sr_cli.engine.options import OutputOptions, UpscaleOptions
from sr_cli.errors import InputError

SETTLED: Final = 1.0
"""Seconds for which a complete file has not changed."""
UNFINISHED: Final = frozenset(
    {".crdownload", ".download", ".filepart", ".opdownload", ".part", ".partial", ".tmp"}
)
"""Suffixes under which browsers and copying programs write, until they give the file its name."""

State = tuple[int, int, int]


@dataclass(frozen=True)
class _Sight:
    """What a file was when it was seen, since when it is that, and whether it has been a job."""

    state: State
    since: float
    given: bool = False


class Arrivals:
    """The pictures of folders, each given as a job once, and again whenever it has changed.

    A file is complete when its size, its times and its place on the disk have stayed the same for
    `settled` seconds, whoever wrote it and however; one that is renamed into the folder is a new
    one. Results that lie in the folders are no arrivals, as in `jobs.collect_jobs`.
    """

    def __init__(
        self,
        folders: Sequence[Path],
        output: Path,
        options: UpscaleOptions,
        files: OutputOptions,
        *,
        recursive: bool,
        settled: float = SETTLED,
    ) -> None:
        self.folders, self.output, self.options, self.files = folders, output, options, files
        self.recursive, self.settled = recursive, settled
        self._seen: dict[Path, _Sight] = {}
        self._owners: dict[str, Path] = {}
        self._unreadable: set[Path] = set()

    @property
    def waiting(self) -> bool:
        """Whether a file was seen that is not complete yet."""
        return any(not sight.given for sight in self._seen.values())

    def look(self, now: float) -> Plan:
        """The jobs of what is complete and was no job before, and what failed already.

        now: seconds on a clock that never goes back. A picture whose result would have the name of
        an earlier one's fails alone.

        Raises InputError where one of the folders is gone.
        """
        for folder in self.folders:
            if not folder.is_dir():
                raise InputError(f"The folder {folder} was removed while it was watched.")
        try:
            found = collect(self.folders, recursive=self.recursive, exclude=self.output)
        except NoImageError:
            self._forget(set())
            return Plan([])
        inputs = [given for given in found.inputs if given.path.suffix not in UNFINISHED]
        failures = [
            Failed(Job(folder, self.output), error)
            for folder, error in found.failed
            if folder not in self._unreadable
        ]
        self._unreadable = {folder for folder, _ in found.failed}
        jobs, unnamed = named(inputs, self.output, self.options, self.files)
        results = set(collisions.results(jobs, set(), self.files))
        jobs = [job for job in jobs if job not in results]
        jobs, _ = told_apart(jobs, self.options, self.files)
        complete = self._complete([job.input for job in jobs], now)
        failures += [failed for failed in unnamed if self._complete([failed.job.input], now)]
        self._forget({given.path for given in inputs})
        read, written = collisions.on_any_disk(jobs, Links())
        inputs_read = set(read)
        ready = []
        for job, output in zip(jobs, written, strict=True):
            if job.input not in complete:
                continue
            if reason := self._in_the_way(job, output, inputs_read):
                failures.append(Failed(job, InputError(reason)))
            else:
                ready.append(job)
        return Plan(ready, (), tuple(failures))

    def _complete(self, paths: Sequence[Path], now: float) -> set[Path]:
        """Those that have settled and were not given since they changed, which are given now."""
        ready = set()
        for path in paths:
            state = _state(path)
            sight = self._seen.get(path)
            if sight is None or sight.state != state:
                self._seen[path] = _Sight(state, now)
            elif not sight.given and now - sight.since >= self.settled:
                self._seen[path] = _Sight(state, sight.since, given=True)
                ready.add(path)
        return ready

    def _forget(self, there: set[Path]) -> None:
        """Those that are gone, and what they owned."""
        self._seen = {path: sight for path, sight in self._seen.items() if path in there}
        self._owners = {name: path for name, path in self._owners.items() if path in there}

    def _in_the_way(self, job: Job, output: str, inputs: set[str]) -> str:
        """Why a job cannot be; output and inputs: paths as any disk takes them."""
        if output in inputs:
            return f"The output {job.output} would overwrite an input: choose another --name."
        owner = self._owners.setdefault(output, job.input)
        return "" if owner == job.input else collisions.shared(owner, job)


def _state(path: Path) -> State:
    """What changes when a file is written or replaced; zeros of one that is gone."""
    try:
        stat = path.stat()
    except OSError:
        return 0, 0, 0
    return stat.st_ino, stat.st_size, stat.st_mtime_ns
