"""The weave: what recurs from cell to cell is found, and what does not is left."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from sr_cli.engine import weave as room
from sr_cli.engine.weave import weave, weaves

CPU = torch.device("cpu")
CELL = 8


def plain(height: int = 64, width: int = 80) -> Tensor:
    coarse = torch.rand(1, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    return 0.3 + 0.4 * F.interpolate(coarse, (height, width), mode="bicubic").clamp(0, 1)


def pattern(height: int, width: int, period: int = CELL) -> Tensor:
    """One random square over and over; its rows and its columns have a mean of 0."""
    square = torch.randn(period, period, generator=torch.Generator().manual_seed(1))
    square -= square.mean(dim=0)
    square -= square.mean(dim=1, keepdim=True)
    return 0.05 * square.repeat(height // period + 1, width // period + 1)[:height, :width]


def line(degrees: float, height: int = 64, width: int = 80) -> Tensor:
    """A bright line, 3 pixels wide, through the middle."""
    angle = torch.tensor(degrees).deg2rad()
    y, x = torch.arange(height)[:, None] - height / 2 + 0.3, torch.arange(width) - width / 2 + 0.3
    across = x * angle.sin() - y * angle.cos()
    return 0.3 * (-(across.square()) / 4).exp()


def found(detail: Tensor, y: Tensor) -> Tensor:
    return weave(y + detail, y, CELL, CPU)


def fast(detail: Tensor) -> Tensor:
    """What of a pattern has a period of less than a cell along rows or columns."""
    waves = torch.fft.fft2(detail)
    down, across = (torch.fft.fftfreq(side).abs() * CELL > 1.01 for side in detail.shape)
    left: Tensor = torch.fft.ifft2(waves * (down[:, None] | across)).real
    return left


def test_what_recurs_in_all_cells_is_found() -> None:
    y = plain()
    detail = pattern(64, 80)
    torch.testing.assert_close(found(detail, y)[0, 0], fast(detail), atol=1e-6, rtol=0)
    assert fast(detail).std() > 0.9 * detail.std()
    other = pattern(64, 80, period=7)  # the control
    assert (other - found(other, y)).std() > 0.95 * other.std()


@pytest.mark.parametrize("dim", [0, 1])
def test_what_an_lr_picture_may_bear_out_stays(dim: int) -> None:
    """Waves as long as a cell, which is two of its pixels; not such as half a cell."""
    y, places = plain(), torch.arange(64 if dim == 0 else 80)

    def wave(length: int) -> Tensor:
        along = 0.05 * torch.cos(places * (2 * torch.pi / length) + 0.4)
        return (along[:, None] if dim == 0 else along).expand(64, 80)

    assert found(wave(CELL), y).abs().max() < 1e-6
    torch.testing.assert_close(found(wave(CELL // 2), y)[0, 0], wave(CELL // 2), atol=1e-6, rtol=0)


@pytest.mark.parametrize("links", [1, 2, 3, 5])
def test_a_chain_is_found_but_for_its_ends(links: int) -> None:
    """As between the strokes of print: in few rows, and of few cells."""
    y, detail = plain(), torch.zeros(64, 80)
    one = torch.zeros(CELL)
    one[[1, 4]] = 0.1
    one -= one.mean()
    detail[20:24, 16 : 16 + links * CELL] = one.repeat(links)
    expected = torch.zeros(64, 80)
    expected[20:24, 24 : 24 + (links - 2) * CELL] = fast(one[None]).repeat(1, max(0, links - 2))
    torch.testing.assert_close(found(detail, y)[0, 0], expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("degrees", [0, 5, 20, 30, 45, 60, 77, 90, 110])
def test_an_outline_stays(degrees: float) -> None:
    detail = line(degrees)
    assert found(detail, plain()).abs().sum() < 0.02 * detail.abs().sum()


def test_a_slope_stays() -> None:
    """Although it is the same in every cell but for its mean."""
    y, slope = plain(), 0.01 * torch.arange(80).expand(64, 80)
    assert found(slope, y).abs().max() < 1e-6
    steps = slope % (0.01 * CELL)  # the control
    assert found(steps, y).abs().max() > 0.01


def test_grain_stays() -> None:
    grain = 0.05 * torch.randn(64, 80, generator=torch.Generator().manual_seed(2))
    assert (grain - found(grain, plain())).std() > 0.85 * grain.std()


def test_nothing_is_found_in_the_source_itself() -> None:
    y = plain()
    assert not found(torch.zeros(64, 80), y).any()


def test_little_changes_where_the_image_does_little() -> None:
    """By the same at most 37 times over, first along rows and then along columns."""
    y, detail = plain(), 0.05 * torch.randn(64, 80, generator=torch.Generator().manual_seed(4))
    change = 1e-4 * torch.randn(64, 80, generator=torch.Generator().manual_seed(5))
    difference = (found(detail + change, y) - found(detail, y)).abs().max()
    assert 0 < difference < 37 * change.abs().max()
    assert difference < 0.1 * found(detail, y).abs().max()  # the control: what a threshold would do


@pytest.mark.parametrize("size", [(61, 79), (3, 30), (30, 3), (8, 8), (17, 9)])
def test_pixels_beside_whole_cells_have_none(size: tuple[int, int]) -> None:
    height, width = size
    y = plain(*size)
    result = found(pattern(*size), y)
    assert result.shape == (1, 1, *size)
    assert not result[..., height - height % CELL :, :].any()
    assert not result[..., width - width % CELL :].any()


def test_parts_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    y = plain()
    detail = 0.1 * torch.randn(64, 80, generator=torch.Generator().manual_seed(3))
    whole = found(detail, y)
    monkeypatch.setattr(room, "TILE", 24)
    torch.testing.assert_close(found(detail, y), whole, atol=1e-6, rtol=0)
    cut = found(detail[:, :40], y[..., :40])  # the control: cells know their surroundings
    assert (cut - whole[..., :40]).abs().max() > 0.01


@pytest.mark.parametrize("lines", ["in_rows", "in_columns"])
@pytest.mark.parametrize("refused", [1, 2, 3])
def test_where_memory_is_short_parts_are_smaller(
    monkeypatch: pytest.MonkeyPatch, lines: str, refused: int
) -> None:
    """Whichever part of which pass it is short in; what was done before does not count twice."""
    y, detail = plain(), 0.1 * torch.randn(64, 80, generator=torch.Generator().manual_seed(3))
    whole, real, sizes = found(detail, y), getattr(room, lines), list[int]()

    def limited(part: Tensor, fast: room.Fast) -> Tensor:
        sizes.append(part.numel())
        if len(sizes) == refused:
            raise MemoryError
        result: Tensor = real(part, fast)
        return result

    monkeypatch.setattr(room, lines, limited)
    monkeypatch.setattr(room, "TILE", 48)
    torch.testing.assert_close(found(detail, y), whole, atol=1e-6, rtol=0)
    assert max(sizes[refused:]) < max(sizes[:refused])


def test_less_than_a_row_of_cells_is_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> Tensor:
        raise MemoryError

    monkeypatch.setattr(room, "in_rows", refused)
    with pytest.raises(MemoryError):
        found(pattern(64, 80), plain())


def test_pictures_are_looked_at_alone() -> None:
    y = plain()
    details = [pattern(64, 80), line(30)]
    images = torch.cat([y + detail for detail in details])
    together = weave(images, torch.cat((y, y)), CELL, CPU)
    for k, detail in enumerate(details):
        torch.testing.assert_close(together[k : k + 1], found(detail, y), atol=1e-6, rtol=0)


def test_half_a_cell_as_large_as_two_pixels_may_show_what_is_there() -> None:
    assert weaves(8, (400, 300), (100, 75))
    assert weaves(8, (270, 270), (100, 100))
    assert not weaves(8, (200, 300), (100, 75))
    assert not weaves(8, (400, 150), (100, 75))
    assert not weaves(0, (400, 300), (100, 75))
