"""State dicts out of files, without ever executing what is in them."""

import re
import sys
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from sr_cli.errors import ModelError
from sr_cli.models.kinds import SUFFIXES

SPARE = 512 << 20
"""Bytes of memory that reading a pickle may take beside four times its size."""
PREFIXES = ("module.", "netG.")
"""That spandrel takes off."""


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint by name, on the CPU, in the dtype they are stored in.

    They are mapped from the file, which must not change meanwhile: memory is taken as they are
    used (except by a pickle of before PyTorch 1.6, which is read whole). Wrappers (`state_dict`,
    `params_ema`, `params`, …) and the prefix `module.` are taken off.
    Raises ModelError: no such file, unknown suffix, damaged, no tensors, or code in a pickle.
    """
    if not path.is_file():
        raise ModelError(f"There is no model file {path}: check the path.")
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise ModelError(f"{path} is no model file: srx reads {', '.join(SUFFIXES)}.")
    stored = _read_safetensors(path) if suffix == ".safetensors" else _read_pickle(path)
    try:
        content = _unwrapped(stored)
        tensors = {name: value for name, value in content.items() if isinstance(value, Tensor)}
    except (AttributeError, TypeError, RuntimeError):  # no dictionary, or its keys are no names
        tensors = {}
    if not tensors:
        raise ModelError(f"{path} holds no weights: it must be a dictionary of named tensors.")
    _check_sense(path, tensors)
    return tensors


def _unwrapped(stored: Any) -> dict[str, Any]:
    """Without wrappers and common prefixes; what srx writes has none."""
    names = [name for name, value in stored.items() if isinstance(value, Tensor)]
    if len(names) == len(stored) and not all(name.startswith(PREFIXES) for name in names):
        return dict(stored)
    from spandrel import canonicalize_state_dict  # heavy: it imports all its architectures

    content: dict[str, Any] = canonicalize_state_dict(stored)
    return content


def _check_sense(path: Path, tensors: dict[str, Tensor]) -> None:
    """Raise ModelError for what makes whoever builds the network run out of time or memory: layers
    by the million, which are not there, and tensors that repeat a few values."""
    most = 4 * len(tensors) + 64
    stored = path.stat().st_size
    for name, tensor in tensors.items():
        for part in name.split("."):
            if part.isdecimal() and (len(part) > 7 or int(part) > most):
                raise ModelError(f"{path} has a layer {name[:80]!r} and {len(tensors)} tensors.")
        if tensor.numel() * tensor.element_size() > stored:
            raise ModelError(f"{path} is smaller than its tensor {name[:80]!r} says it is.")
    if sum(t.numel() * t.element_size() for t in tensors.values()) > 4 * stored + (1 << 20):
        raise ModelError(f"{path} is far smaller than its tensors say they are.")


def narrowed(name: str, tensor: Tensor, dtype: torch.dtype, remedy: str) -> Tensor:
    """A copy to be stored as `dtype`: on the CPU, contiguous.

    Raises ModelError, which ends with the remedy, when `dtype` cannot hold a value.
    """
    stored = tensor.to("cpu", dtype, copy=True, memory_format=torch.contiguous_format)
    if not stored.isfinite().all():
        raise ModelError(f"{name} has values that {dtype} cannot hold: {remedy}.")
    return stored


def _read_safetensors(path: Path) -> object:
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise _damaged(path) from error


def _read_pickle(path: Path) -> object:
    try:
        with warnings.catch_warnings(action="ignore"):  # about TorchScript, refused below
            mapped = zipfile.is_zipfile(path)
            if mapped:
                _check_archive(path)
            with limited_memory(4 * path.stat().st_size + SPARE):
                return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except ModelError:
        raise
    except Exception as error:  # a damaged pickle can make the unpickler raise anything
        forbidden = re.search(r"GLOBAL ([\w.]+)", str(error))
        if forbidden or "TorchScript" in str(error):
            what = forbidden[1] if forbidden else "TorchScript"
            raise ModelError(
                f"{path} holds code ({what}), which srx never runs: "
                "convert it to .safetensors, or save its state dict alone."
            ) from error
        raise _damaged(path) from error


def _check_archive(path: Path) -> None:
    """Raise ModelError where a file inflates: torch stores what it writes as it is."""
    with zipfile.ZipFile(path) as archive:
        if sum(entry.file_size for entry in archive.infolist()) > path.stat().st_size:
            raise ModelError(
                f"{path} holds more than its size, which torch never writes: fetch it again."
            )


@contextmanager
def limited_memory(extra: int) -> Iterator[None]:
    """Let this process take `extra` more bytes at most, on Linux: a small file may ask for all."""
    if not sys.platform.startswith("linux"):
        yield
        return
    import resource

    import psutil

    before = resource.getrlimit(resource.RLIMIT_DATA)
    wanted = psutil.Process().memory_info().data + extra
    if before[0] != resource.RLIM_INFINITY:
        wanted = min(wanted, before[0])
    resource.setrlimit(resource.RLIMIT_DATA, (wanted, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, before)


def _damaged(path: Path) -> ModelError:
    return ModelError(f"{path} is damaged or no {path.suffix} file: fetch it again.")
