"""What the engine does to whole pictures, done to any window of them with the same bits.

The kernels of torch count coordinates from the picture's own origin in float32, where a window's
would round differently. So the coordinates here are the whole picture's, and products are added to
sums in one rounding, as torch's kernels do on processors with fused multiply-add.
"""

from collections.abc import Callable
from functools import lru_cache
from math import ceil

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sr_cli.device import widest
from sr_cli.engine import guard
from sr_cli.engine.tiling import Window, scaled
from sr_cli.models.resampling import resize

Read = Callable[[Window], Tensor]
"""A window of an image → its values (1, C, h, w)."""


def size_of(window: Window) -> tuple[int, int]:
    """Rows and columns."""
    rows, cols = window
    return rows.stop - rows.start, cols.stop - cols.start


def grown(window: Window, by: int, size: tuple[int, int]) -> Window:
    """The window with `by` cells more on every side, as far as an image of this size goes."""
    rows, cols = (
        slice(max(0, span.start - by), min(side, span.stop + by))
        for span, side in zip(window, size, strict=True)
    )
    return rows, cols


def inside(window: Window, outer: Window) -> Window:
    """The window's place in the part of the image that is `outer`."""
    rows, cols = (
        slice(span.start - own.start, span.stop - own.start)
        for span, own in zip(window, outer, strict=True)
    )
    return rows, cols


def below(window: Window, row: int) -> Window:
    """The place of a window that is counted from a row on."""
    rows, cols = window
    return slice(rows.start + row, rows.stop + row), cols


def added(product: tuple[Tensor, Tensor], total: Tensor) -> Tensor:
    """product[0]·product[1] + total, float32, rounded once where there is float64."""
    one, other = product
    exact: Tensor = (one * other.to(widest(one.device))).add_(total).float()
    return exact


# --------------------------------------------------------------------------- bicubic, antialiased


def resized(read: Read, before: tuple[int, int], after: tuple[int, int], window: Window) -> Tensor:
    """A window of what `models.resampling.resize` makes of an image of size `before`."""
    if before == after:
        return read(window)
    factor = after[0] // before[0]
    if factor & -factor == factor and after == (factor * before[0], factor * before[1]):
        return _multiplied(read, before, factor, window)
    places = [
        _needed(n, m, span.start, span.stop)
        for n, m, span in zip(before, after, window, strict=True)
    ]
    rows, cols = places
    image = read((rows, cols))
    for dim, place in ((-1, cols), (-2, rows)):  # in torch's order
        image = _along(image, dim, (before[dim], after[dim]), window[dim], place.start)
    return image


