"""Mean quality of engine settings over a folder of HR images, or of LR and HR pairs."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from sr_cli.engine.images import load
from sr_cli.engine.options import UpscaleOptions
from sr_cli.engine.upscaler import Upscaler
from sr_cli.errors import UsageError
from sr_cli.evaluation.metrics import Metric
from sr_cli.models.resampling import resize

Method = Callable[[Tensor], Tensor]
"""LR (3, h, w) → result (3, H, W), both in [0, 1]."""


@dataclass(frozen=True)
class Row:
    """One method on one data set: the mean of each metric."""

    dataset: str
    method: str
    images: int
    means: Mapping[str, float]


def pairs(folder: Path, scale: int = 4) -> Iterator[tuple[Tensor, Tensor]]:
    """(LR, HR), both (3, H, W) in [0, 1], of `folder`/HR and `folder`/LR, matched by name.

    Without `folder`/LR it is made by Pillow's bicubic reduction, and HR's sides must be multiples
    of `scale`. Raises UsageError when there is no HR folder or a partner is missing.
    """
    files = sorted(p for p in (folder / "HR").glob("*") if p.is_file())
    if not files:
        raise UsageError(f"{folder} has no images in {folder / 'HR'}.")
    for file in files:
        hr = _tensor(load(file).rgb)
        partner = folder / "LR" / file.name
        if not (folder / "LR").is_dir():
            image = Image.fromarray((hr.permute(1, 2, 0).numpy() * 255).round().astype(np.uint8))
            size = (image.width // scale, image.height // scale)
            small = np.asarray(image.resize(size, Image.Resampling.BICUBIC), np.float32) / 255
            yield _tensor(small), hr
        elif partner.is_file():
            yield _tensor(load(partner).rgb), hr
        else:
            raise UsageError(f"{file} has no partner {partner}.")


def methods(settings: Mapping[str, UpscaleOptions]) -> dict[str, Method]:
    """Bicubic, and the engine with each of the settings, by name."""
    return {"bicubic": _bicubic} | {name: Upscaler(o) for name, o in settings.items()}


def score(
    folder: Path, method: Method, name: str, metrics: Mapping[str, Metric]
) -> Row:
    """The means over the folder's pairs; results are rounded to 8 bits, as files are."""
    values: dict[str, list[float]] = {metric: [] for metric in metrics}
    count = 0
    for lr, hr in pairs(folder):
        result = (method(lr)[None] * 255).round() / 255
        count += 1
        for metric, measure in metrics.items():
            values[metric].append(measure(result, hr[None]))
    means = {metric: float(np.mean(all_values)) for metric, all_values in values.items()}
    return Row(folder.name, name, count, means)


def preprocessor_alone(upscaler: Upscaler) -> Method:
    """The preprocessor's output resized to the target, without diffusion."""

    def run(lr: Tensor) -> Tensor:
        width, height = upscaler.options.target(lr.shape[-1], lr.shape[-2])
        return resize(upscaler.preprocess(lr[None]), (height, width))[0].clamp(0, 1)

    return run


def _bicubic(lr: Tensor) -> Tensor:
    size = (4 * lr.shape[-2], 4 * lr.shape[-1])
    return resize(lr[None], size)[0].clamp(0, 1)


def _tensor(rgb: "np.ndarray[tuple[int, ...], np.dtype[np.float32]]") -> Tensor:
    return torch.from_numpy(rgb).permute(2, 0, 1).contiguous()


def table(rows: Sequence[Row]) -> str:
    """GitHub Markdown, a row for each method on each data set."""
    metrics = list(rows[0].means)
    lines = [
        "| data | method | " + " | ".join(metrics) + " |",
        "|---|---|" + "---:|" * len(metrics),
    ]
    for row in rows:
        digits = (f"{row.means[m]:.2f}" if m in ("psnr", "niqe") else f"{row.means[m]:.3f}" for m in metrics)
        lines.append(f"| {row.dataset} ({row.images}) | {row.method} | " + " | ".join(digits) + " |")
    return "\n".join(lines)
