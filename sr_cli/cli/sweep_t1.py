"""`srx sweep-t1`: the papers' ablations on any pairs of images."""

from __future__ import annotations

import re
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from sr_cli.cli import options as shared
from sr_cli.cli import reports
from sr_cli.cli.config import ConfigOption, NoConfigOption
from sr_cli.cli.machine import Machine, environment, make_upscaler
from sr_cli.cli.options import LIST, WRITTEN, option
from sr_cli.cli.parsing import parse_list
from sr_cli.cli.ui import terminal
from sr_cli.engine.options import Color, UpscaleOptions
from sr_cli.errors import ExitCode, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sr_cli.engine.upscaler import Upscaler
    from sr_cli.evaluation.datasets import Pairs
    from sr_cli.evaluation.measurements import Measured
    from sr_cli.evaluation.metrics import Metrics
    from sr_cli.evaluation.sweep import SweepOptions, Trial
    from sr_cli.evaluation.tables import Table


def sweep_t1(
    path: Annotated[
        Path,
        typer.Argument(
            metavar="PAIRS", help="Folder of HR images, or of HR and LR images in usual layouts."
        ),
    ],
    t1: Annotated[
        str,
        option("Sweep", "--t1", metavar=LIST, help="Starting times; T is 1000."),
    ] = "T,2T/3,T/2,T/3",
    steps: Annotated[
        str, option("Sweep", "--steps", metavar=LIST, help="Numbers of solver steps.")
    ] = "5",
    order: Annotated[
        str, option("Sweep", "--order", metavar=LIST, help="Orders of the solver.")
    ] = "3",
    variant: Annotated[
        str, option("Sweep", "--variant", metavar=LIST, help="Of order 3: paper, corrected.")
    ] = "paper",
    sampler: Annotated[
        str,
        option(
            "Sweep",
            "--sampler",
            metavar=LIST,
            help="Samplers without domain shift on the same network, from noise at T: "
            "ddim, ddpm, edm, dpmsolver++, plain (the own solver without shift), or none.",
        ),
    ] = "ddim,edm,dpmsolver++",
    last_step: Annotated[
        str | None,
        option(
            "Sweep",
            "--last-step",
            metavar=LIST,
            show_default="the model's; x0 of other samplers",
            help="What walks end on: mean, x0, step (of the own solver).",
        ),
    ] = None,
    seeds: Annotated[
        str | None,
        option(
            "Sweep",
            "--seeds",
            metavar=LIST,
            show_default="that of --seed",
            help="Seeds of the noise; the table has means and standard deviations.",
        ),
    ] = None,
    metrics: shared.Metrics = "psnr,ssim,lpips,niqe",
    border: shared.Border = 0,
    download: shared.Download = False,
    scale: shared.DataScale = 4.0,
    lr: shared.Lr = None,
    degradation: shared.DataDegradation = None,
    half: shared.Half = "all",
    per_folder: shared.PerFolder = None,
    crop: shared.Crop = None,
    seed: Annotated[
        int, option("Data", "--seed", metavar="N", help="Of the noise and the degradation.")
    ] = UpscaleOptions.seed,
    model: Annotated[
        str, option("Network", "--model", metavar="NAME", help="Diffusion model.")
    ] = UpscaleOptions.model,
    preprocess: Annotated[
        str | None,
        option(
            "Network",
            "--preprocess",
            metavar="NAME|FILE",
            show_default="the model's",
            help="What makes the first, smooth enlargement.",
        ),
    ] = None,
    texture: Annotated[
        float | None,
        option(
            "Network",
            "--texture",
            metavar="0...1",
            show_default="the model's",
            help="Of a model with a dial: 0 smooth and faithful, 1 crispest.",
        ),
    ] = UpscaleOptions.texture,
    color: Annotated[
        Color, option("Network", "--color", help="Take the colours of the input over.")
    ] = "wavelet",
    tile: shared.Tile = None,
    device: shared.Device = "auto",
    dtype: shared.Dtype = "auto",
    threads: shared.Threads = None,
    csv: shared.Csv = None,
    plot: shared.Curves = None,
    sheet: Annotated[
        Path | None,
        option(
            "Reports and defaults",
            "--sheet",
            metavar="FILE.png",
            help="Crops side by side.",
            **WRITTEN,
        ),
    ] = None,
    sheet_by: Annotated[
        Literal["t1", "steps", "order", "seed"],
        option("Reports and defaults", "--sheet-by", help="What differs between its columns."),
    ] = "t1",
    cache: shared.Cache = None,
    as_json: shared.Json = False,
    no_progress: shared.NoProgress = False,
    quiet: shared.Quiet = False,
    verbose: shared.Verbose = False,
    no_config: NoConfigOption = False,
    config: ConfigOption = None,
) -> None:
    """Compare starting times, steps, orders and samplers on one network.

    Every t1 is run with every number of steps, order and variant, and every sampler with every
    number of steps; rows that would repeat another one appear once. What was measured is kept: an
    interrupted command continues when run again. Metrics other than PSNR and SSIM need the extra
    `iqa`, plots the extra `plot`.
    """
    from sr_cli.evaluation import datasets

    terminal.talk(quiet=quiet, verbose=verbose, progress=not no_progress)
    chosen = parse_list("--metrics", metrics, str, example="psnr,ssim")
    varied = _varied(t1, steps, order, variant, sampler, last_step, seeds)
    options = UpscaleOptions(
        scale=scale,
        model=model,
        preprocess=preprocess,
        texture=texture,
        color=color,
        seed=seed,
        tile=tile,
    )
    reports.check_reports(csv=csv, plot=plot, sheet=sheet)
    if sheet and sheet_by == "seed" and not varied.seeds:
        raise UsageError("--sheet-by seed needs --seeds A,B: the seeds to set side by side.")
    found = datasets.pairs(
        path,
        lr=lr,
        scale=scale,
        degradation=degradation,
        seed=seed,
        half=half,
        per_folder=per_folder,
        crop=crop,
    )
    pairs = reports.usable(found)
    terminal.note(f"{pairs.title}: {len(pairs)} images, {pairs.made_by}")
    machine = Machine(device, dtype, threads)
    engine = make_upscaler(options, machine)
    measures = _metrics(chosen, engine, border, download)
    measured = _measured(pairs, varied, engine, measures, cache)
    table = _report(measured, varied, measures, csv, plot)
    if sheet:
        from sr_cli.evaluation.sweep_figures import sheet as draw_sheet

        draw_sheet(pairs, varied, engine, sheet, sheet_by)
    if as_json:
        data = {"name": pairs.name, "half": half, "images": len(pairs), "lr": pairs.made_by}
        data |= {"per_folder": per_folder, "crop": crop}
        terminal.document(
            {
                "options": asdict(options) | asdict(varied),
                "environment": environment(machine.resolve()) | {"texture": engine.texture},
                "data": data,
                "metrics": {"conditions": measures.conditions, "missing": measures.missing},
                "rows": table.records(),
            }
        )


