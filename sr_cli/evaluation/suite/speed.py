"""How long it takes, beside the network that people would use instead, in the same run."""

from collections.abc import Callable, Iterator
from time import perf_counter
from typing import Any

import torch
from torch import Tensor

from sr_cli.engine.timing import Stopwatch
from sr_cli.engine.upscaler import Upscaler
from sr_cli.evaluation.memory import MemoryMeter
from sr_cli.evaluation.suite.counting import counted
from sr_cli.evaluation.suite.found import Finding
from sr_cli.evaluation.suite.networks import MOMENT
from sr_cli.evaluation.suite.scope import Scope, photo

LAUNCHES = ("cudaLaunchKernel", "cuLaunchKernel", "cudaGraphLaunch", "cudaMemcpyAsync")
WAITS = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize")
"""Of the CUDA runtime, as its profiler calls them; names of some have an ending."""
TARGETS = {
    "embedded 5 16": 0.003,
    "large 4": 1.0,
    "DoSSR 5 16": 0.040,
    "DoSSR 5 1": 0.090,
    "DoSSR large": 1.5,
}
"""Seconds that an H100 should take."""


def _target(scope: Scope, key: str) -> float | None:
    known = scope.cuda and "H100" in torch.cuda.get_device_name(scope.device)
    return TARGETS.get(key) if known else None


def noise(scope: Scope) -> Iterator[Finding]:
    """Time of a draw."""
    from sr_cli.diffusion.noise import noise_keys
    from sr_cli.engine.states import noised

    keys = noise_keys([1, 2, 3, 4], scope.device)
    x = torch.zeros(4, 3, 512, 512, device=scope.device)
    with torch.inference_mode():
        seconds = scope.seconds(lambda: noised(x, keys, 1.0))
    yield Finding("noise", 1e9 * seconds / x.numel(), "ns a value")


def small(scope: Scope) -> Iterator[Finding]:
    """The default model and `clean`, alone and in batches, and the peer's network."""
    side = scope.sizes.side
    title = f"{side}², x4"
    own = {}
    for batch in scope.sizes.batches:
        lrs = [photo(side, side, i) for i in range(batch)]
        for steps in (1, 5):
            upscaler = scope.default.using(batch=batch, steps=steps)
            each = scope.seconds(_together(upscaler, lrs)) / batch
            own[batch, steps] = each
            yield Finding(
                f"{title}, embedded, {_steps(steps)}, batch {batch}",
                each,
                "s an image",
                _target(scope, f"embedded {steps} {batch}"),
            )
        peer = scope.seconds(_peer(scope, lrs)) / batch
        yield Finding(f"{title}, Real-ESRGAN x4plus' network, batch {batch}", peer, "s an image")
        ratio = peer / own[batch, scope.default.steps]
        name = f"{title}, Real-ESRGAN's time in that of srx upscale, batch {batch}"
        yield Finding(name, ratio, "times")
    yield from _shares(scope, scope.default, [photo(side, side)], f"{title}, embedded")
    clean = scope.engine("clean")
    lr = photo(side, side)
    name = f"{title}, clean, {_steps(clean.steps)}, batch 1"
    yield Finding(name, scope.seconds(lambda: clean(lr)), "s an image")


def _together(upscaler: Upscaler, lrs: list[Tensor]) -> Callable[[], object]:
    return lambda: upscaler.together(lrs)


def _peer(scope: Scope, lrs: list[Tensor]) -> Callable[[], object]:
    """Its network alone, from uint8 on the CPU to float32 on the device."""

    @torch.inference_mode()
    def work() -> object:
        return scope.peer(torch.stack(lrs).to(scope.device).float().div_(255))

    return work


def _steps(steps: int) -> str:
    return f"{steps} step{'s' * (steps > 1)}"


