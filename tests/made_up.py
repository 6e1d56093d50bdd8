"""A GPU that is made up: its tensors say that they are on it, and are a CPU's inside.

So real code runs as on CUDA to its last number. What fails on a real GPU fails here: operands on
several devices, what waits or comes from the host while a graph is recorded, and more memory than
there is. What is slow there is counted.
"""

import traceback
import weakref
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Self

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._mode_utils import no_dispatch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from sr_cli.models import graphs

PACKAGE = Path(__file__).parents[1] / "sr_cli"
GPU = torch.device("cuda:0")
FUSED = "scaled_dot_product_attention"
"""An operation that a GPU has whole, and torch would take apart."""
TOTAL = 80 << 30
"""Bytes of memory."""


class OnGpu(Tensor):
    """What lives there. inside: the values, on the CPU."""

    inside: Tensor

    @staticmethod
    def __new__(cls, inside: Tensor) -> Self:
        made: Self = Tensor._make_wrapper_subclass(
            cls,
            inside.shape,
            strides=inside.stride(),
            storage_offset=inside.storage_offset(),
            dtype=inside.dtype,
            device=GPU,
        )
        made.inside = inside
        return made

    def tolist(self) -> Any:
        """By way of the CPU, as torch does of its own tensors."""
        return self.cpu().tolist()

    @classmethod
    def __torch_dispatch__(cls, func: Any, *_: Any) -> Any:
        raise AssertionError(f"{func} where there is no such GPU")


