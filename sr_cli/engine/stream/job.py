"""One file to a larger one that is never whole in memory."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from functools import cache
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from sr_cli.device import peak_memory
from sr_cli.engine.arrays import Form, finite, to_rgb
from sr_cli.engine.events import Event, Finished, Job, Stepped
from sr_cli.engine.finish import check_numbers, strayed_notes
from sr_cli.engine.formats import format_of
from sr_cli.engine.images import Floats, Picture, losses, probe, samples_for
from sr_cli.engine.keeper import Keeper
from sr_cli.engine.pictures import form_of, greys, merged
from sr_cli.engine.size import oddities
from sr_cli.engine.states import Noise
from sr_cli.engine.steps import Sizes
from sr_cli.engine.stream import plan
from sr_cli.engine.stream.finishing import Finisher
from sr_cli.engine.stream.plan import Parts, halved, strip_rows
from sr_cli.engine.stream.sink import Sink
from sr_cli.engine.stream.source import Held, Source
from sr_cli.engine.stream.walk import WalkByRows
from sr_cli.engine.tiling import ignore
from sr_cli.engine.writers import Samples
from sr_cli.errors import InputError, SrxError, is_out_of_memory
from sr_cli.memory import Bound
from sr_cli.models.graphs import give_back

_PASSING = (SrxError, RuntimeError)
"""What is raised of computing, not of writing."""


@runtime_checkable
class InParts(Protocol):
    """What can enlarge a picture piece by piece."""

    @property
    def device(self) -> str:
        """Name of the device."""
        ...

    def parts(self, sizes: Sizes, on_note: Callable[[str], None], exact: bool = False) -> Parts:
        """What enlarges a picture of these sizes; exact: in float32."""
        ...


class _OverflowedError(SrxError):
    """What came of a lower precision is no picture."""


@dataclass(frozen=True)
class _Result:
    """What is to be made. like: a picture of one pixel, of the kind and with the metadata of the
    whole one. size: (H, W)."""

    like: Picture
    size: tuple[int, int]
    format: str
    neutral: bool

    @property
    def form(self) -> Form:
        """Of the whole picture."""
        return form_of(self.like, self.format, grey=self.neutral)

    @property
    def pixel(self) -> Samples:
        """One pixel of the result's kind, (1, 1, C)."""
        return self.samples(torch.zeros(3, 1, 1), self.like.alpha)

    def samples(self, hr: Tensor, alpha: Floats | None) -> Samples:
        """(h, w, C) of a part: hr (3, h, w), alpha (h, w)."""
        found = self.form(hr[None])[0].cpu()
        if found.is_floating_point():
            rgb = to_rgb(found)
            rgb = greys(rgb) if self.neutral and not self.like.gray else rgb
            samples = samples_for(replace(self.like, rgb=rgb, alpha=alpha), self.format)
        else:
            samples = merged(found.numpy(), alpha, gray=self.like.gray)
        return samples if samples.ndim == 3 else samples[..., None]


def streams(job: Job, engine: object, keeper: Keeper) -> bool:
    """Whether a picture is so large, by its header, that `stream` is for it."""
    if not isinstance(engine, InParts):
        return False
    with suppress(InputError):  # reading it will say why
        size = probe(job.input, max_pixels=keeper.files.max_pixels)
        options = keeper.options
        return plan.streams(options, (size, options.size.of(*size)), engine.device)
    return False


