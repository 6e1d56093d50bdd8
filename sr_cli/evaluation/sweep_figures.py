"""What a sweep looks like: curves against t1 and steps, and crops side by side."""

from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from sr_cli.engine.upscaler import Upscaler
from sr_cli.evaluation.datasets import Pairs
from sr_cli.evaluation.ledger import Measured
from sr_cli.evaluation.plots import Curve, Panel, contact_sheet
from sr_cli.evaluation.sweep import Scene, SweepOptions, Trial, table
from sr_cli.models.resampling import resize

ROWS = 4
"""Images on a sheet."""
SIDE = 160
"""Pixels of a crop."""
STEPS, T1 = 5, 500
"""The paper's choice, near which curves and crops are taken."""


def panels(
    found: Mapping[Trial, Sequence[Measured]], options: SweepOptions, metrics: Sequence[str]
) -> list[list[Panel]]:
    """For each metric its curves against t1, and against the number of steps.

    One curve for each order and solver, and against the steps for each baseline. The first are
    drawn at the number of steps nearest to 5, the second at the t1 nearest to 500.
    """
    records = table(found, metrics).records()
    values = dict(zip(found, records, strict=True))
    steps, t1 = _nearest(options.steps, STEPS), _nearest(options.t1, T1)
    combinations = product(options.solver, options.order)
    kinds = dict.fromkeys(
        (solver if order == 3 else "paper", order) for solver, order in combinations
    )
    rivals = [(name, None) for name in options.baselines]

    def curve(metric: str, settings: Mapping[int, Trial], *, dashed: bool = False) -> Curve:
        label = next(iter(settings.values())).label
        cells = {x: values[s.effective].get(metric) for x, s in settings.items()}
        points = [(float(x), float(y)) for x, y in cells.items() if isinstance(y, int | float)]
        return Curve(label, points, dashed)

    def row(metric: str) -> list[Panel]:
        by_t1 = [
            curve(metric, {x: Trial(solver, steps, x, order) for x in options.t1})
            for solver, order in kinds
        ]
        by_steps = [
            curve(
                metric,
                {n: Trial(solver, n, order and t1, order) for n in options.steps},
                dashed=order is None,
            )
            for solver, order in (*kinds, *rivals)
        ]
        return [
            Panel(f"t1, {steps} steps", metric, by_t1),
            Panel(f"steps, t1 = {t1}", metric, by_steps),
        ]

    return [row(metric) for metric in metrics]


def sheet(pairs: Pairs, options: SweepOptions, engine: Upscaler, path: Path) -> None:
    """The busiest crop of the first images: LR (bicubic), every t1 and every baseline at the number
    of steps nearest to 5 and the highest order, and HR. Raises as `contact_sheet`."""
    steps, order = _nearest(options.steps, STEPS), max(options.order)
    settings = [
        *(Trial(options.solver[0], steps, t1, order) for t1 in options.t1),
        *(Trial(name, steps) for name in options.baselines),
    ]
    crops, names = [], []
    for i in range(min(ROWS, len(pairs))):
        pair = pairs[i]
        scene = Scene(engine, pair)
        bicubic = resize(pair.lr[None], (pair.hr.shape[1], pair.hr.shape[2]))[0].clamp(0, 1)
        results = [scene.restored(setting)[0] for setting in settings]
        rows, cols = busiest(pair.hr, SIDE)
        crops.append([_square(image[:, rows, cols]) for image in (bicubic, *results, pair.hr)])
        names.append(pair.name)
    labels = [f"t1 = {s.t1}" if s.t1 else s.solver for s in settings]
    contact_sheet(crops, ["LR, bicubic", *labels, "HR"], names, path)


def busiest(image: Tensor, side: int) -> tuple[slice, slice]:
    """Rows and columns of the side × side window of (3, H, W) with most fine detail."""
    fine = (image - avg_pool2d(image[None], 5, 1, 2, count_include_pad=False)[0]).square().mean(0)
    high, wide = (min(side, length) for length in fine.shape)
    energy = avg_pool2d(fine[None], (high, wide), stride=1)[0]
    top, left = divmod(int(energy.argmax()), energy.shape[1])
    return slice(top, top + high), slice(left, left + wide)


def _square(crop: Tensor) -> Tensor:
    """On white, where the image is smaller than the crop."""
    square = torch.ones(3, SIDE, SIDE)
    square[:, : crop.shape[1], : crop.shape[2]] = crop
    return square


def _nearest(values: Sequence[int], target: int) -> int:
    return min(values, key=lambda value: abs(value - target))
