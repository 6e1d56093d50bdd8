"""The ncnn reader against a writer of the format, and against every kind of damage."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
import torch
from spandrel import ModelLoader
from spandrel.architectures.ESRGAN import ESRGAN
from torch import Tensor, nn

from sr_cli.errors import ModelError
from sr_cli.models.compact import CompactNet
from sr_cli.models.ncnn import (
    TAG_FLOAT16,
    TAG_FLOAT32,
    Convolution,
    read_compact,
    read_layers,
    read_rrdbnet,
)

Layers = list[tuple[Tensor, Tensor]]


def write(
    folder: Path, layers: Iterable[tuple[Tensor, Tensor]], *, half: bool = True, pad: bool = True
) -> tuple[Path, Path]:
    """A chain of convolutions as ncnn stores it."""
    lines, content = ["Input data 0 1 b0"], b""
    for index, (weight, bias) in enumerate(layers):
        outputs, _, height, width = weight.shape
        lines.append(
            f"Convolution Conv_{index} 1 1 b{index} b{index + 1} 0={outputs} 1={width} "
            f"11={height} 4=1 5=1 6={weight.numel()} 9=2 -23310=1,2.000000e-01"
        )
        numbers = weight.numpy().astype("<f2" if half else "<f4").tobytes()
        padding = bytes(-len(numbers) % 4 if pad else 0)
        content += np.array(TAG_FLOAT16 if half else TAG_FLOAT32, "<u4").tobytes()
        content += numbers + padding + bias.numpy().astype("<f4").tobytes()
    param, binary = folder / "net.param", folder / "net.bin"
    param.write_text("\n".join(["7767517", f"{len(lines)} {len(lines)}", *lines, ""]))
    binary.write_bytes(content)
    return param, binary


def odd_layers() -> Layers:
    """Numbers of weights that are odd, so that float16 needs padding, and kernels not square."""
    shapes = ((1, 3, 3, 3), (3, 1, 1, 5), (2, 3, 3, 1))
    return [(torch.randn(shape), torch.randn(shape[0])) for shape in shapes]


@pytest.mark.parametrize("half", [True, False])
def test_round_trip(tmp_path: Path, half: bool) -> None:
    layers = odd_layers()
    for read, (weight, bias) in zip(
        read_layers(*write(tmp_path, layers, half=half)), layers, strict=True
    ):
        assert isinstance(read, Convolution)
        assert torch.equal(read.weight, weight.half().float() if half else weight)
        assert torch.equal(read.bias, bias)


def test_float16_weights_are_padded_to_four_bytes(tmp_path: Path) -> None:
    with pytest.raises(ModelError):
        read_layers(*write(tmp_path, odd_layers(), pad=False))


def small_rrdbnet() -> nn.Module:
    net: nn.Module = ESRGAN(num_filters=4, num_blocks=2)
    return net


def convolutions(net: nn.Module) -> Layers:
    tensors = [parameter.detach() for parameter in net.parameters()]
    return list(zip(tensors[::2], tensors[1::2], strict=True))


def test_rrdbnet_loads_through_spandrel(tmp_path: Path) -> None:
    net = small_rrdbnet()
    state = read_rrdbnet(*write(tmp_path, convolutions(net), half=False))
    loaded = ModelLoader().load_from_state_dict(state)
    assert loaded.scale == 4
    for name, tensor in net.state_dict().items():
        assert torch.equal(loaded.model.state_dict()[name], tensor), name


def test_another_network_is_no_rrdbnet(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no RRDBNet: it has 35 convolutions"):
        read_rrdbnet(*write(tmp_path, convolutions(small_rrdbnet())[:-1]))


@pytest.mark.parametrize("end", [-1, 0, 3, 40, "longer"])
def test_weights_of_a_wrong_length(tmp_path: Path, end: int | str) -> None:
    param, binary = write(tmp_path, odd_layers())
    content = binary.read_bytes()
    binary.write_bytes(content[:end] if isinstance(end, int) else content + b"\0")
    with pytest.raises(ModelError, match=r"net\.bin"):
        read_layers(param, binary)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("7767517", "7767516"),
        ("Input", "PReLU"),
        ("5=1", "5=0"),
        ("0=1 ", ""),
        ("0=1 ", "0=2 "),
        ("6=27 ", "6=-1 "),
        ("4 4", "5 5"),
        ("4 4", ""),
        ("9=2", "9"),
        ("Convolution Conv_0 1", "Convolution"),
    ],
)
def test_damaged_graph(tmp_path: Path, old: str, new: str) -> None:
    param, binary = write(tmp_path, odd_layers())
    text = param.read_text()
    assert old in text
    param.write_text(text.replace(old, new, 1))
    with pytest.raises(ModelError, match=r"net\.param"):
        read_layers(param, binary)


def test_weights_of_another_type(tmp_path: Path) -> None:
    param, binary = write(tmp_path, odd_layers())
    binary.write_bytes(b"\x38\x4b\x0d\x00" + binary.read_bytes()[4:])  # ncnn's tag of int8
    with pytest.raises(ModelError, match="0xd4b38"):
        read_layers(param, binary)


@pytest.mark.parametrize("missing", [0, 1])
def test_missing_file(tmp_path: Path, missing: int) -> None:
    files = write(tmp_path, odd_layers())
    files[missing].unlink()
    with pytest.raises(ModelError, match="cannot be read"):
        read_layers(*files)


def test_graph_that_is_no_text(tmp_path: Path) -> None:
    param, binary = write(tmp_path, odd_layers())
    param.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ModelError, match="cannot be read"):
        read_layers(param, binary)


def test_compact_has_slopes_between_convolutions(tmp_path: Path) -> None:
    net = CompactNet(num_feat=4, num_conv=1, upscale=2)
    lines, content = ["Input data 0 1 b0"], b""
    for place, layer in enumerate(net.body):
        tensors = [tensor.detach() for tensor in layer.parameters()]
        size = tensors[0].numel()
        ends = f"l{place} 1 1 b{place} b{place + 1} 0={len(tensors[0])}"
        if isinstance(layer, nn.Conv2d):
            lines.append(f"Convolution {ends} 1=3 4=1 5=1 6={size}")
            content += np.array(TAG_FLOAT32, "<u4").tobytes()
        else:
            lines.append(f"PReLU {ends}")
        content += b"".join(tensor.numpy().astype("<f4").tobytes() for tensor in tensors)
    param, binary = tmp_path / "net.param", tmp_path / "net.bin"
    param.write_text("\n".join(["7767517", f"{len(lines)} {len(lines)}", *lines, ""]))
    binary.write_bytes(content)
    state = read_compact(param, binary)
    assert state.keys() == net.state_dict().keys()
    assert all(torch.equal(state[name], value) for name, value in net.state_dict().items())
    binary.write_bytes(content[:-4])  # the control: the reader counts the slopes
    with pytest.raises(ModelError):
        read_compact(param, binary)
