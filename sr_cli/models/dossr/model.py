"""DoSSR as released (Cui et al., NeurIPS 2024): Stable Diffusion 2.1's UNet under a ControlNet.

Diffusion runs in the latents of an autoencoder, 8 pixels a cell. The ControlNet sees the state and
the hint, the latent of the source without noise.
"""

from typing import Any

import torch
from torch import Tensor, nn

from sr_cli.diffusion.names import Prediction
from sr_cli.models.dossr.networks import network
from sr_cli.models.graphs import Graphed
from sr_cli.models.model import Model
from sr_cli.models.preprocess import FEW, OVERLAP, without_bfloat16
from sr_cli.models.protocol import Preprocessor
from sr_cli.models.registry import Card, load_weights

LATENT_SCALE = 0.18215
"""What Stable Diffusion multiplies its autoencoder's latents by."""

CONTEXT = "context"
"""Name of the prompt's embedding among the weights: (1, tokens, width)."""


class DossrDenoiser:
    """`Denoiser` of the released weights: an ε-network whose x0 knows no domain shift.

    unet, control: diffusers' UNet2DConditionModel and the ControlNet of `dossr_networks`, in one
    dtype. context: the prompt's embedding, (1, tokens, width). The state is float32. predicts: what
    the output estimates; `shifted` is that of the released weights.
    """

    def __init__(
        self, unet: Any, control: Any, context: Tensor, predicts: Prediction = "shifted"
    ) -> None:
        self.unet = unet
        self.control = control
        self.context = context
        self.predicts = predicts
        self._graphed = Graphed(self.eps)

    def eps(self, x: Tensor, hint: Tensor, t: Tensor) -> Tensor:
        """The network's output for x and hint, (N, C, h, w), at times t, (N,): like x, float32."""
        dtype = self.context.dtype
        sample, context = x.to(dtype), self.context.expand(len(x), -1, -1)
        down, mid = self.control(
            torch.cat((sample, hint.to(dtype)), dim=1),
            t,
            context,
            controlnet_cond=sample.new_zeros(()),
            return_dict=False,
        )
        (out,) = self.unet(
            sample,
            t,
            context,
            down_block_additional_residuals=down,
            mid_block_additional_residual=mid,
            return_dict=False,
        )
        result: Tensor = out.float()
        return result

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
        """x0 = (x − σ·out)/α, or (x − m·y − σ·out)/a of a network that estimates the noise alone.

        The second is the paper's Eq. 29, which magnifies the output's error by σ/a: 6.5e5 at the
        start of t1 = 500, where a is nearly 0. The first, of the released weights, by σ/α.
        """
        times = torch.full((len(x),), t, device=x.device)
        out = self._graphed(x, hint, times)
        if self.predicts == "noise":
            return (x - m * y - sigma * out) / a
        return (x - sigma * out) / alpha


class DossrCodec:
    """`Codec` of the released weights: y is a sample of the VAE's posterior, the hint a mean.

    vae: diffusers' AutoencoderKL. condition: the encoder of the hint, which may be the VAE.
    """

    def __init__(self, vae: Any, condition: Any) -> None:
        self.vae = vae
        self.condition = condition

    @torch.inference_mode()
    def encode(self, image: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """(N, 3, H, W) in [0, 1] and noise (N, C, H/8, W/8) → y and hint, both like noise."""
        mean, std = _posterior(self.vae, image)
        y = mean + std * noise.to(mean.device)
        if self.condition is not self.vae:
            mean, _ = _posterior(self.condition, image)
        return LATENT_SCALE * y, LATENT_SCALE * mean

    @torch.inference_mode()
    def decode(self, state: Tensor) -> Tensor:
        """(N, C, h, w) → (N, 3, 8h, 8w), about [0, 1]; not clamped."""
        latent = (state / LATENT_SCALE).to(self.vae.device, self.vae.dtype)
        (image,) = self.vae.decode(latent, return_dict=False)
        result: Tensor = (image.float() + 1) / 2
        return result


def _posterior(encoder: Any, image: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation, float32, of the latent of an image in [0, 1]."""
    (posterior,) = encoder.encode((2 * image - 1).to(encoder.device, encoder.dtype), False)
    return posterior.mean.float(), (posterior.logvar.float() / 2).exp()


class RRDBNetPreprocessor:
    """`Preprocessor` that comes with the weights: ×4."""

    scale = 4
    margin = OVERLAP

    def __init__(self, net: nn.Module, dtype: torch.dtype) -> None:
        self._net, self._dtype = net, dtype
        self._graphed = Graphed(net, FEW)

    @torch.no_grad()
    def __call__(self, lr: Tensor) -> Tensor:
        return self._graphed(lr.to(self._dtype)).float().clamp(0, 1)


def load(card: Card, device: torch.device, dtype: torch.dtype) -> Model:
    """The model of a "dossr" card. Raises KeyError, TypeError or RuntimeError if they differ.

    dtype: of UNet and ControlNet. What makes pixels is never in bfloat16.
    """
    weights = load_weights(card)
    parts: dict[str, dict[str, Tensor]] = {}
    for name, tensor in weights.items():
        part, _, own = name.partition(".")
        parts.setdefault(part, {})[own] = tensor

    def build(part: str, dtype: torch.dtype) -> Any:
        return network(part, card.architecture, parts[part], device, dtype)

    pixels = without_bfloat16(dtype, device)
    unet, control, vae = build("unet", dtype), build("control", dtype), build("vae", pixels)
    condition = build("condition", pixels) if "condition" in parts else vae
    preprocess: str | Preprocessor = "compact"
    if "rrdbnet" in parts:
        preprocess = RRDBNetPreprocessor(build("rrdbnet", pixels), pixels)
    limits = card.limits
    return Model(
        denoiser=DossrDenoiser(unet, control, weights[CONTEXT].to(device, dtype), limits.predicts),
        codec=DossrCodec(vae, condition),
        schedule=limits.schedule,
        last_step=limits.last_step,
        multiple_of=2 ** (len(unet.config.block_out_channels) - 1),
        margin=limits.margin,
        bytes_per_pixel=limits.bytes_per_pixel,
        cell=2 ** (len(vae.config.block_out_channels) - 1),
        channels=vae.config.latent_channels,
        tiling="blend",
        tile=limits.tile,
        preprocess=preprocess,
        t1=limits.t1,
        networks=(unet, control, vae.decoder, *{net.encoder for net in (vae, condition)}),
    )
