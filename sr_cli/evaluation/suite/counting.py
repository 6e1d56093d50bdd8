"""What operations ask of a device, counted without one: launches, bytes and FLOPs."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten
from torch.utils.flop_counter import flop_registry

from sr_cli.models import fused

ATTENTION = torch.ops.aten.scaled_dot_product_attention.default


@dataclass(frozen=True)
class Work:
    """launches: operations that compute, each taken for one kernel. bytes: read and written by
    them, each tensor once an operation. flops: of products of matrices and convolutions, a
    multiplication and an addition counting two."""

    launches: int = 0
    bytes: int = 0
    flops: int = 0

    def __add__(self, other: "Work") -> "Work":
        return Work(
            self.launches + other.launches, self.bytes + other.bytes, self.flops + other.flops
        )

    def __mul__(self, times: int) -> "Work":
        return Work(self.launches * times, self.bytes * times, self.flops * times)


class Counter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Adds up, inside `with`, what is computed: in `work`."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.work = Work()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Count one operation, or those that it is made of."""
        kwargs = kwargs or {}
        if func.namespace == "aten" and func is not ATTENTION:
            with self:
                parts = func.decompose(*args, **kwargs)
            if parts is not NotImplemented:
                return parts
        result = func(*args, **kwargs)
        if func.namespace != "aten":
            return result
        given, made = _tensors((args, kwargs)), _tensors(result)
        stores = {_store(tensor) for tensor in given}
        views = made and all(_store(tensor) in stores for tensor in made)
        if made and (func._schema.is_mutable or not views) and not _is_blank(func):
            nbytes = sum(map(_bytes, given)) + sum(map(_bytes, made))
            self.work += Work(1, nbytes, _flops(func, args, kwargs, result))
        return result


def _is_blank(func: Any) -> bool:
    """Whether an operation only allocates."""
    return str(func).startswith(("aten.empty", "aten.new_empty"))


def _tensors(value: Any) -> list[Tensor]:
    return [leaf for leaf in tree_flatten(value)[0] if isinstance(leaf, Tensor)]


def _store(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


def _bytes(tensor: Tensor) -> int:
    """Of the values that are there: an expanded tensor has fewer than its shape says."""
    size = tensor.itemsize
    for length, stride in zip(tensor.shape, tensor.stride(), strict=True):
        size *= length if stride else 1
    return size


def _flops(func: Any, args: Any, kwargs: Any, result: Any) -> int:
    if func is ATTENTION:
        query, key, value = args[:3]
        rows = query.numel() // query.shape[-1]
        return int(2 * rows * key.shape[-2] * (query.shape[-1] + value.shape[-1]))
    count = flop_registry.get(func._overloadpacket)
    return int(count(*args, **kwargs, out_val=result)) if count else 0


@contextmanager
def without_values() -> Iterator[None]:
    """Tensors that are made inside have shapes, types and no values: nothing is computed."""
    with FakeTensorMode(allow_non_fake_inputs=True), torch.inference_mode():
        yield


@contextmanager
def launching(counter: Counter) -> Iterator[None]:
    """Take the kernels of `models.fused` for possible, and count each as one launch."""
    module: Any = fused
    before = fused.serves, fused.launch

    def count(x: Tensor, name: str, grid: tuple[int, ...], *given: Any, **sizes: Any) -> None:
        del x, name, grid, sizes
        counter.work += Work(1, sum(map(_bytes, _tensors(given))))

    module.serves, module.launch = lambda _: True, count
    try:
        yield
    finally:
        module.serves, module.launch = before


def counted(function: Callable[..., Any], *args: Any, kernels: bool = False, **kwargs: Any) -> Work:
    """What a call of the function asks for, up to where it wants to know a value.

    kernels: as on a GPU with Triton, where those of `models.fused` replace operations.
    """
    counter = Counter()
    possible = launching(counter) if kernels else nullcontext()
    with possible, counter, suppress(DataDependentOutputException):
        function(*args, **kwargs)
    return counter.work
