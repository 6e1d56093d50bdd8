"""Degradations: sizes, ranges, seeds, and kernels that are kernels."""

import io
import math

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from sr_cli.degradation import degrade as degradations
from sr_cli.degradation import jpeg, kernels
from sr_cli.degradation.degrade import KINDS, Randomness, degrade
from sr_cli.degradation.kernels import KERNEL

CPU = torch.device("cpu")


def photos() -> Tensor:
    coarse = torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    return torch.nn.functional.interpolate(coarse, (64, 64), mode="bilinear")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [(16, 16), (24, 21), (11, 40)])
def test_results_are_8_bit_images_of_the_size(kind: str, size: tuple[int, int]) -> None:
    for key in range(4):
        lr = degrade(photos(), size, kind, Randomness.keyed(CPU, key))
        assert tuple(lr.shape) == (3, 3, *size)
        assert 0 <= lr.min() <= lr.max() <= 1
        torch.testing.assert_close(lr * 255, (lr * 255).round(), atol=1e-4, rtol=0)


@pytest.mark.parametrize("kind", ["mild", "realesrgan"])
def test_the_key_decides_everything(kind: str) -> None:
    one, again, other = (
        degrade(photos(), (16, 16), kind, Randomness.keyed(CPU, *key))
        for key in ((1, 2), (1, 2), (1, 3))
    )
    assert torch.equal(one, again)
    assert not torch.equal(one, other)


@pytest.mark.parametrize("kind", KINDS)
def test_they_are_the_same_inside_of_training_at_low_precision(kind: str) -> None:
    expected = degrade(photos(), (16, 16), kind, Randomness.keyed(CPU, 3))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(degrade(photos(), (16, 16), kind, Randomness.keyed(CPU, 3)), expected)


