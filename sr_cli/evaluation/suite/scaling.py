"""How time and memory grow: by output pixels, pictures, steps and workers, and what fits them.

Every point is a run of the command in a process of its own, from its start to its end, so that its
peak memory is its own. Beside the clock's seconds stand the processor's, which others that use the
machine lengthen less.
"""

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from shutil import copyfile
from time import monotonic, perf_counter, process_time

import numpy as np

from sr_cli.engine.arrays import to_rgb
from sr_cli.engine.images import Picture, save
from sr_cli.errors import DeviceError
from sr_cli.evaluation.suite.commands import begin, end
from sr_cli.evaluation.suite.scope import Scope, photo

SCALE = 4
MEGAPIXELS = (0.1, 0.25, 1.0, 4.0, 16.0, 64.0, 256.0, 900.0)
"""Of output: the sizes that are measured, as long as there is time."""
SMALL = 32
"""Side of the LR pictures that are counted."""
COUNTS = (1, 10, 100, 1000, 10_000)
STEPS = (1, 2, 3, 5, 8)
TOGETHER = 24
"""Pictures that workers share."""
SLACK = 1.5
"""Times what the smaller ones let expect that a larger run may take."""


@dataclass(frozen=True)
class Point:
    """One run. x: of its series. wall, cpu: seconds. memory: peak, bytes. output: of its files."""

    x: float
    wall: float
    cpu: float
    memory: int
    output: int = 0


@dataclass(frozen=True)
class Line:
    """y = start + slope·x. worst: the largest relative distance of a point."""

    start: float
    slope: float
    worst: float

    def __call__(self, x: float) -> float:
        return self.start + self.slope * x

    @property
    def knee(self) -> float:
        """Where what grows is as much as what is always there."""
        return self.start / self.slope if self.slope > 0 else math.inf


def fit(points: Sequence[tuple[float, float]]) -> Line:
    """Of (x, y > 0) by least squares of the relative distances; neither part below 0."""
    x, y = np.reshape(points, (-1, 2)).T
    columns = np.stack((1 / y, x / y), axis=1)
    start, slope = np.linalg.lstsq(columns, np.ones(len(y)), rcond=None)[0]
    if start < 0:
        start, slope = 0.0, (x / y).sum() / ((x / y) ** 2).sum()
    if slope < 0:
        start, slope = (1 / y).sum() / (1 / y**2).sum(), 0.0
    distances = np.abs((start + slope * x) / y - 1)
    return Line(float(start), float(slope), float(distances.max()))


@dataclass(frozen=True)
class Scaling:
    """Series of points. write: CPU seconds for a megapixel of PNG. gpu: whether the clock's seconds
    are those that count."""

    pixels: Sequence[Point]
    pictures: Sequence[Point]
    steps: Sequence[Point]
    workers: Sequence[Point]
    write: float
    gpu: bool

    def seconds(self, point: Point) -> float:
        """What a device is paid for."""
        return point.wall if self.gpu else point.cpu

    def time(self, points: Sequence[Point]) -> Line:
        """Seconds over a series."""
        return fit([(point.x, self.seconds(point)) for point in points])

    @property
    def memory(self) -> Line:
        """MiB over megapixels."""
        return fit([(point.x, point.memory / 2**20) for point in self.pixels])

    @property
    def bytes_a_megapixel(self) -> float:
        """Of result files."""
        last = self.pixels[-1]
        return last.output / last.x


def measure(scope: Scope, progress: Callable[[str], None], *, quick: bool) -> Scaling:
    """All series, each up to what there is time for. Raises DeviceError where a run fails."""
    bench = _Bench(scope, *scope.commands)
    progress("scaling: megapixels")
    pixels = bench.series(bench.of_size, (0.05, 0.1) if quick else MEGAPIXELS, 0.45)
    progress("scaling: steps")
    steps = bench.series(bench.of_steps, (1, 2) if quick else STEPS, 0.6)
    progress("scaling: workers")
    most = range(1, 2 if quick else min(scope.cores, 8) + 1)
    workers = bench.series(bench.of_workers, most, 0.75)
    progress("scaling: pictures")
    pictures = bench.series(bench.of_count, (1, 4) if quick else COUNTS, 1.0)
    return Scaling(pixels, pictures, steps, workers, bench.writing(), scope.cuda)


