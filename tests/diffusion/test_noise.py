"""Noise depends on its key and its position alone, and it is white and Gaussian."""

from collections.abc import Callable
from itertools import combinations
from statistics import NormalDist
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from sr_cli.device import side_by_side
from sr_cli.diffusion import noise
from sr_cli.diffusion.noise import (
    add_noise,
    digest,
    gaussian_noise,
    noise_key,
    noise_keys,
    normals,
    quantiles,
    squares64,
)

Noise = NDArray[np.float32]
IMAGE = digest(np.zeros((3, 4, 5), np.float32))
KEY = noise_key(0, IMAGE, 0)
WORD = 2**64
windows = st.tuples(st.integers(-40, 40), st.integers(1, 40)).map(lambda w: (w[0], sum(w)))


def plane(key: int, rows: noise.Window, cols: noise.Window, channels: int) -> Noise:
    z: Noise = gaussian_noise(noise_keys([key]), rows, cols, channels)[0].numpy()
    return z


# --------------------------------------------------------------------------------- the generator


def published(counter: int, key: int, rounds: int = 5) -> int:
    """Widynski's `squares64`, line by line, in whole numbers; the paper has five rounds."""

    def rotated(x: int) -> int:
        return (x >> 32 | x << 32) % WORD

    y = x = counter * key % WORD
    z = (y + key) % WORD
    addends = (y, z, y, z)[: rounds - 1]
    for addend in addends:
        t = (x * x + addend) % WORD
        x = rotated(t)
    last = z if addends and addends[-1] == y else y
    return t ^ ((x * x + last) % WORD) >> 32


def words(bits: Tensor) -> list[int]:
    return [int(word) % WORD for word in bits.flatten()]


@pytest.mark.parametrize(
    ("key", "counter", "word"),
    [  # of the published C code, compiled
        (0x548C9DECBCE65297, 0, 0x36D88366CEE633A5),
        (0x548C9DECBCE65297, 1, 0x944716E00E60DFAA),
        (0x548C9DECBCE65297, 2**32, 0x122E80B3C281ABBF),
        (0x548C9DECBCE65297, WORD - 1, 0x434506A445777020),
        (0xC8E4FD154CE32F6D, 0, 0x800C823ECC9B9607),
        (0xC8E4FD154CE32F6D, 2, 0xEEE77E310B90ADD2),
    ],
)
def test_known_answers(key: int, counter: int, word: int) -> None:
    (keys,) = noise_keys([key])[None]
    assert words(squares64(noise_keys([counter]) * keys, keys)) == [word]
    assert published(counter, key) == word
    assert published(counter, key, rounds=4) != word


@given(counters=st.lists(st.integers(0, WORD - 1), min_size=1, max_size=40), key=st.integers(0))
def test_it_is_the_published_generator(counters: list[int], key: int) -> None:
    key = key % WORD | 1
    keys = noise_keys([key])
    got = words(squares64(noise_keys(counters) * keys, keys))
    assert got == [published(counter, key) for counter in counters]


def test_positions_share_no_counter() -> None:
    """Neither within a large window nor, by the golden ratio, across a huge one."""
    far = torch.arange(0, 2**40, 2**33 - 3)
    for spread in (torch.arange(700), far):
        row, col = spread[:, None] * noise.ROW, spread
        counters = torch.arange(5)[:, None, None] * noise.CHANNEL + row + col
        assert len(np.unique(counters.numpy())) == counters.numel()


def test_keys_are_as_the_paper_asks() -> None:
    for step in range(200):
        key = f"{noise_key(7, IMAGE, step):016x}"
        assert len(set(key[:8])) == len(set(key[8:])) == 8
        assert "0" not in key
        assert int(key, 16) % 2


# ------------------------------------------------------------------------------------ the quantiles


