"""Jobs to events: the loop that reads, enlarges and writes pictures."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

from sr_cli.device import peak_memory
from sr_cli.engine.arrays import Form
from sr_cli.engine.crew import SMALL, Crew, Queue, StoppedError
from sr_cli.engine.events import Event, Failed, Finished, Job, Started, Stepped
from sr_cli.engine.formats import format_of
from sr_cli.engine.images import Filed, Picture, losses, probe
from sr_cli.engine.keeper import Keeper
from sr_cli.engine.manifest import Manifest
from sr_cli.engine.options import OutputOptions, UpscaleOptions
from sr_cli.engine.pictures import colors, enlarged, form_of
from sr_cli.engine.size import oddities
from sr_cli.engine.stream.job import stream, streams
from sr_cli.engine.tiling import MEMORY_SHARE, ignore
from sr_cli.errors import (
    BrokenDeviceError,
    FullDiskError,
    GoneError,
    InputError,
    ModelError,
    enough_memory,
)
from sr_cli.memory import free
from sr_cli.models.model import Model

Result = TypeVar("Result")

_FILES = OutputOptions()

COMPILE_FROM = 5000
"""Network calls: an estimate, not measured, from a minute or two of compiling Stable Diffusion's
networks and some 20 ms less for each of their calls."""
SMALLER = "choose a smaller result (--scale, --size) or smaller tiles (--tile), "
"""Where memory is short."""


class Upscale(Protocol):
    """What enlarges: LR (3, H, W) float32 in [0, 1] to HR (3, H', W')."""

    @property
    def device(self) -> str:
        """Name of the device."""
        ...

    @property
    def model(self) -> Model:
        """What is walked with."""
        ...

    @property
    def steps(self) -> int:
        """Network calls for a tile."""
        ...

    def share(self, width: int, height: int) -> Fraction:
        """Of a batch, that an LR picture of this size is: 1 or more keeps the device busy alone."""
        ...

    def together(
        self,
        lrs: Sequence[Tensor],
        *,
        forms: Sequence[Form],
        on_step: Callable[[int, int, int], None],
        on_note: Callable[[int, str], None],
    ) -> list[Tensor]:
        """Each picture enlarged, in its form or float32; from several threads at a time where the
        model's tiling is exact and the device a CPU.

        on_step(picture, done, total) counts network calls, and on_note(picture, text) says what its
        user should know.
        """
        ...


def run(
    jobs: Iterable[Job],
    options: UpscaleOptions,
    upscale: Upscale,
    notify: Callable[[Event], None],
    *,
    files: OutputOptions = _FILES,
    manifest: Manifest | None = None,
    workers: int = 1,
) -> float:
    """Enlarge one picture after another while others are read and written, `workers` at a time.

    What happens to each is told to the `manifest` before it happens, if there is one. Gives the
    share of the time in which the device worked, 0 to 1.

    Pictures with fewer tiles than a batch are enlarged together, as many as fill one.
    On a CPU small ones, or batches of them, are enlarged side by side, each by its share of the
    threads. `notify` gets Started, Stepped, and then Finished or Failed for every job, one call at
    a time, from any thread; Finished may come after the next Started. A picture that fails does not
    stop the others: those that it was together with are enlarged one by one. An exception that ends
    the run (KeyboardInterrupt, ModelError) first lets the current writes end.

    Raises:
        ModelError: the model does not work, which no other picture would change.
        BrokenDeviceError: neither does the device any more.
        FullDiskError: a result, which has failed, had no room, and others are to come.
        GoneError: the folder of the results was removed.
    """
    if isinstance(jobs, Sized):
        workers = max(1, min(workers, len(jobs)))
    keeper = Keeper(options, files, manifest, upscale.steps)
    tell = keeper.telling(notify)
    with Crew(workers) as crew:
        for large, some in groupby(jobs, lambda job: streams(job, upscale, keeper)):
            if large:
                _stream(crew, some, upscale, keeper, tell)
                continue
            for group in _groups(_reading(crew, some, keeper), upscale, tell):
                suspect = any(keeper.suspects(loaded.job) for loaded in group)
                lanes = 1 if suspect else _lanes(group, options, upscale, workers)
                if lanes > 1:
                    in_lane = partial(_in_lane, upscale=upscale, keeper=keeper, notify=tell)
                    crew.go(lanes, in_lane, group, lanes, crew)
                    continue
                crew.leave_lanes()
                for larger, finished in _enlarged(group, upscale, tell, crew):
                    size = larger.samples.nbytes
                    crew.write(_write, larger, finished, keeper, tell, size=size)
        crew.finish()
        return crew.worked


def _stream(
    crew: Crew,
    jobs: Iterable[Job],
    upscale: Upscale,
    keeper: Keeper,
    notify: Callable[[Event], None],
) -> None:
    """Large pictures one by one, each read, enlarged and written row by row."""
    for job in jobs:
        crew.settle()
        notify(Started(job))
        with _reporting(job, notify), crew.working():
            _check_folder(job.output.parent)
            notify(stream(job, keeper, upscale, notify))


def _lanes(
    group: Sequence[_Loaded], options: UpscaleOptions, upscale: Upscale, workers: int
) -> int:
    """How many such groups are enlarged side by side."""
    model = upscale.model
    if upscale.device != "cpu" or model.tiling != "exact":
        return 1
    pixels = sum(math.prod(options.size.of(*loaded.picture.size)) for loaded in group)
    if pixels > SMALL:
        return 1
    fit = MEMORY_SHARE * free() / (pixels * model.bytes_per_pixel)
    return max(1, min(workers, torch.get_num_threads(), int(fit)))


def _in_lane(
    group: Sequence[_Loaded],
    lanes: int,
    crew: Crew,
    *,
    upscale: Upscale,
    keeper: Keeper,
    notify: Callable[[Event], None],
) -> None:
    """Enlarge and write a group beside others."""

    def tell(event: Event) -> None:
        if crew.stopped:
            raise StoppedError
        notify(event)

    for larger, finished in _enlarged(group, upscale, tell, crew, lanes):
        _write(larger, finished, keeper, notify)


def worth_compiling(jobs: Iterable[Job], upscale: Upscale) -> bool:
    """Whether a run, by its files' headers, is so long on a GPU that compiling first saves time.

    Of networks as large as Stable Diffusion's, which are those that blend tiles.
    """
    if not upscale.device.startswith("cuda") or upscale.model.tiling != "blend":
        return False
    calls = Fraction(0)
    for job in jobs:
        with suppress(InputError):  # reading it will say why
            calls += upscale.steps * upscale.share(*probe(job.input))
    return calls >= COMPILE_FROM


@dataclass(frozen=True)
class _Loaded:
    """A picture in memory, and how long it took to read."""

    job: Job
    picture: Picture
    seconds: float


def _groups(
    readings: Iterable[tuple[Job, Future[tuple[Picture, float]]]],
    upscale: Upscale,
    notify: Callable[[Event], None],
) -> Iterator[list[_Loaded]]:
    """Pictures in their order, as many at a time as fill a batch."""
    group: list[_Loaded] = []
    filled = Fraction(0)
    for job, reading in readings:
        notify(Started(job))
        with _reporting(job, notify):
            picture, seconds = reading.result()
            _check_folder(job.output.parent)
            filled += upscale.share(*picture.size)
            group.append(_Loaded(job, picture, seconds))
        if group and filled >= 1:
            yield group
            group, filled = [], Fraction(0)
    if group:
        yield group


def _reading(
    crew: Crew, jobs: Iterable[Job], keeper: Keeper
) -> Iterator[tuple[Job, Future[tuple[Picture, float]]]]:
    """Each job with its picture, when the reading of others has begun; but one that a run may have
    been killed on is read when all before it is whole, so that no other is under suspicion."""
    ahead = Queue[tuple[Job, Future[tuple[Picture, float]]]](2, crew.workers + 1)
    for job in jobs:
        suspect, size = keeper.suspects(job), _bytes(job.input)
        while ahead and (suspect or not ahead.has_room(size)):
            yield ahead.next()
        if suspect:
            crew.settle()
        ahead.add((job, crew.readers.submit(_timed, keeper.read, job)), size)
    while ahead:
        yield ahead.next()


def _bytes(path: Path) -> int:
    """Of a file, which is not opened; 0 where reading it will say why."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