def _shares(scope: Scope, upscaler: Upscaler, lrs: list[Tensor], name: str) -> Iterator[Finding]:
    """Where the time goes, part by part; waiting for the device after each makes it longer."""
    upscaler.together(lrs)
    scope.parts.watch = watch = Stopwatch(scope.device)
    try:
        with watch("whole"):
            upscaler.together(lrs)
    finally:
        scope.parts.watch = None
    (whole,) = watch.seconds.pop("whole")
    parts = {part: sum(times) / whole for part, times in watch.seconds.items()}
    rest = 1 - sum(parts.values())
    shares = ", ".join(f"{part} {share:.1%}" for part, share in (parts | {"rest": rest}).items())
    yield Finding(f"{name}: shares", note=shares)


def large(scope: Scope) -> Iterator[Finding]:
    """Large pictures, the engine alone, and the memory they take."""
    for width, height, scale in scope.sizes.large:
        lr, upscaler = photo(width, height), scope.default.using(scale=scale)
        memory = MemoryMeter(scope.device)
        with memory.working():
            upscaler(lr)
        name = f"{width}x{height}, x{scale}, embedded"
        seconds = scope.seconds(_together(upscaler, [lr]))
        yield Finding(name, seconds, "s", _target(scope, f"large {scale}"))
        yield Finding(f"{name}: memory", memory.bytes / 2**30, "GiB")


def latent(scope: Scope) -> Iterator[Finding]:
    """DoSSR at full size with random weights."""
    if not scope.sizes.full:
        yield Finding("DoSSR at full size", note="left out: minutes for a picture without a GPU")
        return
    side, title = scope.sizes.side, f"{scope.sizes.side}², x4, DoSSR"
    with scope.weights():
        begin = perf_counter()
        engine = scope.latent
        yield Finding("DoSSR: made at random and loaded", perf_counter() - begin, "s")
        yield from _calls(scope, engine)
        for steps, batch in ((5, 16), (5, 1), (1, 1), (1, 16)):
            lrs = [photo(side, side, i) for i in range(batch)]
            work = _together(engine.using(steps=steps, batch=batch), lrs)
            name = f"{title}, {_steps(steps)}, batch {batch}"
            target = _target(scope, f"DoSSR {steps} {batch}")
            yield Finding(name, scope.seconds(work) / batch, "s an image", target)
        lrs = [photo(side, side, i) for i in range(16)]
        sixteen = engine.using(steps=5, batch=16)
        yield from _shares(scope, sixteen, lrs, f"{title}, 5 steps, batch 16")
        lr = photo(scope.sizes.latent, scope.sizes.latent)
        out = 4 * scope.sizes.latent
        memory = MemoryMeter(scope.device)
        with memory.working():
            engine(lr)
        seconds = scope.seconds(_together(engine, [lr]))
        name = f"DoSSR, {_steps(engine.steps)}, to {out}²"
        yield Finding(name, seconds, "s", _target(scope, "DoSSR large"))
        yield Finding(f"{name}: memory", memory.bytes / 2**30, "GiB")


def _calls(scope: Scope, engine: Upscaler) -> Iterator[Finding]:
    """One call of UNet and ControlNet."""
    for batch in (1, 16):
        x = torch.randn(batch, 4, 64, 64, device=scope.device)

        def call(x: Tensor = x) -> object:
            return engine.model.denoiser.predict_x0(x, y=x, hint=x, **MOMENT)

        for _ in range(2):  # the second call of a shape may prepare for more of them
            call()
        name = f"a call of UNet and ControlNet, batch {batch}"
        yield Finding(name, 1e3 * scope.seconds(call), "ms")


def launches(scope: Scope) -> Iterator[Finding]:
    """Of one picture by the default model; last, since profilers and recorded launches together
    have ended processes."""
    lr = photo(scope.sizes.side, scope.sizes.side)
    if not scope.cuda:
        work = counted(lambda: scope.default(lr))
        yield Finding("operations of one picture", work.launches, note="each a launch on a GPU")
        return
    from torch.profiler import ProfilerActivity, profile

    for _ in range(3):  # the third call replays
        scope.default(lr)
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiler:
        scope.default(lr)
        scope.wait()
    events: Any = profiler.key_averages()
    for what, names in (("launches and copies", LAUNCHES), ("waits for the device", WAITS)):
        number = sum(event.count for event in events if event.key.startswith(names))
        yield Finding(f"{what} of one picture", number)
