"""The residual denoiser trained to be seen: on its own walk, by a criterion, with a dial."""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sr_cli.degradation.degrade import Randomness
from sr_cli.errors import UsageError
from sr_cli.models.embedded import EmbeddedDenoiser
from sr_cli.models.limits import Limits
from sr_cli.models.network import EmbeddedConfig, EmbeddedNet
from sr_cli.models.protocol import Preprocessor
from sr_cli.training.criterion import BETWEEN, SMOOTH, Criterion, Truth, any_textures
from sr_cli.training.objectives import EmbeddedObjective, Mix
from sr_cli.training.pairs import Pairs
from sr_cli.training.perceptual import LEAST
from sr_cli.training.sharpening import sharpened
from sr_cli.training.teacher import Teacher
from sr_cli.training.walks import Stage


class WalkObjective(EmbeddedObjective):
    """`EmbeddedObjective`'s pairs, judged by a criterion, at two states of each crop.

    The first is where every walk starts, without signal; the second is what the model's own answers
    lead to after some steps (in a share TRUE of the batches what right answers would have led to).
    later: share of the batches that learn the second state alone, and not the first; None: each
    learns both. A network with a dial learns some crops at less texture, and aims at the HR without
    it: see `any_textures`. A teacher's answer and `sharpen`, the amount of an unsharp mask on the
    HR, count as much as texture is wanted. Raises UsageError unless later is 0 to 1, sharpen ≥ 0.
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
        later: float | None = None,
    ) -> None:
        if not sharpen >= 0:
            raise UsageError("--sharpen must not be negative.")
        if later is not None and not 0 <= later <= 1:
            raise UsageError(f"--later must be 0 to 1, not {later}.")
        super().__init__(config, preprocess=preprocess, mix=mix, teacher=teacher)
        self.sharpen, self.later = sharpen, later
        self.criterion = criterion
        self.discriminator = criterion.discriminator
        self.least_crop = LEAST

    @property
    def limits(self) -> Limits:
        """A criterion that wants texture lets a weave pass, which the engine then takes out: it
        recurs from cell to cell of the second level."""
        return replace(super().limits, weave=2 * self.config.unshuffle)

    def describe(self) -> Mapping[str, Any]:
        states = {
            "first": "without signal",
            "second": f"on the own walk ({self.TRUE:.0%}: after right answers), 1 step or more on",
            **Stage.describe(),
        }
        if self.later is not None:
            states["learnt"] = f"the second in {self.later:.0%} of the batches, else the first"
        described = {**self.criterion.describe(), "states": states, **self.describe_data()}
        if self.sharpen:
            described["target"] = (
                f"HR with an unsharp mask of {self.sharpen:g} at edges, as texture is wanted"
            )
        if self.config.dial:
            described["texture"] = (
                f"0 in {SMOOTH:.1%} of the crops (mean absolute error alone), 0 to 1 in "
                f"{BETWEEN:.1%}, else 1"
            )
        return described

    def loss(self, hr: Tensor, rng: Randomness) -> Tensor:
        pairs = self.pairs(hr, rng)
        y, x0 = 2 * pairs.source - 1, 2 * pairs.hr - 1
        truth = self._truth(pairs, y, rng.numbers)
        stage = Stage.draw(rng.numbers)
        true = rng.numbers.random() < self.TRUE
        on_second = self.later is None or rng.numbers.random() < self.later
        on_first = self.later is None or not on_second
        noise = partial(torch.randn, y.shape, generator=rng.fields, device=y.device)

        recover = partial(self.recover, stage, y, truth.texture)
        begun = stage.begin(y, noise())
        losses = []
        if on_first or not true:
            with torch.set_grad_enabled(on_first):
                first = recover(begun, 0)
        if on_first:
            losses.append(self.criterion(first, truth))
        if on_second:
            if true:
                state = stage.true(x0, y, noise())
            else:
                state = stage.arrive(begun, y, first, recover, noise)
            losses.append(self.criterion(recover(state, stage.taken), truth))
        return torch.stack(losses).mean()

    def _truth(self, pairs: Pairs, y: Tensor, numbers: np.random.Generator) -> Truth:
        """What is aimed at: the target as much as texture is wanted, and else the HR."""
        count, hr = len(pairs.hr), 2 * pairs.hr - 1
        wanted = any_textures(count, numbers) if self.config.dial else np.ones(count, np.float32)
        texture = torch.from_numpy(wanted).to(hr)
        aim = torch.lerp(hr, 2 * pairs.target - 1, texture[:, None, None, None])
        if self.sharpen:
            aim = sharpened(aim, self.sharpen * texture * (1 - pairs.taught))
        taught = texture * pairs.taught
        return self.criterion.truth(aim, wanted, numbers, source=y, taught=taught)

    def recover(
        self, stage: Stage, y: Tensor, texture: Tensor, state: Tensor, number: int
    ) -> Tensor:
        """The model's x0 from a state at the step of this number, as a run recovers it."""
        assert isinstance(self.model, EmbeddedNet)
        denoiser = EmbeddedDenoiser(self.model, trained=self.LOG_RATIO)
        return denoiser.recover(state, y, texture=texture, **stage.levels(number))
