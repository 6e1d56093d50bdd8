"""Files to jobs: which files become which, and which of them are still to do."""

from __future__ import annotations

import glob
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from sr_cli.engine.events import Failed, Job, Planned, Skipped
from sr_cli.engine.formats import FORMATS, check_size, format_of
from sr_cli.engine.images import SUFFIXES, probe
from sr_cli.engine.options import OutputOptions, UpscaleOptions
from sr_cli.errors import InputError, UsageError


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
                "tell them apart by --name '{stem}_{ext}' or by two output folders."
            )


def _on_any_disk(path: Path) -> str:
    """What two paths share that a disk without upper and lower case takes for one file."""
    return str(path.resolve()).casefold()


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
            target = target_size(job, size, options)
        except InputError as error:
            yield Failed(job, error)
        else:
            yield Planned(job, size, target)


def target_size(job: Job, size: tuple[int, int], options: UpscaleOptions) -> tuple[int, int]:
    """The output's size, unless its format cannot hold it."""
    target = options.target(*size)
    check_size(*target, format_of(job.output))
    return target