def test_the_quantiles_are_the_normal_distribution_s() -> None:
    """To the last bit those of another library, so that they are the same on every machine."""
    upper = [NormalDist().inv_cdf((i + 0.5) / 2**16) for i in range(2**15, 2**16)]
    scaled = np.array(upper) / np.sqrt(np.mean(np.square(upper)))
    table = quantiles(torch.device("cpu")).numpy()
    np.testing.assert_array_equal(table[2**15 :], scaled.astype(np.float32))
    np.testing.assert_array_equal(table, -table[::-1])
    assert np.square(table.astype(np.float64)).mean() == pytest.approx(1, abs=1e-7)
    assert table.max() == pytest.approx(4.325, abs=1e-4)
    assert (np.diff(table) > 0).all()


def test_sixteen_bits_say_a_value() -> None:
    """Their order is that of the values, as signed numbers; a word's lowest come first."""
    table = quantiles(torch.device("cpu"))
    sixteen = [0x8000, 0xFFFF, 0x0000, 0x7FFF]
    (word,) = noise_keys([sum(bits << 16 * i for i, bits in enumerate(sixteen))])
    z = normals(word.view(1, 1))
    assert z.dtype == torch.float32
    assert z.tolist() == [table[[0, 2**15 - 1, 2**15, 2**16 - 1]].tolist()]


def test_values_are_equal_to_the_last_bit_wherever_they_are_drawn() -> None:
    """Equal to what whole numbers and a table say, with no arithmetic of floats between."""
    table = quantiles(torch.device("cpu")).tolist()

    def value(channel: int, row: int, col: int) -> float:
        counter = channel * noise.CHANNEL + row * noise.ROW + col // 4
        sixteen = published(counter % WORD, KEY) >> 16 * (col % 4) & 0xFFFF
        return float(table[(sixteen + 2**15) % 2**16])

    z = plane(KEY, (-3, 4), (-6, 7), 2)
    expected = [[[value(c, y, x) for x in range(-6, 7)] for y in range(-3, 4)] for c in range(2)]
    assert z.tolist() == expected
    assert z.tolist() != np.roll(expected, 1, axis=2).tolist()


# --------------------------------------------------------------------------------------- the plane


def small_strips(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(noise, "STRIP", {"cpu": 300, "else": 300})


@settings(deadline=None)
@given(rows=windows, cols=windows)
def test_any_window_is_cut_from_one_plane(rows: noise.Window, cols: noise.Window) -> None:
    whole = plane(KEY, (-40, 80), (-40, 80), 2)
    (r0, r1), (c0, c1) = rows, cols
    got = plane(KEY, rows, cols, 2)
    assert got.flags.c_contiguous
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got, whole[:, r0 + 40 : r1 + 40, c0 + 40 : c1 + 40])


@pytest.mark.parametrize("rows", [(0, 64), (-7, 30), (5, 5), (11, 12)])
def test_strips_do_not_show(monkeypatch: pytest.MonkeyPatch, rows: noise.Window) -> None:
    whole = plane(KEY, rows, (3, 60), 3)
    assert whole.shape == (3, rows[1] - rows[0], 57)
    small_strips(monkeypatch)
    np.testing.assert_array_equal(plane(KEY, rows, (3, 60), 3), whole)


