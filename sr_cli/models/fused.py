"""What lies between convolutions, and a walk's noise, in one pass each, where a GPU has Triton.

torch makes four to eight of the former, each of which reads and writes everything, and its group
norm copies what is channels last to and fro; of the latter it makes more than thirty. Everything
here is for inference; features are channels last, computed in float32 and rounded once.
"""

import logging
import math
from functools import cache
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sr_cli.diffusion.noise import CHANNEL, ROW, VALUES, by_bits

WIDE = 64
"""Channels a program works on."""
ROWS = 64
"""Positions it works on."""
PROGRAMS = 1024
"""Into about as many a group norm's sums are divided, at least."""
PARTS = 64
"""Of a picture, at most, whose sums are added afterwards."""
WORDS = 256
"""Of noise, that a program draws."""

_log = logging.getLogger(__name__)


def serves(x: Tensor) -> bool:
    """Whether the functions below can be called: on CUDA, in inference mode, outside compilers."""
    return (
        x.is_cuda
        and torch.is_inference_mode_enabled()
        and not torch.compiler.is_compiling()
        and _works(x.device)
    )


@cache
def _works(device: torch.device) -> bool:
    """Whether a kernel runs there: Triton takes a C compiler when it is first asked."""
    try:
        return float(capped(torch.full((1, 1, 1, 1), 3.0, device=device), 2.0)) == 2
    except Exception as error:
        _log.warning("no Triton kernels, so passes over features are torch's: %s", error)
        return False


@cache
def _kernels() -> ModuleType:
    from sr_cli.models import kernels

    return kernels


