"""The terminal: the one place that imports Rich, and the only one that prints."""

from __future__ import annotations

import json
import logging
import math
import os
import sys
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any, Literal, TextIO

from rich.console import Console
from rich.table import Table
from rich.text import Text

from sr_cli.cli.text import mebibytes, printable, size
from sr_cli.engine.events import Event, Failed, Finished, Job, Outcome, Planned, Skipped
from sr_cli.errors import InputError

if TYPE_CHECKING:
    from sr_cli.cli.progress import PixelsOf
    from sr_cli.evaluation import tables

UNLIMITED = 100_000  # columns where there is no terminal: nothing is cut or wrapped
ROWS = 100
"""Files that have a row each in a closing table; of more, those that need a look."""
COLUMNS = ("file", "size in → out", "seconds", "MP/s", "peak memory", "note")
ROW_STYLES: dict[type, str] = {Failed: "red", Skipped: "dim"}


class Terminal:
    """Messages, progress and tables go to stderr; only documents that were asked for to stdout.

    verbose: None until a command says whether it is. progress: whether bars are wanted where
    somebody watches. deferred: notes for when verbosity is known.
    """

    def __init__(self, *, quiet: bool = False, verbose: bool | None = None) -> None:
        self.quiet = quiet
        self.verbose = verbose
        self.progress = True
        self.deferred: list[str] = []

    def talk(self, *, quiet: bool, verbose: bool, progress: bool = True) -> None:
        """Say as much as the user wants, from now on; and let libraries say less of themselves,
        before they are imported."""
        self.quiet, self.verbose, self.progress = quiet, verbose, progress
        while self.deferred:
            self.note(self.deferred.pop(0))
        if not verbose:
            warnings.simplefilter("ignore")
            logging.basicConfig(level=logging.ERROR)
            os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")
            os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
            compilers = logging.getLogger("torch.utils.cpp_extension")
            compilers.setLevel(logging.ERROR)  # "No CUDA runtime is found"

    @property
    def interactive(self) -> bool:
        """Whether somebody watches."""
        return sys.stderr.isatty()

    @property
    def animated(self) -> bool:
        """Whether bars are shown: somebody watches, and has asked for neither peace nor lines, on a
        terminal that can move its cursor."""
        wanted = self.interactive and self.progress and not self.quiet
        return wanted and not self._console().is_dumb_terminal

    def _console(self, stream: TextIO | None = None) -> Console:
        stream = stream or sys.stderr
        width = None if stream.isatty() else UNLIMITED
        return Console(file=stream, width=width, highlight=False, emoji=False)

    def line(self, message: str, style: str = "") -> None:
        """One line on stderr, whatever the verbosity."""
        self._console().print(Text(message, style), soft_wrap=True)

    def error(self, message: str) -> None:
        """What went wrong, in one line."""
        self.line(f"error: {printable(message)}", "red")

    def note(self, message: str) -> None:
        """What a user may want to know."""
        if not self.quiet:
            self.line(printable(message))

    def detail(self, message: str) -> None:
        """What --verbose adds."""
        if self.verbose:
            for line in message.split("\n"):
                self.line(printable(line), "dim")

    def trace(self, error: Exception) -> None:
        """The traceback of an exception that nobody foresaw, with --verbose."""
        self.detail("".join(traceback.format_exception(error)).rstrip())

    def document(self, content: dict[str, Any]) -> None:
        """A JSON document on stdout. Raises InputError where it has no room."""
        try:
            print(json.dumps(content, indent=2), flush=True)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise InputError(f"stdout cannot be written: {error.strerror}.") from error

    @contextmanager
    def watching(
        self, jobs: Sequence[Job], pixels_of: PixelsOf
    ) -> Iterator[Callable[[Event], None]]:
        """Give a function that shows the events of jobs: bars, or one line for a file."""
        from sr_cli.cli.progress import Bars, Lines, bars

        if self.animated:
            with (
                bars(self._console()) as progress,
                closing(Bars(progress, jobs, pixels_of)) as shown,
            ):
                yield shown
        else:
            yield Lines(self, len(jobs))

    @contextmanager
    def counting(self, total: int | None) -> Iterator[Callable[[int, str], None]]:
        """Give a function that is told how many of `total` are done, and of what: a bar with the
        time left, or a line for each new what and for the end."""
        if self.animated:
            from sr_cli.cli.progress import bars

            with bars(self._console()) as progress:
                task = progress.add_task("", total=total, count="")

                def show(done: int, what: str) -> None:
                    count = f"{done}" if total is None else f"{done}/{total}"
                    progress.update(task, completed=done, count=count, description=what)

                yield show
        else:
            seen: set[str | bool] = {False}

            def tell(done: int, what: str) -> None:
                if not {what, done == total} <= seen:
                    seen.update((what, done == total))
                    self.note(f"[{done}/{total}] {what}")

            yield tell

    def results(self, results: tables.Table) -> None:
        """A table of measurements on stderr, the best values bold; not with --quiet."""
        if self.quiet:
            return
        table = Table()
        for j, column in enumerate(results.columns):
            table.add_column(column.name, justify="right" if results.numeric(j) else "left")
        best = results.best
        for i, row in enumerate(results.text):
            styles = ("bold" if (i, j) in best else "" for j in range(len(row)))
            table.add_row(
                *(Text(printable(cell), style) for cell, style in zip(row, styles, strict=True))
            )
        self._console().print(table)

    def table(
        self, outcomes: Sequence[Outcome], *, place: str = "", on_stdout: bool = False
    ) -> None:
        """The closing table, a row for each file, or of more than ROWS files for those that failed
        or have a note; with --quiet only where it is the result, which is always whole. place:
        where the results are."""
        if self.quiet and not on_stdout:
            return
        console = self._console(sys.stdout if on_stdout else None)
        shown: Sequence[Outcome] = outcomes
        if len(outcomes) > ROWS and not on_stdout:
            failed = [one for one in outcomes if isinstance(one, Failed)]
            noted = [one for one in outcomes if isinstance(one, Finished) and one.notes]
            shown = [*failed[:ROWS], *noted[:ROWS]]
        good = [outcome for outcome in shown if isinstance(outcome, Finished | Planned)]
        bad = [outcome for outcome in shown if isinstance(outcome, Failed | Skipped)]
        for part in (good, bad):
            if part:
                console.print(_table(part))
        if more := len(outcomes) - len(shown):
            self.note(f"{more} more files have no row here; --json tells of each.")
        if outcomes:
            self.note(summary(outcomes) + (f"; {place}" if place else ""))

    def grid(
        self, columns: Sequence[str], rows: Sequence[Sequence[str]], *, widest: int = UNLIMITED
    ) -> None:
        """A table on stdout: what was asked for; long cells are folded.

        widest: columns where there is no terminal, for tables that people read.
        """
        table = Table()
        for column in columns:
            table.add_column(column, overflow="fold")
        for row in rows:
            table.add_row(*(Text(printable(cell)) for cell in row))
        console = self._console(sys.stdout)
        if not sys.stdout.isatty():
            console.width = widest
        console.print(table)


