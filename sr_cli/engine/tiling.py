"""Tiles of an image, exact or blended, and images filled with as many at a time as memory holds.

Exact tiles have disjoint cores inside windows that hold the receptive field. Where a network sees
its whole window (attention, group norm) no margin is exact: then windows overlap, and what they
give is averaged with Gaussian weights (Jiménez, *Mixture of Diffusers*, arXiv 2302.02412), so that
one fades into the next.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import groupby, product
from typing import Any

import torch
from torch import Tensor

from sr_cli.device import free_memory
from sr_cli.each import Each
from sr_cli.errors import DeviceError, is_out_of_memory
from sr_cli.models.graphs import give_back
from sr_cli.models.model import Tiling

Window = tuple[slice, slice]
"""Rows and columns of an image."""


@dataclass(frozen=True)
class Tile:
    """`core`: what the tile gives. `window`: what it reads. Cores cover the image.

    Exact cores are disjoint. Blended ones are windows that overlap: `grid` holds the rows and the
    columns of all of them, since they share the weight of a cell.
    """

    core: Window
    window: Window
    grid: tuple[Sequence[slice], Sequence[slice]] | None = None

    @property
    def core_in_window(self) -> Window:
        """The core's place inside the window."""
        rows, cols = (
            slice(core.start - window.start, core.stop - window.start)
            for core, window in zip(self.core, self.window, strict=True)
        )
        return rows, cols

    @property
    def blends(self) -> bool:
        """Whether other tiles have a share in its core."""
        return self.grid is not None

    def weight(self, scale: int = 1, device: torch.device | str = "cpu") -> Tensor:
        """A blended tile's share in its core, (scale·h, scale·w) float32; all tiles' sum is 1."""
        assert self.grid is not None
        rows, cols = (
            _share(own.start, tuple((span.start, span.stop) for span in every), scale, device)
            for own, every in zip(self.core, self.grid, strict=True)
        )
        return rows[:, None] * cols


def tiles(
    height: int, width: int, *, core: int | tuple[int, int], margin: int, multiple: int
) -> list[Tile]:
    """Tiles of one window shape over an image whose sides are multiples of `multiple`.

    Cores are `core` pixels high and wide (rounded up to the multiple; 0: the whole image); windows
    add `margin` on each side, shifted inwards at the image's border so that all have one shape.
    """
    sides = zip((height, width), core if isinstance(core, tuple) else (core, core), strict=True)
    rows, cols = (_spans(side, own or side, margin, multiple) for side, own in sides)
    return [
        Tile((inner_y, inner_x), (outer_y, outer_x))
        for (inner_y, outer_y), (inner_x, outer_x) in product(rows, cols)
    ]


