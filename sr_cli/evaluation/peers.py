"""What is measured side by side: srx by its options, and what people would use instead."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import interpolate

from sr_cli.engine.arrays import to_tensor
from sr_cli.engine.images import load
from sr_cli.engine.options import UpscaleOptions
from sr_cli.engine.source import preprocessed
from sr_cli.engine.steps import calibration
from sr_cli.engine.upscaler import Upscaler
from sr_cli.errors import InputError, ModelError, UsageError
from sr_cli.evaluation.datasets import Pair, Pairs
from sr_cli.evaluation.judging import with_judge
from sr_cli.evaluation.layouts import at_scale, frames
from sr_cli.evaluation.matching import partners
from sr_cli.models.preprocess import load_preprocessor, realesrgan_files
from sr_cli.models.resampling import resize


@dataclass(frozen=True)
class Spent:
    """What a method took that ran elsewhere: seconds of each image, seconds before the first (None:
    unknown), bytes of memory."""

    seconds: tuple[float, ...]
    startup: float | None
    memory: int


@dataclass(frozen=True)
class Method:
    """One way to enlarge, ready to be used on one data set.

    run: the results of some pairs, each (3, H, W) in [0, 1] as large as its HR.
    nfe: calls of the largest network for one image. parameters: of all networks. spent: of a method
    that is not timed here.
    """

    run: Callable[[Sequence[Pair]], Sequence[Tensor]]
    nfe: int | None = None
    parameters: int | None = None
    spent: Spent | None = None


@dataclass(frozen=True)
class Peer:
    """A method by name, made for a data set when its turn comes.

    timed: whether `run` does the work, and does not only read what somebody's program made. reads:
    whether `make` only looks for files, so that it shows mistakes before anything is measured.
    """

    name: str
    make: Callable[[Pairs], Method]
    timed: bool = True
    reads: bool = False


def engine(name: str, options: UpscaleOptions, *, device: torch.device, dtype: str) -> Peer:
    """srx with these options, at the scale of the data."""

    def make(pairs: Pairs) -> Method:
        sized = replace(options, scale=pairs.scale)
        upscaler = Upscaler(sized, device=str(device), dtype=dtype)
        if sized.best_of > 1:
            with_judge(upscaler)
        return Method(
            lambda group: upscaler.together([pair.lr for pair in group]),
            _calls(upscaler, pairs.scale),
            parameters(upscaler),
        )

    return Peer(name, make)


def _calls(upscaler: Upscaler, scale: float) -> int:
    """Of the network for one image of this scale: Diff-SR's samplers take at most t1 steps."""
    options = upscaler.options
    if options.alone:
        return 1
    if options.method == "dossr":
        return upscaler.steps * options.best_of
    found = calibration(options, upscaler.model).start(scale) if options.automatic else options.t1
    return min(upscaler.steps, int(found or 0)) * options.best_of


def network(name: str, source: str | Path, *, device: torch.device, dtype: torch.dtype) -> Peer:
    """A regression network that `models.preprocess` knows, or a checkpoint that spandrel reads.

    Its own scale need not be the data's: bicubic interpolation does the rest, as in the engine.
    """

    def make(_: Pairs) -> Method:
        loaded = load_preprocessor(source, device, dtype)

        def run(group: Sequence[Pair]) -> list[Tensor]:
            lrs = [pair.lr for pair in group]
            results = preprocessed(loaded, lrs, device=device, batch=len(group))
            return [_fitted(r, pair.hr) for r, pair in zip(results, group, strict=True)]

        return Method(run, 1, parameters(loaded))

    return Peer(name, make)


