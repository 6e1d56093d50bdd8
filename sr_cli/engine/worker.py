"""What enlarges in a process of a Ray cluster, and what it is told."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sr_cli import __version__, memory
from sr_cli.engine.events import Event, Failed, Finished, Job, Outcome, Started
from sr_cli.engine.options import AUTO, OutputOptions, UpscaleOptions
from sr_cli.errors import DeviceError, InputError, SrxError

if TYPE_CHECKING:
    from sr_cli.engine.upscaler import Upscaler


@dataclass(frozen=True)
class Work:
    """What every worker is told, as pictures that it gets are of one run.

    folder: of the results. device: auto, cpu, cuda or mps. threads: CPU cores of a worker without a
    GPU; None: all of a machine.
    """

    options: UpscaleOptions
    files: OutputOptions
    folder: Path
    device: str = "auto"
    dtype: str = "auto"
    threads: int | None = None
    compiled: bool = False
    version: str = __version__
    place: str = field(default_factory=os.getcwd)
    variables: Mapping[str, str] = field(
        default_factory=lambda: {k: v for k, v in os.environ.items() if k.startswith("SRX_")}
    )


@dataclass(frozen=True)
class Place:
    """Where a worker belongs, and how much of that machine it gets."""

    node: str
    cpus: int
    gpus: int


@dataclass(frozen=True)
class Facts:
    """What a worker turned out to be."""

    machine: str
    device: str
    dtype: str
    steps: int
    texture: float | None


class Worker:
    """What runs in a process of Ray's; `load` comes first, after every restart."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def load(self, work: Work, place: Place, label: str) -> Facts:
        """Get ready to enlarge; label: of this worker's manifest.

        Raises SrxError where that is impossible on this machine.
        """
        import torch

        from sr_cli.engine.manifest import Manifest
        from sr_cli.engine.upscaler import Upscaler

        machine = socket.gethostname()
        if __version__ != work.version:
            raise DeviceError(f"{machine} has srx {__version__}, not {work.version}: install that.")
        try:
            os.chdir(work.place)
            self._manifest = Manifest(work.folder, label)
            self._manifest.watch()
        except OSError as error:
            raise InputError(
                f"{machine} cannot enter {error.filename}: --cluster needs a disk that all "
                "machines share, with the same names."
            ) from error
        os.environ.update(work.variables)
        memory.keep_freed()
        torch.set_num_threads(place.cpus)
        device = "cuda" if place.gpus else ("cpu" if work.device in (AUTO, "cuda") else work.device)
        upscaler = Upscaler(work.options, device=device, dtype=work.dtype)
        if work.compiled:
            upscaler.compile()
        self._work, self._upscaler = work, upscaler
        return Facts(machine, upscaler.device, upscaler.dtype, upscaler.steps, upscaler.texture)

    def enlarge(self, jobs: Sequence[Job], *, again: bool) -> tuple[list[Outcome], SrxError | None]:
        """What became of some pictures, and what ended the work on them before its end.

        again: a worker died at them, which may have done one and not told.
        """
        from sr_cli.engine.batch import run

        told: list[Outcome] = []

        def notify(event: Event) -> None:
            if isinstance(event, Started):
                turn.take()
            elif isinstance(event, Outcome):
                told.append(_portable(event))

        work, turn = self._work, _Turn(self._upscaler, self._lock)
        if again:
            jobs, done = _still_to_do(jobs, work)
            told += done
        try:
            upscale: Any = turn
            files, manifest = work.files, self._manifest
            run(jobs, work.options, upscale, notify, files=files, manifest=manifest)
        except SrxError as error:
            return told, error
        finally:
            turn.give()
        return told, None


class _Turn:
    """An upscaler for one call, while another call uses it too: one of them at a time.

    The turn is taken when a picture is started, so that nobody's seconds count the waiting.
    """

    def __init__(self, upscaler: Upscaler, lock: threading.Lock) -> None:
        self._upscaler, self._lock, self._mine = upscaler, lock, False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._upscaler, name)

    def take(self) -> None:
        """Wait for it, unless it is this call's already."""
        if not self._mine:
            self._lock.acquire()
            self._mine = True

    def give(self) -> None:
        """Let the other call go on."""
        if self._mine:
            self._mine = False
            self._lock.release()

    def together(self, *args: Any, **options: Any) -> Any:
        """As that of the upscaler."""
        self.take()
        try:
            return self._upscaler.together(*args, **options)
        finally:
            self.give()


def _portable(outcome: Outcome) -> Outcome:
    """With an error that any process can read: what libraries raise may not be."""
    if isinstance(outcome, Failed) and not isinstance(outcome.error, SrxError):
        return replace(outcome, error=InputError(f"{outcome.job.input}: {outcome.reason}"))
    return outcome


def _still_to_do(jobs: Sequence[Job], work: Work) -> tuple[list[Job], list[Outcome]]:
    """The jobs that no worker has done, and those that one has, by all manifests as they are."""
    from sr_cli.engine.images import probe
    from sr_cli.engine.jobs import pending
    from sr_cli.engine.manifest import Manifest

    begin = time.perf_counter()
    todo, settled = pending(jobs, work.options, work.files, Manifest(work.folder))
    done: list[Outcome] = []
    for outcome in settled:
        if isinstance(outcome, Failed):
            done.append(outcome)
        else:
            job = outcome.job
            sizes = probe(job.input, max_pixels=work.files.max_pixels), probe(job.output)
            seconds = time.perf_counter() - begin
            done.append(Finished(job, *sizes, seconds, None, ("its worker died after it",)))
    return todo, done
