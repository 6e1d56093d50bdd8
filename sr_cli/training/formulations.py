"""DoSSR's Table 5 in small: each formulation trained equally long and measured on one set."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from statistics import stdev
from typing import get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from sr_cli.degradation.degrade import Randomness
from sr_cli.diffusion.formulations import FormulationName, formulation
from sr_cli.errors import UsageError
from sr_cli.evaluation.datasets import Pairs
from sr_cli.evaluation.metrics import Metrics, column, mean
from sr_cli.evaluation.tables import Column, Table
from sr_cli.models.resampling import resize
from sr_cli.training.objectives_formulation import Begun, FormulationObjective
from sr_cli.training.train import Trainer, TrainOptions

NAMES: tuple[FormulationName, ...] = get_args(FormulationName)


@dataclass(frozen=True)
class Candidate:
    """A row: a formulation, what its network began with, and the network calls of its walk."""

    name: FormulationName
    begun: Begun
    steps: int


def candidates(
    names: Sequence[FormulationName], begun: Sequence[Begun], steps: Sequence[int]
) -> list[Candidate]:
    """Every combination. Raises UsageError for names that there are not."""
    for kind, chosen, known in (
        ("--formulation", names, NAMES),
        ("--begun", begun, get_args(Begun)),
    ):
        if strange := [name for name in chosen if name not in known]:
            raise UsageError(f"{kind} is a list of {', '.join(known)}, not {strange[0]!r}.")
    if not steps or min(steps) < 1:
        raise UsageError("--steps must be whole numbers above 0.")
    return [Candidate(name, first, n) for first, name, n in product(begun, names, steps)]


def trainer(candidate: Candidate, options: TrainOptions) -> Trainer:
    """Of the candidate's network, which all numbers of steps share, in a folder of its own below
    that of the options' run. The first weights are the same for all formulations."""
    torch.manual_seed(options.seed)
    objective = FormulationObjective(formulation(candidate.name, 1), candidate.begun)
    run = options.run / f"{candidate.begun}-{candidate.name}"
    return Trainer(objective, replace(options, run=run))


@torch.inference_mode()
def measured(
    trained: Trainer,
    candidate: Candidate,
    pairs: Pairs,
    metrics: Metrics,
    *,
    seeds: int,
    notify: Callable[[str], None],
) -> list[list[dict[str, float | None]]]:
    """The scores of the averaged weights: for each seed, of each image."""
    network = FormulationObjective(formulation(candidate.name, candidate.steps), candidate.begun)
    network.model = trained.ema.module.eval()
    found = []
    for seed in range(seeds):
        scores = []
        for number, pair in enumerate(pairs):
            rng = Randomness.keyed(trained.device, seed, number)
            result = restored(network, pair.lr.to(trained.device), pair.hr.shape[-2:], rng)
            scores.append(metrics.score((result.cpu() * 255).round() / 255, pair.hr))
            notify(pair.name)
        found.append(scores)
    return found


def restored(
    network: FormulationObjective, lr: Tensor, size: Sequence[int], rng: Randomness
) -> Tensor:
    """LR (3, h, w) in [0, 1] → (3, *size) in [0, 1]."""
    height, width = size
    y = 2 * resize(lr[None], (height, width)).clamp(0, 1) - 1
    unit = network.limits.multiple_of
    y = F.pad(y, (0, -width % unit, 0, -height % unit), mode="replicate")

    def draw() -> Tensor:
        return torch.randn(y.shape, generator=rng.fields, device=y.device)

    return (network.walk(y, draw)[0, :, :height, :width] + 1).div(2).clamp(0, 1)


def table(
    found: Mapping[Candidate, Sequence[Sequence[Mapping[str, float | None]]]],
    iterations: Mapping[Candidate, int],
    metrics: Sequence[str],
) -> Table:
    """A row for each candidate: means over seeds and images, and the seeds' standard deviation."""
    columns = [Column("begun with"), Column("formulation"), Column("NFE"), Column("iterations")]
    for name in metrics:
        columns += [column(name), Column("±", digits=4)]
    rows = []
    for candidate, seeds in found.items():
        cells: list[str | int | float | None] = [candidate.begun, candidate.name]
        cells += [candidate.steps, iterations[candidate]]
        for name in metrics:
            means = [mean(scores[name] for scores in seed) for seed in seeds]
            known = [value for value in means if value is not None]
            cells += [mean(means), stdev(known) if len(known) > 1 else None]
        rows.append(tuple(cells))
    return Table(tuple(columns), tuple(rows))
