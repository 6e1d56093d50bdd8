"""Several methods on the same pictures, to be looked at: what `srx compare` computes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from sr_cli.engine.options import UpscaleOptions
from sr_cli.errors import ExitCode, SrxError, UsageError
from sr_cli.evaluation import page
from sr_cli.evaluation.bench import Clock
from sr_cli.evaluation.datasets import Pair, Pairs
from sr_cli.evaluation.metrics import Metrics, column, mean
from sr_cli.evaluation.parts import cut
from sr_cli.evaluation.peers import Method, Peer
from sr_cli.evaluation.subjects import Group, Part, Subject, levels, nothing
from sr_cli.evaluation.tables import Cell, Column, Table

LIMIT = 200e6
"""Pixels of all results in one page; more are refused."""
WARMUP = 32
"""Input pixels of a side of what each method enlarges once before the clock runs."""
INPUT, ORIGINAL = "input", "original"


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


def _small(pair: Pair, scale: float) -> Pair:
    """A corner of it, to be enlarged before the clock runs."""
    lr = pair.lr[:, :WARMUP, :WARMUP].contiguous()
    size = UpscaleOptions(scale=scale).size.of(lr.shape[2], lr.shape[1])
    return Pair(pair.name, lr, nothing(size))
