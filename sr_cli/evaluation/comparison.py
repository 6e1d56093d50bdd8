"""Several methods on the same pictures, to be looked at: what `srx compare` computes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property
from math import sqrt
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sr_cli.engine.arrays import to_rgb, to_tensor
from sr_cli.engine.images import load
from sr_cli.engine.options import UpscaleOptions
from sr_cli.errors import ExitCode, SrxError, UsageError
from sr_cli.evaluation import page
from sr_cli.evaluation.bench import Clock
from sr_cli.evaluation.datasets import Pair, Pairs, rgb_profile
from sr_cli.evaluation.metrics import Metrics, column, mean
from sr_cli.evaluation.page import Box, Levels
from sr_cli.evaluation.peers import Method, Peer
from sr_cli.evaluation.tables import Cell, Column, Table

CROP, LEAST = 256, 32
"""Input pixels of a side that are compared unless told: at most, and at least."""
BUDGET, LIMIT = 12e6, 200e6
"""Pixels of all results in one page: what the default keeps to, and what is refused."""
WARMUP = 32
"""Input pixels of a side of what each method enlarges once before the clock runs."""
INPUT, ORIGINAL = "input", "original"


@dataclass(frozen=True)
class Part:
    """Which part of each picture is compared.

    crop: its longest side in input pixels; 0: the whole picture; None: as many as keep a page
    small, at most CROP. at: (x, y) of its middle in input pixels; None: that of the picture.

    Raises:
        UsageError: a number is negative.
    """

    crop: int | None = None
    at: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if (self.crop or 0) < 0:
            raise UsageError(f"crop must not be negative, but it is {self.crop}.")
        if self.at and min(self.at) < 0:
            raise UsageError(f"at must be a place in the picture, not {self.at[0]},{self.at[1]}.")

    def side(self, results: int, scale: float) -> int:
        """Input pixels, 0 for all of them, in a page of so many results."""
        if self.crop is not None:
            return self.crop
        return max(LEAST, min(CROP, int(sqrt(BUDGET / results) / scale)))

    def box(self, size: tuple[int, int], side: int, scale: float) -> Box:
        """The part of a picture of (width, height). Where a pixel of the input is no whole number
        of pixels of the result, its corner is one that falls onto a whole one."""
        grid = Fraction(str(scale)).limit_denominator(100).denominator
        middle = self.at or (size[0] // 2, size[1] // 2)
        corner, sides = [], []
        for place, length in zip(middle, size, strict=True):
            kept = min(side or length, length)
            start = max(0, min(place - kept // 2, length - kept))
            corner.append(start - start % grid)
            sides.append(kept)
        return corner[0], corner[1], sides[0], sides[1]


@dataclass(frozen=True, eq=False)
class Subject:
    """One picture that is compared.

    title: its name for people. pair: its part, by a name of its own in the group; where there is no
    original, hr has the right size and says nothing. size: (width, height) of the whole input; box:
    the part of it. whole: like pair, with the size of the whole result and nothing else of it.
    corner: the part's (left, top) in the result.
    """

    title: str
    pair: Pair
    size: tuple[int, int]
    box: Box
    whole: Pair
    corner: tuple[int, int]
    original: bool
    thumbnail: str

    @property
    def text(self) -> str:
        """What is shown, for people."""
        height, width = self.whole.hr.shape[1:]
        sizes = f"{self.size[0]}×{self.size[1]} → {width}×{height} pixels"
        left, top, wide, high = self.box
        if (wide, high) == self.size:
            return sizes
        return f"{sizes}; compared: {wide}×{high} pixels of the input from ({left}, {top}) on"


@dataclass(frozen=True, eq=False)
class Group:
    """Pictures that belong together, as `peers` want them; originals: whether `pairs` has HR images
    that are originals, rather than inputs without any."""

    pairs: Pairs
    originals: bool
    part: Part
    side: int

    @cached_property
    def subjects(self) -> tuple[Subject, ...]:
        """Raises InputError when a file cannot be read, UsageError when sizes do not fit."""
        return tuple(self._subjects())

    def _subjects(self) -> Iterator[Subject]:
        scale = self.pairs.scale
        size_of = UpscaleOptions(scale=scale).size.of
        for i, file in enumerate(self.pairs.hr_files):
            if self.originals:
                pair = self.pairs[i]
            else:
                picture = load(file)
                hr = _nothing(size_of(*picture.size))
                pair = Pair(file.name, to_tensor(picture.rgb), hr, rgb_profile(picture))
            size = (pair.lr.shape[2], pair.lr.shape[1])
            left, top, width, height = box = self.part.box(size, self.side, scale)
            large, shown = (pair.hr.shape[2], pair.hr.shape[1]), size_of(width, height)
            corner = (
                min(round(left * scale), large[0] - shown[0]),
                min(round(top * scale), large[1] - shown[1]),
            )
            lr = cut(pair.lr, (left, top), (width, height))
            hr = cut(pair.hr, corner, shown) if self.originals else _nothing(shown)
            name = self.names[i]
            part, whole = Pair(name, lr, hr, pair.icc), Pair(name, lr, _nothing(large))
            small = page.thumbnail(levels(pair.lr), pair.icc)
            yield Subject(pair.name, part, size, box, whole, corner, self.originals, small)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Of the pairs; files of several folders that share one are told apart."""
        names = self.pairs.names
        shared = {name for name in names if names.count(name) > 1}
        return tuple(f"{name}-{i}" if name in shared else name for i, name in enumerate(names))

    @cached_property
    def parts(self) -> Pairs:
        """What methods are made for: the parts, by the names of the whole pictures."""
        return _Parts(self)


