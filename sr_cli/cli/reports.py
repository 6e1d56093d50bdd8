"""What the commands that measure share: checks before the work, metrics, tables in files."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sr_cli.cli.ui import terminal
from sr_cli.errors import InputError, UsageError

if TYPE_CHECKING:
    import torch

    from sr_cli.evaluation.datasets import Pairs
    from sr_cli.evaluation.metrics import Metrics
    from sr_cli.evaluation.tables import Table


def check_reports(*, csv: Path | None, plot: Path | None, sheet: Path | None = None) -> None:
    """Raise for what could not be written before hours of measuring, not after."""
    from sr_cli.evaluation.plots import check_plot, check_sheet

    if plot:
        check_plot(plot)
    if sheet:
        check_sheet(sheet)
    for file in filter(None, (csv, plot, sheet)):
        folder = file.absolute().parent
        if not folder.is_dir():
            raise UsageError(f"The folder of {file} does not exist: make it first.")
        if not (file.exists() or os.access(folder, os.W_OK)):
            raise UsageError(f"The folder of {file} is write-protected: choose another.")


def check_card(name: str) -> None:
    """Raise UsageError where --update-card could not write, ModelError where there is no card."""
    from sr_cli.models.registry import card

    folder = card(name).folder
    if not os.access(folder, os.W_OK):
        raise UsageError(f"--update-card writes into {folder}, which is write-protected.")


def load_metrics(
    names: Sequence[str],
    device: torch.device,
    border: int = 0,
    *,
    download: bool = False,
) -> Metrics:
    """The metrics; a note for each whose weights are missing."""
    from sr_cli.evaluation.metrics import load

    metrics = load(names, device, border, download=download)
    for sentence in metrics.missing.values():
        terminal.note(sentence)
    return metrics


def write_csv(table: Table, csv: Path) -> None:
    """Raises InputError when the file cannot be written."""
    try:
        csv.write_text(table.csv(), encoding="utf-8")
    except OSError as error:
        raise InputError(f"The table {csv} cannot be written: {error.strerror}.") from error


def usable(pairs: Pairs) -> Pairs:
    """Without images that no method could be measured on, each of which is named.

    Raises InputError when a file cannot be read, UsageError when none is left.
    """
    large, small = pairs.large_enough()
    for file in small:
        terminal.note(f"{file} is left out: it is too small to be reduced by {pairs.scale:g}.")
    if not large:
        raise UsageError(f"No image of {pairs.title} is large enough to be reduced.")
    return large