def test_a_batch_is_its_planes(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = [noise_key(0, IMAGE, step) for step in range(3)]
    alone = [plane(key, (0, 31), (0, 20), 2) for key in keys]
    small_strips(monkeypatch)
    x = torch.ones(3, 2, 31, 20)
    add_noise(x, noise_keys(keys), 0.5)
    np.testing.assert_allclose(x, [1 + 0.5 * z for z in alone], atol=1e-6)


def test_far_windows_and_empty_ones() -> None:
    far = 10**12
    z = plane(KEY, (far, far + 3), (-far, 2 - far), 4)
    np.testing.assert_array_equal(z[:, 1:], plane(KEY, (far + 1, far + 3), (-far, 2 - far), 4))
    assert plane(KEY, (5, 5), (0, 7), 3).shape == (3, 0, 7)


def test_threads_do_not_show() -> None:
    """Neither torch's nor those that strips are drawn by side by side."""
    window = (-70, 200), (5, 150)
    alone = plane(KEY, *window, 3)
    keys = noise_keys([KEY])
    noisy = add_noise(torch.ones(1, 3, 200, 150), keys, 0.5)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(threads + 1)
        np.testing.assert_array_equal(plane(KEY, *window, 3), alone)
        with side_by_side(torch.device("cpu")) as each, pytest.MonkeyPatch.context() as patch:
            small_strips(patch)
            drawn = gaussian_noise(keys, *window, 3, each=each)
            again = add_noise(torch.ones(1, 3, 200, 150), keys, 0.5, each=each)
        np.testing.assert_array_equal(drawn[0], alone)
        assert torch.equal(again, noisy)
    finally:
        torch.set_num_threads(threads)


def independent(planes: list[Noise]) -> bool:
    """Whether any two of them are correlated, whole or shifted by a little."""
    rows = np.stack(planes).reshape(len(planes), -1).astype(np.float64)
    rows = np.concatenate([np.roll(rows, shift, axis=1) for shift in (0, 1, 64)])
    correlation = np.corrcoef(rows) - np.eye(len(rows))
    return bool(np.abs(correlation).max() < 6 / np.sqrt(rows.shape[1]))


def test_seed_step_image_and_position_all_matter() -> None:
    other = digest(np.ones((3, 4, 5), np.float32))
    keys = [KEY, noise_key(1, IMAGE, 0), noise_key(0, IMAGE, 1), noise_key(0, other, 0)]
    planes = [channel for key in keys for channel in plane(key, (0, 64), (0, 64), 3)]
    planes += list(plane(KEY, (64, 128), (0, 64), 3)) + list(plane(KEY, (0, 64), (64, 128), 3))
    assert independent(planes)
    assert not independent([*planes, planes[4]])
    assert not independent([*planes, np.roll(planes[4], 1, axis=0)])


def test_keys_do_not_run_together() -> None:
    keys = [noise_key(s, IMAGE, i) for s in (1, 12, 123, -1, 2**70) for i in (0, 1, 3, 23)]
    assert len(set(keys)) == len(keys)
    assert all(0 <= key < WORD for key in keys)


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
    """Moments, spectrum and neighbours of z, each within five standard errors (or their like).

    Its first column is that of a word of the generator.
    """
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

    # Neighbours, those that share a word of the generator by themselves: their products, and how
    # often two of them are in two of 16 parts of one probability.
    for a, b in ((z[:, 1:], z[:, :-1]), (z[..., 1:], z[..., :-1]), (z[1:], z[:-1])):
        assert abs((a * b).mean()) < 5 / np.sqrt(a.size)
    fours = z.reshape(-1, 4).T
    parts = (16 * torch.special.ndtr(torch.from_numpy(fours)).numpy()).astype(int)
    for i, j in combinations(range(4), 2):
        a, b = fours[[i, j]]
        assert abs((a * b).mean()) < 5 / np.sqrt(a.size)
        assert abs((a**2 * b**2).mean() - 1) < 5 * np.sqrt(8 / a.size)
        found = np.bincount(16 * parts[i] + parts[j], minlength=256)
        expected = a.size / 256
        assert ((found - expected) ** 2 / expected).sum() < 255 + 6 * np.sqrt(2 * 255)

    # All of the distribution, and its tails: P(D > 2.2/√n) ≈ 1e-4 (Kolmogorov and Smirnov).
    ordered = np.sort(z, axis=None)
    below = torch.special.ndtr(torch.from_numpy(ordered)).numpy()
    assert np.abs(below - (np.arange(n) + 0.5) / n).max() < 2.2 / np.sqrt(n)
    assert 4.2 < -ordered[0] < 4.4
    assert 4.2 < ordered[-1] < 4.4


def test_is_white_and_gaussian() -> None:
    check_white_gaussian(plane(KEY, (0, 512), (-256, 256), 3))


def repeated_block(z: Noise) -> Noise:
    return np.tile(z[:, :64, :64], (1, 8, 8))


def one_size(z: Noise) -> Noise:
    """The last of each four is as large as the second, with a sign of its own."""
    z = z.copy()
    z[..., 3::4] = np.abs(z[..., 1::4]) * np.sign(z[..., 3::4])
    return z


def one_sign(z: Noise) -> Noise:
    """In the left half the third of each four has the sign of the fourth."""
    z = z.copy()
    left = z[..., : z.shape[-1] // 2]
    left[..., 2::4] = np.abs(left[..., 2::4]) * np.sign(left[..., 3::4])
    return z


def smoothed(z: Noise) -> Noise:
    return np.float32(0.9988) * z + np.float32(0.05) * np.roll(z, 1, axis=2)


def uniform(z: Noise) -> Noise:
    return np.random.default_rng(0).uniform(-(3**0.5), 3**0.5, z.shape).astype(np.float32)


@pytest.mark.parametrize(
    "spoil",
    [
        repeated_block,
        one_size,
        one_sign,
        smoothed,
        uniform,
        lambda z: z * np.float32(1.02),
        lambda z: z + np.float32(0.02),
        lambda z: np.repeat(z[:1], 3, axis=0),
    ],
)
def test_the_check_sees_spoilt_noise(spoil: Callable[[Noise], Noise]) -> None:
    z = plane(KEY, (0, 512), (0, 512), 3)
    check_white_gaussian(z)
    with pytest.raises(AssertionError):
        check_white_gaussian(spoil(z))


def weakened(rounds: int) -> Callable[[Tensor, Tensor], Tensor]:
    """The generator with fewer rounds than the published five."""

    def squares(weyl: Tensor, key: Tensor) -> Tensor:
        y, z = weyl, weyl + key
        t = x = y
        for addend in (y, z, y, z)[: rounds - 1]:
            t = x * x + addend
            x = (t << 32) | ((t >> 32) & noise.LOW)
        return t ^ ((x * x + y >> 32) & noise.LOW)

    return squares


def check_bits(squares: Callable[[Tensor, Tensor], Tensor], stride: int) -> None:
    """Bits of counters so far apart are 0 or 1 with one chance, whatever the others are."""
    keys = noise_keys([KEY])
    bits = squares(torch.arange(2**16) * stride * keys, keys).numpy().view(np.uint64)
    ones = ((bits[:, None] >> np.arange(64, dtype=np.uint64)) & np.uint64(1)).astype(np.float64)
    assert np.abs(ones.mean(axis=0) - 0.5).max() < 2.5 / np.sqrt(len(bits))
    neighbours = np.concatenate((ones[1:], ones[:-1]), axis=1)
    correlation = np.corrcoef(neighbours, rowvar=False) - np.eye(128)
    assert np.abs(correlation).max() < 6 / np.sqrt(len(bits))
    each = np.bincount(bits.view(np.uint8), minlength=256)
    expected = bits.nbytes / 256
    assert ((each - expected) ** 2 / expected).sum() < 255 + 5 * np.sqrt(2 * 255)


@pytest.mark.parametrize("stride", [1, noise.ROW, noise.CHANNEL, 2**32, 2**40])
def test_every_bit_is_uniform(stride: int) -> None:
    check_bits(squares64, stride)
    check_bits(weakened(5), stride)


@pytest.mark.parametrize("rounds", [1, 2, 3])
def test_fewer_rounds_would_be_noticed(rounds: int) -> None:
    with pytest.raises(AssertionError):
        check_bits(weakened(rounds), 2**32)


def test_a_plane_without_the_generator_would_be_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(noise, "squares64", lambda weyl, key: weyl)
    with pytest.raises(AssertionError):
        check_white_gaussian(plane(KEY, (0, 512), (-256, 256), 3))
