"""What a sweep looks like: curves against t1 and steps, and crops side by side."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from sr_cli.engine.upscaler import Upscaler
from sr_cli.evaluation.datasets import Pairs
from sr_cli.evaluation.measurements import Measured
from sr_cli.evaluation.plots import Curve, Panel, contact_sheet
from sr_cli.evaluation.scene import Scene
from sr_cli.evaluation.sweep import DOS, PLAIN, SweepOptions, Trial, restored, table
from sr_cli.models.resampling import resize

SheetBy = Literal["t1", "steps", "order", "seed"]
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

    One curve for each order and variant, and against the steps for each sampler. The first are
    drawn at the number of steps nearest to 5, the second at the t1 nearest to 500.
    """
    records = table(found, metrics).records()
    values = dict(zip(dict.fromkeys(trial.row for trial in found), records, strict=True))
    ending = options.last_step[0]
    steps, t1 = _nearest(options.steps, STEPS), _nearest(options.t1, T1)
    combinations = product(options.variant, options.order)
    kinds = dict.fromkeys(
        (order, variant if order == 3 else "paper") for variant, order in combinations
    )

    def curve(metric: str, trials: Mapping[int, Trial], *, dashed: bool = False) -> Curve:
        label = next(iter(trials.values())).label
        cells = {x: values[s.effective].get(metric) for x, s in trials.items()}
        points = [(float(x), float(y)) for x, y in cells.items() if isinstance(y, int | float)]
        return Curve(label, points, dashed)

    def row(metric: str) -> list[Panel]:
        by_t1 = [
            curve(metric, {x: Trial(DOS, steps, x, *kind, ending) for x in options.t1})
            for kind in kinds
        ]
        rivals = [name for name in options.sampler if name != PLAIN]
        walks = [Trial(DOS, 1, t1, *kind, ending) for kind in kinds]
        if PLAIN in options.sampler:
            walks += [Trial(PLAIN, 1, None, *kind, ending) for kind in kinds]
        walks += [Trial(name, 1, last_step=ending) for name in rivals]
        by_steps = [
            curve(
                metric,
                {n: replace(walk, steps=n) for n in options.steps},
                dashed=walk.sampler != DOS,
            )
            for walk in walks
        ]
        return [
            Panel(f"t1, {steps} steps", metric, by_t1),
            Panel(f"steps, t1 = {t1}", metric, by_steps),
        ]

    return [row(metric) for metric in metrics]


def sheet(
    pairs: Pairs, options: SweepOptions, engine: Upscaler, path: Path, by: SheetBy = "t1"
) -> None:
    """The busiest crop of the first images: LR (bicubic), results, and HR.

    by: what differs from column to column: `t1`, and every sampler after that; `steps`; `order`;
    or `seed`. The others are the t1 nearest to 500, the number of steps nearest to 5 and the
    highest order. Raises as `contact_sheet`.
    """
    trials = _columns(options, by)
    crops, names = [], []
    for i in range(min(ROWS, len(pairs))):
        pair = pairs[i]
        scene = Scene(engine, pair.lr, pair.hr)
        bicubic = resize(pair.lr[None], (pair.hr.shape[1], pair.hr.shape[2]))[0].clamp(0, 1)
        results = [restored(scene, trial)[0] for trial in trials.values()]
        crops.append(busiest_crops(pair.hr, (bicubic, *results, pair.hr)))
        names.append(pair.name)
    contact_sheet(crops, ["LR, bicubic", *trials, "HR"], names, path)


def _columns(options: SweepOptions, by: SheetBy) -> dict[str, Trial]:
    """What is drawn beside each other, by its label."""
    steps, t1, order = _nearest(options.steps, STEPS), _nearest(options.t1, T1), max(options.order)
    variant, ending = options.variant[0], options.last_step[0]
    if by == "steps":
        return {
            f"{n} step{'s' * (n > 1)}": Trial(DOS, n, t1, order, variant, ending)
            for n in options.steps
        }
    if by == "order":
        return {f"order {n}": Trial(DOS, steps, t1, n, variant, ending) for n in options.order}
    if by == "seed":
        return {
            f"seed {n}": Trial(DOS, steps, t1, order, variant, ending, n) for n in options.seeds
        }
    found = {f"t1 = {t}": Trial(DOS, steps, t, order, variant, ending) for t in options.t1}
    for name in options.sampler:
        rival = Trial(name, steps, last_step=ending)
        found[name] = replace(rival, order=order, variant=variant) if name == PLAIN else rival
    return found


def busiest_crops(hr: Tensor, images: Sequence[Tensor]) -> list[Tensor]:
    """Of each of these images, as large as HR, what lies where HR has most fine detail."""
    rows, cols = busiest(hr, SIDE)
    return [_square(image[:, rows, cols]) for image in images]


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
