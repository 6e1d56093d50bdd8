"""How many tiles go together, by the free memory of a GPU and the sizes of the pictures."""

from fractions import Fraction
from typing import Any

import pytest
import torch

from sr_cli.engine import cells, tiling
from sr_cli.engine.cells import Cells
from sr_cli.engine.options import AT_ONCE, UpscaleOptions
from sr_cli.models.model import Model
from sr_cli.models.pixels import PixelCodec

GPU, CPU = torch.device("cuda"), torch.device("cpu")
SMALL, LARGE = (16, 16), (64, 64)
BYTES = 100
"""Of a network call for each output pixel."""


class Nothing:
    """A denoiser that is not called."""

    def predict_x0(self, x: torch.Tensor, **_: Any) -> torch.Tensor:
        raise AssertionError


def of(device: torch.device = GPU, **changes: Any) -> Cells:
    model = Model(Nothing(), PixelCodec(), "scaled_linear", "x0", 16, 32, BYTES)
    return Cells(model, UpscaleOptions(**changes), device)


@pytest.fixture
def room(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Lets a GPU have room for so many small pictures at a time."""

    def has(pictures: float) -> None:
        free = int(2 / tiling.MEMORY_SHARE * pictures * 64 * 64 * BYTES) + 1
        for module in (cells, tiling):
            monkeypatch.setattr(module, "free_memory", lambda _: free)

    return has


def test_a_batch_is_what_memory_holds(room: Any) -> None:
    room(5)
    assert of().batch([SMALL]) == 5
    assert of().batch([SMALL, LARGE, SMALL]) == 1  # the largest counts
    assert of().share(*SMALL) == Fraction(1, 5)
    room(1000)
    assert of().batch([SMALL]) == of().batch([LARGE]) == AT_ONCE
    room(0.1)
    assert of().batch([SMALL]) == 1


def test_tiles_count_with_their_margins_not_whole_pictures(room: Any) -> None:
    room(5)
    large = (1024, 16)  # tiles of 16: 64 + 2 * 32 pixels wide, 64 high: two small pictures
    assert of(tile=16).batch([large]) == 2
    assert of(tile=16, overlap=0).batch([large]) == 5
    assert of(tile=16).share(*large) == Fraction(64, 2)


def test_whole_pictures_stay_whole_in_a_batch(room: Any) -> None:
    """The Tiler, which looks at the memory again when states are there, cuts none of them."""
    for pictures in (1, 3, 5, 16):
        room(pictures)
        tiler = of().tiler([SMALL] * 20)
        assert tiler.batch == pictures
        assert tiler.count(0, 64, 64) == 1


def test_a_cpu_and_whoever_chooses_are_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cells, "free_memory", lambda _: pytest.fail("it was"))
    assert of(CPU).batch([SMALL]) == 1
    assert of(batch=7).batch([LARGE]) == of(CPU, batch=7).batch([LARGE]) == 7
