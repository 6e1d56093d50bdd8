"""Between its first state and its last, a walk neither leaves the device nor loops over blocks.

Without a GPU: on torch's `meta` device, whose tensors have shapes and no values, so that whatever
asks for one fails; a dispatch mode sees every operation.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from sr_cli.diffusion import noise
from sr_cli.diffusion.path import Path
from sr_cli.diffusion.schedules import alpha_bar
from sr_cli.diffusion.solvers import plan, start
from sr_cli.engine import states, tiling
from sr_cli.engine.options import UpscaleOptions
from sr_cli.engine.sampling import Walk
from sr_cli.engine.states import Noise, States
from sr_cli.engine.steps import Course
from sr_cli.engine.tiling import Tiler, ignore
from sr_cli.engine.timing import untimed
from sr_cli.engine.upscaler import Upscaler

META = torch.device("meta")
WAITS = {"_local_scalar_dense", "item", "is_nonzero", "nonzero", "equal", "lift_fresh", "unique"}
"""Operations whose result a host must wait for, or that bring a host's numbers."""
STEPS = 4


class Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts operations but views; fails on those that cross between devices, or wait for one."""

    count = 0

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: Sequence[Any] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        self.count += not func.is_view
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        found = [t for t in tree_leaves((args, kwargs, result)) if isinstance(t, Tensor)]
        devices = {tensor.device for tensor in found if tensor.dim() or tensor.device == META}
        assert len(devices) <= 1, f"{func} crosses between {devices}"
        assert func.overloadpacket.__name__ not in WAITS, f"{func} waits"
        return result


class Network:
    """A denoiser of a convolution, on the device of what it is given."""

    def predict_x0(self, x: Tensor, *, y: Tensor, a: float, m: float, **rest: Any) -> Tensor:
        kernel = torch.full((x.shape[1], x.shape[1], 3, 3), 0.1, device=x.device)
        return y + F.conv2d(x - (a + m) * y, kernel, padding=1)


@contextmanager
def watched(monkeypatch: pytest.MonkeyPatch) -> Iterator[Watch]:
    """From the first state on: what a walk needs of its picture and steps is there by then."""
    watch = Watch()  # type: ignore[no-untyped-call]
    begin = States.start

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a host's numbers")  # torch makes them of no operation on `meta`

    def start(self: States, alpha: float, sigma: float) -> None:
        if torch.utils._python_dispatch._get_current_dispatch_mode() is not watch:
            patch.setattr(torch, "tensor", refuse)
            patch.setattr(torch, "from_numpy", refuse)
            watch.__enter__()  # type: ignore[no-untyped-call]
        begin(self, alpha, sigma)

    with monkeypatch.context() as patch:
        patch.setattr(States, "start", start)
        try:
            yield watch
        finally:
            if torch.utils._python_dispatch._get_current_dispatch_mode() is watch:
                watch.__exit__(None, None, None)  # type: ignore[no-untyped-call]


def operations(monkeypatch: pytest.MonkeyPatch, side: int, pictures: int = 1, **tiled: Any) -> int:
    """Of a walk on the meta device over square states."""
    path = Path.domain_shift(alpha_bar(), 500)
    steps = plan(path, [499, 375, 250, 125, 0], order=3)
    assert len(steps) == STEPS
    options: dict[str, Any] = {"batch": pictures, "cores": [0] * pictures, "margin": 0} | tiled
    course = Course(path, steps, start(path, steps[0].s))
    walk = Walk(Network(), course, tiler=Tiler(META, **options), timer=untimed)
    y = torch.empty(1, 3, side, side, device=META)
    noises = [Noise(0, bytes([i]), 3, META) for i in range(pictures)]
    with watched(monkeypatch) as watch:
        results = walk([(y, y) for _ in range(pictures)], noises, ignore)
    assert [tuple(x.shape) for x in results] == [tuple(y.shape)] * pictures
    assert watch.count > STEPS
    return watch.count


def test_a_walk_stays_on_its_device(monkeypatch: pytest.MonkeyPatch) -> None:
    operations(monkeypatch, 64)
    operations(monkeypatch, 64, pictures=3)
    operations(monkeypatch, 64, cores=[16], margin=8, batch=4)


def test_blended_tiles_stay_on_it_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """When their shares are there: taken to the device once for all pictures of a size."""
    options: dict[str, Any] = {"cores": [32], "margin": 8, "batch": 4, "tiling": "blend"}
    tiling._share.cache_clear()
    with pytest.raises(AssertionError, match=r"waits|crosses|numbers"):
        operations(monkeypatch, 80, **options)
    for tile in tiling.blended_tiles(80, 80, window=32, overlap=8):
        tile.weight(1, META)
    operations(monkeypatch, 80, **options)


def test_a_walk_has_no_more_operations_for_a_larger_picture(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No loop over blocks, and few operations for each more picture of a batch."""
    small, large = (operations(monkeypatch, side) for side in (64, 1024))
    assert small == large < 80 * STEPS
    assert operations(monkeypatch, 64, pictures=16) - small < 5 * 16 * STEPS
    monkeypatch.setattr(noise, "STRIP", {"cpu": 2**15, "else": 2**15})
    assert operations(monkeypatch, 1024) > 2 * large  # the control


def from_the_host(x: Tensor, keys: Tensor, scale: float, **_: Any) -> Tensor:
    return x.add_(torch.zeros(x.shape).to(x.device), alpha=scale)


def by_value(x: Tensor, keys: Tensor, scale: float, **_: Any) -> Tensor:
    return x.mul_(float(torch.ones(1, device=x.device).sum()))


def by_numbers(x: Tensor, keys: Tensor, scale: float, **_: Any) -> Tensor:
    return x.mul_(torch.tensor([scale], device=x.device))


@pytest.mark.parametrize("wrong", [from_the_host, by_value, by_numbers])
def test_crossing_would_be_noticed(
    monkeypatch: pytest.MonkeyPatch, wrong: Callable[..., Tensor]
) -> None:
    monkeypatch.setattr(states, "add_noise", wrong)
    with pytest.raises((AssertionError, RuntimeError, NotImplementedError)):
        operations(monkeypatch, 64)


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_embedded_network_waits_for_nothing(
    monkeypatch: pytest.MonkeyPatch, dtype: str
) -> None:
    engine = Upscaler(UpscaleOptions(steps=STEPS), device="cpu", dtype=dtype)
    real = Walk.__call__

    def call(self: Walk, *args: Any) -> list[Tensor]:
        with watched(monkeypatch) as watch:
            results = real(self, *args)
        assert watch.count > STEPS
        return results

    monkeypatch.setattr(Walk, "__call__", call)
    engine(torch.rand(3, 20, 24))
