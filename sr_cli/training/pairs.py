"""What a batch learns from and what it aims at."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import torch
from torch import Tensor

from sr_cli.degradation.degrade import Randomness

if TYPE_CHECKING:
    from sr_cli.training.teacher import Teacher

Degraded = Callable[[Tensor, Randomness], tuple[Tensor, Tensor]]
"""HR crops → LR and what the network is given: LR itself, or y of HR's size; all in [0, 1]."""


@dataclass(frozen=True)
class Pairs:
    """Images (N, 3, H, W) in [0, 1], of HR's size; only `source` may be LR.

    source: what the network is given. hr: the crops. target: hr or, where taught (N,) is 1 and not
    0, a teacher's answer.
    """

    source: Tensor
    hr: Tensor
    target: Tensor
    taught: Tensor

    @classmethod
    def of(cls, hr: Tensor, rng: Randomness, teacher: Teacher | None, degraded: Degraded) -> Self:
        """Of a part of a batch, all of it taught or none of it."""
        if teacher is None:
            return cls._plain(hr, degraded(hr, rng)[1])
        if teacher.teaches(hr):
            source, target = teacher.lesson(hr, degraded)
            source, hr, target = teacher.window(rng.numbers, source, hr, target)
            return cls(source, hr, target, torch.ones(len(hr), device=hr.device))
        (hr,) = teacher.window(rng.numbers, hr)
        return cls._plain(hr, degraded(hr, rng)[1])

    @classmethod
    def joined(cls, parts: Sequence[Self]) -> Self:
        """A batch."""
        names = cls.__dataclass_fields__
        return cls(**{name: torch.cat([getattr(part, name) for part in parts]) for name in names})

    @classmethod
    def _plain(cls, hr: Tensor, source: Tensor) -> Self:
        return cls(source, hr, hr, torch.zeros(len(hr), device=hr.device))
