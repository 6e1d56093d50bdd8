"""A call of `srx upscale` from its plan on: what is done, what is told, and how it ends."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from sr_cli.cli.clustered import on_cluster
from sr_cli.cli.event_lines import Listener
from sr_cli.cli.json_report import document
from sr_cli.cli.machine import Machine, ResolvedMachine, environment
from sr_cli.cli.parsing import is_chosen
from sr_cli.cli.streams import Aliases
from sr_cli.cli.text import complaint, mebibytes
from sr_cli.cli.ui import terminal
from sr_cli.engine.events import (
    Event,
    Failed,
    Finished,
    Job,
    Outcome,
    Skipped,
    Started,
    Stepped,
)
from sr_cli.engine.options import OutputOptions, UpscaleOptions
from sr_cli.errors import ExitCode, FullDiskError, GoneError, InputError, SrxError

if TYPE_CHECKING:
    from sr_cli.engine.jobs import PictureCheck, Plan
    from sr_cli.engine.manifest import Manifest
    from sr_cli.engine.shards import Shard
    from sr_cli.engine.upscaler import Upscaler

REHEARSED = ("model", "method", "prior", "t1", "texture", "preprocess", "device", "dtype")
FITTING_STEPS = 9
"""Steps that fit every t1, of which 10 is the least."""


def plan_of(
    arguments: Sequence[Path],
    output: Path,
    options: UpscaleOptions,
    files: OutputOptions,
    *,
    recursive: bool,
    shard: Shard | None = None,
    aliases: Aliases | None = None,
) -> Plan:
    """The plan, or this shard's part of it, and its notes on stderr."""
    from sr_cli.engine.jobs import collect_jobs, share

    planned = collect_jobs(arguments, output, options, files, recursive=recursive)
    if shard:
        count = len(planned.jobs)
        planned = share(planned, output, shard)
        terminal.note(f"Shard {shard}: {len(planned.jobs)} of {count} pictures.")
    for note in planned.notes:
        terminal.note(aliases.text(note) if aliases else note)
    return planned


