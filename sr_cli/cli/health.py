"""What `srx doctor` looks at: each check gives findings, and none of them ends the others.

Packages are imported inside the checks, since a package that cannot be imported is a finding.
"""

from __future__ import annotations

import importlib
import os
import platform
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

from sr_cli import __version__
from sr_cli.errors import DeviceError, ExitCode, ModelError, SrxError

State = Literal["ok", "hint", "absent", "broken"]
EXTRAS = {
    "export": "networks as ONNX: srx weights export",
    "heic": "reads HEIC",
    "import": "DoSSR's own checkpoints, downloads",
    "iqa": "perceptual metrics of srx bench (licensed for non-commercial use)",
    "plot": "figures",
    "ray": "srx upscale --cluster",
    "realesrgan": "--model anime and realesrgan; peers of srx bench",
    "s3": "folders in S3 buckets",
    "train": "srx train dossr on several GPUs",
    "watch": "srx upscale --watch",
}
"""Extras of the package that users may want, and what each is good for."""
MODULES = {"opencv-python-headless": "cv2", "pillow": "PIL"}
"""Modules of distributions that bear another name."""
LITTLE_MEMORY = 1 << 30
LITTLE_DISK = 1 << 30
CPU_FEATURES = ("avx2", "avx512_f", "avx512_bf16", "amx_bf16", "asimd", "sve", "bf16")
NVIDIA = Path("/proc/driver/nvidia/version")
"""There where the driver of an NVIDIA GPU is loaded, on Linux."""
CPU_INDEX = "https://download.pytorch.org/whl/cpu"


@dataclass(frozen=True)
class Finding:
    """What one check found.

    state: "ok"; "hint": it works, and `mend` makes it better; "absent": something optional; or
    "broken". mend: a command or a sentence that helps, or "". exit_code: of a broken one.
    """

    what: str
    state: State
    found: str
    mend: str = ""
    exit_code: ExitCode = ExitCode.SOME_FAILED


Check = Callable[[], Iterator[Finding]]


def examine(device: str = "auto") -> Iterator[Finding]:
    """All findings, as they come; device: auto, cpu, cuda, cuda:N or mps."""
    checks: dict[str, Check] = {
        "packages": packages,
        "torch": torch_build,
        "device": lambda: devices(device),
        "processor": processor,
        "memory": room,
        "weights": weights,
        "settings": settings,
        "extras": extras,
        "enlarging": lambda: trial(device),
    }
    yield Finding("srx", "ok", f"{__version__} in {Path(__file__).parents[1]}")
    python = f"Python {platform.python_version()} ({sys.executable}), {platform.platform()}"
    yield Finding("python", "ok", python)
    for what, check in checks.items():
        yield from _guarded(what, check)


def _guarded(what: str, check: Check) -> Iterator[Finding]:
    """The findings of a check, of which a failure is one."""
    try:
        yield from check()
    except SrxError as error:
        yield Finding(what, "broken", str(error), exit_code=error.exit_code)
    except ImportError as error:
        package = (error.name or "").partition(".")[0] or "srx"
        yield _unusable(what, package, str(error))
    except Exception as error:
        yield Finding(what, "broken", f"{type(error).__name__}: {error}")


def _unusable(what: str, package: str, reason: str) -> Finding:
    mend = f"pip install --force-reinstall --no-deps {package}"
    return Finding(what, "broken", f"{package} cannot be imported: {reason}", mend)


def packages() -> Iterator[Finding]:
    """Whether what srx needs is installed, new enough, and can be imported."""
    from packaging.requirements import Requirement

    try:
        wanted = metadata.requires("srx") or []
    except metadata.PackageNotFoundError:
        yield Finding("packages", "hint", "srx runs without being installed", "pip install .")
        return
    needed = [r for r in map(Requirement, wanted) if "extra" not in str(r.marker or "")]
    good = []
    for requirement in needed:
        name = requirement.name
        try:
            version = metadata.version(name)
        except metadata.PackageNotFoundError:
            yield Finding(name, "broken", "is not installed", f"pip install '{requirement}'")
            continue
        if version not in requirement.specifier:
            there = f"{version} is installed, not {requirement.specifier}"
            yield Finding(name, "broken", there, f"pip install '{requirement}'")
            continue
        try:
            importlib.import_module(MODULES.get(name, name.replace("-", "_")))
        except Exception as error:  # a broken library may raise anything
            yield _unusable(name, name, str(error))
            continue
        good.append(f"{name} {version}")
    yield Finding("packages", "ok", f"{len(good)} of {len(needed)} that srx needs: " + _list(good))


def torch_build() -> Iterator[Finding]:
    """What torch was built for, and whether that suits the machine."""
    import torch

    build = f"CUDA {torch.version.cuda}" if torch.version.cuda else "CPU"
    if torch.version.hip:
        build = f"ROCm {torch.version.hip}"
    found = f"{torch.__version__}, built for {build}"
    if torch.version.cuda is None and torch.version.hip is None and NVIDIA.is_file():
        mend = "install torch for CUDA: https://pytorch.org/get-started/locally"
        yield Finding("torch", "hint", f"{found}, but there is an NVIDIA GPU", mend)
    elif torch.version.cuda and sys.platform == "linux" and not NVIDIA.is_file():
        mend = f"pip install --force-reinstall --no-deps torch torchvision --index-url {CPU_INDEX}"
        lines = f"{found}; without an NVIDIA GPU the CPU build does the same and is far smaller"
        yield Finding("torch", "hint", lines, mend)
    else:
        yield Finding("torch", "ok", found)


