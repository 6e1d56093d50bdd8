"""Raw frames of a video: rgb24 in, larger ones out, as many at a time as make a batch."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import IO, TypeAlias

import numpy as np
from numpy.typing import NDArray

from sr_cli.engine.batch import Upscale
from sr_cli.engine.pictures import as_picture, colors, form_of
from sr_cli.engine.pictures import enlarged as as_frame
from sr_cli.engine.tiling import ignore
from sr_cli.errors import InputError

Frame: TypeAlias = NDArray[np.uint8]
"""(H, W, 3), RGB."""


def frames(stream: IO[bytes], width: int, height: int) -> Iterator[Frame]:
    """The frames of a stream of rgb24, one after another.

    Raises InputError at a last one that is cut.
    """
    length = width * height * 3
    number = 0
    while data := stream.read(length):
        number += 1
        if len(data) < length:
            raise InputError(
                f"Frame {number} on stdin is cut: {len(data)} of {length} bytes. Are frames "
                f"{width}x{height} pixels (--frames), and is their format rgb24?"
            )
        yield np.frombuffer(data, np.uint8).reshape(height, width, 3)


def enlarged(source: Iterable[Frame], upscale: Upscale) -> Iterator[Frame]:
    """Each frame as the picture that it is alone, in their order; one that repeats the one before
    is not made again. At most a batch of them is in memory."""
    before: Frame | None = None
    last: Frame | None = None
    for group in _batches(source, upscale):
        fresh: list[Frame] = []
        places = []
        for frame in group:
            if before is None or not np.array_equal(frame, before):
                fresh.append(frame)
            before = frame
            places.append(len(fresh) - 1)  # -1: that of the group before
        results = _together(fresh, upscale) if fresh else []
        for place in places:
            result = results[place] if place >= 0 else last
            assert result is not None
            yield result
            last = result


def _batches(source: Iterable[Frame], upscale: Upscale) -> Iterator[list[Frame]]:
    group: list[Frame] = []
    for frame in source:
        group.append(frame)
        height, width, _ = frame.shape
        if len(group) >= math.ceil(1 / upscale.share(width, height)):
            yield group
            group = []
    if group:
        yield group


def _together(group: list[Frame], upscale: Upscale) -> list[Frame]:
    given = [as_picture(frame) for frame in group]
    hrs = upscale.together(
        [colors(picture) for picture in given],
        forms=[form_of(picture, "png") for picture in given],
        on_step=ignore,
        on_note=ignore,
    )
    return [
        as_frame(picture, "png", hr).samples.astype(np.uint8, copy=False)
        for picture, hr in zip(given, hrs, strict=True)
    ]
