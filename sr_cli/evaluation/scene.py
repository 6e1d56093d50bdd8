"""A pair of images in front of the engine, preprocessed once for all that is tried on it."""

from functools import cached_property
from time import perf_counter

import torch
from torch import Tensor

from sr_cli.diffusion.noise import digest
from sr_cli.engine.upscaler import Upscaler
from sr_cli.errors import UsageError


class Scene:
    """LR and HR, (3, H, W) in [0, 1], and the enlargement that every walk starts from."""

    def __init__(self, engine: Upscaler, lr: Tensor, hr: Tensor) -> None:
        self.engine, self.lr, self.hr = engine, lr, hr

    @property
    def identity(self) -> list[str]:
        """What the images are: their digests."""
        return [digest(image.numpy()).hex() for image in (self.lr, self.hr)]

    def through(self, engine: Upscaler) -> tuple[Tensor, float]:
        """What an engine of the same networks makes of it: (3, H, W), 8-bit levels in [0, 1], and
        the seconds with preprocessing."""
        source, preparation = self._prepared
        begin = perf_counter()
        (result,) = engine.together([self.lr], sources=[source])
        return (result * 255).round() / 255, preparation + perf_counter() - begin

    @property
    def states(self) -> tuple[Tensor, Tensor, Tensor]:
        """x0, y and the hint as states (1, C, h, w), sides cut to what the network takes.

        Raises UsageError where the image is smaller than that.
        """
        model, device = self.engine.model, self.engine.device
        unit = model.cell * model.multiple_of
        height, width = (side // unit * unit for side in self.hr.shape[-2:])
        if not height or not width:
            raise UsageError(f"Images must have at least {unit} pixels a side for this network.")
        source, _ = self._prepared
        hr, source = (x[..., :height, :width].to(device) for x in (self.hr[None], source))
        noise = hr.new_zeros(1, model.channels, height // model.cell, width // model.cell)
        with torch.inference_mode():
            target, _ = model.codec.encode(hr, noise)
            return target, *model.codec.encode(source, noise)

    @cached_property
    def _prepared(self) -> tuple[Tensor, float]:
        begin = perf_counter()
        with torch.inference_mode():
            (source,) = self.engine.sources([self.lr])
        return source, perf_counter() - begin
