"""`srx bench --suite`: what holds on this machine, how fast it is, and a page that says so."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import typer

from sr_cli.cli import reports
from sr_cli.cli.machine import ResolvedMachine, environment
from sr_cli.cli.parsing import parse_list, refuse
from sr_cli.cli.ui import terminal
from sr_cli.errors import ExitCode, InputError, UsageError

if TYPE_CHECKING:
    from sr_cli.evaluation.suite.found import Part

DEFAULT = "checks,speed,arithmetic"
"""Parts of a suite."""
MINUTES = 7.5
"""After which it begins nothing more, unless --minutes says otherwise."""

OWN = ("parts", "minutes", "quick")
"""Options of --suite."""
OTHERS = (
    *("scale", "scales", "lr", "degradation", "half", "per_folder", "crop", "seed", "steps"),
    *("model", "row", "peer", "baselines", "metrics", "border", "download", "warmup", "repeat"),
    *("batch", "profile", "csv", "plot", "plot_metric", "markdown", "update_card"),
)
"""Options of which a suite has its own."""


def asked(ctx: typer.Context) -> bool:
    """Whether a suite is wanted. Raises UsageError for what does not go with it, or without it."""
    if ctx.params["suite"]:
        refuse(ctx, OTHERS, "is not for --suite, which has its own: leave it out.")
        if ctx.params["images"]:
            raise UsageError("--suite has pictures of its own: leave DATA out.")
        return True
    refuse(ctx, OWN, "is of --suite FILE.md: add that, or leave it out.")
    return False


def suite(ctx: typer.Context, machine: ResolvedMachine) -> None:
    """Measure, and put a piece for each part into the page, and all of it into JSON beside it, as
    soon as it is known: what ends the suite takes nothing of that.

    Raises typer.Exit where a check does not hold.
    """
    from sr_cli.evaluation.suite.document import write_text
    from sr_cli.evaluation.suite.found import failures
    from sr_cli.evaluation.suite.run import PARTS

    page, quick = Path(ctx.params["suite"]), ctx.params["quick"]
    chosen = parse_list("--parts", ctx.params["parts"], str, example=DEFAULT)
    if unknown := [part for part in chosen if part not in PARTS]:
        raise UsageError(f"--parts knows {', '.join(PARTS)}, not {', '.join(unknown)}.")
    reports.check_reports(csv=page, plot=_figure(page) if "scaling" in chosen else None)
    numbers = page.with_suffix(".json")
    known = _read(numbers)
    record = known.get(machine.processor, {}) | {"environment": environment(machine)}

    def keep(part: Part) -> None:
        line = f"srx bench --suite FILE.md --parts {part.title}{' --quick' * quick}"
        _write(part, page, machine, line)
        record[part.title] = part.record
        write_text(numbers, json.dumps(known | {machine.processor: record}, indent=2) + "\n")

    found = _measured(chosen, machine, ctx.params["minutes"], keep, quick=quick)
    for table in (table for part in found for table in part.all_tables):
        terminal.results(table)
    terminal.note(f"{machine.sentence} Written: {page} and {numbers}.")
    if ctx.params["as_json"]:
        terminal.document(record)
    _end(list(failures(found)))


def _measured(
    chosen: Sequence[str],
    machine: ResolvedMachine,
    minutes: float,
    keep: Callable[[Part], None],
    *,
    quick: bool,
) -> list[Part]:
    from sr_cli.evaluation.suite.run import run, tasks
    from sr_cli.evaluation.suite.scope import CPU, GPU, QUICK, Scope

    sizes = QUICK if quick else GPU if machine.device.type == "cuda" else CPU
    begun = 0
    with (
        TemporaryDirectory(prefix="srx-") as scratch,
        terminal.counting(sum(map(tasks, chosen))) as show,
    ):

        def progress(what: str) -> None:
            nonlocal begun
            show(begun, what)
            begun += 1

        own = machine.device, machine.asked_dtype, sizes, Path(scratch)
        scope = Scope(*own, budget=60 * minutes)
        return [run(part, scope, machine.processor, progress, keep) for part in chosen]


def _write(part: Part, page: Path, machine: ResolvedMachine, line: str) -> None:
    """Into the page."""
    from sr_cli.evaluation.suite.document import write_piece

    name, told = part.title, f"`{line}`"
    if not part.everywhere:
        name, told = f"{name}, {machine.processor}", f"{machine.sentence} {told}"
    if part.figure:
        part.figure(_figure(page))
        told += f"\n\n![{part.title}: how time and memory grow]({_figure(page).name})"
    write_piece(page, name, f"### {name[0].upper()}{name[1:]}\n\n{told}\n\n{part.markdown}")


def _figure(page: Path) -> Path:
    """Beside the page."""
    return page.with_suffix(".svg")


def _end(broken: Sequence[Any]) -> None:
    for finding in broken:
        terminal.error(f"{finding.name}: does not hold ({finding.note}).")
    if broken:
        raise typer.Exit(ExitCode.SOME_FAILED)


def _read(file: Path) -> dict[str, Any]:
    """What an earlier suite found, by machine."""
    try:
        content = json.loads(file.read_text("utf-8")) if file.exists() else {}
        if all("environment" in machine for machine in content.values()):
            return dict(content)
    except OSError as error:
        raise InputError(f"{file} cannot be read: {error.strerror}.") from error
    except (ValueError, AttributeError, TypeError):
        pass
    raise UsageError(f"{file} is not of --suite, and would be replaced: name another page.")
