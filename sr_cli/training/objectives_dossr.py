"""What DoSSR's ControlNet is trained for, as released (Cui et al., NeurIPS 2024, arXiv 2409.17778).

Only the ControlNet learns; UNet, autoencoder and preprocessor stay as the base model has them.
"""

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from sr_cli.degradation.degrade import Randomness, degrade
from sr_cli.diffusion.names import Prediction
from sr_cli.diffusion.path import Path
from sr_cli.errors import ModelError
from sr_cli.models.dossr.model import DossrCodec, DossrDenoiser
from sr_cli.models.dossr.networks import network
from sr_cli.models.loading import load_model
from sr_cli.models.preprocess import load_preprocessor
from sr_cli.models.protocol import Preprocessor
from sr_cli.models.registry import Card, load_weights
from sr_cli.models.resampling import resize

Loss = Literal["x0", "shifted", "noise"]
Times = Literal["all", "walk"]
PREFIX = "control."
"""Of the ControlNet's names in the files of a model."""


class DossrObjective:
    """A base model whose ControlNet is in float32 and takes gradients, and its loss.

    base: of kind "dossr". dtype: of UNet and prompt, and of autocast if it is not float32. loss:
    "x0", mean absolute error, as released; or squared error of the network's output, which aims at
    (x_t − α·x0)/σ, what gives x0 in the released code ("shifted"), or at the noise ε, as Eq. 8 has
    it ("noise"; the model then converts by Eq. 29, whose error at the start is enormous).
    times: "all" of the T, as released, beyond t1 too, where x_t is y and noise; or those of a
    "walk", below t1. preprocess: a name for `load_preprocessor` ("none": bicubic); None is what the
    base runs with. checkpointing: compute activations twice instead of keeping them. Raises
    ModelError.
    """

    def __init__(
        self,
        base: Card,
        device: torch.device,
        dtype: torch.dtype,
        *,
        loss: Loss = "x0",
        times: Times = "all",
        preprocess: str | None = None,
        checkpointing: bool = True,
    ) -> None:
        model = load_model(base.name, device, dtype)
        codec, denoiser = model.codec, model.denoiser
        if not (isinstance(codec, DossrCodec) and isinstance(denoiser, DossrDenoiser)):
            raise ModelError(
                f"{base.name} is no DoSSR model: give --base a folder of SD 2.1-base in diffusers' "
                "layout, or the name of an imported checkpoint of DoSSR."
            )
        self.base, self.device, self.dtype, self.kind = base, device, dtype, loss
        self.unit = model.cell * model.multiple_of
        control: Any = network("control", base.architecture, _control(base), device, torch.float32)
        control.requires_grad_(True)
        if checkpointing:
            for net in (denoiser.unet, control):
                net.enable_gradient_checkpointing()
        self.denoiser = DossrDenoiser(denoiser.unet, control, denoiser.context)
        # One encoder each: x0 is a sample of the autoencoder's posterior, y the mean of the hint's.
        self._targets = DossrCodec(codec.vae, codec.vae)
        self._sources = DossrCodec(codec.condition, codec.condition)
        chosen = preprocess or model.preprocess
        self.preprocess: Preprocessor
        if isinstance(chosen, str):
            self.preprocess, self._preprocess = load_preprocessor(chosen, device, dtype), chosen
        else:
            self.preprocess, self._preprocess = chosen, "the model's own"
        self._cell = (model.channels, model.cell)
        self.t1 = model.t1
        self.times = len(model.alpha_bar) if times == "all" else model.t1
        path = Path.domain_shift(model.alpha_bar, self.t1)
        self.alpha, self.sigma, self.a, self.m = (
            torch.from_numpy(values).to(device, torch.float32)[:, None, None, None]
            for values in (path.alpha, path.sigma, path.a, path.m)
        )

    def describe(self) -> Mapping[str, Any]:
        """What was minimised, on what."""
        losses = {
            "x0": "mean absolute error of x0",
            "shifted": "squared error of (x_t − α·x0)/σ",
            "noise": "squared error of the noise (Eq. 8)",
        }
        return {
            "loss": losses[self.kind],
            "times": f"uniform in 0…{self.times - 1}",
            "degradations": "Real-ESRGAN",
            "preprocess": self._preprocess,
        }

    def loss(self, hr: Tensor, rng: Randomness) -> Tensor:
        """hr: (N, 3, H, W) float32 in [0, 1], sides multiples of `unit` → scalar.

        Times are uniform in those that were chosen.
        """
        x0, y = self.encode(hr, rng)
        t = torch.from_numpy(rng.numbers.integers(self.times, size=len(hr))).to(self.device)
        noise = torch.randn(x0.shape, generator=rng.fields, device=self.device)
        return self.denoising_loss(x0, y, t, noise)

    @torch.no_grad()
    def encode(self, hr: Tensor, rng: Randomness) -> tuple[Tensor, Tensor]:
        """x0 of HR and y of its degraded, preprocessed LR: (N, C, H/8, W/8) float32.

        As in the released training, y is the hint itself; only a run adds the posterior's noise.
        """
        (height, width), (channels, factor) = hr.shape[-2:], self._cell
        lr = degrade(hr, (height // 4, width // 4), "realesrgan", rng)
        source = resize(self.preprocess(lr), (height, width)).clamp(0, 1)
        shape = (len(hr), channels, height // factor, width // factor)
        noise = torch.randn(shape, generator=rng.fields, device=self.device)
        x0, _ = self._targets.encode(hr, noise)
        _, y = self._sources.encode(source, noise)
        return x0.clone(), y.clone()  # a codec's are inference tensors, of no use to autograd

    def predict(self, x0: Tensor, y: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """x0 as the network recovers it from x_t = a·x0 + m·y + σ·ε (Eq. 2): (x_t − σ·out)/α.

        x0, y, noise, result: (N, C, h, w) float32. t: (N,) int64.
        """
        x, out = self._output(x0, y, t, noise)
        return (x - self.sigma[t] * out) / self.alpha[t]

    def denoising_loss(self, x0: Tensor, y: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """Scalar; arguments of `predict`.

        "shifted": the output is compared with (x_t − α·x0)/σ = ε + (m/σ)·(y − x0). Where η = 0 that
        is the noise. With η the noise itself, "noise", teaches little at the start: at t1 it is
        known from x_t and y, whatever x0 is.
        """
        x, out = self._output(x0, y, t, noise)
        if self.kind == "noise":
            return (out - noise).square().mean()
        if self.kind == "shifted":
            return (out - (x - self.alpha[t] * x0) / self.sigma[t]).square().mean()
        return ((x - self.sigma[t] * out) / self.alpha[t] - x0).abs().mean()

    @property
    def predicts(self) -> Prediction:
        """What the output of the trained network estimates."""
        return "noise" if self.kind == "noise" else "shifted"

    def _output(self, x0: Tensor, y: Tensor, t: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """x_t, and the network's output for it."""
        x = self.a[t] * x0 + self.m[t] * y + self.sigma[t] * noise
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
            return x, self.denoiser.eps(x, y, t).float()


def _control(base: Card) -> dict[str, Tensor]:
    """Float32 copies of the ControlNet's weights: those of the base are mapped from its files."""
    return {
        name.removeprefix(PREFIX): tensor.to(torch.float32, copy=True)
        for name, tensor in load_weights(base).items()
        if name.startswith(PREFIX)
    }
