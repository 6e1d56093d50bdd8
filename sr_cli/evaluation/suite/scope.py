"""What a suite works with: the device, how much is asked of it, the time there is, the networks."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import psutil
import torch
from torch import Tensor

from sr_cli.device import layout
from sr_cli.engine.arrays import to_tensor
from sr_cli.engine.images import load
from sr_cli.engine.options import UpscaleOptions
from sr_cli.engine.timing import Stopwatch, untimed
from sr_cli.engine.upscaler import Upscaler
from sr_cli.evaluation.datasets import examples
from sr_cli.evaluation.suite.networks import FULL, SMALL, rrdbnet, write_dossr
from sr_cli.models.preprocess import without_bfloat16
from sr_cli.models.resampling import resize


@dataclass(frozen=True)
class Sizes:
    """side: of small square LR pictures. batches: of them. large: width, height and scale of
    larger ones. full: whether DoSSR has its full size. latent: side of a large LR picture for it.
    rrdb: blocks of the peer's network. repeat: calls of which the quickest counts."""

    side: int
    batches: tuple[int, ...]
    large: tuple[tuple[int, int, int], ...]
    full: bool
    latent: int
    rrdb: int = 23
    repeat: int = 5


GPU = Sizes(128, (1, 16, 64), ((1920, 1080, 2), (1920, 1080, 4)), full=True, latent=1024)
CPU = Sizes(128, (1, 4), ((256, 256, 4), (512, 512, 4)), full=False, latent=64, repeat=3)
QUICK = Sizes(24, (1, 2), ((40, 32, 4),), full=False, latent=32, rrdb=1, repeat=1)


@dataclass(frozen=True)
class Scope:
    """scratch: an empty folder. budget: seconds after which nothing new begins."""

    device: torch.device
    dtype: str
    sizes: Sizes
    scratch: Path
    budget: float = 450.0
    began: float = field(default_factory=time.monotonic)

    @property
    def cuda(self) -> bool:
        """Whether the device is a GPU of that kind."""
        return self.device.type == "cuda"

    @property
    def commands(self) -> tuple[str, ...]:
        """Words for `srx upscale` to compute on the same device in the same way."""
        return ("--device", str(self.device), "--dtype", self.dtype)

    @property
    def cores(self) -> int:
        """Of the machine, as far as this process may use them."""
        affinity = getattr(psutil.Process(), "cpu_affinity", None)  # not on macOS
        return len(affinity()) if affinity else os.cpu_count() or 1

    @property
    def late(self) -> bool:
        """Whether the time is used up."""
        return time.monotonic() - self.began > self.budget

    @cached_property
    def parts(self) -> "Parts":
        """Where the time of the engines below goes, when that is asked."""
        return Parts()

    @cached_property
    def default(self) -> Upscaler:
        """The engine with the default model."""
        return self.engine()

    def engine(self, model: str = UpscaleOptions.model, *, dtype: str = "") -> Upscaler:
        """The engine with a model."""
        chosen = dtype or self.dtype
        name = str(self.device)
        return Upscaler(UpscaleOptions(model=model), device=name, dtype=chosen, timer=self.parts)

    @cached_property
    def latent(self) -> Upscaler:
        """DoSSR with random weights; to be used inside `weights`."""
        folder = self.scratch / "weights"
        write_dossr(folder, "random", FULL if self.sizes.full else SMALL, half=self.sizes.full)
        return self.engine("random")

    @contextmanager
    def weights(self) -> Iterator[None]:
        """Let the scratch folder be where cards are looked for first."""
        folder, before = self.scratch / "weights", os.environ.get("SRX_WEIGHTS")
        folder.mkdir(exist_ok=True)
        os.environ["SRX_WEIGHTS"] = str(folder)
        try:
            yield
        finally:
            del os.environ["SRX_WEIGHTS"]
            if before is not None:
                os.environ["SRX_WEIGHTS"] = before

    @cached_property
    def peer(self) -> Callable[[Tensor], Tensor]:
        """Real-ESRGAN x4plus' network in the precision of the default model, or where that shows
        in it in float32: LR (N, 3, h, w) in [0, 1]."""
        dtype = without_bfloat16(getattr(torch, self.default.dtype), self.device)
        net = rrdbnet(self.sizes.rrdb).to(self.device, dtype)
        net.to(memory_format=layout(self.device))
        return lambda lr: net(lr.to(dtype)).float()

    def wait(self) -> None:
        """Until the device has done what it was told."""
        if self.cuda:
            torch.cuda.synchronize(self.device)

    def seconds(self, work: Callable[[], object]) -> float:
        """Of the quickest of some calls after one that warms up; of one alone if it is long."""
        times = [self._one(work)]
        if times[0] < 20:
            times = [self._one(work) for _ in range(self.sizes.repeat)]
        return min(times)

    def _one(self, work: Callable[[], object]) -> float:
        self.wait()
        begin = time.perf_counter()
        work()
        self.wait()
        return time.perf_counter() - begin


class Parts:
    """A `Timer` that costs nothing but while a stopwatch is in it."""

    def __init__(self) -> None:
        self.watch: Stopwatch | None = None

    def __call__(self, part: str) -> AbstractContextManager[object]:
        return self.watch(part) if self.watch else untimed(part)


def photo(width: int, height: int, number: int = 0) -> Tensor:
    """One of the examples in that size: (3, height, width) uint8."""
    files = examples()
    image = resize(to_tensor(load(files[number % len(files)]).rgb)[None], (height, width))[0]
    return (image.clamp(0, 1) * 255).round().to(torch.uint8)


def levels_apart(one: Tensor, other: Tensor) -> float:
    """Largest difference of two results in 8 bits."""
    return float(((one.cpu() * 255).round() - (other.cpu() * 255).round()).abs().max())