@dataclass
class Run:
    """One call of the command, from its plan on.

    make: loads what enlarges. shard: whose part of it all the plan is. listener: who else is told
    of what happens. aliases: what files are called. outcomes: what became of each picture. engine:
    what it did with. computed_on: the machine that the engine found, once it is loaded.
    """

    ctx: typer.Context
    options: UpscaleOptions
    files: OutputOptions
    machine: Machine
    planned: Plan
    output: Path
    make: Callable[[], Upscaler]
    shard: Shard | None = None
    listener: Listener = field(default_factory=Listener)
    aliases: Aliases = field(default_factory=Aliases)
    outcomes: list[Outcome] = field(default_factory=list)
    engine: dict[str, Any] = field(default_factory=dict)
    computed_on: ResolvedMachine | None = None
    _upscaler: Upscaler | None = None

    @property
    def folder(self) -> Path:
        """Of the results."""
        return self.output.parent if self.planned.single else self.output

    @property
    def place(self) -> str:
        """Where the results are; nothing where there are none."""
        there = any(isinstance(outcome, Finished | Skipped) for outcome in self.outcomes)
        if not there or self.output in self.aliases.names:
            return ""
        return f"{'result' if self.planned.single else 'results in'} {self.output}"

    def settle(self, outcomes: Iterable[Outcome]) -> None:
        """Keep what became of pictures, and tell of it."""
        for outcome in outcomes:
            self.outcomes.append(outcome)
            self._announce(outcome)

    def _announce(self, outcome: Outcome) -> None:
        """Tell of what came without work, and so without a line; a closing table will say it too,
        but --quiet has none, and that of --watch is far away."""
        self.tell(outcome)
        unseen = terminal.quiet or self.ctx.params["watch"]
        if unseen and isinstance(outcome, Failed):
            terminal.error(complaint(self.aliases.event(outcome)))

    def tell(self, event: Event) -> None:
        """Let the listener hear of an event."""
        self.listener(self.aliases.event(event))

    def rehearse(self) -> None:
        """Tell what would be done, and fail as the run would before its first picture."""
        from sr_cli.engine.jobs import preview
        from sr_cli.engine.manifest import Manifest
        from sr_cli.engine.output_folder import check_writable

        label = self.shard.label if self.shard else ""
        todo = self._pending(self.planned.jobs, Manifest(self.folder, label))
        if todo:
            check_writable(self.folder)
        check = _rehearse(self.ctx, self.options, self.machine)
        limit = self.files.max_pixels
        self.settle(preview(todo, self.options, max_pixels=limit, check=check))

    def work(self) -> None:
        """Do what there is to do, while nobody else works in that folder."""
        from sr_cli.engine.jobs import missing
        from sr_cli.engine.output_folder import working

        results, single = [job.output for job in self.planned.jobs], self.planned.single
        with working(self.output, results, single=single, shard=self.shard) as manifest:
            try:
                self.work_on(self.planned.jobs, manifest)
            finally:
                found = list(missing(self.outcomes))
                for told, outcome in zip(self.outcomes, found, strict=True):
                    if outcome is not told:
                        self._announce(outcome)
                self.outcomes[:] = found

    def work_on(self, jobs: Sequence[Job], manifest: Manifest) -> None:
        """Do what there is to do of these jobs."""
        before = len(self.outcomes)
        todo = self._pending(jobs, manifest)
        manifest.settled(self.outcomes[before:])
        if todo or self.shard:
            manifest.start(len(todo))
        if todo:
            self._work(todo, manifest)

    def _pending(self, jobs: Sequence[Job], manifest: Manifest) -> list[Job]:
        from sr_cli.engine.jobs import pending

        todo, settled = pending(jobs, self.options, self.files, manifest)
        self.settle(settled)
        kept = any(isinstance(outcome, Failed) for outcome in settled) or self.files.trust_existing
        if settled and kept and self.planned.single:
            terminal.note(
                f"{self.output} was taken as OUTPUT: to enlarge it too, name a folder after it."
            )
        killed = [str(job.input) for job in todo if manifest.unfinished[str(job.input)]]
        if killed:
            terminal.note(
                f"A run was killed while it worked on {', '.join(killed)}: tried last this time."
            )
        return todo

    def _work(self, todo: Sequence[Job], manifest: Manifest) -> None:
        from sr_cli.engine.jobs import taken

        with self.ending(todo, {job for job in todo if taken(job.output)}):
            if self.machine.cluster:
                on_cluster(self, todo, manifest)
            else:
                self._here(todo, manifest)

    @contextmanager
    def ending(self, todo: Sequence[Job], earlier: AbstractSet[Job]) -> Iterator[None]:
        """Say how far the work on these jobs came where it ends early; earlier: those of them that
        have a result of an earlier run."""
        before = len(self.outcomes)
        try:
            yield
        except (KeyboardInterrupt, FullDiskError, GoneError) as ending:
            ended = self.outcomes[before:]
            if isinstance(ending, KeyboardInterrupt) and len(ended) == len(todo):
                raise  # it came after the last picture
            done = {outcome.job for outcome in ended if isinstance(outcome, Finished)}
            count = f"{len(done)} of {len(todo)} done"
            advice = _advice(earlier - done, overwrite=self.files.overwrite)
            if isinstance(ending, FullDiskError):
                advice = f"make room; then {advice}"
            if isinstance(ending, GoneError):
                count, advice = "what was done is gone with it", "the same command begins again"
            terminal.line(f"{_ended(ending)}: {count}; {advice}.")
            code = getattr(ending, "exit_code", ExitCode.INTERRUPTED)
            raise typer.Exit(code) from None

    @contextmanager
    def watching(self, todo: Sequence[Job]) -> Iterator[Callable[[Event], None]]:
        """Give what is told of events while they happen."""

        def notify(event: Event) -> None:
            if not isinstance(event, Started | Stepped):
                self.outcomes.append(event)
            show(self.aliases.event(event))
            self.tell(event)
            if isinstance(event, Failed) and not isinstance(event.error, SrxError):
                terminal.trace(event.error)

        with terminal.watching(todo, self._pixels) as show:
            yield notify

    def _here(self, todo: Sequence[Job], manifest: Manifest) -> None:
        from sr_cli.device import peak_memory
        from sr_cli.engine.batch import run
        from sr_cli.engine.crew import usual_workers

        try:
            upscaler = self.loaded(todo)
            several = self.machine.jobs or usual_workers()
            with self.watching(todo) as notify:
                self.engine["device_worked"] = run(
                    *(todo, self.options, upscaler, notify),
                    files=self.files,
                    manifest=manifest,
                    workers=several,
                )
        finally:
            there = self.computed_on
            if there and there.device.type != "cuda":  # on which each file has its own
                self.engine["peak_memory_bytes"] = peak_memory(str(there.device))

    def loaded(self, todo: Sequence[Job]) -> Upscaler:
        """What enlarges, loaded at the first call, and compiled where that pays for these jobs."""
        if self._upscaler is None:
            from sr_cli.engine.batch import worth_compiling

            options, compile_ = self.options, self.machine.compile
            self._upscaler = upscaler = self.make()
            self.computed_on = Machine(upscaler.device, upscaler.dtype).resolve()
            self.engine |= {"steps": upscaler.steps, "texture": upscaler.texture}
            if compile_ == "on" or (compile_ == "auto" and worth_compiling(todo, upscaler)):
                upscaler.compile()
            name = options.prior if options.method == "diffsr" else options.model
            texture = "" if upscaler.texture is None else f", texture {upscaler.texture:g}"
            terminal.detail(f"{name} on {upscaler.device} in {upscaler.dtype}{texture}")
        return self._upscaler

    def _pixels(self, job: Job) -> int:
        """Of a result, by its input's header; 0 of one that reading will say the fault of."""
        from sr_cli.engine.images import probe

        with suppress(InputError):
            wide, high = self.options.size.of(*probe(job.input, max_pixels=self.files.max_pixels))
            return wide * high
        return 0

    @contextmanager
    def reporting(self, *, as_json: bool, on_stdout: bool, recursive: bool) -> Iterator[None]:
        """Show at the end, of an interrupted run too, what was done; on_stdout: by a table there,
        which was asked for."""
        self.listener.collected(len(self.planned.jobs) + len(self.planned.failures))
        self.settle(self.planned.failures)
        try:
            yield
        finally:
            position = {job: index for index, job in enumerate(self.planned.jobs)}
            self.outcomes.sort(key=lambda outcome: position.get(outcome.job, len(position)))
            shown = [self.aliases.event(outcome) for outcome in self.outcomes]
            terminal.table(shown, place=self.place, on_stdout=on_stdout)
            made = any(isinstance(outcome, Finished) for outcome in self.outcomes)
            if made and "device_worked" in self.engine:
                worked = self.engine["device_worked"]
                terminal.note(f"the networks' device worked {worked:.0%} of the time")
            if "peak_memory_bytes" in self.engine:
                peak = mebibytes(self.engine["peak_memory_bytes"])
                terminal.note(f"peak memory of the run: {peak}")
            if as_json:
                settings = self.options.recorded | asdict(self.files) | asdict(self.machine)
                settings |= {"recursive": recursive}
                found = environment(self.computed_on) | self.engine
                terminal.document(document(settings, found, shown))