def stream(job: Job, keeper: Keeper, engine: object, notify: Callable[[Event], None]) -> Finished:
    """Read, enlarge and write one picture, of which the input and some rows are in memory.

    notify gets Stepped. Raises what `Keeper.read` and `Keeper.writing` do, and DeviceError where
    memory does not suffice for the fewest rows, or the disk for states between steps.
    """
    assert isinstance(engine, InParts)
    begin = time.perf_counter()
    held, like = _held(keeper.read(job))
    with closing(held):
        before = held.size[1], held.size[0]
        sizes = before, (after := keeper.options.size.of(*before))
        result = _Result(like, (after[1], after[0]), format_of(job.output), held.neutral)
        notes: list[str] = []
        parts = engine.parts(sizes, notes.append)
        most = strip_rows(parts, sizes)

        def told() -> Finished:
            memory = peak_memory(str(parts.device)) if parts.device.type == "cuda" else None
            return Finished(job, *sizes, time.perf_counter() - begin, memory)

        while True:
            making = _Making(parts, held, result, most, lambda *steps: notify(Stepped(job, *steps)))
            try:
                with keeper.writing(job, told, _PASSING) as (file, replaced):
                    pixel, metadata = result.pixel, like.metadata.sized(*after)
                    shape = (*result.size, pixel.shape[2])
                    quality = keeper.files.quality
                    sink = Sink(file, result.format, shape, pixel.dtype, metadata, quality)
                    with _bound(plan.most(parts, after[0])).watched():
                        sink.take(making())
                break
            except _OverflowedError:
                notes.append(f"{parts.precision} overflowed: repeated in float32")
                parts = engine.parts(sizes, ignore, exact=True)
                most = min(most, strip_rows(parts, sizes))
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                most = halved(most, parts)
            give_back(parts.device)  # when nothing of the failed attempt is held any more
        notes += [*making.notes, *like.notes, *losses(like, job.output), *oddities(*sizes)]
        return replace(told(), notes=(*notes, *replaced))


@cache
def _bound(most: int) -> Bound:
    """One for all pictures of a process that may hold as much: they use what others have freed."""
    return Bound(most)


def _held(picture: Picture) -> tuple[Held, Picture]:
    """The pixels in as little memory as they need, and a picture of one pixel with all else."""
    alpha = None if picture.alpha is None else picture.alpha[:1, :1].copy()
    return Held.of(picture), replace(picture, rgb=picture.rgb[:1, :1].copy(), alpha=alpha)


class _Making:
    """One attempt at a picture, by so many rows at a time."""

    def __init__(
        self,
        parts: Parts,
        held: Held,
        result: _Result,
        most: int,
        on_step: Callable[[int, int], None],
    ) -> None:
        self.parts, self.held, self.result = parts, held, result
        self.most, self.on_step = most, on_step
        self.notes: list[str] = []

    @torch.inference_mode()
    def __call__(self) -> Iterator[tuple[slice, Samples]]:
        """Rows of the result from above to below, as `Sink.take` wants.

        Raises _OverflowedError where a lower precision does not suffice, DeviceError where
        float32 does not.
        """
        parts, held, size = self.parts, self.held, self.result.size
        color, cell = parts.options.color_fix, parts.model.weave
        finisher = Finisher(held, size, color, parts.device, parts.timer, cell)
        for rows, hr in finisher(self._walked()):
            alpha = held.alpha_window((rows, slice(0, size[1])), size)
            samples = self.result.samples(hr, alpha)
            del hr  # what nobody needs any longer would stay while the next rows are computed
            yield rows, samples
            del samples
        self.notes += strayed_notes(finisher.strayed / math.prod(held.size))

    def _walked(self) -> Iterator[tuple[slice, Tensor]]:
        """Rows of the picture, and what the networks gave beside the source, (1, 6, h, W)."""
        parts, (height, width) = self.parts, self.result.size
        multiple = parts.model.multiple_of
        walk = WalkByRows(
            parts.model,
            parts.course,
            Source(self.held, parts.preprocess, self.result.size, parts.device),
            Noise(parts.options.seed, self.held.digest, parts.model.channels, parts.device),
            (height + -height % multiple, width + -width % multiple),
            self.most,
            parts.timer,
            self.on_step,
        )
        largest = brightest = 0.0
        for place, image, source in walk():
            rows = slice(place.start, min(place.stop, height))
            if rows.start >= rows.stop:
                continue
            block = torch.cat((image, source), dim=1)[..., : rows.stop - rows.start, :width]
            if not finite(block[:, :3]) and parts.dtype != torch.float32:
                raise _OverflowedError
            check_numbers(block[:, :3], parts.device)
            largest = max(largest, float(block[:, :3].max()))
            brightest = max(brightest, float(block[:, 3:].max()))
            del image, source
            yield rows, block
            del block
        if parts.dtype != torch.float32 and largest <= 0 < brightest:
            raise _OverflowedError
