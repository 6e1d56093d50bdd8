"""What a run keeps of each picture: read with its name told first, written with its facts."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import IO

from sr_cli import __version__
from sr_cli.engine.events import Event, Failed, Finished, Job
from sr_cli.engine.images import Filed, Picture, load, probe, write, writing
from sr_cli.engine.jobs import target_size
from sr_cli.engine.manifest import File, Manifest, Recipe, file_of
from sr_cli.engine.options import OutputOptions, UpscaleOptions
from sr_cli.errors import InputError
from sr_cli.files import Committing


class Keeper:
    """Reads and writes the pictures of a run, and tells its manifest, if there is one."""

    def __init__(
        self,
        options: UpscaleOptions,
        files: OutputOptions,
        manifest: Manifest | None,
        steps: int,
    ) -> None:
        self.options, self.files, self.manifest, self.steps = options, files, manifest, steps
        self._sources: dict[Job, File] = {}
        self._lock = threading.Lock()

    @cached_property
    def recipe(self) -> Recipe:
        """What decides the pixels of all results."""
        return Recipe.of(self.options, self.files)

    def telling(self, notify: Callable[[Event], None]) -> Callable[[Event], None]:
        """`notify`, called by one thread at a time, which the manifest hears of failures."""
        speaking = threading.RLock()

        def tell(event: Event) -> None:
            with speaking:
                if self.manifest and isinstance(event, Failed):
                    self.manifest.end(event.job, event.reason)
                notify(event)

        return tell

    def suspects(self, job: Job) -> bool:
        """Whether a run was killed while it worked on a picture, or perhaps on its neighbour."""
        return self.manifest is not None and self.manifest.unfinished[str(job.input)] > 0

    def read(self, job: Job) -> Picture:
        """The input, with the metadata that its result gets. Its size is agreed to first.

        Raises InputError or DeviceError as `images.load` and `jobs.target_size`.
        """
        if self.manifest:
            self.manifest.check_folder()
            self.manifest.begin(job)
        limit = self.files.max_pixels
        target_size(job, probe(job.input, max_pixels=limit), self.options)
        if self.manifest:
            try:
                source = file_of(job.input)
            except OSError as error:
                raise InputError(f"{job.input} cannot be read: {error.strerror}.") from error
            with self._lock:
                self._sources[job] = source
        picture = load(job.input, max_pixels=limit)
        metadata = picture.metadata
        if self.files.strip:
            metadata = metadata.stripped(self.files.strip)
        if self.files.tag:
            metadata = metadata.tagged(self._tag(picture.size))
        return replace(picture, metadata=metadata)

    def write(self, picture: Filed, finished: Finished) -> list[str]:
        """Write a result; notes on its name, and on what happened to what was there."""
        job, begin = finished.job, time.perf_counter()

        def told() -> Finished:
            return replace(finished, seconds=finished.seconds + time.perf_counter() - begin)

        with self._replacing(job) as notes:
            write(
                picture,
                job.output,
                quality=self.files.quality,
                overwrite=job.replaces,
                committing=self._commit(job, told),
            )
        return notes

    @contextmanager
    def writing(
        self, job: Job, told: Callable[[], Finished], passing: tuple[type[Exception], ...]
    ) -> Iterator[tuple[IO[bytes], list[str]]]:
        """The file of a result that is written where it is computed, and notes as of `write`.

        told: at the end, what is known of it. passing: as for `images.writing`, whose errors it
        raises.
        """
        commit = self._commit(job, told)
        with (
            self._replacing(job) as notes,
            writing(job.output, overwrite=job.replaces, committing=commit, passing=passing) as file,
        ):
            yield file, notes

    @contextmanager
    def _replacing(self, job: Job) -> Iterator[list[str]]:
        if self.manifest:
            self.manifest.check_folder()
        link = ["it replaced a link, and not what that points to"] * job.output.is_symlink()
        yield [*job.notes, *link]

    def _commit(self, job: Job, told: Callable[[], Finished]) -> Committing:
        """What is done with a whole file before it takes its name."""

        def commit(partial: Path) -> None:
            with self._lock:
                source = self._sources.pop(job, None)
            if self.files.keep_times:
                stat = job.input.stat()
                os.utime(partial, ns=(stat.st_atime_ns, stat.st_mtime_ns))
            if self.manifest and source:
                finished = told()
                self.manifest.done(finished, self.recipe, source, partial, finished.seconds)

        return commit

    def _tag(self, size: tuple[int, int]) -> str:
        options = self.options
        wide, high = options.size.of(*size)
        name = Path(options.model).name if options.method == "dossr" else options.prior
        made = (
            f"srx {__version__}: enlarged by a neural network from {size[0]}x{size[1]} to "
            f"{wide}x{high}, model {name}"
        )
        return made if options.alone else f"{made}, steps {self.steps}, seed {options.seed}"
