"""`srx train formulations`: DoSSR's Table 5 on a small network, trained on the spot."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sr_cli.cli import options as shared
from sr_cli.cli import reports
from sr_cli.cli.parsing import parse_list
from sr_cli.cli.training import Data, Dtype, Run, Seed, Workers, watch
from sr_cli.cli.ui import terminal
from sr_cli.errors import ExitCode, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sr_cli.evaluation.datasets import Pairs
    from sr_cli.evaluation.metrics import Metrics
    from sr_cli.training.formulations import Candidate
    from sr_cli.training.train import Trainer, TrainOptions


def formulations(
    data: Data,
    test: Annotated[
        Path, typer.Option(metavar="FOLDER", help="HR images, or pairs, to measure on.")
    ],
    formulation: Annotated[
        str,
        typer.Option(metavar="A,B", help="domain-shift, plain, resshift, colddiff, flow."),
    ] = "domain-shift,plain,resshift,colddiff,flow",
    begun: Annotated[
        str,
        typer.Option(metavar="A,B", help="scratch: random weights; prior: those of Diff-SR's."),
    ] = "scratch,prior",
    steps: Annotated[str, typer.Option(metavar="A,B", help="Network calls of a walk.")] = "1,5",
    run: Run = None,
    minutes: Annotated[float | None, typer.Option(help="Budget of each training.")] = None,
    iterations: Annotated[int | None, typer.Option(help="The same in iterations.")] = None,
    batch: Annotated[int, typer.Option(help="Crops an iteration.")] = 8,
    crop: Annotated[int, typer.Option(help="Side of a crop in HR pixels.")] = 96,
    lr: Annotated[float, typer.Option(help="Peak learning rate.")] = 2e-3,
    seeds: Annotated[int, typer.Option(help="Of the noise, each measured.")] = 3,
    metrics: shared.Metrics = "psnr,ssim,lpips,niqe",
    download: shared.Download = False,
    seed: Seed = 0,
    workers: Workers = 1,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")] = "auto",
    dtype: Dtype = "auto",
    csv: shared.Csv = None,
    as_json: shared.Json = False,
    quiet: shared.Quiet = False,
    verbose: shared.Verbose = False,
) -> None:
    """Train one small network for each way from LR to HR, equally long, and compare them.

    Domain shift (DoSSR), plain DDPM, ResShift, ColdDiff and rectified flow (FlowIE) on clean ×4
    pairs, from random weights and from the prior that ships. Stop it at any time; the same command
    goes on.
    """
    terminal.talk(quiet=quiet, verbose=verbose)
    from sr_cli.device import resolve_device, resolve_dtype
    from sr_cli.evaluation import datasets
    from sr_cli.training.formulations import candidates, table
    from sr_cli.training.train import TrainOptions

    names: Any = parse_list("--formulation", formulation, str, example="domain-shift,flow")
    first: Any = parse_list("--begun", begun, str, example="scratch,prior")
    rows = candidates(names, first, parse_list("--steps", steps, int, example="1,5"))
    if seeds < 1:
        raise UsageError("--seeds must be at least 1.")
    reports.check_reports(csv=csv, plot=None)
    pairs = reports.usable(datasets.pairs(test))
    place = resolve_device(device)
    options = TrainOptions(
        data=data,
        run=run or Path("runs") / "formulations",
        minutes=minutes,
        iterations=iterations,
        batch=batch,
        crop=crop,
        lr=lr,
        seed=seed,
        workers=workers,
        device=str(place),
        dtype=resolve_dtype(dtype, place, training=True),
    )
    chosen = parse_list("--metrics", metrics, str, example="psnr,ssim")
    measures = reports.load_metrics(chosen, place, download=download)
    trained = _trained(rows, options)
    found = _measured(rows, trained, pairs, measures, seeds)
    done = {row: trained[row.begun, row.name].iteration for row in rows}
    result = table(found, done, measures.names)
    terminal.results(result)
    terminal.note(f"{measures.conditions}; ± is the standard deviation of {seeds} seeds.")
    if csv:
        reports.write_csv(result, csv)
    if as_json:
        data_ = {"name": pairs.name, "images": len(pairs), "lr": pairs.made_by, "seeds": seeds}
        terminal.document({"data": data_, "rows": result.records()})


def _trained(rows: Sequence[Candidate], options: TrainOptions) -> dict[tuple[str, str], Trainer]:
    """Each network once; all numbers of steps share it."""
    from sr_cli.training.formulations import trainer

    found: dict[tuple[str, str], Trainer] = {}
    for row in rows:
        if (row.begun, row.name) not in found:
            terminal.note(f"{row.name}, from {row.begun}")
            found[row.begun, row.name] = made = trainer(row, options)
            watch(made.run())
    return found


def _measured(
    rows: Sequence[Candidate],
    trained: dict[tuple[str, str], Trainer],
    pairs: Pairs,
    measures: Metrics,
    seeds: int,
) -> dict[Candidate, list[list[Any]]]:
    from sr_cli.training.formulations import measured

    total = len(rows) * seeds * len(pairs)
    found: dict[Candidate, list[list[Any]]] = {}
    try:
        with terminal.counting(total) as show:
            done = 0
            for row in rows:

                def notify(name: str) -> None:
                    nonlocal done
                    done += 1
                    show(done, name)

                network = trained[row.begun, row.name]
                found[row] = measured(network, row, pairs, measures, seeds=seeds, notify=notify)
    except KeyboardInterrupt:
        terminal.line("interrupted: the trainings are kept; the same command measures again.")
        raise typer.Exit(ExitCode.INTERRUPTED) from None
    return found