class _Parts(Pairs):
    """Pairs that are in memory."""

    def __init__(self, group: Group) -> None:
        pairs = group.pairs
        super().__init__(pairs.name, (), pairs.scale, "", 0, half=pairs.half)
        self._group = group

    @property
    def names(self) -> tuple[str, ...]:
        return self._group.names

    @property
    def hr_files(self) -> tuple[Path, ...]:
        return self._group.pairs.hr_files

    def __len__(self) -> int:
        return len(self._group.subjects)

    def __getitem__(self, index: Any) -> Any:
        found = self._group.subjects[index]
        return found.pair if isinstance(found, Subject) else [each.pair for each in found]


@dataclass(frozen=True)
class Result:
    """One method on one picture: a data URI, its seconds (None: not measured) and scores; or why
    there is nothing, and the code of that error."""

    image: str | None = None
    seconds: float | None = None
    scores: Mapping[str, float | None] = field(default_factory=dict)
    failure: str | None = None
    exit_code: ExitCode = ExitCode.DONE


def groups(sets: Sequence[tuple[Pairs, bool]], part: Part, methods: int) -> list[Group]:
    """Each set with whether its HR images are originals, cut to what `methods` are compared on.

    Raises:
        InputError: a file cannot be read.
        UsageError: sizes do not fit, or the page would be too large.
    """
    results = sum(len(pairs) * (methods + originals) for pairs, originals in sets)
    found = [
        Group(pairs, originals, part, part.side(results, pairs.scale)) for pairs, originals in sets
    ]
    pixels = sum(
        subject.pair.hr[0].numel() * (methods + group.originals)
        for group in found
        for subject in group.subjects
    )
    if pixels > LIMIT:
        raise UsageError(
            f"The page would hold {pixels / 1e6:.0f} megapixels; {LIMIT / 1e6:.0f} are the most: "
            "choose a smaller --crop, fewer rows or fewer pictures."
        )
    return found


def compare(
    peer: Peer,
    group: Group,
    metrics: Metrics,
    blind: Metrics,
    *,
    device: torch.device,
    on_picture: Callable[[], None] = lambda: None,
) -> list[Result]:
    """One method on each picture of a group; a failure is a result too.

    metrics: of results that have an original; blind: of those that have none.
    """
    clock = Clock(device)
    method: Method | None = None
    found = []
    for i, subject in enumerate(group.subjects):
        try:
            if method is None:
                method = peer.make(group.parts)
                if peer.timed:
                    clock.run(method, [_small(subject.pair, group.pairs.scale)])
            image, seconds = _run(peer, method, clock, subject)
            if method.spent:
                seconds = method.spent.seconds[i]
            scorer = metrics if subject.original else blind
            # Where there is no original, `blind` has no metric that looks at it.
            scores = scorer.score(image, subject.pair.hr if subject.original else image)
            uri = page.data_uri(levels(image), subject.pair.icc)
            found.append(Result(uri, seconds, scores))
        except SrxError as error:
            found.append(Result(failure=str(error), exit_code=error.exit_code))
        except Exception as error:  # a peer may be anybody's network
            reason = f"{type(error).__name__}: {error}"
            found.append(Result(failure=reason, exit_code=ExitCode.SOME_FAILED))
        on_picture()
    return found


