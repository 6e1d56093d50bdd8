"""Checkpoints: the tensors come back, nothing in the file runs, damage is named."""

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor, nn

from sr_cli.errors import ModelError
from sr_cli.models.checkpoints import read_state_dict

STATE = {"conv.weight": torch.randn(2, 3, 3, 3), "conv.bias": torch.randn(2).half()}
PICKLES = [".pth", ".pt", ".ckpt"]
in_tmp_path = settings(
    deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


class Bomb:
    """Unpickling it creates a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.marker,)


def same(left: dict[str, Tensor], right: dict[str, Tensor]) -> bool:
    return left.keys() == right.keys() and all(
        left[name].dtype == right[name].dtype and torch.equal(left[name], right[name])
        for name in left
    )


@pytest.mark.parametrize("suffix", PICKLES)
@pytest.mark.parametrize(
    "wrapped",
    [
        STATE,
        {"state_dict": STATE, "epoch": 3},
        {"params": {"conv.bias": torch.zeros(1)}, "params_ema": STATE},
        {f"module.{name}": tensor for name, tensor in STATE.items()},
        STATE | {"version": "1.0"},
    ],
    ids=["bare", "state_dict", "params_ema", "module", "with a string"],
)
def test_pickle_round_trip(tmp_path: Path, suffix: str, wrapped: dict[str, Any]) -> None:
    path = tmp_path / f"model{suffix}"
    torch.save(wrapped, path)
    assert same(read_state_dict(path), STATE)


def test_safetensors_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file(STATE, path)
    assert same(read_state_dict(path), STATE)


@pytest.mark.parametrize("suffix", PICKLES)
@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_pickle_does_not_run(tmp_path: Path, suffix: str, zipped: bool) -> None:
    path, marker = tmp_path / f"model{suffix}", tmp_path / "executed"
    torch.save(
        {"state_dict": STATE, "extra": Bomb(marker)}, path, _use_new_zipfile_serialization=zipped
    )
    with pytest.raises(ModelError, match="holds code"):
        read_state_dict(path)
    assert not marker.exists()
    torch.load(path, weights_only=False)  # negative control: the bomb works
    assert marker.exists()


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_torchscript_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    torch.jit.save(torch.jit.script(nn.Identity()), path)
    with pytest.raises(ModelError, match="TorchScript"):
        read_state_dict(path)


@pytest.mark.parametrize("kind", ["safetensors", "zip", "old pickle"])
@given(kept=st.floats(0, 1, exclude_max=True))
@in_tmp_path
def test_truncated(tmp_path: Path, kind: str, kept: float) -> None:
    path = tmp_path / ("model.safetensors" if kind == "safetensors" else "model.pth")
    if kind == "safetensors":
        save_file(STATE, path)
    else:
        torch.save(STATE, path, _use_new_zipfile_serialization=kind == "zip")
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    # An old pickle cut within a harmless global's name looks as if it asked for another one.
    sentence = r"holds code|damaged.*fetch it again" if kind == "old pickle" else "damaged"
    with pytest.raises(ModelError, match=sentence):
        read_state_dict(path)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@given(content=st.binary(max_size=200))
@in_tmp_path
def test_arbitrary_bytes(tmp_path: Path, suffix: str, content: bytes) -> None:
    path = tmp_path / f"model{suffix}"
    path.write_bytes(content)
    with pytest.raises(ModelError):
        read_state_dict(path)


@pytest.mark.parametrize(
    "content",
    [{}, {"a": 1}, {1: torch.zeros(1)}, {"state_dict": {2: torch.zeros(1)}}, [1], torch.zeros(2)],
    ids=["empty", "no tensors", "numbered", "numbered inside", "list", "tensor"],
)
def test_no_state_dict(tmp_path: Path, content: object) -> None:
    path = tmp_path / "model.pth"
    torch.save(content, path)
    with pytest.raises(ModelError, match="holds no weights"):
        read_state_dict(path)


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no model file.*gone\.pth"):
        read_state_dict(tmp_path / "gone.pth")
    with pytest.raises(ModelError, match="no model file"):
        read_state_dict(tmp_path)


def test_unknown_suffix(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").touch()
    with pytest.raises(ModelError, match=r"reads \.safetensors"):
        read_state_dict(tmp_path / "model.onnx")
