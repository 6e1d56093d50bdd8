"""The whole way from LR to HR as one function of tensors, and the plan that says how to feed it.

The graph holds what `Upscaler` does to a picture in one tile: the preprocessor, the enlargement,
all steps of the walk, the colour fix and the guard. Noise is an input, so that the graph is a
function; the plan beside it, a JSON document, says how srx draws it and what tiles need.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self, TypedDict

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sr_cli import __version__
from sr_cli.diffusion.solvers import Step
from sr_cli.engine.color import WAVELET_MARGIN, low_frequencies
from sr_cli.engine.guard import REACH, limited, recoloured_limits
from sr_cli.engine.options import UpscaleOptions
from sr_cli.engine.size import Scale
from sr_cli.engine.steps import Course, check_texture, course
from sr_cli.engine.weave import pattern, weaves
from sr_cli.errors import ModelError, UsageError
from sr_cli.models.embedded import EmbeddedDenoiser
from sr_cli.models.loading import load_model
from sr_cli.models.model import Model
from sr_cli.models.preprocess import CompactPreprocessor, NoPreprocessor, load_preprocessor
from sr_cli.models.protocol import Preprocessor
from sr_cli.models.registry import card
from sr_cli.models.resampling import resize

VERSION = 1
"""Of the plan's layout."""
MOST = 8
"""The largest scale: further ones are pictures of pictures."""
BICUBIC_REACH = 3
"""LR pixels that an enlargement between the preprocessor's scale and the result's looks at."""
INSTALL = "run pip install 'srx[export]'"


class Place(TypedDict):
    """Where a step begins on its path."""

    sigma: float
    a: float
    m: float


class Enlargement(nn.Module):
    """LR and noise → HR, as `Upscaler` does it to a picture that is one tile, in float32.

    denoisers: one for each step. complete: whether the colour fix and the guard are part of it.
    cell: as of `engine.finish.Finish`.
    """

    def __init__(
        self,
        denoisers: Sequence[EmbeddedDenoiser],
        preprocess: Preprocessor,
        course: Course,
        scale: int,
        *,
        complete: bool = True,
        cell: int = 0,
    ) -> None:
        super().__init__()
        own = [module for module in vars(preprocess).values() if isinstance(module, nn.Module)]
        self.networks = nn.ModuleList([*(denoiser.net for denoiser in denoisers), *own])
        self.denoisers, self.preprocess, self.complete = denoisers, preprocess, complete
        self.course, self.scale, self.cell = course, scale, cell

    def forward(self, lr: Tensor, noise: Tensor) -> Tensor:
        """(1, 3, h, w) in [0, 1], and (draws, 3, H, W) ~ N(0, 1) → (1, 3, scale·h, scale·w).

        The result is in [0, 1] where it is complete, else about so. H, W: scale·h and scale·w,
        rounded up to multiples of the plan's unit where it is complete, else these themselves.
        """
        height, width = (self.scale * side for side in lr.shape[-2:])
        source = self.preprocess(lr)
        if self.preprocess.scale != self.scale:
            source = resize(source, (height, width)).clamp(0, 1)
        if not self.complete:
            return self._walked(source, noise)
        image = self._walked(_padded(source, noise.shape[-2], noise.shape[-1]), noise)
        return self._finished(image[:, :, :height, :width], source, lr)

    def _finished(self, image: Tensor, source: Tensor, lr: Tensor) -> Tensor:
        """With the colours of the source, and guarded: as `engine.finish` in one tile."""
        scale = (self.scale, self.scale)
        if weaves(self.cell, scale, (1, 1)):
            height, width = (side - side % self.cell for side in image.shape[-2:])
            whole = (..., slice(height), slice(width))
            cells = pattern(image[whole], source[whole], cell=self.cell)
            rest = (0, image.shape[-1] - width, 0, image.shape[-2] - height)
            image = image - F.pad(cells, rest)
        small, small_source = (F.avg_pool2d(x, self.scale) for x in (image, source))
        low = low_frequencies(small_source - small, scale)
        maps = recoloured_limits(small, small_source, lr, low, scale=scale)
        maps = F.interpolate(maps, image.shape[-2:], mode="bilinear")
        return limited(image, maps, source)

    def _walked(self, source: Tensor, noise: Tensor) -> Tensor:
        """The image at the end of all steps; source: padded, in [0, 1]."""
        y = 2 * source - 1
        of_source, of_noise = self.course.start
        drawn = [noise[i : i + 1] for i in range(len(noise))] if len(noise) > 1 else [noise]
        x = of_source * y + of_noise * drawn.pop(0)
        history: list[Tensor] = []
        for denoiser, step in zip(self.denoisers, self.course.steps, strict=True):
            history.insert(0, denoiser.recover(x, y, **place(self.course, step)))
            x = step.apply(x, y, history, drawn.pop(0) if step.noise else None)
        return (x + 1) / 2


