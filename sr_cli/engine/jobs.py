"""Files to jobs: which files become which, and which of them are still to do."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from sr_cli import memory
from sr_cli.engine import collisions
from sr_cli.engine.events import Failed, Finished, Job, Outcome, Planned, Skipped
from sr_cli.engine.formats import FORMATS, check_size, format_of
from sr_cli.engine.images import MAX_PIXELS, SUFFIXES, load, probe, resembles_picture
from sr_cli.engine.inputs import Collected, Input, collect
from sr_cli.engine.manifest import Manifest, Recipe
from sr_cli.engine.naming import SAME, file_name
from sr_cli.engine.options import NAME_BYTES, OutputOptions, UpscaleOptions
from sr_cli.engine.shards import Shard
from sr_cli.engine.writers import BY_ROWS
from sr_cli.errors import DamagedError, DeviceError, GoneError, InputError, SrxError, UsageError

IN_THE_WAY = (
    "{} exists, and no run of srx is known to have made it so: --overwrite replaces it, "
    "--trust-existing takes it for done."
)
TWIN = "called {}, as another input has its stem"
"""A note on a result."""
FLOATS = 36
"""Bytes a pixel of a whole result: three pictures in float32, which is the most that `needed` asks
for one."""
SHOWN = 3
"""Files that a note names."""
PictureCheck = Callable[[tuple[int, int], tuple[int, int]], None]
"""Raises an SrxError where a picture of one (width, height) cannot become one of another."""


@dataclass(frozen=True)
class Plan:
    """The jobs of a run, what its user should know of files that are in none of them, and those
    that failed already; `single`: one file becomes one file."""

    jobs: list[Job]
    notes: tuple[str, ...] = ()
    failures: tuple[Failed, ...] = ()
    single: bool = False


def collect_jobs(
    arguments: Sequence[Path],
    output: Path,
    options: UpscaleOptions,
    files: OutputOptions,
    *,
    recursive: bool = False,
) -> Plan:
    """The jobs that turn `arguments` into files of the folder `output`, whose tree they mirror.

    One input file and an `output` with an image's suffix make one job from file to file.

    Results of an earlier run, which lie among the inputs where the output is the same folder, are
    no inputs: a file is taken for one if another input would be written there, unless an argument
    names it. An argument that does not exist, a folder that cannot be read, and a file that the
    template cannot name fail alone; where there is nothing else, the whole call fails.

    Raises:
        UsageError: as `collect`; two inputs share an output; an output is one of the inputs, or no
            path that can be.
        InputError: a folder cannot be read.
    """
    if Path("-") in (*arguments, output):
        raise UsageError("stdin and stdout (-) are for one picture alone: name files or folders.")
    _check_path(output)
    found = collect(arguments, recursive=recursive, exclude=output)
    inputs, notes = found.inputs, _left_out(found)
    failures = [Failed(Job(path, output), error) for path, error in found.failed]
    single = False
    if output.suffix.lower() in SUFFIXES and not output.is_dir():
        _check_single(arguments, output, files)
        jobs, single = [Job(inputs[0].path, output)], True
        if files.name != OutputOptions.name:
            notes.append(f"--name is for results in a folder: this one is {output}.")
    else:
        _check_folder(arguments, output)
        jobs, unnamed = named(inputs, output, options, files)
        if unnamed and not jobs:
            raise UsageError(str(unnamed[-1].error))
        failures += unnamed
        asked_for = {given.path for given in inputs if not given.found}
        if results := set(collisions.results(jobs, asked_for, files)):
            shown = _shown([job.input for job in jobs if job in results])
            jobs = [job for job in jobs if job not in results]
            notes.append(f"Results of an earlier run, which are no inputs: {shown}.")
        jobs, twins = told_apart(jobs, options, files)
        notes += twins
    if files.quality != OutputOptions.quality and not any(map(_is_lossy, jobs)):
        notes.append("--quality is for JPEG, WebP and AVIF: --format has what these results are.")
    collisions.check_distinct(jobs)
    return Plan(jobs, tuple(notes), tuple(failures), single)


def _left_out(found: Collected) -> list[str]:
    """Notes on what is no input."""
    notes = [f"There is no image in {folder}." for folder in found.empty]
    if found.others:
        count = len(found.others)
        notes.append(f"{count} other file{'s' * (count > 1)} left out: {_shown(found.others)}.")
    if found.closed:
        count, folders = len(found.closed), _shown(found.closed)
        notes.append(f"{count} folder{'s' * (count > 1)} not entered without -r: {folders}.")
    return notes


def _is_lossy(job: Job) -> bool:
    return format_of(job.output) not in BY_ROWS


def share(planned: Plan, output: Path, shard: Shard) -> Plan:
    """The part of a plan that is this shard's; what failed already is every shard's.

    Raises UsageError where one file becomes one file.
    """
    if planned.single:
        raise UsageError(f"--shard {shard} is for a folder of results: {output} is one file.")

    def mine(job: Job) -> bool:
        return shard.holds(job.output.parent.relative_to(output) / job.input.name)

    return replace(planned, jobs=[job for job in planned.jobs if mine(job)])


def _shown(paths: Sequence[Path]) -> str:
    more = f" and {len(paths) - SHOWN} more" if len(paths) > SHOWN else ""
    return ", ".join(map(str, paths[:SHOWN])) + more


def named(
    inputs: Sequence[Input], output: Path, options: UpscaleOptions, files: OutputOptions
) -> tuple[list[Job], list[Failed]]:
    """Jobs into the folder `output`, and files that the template cannot name."""
    jobs, failures = [], list[Failed]()
    for given in inputs:
        try:
            name = file_name(given.path, options, files)
        except UsageError as error:
            failures.append(Failed(Job(given.path, output), InputError(f"{given.path}: {error}")))
        else:
            jobs.append(Job(given.path, output / given.folder / name))
    return jobs, failures


def told_apart(
    jobs: Sequence[Job], options: UpscaleOptions, files: OutputOptions
) -> tuple[list[Job], list[str]]:
    """The jobs, and a note where some had shared an output: in the names of these the input's whole
    name stands for its stem, IMG_1.heic.png beside IMG_1.jpg.png."""
    found = {job: job for job in jobs}
    for job in collisions.twins(jobs):
        name = file_name(job.input, options, files, twin=True)
        if name != job.output.name:
            result = job.output.with_name(name)
            found[job] = replace(job, output=result, notes=(TWIN.format(name),))
    renamed = {job: other for job, other in found.items() if other.notes}
    if not renamed:
        return list(jobs), []
    shown = _shown([job.output for job in renamed.values()])
    said = f"Inputs that differ in their suffixes alone keep these: {shown}."
    own = {job.output for job in found.values()}
    plain = dict.fromkeys(job.output for job in renamed)
    if earlier := [path for path in plain if path not in own and taken(path)]:
        said += f" Of before there was another, these stay too: {_shown(earlier)}."
    return list(found.values()), [said]


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


def _check_single(arguments: Sequence[Path], output: Path, files: OutputOptions) -> None:
    if len(arguments) > 1 or not arguments[0].is_file():
        raise UsageError(f"The output {output} names one file: give one input file or a folder.")
    written = format_of(output)
    if files.format not in (None, SAME) and format_of(files.format) != written:
        raise UsageError(f"The output {output} contradicts the format {files.format}.")


def pending(
    jobs: Iterable[Job],
    options: UpscaleOptions,
    files: OutputOptions,
    manifest: Manifest,
) -> tuple[list[Job], list[Skipped | Failed]]:
    """The jobs to do, and those that need no work: done (Skipped) or in the way (Failed).

    A result is done if it is whole and the manifest says that it is of this input and these
    options. Any other result that the manifest knows is made again, and so is a damaged file. A
    file that the manifest does not know is never replaced, unless `files.overwrite`. Pictures that
    an earlier run was killed on come last.
    """
    todo: list[Job] = []
    settled: list[Skipped | Failed] = []
    recipe = cache(lambda: Recipe.of(options, files))
    for job in jobs:
        if files.only_enlarge and large_enough(job, options, files):
            settled.append(Skipped(job, "large enough already (--only-enlarge)"))
        elif files.overwrite or not taken(job.output):
            todo.append(replace(job, replaces=files.overwrite))
        elif files.trust_existing:
            size = "" if _has_size(job, options) else ", made with another size"
            settled.append(Skipped(job, f"the output exists{size} (--overwrite replaces it)"))
        elif manifest.knows(job.output) and manifest.is_done(job, recipe()):
            settled.append(Skipped(job, "done already"))
        elif manifest.is_ours(job.output) or _is_damaged(job.output):
            todo.append(replace(job, replaces=True))
        else:
            settled.append(Failed(job, InputError(IN_THE_WAY.format(job.output))))
    todo.sort(key=lambda job: manifest.unfinished[str(job.input)])
    return todo, settled


def large_enough(job: Job, options: UpscaleOptions, files: OutputOptions) -> bool:
    with suppress(InputError):  # reading it will say why
        width, height = probe(job.input, max_pixels=files.max_pixels)
        wide, high = options.size.of(width, height)
        return wide <= width and high <= height
    return False


def _is_damaged(path: Path) -> bool:
    """Whether a file is what a crash leaves: empty, or cut. One that is read otherwise than srx can
    (an animation, a locked file, 12 bits of a JPEG) may be somebody's picture."""
    if path.stat().st_size == 0:
        return True
    if not resembles_picture(path) and path.suffix.lower() not in (".tif", ".tiff"):
        return False
    try:
        load(path)
    except InputError as error:
        return isinstance(error, DamagedError)
    return False


