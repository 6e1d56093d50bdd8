"""The states at which a network learns: those of its own walk."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from sr_cli.diffusion.path import Path, time_grid
from sr_cli.diffusion.schedules import alpha_bar
from sr_cli.diffusion.solvers import Step, plan, start

SCHEDULE = "scaled_linear"
STARTS = {500: 0.2, 667: 0.1, 800: 0.1, 1000: 0.6}
"""t1, and how often a walk begins there."""
LENGTHS = {2: 0.5, 3: 0.25, 4: 0.1, 5: 0.15}
"""Numbers of steps, and how often a walk has as many."""
ORDERS = (1, 3)

Recover = Callable[[Tensor, int], Tensor]
"""The network's x0 from a state at the step of this number, from 0."""


@dataclass(frozen=True)
class Stage:
    """A walk, and the number of its steps that are taken before the network learns again."""

    path: Path
    steps: tuple[Step, ...]
    taken: int

    @classmethod
    def draw(cls, numbers: np.random.Generator) -> Self:
        """Any start, length, order and, from 1 on, number of steps that are taken."""
        t1, length = _draw(STARTS, numbers), _draw(LENGTHS, numbers)
        taken, order = int(numbers.integers(1, length)), int(numbers.choice(ORDERS))
        steps = plan(_path(t1), time_grid(t1, length), order=order, last_step="x0")
        return cls(_path(t1), steps, taken)

    @staticmethod
    def describe() -> Mapping[str, Any]:
        """For a card."""
        return {"t1, shares": STARTS, "steps, shares": LENGTHS, "orders": ORDERS}

    def levels(self, number: int) -> dict[str, float]:
        """a, m and σ at the beginning of a step, from 0."""
        s, path = self.steps[number].s, self.path
        return {name: float(getattr(path, name)[s]) for name in ("a", "m", "sigma")}

    def begin(self, y: Tensor, z: Tensor) -> Tensor:
        """α·y + σ·z, where the walk starts."""
        alpha, sigma = start(self.path, self.steps[0].s)
        return alpha * y + sigma * z

    @torch.no_grad()
    def arrive(
        self,
        begun: Tensor,
        y: Tensor,
        first: Tensor,
        recover: Recover,
        noise: Callable[[], Tensor],
    ) -> Tensor:
        """The state after `taken` steps from `begun`; `first` is what was recovered there.

        noise: z of each step, in their order.
        """
        state, history = begun, [first.detach()]
        for number in range(self.taken):
            if number:
                history.insert(0, recover(state, number))
            state = self.steps[number].apply(state, y, history, noise())
        return state

    def true(self, x0: Tensor, y: Tensor, z: Tensor) -> Tensor:
        """The state after these steps if every answer had been right: a·x0 + m·y + σ·z."""
        at = self.levels(self.taken)
        return at["a"] * x0 + at["m"] * y + at["sigma"] * z


@cache
def _path(t1: int) -> Path:
    return Path.domain_shift(alpha_bar(SCHEDULE), t1)


def _draw(shares: Mapping[int, float], numbers: np.random.Generator) -> int:
    return int(numbers.choice(list(shares), p=list(shares.values())))
