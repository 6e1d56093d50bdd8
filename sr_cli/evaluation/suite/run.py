"""The whole suite: what it does in which order, and what becomes of a part that fails."""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Final

from sr_cli.evaluation.suite import checks, cluster, speed
from sr_cli.evaluation.suite.found import Finding, Part
from sr_cli.evaluation.suite.scope import QUICK, Scope

Task = Callable[[Scope], Iterator[Finding]]
Progress = Callable[[str], None]
Keep = Callable[[Part], None]

TASKS: Final[Mapping[str, tuple[Task, ...]]] = {
    "checks": (
        *(checks.noise, checks.precision, checks.tiles, checks.faults, checks.blended),
        checks.command,
    ),
    "speed": (speed.noise, speed.small, speed.large, speed.latent, speed.launches),
    "cluster": (cluster.two_nodes,),
}
"""The parts that look at a device."""
PARTS = (*TASKS, "arithmetic", "scaling")


def tasks(name: str) -> int:
    """How many pieces a part has."""
    return {"arithmetic": 1, "scaling": 4}.get(name) or len(TASKS[name])


def run(
    name: str, scope: Scope, processor: str, progress: Progress, keep: Keep = lambda _: None
) -> Part:
    """One of PARTS, on a processor of that name; a piece of it that breaks is a finding.

    progress(what): told before each piece of it. keep(part): told after each of all that is found.
    """
    if name in TASKS:
        return _looked_at(name, scope, progress, keep)
    try:
        part = scaling(scope, processor, progress) if name == "scaling" else arithmetic(progress)
    except Exception as error:
        part = Part(name, [_broken(name, error)])
    keep(part)
    return part


def _looked_at(name: str, scope: Scope, progress: Progress, keep: Keep) -> Part:
    found: list[Finding] = []
    for task in TASKS[name]:
        what = f"{name}: {task.__name__}"
        progress(what)
        if scope.late:
            found.append(Finding(what, note="left out: the time was used up"))
        else:
            try:
                found.extend(task(scope))
            except Exception as error:
                found.append(_broken(what, error))
        keep(Part(name, tuple(found)))
    return Part(name, found)


def _broken(what: str, error: Exception) -> Finding:
    return Finding(what, passed=False, note=f"{type(error).__name__}: {error}")


def scaling(scope: Scope, processor: str, progress: Progress) -> Part:
    """How time and memory grow, in time of its own, and what many pictures cost."""
    from sr_cli.evaluation.suite.cost import part
    from sr_cli.evaluation.suite.scaling import measure

    scope = replace(scope, began=time.monotonic())
    return part(measure(scope, progress, quick=scope.sizes is QUICK), processor)


def arithmetic(progress: Progress) -> Part:
    """What runs ask of a device, and what an H100 allows."""
    progress("counting operations")
    from sr_cli.evaluation.suite.arithmetic import H100, SCALE, SIDE, parts_table, runs, table

    counted, plain = list(runs(kernels=True)), list(runs(kernels=False))
    text = (
        f"A run of pictures of {SIDE}², x{SCALE}, counted where operations have shapes and no "
        "values. Launches: kernels of Triton and operations of torch that compute, each taken for "
        "one although a group norm of torch's is several; recorded: where a call of the network is "
        "replayed as one. GB: what they read and write. Milliseconds on "
        f"an {H100.name}, an image: its launches at {1e6 * H100.launch:.0f} µs (what torch took "
        "for each where it called UNet and ControlNet, whose 1150 took 40 ms), its bytes at "
        f"{H100.bytes / 1e12:g} TB/s, its arithmetic at {H100.flops / 1e12:.0f} TFLOP/s; allowed: "
        "of each part the longer of the last two, so what is left where launches cost nothing."
    )
    tables = (table(counted, H100), parts_table(counted, plain))
    return Part("arithmetic", (), text, tables, everywhere=True)
