"""The denoiser around the embedded network: preconditioned, whole or by rows.

With z = x − (a + m)·y = a·r0 + σ·ε and r0 = x0 − y, all that x tells about x0 depends only on z and
the ratio a/σ; so one network, conditioned on y and log(a·s/σ), serves every t1, every schedule and
every solver. The preconditioning is that of Karras et al. 2022, §5, for data deviation s.
"""

import copy
import math
from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

from sr_cli.device import layout
from sr_cli.diffusion.path import Moment
from sr_cli.models import rows
from sr_cli.models.graphs import Graphed
from sr_cli.models.model import Model
from sr_cli.models.network import EmbeddedConfig, EmbeddedNet
from sr_cli.models.pixels import PixelCodec
from sr_cli.models.registry import Card, load_weights
from sr_cli.models.rows import Flow
from sr_cli.models.winograd import lay_out


class EmbeddedDenoiser:
    """`Denoiser` around an `EmbeddedNet`; images in [−1, 1], state float32.

    trained: the least and the largest log(a·s/σ) that the network was trained at; what it says
    beyond them is arbitrary. A state with less noise is shown as one of the largest, and to a
    conditional network, which was trained without any signal too, one with more as pure noise.
    texture: 0 (smooth) to 1 (crispest), for a network with a dial.
    """

    def __init__(
        self,
        net: EmbeddedNet,
        dtype: torch.dtype = torch.float32,
        trained: tuple[float, float] = (-math.inf, math.inf),
        texture: float = 1.0,
    ) -> None:
        self.net = net
        self.dtype = dtype
        self.texture = texture
        self.least, self.largest = (math.exp(bound) / net.config.s for bound in trained)

    @property
    def net(self) -> EmbeddedNet:
        """The network."""
        return self._net

    @net.setter
    def net(self, net: EmbeddedNet) -> None:
        self._net, self._graphed = net, Graphed(net)

    def textured(self, texture: float) -> "EmbeddedDenoiser":
        """The same network, asked for this much texture."""
        other = copy.copy(self)
        other.texture = texture
        return other

    @torch.inference_mode()
    def predict_x0(
        self,
        x: Tensor,
        *,
        alpha: float,
        sigma: float,
        a: float,
        m: float,
        y: Tensor,
        hint: Tensor,
        t: int,
    ) -> Tensor:
        """x0 from x_t = a·x0 + m·y + σ·ε: x, y, result (N, 3, H, W) float32; the rest is unused."""
        if not self.net.config.conditional:  # u = x − m·y knows nothing of y
            x, y = x - m * y, torch.zeros_like(y)
        with self.precision(x.device):
            return self.recover(x, y, sigma=sigma, a=a, m=m)

    def precision(self, device: torch.device) -> torch.autocast:
        """In which the network computes, inside `with`."""
        return torch.autocast(device.type, self.dtype, enabled=self.dtype != torch.float32)

    def by_rows(self, height: int, moment: Moment) -> "EmbeddedRows":
        """`predict_x0` of one picture of that height whose rows come from above to below."""
        return EmbeddedRows(self, height, moment)

    def recover(
        self,
        x: Tensor,
        y: Tensor,
        *,
        sigma: float,
        a: float,
        m: float,
        texture: Tensor | None = None,
    ) -> Tensor:
        """As `predict_x0`, in whatever precision is set, with gradients where they are wanted.

        texture: (N,), 0 to 1, or None for that of this denoiser.
        """
        sigma, ratio = self.noise_of(sigma, a)
        z = (x - (a + m) * y) / sigma
        known, c_in, c_skip, c_out = self.net.config.preconditioning_of(ratio)
        texture = torch.full((1,), self.texture, device=x.device) if texture is None else texture
        log_ratio = torch.full((1,), known, device=x.device).expand(len(texture))
        output = self._graphed(c_in * z, y, log_ratio, texture)
        return y + c_skip * z + c_out * output.float()

    def noise_of(self, sigma: float, a: float) -> tuple[float, float]:
        """σ as the network is shown it, and a/σ as it is told it.

        One for the whole batch: in bfloat16 the same level, embedded N times, differs from once.
        """
        sigma = max(sigma, a / self.largest)
        known = a / sigma
        if self.net.config.conditional and known < self.least:
            known = 0.0
        return sigma, known


class EmbeddedRows:
    """x0 of a picture whose rows come from above to below; they come out later than they go in."""

    def __init__(self, denoiser: EmbeddedDenoiser, height: int, moment: Moment) -> None:
        self._denoiser, self._a, self._m = denoiser, moment["a"], moment["m"]
        device = next(denoiser.net.parameters()).device
        self._sigma, ratio = denoiser.noise_of(moment["sigma"], self._a)
        known, *self._factors = denoiser.net.config.preconditioning_of(ratio)
        told = (torch.full((1,), number, device=device) for number in (known, denoiser.texture))
        with denoiser.precision(device):
            level = denoiser.net.told(*told)
        net = denoiser.net
        self._flow = Flow(partial(rows.embedded, net=net, level=level, height=height))

    def __call__(self, x: Tensor, y: Tensor) -> Iterator[Tensor]:
        """Take the next rows, (1, 3, n, W) float32, n a multiple of the network's; what it makes of
        those that can be told now, for `x0`."""
        c_in, *_ = self._factors
        y, z = self._shown(x, y)
        self._flow.put(self._denoiser.net.seen(z.mul_(c_in), y))
        return self._outputs(x.device)

    def _outputs(self, device: torch.device) -> Iterator[Tensor]:
        while True:
            with self._denoiser.precision(device):
                output = next(self._flow.rows, None)
            if output is None:
                return
            yield output

    def x0(self, x: Tensor, y: Tensor, output: Tensor) -> Tensor:
        """E[x0 | x, y] of rows, of what went in there and what came out."""
        _, c_skip, c_out = self._factors
        y, z = self._shown(x, y)
        return z.mul_(c_skip).add_(y).add_(output.float() * c_out)

    def _shown(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """y and a new z, as in `EmbeddedDenoiser.predict_x0`."""
        if not self._denoiser.net.config.conditional:
            x, y = x - self._m * y, torch.zeros_like(y)
        z = y * (self._a + self._m)
        return y, torch.sub(x, z, out=z).div_(self._sigma)


def load(card: Card, device: torch.device, dtype: torch.dtype) -> Model:
    """The model of an "embedded" card.

    KeyError, TypeError, RuntimeError or UsageError if they differ.
    """
    net = EmbeddedNet(EmbeddedConfig.from_json(card.architecture))
    net.load_state_dict({k: v.float() for k, v in load_weights(card).items()})
    net.eval().requires_grad_(False).to(device).to(memory_format=layout(device))
    for part in net.inner:
        lay_out(part, device, dtype)
    net.to(dtype)  # else autocast casts each weight at each call
    limits = card.limits
    denoiser = EmbeddedDenoiser(net, dtype, limits.log_ratio, limits.texture)
    return Model(
        denoiser=denoiser,
        codec=PixelCodec(),
        schedule=limits.schedule,
        last_step=limits.last_step,
        multiple_of=limits.multiple_of,
        margin=limits.margin,
        bytes_per_pixel=limits.bytes_per_pixel,
        preprocess=limits.preprocess,
        t1=limits.t1,
        steps=limits.steps,
        dial=denoiser.textured if net.config.dial else None,
        texture=limits.texture,
        weave=limits.weave,
        networks=(net,),
    )
