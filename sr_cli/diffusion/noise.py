"""Gaussian noise by position: it depends on (seed, picture, step, channel, row, column) alone.

It comes from Squares, a counter-based generator (Widynski, *Squares: A Fast Counter-Based RNG*,
arXiv 2004.06278), whose words give four values each, through a table of the normal distribution's
quantiles. Both are tensor operations on whole numbers, so whole windows of whole batches are drawn
at once wherever their tensors live, and are the same bits on every device. Any two windows of the
infinite plane agree where they overlap, whatever the tiling, the batch or the order of files.
"""

import hashlib
from collections.abc import Callable, Sequence
from functools import cache
from types import EllipsisType

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sr_cli.each import Each

Window = tuple[int, int]
"""Of rows or of columns: the first, and the one after the last."""
Strip = tuple[EllipsisType, slice, slice]
"""Some rows of a window."""
LOW = 2**32 - 1
ROW, CHANNEL = 0x9E3779B97F4A7C15 - 2**64, 0xBF58476D1CE4E5B9 - 2**64
"""How far a row and a channel are from the next in the generator's counter, modulo 2⁶⁴: the golden
ratio keeps positions that are not very far apart from sharing one."""
Words = NDArray[np.uint64]
VALUES = 4
"""Values of one word, in columns side by side."""
STRIP = {"cpu": 2**15, "else": 2**22}
"""Words that are drawn at a time: for each thread as many as a processor's cache holds, or what
little memory of a GPU holds."""


def digest(image: NDArray[np.generic]) -> bytes:
    """16 bytes that identify an array: its dtype, shape and values."""
    h = hashlib.blake2b(f"{image.dtype.str} {image.shape} ".encode(), digest_size=16)
    h.update(np.ascontiguousarray(image).data)
    return h.digest()


def noise_key(seed: int, image: bytes, step: int) -> int:
    """The 64-bit key of one step's draw; `image` is its `digest`, step 0 the start.

    As the paper asks, a key is odd, and each half of it has eight different hexadecimal digits
    without 0.
    """
    head = f"{seed} {step} ".encode()
    chance = int.from_bytes(hashlib.blake2b(head + image, digest_size=16).digest(), "little")
    key = 0
    for half in range(2):
        digits = list(range(1, 16))
        for place in range(8):
            choices = digits[::2] if half == place == 0 else digits
            chance, choice = divmod(chance, len(choices))
            key |= choices[choice] << 4 * (8 * half + place)
            digits.remove(choices[choice])
    return key


def noise_keys(keys: Sequence[int], device: torch.device | str = "cpu") -> Tensor:
    """Keys as a tensor, int64 (N,) with their 64 bits, on the device that draws for this one.

    That is the CPU for MPS, whose integers have not been tried. What drawing needs besides is
    brought there too.
    """
    place = "cpu" if torch.device(device).type == "mps" else device
    found = torch.tensor([key - 2**64 if key >> 63 else key for key in keys], device=place)
    by_bits(found.device)
    return found


def gaussian_noise(
    keys: Tensor, rows: Window, cols: Window, channels: int, *, each: Each = map
) -> Tensor:
    """z ~ N(0, 1) in the window [rows[0], rows[1]) × [cols[0], cols[1]) of infinite planes.

    keys: one for each plane. each: draws some rows after others, as `map` does, or side by side.
    Returns float32 (N, channels, height, width), on the keys' device. Positions may be negative;
    they count modulo 2⁶⁴.
    """
    sides = rows[1] - rows[0], cols[1] - cols[0]
    z = torch.empty(len(keys), channels, *sides, device=keys.device, dtype=torch.float32)
    _in_strips(z.__setitem__, keys, (rows, cols), channels, each=each)
    return z


def add_noise(x: Tensor, keys: Tensor, scale: float, *, each: Each = map) -> Tensor:
    """x + scale·z, in x itself, (N, C, H, W) float32 with a key for each of the N.

    z is of the window whose first row and column are 0. each: as for `gaussian_noise`.
    """
    channels, height, width = x.shape[1:]

    def add(strip: Strip, z: Tensor) -> None:
        x[strip].add_(z.to(x.device), alpha=scale)

    _in_strips(add, keys, ((0, height), (0, width)), channels, each=each)
    return x


