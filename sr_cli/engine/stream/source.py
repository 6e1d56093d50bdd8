"""Where every window comes from: the LR picture in its own integers, and its plain enlargement."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sr_cli.diffusion.noise import digest
from sr_cli.engine.images import Floats, Picture
from sr_cli.engine.pictures import colors, neutral
from sr_cli.engine.stream.band import Band
from sr_cli.engine.stream.shelf import Shelf, Values
from sr_cli.engine.stream.windows import pillow_taps, resized, weighed
from sr_cli.engine.tiling import Window
from sr_cli.errors import DeviceError
from sr_cli.models.protocol import Preprocessor, PreprocessorByRows

IN_FILE = 32 << 20
"""Bytes of colours or alpha from which on they are kept in a file, if the disk has room."""
ROWS = 256
"""Rows that are converted at a time."""
ENTERING = 1 << 15
"""LR pixels that the preprocessing network is given at a time, in no fewer than 4 rows."""


def compact(plane: Floats) -> Values:
    """The same values, float32 in [0, 1], as the least integers that give exactly them back by
    `floats`: uint8, uint16, or float32 itself where they are on neither grid."""
    for dtype in (np.uint8, np.uint16):
        white = np.iinfo(dtype).max
        found = np.empty(plane.shape, dtype)
        for top in range(0, plane.shape[-2], ROWS):
            place = (..., slice(top, top + ROWS), slice(None))
            found[place] = np.rint(plane[place] * white)
            if not np.array_equal(floats(found[place]), plane[place]):
                break
        else:
            return found
    return np.ascontiguousarray(plane)


def floats(values: Values) -> Floats:
    """In [0, 1], as files are read."""
    if values.dtype == np.float32:
        return values.astype(np.float32, copy=False)
    return np.divide(values, 255 if values.dtype == np.uint8 else 65_535, dtype=np.float32)


@dataclass(frozen=True)
class Held:
    """An LR picture in as little memory as it needs.

    planes: colours, (3, h, w). alpha: (h, w). neutral: all colours are greys. digest: by which the
    picture's noise is known.
    """

    planes: Values | Shelf
    alpha: Values | Shelf | None
    neutral: bool
    digest: bytes

    @classmethod
    def of(cls, picture: Picture) -> Held:
        """Of a picture that nobody holds any longer after this."""
        rgb = picture.rgb
        grey = neutral(rgb)
        alpha = None if picture.alpha is None else compact(picture.alpha)
        if alpha is not None:
            rgb = colors(picture).permute(1, 2, 0).numpy()
        planes = compact(rgb.transpose(2, 0, 1))
        noise = digest(_in_8_bits(planes))
        return cls(_kept(planes), None if alpha is None else _kept(alpha), grey, noise)

    def close(self) -> None:
        """Give the room of files back."""
        for values in (self.planes, self.alpha):
            if isinstance(values, Shelf):
                values.close()

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.planes.shape[-2], self.planes.shape[-1]

    def window(self, window: Window, device: torch.device) -> Tensor:
        """(1, 3, h, w) float32 in [0, 1]."""
        rows, cols = window
        return torch.from_numpy(floats(_rows(self.planes, rows)[..., cols])).to(device)[None]

    def alpha_window(self, window: Window, size: tuple[int, int]) -> Floats | None:
        """Of the alpha of a result of this size (H, W), as `pictures.recolored` enlarges it."""
        if self.alpha is None:
            return None
        (top, down), (left, right) = (
            pillow_taps(before, after, span)
            for before, after, span in zip(self.size, size, window, strict=True)
        )
        rows = slice(int(top[0]), min(self.size[0], int(top[-1]) + down.shape[1]))
        plane = floats(_rows(self.alpha, rows))
        return np.clip(weighed(weighed(plane.T, left, right).T, top - top[0], down), 0, 1)


def _kept(values: Values) -> Values | Shelf:
    if values.nbytes >= IN_FILE:
        with suppress(DeviceError):
            return Shelf.of(values)
    return values


def _rows(values: Values | Shelf, rows: slice) -> Values:
    return values.rows(rows) if isinstance(values, Shelf) else values[..., rows, :]


def _in_8_bits(planes: Values) -> npt.NDArray[np.uint8]:
    """The levels by which `states.Noise` knows a picture."""
    if planes.dtype == np.uint8:
        return planes.astype(np.uint8, copy=False)
    levels = np.empty(planes.shape, np.uint8)
    for plane, out in zip(planes, levels, strict=True):
        for top in range(0, len(plane), ROWS):
            out[top : top + ROWS] = np.rint(floats(plane[top : top + ROWS]) * 255)
    return levels


@dataclass(frozen=True)
class Source:
    """The plain enlargement of an LR picture, as often as it is wanted.

    size: (H, W) of the result. network: one that takes a picture row by row.
    """

    held: Held
    network: Preprocessor
    size: tuple[int, int]
    device: torch.device

    def begun(self) -> SourceRows:
        """The enlargement from its first row on."""
        return SourceRows(self)


class SourceRows:
    """A plain enlargement whose rows are asked for from above to below."""

    def __init__(self, source: Source) -> None:
        self._source = source
        network = source.network
        assert isinstance(network, PreprocessorByRows)
        self._network = network.by_rows(source.held.size[0])
        self._scale = network.scale
        self._entered, self._kept = 0, Band()  # LR rows so far, and what came of the last ones

    def __call__(self, window: Window) -> Tensor:
        """(1, 3, h, W) float32 in [0, 1]; beyond the picture's right and bottom as its edge."""
        held, size = self._source.held, self._source.size
        rows, cols = (
            slice(span.start, min(span.stop, side)) for span, side in zip(window, size, strict=True)
        )
        height, width = (self._scale * side for side in held.size)
        image = resized(self._preprocessed, (height, width), size, (rows, cols)).clamp(0, 1)
        right, bottom = window[1].stop - cols.stop, window[0].stop - rows.stop
        if not (right or bottom):
            return image
        return torch.nn.functional.pad(image, (0, right, 0, bottom), mode="replicate")

    def _preprocessed(self, window: Window) -> Tensor:
        """Of the network's answer, at its own scale: rows that begin no earlier than before."""
        rows, held = window[0], self._source.held
        while self._kept.bottom < rows.stop:
            end = self._entered + max(4, ENTERING // held.size[1])
            entering = slice(self._entered, min(end, held.size[0]))
            self._entered = entering.stop
            image = held.window((entering, slice(0, held.size[1])), self._source.device)
            for more in self._network(image):
                self._kept.add(more)
        self._kept.forget(rows.start)
        return self._kept[window]
