"""Image quality, as the literature measures it.

PSNR and SSIM are computed here: on the Y channel (ITU-R BT.601, 16…235), `border` pixels cropped at
each side, with the constants of pyiqa, so the numbers are the same with and without it. All others
are pyiqa's, of the whole RGB image.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import conv2d

from sr_cli.errors import UsageError, enough_memory
from sr_cli.evaluation.iqa import SPECS, Better, absent, create, undisturbed
from sr_cli.evaluation.tables import Column

BETTER: dict[str, Better] = {
    "psnr": "higher",
    "ssim": "higher",
    **{name: spec.better for name, spec in SPECS.items()},
}
"""Every metric, and which of its values are good."""
DIGITS = {"psnr": 2, "niqe": 2, "musiq": 2, "fid": 2}
"""Decimals of a metric in tables, where they are not 3."""

PSNR_EPSILON = 1e-8
"""Added to the mean squared error of images in [0, 1], as in pyiqa: identical images have 80 dB."""
WINDOW = 11
"""Pixels of SSIM's Gaussian window, σ = 1.5 (Wang et al. 2004)."""


def luma(image: Tensor) -> Tensor:
    """(N, 3, H, W) in [0, 1] → Y of BT.601, (N, 1, H, W) float64 in [16, 235]."""
    x = image.double()
    return 16 + 65.481 * x[:, 0:1] + 128.553 * x[:, 1:2] + 24.966 * x[:, 2:3]


def psnr(result: Tensor, hr: Tensor, border: int = 0) -> Tensor:
    """Peak signal-to-noise ratio of Y in dB, (N,) float64, at most 80.

    result, hr: (N, 3, H, W) in [0, 1], of which `border` pixels at each side do not count. Raises
    UsageError when that leaves nothing.
    """
    error = (_cropped(luma(result), border) - _cropped(luma(hr), border)) / 255
    return -10 * (error.square().mean((1, 2, 3)) + PSNR_EPSILON).log10()


def ssim(result: Tensor, hr: Tensor, border: int = 0) -> Tensor:
    """Structural similarity of Y in whole levels (Wang et al. 2004), (N,) float64.

    Arguments as of `psnr`. As in pyiqa a negative contrast-structure term counts as 0. NaN where
    less than 11×11 pixels are left.
    """
    x, y = (_cropped(luma(image), border).round() for image in (result, hr))
    if min(x.shape[-2:]) < WINDOW:
        return x.new_full((len(x),), math.nan)
    offsets = torch.arange(WINDOW, dtype=x.dtype, device=x.device) - WINDOW // 2
    row = (-offsets.square() / (2 * 1.5**2)).exp()[None, None, None]
    row = row / row.sum()
    mx, my, xx, yy, xy = (
        conv2d(conv2d(image, row), row.mT) for image in (x, y, x * x, y * y, x * y)
    )
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    contrast = (2 * (xy - mx * my) + c2) / (xx - mx**2 + yy - my**2 + c2)
    luminance = (2 * mx * my + c1) / (mx**2 + my**2 + c1)
    return (luminance * contrast.clamp(min=0)).mean((1, 2, 3))


def _cropped(image: Tensor, border: int) -> Tensor:
    height, width = image.shape[-2:]
    if not 0 <= 2 * border < min(height, width):
        raise UsageError(f"A border of {border} pixels leaves nothing of {width}x{height} pixels.")
    return image[..., border : height - border, border : width - border]


