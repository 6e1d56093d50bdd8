"""Tiles cover the image once, share one window shape, and hold all the context asked for."""

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import conv2d

from sr_cli.engine.tiling import Tile, sweep, tiles

CPU = torch.device("cpu")
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
    for tile, values in sweep(blur, [image], places, batch=batch, device=CPU):
        result[(..., *tile.core)] = values
    return result


def test_a_margin_of_the_receptive_field_is_exact_and_less_is_not() -> None:
    image = torch.rand(1, 1, 48, 80, generator=torch.Generator().manual_seed(1))
    for batch in (1, 3):
        exact = swept(image, tiles(48, 80, core=16, margin=3, multiple=1), batch)
        torch.testing.assert_close(exact, blur(image))
    short = swept(image, tiles(48, 80, core=16, margin=2, multiple=1))
    assert (short - blur(image)).abs().max() > 1e-3