def test_bicubic_is_pillows() -> None:
    hr = (photos() * 255).round() / 255
    levels = (hr[0].permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
    expected = np.asarray(Image.fromarray(levels).resize((16, 16), Image.Resampling.BICUBIC))
    lr = degrade(hr[:1], (16, 16), "bicubic", Randomness.keyed(CPU, 0))[0].permute(1, 2, 0)
    assert np.abs(lr.numpy() * 255 - expected).max() <= 1.01


def test_realesrgan_is_heavier_than_mild() -> None:
    """Mean distance from the clean LR over many keys."""
    hr, size = photos(), (16, 16)
    clean = degrade(hr, size, "bicubic", Randomness.keyed(CPU, 0))

    def distance(kind: str) -> float:
        results = [degrade(hr, size, kind, Randomness.keyed(CPU, key)) for key in range(20)]
        return float(np.mean([(lr - clean).abs().mean() for lr in results]))

    assert distance("realesrgan") > distance("mild") > 0


@pytest.mark.parametrize(("low", "high"), [(0.5, 4), (1, 2)])
def test_shapes_lie_below_and_above_one_with_equal_chance(low: float, high: float) -> None:
    """In each part uniform; drawn over the whole range a seventh would lie below 1 of 0.5…4."""
    drawn = kernels.shapes(np.random.default_rng(0), 4000, low, high)
    above = drawn[drawn > 1]
    assert len(above) == pytest.approx(2000, abs=4 * 1000**0.5)  # binomial: σ² = 4000/4
    assert (drawn.min(), drawn.max()) == pytest.approx((low, high), abs=0.02)
    assert above.mean() == pytest.approx((1 + high) / 2, abs=4 * (high - 1) / (12 * 2000) ** 0.5)


def by_libjpeg(image: Tensor, quality: int) -> Tensor:
    """What a viewer decodes of a file, (3, H, W) in [0, 1]."""
    file = io.BytesIO()
    levels = (image.permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
    Image.fromarray(levels).save(file, "JPEG", quality=quality)
    return torch.from_numpy(np.array(Image.open(file))).permute(2, 0, 1) / 255


@pytest.mark.parametrize("size", [(64, 64), (51, 37)])
@pytest.mark.parametrize("quality", [30, 50, 75, 98])
def test_jpeg_is_libjpegs(size: tuple[int, int], quality: int) -> None:
    """Within a level on average, also at sides of no multiple; another quality is further off,
    and so is an image that is left as it is."""
    grain = torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    image = ((photos() + 0.05 * grain).clamp(0, 1) * 255).round()[..., : size[0], : size[1]] / 255
    expected = torch.stack([by_libjpeg(one, quality) for one in image])

    def distance(found: Tensor) -> float:
        return float((found - expected).abs().mean() * 255)

    assert distance(jpeg.compressed(image, np.full(3, quality))) < 1
    assert distance(jpeg.compressed(image, np.full(3, quality - 8))) > 1
    assert distance(image) > 1


def test_each_chosen_image_is_compressed_at_a_quality_of_its_own() -> None:
    image = (photos()[:1] * 255).round().repeat(40, 1, 1, 1) / 255
    result = degradations._jpeg(image, Randomness.keyed(CPU, 0), (20, 60), 0.5)
    touched = (result != image).flatten(1).any(dim=1)
    assert int(touched.sum()) == pytest.approx(20, abs=4 * 10**0.5)
    assert len({one.numpy().tobytes() for one in result[touched]}) > 5
    assert torch.equal(degradations._jpeg(image, Randomness.keyed(CPU, 0), (20, 60), 0), image)


def test_kernels_sum_to_one_and_are_centred() -> None:
    pick = np.random.default_rng(0)
    axis = np.arange(KERNEL) - KERNEL // 2
    for batch in (
        kernels.families(pick, 50, (0.2, 3), 0.1),
        kernels.gaussians(pick, 50, (0.5, 4.5)),
        kernels.sincs(pick, 50),
    ):
        assert batch.shape == (50, KERNEL, KERNEL)
        assert len(np.unique(batch.reshape(50, -1), axis=0)) == 50
        np.testing.assert_allclose(batch.sum((1, 2)), 1)
        np.testing.assert_allclose((batch.sum(1) * axis).sum(1), 0, atol=1e-9)
        np.testing.assert_allclose((batch.sum(2) * axis).sum(1), 0, atol=1e-9)


@pytest.mark.parametrize(("last", "least"), [(True, math.pi / 3), (False, math.pi / 5)])
def test_the_last_sinc_cuts_off_from_a_third_of_pi(last: bool, least: float) -> None:
    """Of the largest kernels, whose cut-off shows: what they leave of a wave of 0.27·π.

    The others, and only they, must at times suppress it.
    """
    batch = kernels.sincs(np.random.default_rng(0), 3000, last=last)
    large = batch[np.abs(batch[:, KERNEL // 2, 0]) > 0]
    wave = np.cos(0.27 * math.pi * (np.arange(KERNEL) - KERNEL // 2))
    passed = (large.sum(1) * wave).sum(1)
    assert len(large) > 200
    assert (passed.min() > 0.6) == (least > 0.3 * math.pi)


def test_blur_is_convolution() -> None:
    """By FFT and directly; a constant stays, borders are replicated."""
    drawn = kernels.families(np.random.default_rng(1), 3, (0.5, 3), 0)
    image = photos()
    result = degradations._blur(image, drawn, Randomness.keyed(CPU, 0))
    padded = torch.nn.functional.pad(image, (KERNEL // 2,) * 4, mode="replicate")
    for i, kernel in enumerate(drawn):
        weight = torch.from_numpy(kernel[::-1, ::-1].copy()).float().expand(3, 1, -1, -1)
        direct = torch.nn.functional.conv2d(padded[i : i + 1], weight, groups=3)
        torch.testing.assert_close(result[i : i + 1], direct, atol=1e-5, rtol=0)


def test_sharpening_is_an_unsharp_mask_in_its_share_of_the_images() -> None:
    image = photos()
    kernel = kernels.gaussians(np.random.default_rng(0), 3, (1.5, 1.5))
    smooth = degradations._blur(image, kernel, Randomness.keyed(CPU, 0))
    expected = (image + 0.8 * (image - smooth)).clamp(0, 1)

    def sharpened(x: Tensor, probability: float) -> Tensor:
        rng = Randomness.keyed(CPU, 1)
        return degradations._sharpen(
            x, rng, radius=(1.5, 1.5), amount=(0.8, 0.8), probability=probability
        )

    torch.testing.assert_close(sharpened(image, 1), expected)
    assert torch.equal(sharpened(image, 0), image)
    assert float(sharpened(image, 1).var()) > float(image.var())
    grey = torch.full((3, 3, 32, 32), 0.4)
    torch.testing.assert_close(sharpened(grey, 1), grey)
    many = image[:1].repeat(200, 1, 1, 1)
    touched = (sharpened(many, 0.7) != many).flatten(1).any(dim=1).sum()
    assert int(touched) == pytest.approx(140, abs=4 * (200 * 0.7 * 0.3) ** 0.5)


def test_noise_has_the_variance_it_states() -> None:
    grey = torch.full((64, 3, 32, 32), 0.5)
    rng = Randomness.keyed(CPU, 0)
    noisy = degradations._noise(grey, rng, gaussian=(10, 10), poisson=(1, 1))
    deviations = (noisy - grey).flatten(1).std(dim=1) * 255
    # Poisson at half brightness: √(127.5) counts.
    is_gaussian = (deviations - 10).abs() < (deviations - 127.5**0.5).abs()
    assert 16 < int(is_gaussian.sum()) < 48
    assert float(deviations[is_gaussian].mean()) == pytest.approx(10, rel=0.03)
    assert float(deviations[~is_gaussian].mean()) == pytest.approx(127.5**0.5, rel=0.03)


def test_unknown_kinds_are_refused() -> None:
    with pytest.raises(ValueError, match="none of"):
        degrade(photos(), (16, 16), "terrible", Randomness.keyed(CPU, 0))
