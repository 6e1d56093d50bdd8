"""The papers' ablations: one network from many starting times, with many steps, orders and rivals.

DoSSR's Tables 2 (t1), 3 (order) and 6 (samplers without domain shift) and Fig. 4 (steps). The paper
trained a network for each t1; a network that is conditioned on a/σ alone serves them all.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property
from itertools import product
from statistics import median
from time import perf_counter
from typing import Any, get_args

import torch
from torch import Tensor

from sr_cli.diffusion.noise import digest
from sr_cli.diffusion.samplers import SamplerName, sample
from sr_cli.engine.options import Solver, UpscaleOptions
from sr_cli.engine.states import Noise
from sr_cli.engine.tiling import Tiler, Window
from sr_cli.engine.upscaler import Sampler, Upscaler
from sr_cli.errors import UsageError
from sr_cli.evaluation.datasets import Pair, Pairs
from sr_cli.evaluation.ledger import Ledger, Measured, conditions, key
from sr_cli.evaluation.metrics import Metrics, column, mean
from sr_cli.evaluation.tables import Column, Table
from sr_cli.models.model import Model

T = 1000


@dataclass(frozen=True)
class Trial:
    """One row: DoSSR's solver from t1, or a baseline (t1 and order None) from noise at T − 1."""

    solver: str
    steps: int
    t1: int | None = None
    order: int | None = None

    @property
    def effective(self) -> "Trial":
        """The same computation by its simplest name: N steps have no history for an order above N,
        and the variants of the solver differ in order 3 alone."""
        if self.order is None:
            return self
        order = min(self.order, self.steps)
        return replace(self, order=order, solver=self.solver if order == 3 else "paper")

    @property
    def options(self) -> dict[str, Any]:
        """Of UpscaleOptions; a baseline brings its own walk."""
        return {} if self.t1 is None else asdict(self)

    @property
    def label(self) -> str:
        """For figures."""
        if self.t1 is None:
            return self.solver
        return f"order {self.order}" + (f" {self.solver}" if self.order == 3 else "")


