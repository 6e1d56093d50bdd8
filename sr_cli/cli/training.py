"""What the commands of `srx train` share."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from sr_cli.cli.ui import terminal
from sr_cli.errors import ExitCode

if TYPE_CHECKING:
    from sr_cli.training.train import Progress

Data = Annotated[Path, typer.Argument(metavar="DATA", help="Folder of HR photographs.")]
Run = Annotated[
    Path | None,
    typer.Option(help="Checkpoint and log; a run that is there goes on (default runs/NAME)."),
]
Seed = Annotated[int, typer.Option(help="Same seed, same first weights, crops and noise.")]
Workers = Annotated[int, typer.Option(help="Processes that decode.")]
Dtype = Annotated[
    Literal["auto", "float32", "bfloat16"], typer.Option(help="Precision of the network.")
]
Describe = Annotated[
    str, typer.Option(help="What the card says of the photographs and their licences.")
]


def watch(run: Generator[Progress, None, None]) -> None:
    """Train under a progress bar; without a terminal, one line a checkpoint."""
    from tqdm import tqdm

    from sr_cli.errors import enough_memory

    shape = "{l_bar}{bar}| {elapsed}<{remaining}{postfix}"
    hidden = not terminal.animated
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
        raise typer.Exit(ExitCode.INTERRUPTED) from None
