"""Degradations: sizes, ranges, seeds, and kernels that are kernels."""

import io

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from sr_cli.evaluation import degradations
from sr_cli.evaluation.degradations import KERNEL, KINDS, Randomness, degrade

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
    pick = np.random.default_rng(0)
    drawn = np.array([degradations._shape(pick, low, high) for _ in range(4000)])
    above = drawn[drawn > 1]
    assert len(above) == pytest.approx(2000, abs=4 * 1000**0.5)  # binomial: σ² = 4000/4
    assert (drawn.min(), drawn.max()) == pytest.approx((low, high), abs=0.02)
    assert above.mean() == pytest.approx((1 + high) / 2, abs=4 * (high - 1) / (12 * 2000) ** 0.5)


def test_jpeg_is_libjpegs() -> None:
    """Of the chosen images alone, each at its own quality; what a viewer decodes of a file."""
    image = (photos() * 255).round() / 255
    result = degradations._jpeg(image, Randomness.keyed(CPU, 0), (40, 40))
    for one, found in zip(image, result, strict=True):
        file = io.BytesIO()
        Image.fromarray((one.permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)).save(
            file, "JPEG", quality=40
        )
        decoded = np.asarray(Image.open(file), np.float32)
        assert np.abs(found.permute(1, 2, 0).numpy() * 255 - decoded).max() <= 1
    assert torch.equal(degradations._jpeg(image, Randomness.keyed(CPU, 0), (40, 40), 0), image)
    assert not torch.equal(result, image)


def test_kernels_sum_to_one_and_are_centred() -> None:
    pick = np.random.default_rng(0)
    axis = np.arange(KERNEL) - KERNEL // 2
    for _ in range(50):
        for kernel in (
            degradations._kernel(pick, (0.2, 3), 0.1),
            degradations._gaussian(pick, (0.5, 4.5)),
            degradations._sinc(pick),
        ):
            assert kernel.shape == (KERNEL, KERNEL)
            assert kernel.sum() == pytest.approx(1)
            assert (kernel.sum(0) * axis).sum() == pytest.approx(0, abs=1e-9)
            assert (kernel.sum(1) * axis).sum() == pytest.approx(0, abs=1e-9)


def test_blur_is_convolution() -> None:
    """By FFT and directly; a constant stays, borders are replicated."""
    pick = np.random.default_rng(1)
    kernels = [degradations._kernel(pick, (0.5, 3), 0) for _ in range(3)]
    image = photos()
    result = degradations._blur(image, kernels, Randomness.keyed(CPU, 0))
    padded = torch.nn.functional.pad(image, (KERNEL // 2,) * 4, mode="replicate")
    for i, kernel in enumerate(kernels):
        weight = torch.from_numpy(kernel[::-1, ::-1].copy()).float().expand(3, 1, -1, -1)
        direct = torch.nn.functional.conv2d(padded[i : i + 1], weight, groups=3)
        torch.testing.assert_close(result[i : i + 1], direct, atol=1e-5, rtol=0)


def test_sharpening_is_an_unsharp_mask_in_its_share_of_the_images() -> None:
    image = photos()
    kernel = degradations._gaussian(np.random.default_rng(0), (1.5, 1.5))
    smooth = degradations._blur(image, [kernel] * 3, Randomness.keyed(CPU, 0))
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
