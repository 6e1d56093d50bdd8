"""`srx train dossr`: fine-tuning of a large model that is installed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from sr_cli.cli import options as shared
from sr_cli.cli.installing import install
from sr_cli.cli.training import Data, Describe, Dtype, Run, Seed, Workers, watch
from sr_cli.cli.ui import terminal

if TYPE_CHECKING:
    from sr_cli.models.registry import Card


def dossr(
    data: Data,
    base: Annotated[
        str,
        typer.Option(
            metavar="NAME|PATH",
            help="A model of DoSSR that is installed, or SD 2.1-base in diffusers' layout.",
        ),
    ],
    name: Annotated[str, typer.Option(help="Of the model that is made.")] = "dossr-finetuned",
    run: Run = None,
    loss: Annotated[
        Literal["x0", "shifted", "noise"],
        typer.Option(
            help="Absolute error of x0, as released; or squared error of the output, which aims at "
            "(x - alpha x0)/sigma, or at the noise alone: Eq. 8 as printed, which Eq. 29 turns "
            "into x0 with 650,000 times its error at the start."
        ),
    ] = "x0",
    times: Annotated[
        Literal["all", "walk"],
        typer.Option(help="Drawn from 0 to T - 1, as released, or below t1, where a run goes."),
    ] = "all",
    preprocess: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|PATH",
            show_default="the base's own",
            help="What enlarges the LR crops: none (bicubic), compact, realesrgan, a checkpoint.",
        ),
    ] = None,
    iterations: Annotated[int, typer.Option(help="Budget in iterations.")] = 50_000,
    batch: Annotated[int, typer.Option(help="Crops an iteration, over all GPUs.")] = 32,
    micro: Annotated[int, typer.Option(help="Crops that a GPU computes at once.")] = 4,
    crop: Annotated[int, typer.Option(help="Side of a crop in HR pixels.")] = 512,
    lr: Annotated[float, typer.Option(help="Learning rate.")] = 5e-5,
    save_every: Annotated[int, typer.Option(help="Iterations between checkpoints.")] = 1000,
    seed: Seed = 0,
    workers: Workers = 1,
    device: Annotated[
        Literal["auto", "cpu"], typer.Option(help="auto: the GPUs that accelerate gives.")
    ] = "auto",
    dtype: Dtype = "auto",
    checkpointing: Annotated[
        bool,
        typer.Option(
            "--gradient-checkpointing/--no-gradient-checkpointing",
            help="Compute activations twice instead of keeping them.",
        ),
    ] = True,
    describe: Describe = "",
    quiet: shared.Quiet = False,
    verbose: shared.Verbose = False,
) -> None:
    """Fine-tune the ControlNet of DoSSR and install the result as a model.

    On several GPUs: accelerate launch -m sr_cli train dossr DATA --base NAME …
    """
    terminal.talk(quiet=quiet, verbose=verbose)
    from sr_cli.device import resolve_dtype
    from sr_cli.models.registry import check_name, require_free
    from sr_cli.training.finetune import FinetuneOptions, Finetuner, accelerator, export
    from sr_cli.training.objectives_dossr import DossrObjective

    check_name(name)
    require_free(name)
    options = FinetuneOptions(
        data=data,
        run=run or Path("runs") / name,
        iterations=iterations,
        batch=batch,
        micro=micro,
        crop=crop,
        lr=lr,
        seed=seed,
        workers=workers,
        save_every=save_every,
    )
    processes = accelerator(cpu=device == "cpu")
    terminal.quiet = quiet or not processes.is_main_process
    with processes.main_process_first():
        source = _base(base)
    objective = DossrObjective(
        source,
        processes.device,
        resolve_dtype(dtype, processes.device, training=True),
        loss=loss,
        times=times,
        preprocess=preprocess,
        checkpointing=checkpointing,
    )
    tuner = Finetuner(objective, options, processes)
    watch(tuner.run())
    if processes.is_main_process:
        card = export(tuner, name, describe or data.name)
        terminal.note(f"installed {card.name} in {card.folder}: srx upscale --model {card.name}")


def _base(base: str) -> Card:
    """The card of an installed model; a path is imported first, unless that was done before."""
    from sr_cli.models.dossr.importer import ImportOptions
    from sr_cli.models.registry import card, names

    if base in names() or not Path(base).exists():
        return card(base)
    options = ImportOptions(Path(base))
    if options.model not in names():
        install(options)
    return card(options.model)
