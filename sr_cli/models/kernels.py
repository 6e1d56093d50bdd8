"""Triton kernels behind `fused`.

Every tensor is (N, C, P) with strides of its own, P the positions of a picture; what comes out is
channels last and contiguous. All sums are in float32, and none depends on which program ends first.
"""

import triton
import triton.language as tl


@triton.jit
def read(x, positions, channels, x_n, x_c, x_p, ROWS: tl.constexpr, WIDE: tl.constexpr):
    """Of a program of the grid (blocks, pictures, channels): its values of x, its picture and its
    channels, which of these there are, where its results are and which of them there are."""
    n = tl.program_id(1).to(tl.int64)
    p = (tl.program_id(0) * ROWS + tl.arange(0, ROWS)).to(tl.int64)[:, None]
    c = (tl.program_id(2) * WIDE + tl.arange(0, WIDE))[None, :]
    known = c < channels
    there = (p < positions) & known
    value = tl.load(x + n * x_n + p * x_p + c * x_c, there, other=0.0).to(tl.float32)
    return value, n, c, known, (n * positions + p) * channels + c, there


@triton.jit
def whole(rows, CHANNELS: tl.constexpr, WIDE: tl.constexpr, ROWS: tl.constexpr):
    """Where all channels of a program's rows are, and which of them are there."""
    row = (tl.program_id(0) * ROWS + tl.arange(0, ROWS)).to(tl.int64)[:, None]
    channel = tl.arange(0, WIDE)[None, :]
    return row * CHANNELS + channel, channel, (row < rows) & (channel < CHANNELS)


@triton.jit
def within(value, most):
    """Rows of channels, none with a larger norm than `most`."""
    norm = tl.sqrt(tl.sum(value * value, axis=1))[:, None]
    return value / tl.maximum(norm / most, 1.0)


@triton.jit
def cap(x, out, most, rows, CHANNELS: tl.constexpr, WIDE: tl.constexpr, ROWS: tl.constexpr):
    """x, `within`."""
    at, _, there = whole(rows, CHANNELS, WIDE, ROWS)
    value = tl.load(x + at, there, other=0.0).to(tl.float32)
    tl.store(out + at, within(value, most), there)


