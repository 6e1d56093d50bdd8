"""A contact sheet of a batch: a page of every picture before and after, read from the files."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from math import prod, sqrt
from pathlib import Path

import numpy as np

from sr_cli.engine.events import Finished, Outcome, Skipped
from sr_cli.engine.images import MAX_PIXELS, Floats, Picture, load, probe
from sr_cli.errors import InputError
from sr_cli.evaluation import page
from sr_cli.evaluation.datasets import rgb_profile
from sr_cli.evaluation.page import Box, Levels
from sr_cli.evaluation.tables import Column, Table

SIDE = 512
"""Pixels of a result's side that are shown, at most."""
BUDGET = 12e6
"""Pixels of all results in one sheet, which then has less than 20 MB."""
MOST = 500
"""Pictures in one sheet."""
LARGEST = 100_000_000
"""Pixels of a result that is read again, to be shown."""
ROWS = ("before", "after")


def sheet(
    outcomes: Sequence[Outcome],
    *,
    title: str,
    max_pixels: int = MAX_PIXELS,
    on_picture: Callable[[], None] = lambda: None,
) -> tuple[page.Page | None, list[str]]:
    """The page of those that are done, or None where there are none, and what it lacks.

    Of each picture its middle is shown: a square of at most SIDE pixels of the result, less where
    there are many pictures. on_picture() is called for each of `shown(outcomes)`.
    """
    done = shown(outcomes)
    names = _names([outcome.job.input for outcome in done])
    side = int(min(SIDE, sqrt(BUDGET / max(1, len(done)))))
    pictures, missing = [], []
    for name, outcome in zip(names, done, strict=True):
        try:
            pictures.append(_picture(name, outcome, side, max_pixels))
        except InputError as error:
            missing.append(str(error))
        on_picture()
    left_out = len(_done(outcomes)) - len(done)
    if left_out:
        missing.append(f"{left_out} pictures more; a sheet shows {MOST}.")
    if not pictures:
        return None, missing
    note = f"The middle of each picture, {side}×{side} pixels of the result. {' '.join(missing)}"
    made = page.Page(title, ROWS, pictures, 0, 1, note=note.strip(), smooth=True)
    return made, missing


def shown(outcomes: Sequence[Outcome]) -> list[Finished | Skipped]:
    """What a sheet has of these: results of this run and of earlier ones, the first MOST."""
    return _done(outcomes)[:MOST]


def _done(outcomes: Sequence[Outcome]) -> list[Finished | Skipped]:
    return [
        outcome
        for outcome in outcomes
        if isinstance(outcome, Finished)
        or (isinstance(outcome, Skipped) and outcome.job.output.is_file())
    ]


def _names(files: Sequence[Path]) -> list[str]:
    """Paths below the folder that holds all of them, so that the page tells no more of the disk."""
    parents = [str(file.absolute().parent) for file in files]
    with suppress(ValueError):  # on several drives, or none at all
        common = os.path.commonpath(parents)
        return [file.absolute().relative_to(common).as_posix() for file in files]
    return [file.name for file in files]


def _picture(name: str, outcome: Finished | Skipped, side: int, max_pixels: int) -> page.Shown:
    """Raises InputError where one of the files cannot be read any more, or the result is huge."""
    job = outcome.job
    if prod(probe(job.output, max_pixels=100 * LARGEST)) > LARGEST:
        raise InputError(f"{job.output} is too large for the sheet.")
    before = load(job.input, max_pixels=max_pixels)
    after = load(job.output, max_pixels=LARGEST)
    part, box = _middle(before.size, after.size, side)
    notes = outcome.notes if isinstance(outcome, Finished) else (outcome.reason,)
    seconds = outcome.seconds if isinstance(outcome, Finished) else None
    return page.Shown(
        name,
        "; ".join((f"{_size(before)} → {_size(after)} pixels", *notes)),
        box[2:],
        [_image(before, part), _image(after, box)],
        page.thumbnail(_levels(before, (0, 0, *before.size)), rgb_profile(before)),
        page.share(part, before.size),
        _table(before, after, job.input, job.output, seconds),
    )


def _middle(before: tuple[int, int], after: tuple[int, int], side: int) -> tuple[Box, Box]:
    """The same part of a picture before and after it was enlarged: whole pixels of the former."""
    parts: list[tuple[int, int, int, int]] = []
    for small, large in zip(before, after, strict=True):
        kept = min(small, max(1, side * small // large))
        start = (small - kept) // 2
        first, last = (round(edge * large / small) for edge in (start, start + kept))
        parts.append((start, kept, first, max(1, last - first)))
    (left, width, x, wide), (top, height, y, high) = parts
    return (left, top, width, height), (x, y, wide, high)


def _levels(picture: Picture, box: Box) -> Levels:
    """A part of it in 8 bits, laid on white where it is transparent."""
    left, top, width, height = box
    place = np.s_[top : top + height, left : left + width]
    rgb: Floats = picture.rgb[place]
    if picture.alpha is not None:
        alpha = picture.alpha[place][..., None]
        rgb = rgb * alpha + (1 - alpha)
    found: Levels = np.rint(rgb.clip(0, 1) * 255).astype(np.uint8)
    return found


def _image(picture: Picture, box: Box) -> str:
    return page.data_uri(_levels(picture, box), rgb_profile(picture))


def _size(picture: Picture) -> str:
    width, height = picture.size
    return f"{width}×{height}"


def _table(
    before: Picture, after: Picture, source: Path, result: Path, seconds: float | None
) -> Table:
    columns = (Column(""), Column("pixels"), Column("KB", digits=0), Column("seconds"))
    rows = []
    for name, picture, file in zip(ROWS, (before, after), (source, result), strict=True):
        spent = seconds if name == "after" else None
        rows.append((name, _size(picture), file.stat().st_size / 1000, spent))
    return Table(columns, tuple(rows))
