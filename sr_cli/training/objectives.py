"""What each shipped network is trained for: a model and a loss on a batch of HR crops."""

from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from spandrel.architectures.Compact import Compact
from torch import Tensor, nn

from sr_cli.evaluation.degradations import KINDS, Randomness, degrade
from sr_cli.models.embedded import EmbeddedConfig, EmbeddedNet
from sr_cli.models.resampling import resize

GROUPS = 4
"""Parts of a batch that draw their own degradation and intermediate sizes."""


class Objective(Protocol):
    """A model and its loss."""

    model: nn.Module

    def loss(self, hr: Tensor, rng: Randomness) -> Tensor:
        """hr: (N, 3, H, W) float32 in [0, 1] → scalar."""
        ...

    def validate(self, lr: Tensor, size: tuple[int, int]) -> Tensor:
        """lr: (1, 3, h, w) in [0, 1] → its regression at `size`, in [0, 1]."""
        ...


def mixed_lr(
    hr: Tensor, mix: tuple[float, float, float], scales: tuple[float, float], rng: Randomness
) -> list[tuple[Tensor, Tensor]]:
    """(HR, LR) parts of a batch; shares of KINDS by `mix`, scale 4 in most parts."""
    parts = []
    for part in hr.chunk(GROUPS):
        kind = KINDS[int(rng.numbers.choice(len(KINDS), p=mix))]
        scale = 4.0 if rng.numbers.random() < 0.7 else rng.numbers.uniform(*scales)
        height, width = (max(1, round(side / scale)) for side in part.shape[-2:])
        parts.append((part, degrade(part, (height, width), kind, rng)))
    return parts


class CompactObjective:
    """Real-ESRGAN's compact regression network, ×4, mean absolute error, no GAN loss."""

    def __init__(
        self, *, features: int = 48, convolutions: int = 12, mix: tuple[float, float, float]
    ) -> None:
        self.architecture = {"num_feat": features, "num_conv": convolutions, "upscale": 4}
        self.model = Compact(**self.architecture, act_type="prelu")
        self.mix = mix

    def loss(self, hr: Tensor, rng: Randomness) -> Tensor:
        parts = mixed_lr(hr, self.mix, (4, 4), rng)
        output: Tensor = self.model(torch.cat([lr for _, lr in parts]))
        return F.l1_loss(output.float(), hr)

    def validate(self, lr: Tensor, size: tuple[int, int]) -> Tensor:
        return resize(self.model(lr), size)


class EmbeddedObjective:
    """The residual denoiser: squared error of the preconditioned target (Karras et al., Eq. 8).

    y comes from the bicubic LR or from the compact network, each sometimes blurred, so that any
    preprocessor serves. A quarter of the noise levels say nothing about x0 (a/σ = 0, where every
    run starts); the rest have log(a·s/σ) uniform over what solvers of 1 to 50 steps visit.
    """

    LOG_RATIO = (-5.0, 1.5)

    def __init__(
        self, config: EmbeddedConfig, *, compact: nn.Module | None, mix: tuple[float, float, float]
    ) -> None:
        self.model = EmbeddedNet(config)
        self.compact = compact
        self.mix = mix

    def loss(self, hr: Tensor, rng: Randomness) -> Tensor:
        parts = mixed_lr(hr, self.mix, (1.5, 6), rng)
        y = 2 * torch.cat([self._source(lr, part, rng) for part, lr in parts]) - 1
        residual = 2 * hr - 1 - y
        ratio = self._ratios(len(hr), rng).to(hr)
        eps = torch.randn(hr.shape, generator=rng.fields, device=hr.device)
        z = ratio[:, None, None, None] * residual + eps
        log_ratio, c_in, c_skip, c_out = self.model.preconditioning(ratio)
        target = (residual - c_skip * z) / c_out
        output: Tensor = self.model(c_in * z, y, log_ratio)
        return F.mse_loss(output.float(), target)

    def validate(self, lr: Tensor, size: tuple[int, int]) -> Tensor:
        """One step from the bicubic LR with no signal in z: E[x0 | y]."""
        y = 2 * resize(lr, size) - 1
        z = torch.randn(y.shape, generator=torch.Generator().manual_seed(0)).to(y)
        residual = self.model.predict_residual(z, y, torch.zeros(1, device=y.device))
        return (y + residual + 1) / 2

    def _source(self, lr: Tensor, hr: Tensor, rng: Randomness) -> Tensor:
        """y in [0, 1] at HR's size."""
        size = (hr.shape[-2], hr.shape[-1])
        if self.compact is not None and rng.numbers.random() < 0.5:
            with torch.no_grad():
                lr = self.compact(lr).float().clamp(0, 1)
        y = resize(lr, size)
        if rng.numbers.random() < 0.1:
            y = resize(resize(y, (size[0] // 2, size[1] // 2), "bilinear"), size)
        return y.clamp(0, 1)

    def _ratios(self, count: int, rng: Randomness) -> Tensor:
        """a/σ for each image, stratified over the batch."""
        low, high = self.LOG_RATIO
        position = (np.arange(count) + rng.numbers.random(count)) / count
        ratio = np.exp(low + (high - low) * (position - 0.25) / 0.75) / self.model.config.s
        ratio = np.where(position < 0.25, 0.0, ratio)
        return torch.from_numpy(rng.numbers.permutation(ratio).astype(np.float32))
