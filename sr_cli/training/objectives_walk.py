"""The residual denoiser trained to be seen: on its own walk, by a criterion, with a dial."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sr_cli.degradation.degrade import Randomness
from sr_cli.errors import UsageError
from sr_cli.models.embedded import EmbeddedDenoiser
from sr_cli.models.network import EmbeddedConfig, EmbeddedNet
from sr_cli.models.protocol import Preprocessor
from sr_cli.training.criterion import BETWEEN, SMOOTH, Criterion, any_textures
from sr_cli.training.objectives import EmbeddedObjective, Mix
from sr_cli.training.perceptual import LEAST
from sr_cli.training.sharpening import sharpened
from sr_cli.training.teacher import Teacher
from sr_cli.training.walks import Stage


class WalkObjective(EmbeddedObjective):
    """`EmbeddedObjective`'s pairs, judged by a criterion, at two states of each crop.

    The first is where every walk starts, without signal; the second is what the model's own answers
    lead to after some steps (in a share TRUE of the batches what right answers would have led to).
    A network with a dial learns some crops at less texture: see `any_textures`. sharpen: amount of
    the unsharp mask on what it aims at, as much as texture is wanted. Raises UsageError if < 0.
    """

    TRUE = 0.25

    def __init__(
        self,
        config: EmbeddedConfig,
        *,
        preprocess: Preprocessor | None,
        mix: Mix,
        criterion: Criterion,
        teacher: Teacher | None = None,
        sharpen: float = 0.0,
    ) -> None:
        if not sharpen >= 0:
            raise UsageError("--sharpen must not be negative.")
        super().__init__(config, preprocess=preprocess, mix=mix, teacher=teacher)
        self.sharpen = sharpen
        self.criterion = criterion
        self.discriminator = criterion.discriminator
        self.least_crop = LEAST

    def describe(self) -> Mapping[str, Any]:
        states = {
            "first": "without signal",
            "second": f"on the own walk ({self.TRUE:.0%}: after right answers), 1 step or more on",
            **Stage.describe(),
        }
        described = {**self.criterion.describe(), "states": states, **self.describe_data()}
        if self.sharpen:
            described["target"] = f"unsharp mask of {self.sharpen:g} at edges, as texture is wanted"
        if self.config.dial:
            described["texture"] = (
                f"0 in {SMOOTH:.1%} of the crops (mean absolute error alone), 0 to 1 in "
                f"{BETWEEN:.1%}, else 1"
            )
        return described

    def loss(self, hr: Tensor, rng: Randomness) -> Tensor:
        y, x0 = self.pairs(hr, rng)
        wanted = np.ones(len(hr), np.float32)
        if self.config.dial:
            wanted = any_textures(len(hr), rng.numbers)
        target = x0
        if self.sharpen:
            target = sharpened(x0, self.sharpen * torch.from_numpy(wanted).to(x0))
        truth = self.criterion.truth(target, wanted, rng.numbers)
        stage = Stage.draw(rng.numbers)
        true = rng.numbers.random() < self.TRUE
        noise = partial(torch.randn, y.shape, generator=rng.fields, device=y.device)

        recover = partial(self.recover, stage, y, truth.texture)
        begun = stage.begin(y, noise())
        first = recover(begun, 0)
        if true:
            state = stage.true(x0, y, noise())
        else:
            state = stage.arrive(begun, y, first, recover, noise)
        later = recover(state, stage.taken)
        return (self.criterion(first, truth) + self.criterion(later, truth)) / 2

    def recover(
        self, stage: Stage, y: Tensor, texture: Tensor, state: Tensor, number: int
    ) -> Tensor:
        """The model's x0 from a state at the step of this number, as a run recovers it."""
        assert isinstance(self.model, EmbeddedNet)
        denoiser = EmbeddedDenoiser(self.model, trained=self.LOG_RATIO)
        return denoiser.recover(state, y, texture=texture, **stage.levels(number))
