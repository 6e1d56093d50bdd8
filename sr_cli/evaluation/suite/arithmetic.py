"""What an upscaling asks of a device, counted without one, and what that allows on a given one."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from spandrel.architectures.ESRGAN import ESRGAN
from torch import Tensor

from sr_cli.diffusion.names import LastStep
from sr_cli.diffusion.path import Path, time_grid
from sr_cli.diffusion.schedules import alpha_bar
from sr_cli.diffusion.solvers import plan, start
from sr_cli.engine.arrays import Form, levels
from sr_cli.engine.color import wavelet_color_fix
from sr_cli.engine.guard import guarded
from sr_cli.engine.sampling import Walk
from sr_cli.engine.states import Noise
from sr_cli.engine.steps import Course
from sr_cli.engine.tiling import Tiler, ignore
from sr_cli.engine.timing import untimed
from sr_cli.evaluation.suite.counting import Work, counted, without_values
from sr_cli.evaluation.suite.networks import FULL, MOMENT, TOKENS
from sr_cli.evaluation.suite.scope import photo
from sr_cli.evaluation.tables import Cell, Column, Table
from sr_cli.models import registry
from sr_cli.models.compact import CompactNet
from sr_cli.models.embedded import EmbeddedDenoiser
from sr_cli.models.network import EmbeddedConfig, EmbeddedNet
from sr_cli.models.pixels import PixelCodec
from sr_cli.models.preprocess import CompactPreprocessor
from sr_cli.models.resampling import resize

SIDE, SCALE = 128, 4
"""Pixels of a square LR picture, and what it is enlarged by."""
BATCHES = (1, 16)
STEPS = {"embedded": (1, 5), "DoSSR": (1, 5)}
"""Of a walk; of others as many as their cards say."""


@dataclass(frozen=True)
class Chip:
    """flops: of half-precision products a second, as they are reached. bytes: a second of its
    memory. launch: seconds that torch, eager, takes for one operation."""

    name: str
    flops: float
    bytes: float
    launch: float

    def seconds(self, work: Work) -> float:
        """Of the work if nothing is waited for but memory and arithmetic, whichever is longer."""
        return max(work.flops / self.flops, work.bytes / self.bytes)


H100 = Chip("H100", 790e12, 3.35e12, 35e-6)
"""`launch`: a call of DoSSR's UNet and ControlNet took 40 ms there, at 1150 operations."""

Parts = dict[str, Work]
"""Of one batch, in the order of the work."""


@dataclass(frozen=True)
class Run:
    """An upscaling of `batch` pictures of SIDE² by SCALE."""

    name: str
    steps: int
    batch: int
    parts: Parts

    @property
    def work(self) -> Work:
        """Of all parts."""
        return sum(self.parts.values(), Work())

    @property
    def recorded(self) -> int:
        """Launches where each call of the network is one."""
        return self.work.launches - self.parts["network"].launches + self.steps

    def cells(self, chip: Chip) -> tuple[Cell, ...]:
        """A row of `table`."""
        work, milliseconds = self.work, 1e3 / self.batch
        allowed = sum(map(chip.seconds, self.parts.values()))
        return (
            f"{self.name}, {self.steps} step{'s' * (self.steps > 1)}",
            self.batch,
            work.launches,
            self.recorded,
            work.bytes / 1e9,
            work.flops / 1e12,
            milliseconds * work.launches * chip.launch,
            milliseconds * work.bytes / chip.bytes,
            milliseconds * work.flops / chip.flops,
            milliseconds * allowed,
        )


def table(runs: list[Run], chip: Chip = H100) -> Table:
    """Each run, and how long an image of it must take on the chip."""
    columns = (
        *(Column("run"), Column("batch"), Column("launches"), Column("recorded")),
        *(Column("GB"), Column("TFLOP")),
        *(Column(f"ms an image: {what}") for what in ("launches", "memory", "arithmetic")),
        Column("allowed"),
    )
    return Table(columns, tuple(run.cells(chip) for run in runs))


def parts_table(runs: list[Run], plain: list[Run]) -> Table:
    """The parts of one picture by one step of each kind; plain: the same runs without kernels."""
    names = ("run", "part", "launches", "GB", "launches without Triton", "GB without")
    columns = (*map(Column, names), Column("TFLOP", digits=3))
    return Table(
        columns,
        tuple(
            (
                *(run.name, part, work.launches, work.bytes / 1e9),
                *(without.launches, without.bytes / 1e9, work.flops / 1e12),
            )
            for run, other in zip(runs, plain, strict=True)
            if (run.batch, run.steps) == (1, 1)
            for (part, work), without in zip(run.parts.items(), other.parts.values(), strict=True)
        ),
    )


def runs(*, kernels: bool) -> Iterator[Run]:
    """Of the default model, of `clean` and of DoSSR at full size, each alone and in a batch; with
    the kernels of a GPU that has Triton, or by torch's operations alone."""
    for name in ("embedded", "clean"):  # of one architecture
        card = registry.card(name)
        for batch in BATCHES:
            before, call, after = _in_pixels(card, batch, kernels=kernels)
            for steps in STEPS.get(name, (card.limits.steps,)):
                walk = _walked(card.limits.last_step, steps, batch, call, (3, 1), kernels=kernels)
                yield Run(name, steps, batch, before | walk | after)
    for batch in BATCHES:
        before, call, after = _in_latents(batch, kernels=kernels)
        for steps in STEPS["DoSSR"]:
            walk = _walked("step", steps, batch, call, (4, 8), kernels=kernels)
            yield Run("DoSSR, full size", steps, batch, before | walk | after)


