"""What is done to a window is what is done to the whole picture, to the last bit."""

from functools import partial
from itertools import pairwise, product
from typing import NoReturn

import numpy as np
import pytest
import torch
from torch import Tensor

from sr_cli.engine import guard
from sr_cli.engine.images import Picture
from sr_cli.engine.pictures import recolored
from sr_cli.engine.stream import shelf, source, windows
from sr_cli.engine.stream.shelf import Shelf
from sr_cli.engine.stream.source import Held, compact, floats
from sr_cli.engine.tiling import Window
from sr_cli.errors import DeviceError
from sr_cli.models.resampling import resize

SIZES = [((40, 50), (160, 200)), ((40, 50), (80, 100)), ((33, 47), (99, 141)), ((41, 30), (57, 91))]


def random(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0))


def cut(size: tuple[int, int], step: int = 37) -> list[Window]:
    """An image in parts of odd sizes."""
    rows, cols = (
        [slice(*pair) for pair in pairwise([*range(0, side, step), side])] for side in size
    )
    return list(product(rows, cols))


def read(image: Tensor, window: Window) -> Tensor:
    return image[(..., *window)]


@pytest.mark.parametrize(("before", "after"), [*SIZES, ((40, 50), (40, 75))])
def test_a_window_is_enlarged_as_the_whole(before: tuple[int, int], after: tuple[int, int]) -> None:
    image = random(1, 3, *before)
    whole = resize(image, after)
    for window in cut(after):
        part = windows.resized(partial(read, image), before, after, window)
        assert torch.equal(part, whole[(..., *window)])


def test_a_window_is_made_smaller_as_the_whole_up_to_rounding() -> None:
    image, after = random(1, 3, 40, 50), (23, 31)
    whole = resize(image, after)
    for window in cut(after):
        part = windows.resized(partial(read, image), (40, 50), after, window)
        assert (part - whole[(..., *window)]).abs().max() < 1e-6


def test_a_window_enlarged_for_itself_would_not_be() -> None:
    (before, after), window = SIZES[2], (slice(0, 66), slice(66, 141))
    part = resize(random(1, 3, *before)[..., :22, 22:], windows.size_of(window))
    assert not torch.equal(part, resize(random(1, 3, *before), after)[(..., *window)])


@pytest.mark.parametrize(("grid", "size"), [*SIZES, ((40, 50), (40, 50))])
def test_cells_of_a_window_are_the_means_of_the_whole(
    grid: tuple[int, int], size: tuple[int, int]
) -> None:
    image = random(1, 3, *size)
    whole = guard.reduced(image, grid)
    for window in cut(grid, 17):
        pixels = windows.pixels_of(window, grid, size)
        part = windows.reduced(image[(..., *pixels)], grid, size, window)
        assert torch.equal(part, whole[(..., *window)])


@pytest.mark.parametrize(("before", "after"), [*SIZES, ((40, 50), (40, 75))])
def test_a_window_of_alpha_is_as_pillow_enlarges_the_whole(
    before: tuple[int, int], after: tuple[int, int]
) -> None:
    alpha = (random(*before) * 255).round().numpy().astype(np.float32) / np.float32(255)
    alpha[:9] = 0
    picture = Picture(rgb=np.zeros((*before, 3), np.float32), alpha=alpha)
    whole = recolored(picture, torch.zeros(3, *after)).alpha
    assert whole is not None
    held = Held.of(picture)
    for window in cut(after):
        part = held.alpha_window(window, after)
        assert part is not None
        assert np.array_equal(part, whole[window])


@pytest.mark.parametrize("white", [255, 65_535, None])
def test_a_large_picture_is_held_in_files(
    monkeypatch: pytest.MonkeyPatch, white: int | None
) -> None:
    """Closed in the end; where the disk has no room, in memory."""
    values = random(4, 300, 7).permute(1, 2, 0).numpy()
    if white:
        values = np.divide(np.rint(values * white), white, dtype=np.float32)
    picture = Picture(rgb=values[..., :3].copy(), alpha=values[..., 3].copy())
    plain = Held.of(picture)
    monkeypatch.setattr(source, "IN_FILE", 1)
    shelved = Held.of(picture)
    monkeypatch.setattr(shelf, "scratch", full)
    without_room = Held.of(picture)
    assert plain.digest == shelved.digest
    assert isinstance(shelved.planes, Shelf)
    assert isinstance(shelved.alpha, Shelf)
    assert isinstance(without_room.planes, np.ndarray)
    for window in cut((300, 7)):
        one, other = (held.window(window, torch.device("cpu")) for held in (plain, shelved))
        assert torch.equal(one, other)
    for window in cut((600, 21)):
        hidden, shown = (held.alpha_window(window, (600, 21)) for held in (plain, shelved))
        np.testing.assert_array_equal(hidden, shown)
    for held in (plain, shelved):
        held.close()
    with pytest.raises(ValueError, match="closed"):
        shelved.window((slice(0, 1), slice(0, 1)), torch.device("cpu"))


def full(nbytes: int) -> NoReturn:
    raise DeviceError(f"no room for {nbytes} bytes")


@pytest.mark.parametrize("white", [255, 65_535, None])
def test_a_picture_is_held_in_its_own_integers(white: int | None) -> None:
    values = random(300, 5).numpy()
    if white:
        values = np.divide(np.rint(values * white), white, dtype=np.float32)
    held = compact(values)
    assert held.itemsize == {255: 1, 65_535: 2, None: 4}[white]
    assert np.array_equal(floats(held), values)
