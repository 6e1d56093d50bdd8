"""What each shipped network is trained for: a model and a loss on a batch of HR crops."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sr_cli.degradation.degrade import KINDS, Randomness, degrade
from sr_cli.errors import UsageError
from sr_cli.models.compact import CompactNet
from sr_cli.models.limits import Limits
from sr_cli.models.network import EmbeddedConfig, EmbeddedNet
from sr_cli.models.protocol import Preprocessor
from sr_cli.models.resampling import resize
from sr_cli.training.adversarial import Discriminator
from sr_cli.training.criterion import Criterion
from sr_cli.training.pairs import Pairs
from sr_cli.training.perceptual import LEAST
from sr_cli.training.teacher import Teacher

GROUPS = 4
"""Parts of a batch that draw their own degradation and intermediate sizes."""


@dataclass(frozen=True)
class Mix:
    """Shares of the kinds of degradation; they sum to 1 (UsageError otherwise)."""

    bicubic: float
    mild: float
    realesrgan: float

    def __post_init__(self) -> None:
        shares = (self.bicubic, self.mild, self.realesrgan)
        if min(shares) < 0 or abs(sum(shares) - 1) > 1e-6:
            raise UsageError(f"the mix {shares} must be three shares that sum to 1.")

    def draw(self, rng: Randomness) -> str:
        """One of KINDS."""
        shares = (self.bicubic, self.mild, self.realesrgan)
        return KINDS[int(rng.numbers.choice(len(KINDS), p=shares))]


class Objective(Protocol):
    """A model, its loss, and what its card says.

    least_crop: HR pixels of a side that the loss or a window needs. discriminator: what learns
    beside the model, from gradients that the loss leaves on it.
    """

    name: str
    model: nn.Module
    least_crop: int
    discriminator: Discriminator | None

    @property
    def architecture(self) -> Mapping[str, Any]:
        """The arguments that build the model again."""
        ...

    @property
    def limits(self) -> Limits:
        """What an engine must respect."""
        ...

    def describe(self) -> Mapping[str, Any]:
        """What was minimised, on what."""
        ...

    def loss(self, hr: Tensor, rng: Randomness) -> Tensor:
        """hr: (N, 3, H, W) float32 in [0, 1] → scalar."""
        ...

    def regress(self, lr: Tensor, size: tuple[int, int]) -> Tensor:
        """lr: (1, 3, h, w) in [0, 1] → the best guess at `size`, for validation."""
        ...


class CompactObjective:
    """Real-ESRGAN's compact regression network, ×4: mean absolute error, or a criterion.

    teacher: whose answers are the target, None: the HR is.
    """

    name = "compact"

    def __init__(
        self,
        *,
        features: int = 48,
        convolutions: int = 12,
        mix: Mix,
        criterion: Criterion | None = None,
        teacher: Teacher | None = None,
    ) -> None:
        self.architecture = {"num_feat": features, "num_conv": convolutions, "upscale": 4}
        self.limits = Limits(scale=4, margin=convolutions + 2)
        self.model: nn.Module = CompactNet(**self.architecture)
        self.mix, self.criterion, self.teacher = mix, criterion, teacher
        self.least_crop = LEAST if criterion else 1
        self.discriminator = criterion.discriminator if criterion else None

    def describe(self) -> Mapping[str, Any]:
        loss = self.criterion.describe() if self.criterion else {"loss": "mean absolute error"}
        return {**loss, **taught(self.teacher), "degradations": asdict(self.mix)}

    def loss(self, hr: Tensor, rng: Randomness) -> Tensor:
        parts = [Pairs.of(part, rng, self.teacher, self._degraded) for part in hr.chunk(GROUPS)]
        pairs = Pairs.joined(parts)
        output: Tensor = self.model(pairs.source).float()
        if self.criterion is None:
            return F.l1_loss(output, pairs.target)
        wanted = np.ones(len(hr), np.float32)
        height, width = output.shape[-2:]
        y = 2 * resize(pairs.source, (height, width)) - 1
        aim = 2 * pairs.target - 1
        truth = self.criterion.truth(aim, wanted, rng.numbers, source=y, taught=pairs.taught)
        return self.criterion(2 * output - 1, truth)

    def regress(self, lr: Tensor, size: tuple[int, int]) -> Tensor:
        return resize(self.model(lr), size)

    def _degraded(self, hr: Tensor, rng: Randomness) -> tuple[Tensor, Tensor]:
        """LR, which is what the network is given."""
        size = (hr.shape[-2] // 4, hr.shape[-1] // 4)
        lr = degrade(hr, size, self.mix.draw(rng), rng)
        return lr, lr


def taught(teacher: Teacher | None) -> Mapping[str, str]:
    """What a card says of a teacher."""
    return {"teacher": teacher.describe()} if teacher else {}


class PixelObjective:
    """What the two denoisers of pixels share: a network of `config`, trained at log(a·s/σ) in
    LOG_RATIO."""

    LOG_RATIO: tuple[float, float]
    least_crop = 1
    discriminator: Discriminator | None = None

    def __init__(self, config: EmbeddedConfig) -> None:
        self.config = config
        self.model: nn.Module = EmbeddedNet(config)

    @property
    def architecture(self) -> Mapping[str, Any]:
        return asdict(self.config)

    @property
    def limits(self) -> Limits:
        return Limits(
            last_step="x0",
            log_ratio=self.LOG_RATIO,
            multiple_of=self.config.multiple_of,
            margin=self.config.receptive_field(),
            bytes_per_pixel=self.config.bytes_per_pixel,
        )


class EmbeddedObjective(PixelObjective):
    """The residual denoiser: squared error of the preconditioned target (Karras et al., Eq. 8).

    y is a preprocessor's enlargement of LR degraded by `mix`; of clean LR it is the bicubic one in
    all but a share PREPROCESSED of the parts: who chooses `none` says that the input is clean.
    Without a preprocessor all is clean. Scales are 4 or, in 25 % of the parts, between 1.5 and 6.
    teacher: whose answers are the target, None: the HR is. A share NO_SIGNAL of the noise levels
    says nothing about x0 (a/σ = 0, where every run starts); the rest have log(a·s/σ) uniform in
    LOG_RATIO, about what solvers of 2 to 15 steps visit.
    """

    name = "embedded"
    PREPROCESSED = 0.6
    NO_SIGNAL = 0.3
    LOG_RATIO = (-4.0, 0.5)

    def __init__(
        self,
        config: EmbeddedConfig,
        *,
        preprocess: Preprocessor | None,
        mix: Mix,
        teacher: Teacher | None = None,
    ) -> None:
        super().__init__(config)
        self.preprocess, self.mix, self.teacher = preprocess, mix, teacher

    @property
    def limits(self) -> Limits:
        limits = super().limits
        return replace(limits, preprocess="none") if self.preprocess is None else limits

    def describe(self) -> Mapping[str, Any]:
        return {
            "loss": "squared error of the preconditioned residual",
            "log(a·s/σ)": f"−∞ ({self.NO_SIGNAL:.0%}), else uniform in {self.LOG_RATIO}",
            **self.describe_data(),
        }

    def describe_data(self) -> Mapping[str, Any]:
        """What y and the target are."""
        if self.preprocess is None:
            return {**taught(self.teacher), "y": "clean bicubic"}
        y = f"preprocessed degraded LR; of clean LR in {1 - self.PREPROCESSED:.0%} bicubic"
        return {**taught(self.teacher), "y": y, "degradations": asdict(self.mix)}

    def loss(self, hr: Tensor, rng: Randomness) -> Tensor:
        pairs = self.pairs(hr, rng)
        y = 2 * pairs.source - 1
        residual = 2 * pairs.target - 1 - y
        ratio = ratios(len(hr), rng, self.config.s, self.LOG_RATIO, self.NO_SIGNAL).to(hr)
        eps = torch.randn(y.shape, generator=rng.fields, device=y.device)
        return denoising_loss(self, residual, y, ratio, eps)

    def pairs(self, hr: Tensor, rng: Randomness) -> Pairs:
        """Of a batch (N, 3, H, W) in [0, 1]; the source is y."""
        parts = hr.chunk(GROUPS)
        return Pairs.joined([Pairs.of(part, rng, self.teacher, self._degraded) for part in parts])

    def regress(self, lr: Tensor, size: tuple[int, int]) -> Tensor:
        """One step from the bicubic LR: E[x0 | y]."""
        y = 2 * resize(lr, size) - 1
        eps = torch.randn(y.shape, generator=torch.Generator().manual_seed(0)).to(y)
        log_ratio, c_in, _, c_out = self.config.preconditioning(torch.zeros(1, device=y.device))
        output: Tensor = self.model(c_in * eps, y, log_ratio)
        return (y + c_out * output + 1) / 2

    def _degraded(self, hr: Tensor, rng: Randomness) -> tuple[Tensor, Tensor]:
        """LR, and y of HR's size."""
        size = (hr.shape[-2], hr.shape[-1])
        scale = 4.0 if rng.numbers.random() < 0.75 else rng.numbers.uniform(1.5, 6)
        small = (round(size[0] / scale), round(size[1] / scale))
        kind = self.mix.draw(rng) if self.preprocess else "bicubic"
        lr = degrade(hr, small, kind, rng)
        clean = kind == "bicubic" and rng.numbers.random() >= self.PREPROCESSED
        source = lr if clean or self.preprocess is None else self.preprocess(lr)
        return lr, resize(source, size).clamp(0, 1)


