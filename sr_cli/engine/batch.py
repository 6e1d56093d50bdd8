"""Files to events: which files become which, and the loop that reads, enlarges and writes them."""

from __future__ import annotations

import glob
import math
import os
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sr_cli.engine.events import Event, Failed, Finished, Job, Planned, Skipped, Started, Step
from sr_cli.engine.formats import FORMATS, check_size, format_of
from sr_cli.engine.images import SUFFIXES, Picture, load, probe, save
from sr_cli.engine.options import OutputOptions, UpscaleOptions
from sr_cli.errors import InputError, ModelError, UsageError

if TYPE_CHECKING:
    from torch import Tensor

Result = TypeVar("Result")

COMPILE_FROM = 5000
"""Network calls: an estimate, not measured, from a minute or two of compiling Stable Diffusion's
networks and some 20 ms less for each of their calls."""


class Upscale(Protocol):
    """What enlarges: LR (3, H, W) float32 in [0, 1] to HR (3, H', W')."""

    @property
    def device(self) -> str:
        """Name of the device."""
        ...

    def tiles(self, width: int, height: int) -> int:
        """Into how many tiles an LR picture of this size is cut."""
        ...

    def together(
        self,
        lrs: Sequence[Tensor],
        *,
        on_step: Callable[[int, int, int], None],
        on_note: Callable[[int, str], None],
    ) -> list[Tensor]:
        """Each picture enlarged; on_step(picture, done, total) counts network calls, and
        on_note(picture, text) says what its user should know."""
        ...


@dataclass(frozen=True)
class Source:
    """An input file and its folder below the argument that named it."""

    path: Path
    folder: Path = Path()


def natural(path: Path) -> tuple[list[tuple[str | int, ...]], str]:
    """Sorting key by which img2 comes before img10."""
    parts = [re.split(r"(\d+)", part.casefold()) for part in path.parts]
    key = [tuple(int(p) if i % 2 else p for i, p in enumerate(part)) for part in parts]
    return key, str(path)


def collect(arguments: Sequence[Path], *, recursive: bool, exclude: Path) -> list[Source]:
    """Every input file once, in natural order within each file, folder or glob of `arguments`.

    A folder gives the files in it that have an image's suffix and are not hidden; with `recursive`
    those of its folders too, but for links and for the folder `exclude`.

    Raises:
        UsageError: an argument does not exist, matches nothing or holds no image.
        InputError: a folder cannot be read.
    """
    found: dict[Path, Source] = {}
    try:
        for argument in arguments:
            for source in _expand(argument, recursive, exclude.resolve()):
                found.setdefault(source.path.resolve(), source)
    except OSError as error:
        raise InputError(f"{error.filename} cannot be read: {error.strerror}.") from error
    return list(found.values())


def _expand(argument: Path, recursive: bool, exclude: Path) -> Iterator[Source]:
    if argument.is_dir():
        yield from _folder(argument, recursive, exclude)
    elif argument.exists():
        yield Source(argument)
    elif glob.has_magic(str(argument)):
        matches = [Path(match) for match in glob.glob(str(argument), recursive=True)]  # noqa: PTH207
        if not matches:
            raise UsageError(f"No file matches {argument}.")
        for match in sorted(matches, key=natural):
            yield from _expand(match, recursive, exclude)
    else:
        raise UsageError(f"The input {argument} does not exist.")


def _folder(folder: Path, recursive: bool, exclude: Path) -> Iterator[Source]:
    paths = sorted(_images(folder, recursive, exclude), key=natural)
    if paths:
        yield from (Source(path, path.parent.relative_to(folder)) for path in paths)
    elif folder.suffix.lower() in SUFFIXES:  # a.png/ among the matches of *.png: fails by itself
        yield Source(folder)
    else:
        hint = "" if recursive else " Folders inside it are read with --recursive."
        raise UsageError(f"There is no image in {folder}.{hint}")


def _images(folder: Path, recursive: bool, exclude: Path) -> Iterator[Path]:
    for entry in folder.iterdir():
        if entry.name.startswith("."):
            continue
        if entry.suffix.lower() in SUFFIXES:
            yield entry
        elif recursive and entry.is_dir() and not entry.is_symlink() and entry.resolve() != exclude:
            yield from _images(entry, recursive, exclude)


def plan(
    arguments: Sequence[Path],
    output: Path,
    options: UpscaleOptions,
    files: OutputOptions,
    *,
    recursive: bool = False,
) -> list[Job]:
    """The jobs that turn `arguments` into files of the folder `output`, whose tree they mirror.

    One input file and an `output` with an image's suffix make one job from file to file.

    Raises:
        UsageError: as `collect`; two inputs share an output; an output is one of the inputs.
        InputError: a folder cannot be read.
    """
    sources = collect(arguments, recursive=recursive, exclude=output)
    if output.suffix.lower() in SUFFIXES and not output.is_dir():
        _check_single(arguments, output, files)
        jobs = [Job(sources[0].path, output)]
    elif output.exists() and not output.is_dir():
        raise UsageError(f"The output {output} is a file, not a folder.")
    else:
        jobs = [
            Job(source.path, output / source.folder / _file_name(source.path, options, files))
            for source in sources
        ]
    _check_distinct(jobs)
    return jobs


