"""Two Ray nodes on this machine beside one process that has as many cores."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psutil

from sr_cli.engine.arrays import to_rgb
from sr_cli.engine.images import Picture, save
from sr_cli.evaluation.suite import commands
from sr_cli.evaluation.suite.found import Finding
from sr_cli.evaluation.suite.scope import QUICK, Scope, photo

PICTURES, SIDE = 40, 320
"""How many LR pictures there are, and their sides."""
QUICK_PICTURES, QUICK_SIDE = 8, 24
MOST = 1.1
"""Times what one process takes that two nodes may take, one of their workers killed."""


def two_nodes(scope: Scope) -> Iterator[Finding]:
    """A folder done by two nodes, a worker of which is killed when half of it is done."""
    if find_spec("ray") is None:
        yield Finding("two Ray nodes", note="left out: pip install 'srx[ray]'")
        return
    number, side = (QUICK_PICTURES, QUICK_SIDE) if scope.sizes is QUICK else (PICTURES, SIDE)
    lrs = scope.scratch / "cluster"
    lrs.mkdir()
    for i in range(number):
        save(Picture(to_rgb(photo(side, side, i).float() / 255)), lrs / f"{i}.png")
    cores = max(1, scope.cores // 2)
    words = ("upscale", lrs, "--device", "cpu", "--json")
    begin = time.perf_counter()
    alone = commands.srx(*words, scope.scratch / "alone", "--threads", 2 * cores)
    one = time.perf_counter() - begin
    title = f"{number} pictures of {side}²"
    yield Finding(f"{title}: one process, {2 * cores} threads", one, "s")
    with _nodes(cores) as address:
        begin = time.perf_counter()
        out = scope.scratch / "together"
        process = commands.begin(*words, out, "--cluster", address, "--threads", cores)
        killed = _kill(out, number // 2, process)
        together = commands.end(process)
        two = time.perf_counter() - begin
    yield Finding(f"{title}: two Ray nodes with half of them each, a worker killed", two, "s")
    yield Finding("times what one process takes", two / one, "", MOST)
    yield Finding("more for Ray, its workers' starts and what was lost", two - one, "s")
    done = [len(call.report.get("results", ())) for call in (alone, together)]
    same = all(
        (out / file.name).read_bytes() == file.read_bytes()
        for file in (scope.scratch / "alone").glob("*.png")
    )
    passed = killed and same and together.code == 0 and done == [number, number]
    note = f"{done[1]} of {number}, exit code {together.code}"
    yield Finding("all are there once, with the same bytes", passed=passed, note=note)


@contextmanager
def _nodes(cores: int) -> Iterator[str]:
    """The address of a cluster of two nodes, each a set of processes of its own."""
    from ray.cluster_utils import Cluster

    head = {"num_cpus": cores, "include_dashboard": False}
    cluster: Any = Cluster(initialize_head=True, head_node_args=head)
    try:
        cluster.add_node(num_cpus=cores)
        yield cluster.address
    finally:
        cluster.shutdown()


def _kill(out: Path, half: int, process: Any) -> bool:
    """Kill a worker once so many results are there; whether that happened."""
    while process.poll() is None:
        if len(list(out.glob("*.png"))) >= half:
            children = psutil.Process().children(recursive=True)
            workers = [child for child in children if _is_worker(child)]
            if workers:
                workers[0].kill()
            return bool(workers)
        time.sleep(0.05)
    return False


def _is_worker(process: psutil.Process) -> bool:
    try:
        return " ".join(process.cmdline()).startswith("ray::Worker")
    except psutil.Error:  # it has ended meanwhile
        return False
