"""How pictures become the cells of a model's states: padded, and cut into tiles."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from sr_cli.engine.options import UpscaleOptions
from sr_cli.engine.tiling import OnNote, Tiler, ignore
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
        return F.pad(image, (0, right, 0, bottom), mode="replicate")

    def count(self, width: int, height: int) -> int:
        """Tiles of an LR picture of this size: its network calls in each step."""
        wide, high = self.options.size.of(width, height)
        rows, cols = (-(-side // self.unit) * self.model.multiple_of for side in (high, wide))
        return self.tiler([(width, height)]).count(0, rows, cols)

    def tiler(self, sizes: Sequence[tuple[int, int]], on_note: OnNote = ignore) -> Tiler:
        """For the states of LR pictures of these sizes (width, height)."""
        model, options = self.model, self.options
        margin = model.margin if options.overlap is None else options.overlap
        return Tiler(
            self.device,
            options.batch,
            [self._core(*size) for size in sizes],
            margin=-(-margin // model.cell),
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
