"""What limits a network, and what it is used with: the typed part of a card."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Self

from sr_cli.diffusion.names import LastStep, Prediction, Schedule
from sr_cli.diffusion.prf import Thresholds

STEPS = 5
"""Network calls of a model whose card does not say how many pay, as in the paper."""


@dataclass(frozen=True)
class Limits:
    """Of one set of weights; what does not concern its kind is left at its default.

    margin: context of a tile in output pixels (of a preprocessor: LR pixels): what makes it exact,
        or what a blended tile shares with each neighbour. margin_one_level: the least that costs at
        most one 8-bit level, as measured; None: unknown.
    multiple_of: sides of the state. bytes_per_pixel: peak memory of a network call for each output
        pixel of a float32 window. tile: side of a blended window in output pixels; None: exact.
    scale: of a preprocessor, or of the one that comes with a model.
    schedule: name of ᾱ. last_step: what the solver returns in the end.
    preprocess: name of the network that makes y. t1, steps, texture: start, network calls and dial
        (0…1), all where the user chooses none.
    weave: output pixels along a side of the cells whose common pattern is taken out of a result; 0:
        none is.
    log_ratio: least and largest log(a·s/σ) that the network is shown. prf: ω, C^S, C^F of a prior.
    predicts: what the output of a large network estimates.
    """

    margin: int
    margin_one_level: int | None = None
    multiple_of: int = 1
    bytes_per_pixel: int = 1
    tile: int | None = None
    scale: int | None = None
    schedule: Schedule = "scaled_linear"
    last_step: LastStep = "step"
    preprocess: str = "compact"
    t1: int = 500
    steps: int = STEPS
    texture: float = 1.0
    weave: int = 0
    log_ratio: tuple[float, float] = (-math.inf, math.inf)
    prf: Thresholds | None = None
    predicts: Prediction = "shifted"

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """From a card. Raises TypeError when a name is unknown or the margin is missing."""
        read = dict(values)
        if "log_ratio" in read:
            least, largest = map(float, read["log_ratio"])
            read["log_ratio"] = (least, largest)
        if read.get("prf") is not None:
            read["prf"] = Thresholds(**read["prf"])
        return cls(**read)

    def to_json(self) -> dict[str, Any]:
        """What differs from the defaults, for a card."""
        found = {
            field.name: getattr(self, field.name)
            for field in fields(self)
            if getattr(self, field.name) != field.default
        }
        if self.prf:
            found["prf"] = asdict(self.prf)
        return found
