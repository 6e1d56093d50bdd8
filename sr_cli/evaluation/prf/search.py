"""The search for the best starting time at each scale: the PRF by its losses, and as measured.

Analytic: `diffusion.prf` with E_t measured on the calibration images. Measured (Appendix F of the
Diff-SR paper): images are recovered from a grid of times, then from times chosen by golden section
around the best, and compared with the originals.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from statistics import fmean, median

from torch import Tensor

from sr_cli.diffusion import prf
from sr_cli.diffusion.schedules import alpha_bar
from sr_cli.engine.arrays import to_tensor
from sr_cli.engine.images import load
from sr_cli.engine.upscaler import Upscaler
from sr_cli.errors import UsageError
from sr_cli.evaluation.datasets import fitting, reduced
from sr_cli.evaluation.measurements import Measured, Measurements, conditions, key
from sr_cli.evaluation.metrics import Metrics, mean
from sr_cli.evaluation.parts import centre
from sr_cli.evaluation.prf.found import (
    CRITERIA,
    AtScale,
    Point,
    SearchResult,
    cost,
    fit_thresholds,
    with_fields,
)
from sr_cli.evaluation.prf.losses import SpectrumErrors, finest_octave, signature_errors
from sr_cli.evaluation.scene import Scene
from sr_cli.evaluation.set_files import SetFiles

GOLDEN = (5**0.5 - 1) / 2
GRIDS: dict[str, tuple[float, ...]] = {
    "diffsr": (0, 0.01, 0.03, 0.06, 0.1, 0.2, 0.4, 0.6),
    "dossr": (0.05, 0.15, 0.3, 0.4, 0.5, 0.65, 0.8, 1),
}
"""t/T at which images are recovered before the search is refined."""
ERROR_TIMES = (0, 0.002, 0.005, 0.01, 0.02, 0.04, 0.07, 0.1, 0.15, 0.2, 0.3, 0.4, 0.55, 0.7, 0.999)
"""t/T at which E_t is measured."""


@dataclass(frozen=True)
class SearchOptions:
    """Where to look.

    crop: side of the centre crops, in pixels. rounds: times that golden section adds to the grid.
    refit: fit the thresholds of the PRF to what is measured, not those of the prior's card or the
    usual ones; limits: what is used instead of single ones, by name. Raises UsageError for what
    makes no sense.
    """

    scales: tuple[float, ...]
    crop: int = 256
    rounds: int = 4
    refit: bool = False
    limits: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.scales:
            raise UsageError("scales must have at least one value.")
        for scale in self.scales:
            if not 1 < scale <= 32:
                raise UsageError(f"A scale must be above 1 and at most 32, not {scale:g}.")
        for name, least in (("crop", 32), ("rounds", 0)):
            if (value := getattr(self, name)) < least:
                raise UsageError(f"{name} must be at least {least}, not {value}.")
        replace(prf.Thresholds(), **self.limits)


class Search:
    """One network, one schedule, some images. What is known is not computed again.

    files: HR images, of which the centre is used.
    """

    def __init__(
        self,
        options: SearchOptions,
        files: Sequence[Path],
        engine: Upscaler,
        metrics: Metrics,
        known: Measurements,
    ) -> None:
        self.options, self.engine, self.metrics, self.known = options, engine, metrics, known
        chosen = engine.options
        self.alpha_bar = alpha_bar(chosen.schedule) if chosen.schedule else engine.model.alpha_bar
        self.T = len(self.alpha_bar)
        self.grid = sorted({self._time(share) for share in GRIDS[chosen.method]})
        self.reference = 0 if chosen.method == "diffsr" else self._time(0.5)
        self.files = files
        self.images = [centre(to_tensor(load(file).rgb), options.crop) for file in files]

    @property
    def total(self) -> int:
        """Recoveries and error measurements, about, for progress."""
        recoveries = len(self.options.scales) * (len(self.grid) + self.options.rounds)
        return len(self.images) * recoveries + len(ERROR_TIMES)

    def run(self, on_done: Callable[[str], None]) -> SearchResult:
        """Search every scale. on_done(what) is called after each recovery."""
        options = self.options
        errors, texture = self._errors(on_done)
        rows = [self._measure(scale, on_done) for scale in options.scales]
        measured = SearchResult(tuple(rows), self.alpha_bar, errors, texture)
        own = self.engine.model.prf or prf.Thresholds()
        thresholds = fit_thresholds(measured) if options.refit else own
        if thresholds is None or self.engine.options.method == "dossr":
            return measured
        return with_fields(measured, replace(thresholds, **options.limits))

    def _time(self, share: float) -> int:
        """t of t/T; DoSSR starts at T itself, a plain diffusion at its last time."""
        last = self.T if self.engine.options.method == "dossr" else self.T - 1
        return min(round(share * self.T), last)

    def _measure(self, scale: float, on_done: Callable[[str], None]) -> AtScale:
        scenes = [self.scene(image, scale) for image in self.images]
        points: dict[int, Point] = {}

        def evaluate(t: int) -> Point:
            if t not in points:
                points[t] = self._point(scale, t, scenes, on_done)
            return points[t]

        for t in self.grid:
            evaluate(t)
        name = next(name for name in CRITERIA if any(p.scores.get(name) for p in points.values()))
        refine(lambda t: cost(name, evaluate(t)), self.grid, self.options.rounds)
        distance = fmean(self._distance(scene) for scene in scenes)
        rising = tuple(points[t] for t in sorted(points))
        return AtScale(scale, rising, distance, None, self.reference)

    def scene(self, hr: Tensor, scale: float) -> Scene:
        """LR of 1/scale the size, HR cropped to what an enlargement of it gives."""
        small = [fitting(side, scale) for side in hr.shape[1:]]
        if min(small) < 1:
            raise UsageError(f"The images are too small to be reduced by {scale:g}.")
        engine = self.engine.using(scale=scale, t1=self.reference)
        width, height = engine.options.size.of(small[1], small[0])
        hr = hr[:, :height, :width].contiguous()
        lr = reduced(hr, (small[0], small[1]), engine.options.degradation, engine.options.seed)
        return Scene(engine, lr, hr)

    def _point(
        self, scale: float, t: int, scenes: Sequence[Scene], on_done: Callable[[str], None]
    ) -> Point:
        fixed = conditions(self.engine, self.metrics, {"t1"})
        whole = key(fixed, t, sorted(scene.identity for scene in scenes))
        of_set = self.known.get(whole)
        cells = []
        with SetFiles(self.metrics) as files:
            for scene in scenes:
                name = key(fixed, t, scene.identity)
                measured = self.known.get(name)
                if measured is None or (files.wanted and of_set is None):
                    result, seconds = scene.through(self.engine.using(t1=t))
                    files.add(result, scene.hr)
                if measured is None:
                    spectral = asdict(SpectrumErrors.between(result, scene.hr))
                    measured = Measured(self.metrics.score(result, scene.hr) | spectral, seconds)
                    self.known.put(name, measured, scale=scale, t=t)
                cells.append(measured)
                on_done(f"{scale:g}x at t/T = {t / self.T:.3f}")
            if files.wanted and of_set is None:
                of_set = Measured(files.scores(), 0.0)
                self.known.put(whole, of_set, scale=scale, t=t)
        columns = {name: [cell.scores[name] for cell in cells] for name in cells[0].scores}
        # Times are compared with each other, so each is judged by all images or by none.
        scores = {name: None if None in v else mean(v) for name, v in columns.items()}
        scores |= of_set.scores if of_set else {}
        return Point(t, scores, median(cell.seconds for cell in cells))

    def _errors(self, on_done: Callable[[str], None]) -> tuple[prf.Array, float]:
        """E_t on the images, (T,), and the squared norm of their finest octave, the mean; a
        conditional network sees a ×4 enlargement."""
        model = self.engine.model
        scenes = [self.scene(image, 4) for image in self.images]
        states = [scene.states for scene in scenes]
        times = sorted({min(round(share * self.T), self.T - 1) for share in ERROR_TIMES})
        errors = signature_errors(
            model, self.alpha_bar, times, states, lambda: on_done("signature loss")
        )
        texture = fmean(finest_octave(target) for target, *_ in states)
        return prf.at_all_times(self.T, times, errors), texture

    def _distance(self, scene: Scene) -> float:
        target, source, _ = scene.states
        return prf.squared_norm((target - source).cpu().numpy())


def refine(function: Callable[[int], float], grid: Sequence[int], rounds: int) -> None:
    """Evaluate `function` at `rounds` more times at most, by golden section between the neighbours
    of the best time of `grid` (rising)."""
    best = min(range(len(grid)), key=lambda i: function(grid[i]))
    low, high = grid[max(best - 1, 0)], grid[min(best + 1, len(grid) - 1)]
    seen = set(grid)
    while high - low > 2:
        step = GOLDEN * (high - low)
        left, right = round(high - step), round(low + step)
        rounds -= len({left, right} - seen)
        if rounds < 0:
            return
        seen |= {left, right}
        if function(left) <= function(right):
            high = right
        else:
            low = left