def _varied(
    t1: str,
    steps: str,
    order: str,
    variant: str,
    sampler: str,
    last_step: str | None,
    seeds: str | None,
) -> SweepOptions:
    from sr_cli.evaluation.sweep import SweepOptions

    variants: Any = parse_list("--variant", variant, str, example="paper,corrected")
    samplers: Any = ()
    if sampler != "none":
        samplers = parse_list("--sampler", sampler, str, example="ddim,edm")
    endings: Any = (None,)
    if last_step is not None:
        endings = parse_list("--last-step", last_step, str, example="mean,x0")
    return SweepOptions(
        t1=parse_list("--t1", t1, _time, example="500,T/2,2T/3"),
        steps=parse_list("--steps", steps, int, example="1,2,5"),
        order=parse_list("--order", order, int, example="1,2,3"),
        variant=variants,
        sampler=samplers,
        last_step=endings,
        seeds=() if seeds is None else parse_list("--seeds", seeds, int, example="0,1,2"),
    )


def _time(text: str) -> int:
    """500, T/2 or 2T/3, rounded down as in the paper's code. Raises ValueError."""
    match = re.fullmatch(r"(?P<number>\d+)|(?P<times>\d*)T(/(?P<parts>[1-9]\d*))?", text)
    if match is None:
        raise ValueError(f"no number and no part of T: {text}")
    if match["number"]:
        return int(match["number"])
    return 1000 * int(match["times"] or 1) // int(match["parts"] or 1)


def _metrics(names: Sequence[str], engine: Upscaler, border: int, download: bool) -> Metrics:
    """Of single images. Raises UsageError for others, and for those that are unknown."""
    import torch

    from sr_cli.evaluation.iqa import SPECS

    for name in (name for name in names if name in SPECS and SPECS[name].of_sets):
        raise UsageError(f"{name} is of whole sets of images: a sweep measures single ones.")
    return reports.load_metrics(names, torch.device(engine.device), border, download=download)


def _measured(
    pairs: Pairs, varied: SweepOptions, engine: Upscaler, measures: Metrics, cache: Path | None
) -> dict[Trial, list[Measured]]:
    from sr_cli.evaluation.measurements import Measurements
    from sr_cli.evaluation.sweep import sweep as measure

    known = Measurements(cache or _default_cache())
    total = len(pairs) * len(varied.trials)
    done = 0
    try:
        with terminal.counting(total) as show:

            def advance(image: str) -> None:
                nonlocal done
                done += 1
                show(done, image)

            trials = varied.trials
            return measure(pairs, trials, engine, measures, known=known, on_image=advance)
    except KeyboardInterrupt:
        terminal.line(f"interrupted: {done} of {total} measured; the same command does the rest.")
        raise typer.Exit(ExitCode.INTERRUPTED) from None


def _default_cache() -> Path:
    from platformdirs import user_cache_path

    return user_cache_path("srx") / "sweep-t1.jsonl"


def _report(
    found: dict[Trial, list[Measured]],
    varied: SweepOptions,
    measures: Metrics,
    csv: Path | None,
    plot: Path | None,
) -> Table:
    from sr_cli.evaluation import plots
    from sr_cli.evaluation.sweep import table
    from sr_cli.evaluation.sweep_figures import panels

    result = table(found, measures.names)
    terminal.results(result)
    terminal.note(f"{measures.conditions}; seconds are medians and include preprocessing.")
    if csv:
        reports.write_csv(result, csv)
    if plot:
        measured = [name for name in measures.names if name not in measures.missing]
        plots.curves(panels(found, varied, measured), plot)
    return result
