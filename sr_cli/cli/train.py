"""`srx train`: the networks that ship with srx, on any folder of photographs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from sr_cli.cli.ui import terminal
from sr_cli.errors import UsageError

if TYPE_CHECKING:
    from sr_cli.training.objectives import Mix, Objective
    from sr_cli.training.train import Trainer

DEFAULT_MIX = {"compact": "0.25,0.45,0.3", "embedded": "0.7,0.3,0"}


def train(
    network: Annotated[
        Literal["compact", "embedded"], typer.Argument(help="Preprocessor or denoiser.")
    ],
    data: Annotated[Path, typer.Argument(metavar="DATA", help="Folder of HR photographs.")],
    run: Annotated[
        Path | None,
        typer.Option(
            help="Checkpoint and log; a run that is there goes on (default runs/NETWORK)."
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for the weights and their card.")] = Path("out"),
    minutes: Annotated[float | None, typer.Option(help="Wall-clock budget.")] = None,
    iterations: Annotated[int | None, typer.Option(help="Budget in iterations.")] = None,
    batch: Annotated[int, typer.Option(help="Crops an iteration.")] = 8,
    crop: Annotated[int, typer.Option(help="Side of a crop in HR pixels.")] = 128,
    lr: Annotated[float, typer.Option(help="Peak learning rate.")] = 4e-3,
    mix: Annotated[
        str | None,
        typer.Option(metavar="A,B,C", help="Shares of bicubic, mild and Real-ESRGAN degradations."),
    ] = None,
    widths: Annotated[
        str, typer.Option(metavar="A,B,C", help="Channels of the denoiser's levels.")
    ] = "48,64,96",
    blocks: Annotated[
        str, typer.Option(metavar="A,B,C", help="Residual blocks of the denoiser's levels.")
    ] = "2,2,2",
    preprocess: Annotated[
        str, typer.Option(help="Second source of the denoiser's y; none: bicubic alone.")
    ] = "compact",
    init: Annotated[
        str | None, typer.Option(metavar="NAME", help="Begin with the weights of this card.")
    ] = None,
    val: Annotated[
        Path | None, typer.Option(help="Held-out folder: its PSNR is logged at each checkpoint.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Same seed, same crops and noise.")] = 0,
    workers: Annotated[int, typer.Option(help="Processes that decode.")] = 1,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")] = "auto",
    dtype: Annotated[
        Literal["auto", "float32", "bfloat16"], typer.Option(help="Precision of the network.")
    ] = "auto",
    describe: Annotated[
        str, typer.Option(help="What the card says of the photographs and their licences.")
    ] = "",
) -> None:
    """Train a network; stop it at any time, the same command goes on.

    The learning rate falls to 0 along a cosine over --minutes or --iterations.
    """
    from sr_cli.engine.device import resolve_device, resolve_dtype
    from sr_cli.training.export import begin_with, export
    from sr_cli.training.train import Trainer, TrainOptions

    place = resolve_device(device)
    options = TrainOptions(
        data=data,
        run=run or Path("runs") / network,
        minutes=minutes,
        iterations=iterations,
        batch=batch,
        crop=crop,
        lr=lr,
        seed=seed,
        workers=workers,
        device=str(place),
        dtype=resolve_dtype(dtype, place),
        val=val,
    )
    shares = _mix(mix or DEFAULT_MIX[network])
    if network == "compact":
        objective = _compact(shares)
    else:
        objective = _embedded(_whole(widths), _whole(blocks), preprocess, str(place), shares)
    if init:
        begin_with(objective, init)
    _watch(Trainer(objective, options))
    card = export(objective, options, out, {"data": describe or data.name})
    terminal.note(f"wrote {card.path}")


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
        raise UsageError(f"{text!r} must be whole numbers like 48,64,96.") from error


def _watch(trainer: Trainer) -> None:
    """Train under a progress bar; without a terminal, one line a checkpoint."""
    from tqdm import tqdm

    shape = "{l_bar}{bar}| {elapsed}<{remaining}{postfix}"
    hidden = not terminal.interactive or terminal.quiet
    with tqdm(total=100.0, unit="%", bar_format=shape, disable=hidden) as bar:
        for progress in trainer.run():
            bar.update(min(100.0, 100 * progress.done) - bar.n)
            bar.set_postfix_str(f"iteration {progress.iteration}, loss {progress.loss:.4f}")
            if hidden and progress.saved:
                psnr = "" if progress.psnr is None else f", PSNR {progress.psnr:.2f} dB"
                terminal.note(
                    f"{100 * progress.done:.0f} %, iteration {progress.iteration}, "
                    f"loss {progress.loss:.4f}{psnr}"
                )