class _Bench:
    """Runs of the command on pictures made on the spot."""

    def __init__(self, scope: Scope, *words: str) -> None:
        self.scope, self.words = scope, words

    def series(
        self, run: Callable[[float], Point], xs: Sequence[float], until: float
    ) -> list[Point]:
        """Of these x, the first two always, then as long as the next one is expected to end
        within that share of the time."""
        points: list[Point] = []
        ends = self.scope.began + until * self.scope.budget
        for x in xs:
            if len(points) > 1:
                line = fit([(point.x, point.wall) for point in points])
                if monotonic() + SLACK * line(x) > ends:
                    break
            points.append(run(x))
        return points

    def of_size(self, megapixels: float) -> Point:
        side = max(16, round(math.sqrt(megapixels * 1e6) / SCALE))
        file = self._picture("large.png", side, side)
        exact = (SCALE * side) ** 2 / 1e6
        return self._run(exact, [[file, self.scope.scratch / "large_x4.png"]])

    def of_steps(self, steps: float) -> Point:
        file = self._picture("steps.png", 250, 250)
        words = ["--steps", str(int(steps))]
        return self._run(steps, [[file, self.scope.scratch / "steps_x4.png", *words]])

    def of_workers(self, workers: float) -> Point:
        """Processes of one thread each that share the pictures."""
        number = int(workers)
        files = [self._picture(f"w{i}.png", 128, 128) for i in range(TOGETHER)]
        lines: list[list[object]] = []
        for k in range(number):
            out = self.scope.scratch / f"worker{k}"
            out.mkdir(exist_ok=True)
            lines.append([*files[k::number], out, "--threads", 1])
        return self._run(workers, lines)

    def of_count(self, count: float) -> Point:
        number = int(count)
        folder = self.scope.scratch / f"{number}"
        folder.mkdir()
        first = self._picture("small.png", SMALL, SMALL)
        for i in range(number):
            copyfile(first, folder / f"{i:05}.png")
        return self._run(count, [[folder, self.scope.scratch / f"{number}_x4"]])

    def writing(self) -> float:
        """CPU seconds for a megapixel of PNG."""
        picture = Picture(to_rgb(photo(1000, 1000).float() / 255))
        before = process_time()
        save(picture, self.scope.scratch / "written.png")
        return process_time() - before

    def _picture(self, name: str, width: int, height: int) -> Path:
        file = self.scope.scratch / name
        save(Picture(to_rgb(photo(width, height).float() / 255)), file)
        return file

    def _run(self, x: float, lines: Sequence[Sequence[object]]) -> Point:
        """Commands at the same time."""
        words = ("--overwrite", "--json", *self.words)
        before, clock = _children(), perf_counter()
        ended = [end(process) for process in [begin("upscale", *line, *words) for line in lines]]
        wall, cpu = perf_counter() - clock, _children() - before
        if broken := [call for call in ended if call.code]:
            raise DeviceError(f"srx upscale failed: {broken[0].said[-500:]}")
        results = [result for call in ended for result in call.report["results"]]
        peaks = [call.report["environment"].get("peak_memory_bytes", 0) for call in ended]
        own = [result["peak_memory_bytes"] or 0 for result in results]
        memory = sum(peaks) or max(own, default=0)
        size = sum(Path(result["output"]).stat().st_size for result in results)
        return Point(x, wall, cpu, memory, size)


def _children() -> float:
    """Processor's seconds of the processes that this one started and that have ended."""
    times = os.times()
    return times.children_user + times.children_system
