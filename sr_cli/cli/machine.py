"""The machine that computes: as a user asks for it, what that turns out to be, and in reports."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from sr_cli import __version__
from sr_cli.cli.ui import terminal
from sr_cli.errors import UsageError

if TYPE_CHECKING:
    import torch

    from sr_cli.engine.options import UpscaleOptions
    from sr_cli.engine.upscaler import Upscaler

Compile = Literal["auto", "on", "off"]


@dataclass(frozen=True)
class Machine:
    """What is asked for.

    device: auto, cpu, cuda, cuda:N or mps. dtype: auto, float32, bfloat16 or float16. threads: CPU
    threads, None for all. compile: whether torch.compile prepares the networks. cluster: of Ray,
    auto or an address; then threads are those of a worker, and Ray says which GPU is whose. jobs:
    files read, and written, at a time; None for as many as are good.

    Raises:
        UsageError: as many threads as there are no CPUs for; a GPU by its number, of a cluster; no
            file at a time, or over 64.
    """

    device: str = "auto"
    dtype: str = "auto"
    threads: int | None = None
    compile: Compile = "auto"
    cluster: str | None = None
    jobs: int | None = None

    def __post_init__(self) -> None:
        cpus = os.cpu_count() or 1
        if self.cluster is not None:
            cpus = 1 << 16  # more than any machine has
            if ":" in self.device:
                raise UsageError(f"--device {self.device} names one GPU; with --cluster name cuda.")
        if self.threads is not None and not 1 <= self.threads <= cpus:  # more are far slower
            raise UsageError(f"threads must lie between 1 and {cpus} (CPUs), not {self.threads}.")
        if self.jobs is not None and not 1 <= self.jobs <= 64:
            raise UsageError(f"jobs must lie between 1 and 64, not {self.jobs}.")

    def resolve(self) -> ResolvedMachine:
        """What there is of it. From here on torch uses that many threads.

        Raises:
            UsageError: the device has no such name.
            DeviceError: the device is missing, or does not compute in this dtype.
        """
        import torch

        from sr_cli.device import resolve_device, resolve_dtype
        from sr_cli.memory import keep_freed

        keep_freed()
        if self.threads is not None:
            torch.set_num_threads(self.threads)
        device = resolve_device(self.device)
        dtype = resolve_dtype(self.dtype, device)
        gpu = device.type == "cuda"
        processor = torch.cuda.get_device_name(device) if gpu else cpu()
        return ResolvedMachine(device, dtype, processor, torch.get_num_threads(), self.dtype)


@dataclass(frozen=True)
class ResolvedMachine:
    """What computes.

    dtype: of networks that are compared by themselves; of srx's own where `asked_dtype` is not
    auto. processor: the model of the GPU or the CPU. threads: CPU threads.
    """

    device: torch.device
    dtype: torch.dtype
    processor: str
    threads: int
    asked_dtype: str = "auto"

    @property
    def dtype_name(self) -> str:
        """As --dtype has it."""
        return str(self.dtype).removeprefix("torch.")

    @property
    def sentence(self) -> str:
        """For people."""
        threads = f"{self.threads} CPU thread{'s' * (self.threads > 1)}"
        return (
            f"{self.processor} ({self.device}), {threads}, {self.dtype_name}, "
            f"torch {metadata.version('torch')}, Python {platform.python_version()}."
        )


def cpu() -> str:
    """The model of the CPU, where the system tells it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text("utf-8").splitlines() if info.is_file() else []
    models = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(models, "") or platform.processor() or platform.machine()


def environment(machine: ResolvedMachine | None) -> dict[str, Any]:
    """What the numbers of a JSON document may depend on; `machine` is None where nothing ran."""
    found = {
        "srx": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "torch": metadata.version("torch"),
    }
    if machine is None:
        return found
    return found | {
        "device": str(machine.device),
        "dtype": machine.dtype_name,
        "processor": machine.processor,
        "threads": machine.threads,
    }


def make_upscaler(options: UpscaleOptions, machine: Machine) -> Upscaler:
    """The engine, ready to enlarge.

    Raises:
        UsageError, ModelError, DeviceError: as `Machine.resolve` and `Upscaler`.
    """
    from sr_cli.engine.upscaler import Upscaler

    found = machine.resolve()
    upscaler = Upscaler(options, device=str(found.device), dtype=found.asked_dtype)
    if found.asked_dtype not in ("auto", upscaler.dtype):
        terminal.note(
            f"{options.model} is a network alone, which rounds visibly in {found.asked_dtype}: it "
            f"computes in {upscaler.dtype}."
        )
    if options.best_of > 1:
        from sr_cli.evaluation.judging import with_judge

        if reason := with_judge(upscaler):
            terminal.note(f"{reason} Seeds are chosen by agreement with the input alone.")
    return upscaler
