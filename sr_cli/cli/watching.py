"""`srx upscale --watch`: what is in folders is done, and then what comes into them."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

import typer

from sr_cli.cli.ui import terminal
from sr_cli.engine.events import Job, Outcome, Skipped
from sr_cli.engine.options import OutputOptions, UpscaleOptions
from sr_cli.errors import ExitCode, UsageError
from sr_cli.files import is_folder

if TYPE_CHECKING:
    from sr_cli.cli.running import Run
    from sr_cli.engine.arrivals import Arrivals
    from sr_cli.engine.jobs import Plan
    from sr_cli.engine.manifest import Manifest

WAKES: Final = 500
"""Milliseconds after which files that are not complete yet are looked at again."""


def check_watch(arguments: Sequence[Path], output: Path, *, others: Iterable[str]) -> None:
    """Raise UsageError where --watch cannot be meant; others: options that contradict it."""
    if flags := " and ".join(others):
        raise UsageError(f"--watch goes on, which {flags} cannot: leave one out.")
    for path in (*arguments, output):
        if path == Path("-"):
            raise UsageError("--watch is for folders, not for stdin and stdout (-).")
    for folder in arguments:
        if not is_folder(folder):
            raise UsageError(f"--watch is for folders, and {folder} is none: make it first.")
    if output.suffix and not output.is_dir() and output.suffix[1:].isalpha():
        raise UsageError(f"--watch needs a folder as OUTPUT; to name one {output}, make it first.")


def plan_what_comes(
    folders: Sequence[Path],
    output: Path,
    options: UpscaleOptions,
    files: OutputOptions,
    *,
    recursive: bool,
) -> Plan:
    """Nothing to do yet: what folders hold is done once it is known to be complete.

    Raises UsageError where two pictures that are there would have one result.
    """
    from sr_cli.engine.inputs import NoImageError
    from sr_cli.engine.jobs import Plan, collect_jobs

    with suppress(NoImageError):
        if folders:
            collect_jobs(folders, output, options, files, recursive=recursive)
    return Plan([])


def watch_folders(run: Run, folders: Sequence[Path], *, recursive: bool) -> None:
    """Work until somebody interrupts it, which is its proper end where no picture is left by it.

    Raises:
        UsageError: watchfiles is not installed.
        InputError: a folder is gone, or another run works on the output.
        typer.Exit: a picture was left.
    """
    from sr_cli.engine.arrivals import Arrivals
    from sr_cli.engine.output_folder import working

    arrivals = Arrivals(folders, run.output, run.options, run.files, recursive=recursive)
    with working(run.output, [], single=False) as manifest:
        try:
            for _ in _occasions(arrivals):
                _do(run, arrivals.look(time.monotonic()), manifest)
        except KeyboardInterrupt:
            if set(run.planned.jobs) - {outcome.job for outcome in run.outcomes}:
                raise typer.Exit(ExitCode.INTERRUPTED) from None
        finally:
            run.outcomes[:] = latest(run.outcomes)


def _occasions(arrivals: Arrivals) -> Iterator[None]:
    """Whenever there may be something to do."""
    try:
        import watchfiles
    except ImportError as error:
        raise UsageError("--watch needs watchfiles: run pip install 'srx[watch]'.") from error
    changes = watchfiles.watch(
        *arrivals.folders,
        watch_filter=None,
        rust_timeout=WAKES,
        yield_on_timeout=True,
        recursive=arrivals.recursive,
    )
    begun = False
    for changed in changes:
        if not begun:
            terminal.note(f"watching {', '.join(map(str, arrivals.folders))}: Ctrl-C ends it")
        if changed or not begun or arrivals.waiting:
            yield
        begun = True


def _do(run: Run, plan: Plan, manifest: Manifest) -> None:
    """One round."""
    if not (plan.jobs or plan.failures):
        return
    run.planned = replace(run.planned, jobs=[*run.planned.jobs, *plan.jobs])
    run.listener.collected(len(plan.jobs) + len(plan.failures))
    run.settle(plan.failures)
    manifest.settled(plan.failures)
    run.work_on(plan.jobs, manifest)


def latest(outcomes: Iterable[Outcome]) -> list[Outcome]:
    """Of each job what became of it last; that nothing was left to do says less than what did."""
    found: dict[Job, Outcome] = {}
    for outcome in outcomes:
        if not (isinstance(outcome, Skipped) and outcome.job in found):
            found[outcome.job] = outcome
    return list(found.values())