def capped(x: Tensor, cap: float) -> Tensor:
    """x, (N, C, H, W), each cell with a root mean square over C of at most `cap`."""
    x = x.contiguous(memory_format=torch.channels_last)
    out, (rows, sizes) = torch.empty_like(x), _rows(x)
    launch(x, "cap", (-(-rows // sizes["ROWS"]),), x, out, _norm(x, cap), rows, **sizes)
    return out


def added_and_capped(x: Tensor, h: Tensor, layer: nn.Conv2d, cap: float) -> tuple[Tensor, Tensor]:
    """x + h + a layer's bias of x and h (N, C, H, W), and the same `capped`."""
    x, h = (given.contiguous(memory_format=torch.channels_last) for given in (x, h))
    out, shown, (rows, sizes) = torch.empty_like(x), torch.empty_like(x), _rows(x)
    given = (x, h, layer.bias, out, shown, _norm(x, cap), rows)
    launch(x, "add_and_cap", (-(-rows // sizes["ROWS"]),), *given, **sizes)
    return out, shown


def modulated(x: Tensor, layer: nn.Conv2d, scale: Tensor, shift: Tensor) -> Tensor:
    """silu((x + bias)·(1 + scale) + shift) of x (N, C, H, W), a layer's bias (C,), scale and shift
    (N, C) or (1, C), which have the same strides."""
    x, out = _even(x), _like(x)
    along = scale.stride(0) if len(scale) > 1 else 0
    given = (x, layer.bias, scale, shift, out, *_sides(x), *_strides(x), along)
    launch(x, "modulate", _grid(x), *given, ROWS=ROWS, WIDE=_wide(x))
    return out


def added(x: Tensor, h: Tensor, *layers: nn.Conv2d) -> Tensor:
    """x + h + the biases (C,) of layers of x and h (N, C, H, W)."""
    x, h, out = _even(x), _even(h), _like(x)
    given = (x, h, _biases(*layers), out, *_sides(x), *_strides(x), *_strides(h))
    launch(x, "add", _grid(x), *given, ROWS=ROWS, WIDE=_wide(x))
    return out


def through_prelu(x: Tensor, layer: nn.Conv2d, prelu: nn.PReLU) -> Tensor:
    """prelu(layer(x)), x (N, C, H, W)."""
    x = _even(bare(layer, x))
    given = (x, layer.bias, prelu.weight, out := _like(x), *_sides(x), *_strides(x))
    launch(x, "prelu", _grid(x), *given, ROWS=ROWS, WIDE=_wide(x))
    return out


def normed(x: Tensor, norm: nn.GroupNorm, bias: Tensor | None = None, *, silu: bool) -> Tensor:
    """The group norm of x + bias, then perhaps SiLU; x (N, C, H, W), bias (C,) or (N, C)."""
    x, out = _even(x), _like(x)
    number, (positions, channels), wide = len(x), _sides(x), _wide(x)
    blocks = -(-channels // wide)
    parts = min(PARTS, max(1, PROGRAMS // (number * blocks)), -(-positions // ROWS))
    steps = -(-positions // (parts * ROWS))
    bias = x.new_zeros(channels) if bias is None else bias
    along = bias.stride(0) if bias.ndim == 2 else 0
    sums, squares = x.new_empty(2, number, parts, channels, dtype=torch.float32)
    scale, shift = x.new_empty(2, number, channels, dtype=torch.float32)
    summed = (x, bias, sums, squares, positions, channels, *_strides(x), along, steps)
    launch(x, "moments", (number, parts, blocks), *summed, ROWS=ROWS, WIDE=wide)
    width = channels // norm.num_groups
    sizes = {"GROUPS": norm.num_groups, "WIDTH": width, "WIDE": _power(width)}
    known = (sums, squares, bias, norm.weight, norm.bias, scale, shift, positions, parts, along)
    grid = (number, norm.num_groups)
    launch(x, "settle", grid, *known, norm.eps, PARTS=_power(parts), **sizes)
    given = (x, scale, shift, out, positions, channels, *_strides(x))
    launch(x, "normalise", _grid(x), *given, SILU=silu, ROWS=ROWS, WIDE=wide)
    return out


def add_noise(x: Tensor, keys: Tensor, scale: float) -> None:
    """`diffusion.noise.add_noise`: x, (N, C, H, W) float32, is contiguous."""
    number, channels, height, width = x.shape
    words = -(-width // VALUES)
    sides = number * channels, channels, height, width, words
    given = (x, x, keys, by_bits(x.device), scale, *sides, CHANNEL, ROW)
    grid = (-(-number * channels * height * words // WORDS),)
    launch(x, "noise", grid, *given, BLOCK=WORDS, VALUES=VALUES)


def shuffled(x: Tensor, factor: int) -> Tensor:
    """`pixel_shuffle` of what is channels last into what is channels last: one copy."""
    number, channels, height, width = x.shape
    inside = channels // factor**2
    cells = x.permute(0, 2, 3, 1).view(number, height, width, inside, factor, factor)
    picture = cells.permute(0, 1, 4, 2, 5, 3).reshape(
        number, factor * height, factor * width, inside
    )
    return picture.permute(0, 3, 1, 2)


def bare(convolution: nn.Conv2d, x: Tensor) -> Tensor:
    """A convolution without its bias, which a function above adds."""
    own = convolution
    return F.conv2d(x, own.weight, None, own.stride, own.padding, own.dilation, own.groups)


def _biases(*layers: nn.Conv2d) -> Tensor:
    """Their sum."""
    first, *others = (layer.bias for layer in layers if layer.bias is not None)
    return sum(others, first)


def launch(x: Tensor, name: str, grid: tuple[int, ...], *given: Any, **sizes: Any) -> None:
    """A kernel on the device of x; given: what it reads and writes, and numbers."""
    with torch.cuda.device_of(x):  # type: ignore[no-untyped-call]
        getattr(_kernels(), name)[grid](*given, **sizes)


def _even(x: Tensor) -> Tensor:
    """With rows that follow each other at one distance, copied if need be."""
    follow = x.stride(2) == x.shape[3] * x.stride(3)
    return x if follow else x.contiguous(memory_format=torch.channels_last)


def _like(x: Tensor) -> Tensor:
    return torch.empty_like(x, memory_format=torch.channels_last)


def _sides(x: Tensor) -> tuple[int, int]:
    """Positions and channels."""
    return x.shape[2] * x.shape[3], x.shape[1]


def _strides(x: Tensor) -> tuple[int, int, int]:
    """From picture to picture, channel to channel, position to position."""
    return x.stride(0), x.stride(1), x.stride(3)


def _norm(x: Tensor, cap: float) -> float:
    """Of a cell whose root mean square is `cap`."""
    return cap * math.sqrt(x.shape[1])


def _rows(x: Tensor) -> tuple[int, dict[str, int]]:
    """Cells of all pictures, and the sizes of a program that sees all channels of some."""
    channels = x.shape[1]
    wide = _power(channels)
    return x.numel() // channels, {"CHANNELS": channels, "WIDE": wide, "ROWS": max(1, 4096 // wide)}


def _grid(x: Tensor) -> tuple[int, int, int]:
    """Blocks, pictures and channels; only of the first may there be more than 65,535."""
    positions, channels = _sides(x)
    return -(-positions // ROWS), len(x), -(-channels // _wide(x))


def _wide(x: Tensor) -> int:
    return min(WIDE, _power(x.shape[1]))


def _power(number: int) -> int:
    """The next power of two."""
    return 1 << (number - 1).bit_length()
