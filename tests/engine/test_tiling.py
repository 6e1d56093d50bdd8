"""Tiles cover the image once, share one window shape, and hold all the context asked for.

Blended ones cover it with weights that sum to 1, and fade into each other.
"""

import weakref
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import conv2d

from sr_cli.engine import tiling
from sr_cli.engine.small import SmallTiler, cached
from sr_cli.engine.tiling import (
    Tile,
    Tiler,
    blended_tiles,
    over_tiles,
    paste,
    scaled,
    tiles,
)

CPU = torch.device("cpu")
SHORT = st.integers(1, 60)
SIDES = st.integers(1, 20).map(lambda n: 16 * n)


@given(SIDES, SIDES, st.integers(0, 200), st.integers(0, 90))
def test_cores_partition_the_image(height: int, width: int, core: int, margin: int) -> None:
    hits = torch.zeros(height, width, dtype=torch.int)
    for tile in tiles(height, width, core=core, margin=margin, multiple=16):
        hits[tile.core] += 1
    assert (hits == 1).all()


@given(SIDES, SIDES, st.integers(0, 200), st.integers(0, 90))
def test_windows_have_one_shape_and_hold_the_margin(
    height: int, width: int, core: int, margin: int
) -> None:
    places = tiles(height, width, core=core, margin=margin, multiple=16)
    assert len({tuple(side.stop - side.start for side in tile.window) for tile in places}) == 1
    for tile in places:
        sides = zip(tile.core, tile.window, (height, width), strict=True)
        for inner, outer, length in sides:
            assert outer.start % 16 == 0
            assert 0 <= outer.start <= max(0, inner.start - margin)
            assert min(length, inner.stop + margin) <= outer.stop <= length


def blur(image: Tensor) -> Tensor:
    """Zero-padded 7×7 mean: it sees 3 pixels, and the image's border."""
    return conv2d(image, torch.full((1, 1, 7, 7), 1 / 49), padding=3)


def swept(image: Tensor, places: list[Tile], batch: int = 1) -> Tensor:
    result = torch.full_like(image, torch.nan)
    windows = over_tiles(blur, lambda _, w: (image[(..., *w)],), [places], batch=batch, device=CPU)
    for _, tile, values in windows:
        paste(result, tile, values)
    return result


def test_a_margin_of_the_receptive_field_is_exact_and_less_is_not() -> None:
    image = torch.rand(1, 1, 48, 80, generator=torch.Generator().manual_seed(1))
    for batch in (1, 3):
        exact = swept(image, tiles(48, 80, core=16, margin=3, multiple=1), batch)
        torch.testing.assert_close(exact, blur(image))
    short = swept(image, tiles(48, 80, core=16, margin=2, multiple=1))
    assert (short - blur(image)).abs().max() > 1e-3


