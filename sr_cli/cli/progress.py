"""How far a run is, on stderr: bars for who watches, and else a line for each file."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Protocol

from rich import progress as rich
from rich.console import Console

from sr_cli.cli.text import complaint, printable, size
from sr_cli.engine.events import Event, Failed, Finished, Job, Started, Stepped

PixelsOf = Callable[[Job], int]
"""How many pixels a job's result will have; 0 where that cannot be known."""


def bars(console: Console) -> rich.Progress:
    """Bars with a count beside them, and the time that has passed and that is left."""
    columns = (
        rich.TextColumn("{task.description}", markup=False),
        rich.BarColumn(),
        rich.TextColumn("{task.fields[count]}", markup=False),
        rich.TimeElapsedColumn(),
        rich.TextColumn("passed,"),
        rich.TimeRemainingColumn(),
        rich.TextColumn("left"),
    )
    return rich.Progress(*columns, console=console, transient=True, speed_estimate_period=600)


class Bars:
    """Events as two progress bars: pixels of all results, which move with the steps, and the steps
    of the latest file.

    What all results will measure is read from the files' headers in a thread of its own; until that
    is known the first bar has no end.
    """

    def __init__(self, progress: rich.Progress, jobs: Sequence[Job], pixels_of: PixelsOf) -> None:
        self.progress, self.jobs = progress, jobs
        self.ended = 0
        self.shares = dict.fromkeys(jobs, 0.0)  # of each file's work that is done
        self.work: dict[Job, int] = {}  # of each file, once that of all is known
        self.total, self.done = 0, 0.0
        self.lock = threading.Lock()
        self.closed = threading.Event()
        self.files = progress.add_task("files", total=None, count=f"0/{len(jobs)}")
        self.steps = progress.add_task("", total=None, count="")
        self.measuring = threading.Thread(target=self._measure, args=(pixels_of,), daemon=True)
        self.measuring.start()

    def close(self) -> None:
        """Measure no more."""
        self.closed.set()
        self.measuring.join()

    def __call__(self, event: Event) -> None:
        match event:
            case Started(job):
                name = printable(job.input.name)
                self.progress.reset(self.steps, total=None, description=name, count="")
            case Stepped(job, done, total):
                self._advance(job, done / total)
                self.progress.update(
                    self.steps, completed=done, total=total, count=f"{done}/{total}"
                )
            case Finished(job) | Failed(job):
                self.ended += 1
                self._advance(job, 1)

    def _measure(self, pixels_of: PixelsOf) -> None:
        work = {}
        for job in self.jobs:
            if self.closed.is_set():
                return
            work[job] = 1 + pixels_of(job)  # one more, so that none is nothing
        with self.lock:
            self.work, self.total = work, sum(work.values())
            self.done = sum(share * work[job] for job, share in self.shares.items())
        self._show()

    def _advance(self, job: Job, share: float) -> None:
        with self.lock:
            self.done += (share - self.shares[job]) * self.work.get(job, 0)
            self.shares[job] = share
        self._show()

    def _show(self) -> None:
        count = f"{self.ended}/{len(self.jobs)}"
        if not self.work:
            self.progress.update(self.files, count=count)
            return
        count += f", {self.done / 1e6:.1f}/{self.total / 1e6:.1f} MP"
        self.progress.update(self.files, completed=self.done, total=self.total, count=count)


class Teller(Protocol):
    """What says lines on stderr."""

    def note(self, message: str) -> None:
        """What a user may want to know."""
        ...

    def error(self, message: str) -> None:
        """What went wrong."""
        ...


class Lines:
    """Events as one line for each file that is done or has failed; total: None if nobody knows."""

    def __init__(self, terminal: Teller, total: int | None) -> None:
        self.terminal = terminal
        self.total = total
        self.ended = 0

    def __call__(self, event: Event) -> None:
        match event:
            case Finished(job):
                notes = "".join(f"; {note}" for note in event.notes)
                self.terminal.note(
                    f"{self._count()} {job.input} → {job.output} "
                    f"{size(event.size_out)} in {event.seconds:.2f} s{notes}"
                )
            case Failed():
                self.terminal.error(f"{self._count()} {complaint(event)}")

    def _count(self) -> str:
        self.ended += 1
        return f"[{self.ended}]" if self.total is None else f"[{self.ended}/{self.total}]"
