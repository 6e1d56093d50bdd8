"""Files to jobs: which files become which, and which of them are still to do."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from sr_cli.engine.events import Failed, Job, Planned, Skipped
from sr_cli.engine.formats import FORMATS, check_size, format_of
from sr_cli.engine.images import SUFFIXES, probe
from sr_cli.engine.options import NAME_BYTES, OutputOptions, UpscaleOptions
from sr_cli.engine.sources import collect
from sr_cli.errors import DeviceError, InputError, UsageError

RENAMED = "many disks take their names for one: rename one of them."
ONE_FOLDER = "tell them apart by --name '{stem}_{ext}'."
TWO_FOLDERS = (
    "give the folder that holds both with --recursive, which keeps its subfolders, "
    "or use two output folders."
)


SHOWN = 3
"""Files that a note names."""


@dataclass(frozen=True)
class Plan:
    """The jobs of a run, and what its user should know of files that are in none of them."""

    jobs: list[Job]
    notes: tuple[str, ...] = ()


def plan(
    arguments: Sequence[Path],
    output: Path,
    options: UpscaleOptions,
    files: OutputOptions,
    *,
    recursive: bool = False,
) -> Plan:
    """The jobs that turn `arguments` into files of the folder `output`, whose tree they mirror.

    One input file and an `output` with an image's suffix make one job from file to file. A file
    that was not named itself and that another becomes is the result of an earlier run, no input.

    Raises:
        UsageError: as `collect`; two inputs share an output; an output is one of the inputs, or no
            path that can be.
        InputError: a folder cannot be read.
    """
    if Path("-") in (*arguments, output):
        raise UsageError("stdin and stdout (-) are not supported: name a file.")
    _check_path(output)
    sources, empty = collect(arguments, recursive=recursive, exclude=output)
    notes = [f"There is no image in {folder}." for folder in empty]
    if output.suffix.lower() in SUFFIXES and not output.is_dir():
        _check_single(arguments, output, files)
        jobs = [Job(sources[0].path, output)]
        if files.name != OutputOptions.name:
            notes.append(f"--name is for results in a folder: this one is {output}.")
    else:
        _check_folder(arguments, output)
        jobs = [
            Job(source.path, output / source.folder / _file_name(source.path, options, files))
            for source in sources
        ]
        named = {source.path for source in sources if not source.found}
        results = _results(jobs, named, files)
        if results:
            jobs = [job for job in jobs if job not in set(results)]
            shown = ", ".join(str(job.input) for job in results[:SHOWN])
            more = f" and {len(results) - SHOWN} more" if len(results) > SHOWN else ""
            notes.append(f"Results of an earlier run, which are no inputs: {shown}{more}.")
    _check_distinct(jobs)
    return Plan(jobs, tuple(notes))


def _check_path(output: Path) -> None:
    try:
        with suppress(FileNotFoundError, NotADirectoryError):
            output.stat()
    except OSError as error:  # too long, or below what may not be read
        raise UsageError(f"The output {output} cannot be used: {error.strerror}.") from error


def _check_folder(arguments: Sequence[Path], output: Path) -> None:
    if output.is_dir():
        return
    if output.exists():
        raise UsageError(f"The output {output} is a file, not a folder.")
    suffix = output.suffix[1:]
    if suffix and not suffix.isdecimal() and len(arguments) == 1 and arguments[0].is_file():
        raise UsageError(
            f"The output {output} has the suffix of no format that can be written, which are "
            f"{', '.join(FORMATS.values())}; for a folder of this name, make it first."
        )


def _results(jobs: Sequence[Job], named: Collection[Path], files: OutputOptions) -> list[Job]:
    """The jobs of files that other jobs write, or would with other values of the name's fields.

    Such a file may be an original after all, as a.png beside a.jpg: where it would be overwritten
    by either job, it is none of them, and the two are told of as a collision.
    """

    def origin(path: Path) -> tuple[str, ...]:
        folder, name = os.path.split(_on_any_disk(path))
        return folder, *files.origin(name)

    origins = [origin(job.output) for job in jobs]
    writers = Counter(origins)

    def is_result(job: Job, own: tuple[str, ...]) -> bool:
        mine = origin(job.input)
        others = writers[mine] - (own == mine)
        in_place = files.overwrite and _on_any_disk(job.input) == _on_any_disk(job.output)
        return others > 0 and job.input not in named and not in_place

    return [job for job, own in zip(jobs, origins, strict=True) if is_result(job, own)]


def _check_single(arguments: Sequence[Path], output: Path, files: OutputOptions) -> None:
    if len(arguments) > 1 or not arguments[0].is_file():
        raise UsageError(f"The output {output} names one file: give one input file or a folder.")
    written = format_of(output)
    if files.format is not None and format_of(files.format) != written:
        raise UsageError(f"The output {output} contradicts the format {files.format}.")


def _file_name(path: Path, options: UpscaleOptions, files: OutputOptions) -> str:
    model = options.model if options.method == "dossr" else Path(options.prior).absolute().name
    values: dict[str, str | int | float] = {
        "stem": path.stem,
        "ext": path.suffix[1:],
        "steps": options.steps,
        "seed": options.seed,
        "model": model,
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
    inputs = {_on_any_disk(job.input) for job in jobs}
    owners: dict[str, Path] = {}
    for job in jobs:
        output = _on_any_disk(job.output)
        if output in inputs:
            raise UsageError(
                f"The output {job.output} would overwrite an input: "
                "choose another output folder or --name."
            )
        other = owners.setdefault(output, job.input)
        if other != job.input:
            raise UsageError(
                f"{other} and {job.input} would both become {job.output}: "
                + _advice(other, job.input)
            )


def _advice(one: Path, other: Path) -> str:
    """How two inputs get two outputs."""
    if one.parent != other.parent:
        return TWO_FOLDERS
    return RENAMED if one.name.casefold() == other.name.casefold() else ONE_FOLDER


def _on_any_disk(path: Path) -> str:
    """What two paths share that a disk without upper and lower case takes for one file."""
    return os.path.realpath(path).casefold()


def pending(
    jobs: Iterable[Job], options: UpscaleOptions, *, overwrite: bool
) -> tuple[list[Job], list[Skipped]]:
    """Split into what there is to do and what exists already."""
    todo, skipped = [], []
    for job in jobs:
        if taken(job.output) and not overwrite:
            size = "" if _has_size(job, options) else ", made with another size"
            skipped.append(Skipped(job, f"the output exists{size} (--overwrite replaces it)"))
        else:
            todo.append(job)
    return todo, skipped


def taken(path: Path) -> bool:
    """Whether something would be replaced: a folder would not, it makes writing fail."""
    with suppress(OSError):  # a name that is too long
        return path.exists() and not path.is_dir()
    return False


def _has_size(job: Job, options: UpscaleOptions) -> bool:
    """Whether the result that exists is as large as this run's would be, if that is known."""
    try:
        return probe(job.output) == options.target(*probe(job.input))
    except InputError:
        return True


