"""The colour fixes against the released code's numbers, and the laws behind them."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from sr_cli.engine.color import (
    COLOR_FIXES,
    WAVELET_LEVELS,
    WAVELET_MARGIN,
    adain_color_fix,
    color_fix,
    wavelet_color_fix,
)
from sr_cli.errors import UsageError

GOLDEN = Path(__file__).parents[1] / "golden" / "color.npz"


@pytest.fixture(scope="module")
def golden() -> dict[str, Tensor]:
    with np.load(GOLDEN) as arrays:
        return {name: torch.from_numpy(arrays[name]) for name in arrays.files}


def images(height: int = 90, width: int = 110) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    content, style = torch.rand(2, 1, 3, height, width, generator=generator)
    return content, style


def largest_difference(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().max())


@pytest.mark.parametrize("name", ["wavelet", "adain"])
def test_agrees_with_the_released_code(golden: dict[str, Tensor], name: str) -> None:
    content, style, released = golden["cf_content"], golden["cf_style"], golden[f"cf_{name}"]
    assert largest_difference(color_fix(name, content, style), released) < 1e-6
    assert largest_difference(color_fix(name, style, content), released) > 0.1


@pytest.mark.parametrize("name", COLOR_FIXES)
def test_a_picture_with_the_right_colours_is_left_alone(name: str) -> None:
    content, _ = images()
    assert largest_difference(color_fix(name, content, content), content) < 1e-6


@pytest.mark.parametrize("name", COLOR_FIXES)
def test_batched_and_single_images_agree(name: str) -> None:
    content, style = images()
    single = color_fix(name, content[0], style[0])
    assert largest_difference(color_fix(name, content, style)[0], single) < 1e-6


@pytest.mark.parametrize("name", ["wavelet", "adain"])
def test_a_colour_cast_is_removed(name: str) -> None:
    style, _ = images()
    cast = torch.tensor([0.2, -0.1, 0.05]).view(3, 1, 1)
    assert largest_difference(color_fix(name, style + cast, style), style) < 1e-6
    assert largest_difference(color_fix("none", style + cast, style), style) > 0.1


def test_wavelet_depends_on_nothing_beyond_the_margin() -> None:
    """Exactly: NaN beyond the margin changes nothing, one pixel nearer it does."""
    content, style = images()
    whole = wavelet_color_fix(content, style)
    for distance, untouched in ((WAVELET_MARGIN + 1, True), (WAVELET_MARGIN, False)):
        poisoned = style.clone()
        poisoned[..., 45 + distance, :] = torch.nan
        poisoned[..., :, 55 - distance] = torch.nan
        row = wavelet_color_fix(content, poisoned)[..., 45, 55]
        assert torch.equal(row, whole[..., 45, 55]) == untouched


def test_wavelet_on_tiles_is_wavelet_on_the_whole() -> None:
    content, style = images()
    whole = wavelet_color_fix(content, style)

    def tiled(margin: int) -> Tensor:
        tile = (..., slice(0, 40 + margin), slice(0, 50 + margin))
        return wavelet_color_fix(content[tile], style[tile])[..., :40, :50]

    assert torch.equal(tiled(WAVELET_MARGIN), whole[..., :40, :50])
    assert not torch.equal(tiled(WAVELET_MARGIN // 2), whole[..., :40, :50])


def test_wavelet_works_on_images_smaller_than_its_blur() -> None:
    content, style = images(1, 2)
    assert WAVELET_LEVELS == 5
    assert wavelet_color_fix(content, style).shape == content.shape


def test_adain_gives_the_mean_and_deviation_of_the_style() -> None:
    content, style = images()
    style = 0.3 + 0.2 * style
    fixed = adain_color_fix(content, style)
    dims = (-2, -1)
    assert largest_difference(fixed.mean(dims), style.mean(dims)) < 1e-5
    assert largest_difference(fixed.std(dims), style.std(dims)) < 1e-4
    assert largest_difference(content.std(dims), style.std(dims)) > 0.1


def test_adain_of_a_flat_picture_is_finite() -> None:
    flat = torch.full((1, 3, 8, 8), 0.5)
    _, style = images(8, 8)
    assert torch.isfinite(adain_color_fix(flat, style)).all()


def test_adain_of_one_pixel_is_its_style() -> None:
    content, style = images(1, 1)
    assert largest_difference(adain_color_fix(content, style), style) < 1e-6


def test_an_unknown_name_is_a_usage_error() -> None:
    content, style = images(4, 4)
    with pytest.raises(UsageError, match="wavelet, adain, none"):
        color_fix("sepia", content, style)