def through_ncnn(name: str) -> Peer:
    """Real-ESRGAN x4plus as most people run it on a CPU: by ncnn, with torch's threads.

    Raises ModelError, when it is made, unless ncnn and the network are installed.
    """

    def make(_: Pairs) -> Method:
        try:
            import ncnn
        except ImportError as error:
            raise ModelError("ncnn is not installed: run pip install 'srx[realesrgan]'.") from error
        graph, weights = realesrgan_files()
        net = ncnn.Net()
        net.opt.num_threads = torch.get_num_threads()
        net.load_param(str(graph))
        net.load_model(str(weights))

        def run(group: Sequence[Pair]) -> list[Tensor]:
            results = []
            for pair in group:
                extractor = net.create_extractor()
                extractor.input("data", ncnn.Mat(pair.lr.numpy()).clone())  # it would not copy
                _, result = extractor.extract("output")
                results.append(_fitted(torch.from_numpy(np.array(result))[None], pair.hr))
            return results

        return Method(run, 1)

    return Peer(name, make)


def interpolation(name: str) -> Peer:
    """`nearest`, `bicubic` or `lanczos`."""

    def make(_: Pairs) -> Method:
        function = {"nearest": nearest, "bicubic": bicubic, "lanczos": lanczos}[name]
        return Method(lambda group: [function(p.lr, p.hr.shape[-2:]) for p in group], 0, 0)

    return Peer(name, make)


def stored(name: str, folder: Path) -> Peer:
    """Results on disk, matched by name; of several data sets each in a folder of its name, of
    several scales in folders X2, X2.7 and so on."""

    def make(pairs: Pairs) -> Method:
        own = folder / pairs.name if (folder / pairs.name).is_dir() else folder
        if not (scaled := at_scale(own, pairs.scale)):
            raise UsageError(
                f"{own} has no results of x{pairs.scale:g}: no folder X{pairs.scale:g}."
            )
        files = frames(scaled)
        by_name = dict(zip(pairs.names, partners(pairs.hr_named, files), strict=True))
        return Method(lambda group: [read(by_name[pair.name], pair) for pair in group])

    return Peer(name, make, timed=False, reads=True)


def nearest(lr: Tensor, size: tuple[int, ...]) -> Tensor:
    """The nearest pixel: (3, h, w) → (3, *size) in [0, 1]."""
    return interpolate(lr[None], size=size, mode="nearest-exact")[0]


def bicubic(lr: Tensor, size: tuple[int, ...]) -> Tensor:
    """What every viewer does: (3, h, w) → (3, *size) in [0, 1]."""
    height, width = size
    return resize(lr[None], (height, width))[0].clamp(0, 1)


def lanczos(lr: Tensor, size: tuple[int, ...]) -> Tensor:
    """Pillow's Lanczos: (3, h, w) → (3, *size) in [0, 1]."""
    height, width = size
    filtering = Image.Resampling.LANCZOS
    planes = [Image.fromarray(plane.numpy()).resize((width, height), filtering) for plane in lr]
    return torch.from_numpy(np.stack([np.asarray(plane) for plane in planes])).clamp(0, 1)


def parameters(owner: object) -> int:
    """Parameters of every network that an adapter holds, at any depth."""
    return sum(p.numel() for p in {id(p): p for p in _parameters(owner, set())}.values())


def _parameters(owner: object, seen: set[int]) -> Iterator[nn.Parameter]:
    if id(owner) in seen:
        return
    seen.add(id(owner))
    if isinstance(owner, nn.Module):
        yield from owner.parameters()
    else:
        for value in getattr(owner, "__dict__", {}).values():
            yield from _parameters(value, seen)


def _fitted(result: Tensor, hr: Tensor) -> Tensor:
    height, width = hr.shape[-2:]
    return resize(result, (height, width))[0].clamp(0, 1)


def read(file: Path, pair: Pair, called: str | None = None) -> Tensor:
    """Somebody's result, (3, H, W) in [0, 1]. called: how to name it, unless by its path. Raises
    InputError unless it has the HR's size."""
    result = to_tensor(load(file).rgb)
    if result.shape != pair.hr.shape:
        sizes = [f"{image.shape[2]}x{image.shape[1]}" for image in (result, pair.hr)]
        raise InputError(f"{called or file} has {sizes[0]} pixels, the HR image {sizes[1]}.")
    return result
