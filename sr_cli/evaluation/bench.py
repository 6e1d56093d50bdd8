"""Latency, memory and quality of several methods on the same images in the same run."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from statistics import fmean
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sr_cli.engine.options import UpscaleOptions
from sr_cli.engine.timing import Stopwatch
from sr_cli.engine.upscaler import Upscaler
from sr_cli.errors import ExitCode, SrxError, UsageError
from sr_cli.evaluation.datasets import Pair, Pairs
from sr_cli.evaluation.memory import MemoryMeter
from sr_cli.evaluation.metrics import Metrics, column, mean
from sr_cli.evaluation.peers import Method, Peer
from sr_cli.evaluation.set_files import SetFiles
from sr_cli.evaluation.tables import Cell, Column, Table

SCORED_TOGETHER = 8
"""Results of one size that metrics get at a time."""


@dataclass(frozen=True)
class BenchOptions:
    """How to measure latency: calls before the clock runs, calls on each image, and how many
    images at a time for the throughput. Raises UsageError when a number makes no sense."""

    warmup: int = 1
    repeat: int = 1
    batch: int = 1

    def __post_init__(self) -> None:
        for name, least in (("warmup", 0), ("repeat", 1), ("batch", 1)):
            value = getattr(self, name)
            if value < least:
                raise UsageError(f"{name} must be at least {least}, not {value}.")


@dataclass(frozen=True)
class Row:
    """One method on one data set at one scale.

    seconds: of every timed call, one image each. images_per_second: `batch` images at a time.
    startup: seconds that a program takes before its first image.
    memory: bytes that it holds and works with. scores: means over the images for which a metric is
    defined. failure: why there is nothing else, in a sentence; exit_code: of that error.
    """

    data: str
    method: str
    images: int
    nfe: int | None = None
    parameters: int | None = None
    seconds: Sequence[float] = ()
    images_per_second: float | None = None
    memory: int | None = None
    scores: Mapping[str, float | None] = field(default_factory=dict)
    failure: str | None = None
    exit_code: ExitCode = ExitCode.DONE
    startup: float | None = None
    scale: float = 4.0

    def percentile(self, percent: float) -> float | None:
        """Of the seconds an image; 50 is the median."""
        return float(np.percentile(self.seconds, percent)) if self.seconds else None

    @property
    def record(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self) | {
            "median": self.percentile(50),
            "p10": self.percentile(10),
            "p90": self.percentile(90),
        }


def measure(
    peer: Peer,
    pairs: Pairs,
    metrics: Metrics,
    options: BenchOptions,
    *,
    device: torch.device,
    on_image: Callable[[], None] = lambda: None,
) -> Row:
    """The row of one method; a failure makes a row too. on_image() is called after each image."""
    try:
        with SetFiles(metrics) as files:
            scorer = Scorer(metrics, files)
            return _measured(peer, pairs, scorer, options, clock=Clock(device), on_image=on_image)
    except SrxError as error:
        failure, code = str(error), error.exit_code
    except Exception as error:  # a peer may be anybody's network
        failure, code = f"{type(error).__name__}: {error}", ExitCode.SOME_FAILED
    row = Row(pairs.title, peer.name, len(pairs), failure=failure, exit_code=code)
    return replace(row, scale=pairs.scale)


def _measured(
    peer: Peer,
    pairs: Pairs,
    scorer: "Scorer",
    options: BenchOptions,
    *,
    clock: "Clock",
    on_image: Callable[[], None],
) -> Row:
    with clock.memory.holding():
        method = peer.make(pairs)
    seconds: list[float] = []
    for pair in pairs:
        warmup = 0 if seconds or not peer.timed else options.warmup
        for _ in range(warmup):
            clock.run(method, [pair])
        for _ in range(options.repeat if peer.timed else 1):
            results, spent = clock.run(method, [pair])
            seconds.append(spent)
        scorer.add(results[0], pair)
        on_image()
    row = Row(pairs.title, peer.name, len(pairs), method.nfe, method.parameters)
    row = replace(row, scores=scorer.means(), scale=pairs.scale)
    if told := method.spent:
        speed = len(told.seconds) / max(sum(told.seconds), 1e-9)
        row = replace(row, seconds=told.seconds, images_per_second=speed)
        return replace(row, startup=told.startup, memory=told.memory)
    if not peer.timed:
        return row
    speed = 1 / fmean(seconds)
    if options.batch > 1:
        speed = len(pairs) / sum(clock.run(method, group)[1] for group in _groups(pairs, options))
    return replace(row, seconds=seconds, images_per_second=speed, memory=clock.memory.bytes)


def _groups(pairs: Pairs, options: BenchOptions) -> Iterator[list[Pair]]:
    for first in range(0, len(pairs), options.batch):
        yield list(pairs[first : first + options.batch])


class Clock:
    """Runs methods and notes what that takes, the device's queue emptied before and after."""

    def __init__(self, device: torch.device) -> None:
        self.memory = MemoryMeter(device)
        self._watch = Stopwatch(device)

    def run(self, method: Method, group: Sequence[Pair]) -> tuple[Sequence[Tensor], float]:
        """The results, and the seconds they took."""
        with self.memory.working(), self._watch("run"):
            results = method.run(group)
        return results, self._watch.seconds["run"][-1]