def _spans(side: int, core: int, margin: int, multiple: int) -> list[tuple[slice, slice]]:
    core, margin = (-(-length // multiple) * multiple for length in (core, margin))
    window = min(side, core + 2 * margin)
    spans = []
    for start in range(0, side, core):
        outer = min(max(start - margin, 0), side - window)
        spans.append((slice(start, min(start + core, side)), slice(outer, outer + window)))
    return spans


def blended_tiles(height: int, width: int, *, window: int, overlap: int) -> list[Tile]:
    """Windows of one shape, evenly spaced, that share at least `overlap` cells with the next.

    window: side in cells, the image's own side where that is smaller; 0: the whole image.
    overlap: at most half a window, else that.
    """
    rows, cols = (_even(side, min(window or side, side), overlap) for side in (height, width))
    return [Tile((y, x), (y, x), (rows, cols)) for y, x in product(rows, cols)]


def _even(side: int, window: int, overlap: int) -> list[slice]:
    stride = window - min(overlap, window // 2)
    gaps = -(-(side - window) // stride)
    starts = [round(i * (side - window) / gaps) for i in range(gaps + 1)] if gaps else [0]
    return [slice(start, start + window) for start in starts]


@lru_cache(maxsize=1024)  # a step asks for what the last one did
def _share(
    begin: int, every: tuple[tuple[int, int], ...], scale: int, device: torch.device | str
) -> Tensor:
    """Share, float32, of the window that begins there in each of its cells.

    It is a Gaussian over the sum of all windows'. Their deviation is such that a window has 2 % of
    the weight (1/(1 + e⁴)) at its edge inside a neighbour, and all of it where it is alone.
    """
    own = [start for start, _ in every].index(begin)
    begin, end = every[own]
    if len(every) == 1:
        return torch.ones(scale * (end - begin), device=device)
    window, stride = end - begin, (every[-1][0] - every[0][0]) / (len(every) - 1)
    variance = max(window - stride, 1) * stride / 8
    cells = (torch.arange(scale * begin, scale * end, dtype=torch.float64) + 0.5) / scale
    start, stop = torch.tensor(every, dtype=torch.float64).T[..., None]
    bells = -(((start + stop) / 2 - cells) ** 2) / (2 * variance)
    bells[(cells < start) | (cells > stop)] = -torch.inf
    shares: Tensor = bells.softmax(dim=0)[own].float().to(device)
    return shares


def scaled(window: Window, scale: int) -> Window:
    """The window in an image `scale` times as large."""
    rows, cols = (slice(scale * side.start, scale * side.stop) for side in window)
    return rows, cols


Read = Callable[[int, Window], tuple[Tensor, ...]]
"""Picture and window → what a network reads there, each (N, C, h, w) on any device; N is 1, or that
of all pictures of one size that are worked on as one."""


def over_tiles(
    function: Callable[..., Tensor],
    read: Read,
    places: Sequence[Sequence[Tile]],
    *,
    batch: int,
    device: torch.device,
    scale: int = 1,
    each: Each = map,
) -> Iterator[tuple[int, Tile, Tensor]]:
    """function(what is read) for every tile of every picture: (picture, tile, its core).

    places: the tiles of each picture. Up to `batch` tiles of one window shape are read at a time,
    from whatever pictures; the function gets (N', C, h, w) on `device` and gives
    (N', C', scale·h, scale·w). each: does one such call after another, as `map` does, or side by
    side.
    """

    def computed(group: Sequence[tuple[int, Tile]]) -> Tensor:
        windows = zip(*(read(picture, tile.window) for picture, tile in group), strict=True)
        return function(*(together(parts).to(device) for parts in windows))

    groups = _groups(places, batch)
    for group, results in zip(groups, each(computed, groups), strict=True):
        for (picture, tile), values in zip(group, results.chunk(len(group)), strict=True):
            yield picture, tile, values[(..., *scaled(tile.core_in_window, scale))]


def _groups(places: Sequence[Sequence[Tile]], batch: int) -> list[list[tuple[int, Tile]]]:
    """Pictures and their tiles, those of one shape together, but at most a batch."""
    queue = [(picture, tile) for picture, found in enumerate(places) for tile in found]
    alike = [list(same) for _, same in groupby(sorted(queue, key=_shape), key=_shape)]
    return [same[i : i + batch] for same in alike for i in range(0, len(same), batch)]


def together(parts: Sequence[Tensor], dim: int = 0) -> Tensor:
    """Tensors as one, by default a batch; of one, itself."""
    return parts[0] if len(parts) == 1 else torch.cat(tuple(parts), dim=dim)


def _shape(place: tuple[int, Tile]) -> tuple[int, int]:
    rows, cols = place[1].window
    return rows.stop - rows.start, cols.stop - cols.start


def paste(image: Tensor, tile: Tile, values: Tensor, scale: int = 1) -> None:
    """Put what a tile gives into an image `scale` times as large; blended tiles are added to it."""
    place = (..., *scaled(tile.core, scale))
    if tile.blends:
        image[place] += (tile.weight(scale, values.device) * values).to(image.device)
    else:
        image[place] = values


SMALLEST_TILE = {"exact": 64, "blend": 256}
"""Output pixels: where even this tile does not fit, memory is short for other reasons, or a network
that sees a whole picture sees too little of it."""
MEMORY_SHARE = 0.5
"""Of the free memory: what one network call, or the state, may take."""

MUCH = 4
"""Times over may a picture be computed, margins of tiles and all, without a word."""
SLOW = "memory is short: tiles of {} pixels make {:.0f} times the work; close other programs"

OnNote = Callable[[int, str], None]
"""(picture, what its user should know)."""
OnTile = Callable[[int, int, int], None]
"""(picture, its tiles that are done, its tiles in all)."""


def of_group(listener: Callable[..., None], group: Sequence[int], k: int, *told: Any) -> None:
    """Tell of the k-th picture of a group by its place among all."""
    listener(group[k], *told)


def ignore(*_: object) -> None:
    """A listener that does nothing."""


@dataclass
class Tiler:
    """The tiles of some pictures, which it makes smaller for all that follows when memory runs out.

    Lengths are in cells of `cell` output pixels. cores: of each picture's tile, 0 for the whole
    picture, None (exact tiling alone) to choose by the free memory from `bytes_per_cell`; a blended
    tile's core is its window. margin: the context of an exact core, or what a blended window shares
    with the next. multiple: of a tile's sides. on_note(picture, text): what a user should know.
    """

    device: torch.device
    batch: int
    cores: list[int | None]
    margin: int
    multiple: int = 1
    tiling: Tiling = "exact"
    cell: int = 1
    bytes_per_cell: int = 0
    on_note: OnNote = field(default=ignore)

    def fill(
        self,
        function: Callable[..., Tensor],
        read: Read,
        images: Sequence[Tensor],
        *,
        scale: int = 1,
        on_tile: OnTile = ignore,
    ) -> None:
        """Set every image, (N, C, scale·h, scale·w), to what the function makes of its tiles.

        read, function: as for `over_tiles`. Raises DeviceError when no tile is small enough.
        """
        sizes = [(image.shape[-2] // scale, image.shape[-1] // scale) for image in images]
        largest = self._largest() if None in self.cores else 0
        before = self.cores
        self.cores = [self._core(i, *size, largest) for i, size in enumerate(sizes)]
        while True:
            places = [self._tiles(core or 0, *sizes[i]) for i, core in enumerate(self.cores)]
            try:
                with self._each() as each:
                    results = over_tiles(
                        function,
                        read,
                        places,
                        batch=self.batch,
                        device=self.device,
                        scale=scale,
                        each=each,
                    )
                    _paste_all(images, places, results, scale, on_tile)
                self._tell_of_work(before, places)
                return
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                self._halve(sizes)
            give_back(self.device)

    def _tell_of_work(self, before: list[int | None], places: list[list[Tile]]) -> None:
        """Where little memory has made exact tiles so small that margins are most of the work."""
        for i, found in enumerate(places):
            (high, wide), (rows, cols) = _shape((i, found[-1])), found[-1].core
            times = len(found) * high * wide / (rows.stop * cols.stop)
            if self.tiling == "exact" and self.cores[i] != before[i] and times > MUCH:
                self.on_note(i, SLOW.format((self.cores[i] or 0) * self.cell, times))

    def _each(self) -> AbstractContextManager[Each]:
        """How one call after another is made."""
        return nullcontext(map)

    def count(self, picture: int, height: int, width: int) -> int:
        """Number of tiles of a picture of height × width cells."""
        largest = self._largest() if self.cores[picture] is None else 0
        return len(self._tiles(self._core(picture, height, width, largest), height, width))

    def _tiles(self, core: int, height: int, width: int) -> list[Tile]:
        if self.tiling == "blend":
            window = -(-core // self.multiple) * self.multiple
            return blended_tiles(height, width, window=window, overlap=self.margin)
        return tiles(height, width, core=core, margin=self.margin, multiple=self.multiple)

    def _core(self, picture: int, height: int, width: int, largest: int) -> int:
        core = self.cores[picture]
        if core is not None:
            return core
        smallest = SMALLEST_TILE[self.tiling] // self.cell
        return 0 if height * width <= largest**2 else max(smallest, largest - 2 * self.margin)

    def _largest(self) -> int:
        """The side of a window for which there is memory."""
        budget = MEMORY_SHARE * free_memory(self.device) / self.batch
        return int((budget / self.bytes_per_cell) ** 0.5)

    def _halve(self, sizes: Sequence[tuple[int, int]]) -> None:
        """Fewer tiles at a time; then the largest tiles in half."""
        if self.batch > 1:
            self.batch //= 2
            return
        sides = [max(size) for size in sizes]
        cores = [min(core or side, side) for core, side in zip(self.cores, sides, strict=True)]
        largest = max(cores)
        smallest = SMALLEST_TILE[self.tiling] // self.cell
        if largest // 2 < smallest:
            raise DeviceError(
                f"{self.device} has too little free memory for tiles of {largest * self.cell} "
                "pixels: close other programs or use another --device."
            )
        self.cores = [core // 2 if core == largest else core for core in cores]
        if self.tiling == "blend":
            for picture in (i for i, core in enumerate(cores) if core == largest):
                pixels = largest // 2 * self.cell
                self.on_note(picture, f"memory is short: tiles of {pixels} pixels")


def _paste_all(
    images: Sequence[Tensor],
    places: Sequence[Sequence[Tile]],
    results: Iterable[tuple[int, Tile, Tensor]],
    scale: int,
    on_tile: OnTile,
) -> None:
    for image, found in zip(images, places, strict=True):
        if found[0].blends:  # they are added up
            image.zero_()
    done = [0] * len(images)
    for picture, tile, values in results:
        paste(images[picture], tile, values, scale)
        done[picture] += 1
        on_tile(picture, done[picture], len(places[picture]))
