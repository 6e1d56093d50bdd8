"""`srx weights export`: the whole way from LR to HR as one graph that other programs run.

The graph holds what `Upscaler` does to a picture in one tile: the preprocessor, the enlargement,
all steps of the walk, the colour fix and the guard. Noise is an input, so that the graph is a
function; the plan beside it, a JSON document, says how srx draws it and what tiles need.
"""

import json
import logging
import math
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Self, TypedDict, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sr_cli import __version__
from sr_cli.diffusion.solvers import Step
from sr_cli.engine.color import WAVELET_MARGIN, wavelet_color_fix
from sr_cli.engine.guard import REACH, limited, limits
from sr_cli.engine.options import UpscaleOptions
from sr_cli.engine.size import Scale
from sr_cli.engine.steps import Course, check_texture, course
from sr_cli.errors import InputError, ModelError, UsageError
from sr_cli.files import whole
from sr_cli.models.embedded import EmbeddedDenoiser
from sr_cli.models.loading import load_model
from sr_cli.models.model import Model
from sr_cli.models.preprocess import CompactPreprocessor, NoPreprocessor, load_preprocessor
from sr_cli.models.protocol import Preprocessor
from sr_cli.models.registry import card
from sr_cli.models.resampling import resize

Format = Literal["onnx", "ncnn"]
VERSION = 1
"""Of the plan's layout."""
OPSET = 18
"""Of ONNX: the first with antialiased resizing."""
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
    """

    def __init__(
        self,
        denoisers: Sequence[EmbeddedDenoiser],
        preprocess: Preprocessor,
        course: Course,
        scale: int,
        *,
        complete: bool = True,
    ) -> None:
        super().__init__()
        own = [module for module in vars(preprocess).values() if isinstance(module, nn.Module)]
        self.networks = nn.ModuleList([*(denoiser.net for denoiser in denoisers), *own])
        self.denoisers, self.preprocess, self.complete = denoisers, preprocess, complete
        self.course, self.scale = course, scale

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
        image = wavelet_color_fix(image[:, :, :height, :width], source)
        small, small_source = (F.avg_pool2d(x, self.scale) for x in (image, source))
        maps = limits(small, small_source, lr, scale=(self.scale, self.scale))
        maps = F.interpolate(maps, (height, width), mode="bilinear")
        return limited(image, source, maps)

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
    path = course.path
    return {
        "sigma": float(path.sigma[step.s]),
        "a": float(path.a[step.s]),
        "m": float(path.m[step.s]),
    }


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


def export(
    options: UpscaleOptions, folder: Path, form: Format = "onnx", *, overwrite: bool = False
) -> tuple[Path, ...]:
    """Write MODEL_xSCALE.onnx, or .param and .bin of ncnn, and the plan MODEL_xSCALE.json.

    Each file appears whole or not at all, the plan as the last; their paths, the plan's first.

    Raises:
        UsageError: the scale is no whole number up to MOST, or the options make no sense.
        ModelError: the model is missing or of a kind that cannot be exported, or a package is.
        InputError: a file is there already and is not to be overwritten, or cannot be written.
    """
    if form not in get_args(Format):
        raise UsageError(f"format must be onnx or ncnn, not {form!r}.")
    work = Work.of(options)
    plan = folder / f"{options.model}_x{work.scale}.json"
    suffixes = (".onnx",) if form == "onnx" else (".param", ".bin")
    graphs = [plan.with_suffix(suffix) for suffix in suffixes]
    for path in (plan, *graphs):
        if path.exists() and not overwrite:
            raise InputError(f"{path} is there already: choose another folder, or say --overwrite.")
    content = work.plan(graphs[0].name)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if form == "onnx":
            content |= _write_onnx(work, graphs[0])
        else:
            from sr_cli.engine.exporting_ncnn import write

            content |= write(work, *graphs)
        with whole(plan) as partial:
            partial.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", "utf-8")
    except OSError as error:
        raise InputError(f"{folder} cannot be written: {error.strerror}.") from error
    return (plan, *graphs)


def _whole_scale(options: UpscaleOptions) -> int:
    size = options.size
    factor = size.factor if isinstance(size, Scale) else 0.5
    if factor not in range(1, MOST + 1):
        raise UsageError(f"scale must be a whole number from 1 to {MOST} for an export.")
    return int(factor)


def _write_onnx(work: Work, path: Path) -> dict[str, Any]:
    """The graph with its weights inside; what the plan says of it."""
    try:
        import onnx  # noqa: F401  (torch imports both in its exporter)
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ModelError(f"{error.name} is not installed: {INSTALL}.") from error
    steps, dim, unit = work.course.steps, torch.export.Dim, work.unit
    module = Enlargement([work.denoiser] * len(steps), work.preprocess, work.course, work.scale)
    lr = torch.rand(1, 3, 3 * unit // 2 + 1, 5 * unit // 2 + 1)
    sides = (-(-work.scale * side // unit) * unit for side in lr.shape[-2:])
    noise = torch.randn(len(work.draws), 3, *sides)
    shapes = (
        {2: dim("h", min=2), 3: dim("w", min=2)},
        {2: unit * dim("rows", min=1), 3: unit * dim("columns", min=1)},
    )
    with warnings.catch_warnings(action="ignore"), torch.no_grad():
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        program = torch.onnx.export(
            module.eval(),
            (lr, noise),
            dynamo=True,
            dynamic_shapes=shapes,
            input_names=["lr", "noise"],
            output_names=["hr"],
            opset_version=OPSET,
            verbose=False,
        )
    assert program is not None
    for part in (program.model.graph, *program.model.graph):  # where the code lies on this machine
        part.metadata_props.clear()
    program.model.metadata_props["srx"] = json.dumps(work.plan(path.name))
    with whole(path) as partial:
        program.save(partial, external_data=False)
    return {
        "format": f"onnx, opset {OPSET}",
        "contains": ["preprocess", "resize", "walk", "colour fix (wavelet)", "guard"],
        "inputs": {
            "lr": "(1, 3, h, w) float32, RGB in [0, 1]",
            "noise": f"({len(work.draws)}, 3, H, W) float32 ~ N(0, 1), one plane for each of "
            f"draws; H and W are scale·h and scale·w rounded up to multiples of {unit}",
        },
        "outputs": {"hr": "(1, 3, scale·h, scale·w) float32, RGB in [0, 1]"},
    }