class Metrics:
    """What to measure; `load` makes it. Networks are made when they are first needed.

    missing: for each metric that cannot be had, a sentence that says what to do.
    undefined: for each metric that some image was too small for, a sentence that says so.
    """

    def __init__(
        self, names: Sequence[str], device: torch.device, border: int, missing: Mapping[str, str]
    ) -> None:
        self.names = tuple(names)
        self.border = border
        self.missing = dict(missing)
        self.undefined: dict[str, str] = {}
        self._device = device
        self._networks: dict[str, Any] = {}

    @property
    def of_sets(self) -> tuple[str, ...]:
        """Those of the metrics that measure whole sets and can be had."""
        return tuple(name for name in self.names if _of_sets(name) and name not in self.missing)

    @property
    def conditions(self) -> str:
        """How PSNR and SSIM are meant, for reports."""
        return f"PSNR and SSIM on Y (BT.601), {self.border} pixels cropped at each side"

    def score(self, result: Tensor, hr: Tensor) -> dict[str, float | None]:
        """Each metric of one image: both (3, H, W) float32 in [0, 1]. See `scores`."""
        return self.scores(result[None], hr[None])[0]

    @torch.inference_mode()
    def scores(self, results: Tensor, hrs: Tensor) -> list[dict[str, float | None]]:
        """Each metric of each image of a batch: both (N, 3, H, W) float32 in [0, 1].

        None where a metric is missing or not defined for images so small. Metrics of whole sets
        (fid) are left out. Raises ValueError when the shapes differ.
        """
        if results.shape != hrs.shape:
            raise ValueError(f"the shapes {tuple(results.shape)} and {tuple(hrs.shape)} differ")
        names = [name for name in self.names if not _of_sets(name)]
        columns = {name: self._column(name, results, hrs) for name in names}
        return [{name: columns[name][i] for name in names} for i in range(len(results))]

    def score_sets(self, results: Path, hrs: Path) -> dict[str, float | None]:
        """Each metric of whole sets, from two folders of image files.

        FID's covariance needs thousands of images; of a few it says little.
        """
        return {name: self._of(name, results, hrs) for name in self.of_sets}

    def _column(self, name: str, results: Tensor, hrs: Tensor) -> list[float | None]:
        height, width = results.shape[-2:]
        what = f"images of {width}x{height} pixels"
        try:
            with enough_memory(f"{name} of {what}"):
                values = self._measured(name, results, hrs)
        except (RuntimeError, AssertionError, ValueError):
            values = [math.nan] * len(results)
        if any(value is not None and not math.isfinite(value) for value in values):
            self.undefined[name] = f"{name} cannot measure {what}."
        return [value if value is not None and math.isfinite(value) else None for value in values]

    def _measured(self, name: str, results: Tensor, hrs: Tensor) -> Sequence[float | None]:
        if name in ("psnr", "ssim"):
            place = "cpu" if self._device.type == "mps" else self._device  # MPS has no float64
            function = psnr if name == "psnr" else ssim
            return list(function(results.to(place), hrs.to(place), self.border).tolist())
        network = self._network(name)
        if network is None:
            return [None] * len(results)
        images = (results, hrs) if SPECS[name].reference else (results,)
        with undisturbed():
            return list(network(*images).reshape(-1).tolist())

    def _of(self, name: str, results: Path, hrs: Path) -> float | None:
        network = self._network(name)
        if network is None:
            return None
        with undisturbed():
            return float(network(str(results), str(hrs), num_workers=0, verbose=False))

    def _network(self, name: str) -> Any:
        """pyiqa's metric, or None where it is missing."""
        if name not in self.missing and name not in self._networks:
            try:
                self._networks[name] = create(name, self._device)
            except Exception as error:  # downloads and damaged files fail in many ways
                self.missing[name] = f"{name} has no weights that can be loaded ({error})."
        return self._networks.get(name)


def _of_sets(name: str) -> bool:
    return name in SPECS and SPECS[name].of_sets


def column(name: str) -> Column:
    """What a metric is in a table."""
    return Column(name, BETTER[name], DIGITS.get(name, 3))


def mean(values: Iterable[float | None]) -> float | None:
    """Over the images for which a metric is defined; None where there is none."""
    defined = [value for value in values if value is not None]
    return fmean(defined) if defined else None


def load(
    names: Sequence[str], device: torch.device, border: int = 0, *, download: bool = False
) -> Metrics:
    """The metrics `names` of BETTER; no network is made yet.

    border: pixels that PSNR and SSIM leave out at each side. download: let pyiqa fetch files that
    are not there; without, a metric that lacks one is `missing`, known at once and offline.

    Raises:
        UsageError: there is no such metric, or `border` is negative.
    """
    for name in names:
        if name not in BETTER:
            raise UsageError(f"There is no metric {name!r}; choose of {', '.join(BETTER)}.")
    if border < 0:
        raise UsageError(f"border must not be negative, but it is {border}.")
    reasons = {name: absent(name, download=download) for name in names if name in SPECS}
    missing = {name: reason for name, reason in reasons.items() if reason}
    return Metrics(names, device, border, missing)