def place(course: Course, step: Step) -> Place:
    """σ, a and m where a step begins, as networks are told them."""
    moment = course.path.moment(step.s)
    return {"sigma": moment["sigma"], "a": moment["a"], "m": moment["m"]}


def _padded(image: Tensor, height: int, width: int) -> Tensor:
    """Replicated at the right and the bottom, by indices since these take sizes not yet known."""
    for dim, side in ((2, height), (3, width)):
        image = image.index_select(dim, torch.arange(side).clamp(max=image.shape[dim] - 1))
    return image


@dataclass(frozen=True)
class Work:
    """All that a graph is made of. scale: a whole number."""

    options: UpscaleOptions
    model: Model
    preprocess: Preprocessor
    course: Course
    scale: int

    @classmethod
    def of(cls, options: UpscaleOptions) -> Self:
        """Raises UsageError and ModelError as `export`."""
        scale = _whole_scale(options)
        cpu = torch.device("cpu")
        model = load_model(options.model, cpu, torch.float32, ("embedded",))
        check_texture(options, model)
        if options.automatic:
            raise UsageError("An export has one t1: give --t1 a number or leave it out.")
        model = model.textured(options.texture)
        walked = course(options, model, model.t1 if options.t1 is None else int(options.t1))
        chosen = options.preprocess or model.preprocess
        preprocess = load_preprocessor(chosen) if isinstance(chosen, str) else chosen
        if not isinstance(preprocess, CompactPreprocessor | NoPreprocessor):
            raise ModelError(f"{chosen} cannot be exported: choose --preprocess compact or none.")
        return cls(options, model, preprocess, walked, scale)

    @property
    def denoiser(self) -> EmbeddedDenoiser:
        """Of a model of the kind "embedded"."""
        assert isinstance(self.model.denoiser, EmbeddedDenoiser)
        return self.model.denoiser

    @property
    def unit(self) -> int:
        """Output pixels of which the sides of the noise are multiples."""
        return self.model.multiple_of

    @property
    def multiple(self) -> int:
        """LR pixels of which the corners of tiles are multiples."""
        return self.unit // math.gcd(self.unit, self.scale)

    @property
    def draws(self) -> list[int]:
        """The draws of noise that the walk needs, as srx numbers them: 0 is the start."""
        return [0, *(number for number, step in enumerate(self.course.steps, 1) if step.noise)]

    @property
    def margin(self) -> int:
        """LR pixels around a tile with which it gives what the whole picture gives."""
        walk: int = len(self.course.steps) * -(-self.model.margin // self.scale)
        finish: int = -(-WAVELET_MARGIN // self.scale) + REACH + 1
        enlarge = 0 if self.preprocess.scale == self.scale else BICUBIC_REACH
        return walk + finish + int(self.preprocess.margin) + enlarge

    def plan(self, file: str) -> dict[str, Any]:
        """The JSON document beside the graph in `file`: what that is, and how it is fed."""
        model, options = self.model, self.options
        return {
            "version": VERSION,
            "srx": __version__,
            "file": file,
            "model": options.model,
            "sha256": model.identity,
            "licence": card(options.model).licence,
            "scale": self.scale,
            "draws": self.draws,
            "unit": self.unit,
            "multiple": self.multiple,
            "margin": self.margin,
            "preprocess": options.preprocess or str(model.preprocess),
            "t1": model.t1 if options.t1 is None else options.t1,
            "texture": model.texture_of(options.texture) if model.dial else None,
            "start": dict(zip(("y", "noise"), self.course.start, strict=True)),
            "steps": [{**asdict(step), **place(self.course, step)} for step in self.course.steps],
        }


def _whole_scale(options: UpscaleOptions) -> int:
    size = options.size
    factor = size.factor if isinstance(size, Scale) else 0.5
    if factor not in range(1, MOST + 1):
        raise UsageError(f"scale must be a whole number from 1 to {MOST} for an export.")
    return int(factor)
