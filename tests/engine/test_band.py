"""Rows that come from above to below: what is kept is what came."""

import pytest
import torch

from sr_cli.engine.stream.band import Band


@pytest.mark.parametrize("most", [0, 7, 100])
def test_a_band_keeps_what_came_at_its_place(most: int) -> None:
    random = torch.Generator().manual_seed(0)
    whole = torch.rand(1, 2, 300, 5, generator=random)
    band, forgotten = Band(most), 0
    while band.bottom < 300:
        more = int(torch.randint(1, 20, (), generator=random))
        band.add(whole[..., band.bottom : band.bottom + more, :])
        assert torch.equal(
            band[slice(band.top, band.bottom), slice(1, 4)], whole[..., band.top : band.bottom, 1:4]
        )
        forgotten = max(forgotten, band.bottom - int(torch.randint(0, 30, (), generator=random)))
        band.forget(forgotten)
        band.forget(forgotten - 1)  # which is gone already
        assert band.top == forgotten
    assert band.bottom == 300


def test_a_band_takes_no_more_room_than_is_kept() -> None:
    band = Band(8)
    places = set[int]()
    for top in range(0, 400, 4):
        band.add(torch.full((1, 1, 4, 3), float(top)))
        band.forget(band.bottom - 8)
        places.add(band[slice(band.top, band.bottom), slice(0, 3)].untyped_storage().nbytes())
    assert places == {(8 + 4) * 3 * 4}
