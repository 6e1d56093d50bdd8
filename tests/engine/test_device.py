"""Devices by name, what they compute in, and when their memory is short."""

import errno
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from sr_cli.device import (
    EACH_THREAD,
    compile_all,
    free_memory,
    resolve_device,
    resolve_dtype,
    side_by_side,
)
from sr_cli.engine.options import UpscaleOptions
from sr_cli.engine.upscaler import Upscaler
from sr_cli.errors import (
    BrokenDeviceError,
    DeviceError,
    UsageError,
    enough_memory,
    is_out_of_memory,
)
from sr_cli.models.loading import load_model

FIRST, CUDA = torch.device("cuda:0"), torch.device("cuda:1")


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if there were two, of which the second computes in bfloat16."""
    current = 0

    @contextmanager
    def device(chosen: torch.device) -> Iterator[None]:
        nonlocal current
        before, current = current, chosen.index or 0
        yield
        current = before

    monkeypatch.setattr(torch.cuda, "device", device)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: current == 1)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)


@pytest.mark.parametrize("name", ["gpu", "", "cuda:", "cuda:x", "cuda:-1", "cpu:0", "CUDA", "meta"])
def test_a_name_of_no_device_is_a_mistake(name: str) -> None:
    with pytest.raises(UsageError, match=f"must be auto, cpu, cuda, cuda:N or mps, not '{name}'"):
        resolve_device(name)


@pytest.mark.parametrize("name", ["fp16", "", "half", "FLOAT32", "int8"])
def test_a_name_of_no_precision_is_a_mistake(name: str) -> None:
    known = "must be auto or one of float32, bfloat16, float16, not"
    with pytest.raises(UsageError, match=f"dtype {known} '{name}'"):
        resolve_dtype(name, torch.device("cpu"))
    with pytest.raises(UsageError, match=known):
        Upscaler(UpscaleOptions(), device="cpu", dtype=name)


@pytest.mark.usefixtures("two_gpus")
def test_devices_that_are_there_are_found() -> None:
    assert resolve_device("cpu") == torch.device("cpu")
    assert resolve_device("auto") == resolve_device("cuda") == torch.device("cuda")
    assert resolve_device("cuda:1") == CUDA
    for name in ("cuda:2", "cuda:99999999999"):
        with pytest.raises(DeviceError, match=rf"{name}: 2 CUDA device\(s\) were found"):
            resolve_device(name)


@pytest.mark.usefixtures("two_gpus")
def test_float32_is_float32_on_a_gpu() -> None:
    """Both of torch's interfaces say so, and neither fails because of the other."""
    convolutions = torch.backends.cudnn.conv  # type: ignore[attr-defined]
    resolve_device("cpu")
    assert convolutions.fp32_precision == "tf32"  # the control: torch's default
    resolve_device("cuda")
    assert convolutions.fp32_precision != "tf32"
    assert not torch.backends.cudnn.allow_tf32


@pytest.mark.usefixtures("two_gpus")
def test_a_gpu_without_bfloat16_computes_in_float16_but_learns_in_float32() -> None:
    """That of the run, whichever is the current one."""
    assert resolve_dtype("auto", FIRST) == torch.float16
    assert resolve_dtype("auto", FIRST, training=True) == torch.float32
    assert resolve_dtype("float32", CUDA) == torch.float32
    assert resolve_dtype("auto", CUDA) == torch.bfloat16
    assert resolve_dtype("auto", CUDA, training=True) == torch.bfloat16
    assert resolve_dtype("auto", CUDA, pixels=True) == torch.float16
    assert resolve_dtype("bfloat16", CUDA, pixels=True) == torch.bfloat16
    assert resolve_dtype("auto", CUDA, pixels=True, training=True) == torch.bfloat16


def test_float16_is_not_for_cpus() -> None:
    cpu = torch.device("cpu")
    assert resolve_dtype("auto", cpu) != torch.float16
    with pytest.raises(DeviceError, match="float16 is for GPUs"):
        resolve_dtype("float16", cpu)