def devices(name: str) -> Iterator[Finding]:
    """Whether the device, as --device names it, computes what a CPU does."""
    import torch

    from sr_cli.device import resolve_device, resolve_dtype
    from sr_cli.models.winograd import serves

    for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        gpu = torch.cuda.get_device_properties(index)
        text = f"{gpu.name}, {gpu.total_memory / 2**30:.0f} GiB, sm_{gpu.major}{gpu.minor}"
        yield Finding(f"cuda:{index}", "ok", text)
    try:
        device = resolve_device(name)
        picture = torch.linspace(0, 1, 3 * 64 * 64).view(1, 3, 64, 64)
        kernel = torch.linspace(-1, 1, 3 * 3 * 9).view(3, 3, 3, 3)
        expected = torch.nn.functional.conv2d(picture, kernel)
        found = torch.nn.functional.conv2d(picture.to(device), kernel.to(device)).cpu()
    except RuntimeError as error:  # as of a GPU that this build of torch has no kernels for
        reason = str(error).partition("\n")[0]
        raise DeviceError(f"{name} does not compute ({reason}): use --device cpu.") from error
    if not torch.allclose(found, expected, atol=1e-3):
        raise DeviceError(f"{device} computes something else than the CPU: use --device cpu.")
    dtype = resolve_dtype("auto", device, pixels=True)
    count = torch.get_num_threads()
    threads = f", {count} thread{'s' * (count > 1)}" if device.type == "cpu" else ""
    networks = str(dtype).removeprefix("torch.") + " by NNPACK" * serves(device, dtype)
    yield Finding("device", "ok", f"--device {name} is {device}{threads}, networks in {networks}")


def processor() -> Iterator[Finding]:
    """The CPU, and those of its instructions that make networks fast."""
    import torch

    from sr_cli.cli.machine import cpu

    known = torch.cpu.get_capabilities()
    features = [name for name in CPU_FEATURES if known.get(name)] or ["no wide vectors"]
    cores = f"{os.cpu_count()} CPUs"
    yield Finding("processor", "ok", f"{cpu()}, {cores}: {_list(features)}")


def room() -> Iterator[Finding]:
    """Memory, and the folder where models and large states go."""
    from sr_cli import memory
    from sr_cli.files import home

    free = memory.free()
    found = f"{_gib(free)} free, {_gib(memory.total())} in all with swap"
    mend = "close other programs: pictures are cut into small tiles, and large ones go to the disk"
    little = free < LITTLE_MEMORY
    yield Finding("memory", "hint" if little else "ok", found, mend if little else "")
    folder = home()
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        found = f"{folder} cannot be written: no models come in, and large states have no room"
        mend = "set its rights, or let SRX_HOME name another folder"
        yield Finding("data folder", "hint", found, mend)
        return
    free = shutil.disk_usage(existing).free
    little = free < LITTLE_DISK
    mend = "make room, or let SRX_HOME name a folder on a larger disk" if little else ""
    found = f"{folder}: {_gib(free)} free"
    yield Finding("data folder", "hint" if little else "ok", found, mend)


def weights() -> Iterator[Finding]:
    """Whether the models are those of their cards, to the last bit."""
    from sr_cli.models.registry import card, check, names

    whole = []
    for name in names():
        try:
            check(card(name), hashing=True)
            whole.append(name)
        except ModelError as error:
            yield Finding(f"model {name}", "broken", str(error), exit_code=ExitCode.MODEL)
    if "embedded" not in names():
        gone = "the shipped ones are gone"
        yield Finding("weights", "broken", gone, "install srx again", ExitCode.MODEL)
    elif whole:
        yield Finding("weights", "ok", f"whole: {_list(whole)}")


def settings() -> Iterator[Finding]:
    """Variables and the file that change defaults, which people forget."""
    from sr_cli.cli.config import find

    found = [name for name in sorted(os.environ) if name.startswith("SRX_")]
    if path := find():
        found.append(str(path.absolute()))
    yield Finding("settings", "ok", f"from {_list(found)}" if found else "none but the defaults")


def extras() -> Iterator[Finding]:
    """Optional packages: which are there, and the command for those that are not."""
    from packaging.requirements import Requirement

    try:
        requirements = list(map(Requirement, metadata.requires("srx") or []))
    except metadata.PackageNotFoundError:
        return
    for extra, use in EXTRAS.items():
        wanted = [
            r
            for r in requirements
            if r.marker and r.marker.evaluate({"extra": extra}) and not r.marker.evaluate()
        ]
        missing = [r.name for r in wanted if not _installed(r.name)]
        if missing:
            mend = f"pip install 'srx[{extra}]'"
            yield Finding(f"srx[{extra}]", "absent", f"{use}; without {_list(missing)}", mend)
        elif wanted:
            yield Finding(f"srx[{extra}]", "ok", use)


def _installed(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def trial(device: str) -> Iterator[Finding]:
    """A picture of 32² pixels through the default model, as `srx upscale` would enlarge it."""
    import time

    import numpy as np

    from sr_cli.engine.upscaler import Upscaler

    ramp = np.linspace(0, 255, 32, dtype=np.uint8)
    picture = np.stack(np.broadcast_arrays(ramp[:, None], ramp, ramp[::-1]), axis=-1)
    upscaler = Upscaler(device=device)
    begin = time.perf_counter()
    result = upscaler(picture)
    seconds = time.perf_counter() - begin
    off = float(np.abs(result[2::4, 2::4].astype(int) - picture).mean())
    if result.shape != (128, 128, 3) or off > 16:  # plain enlargement is 2 levels off
        raise DeviceError(f"A ramp of colours became something else on {device}: try --device cpu.")
    yield Finding("enlarging", "ok", f"32x32 → 128x128 in {seconds:.2f} s on {upscaler.device}")


def _list(names: list[str]) -> str:
    return ", ".join(names)


def _gib(count: int) -> str:
    return f"{count / 2**30:.1f} GiB"
