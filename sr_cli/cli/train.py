"""`srx train`: the networks that ship with srx and DoSSR's, on any folder of photographs."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from sr_cli.cli import options as shared
from sr_cli.cli.ui import terminal
from sr_cli.cli.upscale import talk
from sr_cli.cli.weights import install
from sr_cli.errors import UsageError

if TYPE_CHECKING:
    from sr_cli.models.registry import Card
    from sr_cli.training.objectives import Mix, Objective
    from sr_cli.training.train import Progress

DEFAULT_MIX = {"compact": "0.3,0.5,0.2", "embedded": "0.35,0.65,0"}
PRIOR_DEVIATION = 0.5
"""Standard deviation of photographs in [−1, 1], about."""

app = typer.Typer()

Data = Annotated[Path, typer.Argument(metavar="DATA", help="Folder of HR photographs.")]
Seed = Annotated[int, typer.Option(help="Same seed, same crops and noise.")]
Workers = Annotated[int, typer.Option(help="Processes that decode.")]
Dtype = Annotated[
    Literal["auto", "float32", "bfloat16"], typer.Option(help="Precision of the network.")
]
Describe = Annotated[
    str, typer.Option(help="What the card says of the photographs and their licences.")
]


@app.callback(invoke_without_command=True)
def train(ctx: typer.Context) -> None:
    """Train a network; stop it at any time, the same command goes on."""
    if ctx.invoked_subcommand is None:
        typer.echo(ctx.get_help())


@app.command("compact", help="Train the preprocessor.")
@app.command("embedded", help="Train the denoiser.")
@app.command("prior", help="Train the unconditional denoiser of Diff-SR.")
def from_scratch(
    ctx: typer.Context,
    data: Data,
    run: Annotated[
        Path | None,
        typer.Option(help="Checkpoint and log; a run that is there goes on (default runs/NAME)."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for the weights and their card (default: out in that of --run)."),
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Of the weights (default: the network's).")
    ] = None,
    minutes: Annotated[float | None, typer.Option(help="Wall-clock budget.")] = None,
    iterations: Annotated[int | None, typer.Option(help="Budget in iterations.")] = None,
    batch: Annotated[int, typer.Option(help="Crops an iteration.")] = 8,
    crop: Annotated[int, typer.Option(help="Side of a crop in HR pixels.")] = 128,
    lr: Annotated[
        float, typer.Option(help="Peak learning rate; it falls to 0 along a cosine.")
    ] = 2e-3,
    mix: Annotated[
        str | None,
        typer.Option(metavar="A,B,C", help="Shares of bicubic, mild and Real-ESRGAN degradations."),
    ] = None,
    widths: Annotated[
        str, typer.Option(metavar="A,B,C", help="Channels of a denoiser's levels.")
    ] = "64,96,128",
    blocks: Annotated[
        str, typer.Option(metavar="A,B,C", help="Residual blocks of a denoiser's levels.")
    ] = "2,2,3",
    preprocess: Annotated[
        str, typer.Option(help="Second source of the denoiser's y; none: clean input alone.")
    ] = "compact",
    init: Annotated[
        str | None, typer.Option(metavar="NAME", help="Begin with the weights of this card.")
    ] = None,
    val: Annotated[
        Path | None, typer.Option(help="Held-out folder: its PSNR is logged at each checkpoint.")
    ] = None,
    seed: Seed = 0,
    workers: Workers = 1,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")] = "auto",
    dtype: Dtype = "auto",
    describe: Describe = "",
    quiet: shared.Quiet = False,
    verbose: shared.Verbose = False,
) -> None:
    """Train the network that the command is named after, from random or a card's weights."""
    talk(quiet, verbose)
    from sr_cli.engine.device import resolve_device, resolve_dtype
    from sr_cli.models.importer import check_name
    from sr_cli.training.export import begin_with, export
    from sr_cli.training.train import Trainer, TrainOptions

    network = str(ctx.info_name)
    check_name(name or network)
    place = resolve_device(device)
    options = TrainOptions(
        data=data,
        run=run or Path("runs") / (name or network),
        minutes=minutes,
        iterations=iterations,
        batch=batch,
        crop=crop,
        lr=lr,
        seed=seed,
        workers=workers,
        device=str(place),
        dtype=resolve_dtype(dtype, place, training=True),
        val=val,
    )
    objective: Objective
    if network == "prior":
        objective = _prior(_whole(widths), _whole(blocks))
    elif network == "compact":
        objective = _compact(_mix(mix or DEFAULT_MIX[network]))
    else:
        shares = _mix(mix or DEFAULT_MIX[network])
        objective = _embedded(_whole(widths), _whole(blocks), preprocess, str(place), shares)
    if init:
        begin_with(objective, init)
    trainer = Trainer(objective, options)
    folder = out or options.run / "out"
    if trainer.done >= 1 and (folder / f"{name or network}.json").is_file():
        terminal.note(
            f"The run in {options.run} is complete, and {folder} has its weights: choose a larger "
            "budget to go on, or another --run."
        )
        return
    _watch(trainer.run())
    card = export(objective, options, folder, {"data": describe or data.name}, name)
    terminal.note(f"wrote {card.path}")


