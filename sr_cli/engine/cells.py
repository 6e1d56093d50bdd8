"""How pictures become the cells of a model's states: padded, and cut into tiles."""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import torch
import torch.nn.functional as F
from torch import Tensor

from sr_cli.device import free_memory
from sr_cli.engine.options import AT_ONCE, AUTO, UpscaleOptions
from sr_cli.engine.tiling import MEMORY_SHARE, OnNote, Tiler, ignore
from sr_cli.models.model import Model


@dataclass(frozen=True)
class Cells:
    """Of one model under some options on a device."""

    model: Model
    options: UpscaleOptions
    device: torch.device

    @property
    def unit(self) -> int:
        """Output pixels of which an image's sides are multiples before it is encoded."""
        return self.model.cell * self.model.multiple_of

    def padded(self, image: Tensor) -> Tensor:
        """(1, 3, H, W), replicated at the right and the bottom up to multiples of `unit`."""
        bottom, right = (-side % self.unit for side in image.shape[-2:])
        if not (bottom or right):
            return image  # which torch would copy
        return F.pad(image, (0, right, 0, bottom), mode="replicate")

    def share(self, width: int, height: int) -> Fraction:
        """Of a batch, that an LR picture of this size is: its tiles over those at a time."""
        tiler = self.tiler([(width, height)])
        return Fraction(tiler.count(0, *self._sides(width, height)), tiler.batch)

    def batch(self, sizes: Sequence[tuple[int, int]]) -> int:
        """How many tiles of LR pictures of these sizes (width, height) are worked on at a time.

        By `auto` one on a CPU, whose cores one tile keeps busy, and on a GPU as many of the largest
        tile as half of the memory that a network call may take holds, at most AT_ONCE.
        """
        chosen = self.options.batch
        if chosen != AUTO:
            return chosen
        if self.device.type != "cuda":
            return 1
        largest = max(self._window(*size) for size in sizes)
        budget = MEMORY_SHARE * free_memory(self.device) / 2
        needed = largest * self.model.bytes_per_pixel * self.model.cell**2
        return max(1, min(AT_ONCE, int(budget / needed)))

    def _window(self, width: int, height: int) -> int:
        """Cells that a tile of an LR picture of this size reads, at most."""
        model, core = self.model, self._core(width, height)
        sides = self._sides(width, height)
        if not core:
            return sides[0] * sides[1]
        wide = core if model.tiling == "blend" else core + 2 * self._margin
        return min(wide, sides[0]) * min(wide, sides[1])

    def _sides(self, width: int, height: int) -> tuple[int, int]:
        """Rows and columns of cells of an LR picture of this size."""
        wide, high = self.options.size.of(width, height)
        rows, cols = (-(-side // self.unit) * self.model.multiple_of for side in (high, wide))
        return rows, cols

    @property
    def _margin(self) -> int:
        """Cells around a tile."""
        overlap = self.options.overlap
        return -(-(self.model.margin if overlap is None else overlap) // self.model.cell)

    def tiler(self, sizes: Sequence[tuple[int, int]], on_note: OnNote = ignore) -> Tiler:
        """For the states of LR pictures of these sizes (width, height)."""
        model = self.model
        return Tiler(
            self.device,
            self.batch(sizes),
            [self._core(*size) for size in sizes],
            margin=self._margin,
            multiple=model.multiple_of,
            tiling=model.tiling,
            cell=model.cell,
            bytes_per_cell=model.bytes_per_pixel * model.cell**2,
            on_note=on_note,
        )

    def _core(self, width: int, height: int) -> int | None:
        """A tile's cells, from LR pixels where the user chose them; 0: all, None: by memory."""
        tile, cell = self.options.tile, self.model.cell
        if tile is None:
            return self.model.tile and self.model.tile // cell
        wide, high = self.options.size.of(width, height)
        return tile and max(1, round(tile * max(wide / width, high / height) / cell))
