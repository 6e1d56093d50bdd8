"""What must hold on every device: the same pixels, however they are computed."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from sr_cli.diffusion.noise import add_noise, gaussian_noise, noise_keys
from sr_cli.engine.arrays import to_rgb, to_tensor
from sr_cli.engine.images import Picture, load, save
from sr_cli.engine.states import noised
from sr_cli.engine.timing import Stopwatch
from sr_cli.engine.upscaler import Upscaler
from sr_cli.errors import SrxError, is_out_of_memory
from sr_cli.evaluation.suite.commands import Ended, srx
from sr_cli.evaluation.suite.found import Finding, levels
from sr_cli.evaluation.suite.networks import MOMENT
from sr_cli.evaluation.suite.scope import Scope, levels_apart, photo
from sr_cli.models import fused
from sr_cli.models.graphs import release

PER_PIXEL = {"float32": 1, "float16": 1, "bfloat16": 8}
"""Levels by which a precision of a pixel-space model may differ from float32: of bfloat16, which
nobody promised anything of, more than the 4 and 5 that were seen."""


APART = {"float32": 1e-4, "bfloat16": 0.05, "float16": 0.01}
"""Share of the largest value by which a latent network's answers in a batch and alone differ."""
WIDE = (136, 16)
"""An LR picture, width and height, whose result is wider than a tile of DoSSR's."""


def noise(scope: Scope) -> Iterator[Finding]:
    """It is the CPU's, and windows of it agree."""
    keys = noise_keys([0x548C9DECBCE65297, 3], scope.device)
    side = 4 * scope.sizes.side
    with torch.inference_mode():
        there = noised(torch.zeros(2, 3, side, side, device=scope.device), keys, 1.0).cpu()
    here = add_noise(torch.zeros(2, 3, side, side), keys.cpu(), 1.0)
    apart = float((there - here).abs().max())
    yield Finding("noise: this device and the CPU", apart, passed=apart == 0, note="the same bits")
    window = gaussian_noise(keys, (3, side), (5, side), 3).cpu()
    apart = float((there[:, :, 3:, 5:] - window).abs().max())
    yield Finding("noise: a window and the whole", apart, passed=apart == 0, note="the same bits")


def precision(scope: Scope) -> Iterator[Finding]:
    """float32 is the CPU's, and the automatic precision is near it."""
    lr = photo(scope.sizes.side, scope.sizes.side)
    exact = scope.engine(dtype="float32")(lr)
    if scope.device.type == "cpu":
        yield Finding("float32: this device and the CPU", note="left out: this is the CPU")
    else:
        on_cpu = Upscaler(device="cpu", dtype="float32")(lr)
        yield levels("float32: this device and the CPU", levels_apart(exact, on_cpu), 1)
    own = scope.default.dtype
    apart = levels_apart(scope.default(lr), exact)
    yield levels(f"{own}, the automatic precision, and float32", apart, PER_PIXEL[own])


def tiles(scope: Scope) -> Iterator[Finding]:
    """They are those of the whole picture, and a batch those of each picture alone."""
    upscaler, lr = scope.default, long_picture(scope)
    whole = upscaler.using(tile=0)(lr)
    cut, number = _called(scope, upscaler.using(tile=32, steps=1, batch=1), lr)
    apart = levels_apart(cut, upscaler.using(tile=0, steps=1)(lr))
    yield levels(f"{number} tiles and the whole picture", apart, 1)
    later = max(levels_apart(upscaler.using(tile=0)(lr), whole) for _ in range(2))
    yield levels("the same once and twice more", later, 0)
    for batch in scope.sizes.batches[1:]:
        lrs = [photo(scope.sizes.side, scope.sizes.side, i) for i in range(batch)]
        last = upscaler.using(batch=batch).together(lrs)[-1]
        apart = levels_apart(last, upscaler(lrs[-1]))
        yield levels(f"{batch} pictures together and each alone", apart, 1)


def faults(scope: Scope) -> Iterator[Finding]:
    """Where memory does not suffice, smaller tiles give the same pixels."""
    upscaler, lr = scope.default, long_picture(scope)
    whole, calls = _called(scope, upscaler, lr)
    with _refusing(upscaler.model.denoiser, 3 * whole[0].numel() // 4):
        cut, more = _called(scope, upscaler, lr)
    yield _same_pixels("memory refused to large tiles", cut, whole, more - calls)
    if scope.cuda:
        yield _short_of_memory(scope)
    else:
        yield Finding("memory of the GPU made short", note="left out: it takes a CUDA device")


def _short_of_memory(scope: Scope) -> Finding:
    """With less and less of the GPU's memory, until tiles become smaller."""
    name = "memory of the GPU made short"
    upscaler, side = scope.default.using(tile=0), 4 * scope.sizes.side
    lr, number = photo(side, side), scope.device.index or 0  # without one it is the first
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(scope.device)
    whole, calls = _called(scope, upscaler, lr)
    held = torch.cuda.memory_allocated(scope.device)
    peak = torch.cuda.max_memory_allocated(scope.device) - held
    total = torch.cuda.get_device_properties(scope.device).total_memory
    try:
        for share in (0.9, 0.8, 0.7, 0.6, 0.5):
            torch.cuda.empty_cache()
            torch.cuda.set_per_process_memory_fraction((held + share * peak) / total, number)
            cut, more = _called(scope, upscaler, lr)
            if more > calls:
                return _same_pixels(f"{name}: {share:.0%}", cut, whole, more - calls)
    except Exception as error:
        if not (isinstance(error, SrxError) or is_out_of_memory(error)):
            raise
        return Finding(name, passed=False, note=str(error))
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, number)
        torch.cuda.empty_cache()
    return Finding(name, passed=False, note="no tile became smaller")