class PriorObjective(PixelObjective):
    """The unconditional denoiser of Diff-SR: the same loss on HR crops alone (y = 0).

    log(a·s/σ) is uniform in LOG_RATIO: on the scaled-linear schedule from t = 0 to t/T ≈ 0.65,
    beyond which no picture is recovered.
    """

    name = "prior"
    LOG_RATIO = (-2.0, 2.9)
    PROBE = 0.25
    """Noise-to-signal ratio σ/a at which validation denoises the bicubic image."""

    def describe(self) -> Mapping[str, Any]:
        return {
            "loss": "squared error of the preconditioned image",
            "log(a·s/σ)": f"uniform in {self.LOG_RATIO}",
        }

    def loss(self, hr: Tensor, rng: Randomness) -> Tensor:
        x0 = 2 * hr - 1
        ratio = ratios(len(hr), rng, self.config.s, self.LOG_RATIO).to(hr)
        eps = torch.randn(x0.shape, generator=rng.fields, device=x0.device)
        return denoising_loss(self, x0, torch.zeros_like(x0), ratio, eps)

    def regress(self, lr: Tensor, size: tuple[int, int]) -> Tensor:
        """Diff-SR in one step from σ/a = PROBE."""
        x0 = 2 * resize(lr, size) - 1
        eps = torch.randn(x0.shape, generator=torch.Generator().manual_seed(0)).to(x0)
        ratio = torch.full((1,), 1 / self.PROBE, device=x0.device)
        log_ratio, c_in, c_skip, c_out = self.config.preconditioning(ratio)
        z = x0 / self.PROBE + eps
        output: Tensor = self.model(c_in * z, x0, log_ratio)
        return (c_skip * z + c_out * output + 1) / 2


