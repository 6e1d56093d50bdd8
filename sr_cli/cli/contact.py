"""`srx upscale --contact`: the sheet of a batch, once it is done."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import typer

from sr_cli.cli.ui import terminal
from sr_cli.engine.events import Outcome
from sr_cli.engine.options import OutputOptions
from sr_cli.errors import ExitCode


def check_contact(path: Path | None) -> None:
    """Raise UsageError for a sheet that could not be written after the batch."""
    if path:
        from sr_cli.evaluation.page import check

        check(path)


def write_contact(
    path: Path, outcomes: Sequence[Outcome], files: OutputOptions, output: Path
) -> None:
    """The page of what is done, and a note on what it lacks. Raises as `page.write`."""
    from sr_cli.evaluation import contact, page

    total = len(contact.shown(outcomes))
    done = 0
    try:
        with terminal.counting(total) as show:

            def advance() -> None:
                nonlocal done
                done += 1
                show(done, str(path))

            made, missing = contact.sheet(
                outcomes,
                title=f"srx upscale: {output}",
                max_pixels=files.max_pixels,
                on_picture=advance,
            )
    except KeyboardInterrupt:
        terminal.line("interrupted: the results are there; the same command makes the sheet.")
        raise typer.Exit(ExitCode.INTERRUPTED) from None
    for sentence in missing:
        terminal.note(f"{path}: {sentence}")
    if made is None:
        terminal.note(f"{path} was not written: there is no result to show.")
        return
    size = page.write(made, path)
    terminal.note(f"{path} ({size / 1e6:.1f} MB): open it in a browser.")