def _in_pixels(card: registry.Card, batch: int, *, kernels: bool) -> tuple[Parts, Work, Parts]:
    """What comes before a walk, a call of the network, and what comes after; by autocast, as it
    runs in half precision."""
    half = torch.bfloat16
    with without_values():
        config = EmbeddedConfig.from_json(card.architecture)
        with _default(half):
            denoiser = EmbeddedDenoiser(_still(EmbeddedNet(config)), half)
            own = registry.card("compact").architecture
            compact = CompactPreprocessor(_still(CompactNet(**own)), half)
        lr, image = _pictures(batch)
        codec = PixelCodec()
        before = {"preprocess": counted(compact, lr, kernels=kernels)}
        before["encode, decode"] = counted(lambda: codec.decode(codec.encode(image, image)[0]))
        given = {"y": image, "hint": image, **MOMENT}
        call = counted(denoiser.predict_x0, image, kernels=kernels, **given)
    return before, call, _after(batch, exact=False)


def _in_latents(batch: int, *, kernels: bool) -> tuple[Parts, Work, Parts]:
    """The same of DoSSR: UNet and ControlNet in bfloat16, what makes pixels in float16; the
    preprocessor is its own, of Real-ESRGAN's architecture."""
    from sr_cli.models.dossr.fusing import fuse
    from sr_cli.models.dossr.model import DossrCodec, DossrDenoiser
    from sr_cli.models.dossr.networks import PARTS

    def build(part: str) -> Any:
        net = PARTS[part](FULL)
        fuse(net)
        return _still(net)

    with without_values():
        with _default(torch.bfloat16):
            context = torch.empty(1, TOKENS, FULL["unet"]["cross_attention_dim"])
            denoiser = DossrDenoiser(build("unet"), build("control"), context)
        with _default(torch.float16):
            vae, rrdbnet = build("vae"), _still(ESRGAN(scale=4))
            sharp = torch.empty(batch, 3, SIDE, SIDE)
        _, image = _pictures(batch)
        state = torch.empty(batch, 4, SIDE * SCALE // 8, SIDE * SCALE // 8)
        codec = DossrCodec(vae, vae)
        before = {"preprocess": counted(rrdbnet, sharp)}
        before["encode"] = counted(codec.encode, image, state, kernels=kernels)
        given = {"y": state, "hint": state, **MOMENT}
        call = counted(denoiser.predict_x0, state, kernels=kernels, **given)
        decode = counted(codec.decode, state, kernels=kernels)
    return before, call, {"decode": decode} | _after(batch, exact=True)


def _pictures(batch: int) -> tuple[Tensor, Tensor]:
    """LR and HR."""
    return torch.empty(batch, 3, SIDE, SIDE), torch.empty(batch, 3, SIDE * SCALE, SIDE * SCALE)


def _still(net: Any) -> Any:
    """For inference, channels last as it is on a GPU."""
    for weight in net.parameters():
        if weight.ndim == 4:
            weight.data = weight.data.contiguous(memory_format=torch.channels_last)
    return net.eval().requires_grad_(False)


@contextmanager
def _default(dtype: torch.dtype) -> Iterator[None]:
    """What parameters are made in: networks without values cannot be converted."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


class _Identity:
    """A denoiser that asks for nothing, so that the rest of a walk can be counted."""

    def predict_x0(self, x: Tensor, **_: object) -> Tensor:
        return x


def _walked(
    last_step: LastStep,
    steps: int,
    batch: int,
    call: Work,
    space: tuple[int, int],
    *,
    kernels: bool,
) -> Parts:
    """The calls of the network, and the noise and the updates between them.

    space: channels of a state, and pixels along the side of a cell.
    """
    channels, cell = space
    meta = torch.device("meta")
    path = Path.domain_shift(alpha_bar(), 500)
    planned = plan(path, time_grid(500, steps), order=3, last_step=last_step)
    course = Course(path, planned, start(path, planned[0].s))
    tiler = Tiler(meta, batch, [0] * batch, 0)
    walk = Walk(_Identity(), course, tiler=tiler, timer=untimed)
    y = torch.empty(1, channels, SIDE * SCALE // cell, SIDE * SCALE // cell, device=meta)
    noises = [Noise(0, bytes([i]), channels, meta) for i in range(batch)]
    with torch.inference_mode():
        for _ in range(2):  # the first makes tables, which the next ones have
            rest = counted(walk, [(y, y) for _ in noises], noises, ignore, kernels=kernels)
    return {"network": call * steps, "noise and solver": rest}


def _after(batch: int, *, exact: bool) -> Parts:
    """exact: colours are fixed at every pixel, not by the guard's cells.

    Bytes are of a picture, times the batch; launches are of the quarters of a batch together, each
    of which is one tile on a CPU as the whole is on a GPU.
    """
    whole, quarters = _finished(SIDE, 1, exact=exact), _finished(SIDE // 2, batch, exact=exact)
    return {
        part: Work(quarters[part].launches, work.bytes * batch, work.flops * batch)
        for part, work in whole.items()
    }


def _finished(side: int, batch: int, *, exact: bool) -> Parts:
    """With values, since the guard looks at them: of a photograph, of which it doubts nothing."""
    lr = levels(photo(side, side))[None].repeat(batch, 1, 1, 1)
    image = resize(lr, (side * SCALE, side * SCALE)).clamp_(0, 1)
    parts: Parts = {}
    with torch.inference_mode():
        if exact:
            parts["colour"] = counted(wavelet_color_fix, image, image)
        for _ in range(2):  # as in a walk
            parts["guard"] = counted(guarded, image, image, lr, recolour=not exact, form=Form(8))
    return parts
