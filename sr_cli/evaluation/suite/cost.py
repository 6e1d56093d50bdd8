"""What many pictures cost: a model fitted to what was measured, with prices that are assumed."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from sr_cli.evaluation.plots import Curve, Panel, curves
from sr_cli.evaluation.suite.found import Finding, Part
from sr_cli.evaluation.suite.scaling import SMALL, Line, Point, Scaling
from sr_cli.evaluation.tables import Column, Table

MILLION = 10**6
RESULT = 12
"""Megapixels of a result."""
LINEAR = 0.10
"""Distance from a straight line up to which growth counts as linear."""
MANY = 100
"""Devices of the calculation on paper."""
BETWEEN_FAILURES = 50_000
"""Hours of a GPU between two unforeseen ends of its work: 419 in 54 days on 16,384 H100s (Llama
Team, arXiv 2407.21783, §3.3.4)."""


@dataclass(frozen=True)
class Rented:
    """A device: seconds for a megapixel of output, and dollars an hour, which are assumed."""

    name: str
    seconds: float
    price: float


CORE = 0.04
GPUS = (
    Rented("H100 before CUDA was worked on (9.6 s for 33.2 MP)", 9.6 / 33.2, 2.5),
    Rented("H100, the engine alone (0.195 s for 33.2 MP)", 0.195 / 33.2, 2.5),
)
"""As BENCHMARKS.md has them: 1920×1080, ×4."""


@dataclass(frozen=True)
class Cost:
    """Of a million results of RESULT megapixels on a device."""

    device: Rented

    @property
    def hours(self) -> float:
        """Of one device."""
        return MILLION * RESULT * self.device.seconds / 3600

    @property
    def dollars(self) -> float:
        """At its price."""
        return self.hours * self.device.price

    @property
    def failures(self) -> float:
        """Unforeseen ends to be expected on the way."""
        return self.hours / BETWEEN_FAILURES


def part(found: Scaling, processor: str) -> Part:
    """The tables, whether growth is linear, the calculation, and a figure."""
    time, memory = found.time(found.pixels), found.memory
    own = Rented(f"{processor}: one core, as measured", time.slope, CORE)
    if found.gpu:
        own = Rented(f"{processor}, as measured", time.slope, GPUS[0].price)
    tables = (_points(found), _lines(found), _costs([own, *GPUS], found.write))
    checks = tuple(_checks(found, time, memory))
    return Part("scaling", checks, tables=tables, figure=partial(draw, found))


def _checks(found: Scaling, time: Line, memory: Line) -> Iterator[Finding]:
    what = "seconds" if found.gpu else "CPU seconds"
    first, last = found.pixels[0].x, found.pixels[-1].x
    name = f"{what} from {first:.2g} to {last:.3g} MP: distance from a straight line"
    wanted = f"at most {LINEAR:.0%}"
    yield Finding(name, 100 * time.worst, "%", passed=time.worst <= LINEAR, note=wanted)
    name = "knee of time: below it the start takes more than the pixels"
    yield Finding(name, time.knee, "MP")
    name = "knee of memory: above it the pixels take more than the program"
    yield Finding(name, memory.knee, "MP")
    size = found.bytes_a_megapixel / 1e6
    yield Finding("result files", size, "MB a megapixel")
    yield Finding("writing them as PNG", found.write, "CPU seconds a megapixel")


def _points(found: Scaling) -> Table:
    names = [Column(name) for name in ("series", "x", "seconds", "CPU seconds")]
    columns = (*names, Column("peak MiB", digits=0))
    return Table(
        columns,
        tuple(
            (name, f"{point.x:.4g}", point.wall, point.cpu, point.memory / 2**20)
            for name, points in _series(found)
            for point in points
        ),
    )


def _series(found: Scaling) -> tuple[tuple[str, Sequence[Point]], ...]:
    return (
        ("megapixels of output, one picture", found.pixels),
        (f"pictures of {SMALL}², to {4 * SMALL}²", found.pictures),
        ("steps, 1 MP", found.steps),
        ("workers of one thread, 24 pictures of 128²", found.workers),
    )


def _lines(found: Scaling) -> Table:
    """What is always there, and what each more adds."""
    columns = (
        *(Column("model"), Column("start"), Column("each more", digits=4)),
        Column("largest distance (%)", digits=1),
    )
    unit = "seconds" if found.gpu else "CPU seconds"
    lines = [
        (f"{unit} by megapixels", found.time(found.pixels)),
        ("MiB by megapixels", found.memory),
        (f"{unit} by pictures of {SMALL}²", found.time(found.pictures)),
        (f"{unit} by steps at 1 MP", found.time(found.steps)),
    ]
    return Table(columns, tuple((n, ln.start, ln.slope, 100 * ln.worst) for n, ln in lines))


def _costs(devices: Sequence[Rented], write: float) -> Table:
    columns = (
        Column(f"a million results of {RESULT} MP"),
        *(Column("s a picture"), Column("hours", digits=0), Column("$ an hour, assumed")),
        *(Column("$", digits=0), Column(f"hours on {MANY}", digits=1)),
        Column("failures on the way", digits=2),
        Column("cores that write, each device", digits=1),
    )
    costs = [Cost(device) for device in devices]
    return Table(
        columns,
        tuple(
            (
                cost.device.name,
                RESULT * cost.device.seconds,
                cost.hours,
                cost.device.price,
                cost.dollars,
                cost.hours / MANY,
                cost.failures,
                write / cost.device.seconds,
            )
            for cost in costs
        ),
    )


def draw(found: Scaling, path: Path) -> None:
    """Four panels. Raises ModelError without matplotlib, InputError if it cannot be written."""
    unit = "seconds" if found.gpu else "CPU seconds"
    time, memory = found.time(found.pixels), found.memory
    mebibytes = [(point.x, point.memory / 2**20) for point in found.pixels]
    panels = [
        [
            Panel("megapixels of output", unit, _against(found, found.pixels, time), log=True),
            Panel("megapixels of output", "peak MiB", _drawn(mebibytes, memory), log=True),
        ],
        [
            Panel(
                f"pictures of {SMALL}²",
                unit,
                _against(found, found.pictures, found.time(found.pictures)),
                log=True,
            ),
            Panel(
                "workers of one thread; steps at 1 MP",
                "seconds",
                [
                    Curve("workers, the clock's", [(p.x, p.wall) for p in found.workers]),
                    Curve(f"steps, {unit}", [(p.x, found.seconds(p)) for p in found.steps]),
                ],
            ),
        ],
    ]
    curves(panels, path)


def _against(found: Scaling, points: Sequence[Point], line: Line) -> list[Curve]:
    return _drawn([(point.x, found.seconds(point)) for point in points], line)


def _drawn(points: Sequence[tuple[float, float]], line: Line) -> list[Curve]:
    model = Curve(f"{line.start:.3g} + {line.slope:.3g}·x", [(x, line(x)) for x, _ in points], True)
    return [Curve("measured", points), model]