def _ended(ending: BaseException) -> str:
    if isinstance(ending, GoneError):
        return str(ending).rstrip(".")
    return "the disk is full" if isinstance(ending, FullDiskError) else "interrupted"


def _rehearse(ctx: typer.Context, options: UpscaleOptions, machine: Machine) -> PictureCheck | None:
    """Fail as the run would before its first picture; what fails as it would at a picture.

    What srx chooses by itself out of its own weights is there: then torch, which takes seconds, is
    not imported.
    """
    chosen = any(is_chosen(ctx, name) for name in REHEARSED)
    if not (chosen or "SRX_WEIGHTS" in os.environ or (options.steps or 0) > FITTING_STEPS):
        return None
    from sr_cli.engine.readiness import check, picture_check

    for note in check(options, device=machine.device, dtype=machine.dtype):
        terminal.note(note)
    return picture_check(options)


def _advice(stale: Collection[Job], *, overwrite: bool) -> str:
    """How a run that ended early is continued; stale: not done, with an older run's result."""
    if stale:
        return f"{len(stale)} of the others still have the result of an earlier run"
    command = "the same command without --overwrite" if overwrite else "the same command"
    return f"{command} does the rest"


def exit_code(outcomes: Sequence[Outcome]) -> int:
    """0 without failures; their common code if nothing else was done; else 1."""
    failed = [outcome for outcome in outcomes if isinstance(outcome, Failed)]
    codes = {outcome.exit_code for outcome in failed}
    if not codes:
        return ExitCode.DONE
    alone = len(codes) == 1 and len(failed) == len(outcomes)
    return codes.pop() if alone else ExitCode.SOME_FAILED