def _table(outcomes: Sequence[Outcome]) -> Table:
    """One row for each outcome; columns that would be empty are left out."""
    rows = [_cells(outcome) for outcome in outcomes]
    used = [i for i in range(len(COLUMNS)) if any(row[i] for row in rows)]
    table = Table()
    for i in used:
        folds = COLUMNS[i] in ("file", "note")
        justify: Literal["left", "right"] = "left" if folds else "right"
        table.add_column(COLUMNS[i], overflow="fold", no_wrap=not folds, justify=justify)
    for outcome, row in zip(outcomes, rows, strict=True):
        cells = (Text(printable(row[i])) for i in used)
        table.add_row(*cells, style=ROW_STYLES.get(type(outcome), ""))
    return table


def _cells(outcome: Outcome) -> tuple[str, ...]:
    """One row of COLUMNS."""
    file = str(outcome.job.input)
    match outcome:
        case Finished():
            return (
                file,
                f"{size(outcome.size_in)} → {size(outcome.size_out)}",
                f"{outcome.seconds:.2f}",
                f"{outcome.megapixels_per_second:.2f}",
                "" if outcome.peak_memory is None else mebibytes(outcome.peak_memory),
                "; ".join(outcome.notes),
            )
        case Planned():
            sizes = f"{size(outcome.size_in)} → {size(outcome.size_out)}"
            return file, sizes, "", "", "", f"→ {outcome.job.output}"
        case Failed():
            return file, "", "", "", "", f"failed: {outcome.reason}"
        case Skipped():
            return file, "", "", "", "", f"skipped: {outcome.reason}"


def summary(outcomes: Sequence[Outcome]) -> str:
    """How many files ended how, and how much is to do; of more than ROWS, why some were skipped and
    what the others cost too."""
    words = {Finished: "done", Planned: "to do", Failed: "failed", Skipped: "skipped"}
    counts = {word: sum(isinstance(o, kind) for o in outcomes) for kind, word in words.items()}
    sentence = ", ".join(f"{count} {word}" for word, count in counts.items() if count)
    if planned := [outcome for outcome in outcomes if isinstance(outcome, Planned)]:
        pixels = sum(math.prod(outcome.size_out) for outcome in planned)
        sentence += f"; {pixels / 1e6:.1f} megapixels of results"
    if len(outcomes) <= ROWS:
        return sentence
    reasons = Counter(outcome.reason for outcome in outcomes if isinstance(outcome, Skipped))
    if reasons:
        shown = ", ".join(f"{count} {reason}" for reason, count in reasons.most_common(3))
        sentence += f" ({shown})"
    done = [outcome for outcome in outcomes if isinstance(outcome, Finished)]
    if done:
        pixels = sum(math.prod(outcome.size_out) for outcome in done)
        seconds = sum(outcome.seconds for outcome in done)
        sentence += f"; {pixels / 1e6:.1f} MP, {seconds / len(done):.2f} s each"
    return sentence


terminal = Terminal()
