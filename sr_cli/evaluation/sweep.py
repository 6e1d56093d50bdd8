"""The papers' ablations: one network from many starting times, with many steps, orders and rivals.

DoSSR's Tables 2 (t1), 3 (order) and 6 (samplers without domain shift) and Fig. 4 (steps). The paper
trained a network for each t1; a network that is conditioned on a/σ alone serves them all. The
sampler "plain" is DoSSR's own solver on the path without shift (η = 0), from noise at T − 1: beside
"dos", with the same order and ending, only the path differs.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property
from itertools import product
from statistics import fmean, median, stdev
from typing import Any, Final, Literal, get_args

from torch import Tensor

from sr_cli.diffusion import samplers
from sr_cli.diffusion.names import LastStep, SamplerName, Variant
from sr_cli.diffusion.path import Path, time_grid
from sr_cli.diffusion.solvers import plan
from sr_cli.engine.options import UpscaleOptions
from sr_cli.engine.steps import Course
from sr_cli.engine.upscaler import Upscaler
from sr_cli.errors import UsageError
from sr_cli.evaluation.datasets import Pairs
from sr_cli.evaluation.measurements import Measured, Measurements, conditions, key
from sr_cli.evaluation.metrics import Metrics, column, mean
from sr_cli.evaluation.scene import Scene
from sr_cli.evaluation.tables import Cell, Column, Table

T = 1000
DOS: Final = "dos"
PLAIN: Final = "plain"
RivalName = SamplerName | Literal["plain"]
RIVALS = (*get_args(SamplerName), PLAIN)
"""What starts from noise at T − 1, without domain shift."""


@dataclass(frozen=True)
class Trial:
    """One row: DoSSR's solver ("dos") from t1, the same without shift ("plain"), which has no t1,
    or another sampler without domain shift, which has neither t1 nor order nor variant.

    last_step: what it ends on; None: the model's own for "dos" and "plain", x0 for the others.
    seed: of the noise; None: the engine's. It is no part of a row, but one of the draws behind it.
    """

    sampler: RivalName | Literal["dos"]
    steps: int
    t1: int | None = None
    order: int | None = None
    variant: Variant | None = None
    last_step: LastStep | None = None
    seed: int | None = None

    @property
    def effective(self) -> "Trial":
        """The same computation by its simplest name: N steps have no history for an order above N,
        the variants of the solver differ in order 3 alone, and x0 is the mean of samplers of order
        1 without noise."""
        if self.order is None:
            same = self.sampler in {"ddim", "edm"} and self.last_step == "mean"
            return replace(self, last_step="x0") if same else self
        order = min(self.order, self.steps)
        return replace(self, order=order, variant=self.variant if order == 3 else "paper")

    @property
    def options(self) -> dict[str, Any]:
        """Of UpscaleOptions, of DoSSR's solver."""
        left_out = {"sampler"} if self.seed is not None else {"sampler", "seed"}
        return {name: value for name, value in asdict(self).items() if name not in left_out}

    @property
    def row(self) -> "Trial":
        """Whose measurements are put together with this one's: all seeds."""
        return replace(self, seed=None)

    @property
    def label(self) -> str:
        """For figures."""
        if self.order is None:
            return self.sampler
        solver = f"order {self.order}" + (f" {self.variant}" if self.order == 3 else "")
        return solver if self.sampler == DOS else f"{self.sampler}, {solver}"


