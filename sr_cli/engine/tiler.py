"""Filling images tile by tile, with as many and as large tiles at a time as memory holds."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from sr_cli.engine.device import free_memory
from sr_cli.engine.tiling import Read, Tile, blended_tiles, paste, sweep, tiles
from sr_cli.errors import DeviceError, is_out_of_memory
from sr_cli.models.model import Tiling

SMALLEST_TILE = {"exact": 64, "blend": 256}
"""Output pixels: where even this tile does not fit, memory is short for other reasons, or a network
that sees a whole picture sees too little of it."""
MEMORY_SHARE = 0.5
"""Of the free memory: what one network call, or the state, may take."""

OnTile = Callable[[int, int, int], None]
"""(picture, its tiles that are done, its tiles in all)."""


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
    on_note: Callable[[int, str], None] = field(default=ignore)

    def fill(
        self,
        function: Callable[..., Tensor],
        read: Read,
        images: Sequence[Tensor],
        *,
        scale: int = 1,
        on_tile: OnTile = ignore,
    ) -> None:
        """Set every image, (1, C, scale·h, scale·w), to what the function makes of its tiles.

        read, function: as for `sweep`. Raises DeviceError when no tile is small enough.
        """
        sizes = [(image.shape[-2] // scale, image.shape[-1] // scale) for image in images]
        self.cores = [self._core(i, *size) for i, size in enumerate(sizes)]
        while True:
            places = [self._tiles(self._core(i, *size), *size) for i, size in enumerate(sizes)]
            results = sweep(
                function, read, places, batch=self.batch, device=self.device, scale=scale
            )
            try:
                _paste_all(images, places, results, scale, on_tile)
                return
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                self._halve(sizes)
            if self.device.type == "cuda":  # cuBLAS and cuDNN take theirs beside what torch keeps
                torch.cuda.empty_cache()

    def count(self, picture: int, height: int, width: int) -> int:
        """Number of tiles of a picture of height × width cells."""
        return len(self._tiles(self._core(picture, height, width), height, width))

    def _tiles(self, core: int, height: int, width: int) -> list[Tile]:
        if self.tiling == "blend":
            window = -(-core // self.multiple) * self.multiple
            return blended_tiles(height, width, window=window, overlap=self.margin)
        return tiles(height, width, core=core, margin=self.margin, multiple=self.multiple)

    def _core(self, picture: int, height: int, width: int) -> int:
        core = self.cores[picture]
        if core is not None:
            return core
        budget = MEMORY_SHARE * free_memory(self.device) / self.batch
        side = int((budget / self.bytes_per_cell) ** 0.5)
        smallest = SMALLEST_TILE[self.tiling] // self.cell
        return 0 if height * width <= side**2 else max(smallest, side - 2 * self.margin)

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