def _check_single(arguments: Sequence[Path], output: Path, files: OutputOptions) -> None:
    if len(arguments) > 1 or not arguments[0].is_file():
        raise UsageError(f"The output {output} names one file: give one input file or a folder.")
    written = format_of(output)
    if files.format is not None and format_of(files.format) != written:
        raise UsageError(f"The output {output} contradicts the format {files.format}.")


def _file_name(path: Path, options: UpscaleOptions, files: OutputOptions) -> str:
    values: dict[str, str | int | float] = {
        "stem": path.stem,
        "ext": path.suffix[1:],
        "steps": options.steps,
        "seed": options.seed,
        "model": options.model,
    }
    if files.name_needs_size:
        values |= _size_fields(path, options)
    return files.file_name(values, FORMATS[format_of(files.format or "png")])


def _size_fields(path: Path, options: UpscaleOptions) -> dict[str, str | int | float]:
    try:
        width, height = probe(path)
    except InputError:  # without a size it gets no result either: loading it will say why
        return {"width": 0, "height": 0, "scale": 0}
    wide, high = options.target(width, height)
    scale = round(options.scale or wide / width, 3)
    return {"width": wide, "height": high, "scale": int(scale) if scale == int(scale) else scale}


def _check_distinct(jobs: Sequence[Job]) -> None:
    inputs = {job.input.resolve() for job in jobs}
    owners: dict[Path, Path] = {}
    for job in jobs:
        output = job.output.resolve()
        if output in inputs:
            raise UsageError(
                f"The output {job.output} would overwrite an input: "
                "choose another output folder or --name."
            )
        other = owners.setdefault(output, job.input)
        if other != job.input:
            raise UsageError(
                f"{other} and {job.input} would both become {job.output}: "
                "tell them apart by --name '{stem}_{ext}' or by two output folders."
            )


def pending(jobs: Iterable[Job], *, overwrite: bool) -> tuple[list[Job], list[Skipped]]:
    """Split into what there is to do and what exists already."""
    todo, skipped = [], []
    for job in jobs:
        if job.output.exists() and not overwrite:
            skipped.append(Skipped(job, "the output exists (--overwrite replaces it)"))
        else:
            todo.append(job)
    return todo, skipped


def preview(jobs: Iterable[Job], options: UpscaleOptions) -> Iterator[Planned | Failed]:
    """What `run` would do with each job, read from the files' headers alone."""
    for job in jobs:
        try:
            size = probe(job.input)
            target = _target(job, size, options)
        except InputError as error:
            yield Failed(job, error)
        else:
            yield Planned(job, size, target)


def _target(job: Job, size: tuple[int, int], options: UpscaleOptions) -> tuple[int, int]:
    """The output's size, unless its format cannot hold it."""
    target = options.target(*size)
    check_size(*target, format_of(job.output))
    return target


def run(
    jobs: Iterable[Job],
    options: UpscaleOptions,
    upscale: Upscale,
    notify: Callable[[Event], None],
    *,
    quality: int = 95,
) -> None:
    """Enlarge one picture after another while the next is read and the last is written.

    Pictures with fewer tiles than `options.batch` are enlarged together, as many as fill a batch.
    `notify` gets Started, Step, and then Finished or Failed for every job; Finished may come from
    a worker thread, after the next Started. A picture that fails does not stop the others: those
    that it was together with are enlarged one by one. An exception that ends the run
    (KeyboardInterrupt, ModelError) first lets the current write end.

    Raises:
        ModelError: the model does not work, which no other picture would change.
    """
    with ThreadPoolExecutor(max_workers=2) as pool:
        writing: Future[None] | None = None
        for group in _groups(_reading(pool, jobs), options, upscale, notify):
            for larger, finished in _enlarged(group, upscale, notify):
                if writing:
                    writing.result()
                writing = pool.submit(_write, larger, finished, quality, notify)


def worth_compiling(jobs: Iterable[Job], options: UpscaleOptions, upscale: Upscale) -> bool:
    """Whether a run, by its files' headers, is so long on a GPU that compiling first saves time."""
    if not upscale.device.startswith("cuda"):
        return False
    calls = 0
    for job in jobs:
        with suppress(InputError):  # reading it will say why
            calls += options.steps * upscale.tiles(*probe(job.input))
    return calls >= COMPILE_FROM * options.batch


