"""What `srx bench` shows and writes of its rows."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from sr_cli.cli.machine import ResolvedMachine, environment
from sr_cli.cli.rows import DEFAULTS
from sr_cli.cli.ui import terminal
from sr_cli.engine.options import UpscaleOptions
from sr_cli.errors import UsageError

if TYPE_CHECKING:
    from sr_cli.evaluation.bench import Row
    from sr_cli.evaluation.datasets import Pairs
    from sr_cli.evaluation.metrics import Metrics
    from sr_cli.evaluation.tables import Table


NOT_PROFILED = (
    *("peer", "baselines", "metrics", "border", "download", "warmup", "repeat", "batch"),
    *("csv", "plot", "plot_metric", "update_card"),
)
"""Options that --profile has no use for."""


def show(
    found: Sequence[Row], sets: Sequence[Pairs], measures: Metrics, machine: ResolvedMachine
) -> None:
    """A table for each set, of several scales one for each metric; what the numbers depend on."""
    for heading, made in _by_set(found, sets, measures):
        terminal.note(heading)
        for each in made:
            terminal.results(each)
    if len({pairs.scale for pairs in sets}) > 1:
        for row in (row for row in found if row.failure):
            terminal.note(f"{row.data} x{row.scale:g}, {row.method}: {row.failure}")
    for sentence in measures.undefined.values():
        terminal.note(sentence)
    terminal.note(f"{measures.conditions}.")
    terminal.note(machine.sentence)


def _by_set(
    found: Sequence[Row], sets: Sequence[Pairs], measures: Metrics
) -> list[tuple[str, list[Table]]]:
    """What each set is, and its tables."""
    from sr_cli.evaluation.bench import table
    from sr_cli.evaluation.scales import by_scale

    several = len({pairs.scale for pairs in sets}) > 1
    titles: dict[str, list[Pairs]] = {}
    for pairs in sets:
        titles.setdefault(pairs.title, []).append(pairs)
    made: list[tuple[str, list[Table]]] = []
    for title, same in titles.items():
        if not (rows := [row for row in found if row.data == title]):
            continue
        if several:
            origins = ", ".join(pairs.made_by for pairs in same)
            made.append((f"{title}: {len(same[0])} images, {origins}", by_scale(rows, measures)))
        else:
            made.append((_title(same[0]), [table(rows, measures)]))
    return made


def _title(pairs: Pairs) -> str:
    return f"{pairs.title}: {len(pairs)} images x{pairs.scale:g}, {pairs.made_by}"


def tables(found: Sequence[Row], sets: Sequence[Pairs], measures: Metrics) -> str:
    """The same tables in Markdown."""
    return "\n\n".join(
        "\n\n".join((f"**{heading}**", *(each.markdown() for each in made)))
        for heading, made in _by_set(found, sets, measures)
    )


def draw(found: Sequence[Row], plot: Path, metric: str) -> None:
    """Latency against a metric, a point for each row that has both."""
    from sr_cli.evaluation.plots import latency_plot

    sets = len({row.data for row in found}) > 1
    scales = len({row.scale for row in found}) > 1

    def label(row: Row) -> str:
        where = [row.data] * sets + [f"x{row.scale:g}"] * scales
        return f"{' '.join(where)}: {row.method}" if where else row.method

    points = [
        (label(row), median, value, row.parameters or 0)
        for row in found
        if (median := row.percentile(50)) and (value := row.scores.get(metric)) is not None
    ]
    latency_plot(points, plot, metric)


def profile(
    sets: Sequence[Pairs],
    rows: Mapping[str, UpscaleOptions],
    machine: ResolvedMachine,
    *,
    as_json: bool,
    markdown: bool,
) -> None:
    """Measure where the time goes, and show it, instead of comparing methods."""
    from sr_cli.evaluation import profiling

    found = []
    for pairs in sets:
        for name, options in rows.items():
            sized = replace(options, scale=pairs.scale)
            one = profiling.profile(
                name, pairs, sized, device=machine.device, dtype=machine.asked_dtype
            )
            terminal.note(f"{_title(pairs)}, {name}")
            terminal.results(one.table)
            terminal.note(one.verdict)
            found.append((pairs, one))
    terminal.note(machine.sentence)
    if markdown:
        texts = [f"**{p.title}, {one.name}**\n\n{one.table.markdown()}" for p, one in found]
        typer.echo("\n\n".join(texts))
    if as_json:
        records = [
            {"data": p.title, "scale": p.scale, "outside": one.outside, **asdict(one)}
            for p, one in found
        ]
        terminal.document({"environment": environment(machine), "profiles": records})


def only_model(rows: Mapping[str, UpscaleOptions]) -> str:
    """The model that all rows have. Raises UsageError where there are several, or a prior."""
    models = {row.model if row.method == "dossr" else row.prior for row in rows.values()}
    if len(models) > 1 or any(row.method != "dossr" for row in rows.values()):
        raise UsageError(f"--update-card is for one --model, not for {', '.join(sorted(models))}.")
    return models.pop()


def update_card(
    found: Sequence[Row], sets: Sequence[Pairs], rows: Sequence[str], model: str
) -> None:
    """Write the scores with the command that gave them, and the margin of one level on the first
    pair, into the model's card."""
    from sr_cli.evaluation.bench import one_level_margin
    from sr_cli.models.registry import card, write_card

    old = card(model)
    scores: dict[str, Any] = {"measured by": _command(sets, rows)} | {
        f"{row.data}, {row.method}": {k: v and round(v, 4) for k, v in row.scores.items()}
        for row in found
        if not row.failure
    }
    margin = one_level_margin(model, sets[0][0].lr, old.limits.margin)
    write_card(replace(old, scores=scores, limits=replace(old.limits, margin_one_level=margin)))


def _command(sets: Sequence[Pairs], rows: Sequence[str]) -> str:
    options = [f"--row {shlex.quote('' if row == DEFAULTS else row)}" for row in rows]
    data = ", ".join(f"{pairs.title} {pairs.made_by}" for pairs in sets)
    return f"srx bench {shlex.join(pairs.name for pairs in sets)} {' '.join(options)} ({data})"
