"""`srx scores`: the quality table of README, on any folders of images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sr_cli.cli.ui import terminal
from sr_cli.errors import ModelError

if TYPE_CHECKING:
    from sr_cli.evaluation.metrics import Metric
    from sr_cli.evaluation.scores import Method


def scores(
    folders: Annotated[
        list[Path],
        typer.Argument(metavar="FOLDER", help="Each with HR/, and LR/ unless bicubic LR is meant."),
    ],
    metrics: Annotated[
        str, typer.Option("--metrics", metavar="A,B,...", help="What to measure.")
    ] = "psnr,ssim,lpips,niqe",
    update_card: Annotated[
        bool,
        typer.Option(
            "--update-card",
            help="Write the rows, and the tile margin of one 8-bit level, into the model's card.",
        ),
    ] = False,
) -> None:
    """Measure srx at x4 beside bicubic and Real-ESRGAN: a Markdown table on stdout.

    PSNR and SSIM are of the Y channel, without border crop. Metrics need the extra `iqa`;
    Real-ESRGAN is measured where the extra `realesrgan` is installed.
    """
    from sr_cli.evaluation.metrics import load_metric
    from sr_cli.evaluation.scores import markdown, score

    measures: dict[str, Metric] = {name: load_metric(name) for name in metrics.split(",")}
    methods = _methods()
    rows = []
    for folder in folders:
        for name, method in methods.items():
            rows.append(score(folder, name, method, measures))
            terminal.note(f"{folder.name}: {name} done")
    typer.echo(markdown(rows))
    if update_card:
        _update_card({f"{r.dataset}, {r.method}": dict(r.means) for r in rows}, folders[0])


def _methods() -> dict[str, Method]:
    from sr_cli.engine.options import UpscaleOptions
    from sr_cli.engine.upscaler import Upscaler
    from sr_cli.evaluation.scores import ENGINE, bicubic, preprocessor_alone

    methods: dict[str, Method] = {"bicubic": bicubic}
    engines = {name: Upscaler(options) for name, options in ENGINE.items()}
    methods["compact alone"] = preprocessor_alone(engines["(defaults)"])
    methods |= engines
    try:
        peer = Upscaler(UpscaleOptions(preprocess="realesrgan"))
    except ModelError as error:
        terminal.note(str(error))
    else:
        methods["Real-ESRGAN x4plus alone"] = preprocessor_alone(peer)
    return methods


def _update_card(scores: dict[str, dict[str, float]], folder: Path) -> None:
    from dataclasses import replace

    from sr_cli.evaluation.scores import one_level_margin, pairs
    from sr_cli.models.registry import card, write_card

    found = card("embedded")
    lr, _ = next(pairs(folder))
    margin = one_level_margin(lr, found.limits["margin"])
    rounded = {row: {k: round(v, 4) for k, v in means.items()} for row, means in scores.items()}
    limits = {**found.limits, "margin_one_level": margin}
    write_card(replace(found, scores=rounded, limits=limits))