class Scorer:
    """Collects the scores of results, as they would be in 8-bit files."""

    def __init__(self, metrics: Metrics, files: SetFiles) -> None:
        self._metrics = metrics
        self._scores: list[dict[str, float | None]] = []
        self._waiting: list[tuple[Tensor, Tensor]] = []
        self._files = files

    def add(self, result: Tensor, pair: Pair) -> None:
        """One result, (3, H, W) in [0, 1], of the size of the pair's HR."""
        images = ((result.cpu() * 255).round() / 255, pair.hr)
        self._files.add(*images)
        if self._waiting and self._waiting[0][0].shape != images[0].shape:
            self._flush()
        self._waiting.append(images)
        if len(self._waiting) == SCORED_TOGETHER:
            self._flush()

    def means(self) -> dict[str, float | None]:
        """Of each metric, over the images for which it is defined."""
        self._flush()
        columns = {name: [s[name] for s in self._scores] for name in self._scores[0]}
        means = {name: mean(values) for name, values in columns.items()}
        return means | self._files.scores()

    def _flush(self) -> None:
        if self._waiting:
            results, hrs = (torch.stack(images) for images in zip(*self._waiting, strict=True))
            self._scores += self._metrics.scores(results, hrs)
            self._waiting.clear()


def table(rows: Sequence[Row], metrics: Metrics, *, data: bool = False) -> Table:
    """The rows beside each other; with `data` columns say on what and at which scale each was
    measured."""
    columns = [Column("data"), Column("scale")] if data else []
    columns += [Column("method"), Column("NFE"), Column("params (M)")]
    columns += [Column(name, "lower", 3) for name in ("s/image", "p10", "p90")]
    columns += [Column("images/s", "higher"), Column("memory (MiB)", digits=0)]
    columns += map(column, metrics.names)
    started = any(row.startup is not None for row in rows)
    if started:
        columns.append(Column("start-up (s)"))
    failed = any(row.failure for row in rows)
    if failed:
        columns.append(Column("note"))

    def cells(row: Row) -> tuple[Cell, ...]:
        values: list[Cell] = [row.data, row.scale] if data else []
        values += [row.method, row.nfe, _in(1e6, row.parameters)]
        values += [row.percentile(50), row.percentile(10), row.percentile(90)]
        values += [row.images_per_second, _in(2**20, row.memory)]
        values += [row.scores.get(name) for name in metrics.names]
        values += [row.startup] if started else []
        return (*values, row.failure) if failed else tuple(values)

    return Table(tuple(columns), tuple(cells(row) for row in rows))


def _in(unit: float, value: int | None) -> float | None:
    return None if value is None else value / unit


def one_level_margin(model: str, lr: Tensor, exact: int) -> int:
    """The smallest tile margin that does not show, in output pixels, a multiple of 16.

    With it, tiles of 32 LR pixels are within one 8-bit level of the whole picture `lr`, at the
    default options in float32 on the CPU; `exact`, the model's receptive field, is the most that
    is needed.
    """
    engine = Upscaler(UpscaleOptions(model=model), device="cpu", dtype="float32")

    def levels(tile: int, overlap: int | None = None) -> Tensor:
        return (engine.using(tile=tile, overlap=overlap)(lr) * 255).round()

    whole = levels(0)
    for margin in range(0, exact, 16):
        if (levels(32, margin) - whole).abs().max() <= 1:
            return margin
    return exact
