"""Weights of an ncnn network (`.param`, `.bin`), as far as Real-ESRGAN's networks need it.

Formats: the ncnn wiki's "param and model file structure"; ncnn's ModelBin::load gives the tags.
"""

from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sr_cli.errors import ModelError

MAGIC = "7767517"
TAG_FLOAT16 = 0x01306B47
TAG_FLOAT32 = 0
WITHOUT_WEIGHTS = {"Input", "Split", "Concat", "Eltwise", "BinaryOp", "Interp", "PixelShuffle"}


@dataclass(frozen=True)
class Convolution:
    """One layer of the graph: weight (outputs, inputs, height, width), bias (outputs,), float32."""

    weight: Tensor
    bias: Tensor


def read_rrdbnet(param: Path, binary: Path) -> dict[str, Tensor]:
    """State dict of Real-ESRGAN's RRDBNet ×4, with its authors' names, which spandrel reads.

    Raises ModelError when a file is missing, damaged or of another network.
    """
    convolutions = [layer for layer in read_layers(param, binary) if isinstance(layer, Convolution)]
    blocks, rest = divmod(len(convolutions) - 6, 15)
    if blocks < 1 or rest:
        raise ModelError(f"{param} is no RRDBNet: it has {len(convolutions)} convolutions.")
    dense = product(range(blocks), (1, 2, 3), (1, 2, 3, 4, 5))
    body = [f"body.{b}.rdb{d}.conv{c}" for b, d, c in dense]
    names = ["conv_first", *body, "conv_body", "conv_up1", "conv_up2", "conv_hr", "conv_last"]
    state = {}
    for name, convolution in zip(names, convolutions, strict=True):
        state[f"{name}.weight"] = convolution.weight
        state[f"{name}.bias"] = convolution.bias
    return state


def read_compact(param: Path, binary: Path) -> dict[str, Tensor]:
    """State dict of Real-ESRGAN's SRVGGNetCompact, with its authors' names.

    Raises ModelError when a file is missing or damaged.
    """
    state = {}
    for place, layer in enumerate(read_layers(param, binary)):
        if isinstance(layer, Convolution):
            state[f"body.{place}.weight"] = layer.weight
            state[f"body.{place}.bias"] = layer.bias
        else:
            state[f"body.{place}.weight"] = layer
    return state


def read_layers(param: Path, binary: Path) -> list[Convolution | Tensor]:
    """The convolutions of a graph and the slopes, (channels,) float32, of its PReLUs, in its order;
    float16 weights become float32.

    Raises ModelError when a file is missing or damaged, or a layer's weights are of another kind.
    """
    try:
        lines = param.read_text("ascii").splitlines()
        data = _Reader(binary.read_bytes())
    except (OSError, UnicodeDecodeError) as error:
        raise ModelError(
            f"{param} and {binary.name} cannot be read: install them again."
        ) from error
    try:
        layers = _read_layers(lines, data)
        data.expect_end()
    except (KeyError, IndexError, ValueError) as error:
        raise ModelError(
            f"{param} and {binary.name} are no ncnn model that srx can read: {error}"
        ) from error
    return layers


def _read_layers(lines: list[str], data: "_Reader") -> list[Convolution | Tensor]:
    if lines[:1] != [MAGIC]:
        raise ValueError("the magic number is missing")
    layers: list[Convolution | Tensor] = []
    for line in lines[2:]:
        kind, _name, inputs, outputs, *fields = line.split()
        if kind in ("Convolution", "PReLU"):
            options = dict(field.split("=") for field in fields[int(inputs) + int(outputs) :])
            read = _read_convolution if kind == "Convolution" else _read_slopes
            layers.append(read(options, data))
        elif kind not in WITHOUT_WEIGHTS:
            raise ValueError(f"layer type {kind} is not supported")
    if len(lines) - 2 != int(lines[1].split()[0]):
        raise ValueError("layers are missing")
    return layers


def _read_slopes(options: dict[str, str], data: "_Reader") -> Tensor:
    """Parameter 0 is their number; they have no tag."""
    return torch.from_numpy(data.float32(int(options["0"])))


def _read_convolution(options: dict[str, str], data: "_Reader") -> Convolution:
    """Parameters 0, 1, 11, 5 and 6 are outputs, width, height, has-bias and number of weights."""
    outputs, width, size = (int(options[key]) for key in ("0", "1", "6"))
    height = int(options.get("11", width))
    if options.get("5") != "1":
        raise ValueError("a convolution has no bias")
    weight = data.tagged(size).reshape(outputs, -1, height, width)
    return Convolution(torch.from_numpy(weight), torch.from_numpy(data.float32(outputs)))


class _Reader:
    """Arrays one after another out of a `.bin` file's bytes; ValueError where they end early."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self._position = 0

    def tagged(self, count: int) -> np.ndarray:
        """`count` numbers behind a tag that tells their type, padded to 4 bytes; float32."""
        tag = int(self._take("<u4", 1)[0])
        if tag == TAG_FLOAT32:
            return self.float32(count)
        if tag != TAG_FLOAT16:
            raise ValueError(f"weights of type {tag:#x} are not supported")
        values = self._take("<f2", count).astype(np.float32)
        self._position += -2 * count % 4
        return values

    def float32(self, count: int) -> np.ndarray:
        return self._take("<f4", count).copy()

    def expect_end(self) -> None:
        if self._position != len(self._content):
            raise ValueError("the weights are longer or shorter than the graph")

    def _take(self, dtype: str, count: int) -> np.ndarray:
        values = np.frombuffer(self._content, dtype, count, self._position)
        self._position += values.nbytes
        return values