@dataclass(frozen=True)
class SweepOptions:
    """What is varied: every t1 with every number of steps, order and variant, and every sampler
    without domain shift with every number of steps; all with every ending and seed. Without any the
    seed is the engine's.

    Raises:
        UsageError: a list is empty, or holds a value or a combination that makes no sense.
    """

    t1: tuple[int, ...] = (T, 2 * T // 3, T // 2, T // 3)
    steps: tuple[int, ...] = (5,)
    order: tuple[int, ...] = (3,)
    variant: tuple[Variant, ...] = ("paper",)
    sampler: tuple[RivalName, ...] = ("ddim", "edm", "dpmsolver++")
    last_step: tuple[LastStep | None, ...] = (None,)
    seeds: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        for name in ("t1", "steps", "order", "variant", "last_step"):
            if not getattr(self, name):
                raise UsageError(f"{name} must have at least one value.")
        for name in self.sampler:
            if name not in RIVALS:
                known = ", ".join(RIVALS)
                raise UsageError(f"sampler must be none or some of {known}, not {name!r}.")
        if "step" in self.last_step and set(self.sampler) - {PLAIN}:
            raise UsageError("last_step step is of dos and plain: choose --sampler plain or none.")
        for t1, steps, order, variant in product(self.t1, self.steps, self.order, self.variant):
            for last_step in self.last_step:
                UpscaleOptions(
                    t1=t1, steps=steps, order=order, variant=variant, last_step=last_step
                )
        for steps in self.steps if self.sampler else ():
            UpscaleOptions(t1=T, steps=steps)
        for seed in self.seeds:
            UpscaleOptions(seed=seed)

    @cached_property
    def trials(self) -> tuple[Trial, ...]:
        """Rows of the table, without those that would repeat another one."""
        endings, seeds = self.last_step, self.seeds or (None,)
        solvers = [
            Trial(PLAIN, n, None, order, kind, ending)
            for n, order, kind, ending in product(self.steps, self.order, self.variant, endings)
        ]
        found = [replace(how, sampler=DOS, t1=t1) for t1, how in product(self.t1, solvers)]
        for name in self.sampler:
            rivals = product(self.steps, endings)
            found += (
                solvers
                if name == PLAIN
                else [Trial(name, n, last_step=ending) for n, ending in rivals]
            )
        rows = dict.fromkeys(trial.effective for trial in found)
        return tuple(replace(row, seed=seed) for row in rows for seed in seeds)


def sweep(
    pairs: Pairs,
    trials: Sequence[Trial],
    engine: Upscaler,
    metrics: Metrics,
    *,
    known: Measurements,
    on_image: Callable[[str], None],
) -> dict[Trial, list[Measured]]:
    """Measure every image under every trial, but for what is known already.

    on_image is told of each measurement, by the image's name.
    An image is read, reduced and preprocessed once for all trials; the seconds of a measurement
    include preprocessing. Results are rounded to 8 bits, as in files.
    """
    varied = {field.name for field in fields(Trial)} - {"seed"}
    fixed = {trial.seed: conditions(_seeded(engine, trial), metrics, varied) for trial in trials}
    found: dict[Trial, list[Measured]] = {trial: [] for trial in trials}
    for pair in pairs:
        scene = Scene(engine, pair.lr, pair.hr)
        for trial in trials:
            cell = key(fixed[trial.seed], asdict(trial.row), scene.identity)
            measured = known.get(cell)
            if measured is None:
                result, seconds = restored(scene, trial)
                measured = Measured(metrics.score(result, pair.hr), seconds)
                known.put(cell, measured, image=pair.name, trial=asdict(trial))
            found[trial].append(measured)
            on_image(pair.name)
    return found


def restored(scene: Scene, trial: Trial) -> tuple[Tensor, float]:
    """The result (3, H, W), 8-bit levels in [0, 1], and the seconds with preprocessing."""
    engine = scene.engine
    if trial.sampler == DOS:
        return scene.through(engine.using(**trial.options))
    return scene.through(_seeded(engine, trial).along(rival(trial, engine)))


def rival(trial: Trial, engine: Upscaler) -> Course:
    """From noise alone at T − 1, on a path without shift: the network is told that η = 0."""
    schedule = engine.model.alpha_bar
    last = len(schedule) - 1
    path: Path
    if trial.sampler == PLAIN:
        assert trial.order
        assert trial.variant
        path, times = Path.plain(schedule), time_grid(last + 1, trial.steps)
        ending = trial.last_step or engine.model.last_step
        steps = plan(path, times, order=trial.order, variant=trial.variant, last_step=ending)
    else:
        assert trial.sampler != DOS
        ending = trial.last_step or "x0"
        path, steps = samplers.table(trial.sampler, schedule, last, trial.steps, ending)
    return Course(path, steps, (0.0, float((1 - schedule[last]) ** 0.5)))


def _seeded(engine: Upscaler, trial: Trial) -> Upscaler:
    return engine if trial.seed is None else engine.using(seed=trial.seed)


def table(found: Mapping[Trial, Sequence[Measured]], metrics: Sequence[str]) -> Table:
    """A row for each trial but for its seed: each metric's mean over images and seeds, the median
    of the seconds. With several seeds also the standard deviation of the set's mean from seed to
    seed; a column says what walks end on where that is chosen."""
    rows: dict[Trial, list[Sequence[Measured]]] = {}
    for trial, measured in found.items():
        rows.setdefault(trial.row, []).append(measured)
    endings = any(row.last_step for row in rows)
    several = any(len(draws) > 1 for draws in rows.values())
    names = ("sampler", "t1", "steps", "order", "variant", *(["last step"] if endings else []))
    columns = [*map(Column, names)]
    for name in metrics:
        columns += [column(name)]
        columns += [Column(f"{name} sd", digits=4)] if several else []
    columns += [Column("s/image", "lower")]

    def cells(row: Trial, draws: Sequence[Sequence[Measured]]) -> tuple[Cell, ...]:
        values: list[Cell] = [row.sampler, row.t1, row.steps, row.order, row.variant]
        values += [row.last_step] if endings else []
        for name in metrics:
            means = [mean(m.scores[name] for m in draw) for draw in draws]
            known = [value for value in means if value is not None]
            values.append(fmean(known) if known else None)
            if several:
                values.append(stdev(known) if len(known) > 1 else None)
        return (*values, median(m.seconds for draw in draws for m in draw))

    return Table(tuple(columns), tuple(cells(row, draws) for row, draws in rows.items()))
