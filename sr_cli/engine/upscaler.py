"""One picture, tensor to tensor: preprocess, resize, start at t1, walk, fix colours, crop."""

import tempfile
from pathlib import Path as FilePath

import torch
import torch.nn.functional as F
from torch import Tensor

from sr_cli.diffusion.noise import digest, gaussian_noise, noise_key
from sr_cli.diffusion.path import Path, time_grid
from sr_cli.diffusion.schedules import alpha_bar
from sr_cli.diffusion.solvers import plan
from sr_cli.engine.color import color_fix
from sr_cli.engine.device import resolve_device, resolve_dtype
from sr_cli.engine.options import UpscaleOptions
from sr_cli.engine.tiling import Window, scaled, sweep, tiles
from sr_cli.engine.walk import Noise, OnStep, Walk
from sr_cli.errors import DeviceError
from sr_cli.models.model import load_model
from sr_cli.models.preprocess import load_preprocessor
from sr_cli.models.resampling import resize

PREPROCESS_TILE = 512
"""LR pixels: keeps a large network's memory within a few GiB."""


class Upscaler:
    """The engine for one set of options; call it with one picture after another.

    Results depend on the picture and the options alone, not on tiles, batches, threads or order.

    Raises:
        ModelError: weights are missing or damaged.
        DeviceError: the device is missing, or its memory does not suffice for the smallest tile.
    """

    def __init__(
        self, options: UpscaleOptions, *, device: str = "auto", dtype: str = "auto"
    ) -> None:
        self.options = options
        self._device = resolve_device(device)
        self._dtype = resolve_dtype(dtype, self._device)
        self._model = load_model(options.model, self._device, self._dtype)
        self._preprocess = load_preprocessor(options.preprocess, self._device, self._dtype)
        self._path = Path.domain_shift(alpha_bar(self._model.schedule), options.t1)
        self._steps = plan(
            self._path,
            time_grid(options.t1, options.steps),
            order=options.order,
            variant=options.solver,
            final=self._model.final,
        )

    @property
    def device(self) -> str:
        """Name of the device, for reports."""
        return str(self._device)

    @property
    def dtype(self) -> str:
        """Precision of the networks, for reports."""
        return str(self._dtype).removeprefix("torch.")

    @torch.inference_mode()
    def __call__(self, lr: Tensor, *, on_step: OnStep | None = None) -> Tensor:
        """LR (3, H, W) → (3, H', W'), float32 in [0, 1] on the CPU; H', W' by options.target.

        on_step(done, total) counts the network's calls.
        """
        height, width = lr.shape[-2:]
        out_width, out_height = self.options.target(width, height)
        source = resize(self.preprocess(lr[None]), (out_height, out_width)).clamp(0, 1)
        y = self._model.codec.encode(self._padded(source))
        with tempfile.TemporaryDirectory(prefix="srx-") as scratch:
            walk = Walk(
                self._model,
                self._path,
                self._steps,
                device=self._device,
                batch=self.options.batch,
                core=self._core(out_height / height, out_width / width),
                margin=self._margin,
                scratch=FilePath(scratch),
            )
            x = walk(y, self._noise(lr), on_step or (lambda done, total: None))
            image = self._model.codec.decode(x).cpu()[..., :out_height, :out_width]
        if not image.isfinite().all():
            raise DeviceError(f"{self.dtype} overflowed on {self.device}: use --dtype float32.")
        return color_fix(self.options.color, image, source)[0].clamp(0, 1)

    def preprocess(self, lr: Tensor) -> Tensor:
        """LR (1, 3, h, w) → (1, 3, scale·h, scale·w) in [0, 1] on the CPU, tile by tile."""
        network, scale = self._preprocess, self._preprocess.scale
        height, width = lr.shape[-2:]
        core = PREPROCESS_TILE if self.options.tile is None else self.options.tile
        places = tiles(height, width, core=core, margin=network.margin, multiple=1)
        result = lr.new_empty(1, 3, scale * height, scale * width)
        batch, device = self.options.batch, self._device
        for tile, larger in sweep(network, [lr], places, batch=batch, device=device, scale=scale):
            result[(..., *scaled(tile.core, scale))] = larger.cpu()
        return result

    @property
    def _margin(self) -> int:
        """Context of a tile in output pixels."""
        overlap = self.options.overlap
        return self._model.margin if overlap is None else overlap

    def _core(self, *ratios: float) -> int | None:
        """A tile's output pixels from LR pixels; 0: all, None: by memory."""
        tile = self.options.tile
        return tile and round(tile * max(ratios))

    def _padded(self, image: Tensor) -> Tensor:
        """Replicated at the right and the bottom up to multiples of what the network takes."""
        bottom, right = (-side % self._model.multiple_of for side in image.shape[-2:])
        return F.pad(image, (0, right, 0, bottom), mode="replicate")

    def _noise(self, lr: Tensor) -> Noise:
        """Noise of the picture's own, by step and position."""
        picture = digest(lr.numpy())

        def draw(step: int, window: Window) -> Tensor:
            rows, cols = ((side.start, side.stop) for side in window)
            key = noise_key(self.options.seed, picture, step)
            return torch.from_numpy(gaussian_noise(key, rows, cols, channels=3))[None]

        return draw