@contextmanager
def _reporting(job: Job, notify: Callable[[Event], None]) -> Iterator[None]:
    try:
        with enough_memory(str(job.input), SMALLER):
            yield
    except (ModelError, BrokenDeviceError):
        raise
    except Exception as error:
        notify(Failed(job, error))
        # Outcomes are kept until the end, and the frames of a failure hold whole pictures.
        error.__traceback__ = error.__cause__ = error.__context__ = None
        if isinstance(error, FullDiskError | GoneError):
            raise


def _check_folder(folder: Path) -> None:
    try:
        if not folder.is_dir():  # which costs a tenth of trying
            folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"The folder {folder} cannot be made: {error.strerror}.") from error
    if not os.access(folder, os.W_OK):
        raise InputError(f"The folder {folder} is not writable.")


def _enlarged(
    group: Sequence[_Loaded],
    upscale: Upscale,
    notify: Callable[[Event], None],
    crew: Crew,
    lanes: int = 1,
) -> Iterator[tuple[Filed, Finished]]:
    """The larger pictures, and their reports before the time of writing is added."""
    notes: list[list[str]] = [[] for _ in group]
    formats = [format_of(loaded.job.output) for loaded in group]

    def on_step(picture: int, done: int, total: int) -> None:
        notify(Stepped(group[picture].job, done, total))

    def enlarge_all() -> list[Filed]:
        given = list(zip([loaded.picture for loaded in group], formats, strict=True))
        with crew.working(lanes):
            hrs = upscale.together(
                [colors(picture) for picture, _ in given],
                forms=[form_of(*each) for each in given],
                on_step=on_step,
                on_note=lambda i, text: notes[i].append(text),
            )
        return [enlarged(*each, hr) for each, hr in zip(given, hrs, strict=True)]

    done: tuple[list[Filed], float] | None = None
    with _reporting(group[0].job, notify if len(group) == 1 else ignore):
        done = _timed(enlarge_all)
    if done is None:
        for loaded in group if len(group) > 1 else ():
            yield from _enlarged([loaded], upscale, notify, crew, lanes)
        return
    pictures, seconds = done
    memory = peak_memory(upscale.device) if upscale.device.startswith("cuda") else None
    pixels = sum(math.prod(picture.size) for picture in pictures)
    for loaded, picture, said in zip(group, pictures, notes, strict=True):
        share = seconds * math.prod(picture.size) / pixels
        spent = loaded.seconds + share
        sizes = loaded.picture.size, picture.size
        lost = losses(loaded.picture, loaded.job.output)
        said.extend((*loaded.picture.notes, *lost, *oddities(*sizes)))
        yield picture, Finished(loaded.job, *sizes, spent, memory, tuple(said))


def _write(
    picture: Filed, finished: Finished, keeper: Keeper, notify: Callable[[Event], None]
) -> None:
    with _reporting(finished.job, notify):
        notes, seconds = _timed(keeper.write, picture, finished)
        notify(
            replace(finished, seconds=finished.seconds + seconds, notes=(*finished.notes, *notes))
        )


def _timed(function: Callable[..., Result], *args: Any) -> tuple[Result, float]:
    begin = time.perf_counter()
    result = function(*args)
    return result, time.perf_counter() - begin