def preview(jobs: Iterable[Job], options: UpscaleOptions) -> Iterator[Planned | Failed]:
    """What `run` would do with each job, read from the files' headers alone."""
    for job in jobs:
        try:
            size = probe(job.input)
            target = target_size(job, size, options)
        except (InputError, DeviceError) as error:
            yield Failed(job, error)
        else:
            yield Planned(job, size, target)


def target_size(job: Job, size: tuple[int, int], options: UpscaleOptions) -> tuple[int, int]:
    """The output's size.

    Raises:
        InputError: its name is too long, or its format cannot hold it.
        DeviceError: this machine's memory, were it all free, could not either.
    """
    length = len(os.fsencode(job.output.name))
    if length > NAME_BYTES:
        raise InputError(
            f"The result of {job.input} would have a name of {length} bytes, but at most "
            f"{NAME_BYTES} are possible: choose a shorter --name, or rename the file."
        )
    width, height = options.target(*size)
    check_size(width, height, format_of(job.output))
    # In float32: preprocessed, decoded, with its colours fixed. Every run holds that at one time.
    need = (2 + (options.color != "none")) * 12 * width * height
    there = psutil.virtual_memory().total + psutil.swap_memory().total
    if need > there:
        raise DeviceError(
            f"{job.input} at {width}×{height} pixels needs over {need / 2**30:.0f} GiB of memory, "
            f"but this machine has {there / 2**30:.0f} GiB: choose a smaller --scale or --size."
        )
    return width, height