class MadeUp(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Inside `with`, the GPU is there.

    launches: operations on it. waits, uploads: where in the package the host waited for it, and
    where it sent something there. asked: how often it was asked for its memory. replays: of graphs.
    missing: dtypes that it does not know.
    """

    def __init__(self, missing: Sequence[torch.dtype] = ()) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.missing, self.limit = missing, TOTAL
        self.recording: Graph | None = None
        self._stores: Counter[int] = Counter()  # tensors of each piece of memory
        self.used = self.peak = 0
        self.clear()

    def clear(self) -> None:
        """Count anew."""
        self.launches = self.asked = self.replays = 0
        self.waits: Counter[str] = Counter()
        self.uploads: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func.namespace == "aten" and func.overloadpacket.__name__ != FUSED:
            with self:
                parts = func.decompose(*args, **kwargs)
            if parts is not NotImplemented:
                return parts
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        here = [tensor for tensor in given if isinstance(tensor, OnGpu)]
        self._look(func, args, kwargs, given)
        target = kwargs.get("device")
        there = bool(here) if target is None else torch.device(target) == GPU
        if target is not None:
            kwargs["device"] = torch.device("cpu")
        kwargs.pop("pin_memory", None)

        def compute() -> Any:
            own_args, own_kwargs = tree_map_only(OnGpu, lambda t: t.inside, (args, kwargs))
            with no_dispatch():
                return func(*own_args, **own_kwargs)

        result = compute()
        if self.recording and there:
            self.recording.done.append((compute, result))
        if not there or not isinstance(result, Tensor | tuple | list):
            return result
        if func._schema.is_mutable and isinstance(args[0], OnGpu):
            return args[0]
        return tree_map_only(Tensor, self._named, result)

    def _named(self, result: Tensor) -> OnGpu:
        if result.dtype in self.missing:
            raise TypeError(f"the made-up GPU has no {result.dtype}")
        store = result.untyped_storage()
        key, nbytes = store._cdata, store.nbytes()
        if not self._stores[key]:
            if self.used + nbytes > self.limit:
                raise torch.OutOfMemoryError("CUDA out of memory. So says one that is made up.")
            self.used += nbytes
            self.peak = max(self.peak, self.used)
        self._stores[key] += 1
        with torch.inference_mode(result.is_inference()):
            made = OnGpu(result)
        weakref.finalize(made, self._gone, key, nbytes)
        return made

    def _gone(self, key: int, nbytes: int) -> None:
        self._stores[key] -= 1
        if not self._stores[key]:
            self.used -= nbytes
            del self._stores[key]

    def _look(self, func: Any, args: Any, kwargs: dict[str, Any], given: list[Tensor]) -> None:
        """Count, and fail where a GPU would."""
        name = func.overloadpacket.__name__
        here = [tensor for tensor in given if isinstance(tensor, OnGpu)]
        mixed = any(tensor.dim() for tensor in given if not isinstance(tensor, OnGpu))
        if here and not func.is_view:
            self.launches += 1
        if name == "copy_":
            to, source = (isinstance(tensor, OnGpu) for tensor in args[:2])
        elif name == "_to_copy":
            source = isinstance(args[0], OnGpu)
            to = source if kwargs.get("device") is None else torch.device(kwargs["device"]) == GPU
        elif here and mixed:
            raise RuntimeError(f"Expected all tensors to be on the same device ({func})")
        else:
            to = source = bool(here)
            if here and name in ("_local_scalar_dense", "nonzero", "equal"):
                self.crossing(self.waits)
        if to != source and not (kwargs.get("non_blocking") or True in args[2:]):
            self.crossing(self.uploads if to else self.waits)

    def crossing(self, places: "Counter[str]") -> None:
        """Note where the host waits for the GPU or sends it something."""
        own = [
            f"{Path(frame.filename).relative_to(PACKAGE)}:{frame.lineno}"
            for frame in traceback.extract_stack()
            if Path(frame.filename).is_relative_to(PACKAGE)
        ]
        places[" > ".join(own[-2:])] += 1
        if self.recording:
            raise RuntimeError("CUDA error: operation not permitted when stream is capturing")


class Stream:
    """As torch.cuda.Stream."""

    def __init__(self, device: torch.device | None = None) -> None:
        del device

    def wait_stream(self, other: "Stream") -> None:
        """Nothing goes on beside another here."""


class Graph:
    """As torch.cuda.CUDAGraph, as far as it is used: operations with the tensors that they read
    and write."""

    def __init__(self) -> None:
        self.done: list[tuple[Callable[[], Any], Any]] = []

    def pool(self) -> str:
        return "pool"

    def replay(self) -> None:
        for compute, before in self.done:
            again = compute()
            for old, new in zip(tree_leaves(before), tree_leaves(again), strict=True):
                if isinstance(old, Tensor) and old is not new:
                    old.copy_(new)


@contextmanager
def made_up(missing: Sequence[torch.dtype] = ()) -> Iterator[MadeUp]:
    """The GPU, and torch.cuda's answers; beneath, a mode in which torch looks for no real one."""
    overwriting = "get_overwrite_module_params_on_conversion"
    with FakeTensorMode(), MadeUp(missing) as gpu, pytest.MonkeyPatch.context() as patch:
        for name, fake in _answers(gpu).items():
            patch.setattr(torch.cuda, name, fake)
        # else `nn.Module.to` keeps its parameters, and takes the memory alone of what is there
        patch.setattr(torch.__future__, overwriting, lambda: True)
        try:
            yield gpu
        finally:
            graphs.release()  # what was recorded on this one


def _answers(gpu: MadeUp) -> dict[str, Any]:
    @contextmanager
    def recording(graph: Graph, *, pool: Any, stream: Any, capture_error_mode: str) -> Any:
        assert capture_error_mode == "thread_local"
        gpu.recording = graph
        try:
            yield
        finally:
            gpu.recording = None

    def memory(_: object = None) -> dict[str, Any]:
        gpu.asked += 1
        return {
            f"{kind}_bytes": {"all": {"current": gpu.used, "peak": gpu.peak}}
            for kind in ("reserved", "allocated")
        }

    def reset(_: object = None) -> None:
        gpu.peak = gpu.used

    def fraction(share: float, device: Any = None) -> None:
        assert isinstance(device, int) or device.index is not None  # which torch's wants
        gpu.limit = int(share * TOTAL)

    class Replayed(Graph):
        def replay(self) -> None:
            gpu.replays += 1
            with no_dispatch():
                super().replay()

    about = SimpleNamespace(name="made up", total_memory=TOTAL)
    return {
        "is_available": lambda: True,
        "device_count": lambda: 1,
        "is_bf16_supported": lambda **_: True,
        "get_device_name": lambda _: about.name,
        "get_device_properties": lambda _: about,
        "mem_get_info": lambda _: (TOTAL - gpu.used, TOTAL),
        "memory_stats_as_nested_dict": memory,
        "memory_allocated": lambda _: gpu.used,
        "max_memory_allocated": lambda _: gpu.peak,
        "reset_peak_memory_stats": reset,
        "set_per_process_memory_fraction": fraction,
        "empty_cache": lambda: None,
        "synchronize": lambda _: gpu.crossing(gpu.waits),
        "device": lambda _: nullcontext(),
        "stream": lambda _: nullcontext(),
        "current_stream": Stream,
        "Stream": Stream,
        "CUDAGraph": Replayed,
        "graph": recording,
    }
