"""`srx bench`: latency and quality beside what people would use instead, on the same images."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sr_cli.cli import bench_reports, bench_suite, reports
from sr_cli.cli import options as shared
from sr_cli.cli.config import ConfigOption, NoConfigOption
from sr_cli.cli.machine import Machine, ResolvedMachine, environment
from sr_cli.cli.options import LIST, WRITTEN, option
from sr_cli.cli.parsing import parse_list, refuse
from sr_cli.cli.rows import check, engine_rows, methods
from sr_cli.cli.sets import Taken
from sr_cli.cli.sets import sets as image_sets
from sr_cli.cli.ui import terminal
from sr_cli.errors import ExitCode, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sr_cli.evaluation.bench import BenchOptions, Row
    from sr_cli.evaluation.datasets import Pairs
    from sr_cli.evaluation.metrics import Metrics
    from sr_cli.evaluation.peers import Peer


def bench(
    ctx: typer.Context,
    images: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[DATA]...",
            help="Folders of HR images, or of HR and LR images in usual layouts; or HR images. "
            "Without any: the examples that come with srx.",
            show_default=False,
        ),
    ] = None,
    lr: shared.Lr = None,
    scale: shared.DataScale = 4.0,
    scales: Annotated[
        str | None,
        option(
            "Data",
            "--scales",
            metavar=LIST,
            show_default="that of --scale",
            help="At several scales: for each metric a table with a column for each.",
        ),
    ] = None,
    degradation: shared.DataDegradation = None,
    half: shared.Half = "all",
    per_folder: shared.PerFolder = None,
    crop: shared.Crop = None,
    seed: shared.DataSeed = 0,
    steps: Annotated[
        str | None,
        option("Methods", "--steps", metavar=LIST, help="Rows of srx with these steps."),
    ] = None,
    model: Annotated[
        str | None,
        option("Methods", "--model", metavar=LIST, help="Rows of srx with these models."),
    ] = None,
    row: shared.Rows = None,
    peer: shared.Peers = None,
    baselines: Annotated[
        bool,
        option(
            "Methods",
            "--baselines/--no-baselines",
            help="Nearest, bicubic, Lanczos, the preprocessor alone and Real-ESRGAN x4plus, also "
            "by ncnn.",
        ),
    ] = True,
    metrics: shared.Metrics = "psnr,ssim,lpips,niqe",
    border: shared.Border = 0,
    download: shared.Download = False,
    warmup: Annotated[
        int, option("Measuring", "--warmup", metavar="N", help="Untimed calls of each method.")
    ] = 1,
    repeat: Annotated[
        int, option("Measuring", "--repeat", metavar="N", help="Timed calls on each image.")
    ] = 1,
    batch: Annotated[
        int,
        option("Measuring", "--batch", metavar="N", help="Images at a time for the images/s."),
    ] = 1,
    profile: Annotated[
        bool,
        option("Measuring", "--profile", help="Split the time of srx into its parts instead."),
    ] = False,
    suite: Annotated[
        Path | None,
        option(
            "Measuring",
            "--suite",
            envvar=None,
            metavar="FILE.md",
            help="Check and time this machine instead, with pictures of its own: tables in that "
            "page, and JSON beside it.",
            **WRITTEN,
        ),
    ] = None,
    parts: Annotated[
        str,
        option("Measuring", "--parts", metavar=LIST, help="Of --suite; also: scaling, cluster."),
    ] = bench_suite.DEFAULT,
    minutes: Annotated[
        float,
        option("Measuring", "--minutes", metavar="N", help="After which --suite begins no more."),
    ] = bench_suite.MINUTES,
    quick: Annotated[
        bool, option("Measuring", "--quick", help="--suite with tiny sizes, to try it.")
    ] = False,
    device: shared.Device = "auto",
    dtype: shared.Dtype = "auto",
    threads: shared.Threads = None,
    csv: shared.Csv = None,
    plot: Annotated[
        Path | None,
        option(
            "Reports and defaults",
            "--plot",
            metavar="FILE",
            help="Latency against a metric, area by parameters: PNG, SVG or PDF.",
            **WRITTEN,
        ),
    ] = None,
    plot_metric: Annotated[
        str, option("Reports and defaults", "--plot-metric", metavar="NAME", help="Of --plot.")
    ] = "lpips",
    markdown: Annotated[
        bool, option("Reports and defaults", "--markdown", help="The table in Markdown on stdout.")
    ] = False,
    as_json: shared.Json = False,
    update_card: Annotated[
        bool,
        option(
            "Reports and defaults",
            "--update-card",
            help="Write the scores, and the tile margin of one 8-bit level, into the model's card.",
        ),
    ] = False,
    no_progress: shared.NoProgress = False,
    quiet: shared.Quiet = False,
    verbose: shared.Verbose = False,
    no_config: NoConfigOption = False,
    config: ConfigOption = None,
) -> None:
    """Measure srx beside what people would use instead.

    Seconds an image (median, 10th and 90th percentile), images a second, memory and quality. PSNR
    and SSIM are of the Y channel; other metrics need the extra `iqa`. A method that fails is a row
    that says why.
    """
    from sr_cli.evaluation.bench import BenchOptions, table

    terminal.talk(quiet=quiet, verbose=verbose, progress=not no_progress)
    chosen = parse_list("--metrics", metrics, str, example="psnr,ssim")
    reports.check_reports(csv=csv, plot=plot)
    if plot and plot_metric not in chosen:
        raise UsageError(f"--plot-metric {plot_metric} is none of --metrics {','.join(chosen)}.")
    _check_use(ctx)
    machine = Machine(device, dtype, threads).resolve()
    if bench_suite.asked(ctx):
        bench_suite.suite(ctx, machine)
        return
    settings = BenchOptions(warmup, repeat, batch)
    rows = engine_rows(ctx, steps, model, row)
    factors = _factors(scale, scales, update_card=update_card)
    sets = image_sets(images, factors, Taken(lr, degradation, seed, half, per_folder, crop))
    if profile:
        bench_reports.profile(sets, rows, machine, as_json=as_json, markdown=markdown)
        return
    compared = methods(rows, peer or [], machine, baselines=baselines)
    card_model = bench_reports.only_model(rows) if update_card else None
    if card_model:
        reports.check_card(card_model)
    check(rows, compared, sets)
    measures = reports.load_metrics(chosen, machine.device, border, download=download)
    found, interrupted = _measured(sets, compared, measures, settings, machine)
    bench_reports.show(found, sets, measures, machine)
    if csv:
        reports.write_csv(table(found, measures, data=True), csv)
    if plot:
        bench_reports.draw(found, plot, plot_metric)
    if markdown:
        typer.echo(bench_reports.tables(found, sets, measures))
    if as_json:
        terminal.document(
            {
                "options": asdict(settings)
                | {"scales": factors, "degradation": degradation, "half": half}
                | {"per_folder": per_folder, "crop": crop},
                "environment": environment(machine),
                "metrics": {"conditions": measures.conditions, "missing": measures.missing},
                "rows": [found_row.record for found_row in found],
            }
        )
    if interrupted:
        raise typer.Exit(ExitCode.INTERRUPTED)
    own = [found_row for found_row in found if found_row.method in rows]
    if all(found_row.failure for found_row in own):
        raise typer.Exit(own[0].exit_code)
    if card_model:
        bench_reports.update_card(found, sets, list(rows), card_model)


def _check_use(ctx: typer.Context) -> None:
    """Raise UsageError where the command line has an option that means nothing beside others."""
    if ctx.params["as_json"] and ctx.params["markdown"]:
        raise UsageError("--json and --markdown both want stdout: choose one.")
    if ctx.params["scales"]:
        refuse(ctx, ("scale",), "is one scale and --scales are several: leave one out.")
    if ctx.params["profile"]:
        reason = "is not for --profile, which splits the time of srx alone: leave it out."
        refuse(ctx, bench_reports.NOT_PROFILED, reason)


def _factors(scale: float, scales: str | None, *, update_card: bool) -> list[float]:
    if scales is None:
        return [scale]
    found = sorted(parse_list("--scales", scales, float, example="2,2.7,4"))
    if update_card and len(found) > 1:
        raise UsageError("--update-card is for one --scale.")
    return found


def _measured(
    sets: Sequence[Pairs],
    compared: Sequence[Peer],
    measures: Metrics,
    settings: BenchOptions,
    machine: ResolvedMachine,
) -> tuple[list[Row], bool]:
    """Every method on every set; what there was, and whether it was interrupted."""
    from sr_cli.evaluation.bench import measure

    found: list[Row] = []
    total = len(compared) * sum(len(pairs) for pairs in sets)
    done = 0
    try:
        with terminal.counting(total) as show:
            for pairs in sets:
                for peer in compared:
                    begun = done

                    where = f"{pairs.title} x{pairs.scale:g}: {peer.name}"

                    def advance(what: str = where) -> None:
                        nonlocal done
                        done += 1
                        show(done, what)

                    found.append(
                        measure(
                            peer, pairs, measures, settings, device=machine.device, on_image=advance
                        )
                    )
                    done = begun + len(pairs)
                    show(done, where)
    except KeyboardInterrupt:
        terminal.line(f"interrupted: {len(found)} of {len(compared) * len(sets)} rows measured.")
        return found, True
    return found, False
