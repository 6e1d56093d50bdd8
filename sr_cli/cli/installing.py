"""How a model is installed under a bar, for `srx weights` and `srx train dossr`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer

from sr_cli.cli.ui import terminal
from sr_cli.errors import ExitCode

if TYPE_CHECKING:
    from sr_cli.models.dossr.importer import ImportOptions
    from sr_cli.models.store import Progress


def install(options: ImportOptions) -> None:
    """Import a model under a bar, and say where it is."""
    from sr_cli.models.dossr.importer import import_model

    with watching() as progress:
        found = import_model(options, progress)
    terminal.note(f"installed {found.name} in {found.folder}: srx upscale --model {found.name}")


@contextmanager
def watching() -> Iterator[Progress]:
    """A bar of bytes on stderr; without a terminal, one line a stage."""
    from tqdm import tqdm

    hidden = not terminal.animated
    stage = ""

    def show(what: str, done: int, total: int | None) -> None:
        nonlocal stage
        if hidden and what != stage:
            terminal.note(what)
        stage = what
        bar.total = total
        bar.set_description_str(what, refresh=False)
        bar.update(done - bar.n)

    try:
        with tqdm(unit="B", unit_scale=True, leave=False, disable=hidden) as bar:
            yield show
    except KeyboardInterrupt:
        terminal.line("interrupted: the same command does the rest.")
        raise typer.Exit(ExitCode.INTERRUPTED) from None