def _same_pixels(name: str, cut: Tensor, whole: Tensor, more: int) -> Finding:
    found = levels(name, levels_apart(cut, whole), 1, f"{more} calls of the network more")
    return found if more > 0 else Finding(name, passed=False, note="no tile became smaller")


def _called(scope: Scope, upscaler: Upscaler, lr: Tensor) -> tuple[Tensor, int]:
    """A result, and the calls of the network for it."""
    scope.parts.watch = watch = Stopwatch(scope.device)
    try:
        return upscaler(lr), len(watch.seconds["network"])
    finally:
        scope.parts.watch = None


@contextmanager
def _refusing(denoiser: Any, pixels: int) -> Iterator[None]:
    """Let a network have no memory for windows of more values of one channel."""
    predict = denoiser.predict_x0

    def refuse(x: Tensor, **given: Any) -> Tensor:
        if x.numel() // x.shape[1] > pixels:
            raise torch.OutOfMemoryError("CUDA out of memory: so the suite says")
        found: Tensor = predict(x, **given)
        return found

    denoiser.predict_x0 = refuse
    try:
        yield
    finally:
        del denoiser.predict_x0


def long_picture(scope: Scope) -> Tensor:
    """One so wide that tiles with their margins are smaller than it."""
    return photo(max(scope.default.model.margin, 128), 32)


def blended(scope: Scope) -> Iterator[Finding]:
    """DoSSR with random weights: its network, whose picture the guard would hide, and its tiles."""
    with scope.weights():
        model = scope.latent.model
        side = scope.sizes.side * 4 // model.cell // model.multiple_of * model.multiple_of
        x = torch.randn(2, model.channels, side, side).to(scope.device)
        first, *later = (_predicted(model.denoiser, x) for _ in range(3))
        apart = max(float((first - again).abs().max()) for again in later)
        largest = float(first.abs().max())
        name = "DoSSR's network: the same once and twice more"
        yield Finding(name, apart / largest, passed=apart <= 1e-5 * largest, note="at most 1e-05")
        yield _by_kernels(scope, model.denoiser, x, first)
        alone = torch.cat([_predicted(model.denoiser, x[i : i + 1]) for i in range(2)])
        share, most = float((first - alone).abs().max()) / largest, APART[scope.latent.dtype]
        name = "DoSSR's network: two states together and each alone"
        yield Finding(name, share, passed=share <= most, note=f"at most {most:g} of the largest")
        said: list[str] = []
        lr = photo(*WIDE)
        cells = ((model.tile or 0) // model.cell) * (4 * lr.shape[1] // model.cell)
        with _refusing(model.denoiser, cells - 1):
            scope.latent.using(steps=1)(lr, on_note=said.append)
        smaller = [note for note in said if "memory is short" in note]
        note = "; ".join(smaller) or "no tile became smaller"
        yield Finding("DoSSR: memory refused to large tiles", passed=bool(smaller), note=note)


def _by_kernels(scope: Scope, denoiser: Any, x: Tensor, found: Tensor) -> Finding:
    """What fused passes gave, beside torch's own."""
    name = "DoSSR's network: by kernels and by torch's passes"
    with torch.inference_mode():
        if not fused.serves(x):
            return Finding(name, note="left out: it takes CUDA and Triton")
    module: Any = fused
    serves = module.serves
    release()  # what was recorded goes on as it was
    module.serves = lambda _: False
    try:
        plain = _predicted(denoiser, x)
    finally:
        module.serves = serves
        release()
    share, most = float((found - plain).abs().max() / plain.abs().max()), APART[scope.latent.dtype]
    return Finding(name, share, passed=share <= most, note=f"at most {most:g} of the largest")


def _predicted(denoiser: Any, x: Tensor) -> Tensor:
    found: Tensor = denoiser.predict_x0(x, y=x, hint=x, **MOMENT).clone()
    return found


def command(scope: Scope) -> Iterator[Finding]:
    """`srx upscale` from files to files: results, what it keeps and how it fails."""
    lrs, out = scope.scratch / "in", scope.scratch / "out"
    lrs.mkdir()
    for i in range(2):
        lr = photo(scope.sizes.side, scope.sizes.side, i)
        save(Picture(to_rgb(lr.float() / 255)), lrs / f"{i}.png")
    damaged = lrs / "2.png"
    damaged.write_bytes(b"\x89PNG\r\n\x1a\n no picture")
    words = ("upscale", lrs, out, "--json", *scope.commands)
    call = srx(*words)
    done = call.code == 1 and len(call.report.get("results", ())) == 2
    yield Finding("srx upscale: two pictures, a damaged one", passed=done, note=_exited(call, 1))
    if done:
        made = to_tensor(load(out / "0.png").rgb)
        apart = levels_apart(made, scope.default(to_tensor(load(lrs / "0.png").rgb)))
        yield levels("srx upscale: its file and the engine", apart, 1)
    damaged.unlink()
    call = srx(*words)
    kept = call.code == 0 and len(call.report.get("skipped", ())) == 2
    yield Finding("srx upscale: once more, all kept", passed=kept, note=_exited(call, 0))
    call = srx("upscale", lrs / "none.png", out)
    yield Finding("srx upscale: a missing file", passed=call.code == 2, note=_exited(call, 2))


def _exited(call: Ended, wanted: int) -> str:
    return f"exit code {call.code}" + f" instead of {wanted}" * (call.code != wanted)
