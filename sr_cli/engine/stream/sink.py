"""Rows of tiles to a file: put side by side, and written or, for some formats, collected."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import IO

import numpy as np
import numpy.typing as npt

from sr_cli.engine.formats import encode, writer
from sr_cli.engine.images import with_metadata
from sr_cli.engine.metadata import Metadata
from sr_cli.engine.tiling import Window
from sr_cli.engine.writers import BY_ROWS, Samples, Shape


@dataclass(frozen=True)
class Sink:
    """A file of one format, open for writing, for samples (H, W, C)."""

    file: IO[bytes]
    format: str
    shape: Shape
    dtype: npt.DTypeLike
    metadata: Metadata
    quality: int

    def take(self, parts: Iterable[tuple[Window, Samples]]) -> None:
        """Write parts, (h, w, C), that come from left to right and from above to below in rows of
        one height each, and cover the picture.

        Raises what libraries do where something cannot be written.
        """
        if self.format in BY_ROWS:
            rows = with_metadata(
                self.file,
                self.metadata,
                lambda held: writer(self.shape, self.dtype, held, self.file, self.format),
            )
            for band in self._bands(parts):
                rows.write(band)
            rows.close()
            return
        picture = np.empty(self.shape, self.dtype)
        for place, samples in parts:
            picture[place] = samples
        flat = picture[..., 0] if self.shape[2] == 1 else picture
        with_metadata(
            self.file,
            self.metadata,
            lambda held: encode(flat, held, self.file, self.format, self.quality),
        )

    def _bands(self, parts: Iterable[tuple[Window, Samples]]) -> Iterable[Samples]:
        """Whole rows."""
        band = np.empty((0, *self.shape[1:]), self.dtype)
        for (_, cols), samples in parts:
            if len(band) != len(samples):
                band = np.empty((len(samples), *self.shape[1:]), self.dtype)
            band[:, cols] = samples
            if cols.stop == self.shape[1] and len(band):
                yield band
