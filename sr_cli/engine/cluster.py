"""Jobs to events on the machines of a Ray cluster: an actor with the networks for each GPU, or for
each group of CPU cores.

Ray places the actors, restarts them and carries the calls; each reads and writes files itself, on a
disk that all machines share, and has a manifest of its own until the end of the run.
"""

from __future__ import annotations

import importlib
import logging
import os
import signal
import socket
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sr_cli import __version__
from sr_cli.engine.events import Event, Failed, Job, Outcome, Started
from sr_cli.engine.options import AT_ONCE, AUTO
from sr_cli.engine.worker import Facts, Place, Work, Worker
from sr_cli.errors import BrokenDeviceError, DeviceError, SrxError, UsageError

if TYPE_CHECKING:
    from sr_cli.engine.manifest import Manifest

AHEAD = 2
"""Calls that a worker has at a time: one computes while the other reads or writes."""
ATTEMPTS = 3
"""Workers that may die at a picture before it has failed."""
ANSWER_S, ROOM_S = 5.0, 600.0
"""How long a cluster may take to answer, and to find room for the first worker."""


def places(nodes: Sequence[Mapping[str, Any]], work: Work) -> list[Place]:
    """A place for each GPU of a machine that has some, else for each group of its CPU cores.

    nodes: as ray.nodes() gives them. Raises DeviceError where there is none.
    """
    found = []
    for node in nodes:
        if not node["Alive"]:
            continue
        cpus, gpus = (int(node["Resources"].get(kind, 0)) for kind in ("CPU", "GPU"))
        if gpus and work.device in (AUTO, "cuda"):
            each = max(1, min(cpus // gpus, work.threads or cpus))
            found += [Place(node["NodeID"], each, 1)] * gpus
        elif work.device != "cuda" and cpus:
            each = work.threads or cpus
            found += [Place(node["NodeID"], each, 0)] * (cpus // each)
    if not found:
        wanted = "a GPU" if work.device == "cuda" else f"{work.threads or 1} CPU cores"
        raise DeviceError(f"No machine of the Ray cluster has {wanted} for a worker.")
    return found


@dataclass(frozen=True)
class _Call:
    """Pictures that are one call of a worker; `attempt` 2 and on: alone, as a worker died."""

    jobs: tuple[Job, ...]
    attempt: int = 1


@dataclass(eq=False)
class _Hand:
    """A worker from outside: an actor, its label, whether it is loaded, and how often it has died
    before it was."""

    actor: Any
    place: Place
    label: str
    ready: bool = False
    failures: int = 0
    calls: set[_Call] = field(default_factory=set)


def run(
    jobs: Sequence[Job],
    work: Work,
    notify: Callable[[Event], None],
    joined: Callable[[Facts], None],
    *,
    manifest: Manifest,
) -> None:
    """Enlarge all on a Ray cluster that is `connected`.

    notify: gets Started when a worker is given a picture, and one Finished or Failed for each.
    joined: hears of each worker that is ready. What workers write down becomes part of `manifest`.

    Raises:
        DeviceError: no worker could work; what stopped the last one.
        ModelError, FullDiskError, GoneError: as `batch.run`.
    """
    import ray

    from sr_cli.engine.output_folder import tidy

    cluster = _Cluster(ray, work, notify, joined)
    try:
        cluster.run(jobs)
    finally:
        manifest.absorb()
        for job in cluster.unfinished:
            manifest.end(job, "the run ended before it")
        tidy(work.folder, [job.output for job in jobs], alone=True)


class _Cluster:
    """Workers, the calls that they have, and those that wait for one."""

    def __init__(
        self,
        ray: Any,
        work: Work,
        notify: Callable[[Event], None],
        joined: Callable[[Facts], None],
    ) -> None:
        self.ray = ray
        self.work, self.notify, self.joined = work, notify, joined
        self.first: deque[_Call] = deque()
        self.again: deque[_Call] = deque()
        self.hands: list[_Hand] = []
        self.waiting: dict[Any, tuple[_Hand, _Call | None]] = {}
        self.refusal: SrxError | None = None

    def run(self, jobs: Sequence[Job]) -> None:
        """Enlarge all."""
        found = places(self.ray.nodes(), self.work)
        size = self._together(found)
        self.first.extend(_Call(tuple(jobs[i : i + size])) for i in range(0, len(jobs), size))
        try:
            for number, place in enumerate(found, 1):
                self._place(place, f"worker-{number}")
            while self.first or self.again or any(hand.calls for hand in self.hands):
                self._give()
                self._take()
        finally:
            for hand in self.hands:
                self.ray.kill(hand.actor)

    def _together(self, found: Sequence[Place]) -> int:
        """Pictures of one call: as many as fill a batch, if each is one tile."""
        asked = self.work.options.batch
        if isinstance(asked, int):
            return asked
        return AT_ONCE if any(place.gpus for place in found) else 1

    @property
    def unfinished(self) -> list[Job]:
        """What workers were at when the run ended."""
        return [job for hand in self.hands for call in hand.calls for job in call.jobs]

    def _place(self, place: Place, label: str) -> None:
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        made = self.ray.remote(Worker).options(
            num_cpus=place.cpus,
            num_gpus=place.gpus,
            max_restarts=-1,
            max_concurrency=AHEAD,
            scheduling_strategy=NodeAffinitySchedulingStrategy(place.node, soft=True),
        )
        hand = _Hand(made.remote(), place, label)
        self.hands.append(hand)
        self._load(hand)

    def _load(self, hand: _Hand) -> None:
        hand.ready = False
        ref = hand.actor.load.remote(self.work, hand.place, hand.label)
        self.waiting[ref] = hand, None

    def _give(self) -> None:
        """Calls to workers that have room; those that another died at alone, when nothing else is
        left, so that no other picture is under the same suspicion."""
        for _ in range(AHEAD):
            for hand in self.hands:
                alone = any(call.attempt > 1 for call in hand.calls)
                if not hand.ready or alone or len(hand.calls) >= AHEAD:
                    continue
                if self.first:
                    self._call(hand, self.first.popleft())
                elif self.again and not hand.calls:
                    self._call(hand, self.again.popleft())

    def _call(self, hand: _Hand, call: _Call) -> None:
        if call.attempt == 1:
            for job in call.jobs:
                self.notify(Started(job))
        hand.calls.add(call)
        ref = hand.actor.enlarge.remote(call.jobs, again=call.attempt > 1)
        self.waiting[ref] = hand, call

    def _take(self) -> None:
        """Wait for the next answer."""
        if not self.waiting:
            raise self.refusal or DeviceError("No worker of the Ray cluster is left.")
        idle = not any(hand.calls for hand in self.hands)
        found, _ = self.ray.wait(list(self.waiting), timeout=ROOM_S if idle else None)
        if not found:
            raise DeviceError(
                "The Ray cluster has had no room for a worker for 10 minutes: ask it for less "
                "(--threads), or wait for its other jobs."
            )
        hand, call = self.waiting.pop(found[0])
        try:
            answer = self.ray.get(found[0])
        except self.ray.exceptions.RayActorError as error:
            self._died(hand, call, error)
        except self.ray.exceptions.RayTaskError as error:
            if call or not isinstance(error.cause, SrxError):
                raise error.cause from error
            self.refusal = self.refusal or error.cause  # others may have what this machine lacks
        else:
            if call is None:
                hand.ready, hand.failures = True, 0
                self.joined(answer)
            else:
                self._told(hand, call, *answer)

    def _told(
        self, hand: _Hand, call: _Call, outcomes: Sequence[Outcome], ending: SrxError | None
    ) -> None:
        hand.calls.discard(call)
        for outcome in outcomes:
            self.notify(outcome)
        if isinstance(ending, BrokenDeviceError):
            self.ray.kill(hand.actor, no_restart=False)
            self._load(hand)
            told = {outcome.job for outcome in outcomes}
            self._once_more(call, [job for job in call.jobs if job not in told], ending)
        elif ending:
            raise ending

    def _died(self, hand: _Hand, call: _Call | None, error: Exception) -> None:
        hand.failures += call is None
        if not isinstance(error, self.ray.exceptions.ActorUnavailableError):
            if "ModuleNotFoundError" in str(error):
                what = f"A machine of the Ray cluster cannot import srx {__version__}"
                self.refusal = DeviceError(f"{what}: install it on each of them.")
        elif hand.failures >= ATTEMPTS:
            self.refusal = DeviceError(
                f"A worker died {ATTEMPTS} times while it loaded the networks, perhaps for want of "
                "memory: use fewer workers (more --threads)."
            )
        elif hand.ready or call is None:
            self._load(hand)  # answers when Ray has restarted it
        if call:
            hand.calls.discard(call)
            self._once_more(call, call.jobs, None)

    def _once_more(self, call: _Call, jobs: Sequence[Job], error: SrxError | None) -> None:
        for job in jobs:
            if call.attempt < ATTEMPTS:
                self.again.append(_Call((job,), call.attempt + 1))
            else:
                reason = f"{ATTEMPTS} workers died at {job.input}, perhaps for want of memory."
                self.notify(Failed(job, error or DeviceError(reason)))


@contextmanager
def connected(address: str) -> Iterator[str]:
    """A Ray cluster while something works on it, and its address.

    address: host:port; or auto, the cluster that RAY_ADDRESS names or that runs on this machine,
    and where there is none, one that is started here and ends with this.

    Raises:
        UsageError: Ray is not installed, or the address is none.
        DeviceError: there is no answer, or not from a cluster that this program can join.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray
    except ImportError as error:
        raise UsageError("--cluster needs Ray: run pip install 'srx[ray]'.") from error
    if address != AUTO:
        _check_address(address)
    # What it has to say of dead workers would go to stdout, where documents are.
    setattr(importlib.import_module("ray._private.worker"), "_worker_logs_enabled", False)  # noqa: B010
    handler = signal.getsignal(signal.SIGTERM)
    chosen = None if address == AUTO else address
    try:
        context: Any = ray.init(
            chosen, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR
        )
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise DeviceError(f"The Ray cluster {address} cannot be joined: {reason}") from error
    try:
        with suppress(ValueError):  # not in the main thread
            signal.signal(signal.SIGTERM, handler)
        yield str(context.address_info["gcs_address"])
    finally:
        ray.shutdown()


def _check_address(address: str) -> None:
    """Raise soon where Ray would try for minutes."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or "/" in host:
        raise UsageError(
            f"--cluster must be auto or HOST:PORT like 10.0.0.1:6379, not {address!r}."
        )
    try:
        socket.create_connection((host, int(port)), ANSWER_S).close()
    except (OSError, OverflowError) as error:
        raise DeviceError(
            f"Nothing answers at {address}: start Ray there (ray start --head), or let --cluster "
            "auto start it here."
        ) from error
