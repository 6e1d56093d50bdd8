"""Where tensors live: devices, precisions and free memory."""

import logging
from collections.abc import Iterable

import psutil
import torch
from torch import nn

from sr_cli.errors import DeviceError

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def resolve_device(name: str) -> torch.device:
    """`auto` (CUDA, else MPS, else the CPU), `cpu`, `cuda`, `cuda:N` or `mps`.

    Raises DeviceError when the device is not there.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    device = torch.device(name)
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= count:
            found = f"{count} CUDA device(s) were found" if count else "no CUDA device was found"
            raise DeviceError(f"--device {name}: {found}; --device cpu works everywhere.")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise DeviceError("--device mps: this is no Mac with Metal; --device cpu works everywhere.")
    return device


def resolve_dtype(name: str, device: torch.device) -> torch.dtype:
    """`auto`: bfloat16 where the processor computes it natively, else float32.

    Raises DeviceError for float16 on a CPU, which would be slower than float32.
    """
    if name == "auto":
        return torch.bfloat16 if _native_bfloat16(device) else torch.float32
    dtype = DTYPES[name]
    if dtype == torch.float16 and device.type == "cpu":
        raise DeviceError("--dtype float16 is for GPUs: on a CPU use float32 or bfloat16.")
    return dtype


def _native_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type == "cpu":
        return bool(torch.cpu.get_capabilities().get("avx512_bf16", False))
    return False


def free_memory(device: torch.device) -> int:
    """Bytes that can be allocated: of the GPU, else of the machine."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return int(psutil.virtual_memory().available)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the allocator of any device gave up."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    text = str(error)
    return isinstance(error, RuntimeError) and (
        "can't allocate memory" in text or "out of memory" in text
    )


def compile_all(networks: Iterable[nn.Module]) -> None:
    """Compile each at its first call; where there is no working compiler it goes on as it was."""
    torch._dynamo.config.suppress_errors = True
    logging.getLogger("torch._dynamo").setLevel(logging.ERROR)  # else a traceback for each of them
    for network in networks:
        network.compile()
