"""`srx prf-search`: where the diffusion starts best, at any scale, kept for `srx upscale`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from sr_cli import __version__
from sr_cli.cli import options as shared
from sr_cli.cli import prf_reports, reports
from sr_cli.cli.config import ConfigOption, NoConfigOption
from sr_cli.cli.machine import Machine, environment, make_upscaler
from sr_cli.cli.options import LIST, WRITTEN, option
from sr_cli.cli.parsing import check_method, parse_list
from sr_cli.cli.ui import terminal
from sr_cli.diffusion.names import Schedule
from sr_cli.engine.options import Color, Degradation, UpscaleOptions
from sr_cli.errors import ExitCode

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sr_cli.engine.upscaler import Upscaler
    from sr_cli.evaluation.metrics import Metrics
    from sr_cli.evaluation.prf.found import SearchResult
    from sr_cli.evaluation.prf.search import Search, SearchOptions
    from sr_cli.evaluation.selection import Half
    from sr_cli.evaluation.tables import Table

SCALES = {"diffsr": "1.6,2,2.7,3.5,4,8", "dossr": "1.6,2,2.7,3.5,4"}


def prf_search(
    ctx: typer.Context,
    path: Annotated[
        Path | None,
        typer.Argument(
            metavar="[HR_DIR]", help="Folder of HR images; without it the examples of srx."
        ),
    ] = None,
    scale: Annotated[float | None, option("Search", "--scale", help="Search at one scale.")] = None,
    scales: Annotated[
        str | None,
        option(
            "Search",
            "--scales",
            metavar=LIST,
            show_default=SCALES["diffsr"],
            help="Search at several.",
        ),
    ] = None,
    half: shared.Half = "all",
    per_folder: shared.PerFolder = None,
    degradation: Annotated[
        Degradation, option("Search", "--degradation", help="What makes the LR images.")
    ] = UpscaleOptions.degradation,
    schedule: Annotated[
        str | None,
        option(
            "Search",
            "--schedule",
            metavar=LIST,
            show_default="the model's",
            help=f"Noise over time: {', '.join(get_args(Schedule))}.",
        ),
    ] = None,
    crop: Annotated[
        int, option("Search", "--crop", metavar="N", help="Side of the centre crops.")
    ] = 256,
    rounds: Annotated[
        int, option("Search", "--rounds", metavar="N", help="Times that refine the grid.")
    ] = 4,
    signature_limit: Annotated[
        float | None,
        option("Search", "--signature-limit", show_default="1, or the card's", help="C^S."),
    ] = None,
    fidelity_limit: Annotated[
        float | None,
        option("Search", "--fidelity-limit", show_default="0.086, or the card's", help="C^F."),
    ] = None,
    omega: Annotated[
        float | None,
        option("Search", "--omega", show_default="0.21, or the card's", help="ω of the PRF."),
    ] = None,
    method: shared.Method = "diffsr",
    prior: shared.Prior = UpscaleOptions.prior,
    model: shared.Model = UpscaleOptions.model,
    sampler: shared.Sampler = UpscaleOptions.sampler,
    steps: shared.Steps = UpscaleOptions.steps,
    order: shared.Order = UpscaleOptions.order,
    variant: shared.Variant = UpscaleOptions.variant,
    last_step: shared.LastStep = UpscaleOptions.last_step,
    texture: shared.Texture = UpscaleOptions.texture,
    preprocess: shared.Preprocess = UpscaleOptions.preprocess,
    color: Annotated[
        Color, option("Diffusion", "--color", help="Take the colours of the input over.")
    ] = "wavelet",
    seed: Annotated[
        int, option("Diffusion", "--seed", metavar="N", help="Of the noise and the degradation.")
    ] = UpscaleOptions.seed,
    device: shared.Device = "auto",
    dtype: shared.Dtype = "auto",
    threads: shared.Threads = None,
    metrics: shared.Metrics = "psnr,ssim,lpips",
    download: shared.Download = False,
    plot: shared.Curves = None,
    sheet: Annotated[
        Path | None,
        option(
            "Reports and defaults",
            "--sheet",
            metavar="FILE.png",
            help="Crops side by side by noise level: of one scale some images, else each scale.",
            **WRITTEN,
        ),
    ] = None,
    cache: shared.Cache = None,
    update_card: Annotated[
        bool,
        option(
            "Reports and defaults",
            "--update-card",
            help="Fit the thresholds of the PRF to what is measured, and write both into the card.",
        ),
    ] = False,
    as_json: shared.Json = False,
    no_progress: shared.NoProgress = False,
    quiet: shared.Quiet = False,
    verbose: shared.Verbose = False,
    no_config: NoConfigOption = False,
    config: ConfigOption = None,
) -> None:
    """Find how much noise each scale wants, and keep it for srx upscale.

    Images are recovered from a grid of starting times t, then around the best of them, and measured
    beside the Perceptual Recoverable Field that its two losses give. t* is by LPIPS where its
    weights are there, else by the spectrum's amplitudes. What was measured is kept: an interrupted
    command continues when run again.
    """
    terminal.talk(quiet=quiet, verbose=verbose, progress=not no_progress)
    check_method(ctx)
    reports.check_reports(csv=None, plot=plot, sheet=sheet)
    chosen = parse_list("--metrics", metrics, str, example="psnr,lpips")
    schedules = None
    if schedule is not None:
        schedules = parse_list("--schedule", schedule, str, example="linear,cosine")
    limits = {"omega": omega, "signature": signature_limit, "fidelity": fidelity_limit}
    wanted = _search_options(_scales(scale, scales, method), crop, rounds, limits, update_card)
    options = UpscaleOptions(
        method=method,
        prior=prior,
        model=model,
        sampler=sampler,
        steps=steps,
        order=order,
        variant=variant,
        last_step=last_step,
        texture=texture if method == "dossr" else None,
        preprocess=preprocess,
        color=color,
        seed=seed,
        degradation=degradation,
        t1=0 if method == "diffsr" else None,
    )
    if update_card:
        prf_reports.check_card(options)
    files = _files(path, half, per_folder)
    machine = Machine(device, dtype, threads)
    engine = make_upscaler(options, machine)
    measures = _metrics(chosen, engine, download=download)
    searches = {
        name: _search(wanted, files, engine.using(schedule=walk), measures, cache)
        for name, walk in _schedules(schedules, engine).items()
    }
    results = _run(searches)
    kept = {name: str(_keep(searches[name], result, half)) for name, result in results.items()}
    tables = {name: _report(name, searches[name], results[name], kept[name]) for name in kept}
    if update_card:
        prf_reports.update_card(options, crop, next(iter(results.values())), path, half)
    if plot:
        prf_reports.draw_curves(searches, results, plot)
    if sheet:
        prf_reports.draw_sheet(searches, results, sheet)
    if as_json:
        terminal.document(
            {
                "options": options.recorded | asdict(wanted),
                "environment": environment(machine.resolve()) | {"texture": engine.texture},
                "images": [str(file) for file in files],
                "metrics": {"conditions": measures.conditions, "missing": measures.missing},
                "calibrations": kept,
                "schedules": {
                    name: _record(result) | {"rows": tables[name].records()}
                    for name, result in results.items()
                },
            }
        )


def _scales(scale: float | None, scales: str | None, method: str) -> tuple[float, ...]:
    if scale is not None and scales is None:
        return (scale,)
    text = SCALES[method] if scales is None else scales
    several = set(parse_list("--scales", text, float, example="2,2.7,4"))
    return tuple(sorted(several | ({scale} if scale is not None else set())))


def _search_options(
    scales: tuple[float, ...],
    crop: int,
    rounds: int,
    limits: Mapping[str, float | None],
    refit: bool,
) -> SearchOptions:
    from sr_cli.evaluation.prf.search import SearchOptions

    given = {name: value for name, value in limits.items() if value is not None}
    return SearchOptions(scales, crop, rounds, refit, given)


def _files(path: Path | None, half: Half, per_folder: int | None = None) -> list[Path]:
    """HR alone: LR images beside them are not read."""
    from sr_cli.evaluation import datasets

    data = path or datasets.examples()
    found = datasets.pairs(data, degradation="bicubic", half=half, per_folder=per_folder)
    return list(found.hr_files)


def _schedules(names: Sequence[str] | None, engine: Upscaler) -> dict[str, Any]:
    """What --schedule names, by the name it is shown with."""
    if names is None:
        own = engine.model.schedule
        return {own if isinstance(own, str) else "own": None}
    return {name: name for name in names}


def _metrics(names: Sequence[str], engine: Upscaler, *, download: bool) -> Metrics:
    import torch

    found = reports.load_metrics(names, torch.device(engine.device), download=download)
    if "lpips" not in set(names) - set(found.missing):
        terminal.note("Without LPIPS t* is by the spectrum's amplitudes.")
    return found


def _search(
    wanted: SearchOptions,
    files: list[Path],
    engine: Upscaler,
    metrics: Metrics,
    cache: Path | None,
) -> Search:
    from platformdirs import user_cache_path

    from sr_cli.evaluation.measurements import Measurements
    from sr_cli.evaluation.prf.search import Search

    known = Measurements(cache or user_cache_path("srx") / "prf-search.jsonl")
    return Search(wanted, files, engine, metrics, known)


def _run(searches: dict[str, Search]) -> dict[str, SearchResult]:
    total = sum(search.total for search in searches.values())
    done = 0
    try:
        with terminal.counting(total) as show:

            def notify(what: str) -> None:
                nonlocal done
                done = min(done + 1, total)
                show(done, what)

            return {name: search.run(notify) for name, search in searches.items()}
    except KeyboardInterrupt:
        terminal.line(f"interrupted: {done} of {total} measured; the same command does the rest.")
        raise typer.Exit(ExitCode.INTERRUPTED) from None


def _keep(search: Search, result: SearchResult, half: Half) -> Path:
    """Keep where each scale starts best."""
    from sr_cli.engine.steps import conditions, setting
    from sr_cli.models.calibration import Calibration, Start, keep

    options, model = search.engine.options, search.engine.model
    origin = {
        "srx": __version__,
        "images": len(search.images),
        "half": half,
        "crop": search.options.crop,
        **conditions(options, model),
    }
    starts = {
        row.scale: Start(row.star.t, {**origin, "criterion": row.criterion}) for row in result.found
    }
    return keep(setting(options, model), Calibration(starts))


def _report(name: str, search: Search, result: SearchResult, kept: str) -> Table:
    from sr_cli.engine.steps import calibration
    from sr_cli.evaluation.prf.report import table

    made = table(result)
    terminal.results(made)
    criterion = result.found[0].criterion
    terminal.note(f"schedule {name}; t* is by {criterion}; seconds are medians an image.")
    terminal.note(f"calibration: {kept} (delete the file to forget it)")
    known = calibration(search.engine.options, search.engine.model).starts
    searched = {f"{scale:g}" for scale in search.options.scales}
    if others := [text for scale in known if (text := f"{scale:g}") not in searched]:
        terminal.note(f"scales not searched keep their starts: {', '.join(others)}")
    return made


def _record(result: SearchResult) -> dict[str, Any]:
    from sr_cli.evaluation.prf.report import record

    return record(result)
