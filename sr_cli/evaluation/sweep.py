"""The papers' ablations: one network from many starting times, with many steps, orders and rivals.

DoSSR's Tables 2 (t1), 3 (order) and 6 (samplers without domain shift) and Fig. 4 (steps). The paper
trained a network for each t1; a network that is conditioned on a/σ alone serves them all.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property
from itertools import product
from statistics import median
from typing import Any, Final, Literal, get_args

from torch import Tensor

from sr_cli.diffusion import samplers
from sr_cli.diffusion.names import SamplerName, Variant
from sr_cli.engine.options import UpscaleOptions
from sr_cli.engine.steps import Course
from sr_cli.engine.upscaler import Upscaler
from sr_cli.errors import UsageError
from sr_cli.evaluation.datasets import Pairs
from sr_cli.evaluation.ledger import Ledger, Measured, conditions, key
from sr_cli.evaluation.metrics import Metrics, column, mean
from sr_cli.evaluation.scene import Scene
from sr_cli.evaluation.tables import Column, Table

T = 1000
DOS: Final = "dos"


@dataclass(frozen=True)
class Trial:
    """One row: DoSSR's solver ("dos") from t1, or a sampler without domain shift, which has neither
    t1 nor order nor variant, from noise at T − 1."""

    sampler: SamplerName | Literal["dos"]
    steps: int
    t1: int | None = None
    order: int | None = None
    variant: Variant | None = None

    @property
    def effective(self) -> "Trial":
        """The same computation by its simplest name: N steps have no history for an order above N,
        and the variants of the solver differ in order 3 alone."""
        if self.order is None:
            return self
        order = min(self.order, self.steps)
        return replace(self, order=order, variant=self.variant if order == 3 else "paper")

    @property
    def options(self) -> dict[str, Any]:
        """Of UpscaleOptions, of DoSSR's solver."""
        return {name: value for name, value in asdict(self).items() if name != "sampler"}

    @property
    def label(self) -> str:
        """For figures."""
        if self.sampler != DOS:
            return self.sampler
        return f"order {self.order}" + (f" {self.variant}" if self.order == 3 else "")


@dataclass(frozen=True)
class SweepOptions:
    """What is varied: every t1 with every number of steps, order and variant, and every sampler
    without domain shift with every number of steps.

    Raises:
        UsageError: a list is empty, or holds a value or a combination that makes no sense.
    """

    t1: tuple[int, ...] = (T, 2 * T // 3, T // 2, T // 3)
    steps: tuple[int, ...] = (5,)
    order: tuple[int, ...] = (3,)
    variant: tuple[Variant, ...] = ("paper",)
    sampler: tuple[SamplerName, ...] = ("ddim", "edm", "dpmsolver++")

    def __post_init__(self) -> None:
        for name in ("t1", "steps", "order", "variant"):
            if not getattr(self, name):
                raise UsageError(f"{name} must have at least one value.")
        for name in self.sampler:
            if name not in get_args(SamplerName):
                known = ", ".join(get_args(SamplerName))
                raise UsageError(f"sampler must be none or some of {known}, not {name!r}.")
        for t1, steps, order, variant in product(self.t1, self.steps, self.order, self.variant):
            UpscaleOptions(t1=t1, steps=steps, order=order, variant=variant)
        for steps in self.steps if self.sampler else ():
            UpscaleOptions(t1=T, steps=steps)

    @cached_property
    def trials(self) -> tuple[Trial, ...]:
        """Rows of the table, without those that would repeat another one."""
        combinations = product(self.t1, self.steps, self.order, self.variant)
        own = (Trial(DOS, n, t1, order, kind).effective for t1, n, order, kind in combinations)
        rivals = (Trial(name, n) for name, n in product(self.sampler, self.steps))
        return tuple(dict.fromkeys((*own, *rivals)))


@dataclass(frozen=True)
class Progress:
    """How far it is: measurements that are done, all of them, and the image."""

    done: int
    total: int
    image: str


def sweep(
    pairs: Pairs,
    trials: Sequence[Trial],
    engine: Upscaler,
    metrics: Metrics,
    *,
    ledger: Ledger,
    notify: Callable[[Progress], None],
) -> dict[Trial, list[Measured]]:
    """Measure every image under every trial, but for what the ledger has already.

    An image is read, reduced and preprocessed once for all trials; the seconds of a measurement
    include preprocessing. Results are rounded to 8 bits, as in files.
    """
    fixed = conditions(engine, metrics, {field.name for field in fields(Trial)})
    found: dict[Trial, list[Measured]] = {trial: [] for trial in trials}
    for number, pair in enumerate(pairs):
        scene = Scene(engine, pair.lr, pair.hr)
        for done, trial in enumerate(trials, number * len(trials) + 1):
            cell = key(fixed, asdict(trial), scene.identity)
            measured = ledger.get(cell)
            if measured is None:
                result, seconds = restored(scene, trial)
                measured = Measured(metrics.score(result, pair.hr), seconds)
                ledger.put(cell, measured, image=pair.name, trial=asdict(trial))
            found[trial].append(measured)
            notify(Progress(done, len(pairs) * len(trials), pair.name))
    return found


def restored(scene: Scene, trial: Trial) -> tuple[Tensor, float]:
    """The result (3, H, W), 8-bit levels in [0, 1], and the seconds with preprocessing."""
    engine = scene.engine
    if trial.sampler == DOS:
        return scene.through(engine.using(**trial.options))
    # From noise alone at T − 1; the network is told that η = 0.
    schedule = engine.model.alpha_bar
    last = len(schedule) - 1
    path, steps = samplers.table(trial.sampler, schedule, last, trial.steps)
    noise = float((1 - schedule[last]) ** 0.5)
    return scene.through(engine.along(Course(path, steps, (0.0, noise))))


def table(found: Mapping[Trial, Sequence[Measured]], metrics: Sequence[str]) -> Table:
    """A row for each trial: each metric's mean over the images, the median of the seconds."""
    columns = (
        *map(Column, ("sampler", "t1", "steps", "order", "variant")),
        *map(column, metrics),
        Column("s/image", "lower"),
    )
    rows = (
        (
            *(s.sampler, s.t1, s.steps, s.order, s.variant),
            *(mean(m.scores[name] for m in all_) for name in metrics),
            median(m.seconds for m in all_),
        )
        for s, all_ in found.items()
    )
    return Table(columns, tuple(rows))
