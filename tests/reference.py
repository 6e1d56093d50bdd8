"""A solver's loop at its plainest, to which the laws hold the solvers and the tests the engine."""

from collections.abc import Callable, Sequence

from sr_cli.diffusion.solvers import MAX_ORDER, Step, V


def solve(
    steps: Sequence[Step],
    denoise: Callable[[V, Step], V],
    y: V,
    x: V,
    noise: Callable[[int], V],
) -> V:
    """Walk the state `x` along `steps`.

    `denoise(x, step)` predicts x0 from the state at time `step.s`; `noise(i)` is z ~ N(0, I) of
    step i = 1, 2, … (0 is left for the start), asked for only where a step adds noise.
    """
    history: list[V] = []
    for i, step in enumerate(steps, 1):
        history = [denoise(x, step), *history][:MAX_ORDER]
        x = step.apply(x, y, history, noise(i) if step.noise else None)
    return x
