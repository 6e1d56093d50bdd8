"""Which jobs would write where others read or write, by paths as the careless disk takes them."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from itertools import chain
from pathlib import Path

from sr_cli.engine.events import Job
from sr_cli.engine.inputs import Links
from sr_cli.engine.options import OutputOptions
from sr_cli.errors import UsageError

RENAMED = "many disks take their names for one: rename one of them."
ONE_FOLDER = "tell them apart by --name '{stem}_{ext}'."
TWO_FOLDERS = (
    "give the folder that holds both with --recursive, which keeps its subfolders, "
    "or use two output folders."
)


def results(jobs: Sequence[Job], named: Collection[Path], files: OutputOptions) -> list[Job]:
    """The jobs of files that other jobs write, or would with other values of the name's fields, or
    as a twin.

    Such a file may be an original after all, as a.png beside a.jpg: where it would be overwritten
    by either job, it is none of them, and the two are told of as a collision.
    """
    links = Links()

    def origin(path: str, stem: str = "") -> tuple[str, ...]:
        folder, name = os.path.split(path)
        return folder, *files.origin(name, stem)

    inputs, outputs = on_any_disk(jobs, links)
    names = [job.input.name.casefold() for job in jobs]
    origins = [
        {origin(path), origin(path, stem=name)} for path, name in zip(outputs, names, strict=True)
    ]
    writers = Counter(chain.from_iterable(origins))

    found = []
    for job, source, result, own in zip(jobs, inputs, outputs, origins, strict=True):
        mine = origin(source)
        others = writers[mine] - (mine in own)
        in_place = files.overwrite and source == result
        if others > 0 and job.input not in named and not in_place:
            found.append(job)
    return found


def twins(jobs: Sequence[Job]) -> list[Job]:
    """The jobs that share an output with others, whose inputs have other names, as IMG_1.heic and
    IMG_1.jpg have."""
    _, outputs = on_any_disk(jobs, Links())
    sharing: defaultdict[str, list[Job]] = defaultdict(list)
    for job, output in zip(jobs, outputs, strict=True):
        sharing[output].append(job)
    groups = [group for group in sharing.values() if len(group) > 1]
    names = [{job.input.name.casefold() for job in group} for group in groups]
    apart = zip(groups, names, strict=True)
    return [job for group, own in apart if len(own) == len(group) for job in group]


def check_distinct(jobs: Sequence[Job]) -> None:
    """Raise UsageError where two jobs share an output, or one writes what another reads."""
    inputs, outputs = on_any_disk(jobs, Links())
    read = set(inputs)
    owners: dict[str, Path] = {}
    for job, output in zip(jobs, outputs, strict=True):
        if output in read:
            raise UsageError(
                f"The output {job.output} would overwrite an input: "
                "choose another output folder or --name."
            )
        other = owners.setdefault(output, job.input)
        if other != job.input:
            raise UsageError(shared(other, job))


def shared(one: Path, job: Job) -> str:
    """That two inputs would have one output, and how they get two."""
    other = job.input
    advice = RENAMED if one.name.casefold() == other.name.casefold() else ONE_FOLDER
    advice = advice if one.parent == other.parent else TWO_FOLDERS
    return f"{one} and {other} would both become {job.output}: {advice}"


def on_any_disk(jobs: Sequence[Job], links: Links) -> tuple[list[str], list[str]]:
    """What paths of inputs, and of outputs, share with those that a disk without upper and lower
    case takes for the same file."""
    inputs = [links.resolved(job.input).casefold() for job in jobs]
    return inputs, [links.resolved(job.output).casefold() for job in jobs]
