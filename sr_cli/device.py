"""Where tensors live: devices, precisions, layouts and memory."""

import logging
import re
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path

import torch
from torch import Tensor, nn

from sr_cli import memory
from sr_cli.each import Each, Item, Result
from sr_cli.errors import DeviceError, UsageError

EACH_THREAD = 4
"""Calls: with fewer a thread gains less than handing them over costs."""
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def resolve_device(name: str) -> torch.device:
    """`auto` (CUDA, else MPS, else the CPU), `cpu`, `cuda`, `cuda:N` or `mps`.

    Raises UsageError for any other name, DeviceError when the device is not there.
    """
    found = re.fullmatch(r"auto|cpu|mps|cuda(?::(\d+))?", name)
    if found is None:
        raise UsageError(f"device must be auto, cpu, cuda, cuda:N or mps, not {name!r}.")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    metal = torch.backends.mps.is_available()
    if name == "auto":
        name = "cuda" if count else "mps" if metal else "cpu"
    if name.startswith("cuda"):
        if int(found[1] or 0) >= count:
            there = f"{count} CUDA device(s) were found" if count else "no CUDA device was found"
            raise DeviceError(f"--device {name}: {there}; --device cpu works everywhere.")
        _be_exact()
    if name == "mps" and not metal:
        raise DeviceError("--device mps: this is no Mac with Metal; --device cpu works everywhere.")
    return torch.device(name)


@contextmanager
def side_by_side(device: torch.device) -> Iterator[Each]:
    """A `map` for what takes many small operations, over which torch's threads would wait for each
    other longer than they help.

    Inside `with` an operation on a CPU is one thread's, and as many calls go on at a time as torch
    had threads, if each has some. Elsewhere it is Python's `map`.
    """
    threads = torch.get_num_threads()
    if device.type != "cpu" or threads == 1:
        yield map
        return
    torch.set_num_threads(1)
    try:
        yield partial(_mapped, threads)
    finally:
        torch.set_num_threads(threads)


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads)


def _mapped(
    threads: int, function: Callable[[Item], Result], items: Iterable[Item], /
) -> Iterator[Result]:
    """Where one call fails, those that go on are waited for, since less may be tried next."""
    given = list(items)
    threads = min(threads, len(given) // EACH_THREAD)
    if threads < 2:
        yield from map(function, given)
        return
    inference = torch.is_inference_mode_enabled()  # each thread has a mode and a number of its own

    def call(item: Item) -> Result:
        torch.set_num_threads(1)
        with torch.inference_mode(inference):
            return function(item)

    left = deque(_pool(threads).submit(call, item) for item in given)
    try:
        while left:
            yield left.popleft().result()
    finally:
        wait([future for future in left if not future.cancel()])


def _be_exact() -> None:
    """Let float32 mean float32 in cuDNN too, whose convolutions round to TF32's 10 bits otherwise.

    In every run on CUDA: what overflows is repeated in float32, and no later picture may depend on
    that. By torch's old flag, because after its new one (cudnn.conv.fp32_precision) all that reads
    the old one fails, torch.compile among others.
    """
    torch.backends.cudnn.allow_tf32 = False


def resolve_dtype(
    name: str, device: torch.device, *, training: bool = False, pixels: bool = False
) -> torch.dtype:
    """`auto`: bfloat16 where the processor computes it natively, else float16 on CUDA, or float32.

    For networks that make `pixels`, `auto` is float16 on CUDA: it rounds 8 times finer, and what
    overflows is repeated in float32. `training` never gets float16 by `auto`, since small gradients
    vanish in it.

    Raises UsageError for a name that is not `auto` or one of DTYPES, DeviceError for float16 on a
    CPU, which would be slower than float32.
    """
    if name == "auto":
        half = device.type == "cuda" and not training
        if _native_bfloat16(device) and not (half and pixels):
            return torch.bfloat16
        return torch.float16 if half else torch.float32
    if name not in DTYPES:
        raise UsageError(f"dtype must be auto or one of {', '.join(DTYPES)}, not {name!r}.")
    dtype = DTYPES[name]
    if dtype == torch.float16 and device.type == "cpu":
        raise DeviceError("--dtype float16 is for GPUs: on a CPU use float32 or bfloat16.")
    return dtype


def _native_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        with torch.cuda.device(device):  # torch asks the current one
            return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type == "cpu":
        return bool(torch.cpu.get_capabilities().get("avx512_bf16", False))
    return False


def layout(device: torch.device) -> torch.memory_format:
    """Channels last where that is faster; not on MPS, where PyTorch's results were wrong in it.

    See its issues 174345 and 180984.
    """
    return torch.preserve_format if device.type == "mps" else torch.channels_last


def widest(device: torch.device) -> torch.dtype:
    """The finest floats there: float64, but float32 on MPS."""
    return torch.float32 if device.type == "mps" else torch.float64


def free_memory(device: torch.device) -> int:
    """Bytes that can be allocated: of the GPU, with what torch keeps unused, or of the machine."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        held = torch.cuda.memory_stats_as_nested_dict(device)  # unsorted: this is asked often
        reserved, used = (held[f"{kind}_bytes"]["all"] for kind in ("reserved", "allocated"))
        return int(free + reserved["current"] - used["current"])
    return memory.free()


def home(device: torch.device, nbytes: int, share: float) -> torch.device:
    """Where pictures of so many bytes stay while they are worked on: on a GPU that has room for
    them in that share of its free memory, else in the machine's memory."""
    roomy = device.type == "cuda" and nbytes < share * free_memory(device)
    return device if roomy else torch.device("cpu")


def to_host(tensors: Sequence[Tensor]) -> list[Tensor]:
    """On the CPU; from a GPU through pinned memory, and waiting for it once."""
    devices = {tensor.device for tensor in tensors if tensor.is_cuda}
    if not devices:
        return [tensor.cpu() for tensor in tensors]
    copies = [torch.empty_like(tensor, device="cpu", pin_memory=True) for tensor in tensors]
    for copy, tensor in zip(copies, tensors, strict=True):
        copy.copy_(tensor, non_blocking=True)
    for device in devices:
        torch.cuda.synchronize(device)
    return copies


def compile_all(networks: Iterable[nn.Module]) -> None:
    """Compile each at its first call; where there is no working compiler it goes on as it was.

    Of a network of diffusers that says which blocks it repeats these alone, which takes seconds.
    """
    torch._dynamo.config.suppress_errors = True  # torch.compiler has no public name for it
    logging.getLogger("torch._dynamo").setLevel(logging.ERROR)  # else a traceback for each of them
    for network in networks:
        repeated = getattr(network, "_repeated_blocks", None) or ()
        blocks = [block for block in network.modules() if type(block).__name__ in repeated]
        for block in blocks or [network]:
            block.compile()


def peak_memory(device: str) -> int:
    """Bytes: of a CUDA `device` since the last call, else of this process since its start."""
    if device.startswith("cuda"):
        peak = torch.cuda.max_memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        return peak
    if sys.platform == "win32":
        import psutil

        return int(psutil.Process().memory_info().peak_wset)
    if sys.platform == "linux":
        # getrusage's begins with what the parent held when this process was begun
        found = re.search(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text("ascii"))
        if found:
            return 1024 * int(found[1])
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # bytes there, KiB elsewhere