def _in_strips(
    use: Callable[[Strip, Tensor], object],
    keys: Tensor,
    window: tuple[Window, Window],
    channels: int,
    *,
    each: Each,
) -> None:
    """Draw a window, some of its rows after others: use(where they are in it, their z)."""
    rows, (left, right) = window
    cpu = keys.device.type == "cpu"
    words = STRIP["cpu"] * torch.get_num_threads() if cpu else STRIP["else"]
    height = max(1, words * VALUES // max(1, len(keys) * channels * (right - left)))
    first, last = left // VALUES, -(-right // VALUES)
    by_row, by_word = _weyl(keys, rows, (first, last), channels)

    def one(top: int) -> None:
        strip = ..., slice(top, top + height), slice(None)
        z = normals(squares64(_sum(by_row[strip], by_word), keys.view(-1, 1, 1, 1)))
        use(strip, z[..., left - VALUES * first : right - VALUES * first])

    for _ in each(one, range(0, rows[1] - rows[0], height)):
        pass


def _weyl(keys: Tensor, rows: Window, words: Window, channels: int) -> tuple[Tensor, Tensor]:
    """Of key · counter modulo 2⁶⁴ what the rows give, (N, channels, rows, 1), and what the words in
    them add to it, (N, 1, 1, words)."""
    key = keys.view(-1, 1, 1, 1)
    channel, row, word = (
        torch.arange(*window, device=keys.device) for window in ((0, channels), rows, words)
    )
    counted = (channel * CHANNEL)[:, None, None] + (row * ROW)[:, None]
    return counted * key, word * key


def _sum(by_row: Tensor, by_word: Tensor) -> Tensor:
    if by_row.device.type != "cpu":
        return by_row + by_word
    result = by_row.new_empty(*by_row.shape[:-1], by_word.shape[-1])
    np.add(by_row.numpy(), by_word.numpy(), out=result.numpy())  # in half of torch's time
    return result


def squares64(weyl: Tensor, key: Tensor) -> Tensor:
    """64 random bits for each counter: Widynski's `squares64`, int64 of weyl's shape.

    weyl: key · counter, which is overwritten. His rotation by half a word before each squaring is
    folded into it: with x = 2³²·h + l, (2³²·l + h)² = h·(h + 2³³·x) modulo 2⁶⁴.
    """
    if weyl.device.type == "cpu":
        _squares64(*(words.numpy().view(np.uint64) for words in (weyl, key)))
        return weyl
    y, z = weyl, weyl + key
    x = torch.addcmul(y, y, y)
    high, factor = torch.empty_like(x), torch.empty_like(x)

    def rotated_square(addend: Tensor, out: Tensor) -> Tensor:
        torch.bitwise_right_shift(x, 32, out=high).bitwise_and_(LOW)
        torch.add(high, x, alpha=2**33, out=factor)
        return torch.addcmul(addend, high, factor, out=out)

    for addend in (z, y, z):
        rotated_square(addend, x)
    last = rotated_square(y, y).bitwise_right_shift_(32).bitwise_and_(LOW)
    return x.bitwise_xor_(last)


def _squares64(y: Words, key: Words) -> None:
    """`squares64` in the place of y = key · counter, by NumPy, which multiplies words on a CPU in a
    third of torch's time."""
    z, high = y + key, np.empty_like(y)

    def rotated_square(x: Words, addend: Words, out: Words) -> None:
        np.right_shift(x, 32, out=high)
        np.left_shift(x, 33, out=out)
        np.add(out, high, out=out)
        np.multiply(out, high, out=out)
        np.add(out, addend, out=out)

    x = y * y
    x += y
    for addend in (z, y, z):
        rotated_square(x, addend, out=x)
    rotated_square(x, y, out=z)
    z >>= 32
    np.bitwise_xor(x, z, out=y)


def normals(bits: Tensor) -> Tensor:
    """Four ~ N(0, 1) of each 64 bits, side by side: int64 (..., W) → float32 (..., 4·W).

    Each is the quantile that 16 of the bits, a signed number, say, the lowest first. So z has
    65,536 values, the largest 4.325, and is 0 on average with a variance of 1.
    """
    if bits.device.type == "cpu":
        sixteen = bits.view(torch.uint16)
        index = sixteen.flatten().int()
    else:  # where torch may not know such numbers
        sixteen = bits.view(torch.int16)
        index = sixteen.flatten().int().bitwise_and_(0xFFFF)
    return by_bits(bits.device).index_select(0, index).view(sixteen.shape)


@cache
def by_bits(device: torch.device) -> Tensor:
    """`quantiles` in the order of their bits as a number without a sign."""
    return quantiles(device).roll(2**15)


@cache
def quantiles(device: torch.device) -> Tensor:
    """N(0, 1) in 65,536 parts of one probability: the value in the middle of each, scaled to a
    variance of 1, in order; float32. That they are made on the CPU makes them equal everywhere."""
    upper = torch.special.ndtri((torch.arange(2**15, 2**16, dtype=torch.float64) + 0.5) / 2**16)
    upper /= upper.square().mean().sqrt()
    return torch.cat((-upper.flip(0), upper)).float().to(device)
