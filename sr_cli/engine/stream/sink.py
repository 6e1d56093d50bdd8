"""Rows to a file: written as they come or, for some formats, collected."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import IO

import numpy as np
import numpy.typing as npt

from sr_cli.engine.formats import encode, writer
from sr_cli.engine.images import with_metadata
from sr_cli.engine.metadata import Metadata
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

    def take(self, parts: Iterable[tuple[slice, Samples]]) -> None:
        """Write rows, (h, W, C), that come from above to below and cover the picture.

        Raises what libraries do where something cannot be written.
        """
        if self.format in BY_ROWS:
            rows = with_metadata(
                self.file,
                self.metadata,
                lambda held: writer(self.shape, self.dtype, held, self.file, self.format),
            )
            for _, samples in parts:
                rows.write(samples)
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
