"""Mean quality and time of several methods over folders of HR images, or of LR and HR pairs."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median

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

SCALE = 4

Method = Callable[[Tensor], Tensor]
"""LR (3, h, w) → result (3, 4·h, 4·w), both in [0, 1]."""

ENGINE: dict[str, UpscaleOptions] = {
    "--preprocess none --steps 1": UpscaleOptions(preprocess="none", steps=1),
    "--preprocess none": UpscaleOptions(preprocess="none"),
    "--steps 1": UpscaleOptions(steps=1),
    "--order 1": UpscaleOptions(order=1),
    "--t1 1000": UpscaleOptions(t1=1000),
    "(defaults)": UpscaleOptions(),
}
"""The rows of README's table, each by the options that make it."""


@dataclass(frozen=True)
class Row:
    """One method on one data set: the mean of each metric, the median of the seconds."""

    dataset: str
    images: int
    method: str
    means: Mapping[str, float]
    seconds: float


def pairs(folder: Path) -> Iterator[tuple[Tensor, Tensor]]:
    """(LR, HR), both (3, H, W) in [0, 1], of `folder`/HR and `folder`/LR, matched by name.

    Without `folder`/LR the LR is made by Pillow's bicubic reduction, ×1/4, of HR cropped to a
    multiple of 4. Raises UsageError when there is no HR image or a partner is missing.
    """
    files = sorted(path for path in (folder / "HR").glob("*") if path.is_file())
    if not files:
        raise UsageError(f"There is no image in {folder / 'HR'}.")
    for file in files:
        hr = _tensor(load(file).rgb)
        partner = folder / "LR" / file.name
        if partner.is_file():
            yield _tensor(load(partner).rgb), hr
        elif (folder / "LR").is_dir():
            raise UsageError(f"{file} has no partner {partner}.")
        else:
            hr = hr[:, : hr.shape[1] // SCALE * SCALE, : hr.shape[2] // SCALE * SCALE]
            yield _reduced(hr), hr


def score(folder: Path, name: str, method: Method, metrics: Mapping[str, Metric]) -> Row:
    """The row of one method; results are rounded to 8 bits, as in files."""
    values: dict[str, list[float]] = {metric: [] for metric in metrics}
    seconds = []
    for lr, hr in pairs(folder):
        begin = time.perf_counter()
        result = method(lr)[None]
        seconds.append(time.perf_counter() - begin)
        result = (result * 255).round() / 255
        for metric, measure in metrics.items():
            values[metric].append(measure(result, hr[None]))
    means = {metric: mean(all_values) for metric, all_values in values.items()}
    return Row(folder.name, len(seconds), name, means, median(seconds))


def one_level_margin(lr: Tensor, exact: int) -> int:
    """The smallest tile margin that does not show, in output pixels, a multiple of 16.

    With it, tiles of 32 LR pixels are within one 8-bit level of the whole picture `lr`, at the
    default options; `exact`, the model's receptive field, is the most that is needed.
    """

    def levels(tile: int, overlap: int | None = None) -> Tensor:
        return (Upscaler(UpscaleOptions(tile=tile, overlap=overlap))(lr) * 255).round()

    whole = levels(0)
    for margin in range(0, exact, 16):
        if (levels(32, margin) - whole).abs().max() <= 1:
            return margin
    return exact


def bicubic(lr: Tensor) -> Tensor:
    """What every viewer does."""
    return resize(lr[None], (SCALE * lr.shape[-2], SCALE * lr.shape[-1]))[0].clamp(0, 1)


def preprocessor_alone(upscaler: Upscaler) -> Method:
    """The preprocessor's ×4 output, without diffusion."""
    return lambda lr: upscaler.preprocess(lr[None])[0]


def markdown(rows: Sequence[Row]) -> str:
    """A GitHub table, a row for each method on each data set."""
    metrics = list(rows[0].means)
    lines = [
        f"| data | method | {' | '.join(metrics)} | s/image |",
        f"|---|---|{'---:|' * (len(metrics) + 1)}",
    ]
    for row in rows:
        cells = [f"{row.means[m]:.{3 if m in ('ssim', 'lpips') else 2}f}" for m in metrics]
        data = f"{row.dataset} ({row.images})"
        lines.append(f"| {data} | {row.method} | {' | '.join(cells)} | {row.seconds:.2f} |")
    return "\n".join(lines)


def _reduced(hr: Tensor) -> Tensor:
    levels = (hr.permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
    size = (hr.shape[2] // SCALE, hr.shape[1] // SCALE)
    small = Image.fromarray(levels).resize(size, Image.Resampling.BICUBIC)
    return _tensor(np.asarray(small, np.float32) / np.float32(255))


def _tensor(rgb: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> Tensor:
    return torch.from_numpy(rgb).permute(2, 0, 1).contiguous()
