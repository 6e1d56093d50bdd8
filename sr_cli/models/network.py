"""The embedded residual network: pixel space through pixel-unshuffle, finite receptive field.

No normalisation across space and no attention: a tile with the margin `receptive_field()` gives
the same pixels as the whole image.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self, TypeVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sr_cli.errors import UsageError
from sr_cli.models import fused
from sr_cli.models.strips import by_strips
from sr_cli.models.winograd import Convolution

LOG_RATIO = (-7.0, 3.0)
"""Range of log(a·s/σ) that the network tells apart; outside it saturates."""


Number = TypeVar("Number", float, Tensor)


def _factors(signal: Number, s: float) -> tuple[Number, Number, Number]:
    """c_in, c_skip and c_out of `EmbeddedConfig.preconditioning`; signal: a·s/σ."""
    total = signal * signal + 1
    c_in = total**-0.5
    return c_in, signal * s / total, s * c_in


@dataclass(frozen=True)
class EmbeddedConfig:
    """Shape of the network.

    widths: channels at each level; level k works at `unshuffle · 2^k` pixels a cell.
    blocks: residual blocks at each level, in the encoder and again in the decoder (once at the
        last level).
    embed: width of the noise-level embedding. s: standard deviation of x0 − y for [−1, 1] images.
    conditional: whether the network sees y; one that does not has y = 0, so s is that of x0.
    cap: the largest root mean square over the channels of a cell that a layer is shown, beyond
        which the cell is scaled down: photographs stay below it, and nothing can run away. 0: none.
    detail: channels at full resolution beside the picture's three, which one more convolution
        reads, so that neighbouring cells agree along their edges. 0: none.
    refine: residual blocks at full resolution before it; they need detail.
    dial: whether the network is told how much texture is wanted (0 to 1, beside the noise level).
    Raises UsageError.
    """

    widths: tuple[int, ...] = (64, 96, 128)
    blocks: tuple[int, ...] = (2, 2, 3)
    unshuffle: int = 4
    embed: int = 128
    s: float = 0.12
    conditional: bool = True
    cap: float = 0.0
    detail: int = 0
    refine: int = 0
    dial: bool = False

    def __post_init__(self) -> None:
        widths, blocks = self.widths, self.blocks
        if len(widths) != len(blocks) or not widths or min(*widths, *blocks) < 1:
            shape = " and --blocks ".join(",".join(map(str, v)) for v in (widths, blocks))
            raise UsageError(
                f"--widths {shape}: there must be as many of both, all whole numbers above 0."
            )

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """From a card's architecture. Raises TypeError when a value is unknown."""
        fields: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in values.items()
        }
        return cls(**fields)

    @property
    def multiple_of(self) -> int:
        """Image sides must be multiples of this many pixels."""
        return self.unshuffle << (len(self.widths) - 1)

    @property
    def bytes_per_pixel(self) -> int:
        """Peak memory of a float32 forward pass for each pixel, as measured on a GPU, rounded up; a
        CPU, which works on strips at full resolution, needs a quarter less."""
        return 4 * (self.widths[0] + (3 + self.detail if self.detail else 0))

    def preconditioning(self, ratio: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """For ratio = a/σ ≥ 0, (N,): log(a·s/σ), (N,), and c_in, c_skip, c_out, (N, 1, 1, 1).

        They are for z/σ = ratio·(x0 − y) + ε: x0 − y = c_skip·z/σ + c_out·F(c_in·z/σ, y, log)
        (Karras et al. 2022, Table 1).
        """
        signal = ratio * self.s
        return signal.log(), *_factors(signal[:, None, None, None], self.s)

    def preconditioning_of(self, ratio: float) -> tuple[float, float, float, float]:
        """The same of one ratio for all, without a device."""
        signal = ratio * self.s
        return math.log(signal) if signal else -math.inf, *_factors(signal, self.s)

    def receptive_field(self) -> int:
        """Pixels beyond a cell-aligned tile that can influence it: the margin of exact tiling."""
        reach = 1 + 2 * self.refine if self.detail else 0

        def convolve(level: int, convolutions: int) -> None:
            nonlocal reach
            cell = self.unshuffle * 2**level
            reach = -(-reach // cell) * cell + convolutions * cell

        last = len(self.widths) - 1
        convolve(0, 1)
        for level in range(last):
            convolve(level, 2 * self.blocks[level])
        convolve(last, 2 * self.blocks[last])
        for level in reversed(range(last)):
            convolve(level, 2 * self.blocks[level])
        convolve(0, 1)
        return reach


def capped(x: Tensor, cap: float, out: Tensor | None = None) -> Tensor:
    """x, (N, C, H, W), with every cell whose root mean square over C is above cap > 0 scaled to it;
    in `out`, if there is one.

    Each cell is looked at alone, so that tiles stay exact.
    """
    if not cap:
        return x if out is None else out.copy_(x)
    if fused.serves(x):
        found = fused.capped(x, cap)
        return found if out is None else out.copy_(found)
    wide = torch.float32 if x.dtype == torch.float16 else None  # whose largest is soon reached
    norm: Tensor = torch.linalg.vector_norm(x, dim=1, keepdim=True, dtype=wide)
    over = norm.float().div(cap * x.shape[1] ** 0.5).clamp(min=1)
    return torch.mul(x, over.reciprocal().to(x.dtype), out=out)


class Block(nn.Module):
    """Two 3×3 convolutions around a SiLU, modulated by the noise level, on a residual branch."""

    def __init__(self, width: int, embed: int, cap: float = 0.0) -> None:
        super().__init__()
        self.cap = cap
        self.conv1 = Convolution(width, width)
        self.conv2 = Convolution(width, width)
        self.modulation = nn.Linear(embed, 2 * width)
        silence(self.conv2)
        silence(self.modulation)

    def forward(self, x: Tensor, level: Tensor) -> Tensor:
        h: Tensor = self.conv2(self.modulated(self.conv1(self.shown(x)), level=level))
        return x + h

    def fused(self, x: Tensor, shown: Tensor, level: Tensor) -> tuple[Tensor, Tensor]:
        """x and what is shown of it → the same of what `forward` makes, where `fused` serves."""
        told = self.modulation(level).chunk(2, dim=1)
        h = fused.modulated(fused.bare(self.conv1, shown), self.conv1, *told)
        h = fused.bare(self.conv2, h)
        if not self.cap:
            return (fused.added(x, h, self.conv2),) * 2
        return fused.added_and_capped(x, h, self.conv2, self.cap)

    def shown(self, x: Tensor, out: Tensor | None = None) -> Tensor:
        """What the first convolution sees of x; in `out`, if there is one."""
        return capped(x, self.cap, out)

    def modulated(self, x: Tensor, out: Tensor | None = None, *, level: Tensor) -> Tensor:
        """What the second one sees of what the first one says; in `out`, if there is one."""
        scale, shift = self.modulation(level)[:, :, None, None].chunk(2, dim=1)
        found = torch.addcmul(shift, x, 1 + scale, out=out)
        return F.silu(found, inplace=out is not None)


def through(x: Tensor, blocks: nn.Module, level: Tensor) -> Tensor:
    """x through the residual blocks of a stage."""
    if not fused.serves(x):
        for block in blocks.children():
            x = block(x, level)
        return x
    stage = cast(Sequence[Block], list(blocks.children()))
    shown = stage[0].shown(x) if stage else x
    for block in stage:
        x, shown = block.fused(x, shown, level)
    return x


def silence(layer: nn.Conv2d | nn.Linear) -> None:
    """Begin at zero: residual branches and the output say nothing before they learn."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)


class EmbeddedNet(nn.Module):
    """F(c_in·z, y, log(a·s/σ)): (N, 3, H, W) images → (N, 3, H, W); H, W multiples of 16."""

    def __init__(self, config: EmbeddedConfig) -> None:
        super().__init__()
        self.config = config
        widths, blocks, cell = config.widths, config.blocks, 3 * config.unshuffle**2
        self.level = nn.Sequential(
            nn.Linear(16 + config.dial, config.embed),
            nn.SiLU(),
            nn.Linear(config.embed, config.embed),
            nn.SiLU(),
        )
        self.head = Convolution((1 + config.conditional) * cell, widths[0])

        def stage(index: int) -> nn.ModuleList:
            blank = (Block(widths[index], config.embed, config.cap) for _ in range(blocks[index]))
            return nn.ModuleList(blank)

        inner = range(len(widths) - 1)
        self.encoder = nn.ModuleList(stage(i) for i in inner)
        self.down = nn.ModuleList(nn.Conv2d(widths[i], widths[i + 1], 2, stride=2) for i in inner)
        self.middle = stage(len(widths) - 1)
        self.up = nn.ModuleList(
            nn.ConvTranspose2d(widths[i + 1], widths[i], 2, stride=2) for i in inner
        )
        self.decoder = nn.ModuleList(stage(i) for i in inner)
        self.tail = Convolution(widths[0], cell + config.detail * config.unshuffle**2)
        if config.detail:
            self.refine = nn.ModuleList(
                Block(3 + config.detail, config.embed) for _ in range(config.refine)
            )
            self.finish = Convolution(3 + config.detail, 3)
            silence(self.finish)
        else:
            silence(self.tail)

    def forward(
        self, z: Tensor, y: Tensor, log_ratio: Tensor, texture: Tensor | None = None
    ) -> Tensor:
        """z, y: (N, 3, H, W); log_ratio and texture: (N,), or (1,) for all. y is read by
        conditional networks alone, and texture (0 to 1, None: 1) by those with a dial."""
        level = self.told(log_ratio, texture)
        factor = self.config.unshuffle
        x = self.head(F.pixel_unshuffle(self.seen(z, y), factor))
        skips = []
        for stage, down in zip(self.encoder, self.down, strict=True):
            x = through(x, stage, level)
            skips.append(x)
            x = down(x)
        x = through(x, self.middle, level)
        for stage, up, skip in reversed(list(zip(self.decoder, self.up, skips, strict=True))):
            x = through(up(x) + skip, stage, level)
        margin = 1 + -(-(1 + 2 * self.config.refine) // factor)
        return by_strips(lambda part: self._picture(part, level), x, cell=factor, margin=margin)

    @property
    def inner(self) -> tuple[nn.Module, ...]:
        """All layers that make features at the levels' resolutions."""
        return self.head, self.encoder, self.down, self.middle, self.up, self.decoder

    def told(self, log_ratio: Tensor, texture: Tensor | None = None) -> Tensor:
        """The embedding of the noise level and the wanted texture, which all blocks are told."""
        features = fourier(log_ratio)
        if self.config.dial:
            texture = torch.ones_like(log_ratio) if texture is None else texture
            features = torch.cat((features, 1 - texture[:, None]), dim=1)
        level: Tensor = self.level(features)
        return level

    def seen(self, z: Tensor, y: Tensor) -> Tensor:
        """What the first layer is shown."""
        return torch.cat((z, y), dim=1) if self.config.conditional else z

    def capped(self, x: Tensor, out: Tensor | None = None) -> Tensor:
        """What the last layers see of the features at the first level; in `out`, if it is given."""
        return capped(x, self.config.cap, out)

    def _picture(self, x: Tensor, level: Tensor) -> Tensor:
        """From the last features, at the first level, to full resolution."""
        shuffle = fused.shuffled if fused.serves(x) else F.pixel_shuffle
        full: Tensor = shuffle(self.tail(self.capped(x)), self.config.unshuffle)
        if not self.config.detail:
            return full
        full = through(full, self.refine, level)
        picture: Tensor = full[:, :3] + self.finish(F.silu(full))
        return picture


def fourier(log_ratio: Tensor) -> Tensor:
    """(N,) → (N, 16): cosines of the log-ratio over its range, lowest frequency first."""
    low, high = LOG_RATIO
    phase = (log_ratio.clamp(low, high) - low) / (high - low) * math.pi
    return torch.cos(phase[:, None] * torch.arange(16, device=phase.device, dtype=phase.dtype))