def denoising_loss(
    objective: PixelObjective,
    residual: Tensor,
    y: Tensor,
    ratio: Tensor,
    eps: Tensor,
) -> Tensor:
    """Squared error of the preconditioned target (Karras et al. 2022, Eq. 8) at ratio = a/σ, (N,).

    residual = x0 − y, y and the noise eps: (N, 3, H, W).
    """
    z = ratio[:, None, None, None] * residual + eps
    log_ratio, c_in, c_skip, c_out = objective.config.preconditioning(ratio)
    target = (residual - c_skip * z) / c_out
    output: Tensor = objective.model(c_in * z, y, log_ratio)
    return F.mse_loss(output.float(), target)


def ratios(
    count: int, rng: Randomness, s: float, bounds: tuple[float, float], no_signal: float = 0.0
) -> Tensor:
    """a/σ for each image of a batch, (N,) float32, stratified: a share `no_signal` is 0, in the
    rest log(a·s/σ) is uniform in `bounds`."""
    low, high = bounds
    position = (np.arange(count) + rng.numbers.random(count)) / count
    level = low + (high - low) * (position - no_signal) / (1 - no_signal)
    ratio = np.where(position < no_signal, 0.0, np.exp(level) / s)
    return torch.from_numpy(rng.numbers.permutation(ratio).astype(np.float32))