def test_memory_that_torch_keeps_for_itself_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (100, 1000))
    held = {"reserved_bytes": {"all": {"current": 70}}, "allocated_bytes": {"all": {"current": 30}}}
    monkeypatch.setattr(torch.cuda, "memory_stats_as_nested_dict", lambda _: held)
    assert free_memory(CUDA) == 140


WITHOUT_MEMORY = [
    MemoryError(),
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    RuntimeError("MPS backend out of memory (MPS allocated: 9.00 GB)."),
    RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 99 bytes."),
    RuntimeError("unable to mmap 99 bytes from file </x>: Cannot allocate memory (12)"),
    RuntimeError("std::bad_alloc"),
    RuntimeError("could not create a primitive"),
    RuntimeError("can't start new thread"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    RuntimeError("CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`"),
    RuntimeError("cuDNN error: CUDNN_STATUS_NOT_INITIALIZED"),
    RuntimeError("GET was unable to find an engine to execute this computation"),
    RuntimeError("Unable to find a valid cuDNN algorithm to run convolution"),
    torch.AcceleratorError("CUDA error: out of memory"),
    ImportError("libtorch_cpu.so: failed to map segment from shared object"),
    OSError(errno.ENOMEM, "Cannot allocate memory"),
]
BROKEN = [
    torch.AcceleratorError("CUDA error: an illegal memory access was encountered\nCompile with …"),
    torch.AcceleratorError("HIP error: unspecified launch failure"),
    RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm(…)`"),
]
WITH_MEMORY = [
    ValueError("out of memory"),
    ImportError("libtorch_cpu.so: cannot open shared object file: No such file or directory"),
    OSError(errno.ENOSPC, "No space left on device"),
    RuntimeError("could not create a primitive descriptor for a convolution forward propagation"),
    RuntimeError("mat1 and mat2 shapes cannot be multiplied"),
    RuntimeError("cuDNN error: CUDNN_STATUS_NOT_SUPPORTED"),
    ValueError("CUDA error: not torch's"),
]


@pytest.mark.parametrize("error", WITHOUT_MEMORY, ids=repr)
def test_every_allocator_is_understood(error: Exception) -> None:
    assert is_out_of_memory(error)
    with (
        pytest.raises(DeviceError, match=r"too little free memory for it: do less, close.*\.$"),
        enough_memory("it", "do less, "),
    ):
        raise error


@pytest.mark.parametrize("error", WITH_MEMORY, ids=repr)
def test_other_errors_are_not_taken_for_memory(error: Exception) -> None:
    assert not is_out_of_memory(error)
    with pytest.raises(type(error)), enough_memory("it"):
        raise error


@pytest.mark.parametrize("error", BROKEN, ids=repr)
def test_a_device_that_failed_is_told_from_one_that_is_full(error: Exception) -> None:
    assert not is_out_of_memory(error)
    with (
        pytest.raises(BrokenDeviceError, match=r"failed at it \((CUDA|HIP) error: .*\): run.*\.$"),
        enough_memory("it", "do less, "),
    ):
        raise error


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize("error", BROKEN, ids=repr)
def test_a_device_that_failed_is_not_taken_for_damaged_weights(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("sr_cli.models.embedded.EmbeddedNet.to", fail)
    with pytest.raises(BrokenDeviceError, match="weights of embedded"):
        load_model("embedded", torch.device("cpu"), torch.float32)


def test_what_libraries_raise_here_is_understood() -> None:
    with pytest.raises(cv2.error) as opencv_says:
        cv2.resize(np.ones((1, 1)), (2**24, 2**24))
    with pytest.raises(MemoryError) as numpy_says:
        np.ones(2**58, np.uint8)
    with pytest.raises(RuntimeError) as torch_says:
        torch.empty(2**58, dtype=torch.uint8)
    with pytest.raises(cv2.error) as something_else:
        cv2.resize(np.ones((1, 1)), (0, 0))
    assert is_out_of_memory(opencv_says.value)
    assert not is_out_of_memory(something_else.value)
    assert is_out_of_memory(numpy_says.value)
    assert is_out_of_memory(torch_says.value)


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize(
    "part", ["models.embedded.EmbeddedNet", "models.preprocess.CompactNet.to"], ids=str
)
def test_networks_that_do_not_fit_are_a_device_error(
    monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    def full(*_: object, **__: object) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(f"sr_cli.{part}", full)
    with pytest.raises(DeviceError, match=r"too little free memory for the (weights|networks)"):
        Upscaler(UpscaleOptions(preprocess="compact"), device="cpu")


class Block(nn.Linear):
    """What a network repeats."""


def test_of_a_network_that_names_its_repeated_blocks_they_alone_are_compiled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    compiled: list[nn.Module] = []

    def told(self: nn.Module) -> None:
        compiled.append(self)

    monkeypatch.setattr(nn.Module, "compile", told)
    named, unnamed, without = (nn.Sequential(Block(1, 1), nn.ReLU(), Block(1, 1)) for _ in "abc")
    for network, names in ((named, ["Block"]), (without, ["Other"])):
        monkeypatch.setattr(network, "_repeated_blocks", names, raising=False)
    compile_all([named, unnamed, without])
    assert compiled == [named[0], named[2], unnamed, without]


@pytest.fixture
def two_threads() -> Iterator[None]:
    """As a user has, not as the other tests."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("two_threads")
def test_side_by_side_computes_inside_and_as_many_as_before_afterwards() -> None:
    with side_by_side(torch.device("meta")) as each:
        assert torch.get_num_threads() == 2
        assert each is map
    with side_by_side(torch.device("cpu")):
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == 2
    with pytest.raises(ZeroDivisionError), side_by_side(torch.device("cpu")) as each:
        list(each(lambda x: 1 / x, [1, 0] * EACH_THREAD))
    assert torch.get_num_threads() == 2


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("inference", [False, True])
def test_side_by_side_is_a_map_on_two_threads_of_one_each(inference: bool) -> None:
    both = threading.Barrier(2, timeout=30)  # which one thread alone would never pass

    def seen(item: int) -> tuple[int, int, bool]:
        both.wait()
        return item, torch.get_num_threads(), torch.is_inference_mode_enabled()

    with torch.inference_mode(inference), side_by_side(torch.device("cpu")) as each:
        assert list(each(seen, range(8))) == [(item, 1, inference) for item in range(8)]


@pytest.mark.usefixtures("two_threads")
def test_where_one_call_fails_the_others_end_first() -> None:
    begun, going = threading.Event(), set[int]()

    def call(item: int) -> None:
        if item == 0:
            assert begun.wait(30)
            raise MemoryError
        going.add(item)
        begun.set()
        time.sleep(0.2)
        going.discard(item)

    with side_by_side(torch.device("cpu")) as each:
        with pytest.raises(MemoryError):
            list(each(call, range(8)))
        assert not going


@pytest.mark.usefixtures("two_threads")
def test_few_calls_are_one_thread_s() -> None:
    with side_by_side(torch.device("cpu")) as each:
        assert set(each(lambda _: threading.get_ident(), range(7))) == {threading.get_ident()}


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere peaks are found otherwise")
def test_a_process_s_peak_is_its_own_not_its_parent_s() -> None:
    child = "from sr_cli.device import peak_memory; print(peak_memory('cpu'))"
    parent = (
        "import subprocess, sys; held = b'x' * (1 << 30); "
        f"subprocess.run([sys.executable, '-c', {child!r}], check=True)"
    )
    ended = subprocess.run(
        [sys.executable, "-c", parent], check=True, capture_output=True, text=True
    )
    assert 1 << 26 < int(ended.stdout) < 1 << 30
