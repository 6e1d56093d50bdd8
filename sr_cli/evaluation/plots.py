"""Figures: curves by matplotlib, off screen, and contact sheets of crops by Pillow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from sr_cli.errors import InputError, UsageError

if TYPE_CHECKING:
    from torch import Tensor

PLOTS = (".png", ".svg", ".pdf")
GAP, HEAD, FONT = 4, 22, 13
"""Pixels between the crops of a sheet, above them, and of their labels."""

SMALLEST_CIRCLE, LARGEST_CIRCLE = 12, 1200
"""Areas in square points."""


@dataclass(frozen=True)
class Curve:
    """A line through (x, y), shown with markers; `dashed` tells rivals from one's own."""

    label: str
    points: Sequence[tuple[float, float]]
    dashed: bool = False


@dataclass(frozen=True)
class Panel:
    """One pair of axes; `log`: both logarithmic."""

    x: str
    y: str
    curves: Sequence[Curve]
    log: bool = False


def check_sheet(path: Path) -> None:
    """Raises UsageError for a sheet that is no PNG."""
    _check(path, (".png",))


def check_plot(path: Path) -> None:
    """Raises UsageError for a plot of unknown format, and without matplotlib."""
    _check(path, PLOTS)
    _matplotlib()


def curves(panels: Sequence[Sequence[Panel]], path: Path) -> None:
    """Rows of panels in one figure. Raises UsageError without matplotlib, InputError if `path`
    cannot be written."""
    figure, axes = _figure(len(panels), max(len(row) for row in panels))
    for i, row in enumerate(panels):
        for j, panel in enumerate(row):
            _draw(axes[i][j], panel)
    _write(figure, path)


def latency_plot(rows: Sequence[tuple[str, float, float, int]], path: Path, metric: str) -> None:
    """(method, seconds an image, value of `metric`, parameters) as circles: DoSSR's Fig. 1(a).

    Areas are proportional to the parameters; a method without any is a dot. Raises as `curves`.
    """
    figure, axes = _figure(1, 1)
    panel = axes[0][0]
    largest = max((parameters for *_, parameters in rows), default=0) or 1
    for name, seconds, value, parameters in rows:
        area = max(SMALLEST_CIRCLE, LARGEST_CIRCLE * parameters / largest)
        panel.scatter([seconds], [value], s=area, alpha=0.6)
        panel.annotate(name, (seconds, value), xytext=(5, 5), textcoords="offset points")
    panel.set(xscale="log", xlabel="seconds an image", ylabel=metric)
    panel.margins(0.2)
    _write(figure, path)


def contact_sheet(
    crops: Sequence[Sequence[Tensor]], columns: Sequence[str], rows: Sequence[str], path: Path
) -> None:
    """Crops (3, h, w) in [0, 1], all of one size, pixel for pixel; a label on each row and column.

    Raises InputError if `path` cannot be written.
    """
    height, width = crops[0][0].shape[-2:]
    font = ImageFont.load_default(FONT)
    left = GAP + max(round(font.getlength(name)) for name in rows) + GAP
    size = (left + len(columns) * (width + GAP), HEAD + len(rows) * (height + GAP))
    sheet = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(sheet)
    for j, name in enumerate(columns):
        draw.text((left + j * (width + GAP), 3), name, "black", font)
    for i, (name, line) in enumerate(zip(rows, crops, strict=True)):
        top = HEAD + i * (height + GAP)
        draw.text((GAP, top + GAP), name, "black", font)
        for j, crop in enumerate(line):
            levels = (crop.permute(1, 2, 0).cpu().numpy() * 255).round().astype(np.uint8)
            sheet.paste(Image.fromarray(levels), (left + j * (width + GAP), top))
    try:
        sheet.save(path)
    except OSError as error:
        raise _unwritable(path, error) from error


def _draw(axes: Any, panel: Panel) -> None:
    for curve in panel.curves:
        style = "o--" if curve.dashed else "o-"
        x, y = np.reshape(sorted(curve.points), (-1, 2)).T
        axes.plot(x, y, style, label=curve.label, markersize=4)
    axes.set(xlabel=panel.x, ylabel=panel.y)
    if panel.log:
        axes.set(xscale="log", yscale="log")
    axes.grid(alpha=0.3)
    if panel.curves:
        axes.legend(fontsize="x-small")


def _figure(rows: int, columns: int) -> tuple[Any, Any]:
    """A figure that belongs to no screen, and its axes as a matrix."""
    figure = _matplotlib()(figsize=(5.5 * columns, 3.5 * rows), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False)


def _matplotlib() -> Any:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UsageError("Plots need matplotlib: run pip install 'srx[plot]'.") from error
    return Figure


def _check(path: Path, suffixes: Sequence[str]) -> None:
    if path.suffix.lower() not in suffixes:
        raise UsageError(f"The figure {path} must end in {' or '.join(suffixes)}.")


def _write(figure: Any, path: Path) -> None:
    try:
        figure.savefig(path, dpi=150)
    except OSError as error:
        raise _unwritable(path, error) from error


def _unwritable(path: Path, error: OSError) -> InputError:
    return InputError(f"The figure {path} cannot be written: {error.strerror}.")
