"""The guard's laws, number by number, on checks whose contrast is the same everywhere."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from sr_cli.engine import guard
from sr_cli.engine.between import Between
from sr_cli.engine.finish import strayed_notes
from sr_cli.engine.guard import COLOUR, DOUBT, guarded, limits

CELLS = torch.arange(32)
CHECKS = ((CELLS[:, None] + CELLS) % 2).float().expand(1, 3, -1, -1)


def checks(contrast: float) -> Tensor:
    """In levels, around the middle of the range: (1, 3, 32, 32)."""
    return 127.5 + contrast * (CHECKS - 0.5)


def distance(contrast: float, error: Tensor) -> Tensor:
    """What stays of an error at scale 1; all in levels."""
    lr = checks(contrast)
    result, _ = guarded((lr + error) / 255, lr / 255, lr / 255)
    return 255 * result - lr


@pytest.mark.parametrize(
    ("contrast", "limit"), [(50, 14), (60, 14), (90, 10), (120, 6), (180, 6)], ids=str
)
def test_the_mean_error_ends_at_14_levels_and_at_6_in_patterns(
    contrast: float, limit: float
) -> None:
    error = torch.full((1, 3, 32, 32), 20.0)
    torch.testing.assert_close(distance(contrast, error), limit * error / 20, atol=1e-3, rtol=0)
    allowed = error * 0.9 * limit / 20
    torch.testing.assert_close(distance(contrast, allowed), allowed, atol=1e-3, rtol=0)


@pytest.mark.parametrize("contrast", [10, 20, 40])
def test_a_single_error_ends_at_half_the_contrast_and_two_levels(contrast: float) -> None:
    error = torch.zeros(1, 3, 32, 32)
    error[..., 16, 16] = 60
    left = distance(contrast, error)
    assert float(left.amax()) == pytest.approx(contrast / 2 + 2, abs=1e-3)


@pytest.mark.parametrize("contrast", [0, 4, 20, 60])
def test_grain_ends_half_the_contrast_and_at_most_eight_levels_beyond_it(contrast: float) -> None:
    """Grain inside of cells, whose means are right."""
    lr = checks(contrast)
    larger = F.interpolate(lr, scale_factor=4, mode="nearest")
    grain = 80 * (torch.arange(128) % 2 * 2 - 1)
    result = 255 * guarded((larger + grain) / 255, larger / 255, lr / 255)[0]
    beyond = contrast / 2 + min(contrast, 8)
    assert float(result.amax()) == pytest.approx(127.5 + contrast / 2 + beyond, abs=1e-3)
    assert float(result.amin()) == pytest.approx(127.5 - contrast / 2 - beyond, abs=1e-3)


@pytest.mark.parametrize(("share", "doubt"), [(0.4, 0), (0.525, 5 / 32), (0.65, 0.5), (0.9, 1)])
def test_doubt_begins_at_four_tenths_of_the_contrast(share: float, doubt: float) -> None:
    lr = checks(92)
    maps = limits((lr + share * 100) / 255, lr / 255, lr / 255, scale=(1, 1))
    torch.testing.assert_close(maps[:, DOUBT], torch.full((1, 1, 32, 32), float(doubt)))


@pytest.mark.parametrize(("tint", "kept"), [(0, 0), (1, 0.5), (2, 1), (12, 1)])
def test_colour_goes_where_the_picture_has_less_than_two_levels_of_it(
    tint: float, kept: float
) -> None:
    lr = checks(20) + tint * torch.tensor([1.0, -0.5, -0.5]).view(1, 3, 1, 1)
    maps = limits(lr / 255, lr / 255, lr / 255, scale=(1, 1))
    torch.testing.assert_close(maps[:, COLOUR], torch.full((1, 1, 32, 32), float(kept)))


@pytest.mark.parametrize("scale", [2, 4])
def test_a_correction_is_there_when_it_is_made_smaller_again(
    monkeypatch: pytest.MonkeyPatch, scale: float
) -> None:
    """And without Neumann's series a good part of it is missing."""
    wanted = torch.randn(1, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    wanted = F.avg_pool2d(wanted, 3, 1, 1)
    size = (round(32 * scale),) * 2
    between = Between.of((32, 32), size, torch.device("cpu"))

    def missing() -> float:
        correction = guard._concentrated(wanted, (scale, scale))
        larger = between.enlarged(correction, (slice(0, size[0]), slice(0, size[1])))
        return float((guard.reduced(larger, (32, 32)) - wanted).norm() / wanted.norm())

    assert missing() < 0.05
    monkeypatch.setattr(guard, "TERMS", 0)
    assert missing() > 0.2


def test_a_hundredth_of_the_picture_is_worth_a_note() -> None:
    assert not strayed_notes(0.0099)
    assert strayed_notes(0.0101) == [
        "the network strayed on 1% of the picture: the plain enlargement is shown there"
    ]
