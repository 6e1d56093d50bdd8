"""A run of `srx upscale` on a Ray cluster."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from sr_cli.cli.ui import terminal

if TYPE_CHECKING:
    from sr_cli.cli.running import Run
    from sr_cli.engine.events import Job
    from sr_cli.engine.manifest import Manifest
    from sr_cli.engine.worker import Facts


def on_cluster(run: Run, todo: Sequence[Job], manifest: Manifest) -> None:
    """Do what there is to do by workers on the machines of a Ray cluster.

    Raises what `cluster.connected` and `cluster.run` do.
    """
    from sr_cli.engine import cluster
    from sr_cli.engine.worker import Work

    machine = run.machine
    assert machine.cluster is not None
    work = Work(
        *(run.options, run.files, run.folder, machine.device, machine.dtype, machine.threads),
        compiled=machine.compile == "on",
    )

    def joined(facts: Facts) -> None:
        workers.append(asdict(facts))
        run.engine |= {"steps": facts.steps, "texture": facts.texture}
        terminal.detail(f"worker on {facts.machine}, {facts.device} in {facts.dtype}")

    terminal.note(f"Joining the Ray cluster: {machine.cluster}.")
    workers: list[dict[str, object]] = []
    run.engine["workers"] = workers
    with cluster.connected(machine.cluster) as run.engine["ray"], run.watching(todo) as notify:
        cluster.run(todo, work, notify, joined, manifest=manifest)
