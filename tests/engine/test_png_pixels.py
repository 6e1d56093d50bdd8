"""What is written as PNG is read as it was, whatever deflates it and in what strips."""

import io
import sys
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib import reload
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from sr_cli.engine import formats, png_pixels
from sr_cli.engine.crew import Crew
from sr_cli.engine.metadata import Metadata
from sr_cli.engine.writers import Samples


def encoded(samples: Samples) -> bytes:
    file = io.BytesIO()
    formats.encode(samples, Metadata(), file, "png", 90)
    return file.getvalue()


def decoded(data: bytes) -> Samples:
    """By OpenCV, which reads 16 bits of colour too."""
    found: Any = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    order = {3: [2, 1, 0], 4: [2, 1, 0, 3]}
    samples: Samples = found if found.ndim == 2 else found[..., order[found.shape[2]]]
    return samples


def photograph(height: int, width: int) -> Samples:
    noise = np.random.default_rng(0).normal(0, 3, (height, width, 3))
    slope = np.linspace(0, 200, width)[:, None] + np.linspace(0, 40, height)[:, None, None]
    return np.clip(slope + noise, 0, 255).astype(np.uint8)


def drawing(height: int, width: int) -> Samples:
    squares = np.indices((height, width)).sum(axis=0) // 9 % 2
    return np.repeat(squares[..., None] * 200, 3, axis=2).astype(np.uint8)


@settings(max_examples=60)
@given(
    samples=st.tuples(
        st.sampled_from([np.uint8, np.uint16]),
        st.tuples(st.integers(1, 9), st.integers(1, 9)),
        st.sampled_from([(), (3,), (4,)]),
    ).flatmap(lambda kind: arrays.arrays(kind[0], kind[1] + kind[2]))
)
@pytest.mark.parametrize("strip", [1, 30, 1 << 20])
def test_any_samples_are_read_as_they_were(strip: int, samples: Samples) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(png_pixels, "STRIP", strip)
        data = encoded(samples)
    assert np.array_equal(decoded(data), samples)
    with Image.open(io.BytesIO(data)) as image:
        image.verify()


@pytest.mark.parametrize("picture", [photograph, drawing])
def test_strips_join_to_one_sound_stream(monkeypatch: pytest.MonkeyPatch, picture: object) -> None:
    """Its checksum is that of all; and one that is not is noticed."""
    assert callable(picture)
    samples: Samples = picture(150, 70)
    whole = zlib.decompress(b"".join(png_pixels.stream(samples)))
    monkeypatch.setattr(png_pixels, "STRIP", 5000)
    stream = b"".join(png_pixels.stream(samples))
    assert zlib.decompress(stream) == whole
    with pytest.raises(zlib.error):
        zlib.decompress(stream[:-1] + bytes([stream[-1] ^ 1]))


def test_drawings_and_photographs_are_smaller_than_by_pillow() -> None:
    for samples in (photograph(300, 400), drawing(300, 400)):
        file = io.BytesIO()
        Image.fromarray(samples).save(file, "PNG", compress_type=zlib.Z_RLE)
        assert len(encoded(samples)) < len(file.getvalue())


def test_what_is_smooth_is_no_drawing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Although most of what is left of it is 0: a search would make it larger."""
    noise = np.random.default_rng(0).normal(0, 0.4, (300, 400, 3))
    smooth = np.rint(100 + noise).astype(np.uint8)
    filtered = np.frombuffer(zlib.decompress(b"".join(png_pixels.stream(smooth))), np.uint8)
    assert np.count_nonzero(filtered == 0) > 0.5 * filtered.size
    size = len(encoded(smooth))
    monkeypatch.setattr(png_pixels, "DRAWN_FROM", 0)
    assert len(encoded(smooth)) > 1.05 * size


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("threads")
def test_no_more_threads_than_torch_has_write(monkeypatch: pytest.MonkeyPatch) -> None:
    """And a thread that writes has as many as the run, whatever goes on beside it."""
    asked = list[int]()

    def pool(max_workers: int) -> ThreadPoolExecutor:
        asked.append(max_workers)
        return ThreadPoolExecutor(max_workers)

    monkeypatch.setattr(png_pixels, "ThreadPoolExecutor", pool)
    for count in (1, 2):
        torch.set_num_threads(count)
        with Crew(1) as crew:
            torch.set_num_threads(1)
            crew.writers.submit(encoded, drawing(20, 20)).result()
    assert asked == [1, 2]


@pytest.fixture
def without_zlib_ng(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setitem(sys.modules, "zlib_ng", None)
    reload(png_pixels)
    yield
    monkeypatch.undo()
    reload(png_pixels)


@pytest.mark.usefixtures("without_zlib_ng")
def test_without_zlib_ng_the_pixels_are_the_same() -> None:
    assert png_pixels.zlib is zlib
    for samples in (photograph(60, 70), drawing(60, 70)):
        assert np.array_equal(decoded(encoded(samples)), samples)
