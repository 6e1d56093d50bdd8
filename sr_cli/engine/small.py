"""Tiles for many small operations, which are fastest on what stays in a processor's cache."""

from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch

from sr_cli.device import side_by_side
from sr_cli.each import Each
from sr_cli.engine.tiling import Tile, Tiler, tiles

LONG = 8
"""Times its side as wide may a square be whose pixels are worked on at a time: memory is read along
rows."""
ROUND = 16
"""Of a tile's rows, a multiple: that of the pixels of most cells."""
WIDER = 4
"""Times as large a side on a GPU, where launches cost more than caches give."""


def cached(tile: int, device: torch.device) -> int:
    """The side of a square of as many pixels as are best worked on at a time, where that is `tile`
    on a CPU."""
    return tile if device.type == "cpu" else WIDER * tile


@dataclass
class SmallTiler(Tiler):
    """Exact tiles of as many pixels as a square, but as long as the picture is wide if they can be;
    a CPU's threads each have tiles of their own."""

    @classmethod
    def of(cls, tile: int, margin: int, device: torch.device) -> "SmallTiler":
        """Of one picture. tile: the square's side on a CPU."""
        return cls(device, 1, [cached(tile, device)], margin)

    def _tiles(self, core: int, height: int, width: int) -> list[Tile]:
        across = min(LONG * core, width)
        down = max(core**2 // across // ROUND, 1) * ROUND
        return tiles(height, width, core=(down, across), margin=self.margin, multiple=self.multiple)

    def _each(self) -> AbstractContextManager[Each]:
        return side_by_side(self.device)
