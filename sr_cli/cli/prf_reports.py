"""What `srx prf-search` writes: the prior's card, the figure, crops side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sr_cli.cli import reports
from sr_cli.cli.ui import terminal
from sr_cli.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from sr_cli.engine.options import UpscaleOptions
    from sr_cli.evaluation.prf.found import SearchResult
    from sr_cli.evaluation.prf.search import Search
    from sr_cli.evaluation.selection import Half


def check_card(options: UpscaleOptions) -> None:
    """Raise UsageError unless --update-card is possible."""
    from sr_cli.models.registry import names

    if options.method != "diffsr" or options.prior not in names():
        raise UsageError("--update-card is for a prior that has a card.")
    reports.check_card(options.prior)


def update_card(
    options: UpscaleOptions, crop: int, result: SearchResult, path: Path | None, half: Half
) -> None:
    """Write the scores at t* and without noise into the prior's card, and what fits the PRF."""
    from dataclasses import replace

    from sr_cli.evaluation.datasets import examples, pairs
    from sr_cli.models.registry import card, write_card

    found = card(options.prior)
    images = pairs(path or examples(), degradation="bicubic", half=half)
    data = (images if path else images.called("examples")).title
    scales = ",".join(f"{row.scale:g}" for row in result.found)
    made = f"centre crops of {crop}, LR by {options.degradation}"
    scores: dict[str, Any] = {"measured by": f"srx prf-search {data} --scales {scales} ({made})"}
    scores |= {
        f"{data}, {row.scale:g}x, t = {point.t}": {
            name: value and round(value, 4) for name, value in point.scores.items()
        }
        for row in result.found
        for point in (row.at(row.reference), row.star)
    }
    limits = found.limits
    if result.thresholds is None:
        terminal.note("No noise helps at any scale, so the card gets no thresholds.")
    else:
        limits = replace(limits, prf=result.thresholds)
    write_card(replace(found, limits=limits, scores=scores))
    terminal.note(f"what was measured is in the card of {options.prior}")


def draw_curves(searches: dict[str, Search], results: dict[str, SearchResult], path: Path) -> None:
    """Losses, scores and spectra."""
    from sr_cli.evaluation.prf.plots import draw
    from sr_cli.evaluation.prf.report import spectra

    name = next(iter(searches))
    draw(results, spectra(searches[name], results[name]), path)


def draw_sheet(searches: dict[str, Search], results: dict[str, SearchResult], path: Path) -> None:
    """Crops by noise level, of the first schedule."""
    from sr_cli.evaluation.prf.sheets import sheet

    name = next(iter(searches))
    sheet(searches[name], results[name], path)
