"""Noise depends on its key and its position alone, and it is white and Gaussian."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from sr_cli.diffusion.noise import digest, gaussian_noise, noise_key

Noise = NDArray[np.float32]
IMAGE = digest(np.zeros((3, 4, 5), np.float32))
KEY = noise_key(0, IMAGE, 0)
windows = st.tuples(st.integers(-40, 40), st.integers(1, 40)).map(lambda w: (w[0], sum(w)))


@settings(deadline=None)
@given(rows=windows, cols=windows)
def test_any_window_is_cut_from_one_plane(rows: tuple[int, int], cols: tuple[int, int]) -> None:
    plane = gaussian_noise(KEY, (-40, 80), (-40, 80), 2, block=16)
    (r0, r1), (c0, c1) = rows, cols
    got = gaussian_noise(KEY, rows, cols, 2, block=16)
    assert got.flags.c_contiguous
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got, plane[:, r0 + 40 : r1 + 40, c0 + 40 : c1 + 40])


def test_far_windows_and_empty_ones() -> None:
    far = 10**12
    z = gaussian_noise(KEY, (far, far + 3), (-far, 2 - far), 4)
    np.testing.assert_array_equal(
        z[:, 1:], gaussian_noise(KEY, (far + 1, far + 3), (-far, 2 - far), 4)
    )
    assert gaussian_noise(KEY, (5, 5), (0, 7), 3).shape == (3, 0, 7)


def test_each_block_is_drawn_once(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[tuple[int, ...]] = []
    philox = np.random.Philox

    def counted(key: int, counter: NDArray[np.uint64]) -> np.random.Philox:
        drawn.append(tuple(int(c) for c in counter[2:]))
        return philox(key=key, counter=counter)

    monkeypatch.setattr(np.random, "Philox", counted)
    gaussian_noise(KEY, (60, 130), (0, 64), 3)
    assert drawn == [(0, 0), (1, 0), (2, 0)]


@pytest.mark.parametrize("threads", [2, 5])
def test_threads_do_not_show(threads: int) -> None:
    window = (-70, 200), (5, 150)
    alone = gaussian_noise(KEY, *window, 3)
    np.testing.assert_array_equal(gaussian_noise(KEY, *window, 3, threads=threads), alone)


def test_seed_step_image_and_position_all_matter() -> None:
    other = digest(np.ones((3, 4, 5), np.float32))
    keys = [KEY, noise_key(1, IMAGE, 0), noise_key(0, IMAGE, 1), noise_key(0, other, 0)]
    planes = [gaussian_noise(key, (0, 64), (0, 64), 3) for key in keys]
    planes += [
        gaussian_noise(KEY, r, c, 3) for r, c in (((64, 128), (0, 64)), ((0, 64), (64, 128)))
    ]
    rows = np.concatenate([p.reshape(3, -1) for p in planes])
    correlation = np.corrcoef(rows) - np.eye(len(rows))
    assert np.abs(correlation).max() < 5 / np.sqrt(rows.shape[1])


def test_keys_do_not_run_together() -> None:
    keys = [noise_key(s, IMAGE, i) for s in (1, 12, 123, -1, 2**70) for i in (0, 1, 3, 23)]
    assert len(set(keys)) == len(keys)
    assert all(0 <= key < 2**128 for key in keys)


def test_digest_is_of_shape_type_and_values() -> None:
    image = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    changed = image.copy()
    changed[1, 2, 3] += 1
    others: list[NDArray[Any]] = [
        image.reshape(3, 2, 4),
        image.astype(np.float64),
        image.view(np.int32),
        changed,
    ]
    assert digest(image) not in [digest(other) for other in others]
    assert digest(image) == digest(np.asfortranarray(image)) == digest(image[:, ::-1][:, ::-1])


def check_white_gaussian(z: Noise) -> None:
    """Moments, spectrum and neighbours of z, each within five standard errors (or their like)."""
    z = z.astype(np.float64)
    n = z.size
    assert abs(z.mean()) < 5 / np.sqrt(n)
    assert abs((z**2).mean() - 1) < 5 * np.sqrt(2 / n)
    assert abs((z**3).mean()) < 5 * np.sqrt(15 / n)
    assert abs((z**4).mean() - 3) < 5 * np.sqrt(96 / n)

    # A bin of the power spectrum is distributed as Exp(1), so its mean over k bins as 1 ± 1/√k
    # (√2 of it, as z is real and bins come in pairs); P(the largest of n > log n + 10) < 5e-5.
    height, width = z.shape[1:]
    power = np.abs(np.fft.fft2(z)) ** 2 / (height * width)
    assert power[:, 1:, 1:].max() < np.log(n) + 10
    radius = np.hypot(*np.meshgrid(np.fft.fftfreq(height), np.fft.fftfreq(width), indexing="ij"))
    for low, high in ((0, 0.1), (0.1, 0.2), (0.2, 0.3), (0.3, 0.4), (0.4, 0.5), (0.5, 0.8)):
        band = power[:, (radius >= low) & (radius < high)]
        assert abs(band.mean() - 1) < 5 * np.sqrt(2 / band.size)

    # Neighbours, those on either side of a block's border by themselves.
    for a, b in ((z[:, 1:], z[:, :-1]), (z[..., 1:], z[..., :-1]), (z[1:], z[:-1])):
        assert abs((a * b).mean()) < 5 / np.sqrt(a.size)
    border = z[..., 64::64] * z[..., 63:-1:64]
    assert abs(border.mean()) < 5 / np.sqrt(border.size)


def test_is_white_and_gaussian() -> None:
    check_white_gaussian(gaussian_noise(KEY, (0, 512), (-256, 256), 3))


def repeated_block(z: Noise) -> Noise:
    return np.tile(z[:, :64, :64], (1, 8, 8))


def mirrored_blocks(z: Noise) -> Noise:
    z = z.copy()
    z[..., 64:128] = z[..., 63::-1]
    return z


def smoothed(z: Noise) -> Noise:
    return np.float32(0.9988) * z + np.float32(0.05) * np.roll(z, 1, axis=2)


def uniform(z: Noise) -> Noise:
    return np.random.default_rng(0).uniform(-(3**0.5), 3**0.5, z.shape).astype(np.float32)


@pytest.mark.parametrize(
    "spoil",
    [
        repeated_block,
        mirrored_blocks,
        smoothed,
        uniform,
        lambda z: z * np.float32(1.02),
        lambda z: z + np.float32(0.02),
        lambda z: np.repeat(z[:1], 3, axis=0),
    ],
)
def test_the_check_sees_spoilt_noise(spoil: Callable[[Noise], Noise]) -> None:
    z = gaussian_noise(KEY, (0, 512), (0, 512), 3)
    check_white_gaussian(z)
    with pytest.raises(AssertionError):
        check_white_gaussian(spoil(z))