def _multiplied(read: Read, before: tuple[int, int], factor: int, window: Window) -> Tensor:
    """Enlarged by a power of two, where a window's coordinates are rounded as the whole's."""
    rows, cols = (slice(span.start // factor, -(-span.stop // factor)) for span in window)
    place = grown((rows, cols), 3, before)
    height, width = size_of(place)
    larger = resize(read(place), (factor * height, factor * width))
    return larger[(..., *inside(window, scaled(place, factor)))]


@lru_cache(maxsize=8)
def _taps(before: int, after: int) -> tuple[Tensor, Tensor]:
    """First cell that counts of each result, and the weights of it and the following ones,
    (taps, after): torch's own, from its answers to impulses."""
    support = 2 * max(1.0, before / after)
    taps = 2 * ceil(support) + 3
    impulses = torch.zeros(1, 1, taps, before)
    cells = torch.arange(before)
    impulses[0, 0, cells % taps, cells] = 1
    answers = resize(impulses, (taps, after))[0, 0]
    centres = (torch.arange(after, dtype=torch.float64) + 0.5) * (before / after)
    first = (centres - support - 1).floor().long()
    reached = first + torch.arange(taps)[:, None]
    weights = answers.gather(0, reached % taps)
    return first, weights.where((reached >= 0) & (reached < before), 0)


def _needed(before: int, after: int, start: int, stop: int) -> slice:
    first, weights = _taps(before, after)
    last = int(first[stop - 1]) + len(weights)
    return slice(max(0, int(first[start])), min(before, last))


def _along(image: Tensor, dim: int, sides: tuple[int, int], span: slice, origin: int) -> Tensor:
    """Along one side, before and after; origin: where the image's first cell is in the whole."""
    before, _ = sides
    first, weights = (values[..., span].to(image.device) for values in _taps(*sides))
    total: Tensor | None = None
    for tap, weight in enumerate(weights):
        if not weight.any():
            continue
        share = weight if dim == -1 else weight[:, None]
        cells = (first + tap).clamp(0, before - 1) - origin
        values = image.index_select(dim, cells)
        total = values * share if total is None else added((values, share), total)
    assert total is not None
    return total


# ----------------------------------------------------------------------------- bicubic, as Pillow

Doubles = npt.NDArray[np.float64]


def pillow_taps(before: int, after: int, span: slice) -> tuple[npt.NDArray[np.int64], Doubles]:
    """First cell that counts of each result in a span, and the weights of it and the following
    ones, (n, taps), by the arithmetic of Pillow's `Image.resize` (BICUBIC)."""
    scale = before / after
    wide = max(scale, 1.0)
    centres = (np.arange(span.start, span.stop) + 0.5) * scale
    first = np.maximum((centres - 2 * wide + 0.5).astype(np.int64), 0)
    last = np.minimum((centres + 2 * wide + 0.5).astype(np.int64), before)
    cells = first[:, None] + np.arange((last - first).max())
    weights = _cubic((cells - centres[:, None] + 0.5) * (1 / wide))
    weights[cells >= last[:, None]] = 0
    total = np.zeros(len(first))
    for tap in weights.T:  # one by one, as sums are rounded
        total += tap
    return first, weights / total[:, None]


def _cubic(x: Doubles) -> Doubles:
    x, a = np.abs(x), -0.5
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * a
    return np.where(x < 1, near, np.where(x < 2, far, 0))


def weighed(
    plane: npt.NDArray[np.float32], first: npt.NDArray[np.int64], weights: Doubles
) -> npt.NDArray[np.float32]:
    """(rows, cols) → (n, cols): each result the sum of so many rows from its first on."""
    total = np.zeros((len(first), plane.shape[1]))
    for tap, weight in enumerate(weights.T):
        rows = plane[np.minimum(first + tap, len(plane) - 1)]
        total += rows * weight[:, None]
    return total.astype(np.float32)


# ------------------------------------------------------------------------------------------- area


def spans(cells: int, pixels: int) -> tuple[Tensor, Tensor]:
    """First pixel of each of the cells that share a side, and the pixel after its last one."""
    cell = torch.arange(cells)
    return cell * pixels // cells, -(-(cell + 1) * pixels // cells)


def pixels_of(window: Window, grid: tuple[int, int], size: tuple[int, int]) -> Window:
    """The pixels of an image of this size whose mean is in these cells of the grid."""
    rows, cols = (
        slice(span.start * side // cells, -(-span.stop * side // cells))
        for span, cells, side in zip(window, grid, size, strict=True)
    )
    return rows, cols


def reduced(image: Tensor, grid: tuple[int, int], size: tuple[int, int], window: Window) -> Tensor:
    """A window of the grid of means by area; image: the `pixels_of` it, (1, C, h, w)."""
    if grid == size:
        return image
    if all(side % cells == 0 for side, cells in zip(size, grid, strict=True)):
        return guard.reduced(image, size_of(window))
    (top, down), (left, right) = (
        (start[span], stop[span])
        for (start, stop), span in zip(
            (spans(*sides) for sides in zip(grid, size, strict=True)), window, strict=True
        )
    )
    rows, cols = down - top, right - left
    total = image.new_zeros(*image.shape[:2], *size_of(window))
    for down_by in range(int(rows.max())):
        row = image.index_select(-2, _within(top + down_by - top[0], image.shape[-2], image))
        for right_by in range(int(cols.max())):
            cell = row.index_select(-1, _within(left + right_by - left[0], image.shape[-1], image))
            counts = (down_by < rows)[:, None] & (right_by < cols)
            total += cell.where(counts.to(image.device), 0)
    return total / rows[:, None].to(image.device) / cols.to(image.device)


def _within(places: Tensor, side: int, image: Tensor) -> Tensor:
    return places.clamp(max=side - 1).to(image.device)
