"""Networks on a picture that comes from above to below, a few rows at a time.

Every layer keeps the rows of its input that its next rows depend on, so nothing is computed twice
and the memory depends on the picture's width alone. What comes out lags behind what goes in by the
network's reach; after the last rows all that is left comes out.

Layers are iterators of tensors (N, C, rows, W) over those of the layer before. One that has no
more rows may be asked again when there are. None holds what it has handed on.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sr_cli.models.network import Block, EmbeddedNet
from sr_cli.models.winograd import Convolution

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
        return torch.cat(taken, dim=-2)

    def added(self, rows: Tensor) -> Tensor:
        """These rows and the next of those that are kept, added up."""
        return self.take(rows.shape[-2]) + rows


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


class _Convolution:
    """3×3 with zeros around the picture, which has so many rows in all."""

    def __init__(self, layer: Convolution, height: int) -> None:
        self._layer, self._left = layer, height
        self._kept: Tensor | None = None
        self._most = 0

    def __call__(self, x: Tensor) -> list[Tensor]:
        """The rows that can be told, in pieces of as many as come at a time."""
        self._most = max(self._most, x.shape[-2])
        self._left -= x.shape[-2]
        x = F.pad(x, (0, 0, 1, 0)) if self._kept is None else torch.cat((self._kept, x), dim=-2)
        if not self._left:
            x = F.pad(x, (0, 0, 0, 1))
        self._kept = x[..., -2:, :].clone(memory_format=torch.preserve_format)
        if x.shape[-2] < 3:
            return []
        result = self._layer.over(x, above=0)
        return list(torch.split(result, self._most, dim=-2))


def convolved(rows: Rows, layer: Convolution, height: int) -> Rows:
    """By a 3×3 convolution over a picture of that height."""
    return _Pieces(rows, _Convolution(layer, height))


def paired(rows: Rows) -> Rows:
    """The same rows, always an even number of them; there is one in all."""
    rest: list[Tensor] = []

    def even(x: Tensor) -> list[Tensor]:
        x = torch.cat((*rest, x), dim=-2)
        whole = x.shape[-2] // 2 * 2
        rest[:] = [x[..., whole:, :].clone()]
        return [x[..., :whole, :]] if whole else []

    return _Pieces(rows, even)


def residual(rows: Rows, block: Block, level: Tensor, height: int) -> Rows:
    """Through a residual block."""
    waiting = Waiting()
    before = convolved(map(block.shown, map(waiting.put, rows)), block.conv1, height)
    modulated = map(partial(block.modulated, level=level), before)
    return map(waiting.added, convolved(modulated, block.conv2, height))


def through(rows: Rows, blocks: nn.Module, level: Tensor, height: int) -> Rows:
    """Through the blocks of a stage."""
    for block in blocks.children():
        rows = residual(rows, cast(Block, block), level, height)
    return rows


def embedded(rows: Rows, net: EmbeddedNet, level: Tensor, height: int) -> Rows:
    """What the network makes of what it has `seen` of rows, (1, 3, n, W) in the end.

    level: as it is `told`. height: of the picture; it, W and the numbers of rows are multiples of
    what the network takes.
    """
    factor, height = net.config.unshuffle, height // net.config.unshuffle
    x = convolved(map(nn.PixelUnshuffle(factor), rows), net.head, height)
    skips: list[Waiting] = []
    for stage, down in zip(net.encoder, net.down, strict=True):
        x = through(x, stage, level, height)
        skips.append(Waiting())
        x = map(down, paired(map(skips[-1].put, x)))
        height //= 2
    x = through(x, net.middle, level, height)
    for stage, up, skip in reversed(list(zip(net.decoder, net.up, skips, strict=True))):
        height *= 2
        x = through(map(skip.added, map(up, x)), stage, level, height)
    features = map(net.capped, _Pieces(x, partial(pieces, most=PIECE // factor**2)))
    full = map(nn.PixelShuffle(factor), convolved(features, net.tail, height))
    return finished(net, full, level, factor * height) if net.config.detail else full


def finished(net: EmbeddedNet, rows: Rows, level: Tensor, height: int) -> Rows:
    """Through the layers at full resolution, which leave the picture's three channels."""
    for block in net.refine:
        rows = residual(rows, cast(Block, block), level, height)
    waiting = Waiting()

    def noted(full: Tensor) -> Tensor:
        waiting.put(full[:, :3].clone())
        return full

    return map(waiting.added, convolved(map(F.silu, map(noted, rows)), net.finish, height))


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