@dataclass(frozen=True)
class SweepOptions:
    """What is varied: every t1 with every number of steps, order and solver, and every baseline
    with every number of steps.

    Raises:
        UsageError: a list is empty, or holds a value or a combination that makes no sense.
    """

    t1: tuple[int, ...] = (T, 2 * T // 3, T // 2, T // 3)
    steps: tuple[int, ...] = (5,)
    order: tuple[int, ...] = (3,)
    solver: tuple[Solver, ...] = ("paper",)
    baselines: tuple[SamplerName, ...] = ("ddim", "edm", "dpmsolver++")

    def __post_init__(self) -> None:
        for name in ("t1", "steps", "order", "solver"):
            if not getattr(self, name):
                raise UsageError(f"{name} must have at least one value.")
        for name in self.baselines:
            if name not in get_args(SamplerName):
                known = ", ".join(get_args(SamplerName))
                raise UsageError(f"baseline must be none or some of {known}, not {name!r}.")
        for t1, steps, order, solver in product(self.t1, self.steps, self.order, self.solver):
            UpscaleOptions(t1=t1, steps=steps, order=order, solver=solver)
        for steps in self.steps if self.baselines else ():
            UpscaleOptions(t1=T, steps=steps)

    @cached_property
    def settings(self) -> tuple[Trial, ...]:
        """Rows of the table, without those that would repeat another one."""
        combinations = product(self.t1, self.steps, self.order, self.solver)
        own = (Trial(solver, n, t1, order).effective for t1, n, order, solver in combinations)
        rivals = (Trial(name, n) for name, n in product(self.baselines, self.steps))
        return tuple(dict.fromkeys((*own, *rivals)))


@dataclass(frozen=True)
class Progress:
    """How far it is: measurements that are done, all of them, and the image."""

    done: int
    total: int
    image: str


def sweep(
    pairs: Pairs,
    settings: Sequence[Trial],
    engine: Upscaler,
    metrics: Metrics,
    *,
    ledger: Ledger,
    notify: Callable[[Progress], None],
) -> dict[Trial, list[Measured]]:
    """Measure every image under every setting, but for what the ledger has already.

    An image is read, reduced and preprocessed once for all settings; the seconds of a measurement
    include preprocessing. Results are rounded to 8 bits, as in files.
    """
    fixed = conditions(engine, metrics, {field.name for field in fields(Trial)})
    found: dict[Trial, list[Measured]] = {setting: [] for setting in settings}
    for number, pair in enumerate(pairs):
        scene = Scene(engine, pair)
        images = [digest(image.numpy()).hex() for image in (pair.lr, pair.hr)]
        for done, setting in enumerate(settings, number * len(settings) + 1):
            cell = key(fixed, asdict(setting), images)
            measured = ledger.get(cell)
            if measured is None:
                result, seconds = scene.restored(setting)
                measured = Measured(metrics.score(result, pair.hr), seconds)
                ledger.put(cell, measured, image=pair.name, setting=asdict(setting))
            found[setting].append(measured)
            notify(Progress(done, len(pairs) * len(settings), pair.name))
    return found


class Scene:
    """One picture, preprocessed once for all settings."""

    def __init__(self, engine: Upscaler, pair: Pair) -> None:
        self._engine = engine
        self._pair = pair

    def restored(self, setting: Trial) -> tuple[Tensor, float]:
        """The result (3, H, W), 8-bit levels in [0, 1], and the seconds with preprocessing."""
        source, preparation = self._source
        engine = self._engine.using(**setting.options)
        sampler = None if setting.t1 else without_shift(setting)
        begin = perf_counter()
        (result,) = engine.together([self._pair.lr], sources=[source], sampler=sampler)
        seconds = perf_counter() - begin
        return (result * 255).round() / 255, preparation + seconds

    @cached_property
    def _source(self) -> tuple[Tensor, float]:
        begin = perf_counter()
        with torch.inference_mode():
            (source,) = self._engine.sources([self._pair.lr])
        return source, perf_counter() - begin


def without_shift(setting: Trial) -> Sampler:
    """A baseline's walk for one picture: from noise alone at T − 1, the network told that η = 0."""
    name: Any = setting.solver

    def walk(
        model: Model,
        tiler: Tiler,
        coded: list[tuple[Tensor, Tensor]],
        noises: Sequence[Noise],
    ) -> list[Tensor]:
        ((y, hint),), (noise,) = coded, noises
        schedule = model.alpha_bar
        whole: Window = (slice(0, y.shape[-2]), slice(0, y.shape[-1]))

        def denoise(x: Tensor, alpha: float, sigma: float, t: int) -> Tensor:
            def predict(x: Tensor, y: Tensor, hint: Tensor) -> Tensor:
                return model.denoiser.predict_x0(
                    x, y=y, hint=hint, alpha=alpha, sigma=sigma, a=alpha, m=0.0, t=t
                )

            x0 = torch.empty_like(y)
            tiler.fill(predict, lambda _, w: tuple(v[(..., *w)] for v in (x, y, hint)), [x0])
            return x0

        last = len(schedule) - 1
        start = (1 - schedule[last]) ** 0.5 * noise(0, whole).to(y.device)

        def fresh(step: int) -> Tensor:
            return noise(step, whole).to(y.device)

        return [sample(name, schedule, last, setting.steps, start, denoise, fresh)]

    return walk


def table(found: Mapping[Trial, Sequence[Measured]], metrics: Sequence[str]) -> Table:
    """A row for each setting: each metric's mean over the images, the median of the seconds."""
    columns = (
        *map(Column, ("t1", "steps", "order", "solver")),
        *map(column, metrics),
        Column("s/image", "lower"),
    )
    rows = (
        (
            *(s.t1, s.steps, s.order, s.solver),
            *(mean(m.scores[name] for m in all_) for name in metrics),
            median(m.seconds for m in all_),
        )
        for s, all_ in found.items()
    )
    return Table(columns, tuple(rows))
