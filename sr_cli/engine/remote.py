"""Runs with inputs and results in remote folders.

They have temporary files of their names, so that plans and the engine are those of a disk: an input
is fetched shortly before it is wanted, and a result put as soon as it is whole.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Final

from sr_cli.engine.batch import Upscale
from sr_cli.engine.batch import run as run_here
from sr_cli.engine.events import Event, Failed, Finished, Job, Skipped
from sr_cli.engine.images import SUFFIXES
from sr_cli.engine.jobs import IN_THE_WAY, large_enough
from sr_cli.engine.ledger import Ledger
from sr_cli.engine.manifest import Recipe
from sr_cli.engine.options import OutputOptions, UpscaleOptions
from sr_cli.engine.store import Address, Store, is_remote, reaching, tag_of
from sr_cli.errors import InputError
from sr_cli.files import digest

AHEAD: Final = 4
"""Inputs that are fetched before they are wanted."""


@dataclass(frozen=True)
class Source:
    """Where an input is fetched from, and what it is there."""

    store: Store
    name: str
    tag: str


class Mirror:
    """Temporary files that stand for remote ones: empty until they are wanted.

    folder: for them. arguments: of the command, remote or not. output: remote.
    Afterwards `arguments` and `place` are their stand-ins, and `addresses` what these stand for.

    Raises UsageError for an address that is none, InputError where one cannot be listed.
    """

    def __init__(
        self, folder: Path, arguments: Sequence[Path], output: Path, *, recursive: bool
    ) -> None:
        self.arguments: list[Path] = []
        self.sources: dict[Path, Source] = {}
        self.addresses: dict[Path, Address] = {}
        single = output.suffix.lower() in SUFFIXES
        self.store = Store(output.parent if single else output)
        self.base = folder / "out"
        self.place = self.base / output.name if single else self.base
        self.addresses[self.base] = self.store.address
        self.base.mkdir()
        for number, argument in enumerate(arguments):
            if is_remote(argument):
                self._stand_in(folder / "in" / str(number), Store(argument), deep=recursive)
            else:
                self.arguments.append(argument)

    def _stand_in(self, base: Path, store: Store, *, deep: bool) -> None:
        found = store.list(deep=deep)
        if not found:  # a stand-in that is not there either, and fails as on a disk
            self.addresses[base] = store.address
            self.arguments.append(base)
            return
        own = f"{self.store.root}/"
        if "" in found:  # a file
            path = base / store.address.name
            base.mkdir(parents=True)
            path.touch()
            self.sources[path] = Source(store, "", tag_of(found[""]))
            self.addresses[base] = store.address.parent
            self.arguments.append(path)
            return
        for name, info in found.items():
            parts = PurePosixPath(name).parts
            if store.place(name).startswith(own) and self.store.root != store.root:
                continue  # a result of this run's or an earlier one's
            if name.endswith("/") or {"..", ".", "/"} & set(parts):
                continue
            with suppress(OSError):  # a name that no disk has
                path = base.joinpath(*parts)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.touch()
                self.sources[path] = Source(store, name, tag_of(info))
        self.addresses[base] = store.address
        self.arguments.append(base)

    def name(self, path: Path) -> Path:
        """What a file is called to people."""
        for base, address in self.addresses.items():
            if path.is_relative_to(base):
                return address / path.relative_to(base)
        return path

    def key(self, job: Job) -> str:
        """Of a result below the remote folder."""
        return job.output.relative_to(self.base).as_posix()

    def tag(self, job: Job) -> str:
        """What changes when an input does."""
        source = self.sources.get(job.input)
        return source.tag if source else digest(job.input)

    def fetch(self, job: Job) -> Job:
        """Get an input. Raises InputError."""
        source = self.sources.get(job.input)
        if source:
            with reaching(self.name(job.input)):
                source.store.fs.get_file(source.store.place(source.name), str(job.input))
        return job

    def drop(self, job: Job) -> None:
        """Give the room of a picture back."""
        job.output.unlink(missing_ok=True)
        if job.input in self.sources:
            job.input.unlink(missing_ok=True)


def pending(
    jobs: Iterable[Job],
    options: UpscaleOptions,
    files: OutputOptions,
    mirror: Mirror,
    ledger: Ledger,
) -> tuple[list[Job], list[Skipped | Failed]]:
    """The jobs to do, and those that are done (Skipped) or in the way (Failed), as `jobs.pending`.

    Raises InputError where the results cannot be listed.
    """
    there = mirror.store.list(deep=True)
    recipe = Recipe.of(options, files)
    todo: list[Job] = []
    settled: list[Skipped | Failed] = []
    for job in jobs:
        info = there.get(mirror.key(job))
        if info is None or files.overwrite:
            todo.append(replace(job, replaces=files.overwrite))
        elif files.trust_existing:
            settled.append(Skipped(job, "the output exists (--overwrite replaces it)"))
        elif ours := ledger.matching(mirror.key(job), info):
            tag = mirror.tag(job)
            if any(made.source == tag and recipe.is_same(*made.recipe) for made in ours):
                settled.append(Skipped(job, "done already"))
            else:
                todo.append(replace(job, replaces=True))
        elif info.get("size") == 0:
            todo.append(replace(job, replaces=True))
        else:
            settled.append(Failed(job, InputError(IN_THE_WAY.format(mirror.name(job.output)))))
    return todo, settled


def run(
    todo: Sequence[Job],
    options: UpscaleOptions,
    upscale: Upscale,
    notify: Callable[[Event], None],
    *,
    files: OutputOptions,
    mirror: Mirror,
    ledger: Ledger,
) -> None:
    """As `batch.run`, with inputs that are fetched ahead and results that are put when whole."""
    recipe = Recipe.of(options, files)

    speaking = threading.Lock()  # what cannot be fetched is told of beside what is written

    def told(event: Event) -> None:
        with speaking:
            notify(published(event))

    def published(event: Event) -> Event:
        name, source = mirror.key(event.job), str(mirror.name(event.job.input))
        if isinstance(event, Finished):
            tag = mirror.tag(event.job)
            try:
                ledger.publish(name, event, recipe, tag, inputs=source)
            except InputError as error:
                event = Failed(event.job, error)
        if isinstance(event, Failed):
            ledger.failed(name, source, event.reason)
        if isinstance(event, Finished | Failed | Skipped):
            mirror.drop(event.job)
        return event

    def fetched() -> Iterator[Job]:
        with ThreadPoolExecutor(AHEAD) as pool:
            jobs = iter(todo)
            flying: list[tuple[Job, Future[Job]]] = []
            try:
                while True:
                    for job in islice(jobs, AHEAD - len(flying)):
                        flying.append((job, pool.submit(mirror.fetch, job)))
                    if not flying:
                        return
                    job, fetching = flying.pop(0)
                    try:
                        fetching.result()
                    except InputError as error:
                        told(Failed(job, error))
                        continue
                    if files.only_enlarge and large_enough(job, options, files):
                        told(Skipped(job, "large enough already (--only-enlarge)"))
                        continue
                    yield job
            finally:
                for _, fetching in flying:
                    fetching.cancel()

    ledger.start(len(todo))
    try:
        run_here(fetched(), options, upscale, told, files=files)
    finally:
        ledger.close()