def missing(outcomes: Iterable[Outcome]) -> Iterator[Outcome]:
    """The outcomes at the end of a run: what was done and is not there any more has failed."""
    for outcome in outcomes:
        if isinstance(outcome, Finished) and not os.path.lexists(outcome.job.output):
            gone = f"{outcome.job.output} was written, but is not there any more."
            yield Failed(outcome.job, GoneError(gone))
        else:
            yield outcome


def taken(path: Path) -> bool:
    """Whether something would be replaced: a folder would not, it makes writing fail."""
    with suppress(OSError):  # a name that is too long
        return path.exists() and not path.is_dir()
    return False


def _has_size(job: Job, options: UpscaleOptions) -> bool:
    """Whether the result that exists is as large as this run's would be, if that is known."""
    try:
        return probe(job.output) == options.size.of(*probe(job.input))
    except InputError:
        return True


def preview(
    jobs: Iterable[Job],
    options: UpscaleOptions,
    *,
    max_pixels: int = MAX_PIXELS,
    check: PictureCheck | None = None,
) -> Iterator[Planned | Failed]:
    """What `run` would do with each job, read from the files' headers alone.

    check: what else may stop a picture.
    """
    for job in jobs:
        try:
            size = probe(job.input, max_pixels=max_pixels)
            target = target_size(job, size, options)
            if check:
                check(size, target)
        except SrxError as error:
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
    width, height = options.size.of(*size)
    check_size(width, height, format_of(job.output))
    there = memory.total()
    if FLOATS * width * height > there:
        from sr_cli.engine.stream.plan import needed  # with torch, which takes a second

        need = needed(options, (size, (width, height)), format_of(job.output))
        if need > there:
            raise DeviceError(
                f"{job.input} at {width}×{height} pixels needs over {need / 2**30:.0f} GiB of "
                f"memory, but this machine has {there / 2**30:.0f} GiB: choose a smaller --scale "
                "or --size."
            )
    return width, height