@app.command()
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
    run: Annotated[
        Path | None,
        typer.Option(help="Checkpoint and log; a run that is there goes on (default runs/NAME)."),
    ] = None,
    loss: Annotated[
        Literal["x0", "eps"],
        typer.Option(help="Absolute error of x0, as released, or squared error of the output."),
    ] = "x0",
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
    talk(quiet, verbose)
    from sr_cli.engine.device import resolve_dtype
    from sr_cli.models.importer import check_name, require_free
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
        preprocess=preprocess,
        checkpointing=checkpointing,
    )
    tuner = Finetuner(objective, options, processes)
    _watch(tuner.run())
    if processes.is_main_process:
        card = export(tuner, name, describe or data.name)
        terminal.note(f"installed {card.name} in {card.folder}: srx upscale --model {card.name}")


def _base(base: str) -> Card:
    """The card of an installed model; a path is imported first, unless that was done before."""
    from sr_cli.models.importer import ImportOptions
    from sr_cli.models.registry import card, names

    if base in names() or not Path(base).exists():
        return card(base)
    options = ImportOptions(Path(base))
    if options.model not in names():
        install(options)
    return card(options.model)


def _compact(mix: Mix) -> Objective:
    from sr_cli.training.objectives import CompactObjective

    return CompactObjective(mix=mix)


def _embedded(
    widths: tuple[int, ...], blocks: tuple[int, ...], preprocess: str, device: str, mix: Mix
) -> Objective:
    from sr_cli.models.embedded import EmbeddedConfig
    from sr_cli.models.preprocess import load_preprocessor
    from sr_cli.training.objectives import EmbeddedObjective

    source = None if preprocess == "none" else load_preprocessor(preprocess, device)
    return EmbeddedObjective(EmbeddedConfig(widths, blocks), preprocess=source, mix=mix)


def _prior(widths: tuple[int, ...], blocks: tuple[int, ...]) -> Objective:
    from sr_cli.models.embedded import EmbeddedConfig
    from sr_cli.training.objectives import PriorObjective

    return PriorObjective(EmbeddedConfig(widths, blocks, s=PRIOR_DEVIATION, conditional=False))


def _mix(text: str) -> Mix:
    from sr_cli.training.objectives import Mix

    try:
        bicubic, mild, realesrgan = (float(part) for part in text.split(","))
    except ValueError as error:
        raise UsageError(f"--mix {text!r} must be three numbers like 0.7,0.3,0.") from error
    return Mix(bicubic, mild, realesrgan)


def _whole(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise UsageError(f"{text!r} must be whole numbers like 64,96,128.") from error


def _watch(run: Generator[Progress, None, None]) -> None:
    """Train under a progress bar; without a terminal, one line a checkpoint."""
    from tqdm import tqdm

    from sr_cli.errors import enough_memory

    shape = "{l_bar}{bar}| {elapsed}<{remaining}{postfix}"
    hidden = not terminal.interactive or terminal.quiet
    try:
        with (
            enough_memory("training", "choose a smaller --batch or --crop, "),
            closing(run),  # which saves what an interrupt between two iterations leaves
            tqdm(total=100.0, unit="%", bar_format=shape, disable=hidden) as bar,
        ):
            for progress in run:
                percent = min(100.0, 100 * progress.done)
                bar.update(percent - bar.n)
                bar.set_postfix_str(f"iteration {progress.iteration}, loss {progress.loss:.4f}")
                if hidden and progress.saved:
                    psnr = "" if progress.psnr is None else f", PSNR {progress.psnr:.2f} dB"
                    terminal.note(
                        f"{percent:.0f} %, iteration {progress.iteration}, "
                        f"loss {progress.loss:.4f}{psnr}"
                    )
    except KeyboardInterrupt:
        terminal.line("interrupted: the same command goes on.")
        raise typer.Exit(130) from None