@dataclass(frozen=True)
class _Loaded:
    """A picture in memory, and how long it took to read."""

    job: Job
    picture: Picture
    seconds: float


def _groups(
    readings: Iterable[tuple[Job, Future[tuple[Picture, float]]]],
    options: UpscaleOptions,
    upscale: Upscale,
    notify: Callable[[Event], None],
) -> Iterator[list[_Loaded]]:
    """Pictures in their order, as many at a time as have at least `options.batch` tiles."""
    group: list[_Loaded] = []
    tiles = 0
    for job, reading in readings:
        notify(Started(job))
        with _reporting(job, notify):
            _check_folder(job.output.parent)
            picture, seconds = reading.result()
            _target(job, picture.size, options)
            tiles += upscale.tiles(*picture.size)
            group.append(_Loaded(job, picture, seconds))
        if group and tiles >= options.batch:
            yield group
            group, tiles = [], 0
    if group:
        yield group


def _reading(
    pool: ThreadPoolExecutor, jobs: Iterable[Job]
) -> Iterator[tuple[Job, Future[tuple[Picture, float]]]]:
    """Each job with its picture, when the reading of the next one has begun."""
    held = None
    for job in jobs:
        following = job, pool.submit(_timed, load, job.input)
        if held:
            yield held
        held = following
    if held:
        yield held


@contextmanager
def _reporting(job: Job, notify: Callable[[Event], None]) -> Iterator[None]:
    try:
        yield
    except ModelError:
        raise
    except Exception as error:
        notify(Failed(job, error))


def _check_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"The folder {folder} cannot be made: {error.strerror}.") from error
    if not os.access(folder, os.W_OK):
        raise InputError(f"The folder {folder} is not writable.")


def _enlarged(
    group: Sequence[_Loaded], upscale: Upscale, notify: Callable[[Event], None]
) -> Iterator[tuple[Picture, Finished]]:
    """The larger pictures, and their reports before the time of writing is added."""
    notes: list[list[str]] = [[] for _ in group]

    def on_step(picture: int, done: int, total: int) -> None:
        notify(Step(group[picture].job, done, total))

    def enlarge_all() -> list[Picture]:
        lrs = [_tensor(loaded.picture) for loaded in group]
        hrs = upscale.together(lrs, on_step=on_step, on_note=lambda i, text: notes[i].append(text))
        return [_enlarged_by(loaded.picture, hr) for loaded, hr in zip(group, hrs, strict=True)]

    try:
        pictures, seconds = _timed(enlarge_all)
    except ModelError:
        raise
    except Exception as error:
        if len(group) == 1:
            notify(Failed(group[0].job, error))
        else:
            for loaded in group:
                yield from _enlarged([loaded], upscale, notify)
        return
    memory = peak_memory(upscale.device)
    pixels = sum(math.prod(picture.size) for picture in pictures)
    for loaded, picture, said in zip(group, pictures, notes, strict=True):
        share = seconds * math.prod(picture.size) / pixels
        spent = loaded.seconds + share
        sizes = loaded.picture.size, picture.size
        yield picture, Finished(loaded.job, *sizes, spent, memory, tuple(said))


def _write(
    picture: Picture, finished: Finished, quality: int, notify: Callable[[Event], None]
) -> None:
    with _reporting(finished.job, notify):
        _, seconds = _timed(lambda: save(picture, finished.job.output, quality=quality))
        notify(replace(finished, seconds=finished.seconds + seconds))


def _tensor(picture: Picture) -> Tensor:
    """Its colours, (3, H, W) float32."""
    import torch

    return torch.from_numpy(picture.rgb).permute(2, 0, 1).contiguous()


def _enlarged_by(picture: Picture, hr: Tensor) -> Picture:
    """The picture with the colours `hr`, and its alpha by bicubic interpolation."""
    rgb = hr.permute(1, 2, 0).contiguous().cpu().numpy()
    alpha = picture.alpha
    if alpha is not None:
        alpha = _resized(alpha, (rgb.shape[1], rgb.shape[0]))
    return replace(picture, rgb=rgb, alpha=alpha)


def _resized(plane: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    larger = Image.fromarray(plane).resize(size, Image.Resampling.BICUBIC)
    return np.clip(np.asarray(larger, dtype=np.float32), 0, 1)


def _timed(function: Callable[..., Result], *args: Any) -> tuple[Result, float]:
    begin = time.perf_counter()
    result = function(*args)
    return result, time.perf_counter() - begin


def peak_memory(device: str) -> int:
    """Bytes: of a CUDA `device` since the last call, else of this process since its start."""
    if device.startswith("cuda"):
        import torch

        peak = torch.cuda.max_memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        return peak
    if sys.platform == "win32":
        import psutil

        return int(psutil.Process().memory_info().peak_wset)
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # bytes there, KiB elsewhere