@triton.jit
def add_and_cap(
    x, h, bias, out, shown, most, rows,
    CHANNELS: tl.constexpr, WIDE: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """x + h + bias, and the same `within`."""
    at, channel, there = whole(rows, CHANNELS, WIDE, ROWS)
    value = tl.load(x + at, there, other=0.0).to(tl.float32)
    value += tl.load(h + at, there, other=0.0).to(tl.float32)
    value += tl.load(bias + channel, channel < CHANNELS, other=0.0).to(tl.float32)
    tl.store(out + at, value, there)
    tl.store(shown + at, within(value, most), there)


@triton.jit
def modulate(
    x, bias, scale, shift, out, positions, channels, x_n, x_c, x_p, told_n,
    ROWS: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """silu((x + bias)·(1 + scale) + shift)."""
    value, n, c, known, at, there = read(x, positions, channels, x_n, x_c, x_p, ROWS, WIDE)
    bias = tl.load(bias + c, known, other=0.0).to(tl.float32)
    scale = tl.load(scale + n * told_n + c, known, other=0.0).to(tl.float32)
    shift = tl.load(shift + n * told_n + c, known, other=0.0).to(tl.float32)
    value = (value + bias) * (1 + scale) + shift
    tl.store(out + at, value * tl.sigmoid(value), there)


@triton.jit
def add(
    x, h, bias, out, positions, channels, x_n, x_c, x_p, h_n, h_c, h_p,
    ROWS: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """x + h + bias."""
    value, _, c, known, at, there = read(x, positions, channels, x_n, x_c, x_p, ROWS, WIDE)
    more, _, _, _, _, _ = read(h, positions, channels, h_n, h_c, h_p, ROWS, WIDE)
    value += more
    value += tl.load(bias + c, known, other=0.0).to(tl.float32)
    tl.store(out + at, value, there)


@triton.jit
def prelu(
    x, bias, slope, out, positions, channels, x_n, x_c, x_p,
    ROWS: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """x + bias, and where that is below zero its product with the slope."""
    value, _, c, known, at, there = read(x, positions, channels, x_n, x_c, x_p, ROWS, WIDE)
    value += tl.load(bias + c, known, other=0.0).to(tl.float32)
    slope = tl.load(slope + c, known, other=0.0).to(tl.float32)
    value = tl.where(value < 0, value * slope, value)
    tl.store(out + at, value, there)


@triton.jit
def moments(
    x, bias, sums, squares, positions, channels, x_n, x_c, x_p, bias_n, steps,
    ROWS: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """Of x + bias, for each part of a picture and each channel: its sum and that of its squares,
    (N, parts, C)."""
    n, part = tl.program_id(0).to(tl.int64), tl.program_id(1)
    c = (tl.program_id(2) * WIDE + tl.arange(0, WIDE))[None, :]
    known = c < channels
    plus = tl.load(bias + n * bias_n + c, known, other=0.0).to(tl.float32)
    total, square = tl.zeros((ROWS, WIDE), tl.float32), tl.zeros((ROWS, WIDE), tl.float32)
    for step in range(steps):
        p = ((part * steps + step) * ROWS + tl.arange(0, ROWS)).to(tl.int64)[:, None]
        there = (p < positions) & known
        value = tl.load(x + n * x_n + p * x_p + c * x_c, there, other=0.0).to(tl.float32)
        value = tl.where(there, value + plus, 0.0)
        total += value
        square += value * value
    at = (n * tl.num_programs(1) + part) * channels + c
    tl.store(sums + at, tl.sum(total, axis=0)[None, :], known)
    tl.store(squares + at, tl.sum(square, axis=0)[None, :], known)


@triton.jit
def settle(
    sums, squares, bias, weight, offset, scale, shift, positions, parts, bias_n, eps,
    GROUPS: tl.constexpr, WIDTH: tl.constexpr, WIDE: tl.constexpr, PARTS: tl.constexpr,
):  # fmt: skip
    """The factor and the summand, (N, C), with which the channels of a group become normal."""
    n, group = tl.program_id(0).to(tl.int64), tl.program_id(1)
    inside = tl.arange(0, WIDE)
    c = group * WIDTH + inside
    known = inside < WIDTH
    part = tl.arange(0, PARTS)[:, None]
    at = (n * parts + part) * (GROUPS * WIDTH) + c[None, :]
    there = (part < parts) & known[None, :]
    count = positions * 1.0 * WIDTH
    mean = tl.sum(tl.load(sums + at, there, other=0.0)) / count
    square = tl.sum(tl.load(squares + at, there, other=0.0)) / count
    steep = tl.rsqrt(tl.maximum(square - mean * mean, 0.0) + eps)
    steep = steep * tl.load(weight + c, known, other=0.0).to(tl.float32)
    plus = tl.load(bias + n * bias_n + c, known, other=0.0).to(tl.float32) - mean
    plus = tl.load(offset + c, known, other=0.0).to(tl.float32) + plus * steep
    at = n * (GROUPS * WIDTH) + c
    tl.store(scale + at, steep, known)
    tl.store(shift + at, plus, known)


@triton.jit
def normalise(
    x, scale, shift, out, positions, channels, x_n, x_c, x_p,
    SILU: tl.constexpr, ROWS: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """x·scale + shift, through SiLU or as it is."""
    value, n, c, known, at, there = read(x, positions, channels, x_n, x_c, x_p, ROWS, WIDE)
    factor = tl.load(scale + n * channels + c, known, other=0.0)
    value = value * factor + tl.load(shift + n * channels + c, known, other=0.0)
    if SILU:
        value = value * tl.sigmoid(value)
    tl.store(out + at, value, there)


@triton.jit
def rotated_square(x, addend):
    """Of x with its halves exchanged the square, and the addend: see `diffusion.noise`."""
    high = (x >> 32) & 0xFFFFFFFF
    return high * (high + (x << 33)) + addend


@triton.jit
def noise(
    x, out, keys, table, scale, planes, channels, height, width, words, by_channel, by_row,
    BLOCK: tl.constexpr, VALUES: tl.constexpr,
):  # fmt: skip
    """x + scale·z, (N, C, H, W) contiguous, of some words, each of which has VALUES columns."""
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    word, row = at % words, at // words
    plane = row // height
    there = plane < planes
    key = tl.load(keys + plane // channels, there, other=0)
    y = (plane % channels * by_channel + row % height * by_row + word) * key
    z = y + key
    bits = rotated_square(rotated_square(rotated_square(y * y + y, z), y), z)
    bits = bits ^ (rotated_square(bits, y) >> 32 & 0xFFFFFFFF)
    for k in tl.static_range(VALUES):
        column = word * VALUES + k
        inside = there & (column < width)
        value = tl.load(table + ((bits >> 16 * k) & 0xFFFF), inside, other=0.0)
        value = tl.load(x + row * width + column, inside, other=0.0) + value * scale
        tl.store(out + row * width + column, value, inside)