def _run(peer: Peer, method: Method, clock: Clock, subject: Subject) -> tuple[Tensor, float | None]:
    """The result of the part in 8-bit levels, (3, H, W) in [0, 1], and the seconds it took here."""
    if peer.reads:
        height, width = subject.pair.hr.shape[1:]
        image = cut(method.run([subject.whole])[0], subject.corner, (width, height))
    else:
        results, seconds = clock.run(method, [subject.pair])
        image = results[0].cpu()
    return (image * 255).round() / 255, seconds if peer.timed else None


def build(
    found_groups: Sequence[Group],
    rows: Mapping[str, Sequence[Result]],
    metrics: Metrics,
    *,
    own: Sequence[str],
    title: str,
    note: str,
) -> page.Page:
    """The page of what was compared: of each row, by name, a result for every picture.

    The input's own pixels are the first row, the originals, if there are any, the last. own: names
    of rows of srx, of which the first that there is stands on the right.
    """
    subjects = [subject for group in found_groups for subject in group.subjects]
    originals = any(subject.original for subject in subjects)
    names = [INPUT, *rows, *([ORIGINAL] if originals else [])]
    pictures = []
    for i, subject in enumerate(subjects):
        results = {name: row[i] for name, row in rows.items()}
        pictures.append(_shown(subject, names, results, metrics))
    there = [name for name in rows if any(result.image for result in rows[name])]
    right = next((name for name in own if name in there), there[0] if there else INPUT)
    left = next((name for name in (*there, INPUT) if name != right), INPUT)
    means = None
    if len(subjects) > 1:
        averages = {name: _mean(row, metrics) for name, row in rows.items()}
        means = table(names, averages, metrics)
    return page.Page(
        title, names, pictures, names.index(left), names.index(right), means=means, note=note
    )


def _shown(
    subject: Subject, names: Sequence[str], results: Mapping[str, Result], metrics: Metrics
) -> page.Shown:
    pair = subject.pair
    images = {name: result.image for name, result in results.items()}
    images[INPUT] = page.data_uri(levels(pair.lr), pair.icc)
    if subject.original:
        images[ORIGINAL] = page.data_uri(levels(pair.hr), pair.icc)
    return page.Shown(
        subject.title,
        subject.text,
        (pair.hr.shape[2], pair.hr.shape[1]),
        [images.get(name) for name in names],
        subject.thumbnail,
        page.share(subject.box, subject.size),
        table(names, results, metrics),
    )


def _mean(row: Sequence[Result], metrics: Metrics) -> Result:
    there = [result for result in row if not result.failure]
    scores = {name: mean(result.scores.get(name) for result in there) for name in metrics.names}
    failed = len(row) - len(there)
    failure = f"{failed} of {len(row)} failed" if failed else None
    return Result(None, mean(result.seconds for result in there), scores, failure)


def table(names: Sequence[str], results: Mapping[str, Result], metrics: Metrics) -> Table:
    """A line for each name, with seconds and scores where there is a result."""
    measured = [metric for metric in metrics.names if metric not in metrics.missing]
    columns = [Column("method"), Column("seconds", "lower", 3), *map(column, measured)]
    failed = any(result.failure for result in results.values())

    def cells(name: str) -> tuple[Cell, ...]:
        result = results.get(name, Result())
        scores = [result.scores.get(metric) for metric in measured]
        return (name, result.seconds, *scores, *([result.failure or ""] if failed else []))

    columns += [Column("note")] if failed else []
    return Table(tuple(columns), tuple(cells(name) for name in names))


def levels(image: Tensor) -> Levels:
    """(3, H, W) in [0, 1] → (H, W, 3) of 8 bits."""
    rgb: Levels = (to_rgb(image).clip(0, 1) * 255).round().astype("uint8")
    return rgb


def cut(image: Tensor, corner: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """(width, height) pixels of (3, H, W) from (left, top) on."""
    (left, top), (width, height) = corner, size
    return image[:, top : top + height, left : left + width].contiguous()


def _small(pair: Pair, scale: float) -> Pair:
    """A corner of it, to be enlarged before the clock runs."""
    lr = pair.lr[:, :WARMUP, :WARMUP].contiguous()
    size = UpscaleOptions(scale=scale).size.of(lr.shape[2], lr.shape[1])
    return Pair(pair.name, lr, _nothing(size))


def _nothing(size: tuple[int, int]) -> Tensor:
    """A picture of (width, height) that takes no memory."""
    return torch.zeros(()).expand(3, size[1], size[0])