@given(st.integers(1, 90), st.integers(1, 90), st.integers(1, 40), st.integers(0, 40))
def test_blended_windows_have_one_shape_and_the_overlap(
    height: int, width: int, window: int, overlap: int
) -> None:
    places = blended_tiles(height, width, window=window, overlap=overlap)
    shape = (min(window, height), min(window, width))
    assert {tuple(side.stop - side.start for side in tile.window) for tile in places} == {shape}
    for axis, side in enumerate((height, width)):
        spans = sorted({(tile.core[axis].start, tile.core[axis].stop) for tile in places})
        assert (spans[0][0], spans[-1][1]) == (0, side)
        shared = min(overlap, shape[axis] // 2)
        assert all(one[1] - other[0] >= shared for one, other in pairwise(spans))


@settings(max_examples=40)
@given(SHORT, SHORT, st.integers(5, 30), st.integers(0, 30), st.integers(1, 4))
def test_weights_sum_to_one(height: int, width: int, window: int, overlap: int, scale: int) -> None:
    total = torch.zeros(scale * height, scale * width)
    for tile in blended_tiles(height, width, window=window, overlap=overlap):
        assert (tile.weight(scale) >= 0).all()
        total[scaled(tile.core, scale)] += tile.weight(scale)
    torch.testing.assert_close(total, torch.ones_like(total), atol=1e-5, rtol=0)


def plus_mean(window: Tensor) -> Tensor:
    """What no margin makes exact: every cell sees the whole window."""
    return window + window.mean(dim=(1, 2, 3), keepdim=True)


def edge(image: Tensor, places: list[Tile]) -> float:
    """The steepest edge that the tiles of `places` add to the image."""
    result = torch.zeros_like(image)
    windows = over_tiles(plus_mean, lambda _, w: (image[(..., *w)],), [places], batch=2, device=CPU)
    for _, tile, values in windows:
        paste(result, tile, values)
    added = result - image
    return max(float(added.diff(dim=dim).abs().max()) for dim in (-1, -2))


def test_blended_tiles_fade_into_each_other_and_exact_ones_do_not() -> None:
    """Two Gaussians whose variance is overlap · stride / 8 share by a logistic function, which is
    steepest in their middle, where it gains 2/overlap a cell."""
    ramp = torch.arange(160.0).expand(1, 1, 64, 160)
    stride, overlap = 48, 16
    blended = edge(ramp, blended_tiles(64, 160, window=stride + overlap, overlap=overlap))
    cut = edge(ramp, tiles(64, 160, core=stride, margin=overlap // 2, multiple=1))
    assert cut >= stride / 2
    assert blended <= 1.05 * stride * 2 / overlap < cut / 3


def test_tiles_of_one_shape_share_batches_whosever_they_are() -> None:
    pictures = [torch.rand(1, 1, height, 16) for height in (16, 32, 16)]
    places = [tiles(p.shape[-2], 16, core=0, margin=0, multiple=16) for p in pictures]
    calls: list[int] = []

    def identity(windows: Tensor) -> Tensor:
        calls.append(len(windows))
        return windows

    read = lambda i, w: (pictures[i][(..., *w)],)  # noqa: E731
    for picture, tile, values in over_tiles(identity, read, places, batch=8, device=CPU):
        assert torch.equal(values, pictures[picture][(..., *tile.core)])
    assert sorted(calls) == [1, 2]


@pytest.mark.parametrize(("device", "cleared"), [("cuda", 1), ("cpu", 0)])
def test_a_gpu_that_is_full_gives_back_what_torch_keeps(
    monkeypatch: pytest.MonkeyPatch, device: str, cleared: int
) -> None:
    """Before the retry, when nothing of the failed attempt is held any more."""
    real, seen, events = over_tiles, [], []  # type: ignore[var-annotated]

    def fill(windows: Tensor) -> Tensor:
        events.append("call")
        if not seen:
            seen.append(weakref.ref(windows))
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return windows

    def clear() -> None:
        assert seen[0]() is None
        events.append("clear")

    monkeypatch.setattr(torch.cuda, "empty_cache", clear)
    monkeypatch.setattr(tiling, "over_tiles", lambda *a, **k: real(*a, **{**k, "device": CPU}))
    image, result = torch.rand(1, 3, 16, 16), torch.zeros(1, 3, 16, 16)
    tiles_ = Tiler(torch.device(device), batch=2, cores=[0], margin=0)
    tiles_.fill(fill, lambda _, window: (image[(..., *window)].clone(),), [result])
    assert torch.equal(result, image)
    assert events == ["call", *["clear"] * cleared, "call"]


@pytest.mark.parametrize(("width", "shape"), [(512, (128, 512)), (6144, (32, 2048))])
def test_small_tiles_are_long_and_of_as_many_pixels_as_a_square(
    width: int, shape: tuple[int, int]
) -> None:
    found = set[tuple[int, ...]]()

    def noted(x: Tensor) -> Tensor:
        found.add(tuple(x.shape[-2:]))
        return x

    image = torch.zeros(1, 1, 1, 1).expand(1, 1, 256, width)
    result = torch.ones(1, 1, 256, width, dtype=torch.uint8)
    SmallTiler.of(256, 0, CPU).fill(noted, lambda _, w: (image[(..., *w)],), [result])
    assert found == {shape}
    assert not result.any()


def test_tiles_of_a_cache_are_larger_where_there_is_none_to_fill() -> None:
    assert cached(256, CPU) == 256 < cached(256, torch.device("cuda"))


@pytest.mark.parametrize(("largest", "told"), [(12, True), (20, False), (200, False)])
def test_tiles_that_are_mostly_margins_are_told_of(
    monkeypatch: pytest.MonkeyPatch, largest: int, told: bool
) -> None:
    """Once, however often the tiles are filled; of tiles that were asked for never."""
    monkeypatch.setattr(tiling, "SMALLEST_TILE", {"exact": 1})
    monkeypatch.setattr(Tiler, "_largest", lambda _: largest)
    notes: list[tuple[int, str]] = []
    image = torch.rand(1, 1, 40, 40)
    tiler = Tiler(CPU, 1, [None], margin=5, on_note=lambda *note: notes.append(note))
    asked = Tiler(CPU, 1, [2], margin=5, on_note=lambda *note: notes.append(note))
    for filled in (tiler, tiler, asked):
        result = torch.empty_like(image)
        filled.fill(blur, lambda _, window: (image[(..., *window)],), [result])
        assert torch.allclose(result, blur(image), atol=1e-6)
    assert [picture for picture, _ in notes] == [0] * told
    assert all("tiles of 2 pixels make 36 times the work" in text for _, text in notes)
