"""Networks on a picture that comes from above to below, a few rows at a time.

Every layer keeps the rows of its input that its next rows depend on, so nothing is computed twice
and the memory depends on the picture's width alone. What comes out lags behind what goes in by the
network's reach; after the last rows all that is left comes out.

Layers are iterators of tensors (N, C, rows, W) over those of the layer before. One that has no
more rows may be asked again when there are. None holds what it has handed on.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sr_cli.models.network import Block, EmbeddedNet
from sr_cli.models.winograd import Convolution
from sr_cli.stopping import go_on

PIECE = 1 << 18
"""Pixels that the last layers, at full resolution, take at a time."""

Rows = Iterator[Tensor]


class Waiting:
    """Rows that are kept, in the order in which they came, until they are needed again."""

    def __init__(self) -> None:
        self._parts: deque[Tensor] = deque()

    def put(self, rows: Tensor) -> Tensor:
        """Keep these rows, and give them."""
        self._parts.append(rows)
        return rows

    def take(self, count: int) -> Tensor:
        """The next rows, at least one and at most as many as there are; they are not kept."""
        taken = []
        while count:
            part = self._parts.popleft()
            if part.shape[-2] > count:
                self._parts.appendleft(part[..., count:, :].clone())  # a view would keep all of it
                part = part[..., :count, :]
            taken.append(part)
            count -= part.shape[-2]
        return torch.cat(taken, dim=-2) if len(taken) > 1 else taken[0]

    def added(self, rows: Tensor) -> Tensor:
        """These rows, which nobody needs any longer, and the next of those kept, added up."""
        return rows.add_(self.take(rows.shape[-2]))


class _Pieces(Rows):
    """What a function makes of rows, which may be several pieces or none."""

    def __init__(self, rows: Rows, function: Callable[[Tensor], list[Tensor]]) -> None:
        self._rows, self._function = rows, function
        self._ready: deque[Tensor] = deque()

    def __next__(self) -> Tensor:
        while not self._ready:
            self._ready.extend(self._function(next(self._rows)))
        return self._ready.popleft()


def pieces(rows: Tensor, most: int) -> list[Tensor]:
    """The same rows, as many at a time as have so many cells, at least one."""
    return list(torch.split(rows, max(1, most // rows.shape[-1]), dim=-2))


Into = Callable[[Tensor, Tensor], object]
"""Writes what a layer is shown of its first argument into the second."""


def as_it_is(x: Tensor, out: Tensor) -> None:
    """All of it."""
    out.copy_(x)


class Room:
    """Memory that convolutions share, one after another, for what goes into them.

    New memory for each of them would take several times as much: the C library seldom finds the
    place of a freed block large enough for the next one of the same size.
    """

    def __init__(self) -> None:
        self._values = torch.empty(0)

    def of(self, shape: tuple[int, int, int, int], layer: nn.Conv2d) -> Tensor:
        """(N, C, h, W), of arbitrary values, as a layer reads it best."""
        size, weight = math.prod(shape), layer.weight
        if self._values.numel() < size:
            self._values = weight.new_empty(size)
        number, channels, height, width = shape
        if weight.is_contiguous():
            return self._values[:size].view(shape)
        return self._values[:size].view(number, height, width, channels).permute(0, 3, 1, 2)


class _Convolution:
    """3×3 with zeros around the picture, which has so many rows in all."""

    def __init__(self, layer: Convolution, height: int, room: Room, into: Into) -> None:
        self._layer, self._left, self._room, self._into = layer, height, room, into
        self._kept: Tensor | None = None
        self._most = 0

    def __call__(self, x: Tensor) -> list[Tensor]:
        """The rows that can be told, in pieces of as many as come at a time."""
        go_on()
        number, _, more, width = x.shape
        self._most = max(self._most, more)
        self._left -= more
        above = 1 if self._kept is None else self._kept.shape[-2]
        below = above + more
        shape = number, self._layer.in_channels, below + (not self._left), width
        shown = self._room.of(shape, self._layer)
        shown[..., :above, :] = 0 if self._kept is None else self._kept
        self._into(x, shown[..., above:below, :])
        shown[..., below:, :] = 0
        self._kept = shown[..., -2:, :].clone(memory_format=torch.preserve_format)
        if shown.shape[-2] < 3:
            return []
        return list(torch.split(self._layer.over(shown, above=0), self._most, dim=-2))


def convolved(
    rows: Rows, layer: Convolution, height: int, room: Room, into: Into = as_it_is
) -> Rows:
    """By a 3×3 convolution over what `into` makes of a picture of that height."""
    return _Pieces(rows, _Convolution(layer, height, room, into))


def paired(rows: Rows) -> Rows:
    """The same rows, always an even number of them; there is one in all."""
    rest: list[Tensor] = []

    def even(x: Tensor) -> list[Tensor]:
        x = torch.cat((*rest, x), dim=-2)
        whole = x.shape[-2] // 2 * 2
        rest[:] = [x[..., whole:, :].clone()]
        return [x[..., :whole, :]] if whole else []

    return _Pieces(rows, even)


def residual(rows: Rows, block: Block, level: Tensor, height: int, room: Room) -> Rows:
    """Through a residual block."""
    waiting, modulated = Waiting(), partial(block.modulated, level=level)
    before = convolved(map(waiting.put, rows), block.conv1, height, room, block.shown)
    return map(waiting.added, convolved(before, block.conv2, height, room, modulated))


def through(rows: Rows, blocks: nn.Module, level: Tensor, height: int, room: Room) -> Rows:
    """Through the blocks of a stage."""
    for block in blocks.children():
        rows = residual(rows, cast(Block, block), level, height, room)
    return rows


def embedded(rows: Rows, net: EmbeddedNet, level: Tensor, height: int) -> Rows:
    """What the network makes of what it has `seen` of rows, (1, 3, n, W) in the end.

    level: as it is `told`. height: of the picture; it, W and the numbers of rows are multiples of
    what the network takes.
    """
    factor, height, room = net.config.unshuffle, height // net.config.unshuffle, Room()
    x = convolved(map(nn.PixelUnshuffle(factor), rows), net.head, height, room)
    skips: list[Waiting] = []
    for stage, down in zip(net.encoder, net.down, strict=True):
        x = through(x, stage, level, height, room)
        skips.append(Waiting())
        x = map(down, paired(map(skips[-1].put, x)))
        height //= 2
    x = through(x, net.middle, level, height, room)
    for stage, up, skip in reversed(list(zip(net.decoder, net.up, skips, strict=True))):
        height *= 2
        x = through(map(skip.added, map(up, x)), stage, level, height, room)
    x = _Pieces(x, partial(pieces, most=PIECE // factor**2))
    full = map(nn.PixelShuffle(factor), convolved(x, net.tail, height, room, net.capped))
    return finished(net, full, level, factor * height, room) if net.config.detail else full


def finished(net: EmbeddedNet, rows: Rows, level: Tensor, height: int, room: Room) -> Rows:
    """Through the layers at full resolution, which leave the picture's three channels."""
    for block in net.refine:
        rows = residual(rows, cast(Block, block), level, height, room)
    waiting = Waiting()

    def noted(full: Tensor, out: Tensor) -> None:
        waiting.put(full[:, :3].clone())
        F.silu(out.copy_(full), inplace=True)

    return map(waiting.added, convolved(rows, net.finish, height, room, noted))


class Flow:
    """Layers on one picture: rows are put in, and those that are done come out."""

    def __init__(self, layers: Callable[[Rows], Rows]) -> None:
        """layers: on what is put in."""
        self._inbox: deque[Tensor] = deque()
        self.rows = layers(_Popped(self._inbox))

    def put(self, rows: Tensor) -> None:
        """The next rows, (1, C, n, W)."""
        self._inbox.append(rows)


class _Popped(Rows):
    """What is in a box, as long as there is something."""

    def __init__(self, box: deque[Tensor]) -> None:
        self._box = box

    def __next__(self) -> Tensor:
        if not self._box:
            raise StopIteration
        return self._box.popleft()
