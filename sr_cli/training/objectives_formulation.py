"""One small network, trained for each way from y to x0 (DoSSR's Table 5), from nothing or a prior.

From nothing the network sees the state as what it adds to y, as srx's own does. From the prior of
Diff-SR it sees the state itself beside y, which it first ignores: as far as a formulation's states
are what the prior was trained on, it can denoise them before it has learned anything.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sr_cli.degradation.degrade import Randomness, degrade
from sr_cli.diffusion.formulations import Formulation
from sr_cli.models.network import EmbeddedConfig
from sr_cli.models.registry import card, load_weights
from sr_cli.models.resampling import resize
from sr_cli.training.objectives import PixelObjective
from sr_cli.training.widening import config_of

Begun = Literal["scratch", "prior"]

DEVIATION = 0.12
"""Of x0 − y in [−1, 1]."""
NOISELESS = (2.9, -2.0)
"""What the network is told at the times 0 and T − 1 where a state has no noise: the prior's own
range of log(a·s/σ)."""
TAPS = 8
"""Pixels to each side that the softest blur reaches, four standard deviations."""


class FormulationObjective(PixelObjective):
    """Squared error of the preconditioned target at times drawn uniformly, on clean ×4 pairs."""

    name = "formulation"
    LOG_RATIO = (-7.0, 3.0)

    def __init__(self, formulation: Formulation, begun: Begun) -> None:
        """Raises ModelError where the prior is not installed."""
        config = replace(config_of("prior", "prior"), conditional=True)
        super().__init__(replace(config, s=DEVIATION) if begun == "scratch" else config)
        self.formulation, self.begun = formulation, begun
        if begun == "prior":
            self.model.load_state_dict(_beside_y(self.config))
        columns = (formulation.x0, formulation.y, formulation.noise)
        self._table = torch.from_numpy(np.stack(columns)).float()

    def describe(self) -> Mapping[str, Any]:
        return {"formulation": self.formulation.name, "begun with": self.begun}

    def loss(self, hr: Tensor, rng: Randomness) -> Tensor:
        x0 = 2 * hr - 1
        size = (hr.shape[-2], hr.shape[-1])
        lr = degrade(hr, (size[0] // 4, size[1] // 4), "bicubic", rng)
        y = 2 * resize(lr, size).clamp(0, 1) - 1
        t = torch.from_numpy(rng.numbers.integers(0, self._table.shape[1], len(hr)))
        eps = torch.randn(y.shape, generator=rng.fields, device=y.device)
        guess, unit = self._guess(self.state(x0, y, eps, t), y, t)
        return F.mse_loss(guess / unit, x0 / unit)

    def state(self, x0: Tensor, y: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        """x_t at the times t, (N,) whole numbers; the rest (N, 3, H, W)."""
        own, shift, noise = self._at(t, x0)
        return own * blurred(x0, self._blur(t)) + shift * y + noise * eps

    def regress(self, lr: Tensor, size: tuple[int, int]) -> Tensor:
        y = 2 * resize(lr, size).clamp(0, 1) - 1
        generator = torch.Generator().manual_seed(0)
        return (self.walk(y, lambda: torch.randn(y.shape, generator=generator).to(y)) + 1) / 2

    def walk(self, y: Tensor, draw: Callable[[], Tensor]) -> Tensor:
        """x0 from y, (N, 3, H, W) in [−1, 1]; draw: N(0, I) of that shape, another each time."""
        whole, noise = self.formulation.start
        x = whole * y + noise * draw()
        history: list[Tensor] = []
        for step in self.formulation.steps:
            s, t = (torch.full((len(y),), time) for time in (step.s, step.t))
            history.insert(0, self._guess(x, y, s)[0])
            next_ = step.apply(x, y, history, draw() if step.noise else None)
            if self.formulation.blur[step.s] and step.x:  # ColdDiff's Algorithm 2
                next_ = next_ + blurred(history[0], self._blur(t))
                next_ = next_ - blurred(history[0], self._blur(s))
            x = next_
        return x

    def _guess(self, x: Tensor, y: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """x0 as the network has it, and what its output is multiplied by: (N, 1, 1, 1)."""
        own, shift, noise = self._at(t, x)
        base = y if self.begun == "scratch" else torch.zeros_like(y)
        if not self.formulation.noisy:
            share = (t.to(x) / (self._table.shape[1] - 1)).clamp(min=1e-3)
            told = NOISELESS[0] + (NOISELESS[1] - NOISELESS[0]) * share
            unit = DEVIATION * torch.ones_like(own)
            if self.formulation.name == "flow":  # the network gives a velocity
                unit = unit * share[:, None, None, None]
            output: Tensor = self.model((x - base) / self.config.s, y, told)
            return x + unit * output.float(), unit
        z = (x - (own + shift) * base) / noise
        known = own if self.begun == "scratch" else own + shift
        told, c_in, c_skip, unit = self.config.preconditioning((known / noise).flatten())
        output = self.model(c_in * z, y, told)
        return base + c_skip * z + unit * output.float(), unit

    def _at(self, t: Tensor, like: Tensor) -> tuple[Tensor, ...]:
        return tuple(self._table[:, t].to(like)[..., None, None, None])

    def _blur(self, t: Tensor) -> Tensor:
        return torch.from_numpy(self.formulation.blur)[t].float()


def blurred(image: Tensor, deviations: Tensor) -> Tensor:
    """Each image, (N, C, H, W), under a Gaussian of its standard deviation in pixels, (N,)."""
    if not deviations.any():
        return image
    places = torch.arange(-TAPS, TAPS + 1).float()
    taps = (-0.5 * (places / deviations[:, None].clamp(min=1e-3)).square()).softmax(dim=1)
    count, channels = image.shape[:2]
    taps = taps.to(image).repeat_interleave(channels, 0)[:, None]
    rows = F.pad(image, (TAPS,) * 4, mode="replicate").flatten(0, 1)[None]
    rows = F.conv2d(rows, taps[..., None], groups=count * channels)
    rows = F.conv2d(rows, taps[:, :, None], groups=count * channels)
    return rows.view_as(image)


def _beside_y(config: EmbeddedConfig) -> dict[str, Tensor]:
    """The prior's weights in a network that also reads y, with zeros."""
    state = {name: value.float() for name, value in load_weights(card("prior")).items()}
    head = state["head.weight"]
    state["head.weight"] = torch.cat((head, torch.zeros_like(head)), dim=1)
    assert config.conditional
    return state
