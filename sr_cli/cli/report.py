"""`srx report`: what is done in a folder of results, by all shards."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sr_cli.cli import options as shared
from sr_cli.cli.config import ConfigOption, NoConfigOption
from sr_cli.cli.text import size
from sr_cli.cli.ui import ROWS, terminal
from sr_cli.errors import ExitCode

if TYPE_CHECKING:
    from sr_cli.engine.report import Entry, Report

COLUMNS = ("result", "input", "shard", "size in → out", "seconds", "state")


def report(
    folder: Annotated[
        Path,
        typer.Argument(metavar="OUT", show_default=False, help="Folder of results."),
    ],
    as_json: shared.Json = False,
    quiet: shared.Quiet = False,
    verbose: shared.Verbose = False,
    no_config: NoConfigOption = False,
    config: ConfigOption = None,
) -> None:
    """Tell what is done in a folder of results, by all shards together.

    The manifests beside the results are joined; pictures are not read. Exit codes: 0 all done, 1
    something failed, was changed or removed since, or is still to do.
    """
    from sr_cli.engine.report import read

    terminal.talk(quiet=quiet, verbose=verbose)
    found = read(folder)
    if as_json:
        entries = [asdict(entry) for entry in found.entries]
        content = {"folder": str(folder), "complete": found.complete, "left": found.left}
        terminal.document(content | {"silent_shards": found.silent, "results": entries})
    else:
        _show(found)
    if not found.complete:
        raise typer.Exit(ExitCode.SOME_FAILED)


def _show(found: Report) -> None:
    entries = found.entries
    if len(entries) > ROWS:
        entries = [entry for entry in entries if entry.state != "done"][:ROWS]
    if entries:
        terminal.grid(COLUMNS, [_cells(entry) for entry in entries])
    if len(entries) < len(found.entries):
        terminal.note(f"{len(found.entries) - len(entries)} more are in --json.")
    terminal.note(summary(found))


def _cells(entry: Entry) -> tuple[str, ...]:
    sizes = entry.size_in and entry.size_out and f"{size(entry.size_in)} → {size(entry.size_out)}"
    seconds = "" if entry.seconds is None else f"{entry.seconds:.2f}"
    state = f"{entry.state}: {entry.reason}" if entry.reason else entry.state
    return entry.output, entry.input, entry.shard, sizes or "", seconds, state


def summary(found: Report) -> str:
    """How many are in which state, and what the done ones cost."""
    counts = Counter(entry.state for entry in found.entries)
    parts = [f"{count} {state}" for state, count in sorted(counts.items())]
    parts += [f"{found.left} not begun by the last run"] * bool(found.left)
    done = [entry for entry in found.entries if entry.state == "done"]
    pixels = sum(entry.size_out[0] * entry.size_out[1] for entry in done if entry.size_out)
    seconds = sum(entry.seconds or 0 for entry in done)
    sentence = (
        f"{', '.join(parts) or 'nothing done'}; {pixels / 1e6:.1f} megapixels in {seconds:.1f} s."
    )
    if found.silent:
        more = ", ..." if len(found.silent) > 5 else ""
        sentence += f" No word of {len(found.silent)} shards: {', '.join(found.silent[:5])}{more}."
    return sentence
