"""Which pictures are computed row by row, and by how many rows at a time."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from sr_cli.device import free_memory
from sr_cli.engine import reading
from sr_cli.engine.options import UpscaleOptions
from sr_cli.engine.source import BYTES_PER_PIXEL
from sr_cli.engine.steps import Course, Sizes
from sr_cli.engine.tiling import MEMORY_SHARE
from sr_cli.engine.timing import Timer
from sr_cli.engine.writers import BY_ROWS
from sr_cli.errors import DeviceError
from sr_cli.memory import free
from sr_cli.models import registry
from sr_cli.models.model import Model
from sr_cli.models.protocol import Preprocessor

FROM = 3_000_000
"""Output pixels from which on a picture is computed row by row: about where that takes as much
memory as at once does. Alone it is as quick, and where many pictures are it takes a tenth more."""
WORK = 560 << 20
"""Bytes that all of it would take beside the input and the networks, with what lies freed between
blocks in use, if all of that were kept: strips are so high that all shapes come to MOST."""
MOST = 540 << 20
"""Bytes beside the networks from which on what is freed goes back to the system: what the fewest
rows of 20 000 pixels need."""
WIDE, EACH, ALONE = 22 << 10, 300, 125
"""Bytes that are kept for each column, those for each pixel on its way through the networks, and
those for each of a picture that is one strip, beside which nothing goes on: as measured with the
shipped ones in bfloat16, float32 taking half as much more."""
SHARE = 0.8
"""Of the free memory, where there is less."""
ENCODED = 7
"""Bytes for each pixel of a result whose encoder takes it whole: its samples, and a copy."""
_EXACT = ("none", "compact")


def can_stream(options: UpscaleOptions, sizes: Sizes) -> bool:
    """Whether a picture of these sizes may be enlarged row by row: by networks that see
    finite surroundings, once, and with nothing that depends on the whole picture.

    Raises ModelError for unknown networks.
    """
    if options.color_fix == "adain" or options.tile == 0 or options.overlap is not None:
        return False
    if options.best_of > 1:
        return False
    if any(large < small for small, large in zip(*sizes, strict=True)):
        return False
    name = options.prior if options.method == "diffsr" else options.model
    if name not in registry.names():
        return False
    card = registry.card(name)
    preprocess = options.preprocess or card.limits.preprocess
    return card.kind in ("embedded", "prior") and preprocess in _EXACT


def streams(options: UpscaleOptions, sizes: Sizes, device: str = "cpu") -> bool:
    """Whether a picture of these sizes is enlarged row by row: one that is large, and on a
    GPU only one that its memory could not hold.

    Raises ModelError for unknown networks.
    """
    pixels = math.prod(sizes[1])
    if device.startswith("cuda"):
        whole = torch.cuda.get_device_properties(device).total_memory
        return BYTES_PER_PIXEL * pixels > MEMORY_SHARE * whole and can_stream(options, sizes)
    return pixels >= FROM and can_stream(options, sizes)


def needed(options: UpscaleOptions, sizes: Sizes, format: str) -> int:  # noqa: A002
    """Bytes below which no run can make a picture of these sizes, in one way or the other."""
    small, large = (math.prod(size) for size in sizes)
    if not streams(options, sizes):
        # In float32: preprocessed, decoded, with its colours fixed, all at one time.
        return (2 + (options.color_fix != "none")) * 12 * large
    collected = 0 if format in BY_ROWS else ENCODED * large
    return max(reading.BYTES_PER_PIXEL * small, collected)


@dataclass(frozen=True)
class Parts:
    """What enlarges one picture piece by piece: networks, and what is walked.

    dtype: of the networks.
    """

    model: Model
    preprocess: Preprocessor
    course: Course
    options: UpscaleOptions
    device: torch.device
    dtype: torch.dtype
    timer: Timer

    @property
    def precision(self) -> str:
        """The dtype's name."""
        return str(self.dtype).removeprefix("torch.")


def strip_rows(parts: Parts, sizes: Sizes) -> int:
    """Rows of the result that are begun at a time, a multiple of what the model takes.

    They do not depend on the machine's memory unless it is short, so that networks add up alike.
    """
    tile = parts.options.tile
    if tile is not None:
        return _aligned(parts, round(tile * sizes[1][1] / sizes[0][1]))
    width, height = (_aligned(parts, side, up=True) for side in sizes[1])  # as it is padded
    factor = 1.5 if parts.dtype == torch.float32 else 1.0
    work = min(WORK, SHARE * free_memory(parts.device)) / factor - WIDE * width
    whole = ALONE * width * height <= work
    return height if whole else _aligned(parts, int(work / (EACH * width)))


def most(parts: Parts, width: int) -> int:
    """Bytes beside what is held before from which on what is freed is handed back: more than MOST
    where the fewest rows of so many pixels take more, or it would be handed back all the time."""
    fewest = width * (WIDE + EACH * parts.model.multiple_of)
    return int(min(max(MOST, fewest), SHARE * free()))


def halved(rows: int, parts: Parts) -> int:
    """Half as many rows.

    Raises DeviceError where there cannot be fewer.
    """
    if rows <= parts.model.multiple_of:
        raise DeviceError(
            f"{parts.device} has too little free memory for {rows} rows of the result: "
            "close other programs or use another --device."
        )
    return _aligned(parts, rows // 2)


def _aligned(parts: Parts, rows: int, *, up: bool = False) -> int:
    """Rounded down or up, but at least once what the model takes."""
    multiple = parts.model.multiple_of
    return max(1, (rows + up * (multiple - 1)) // multiple) * multiple
