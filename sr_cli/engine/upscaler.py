"""The engine: preprocess, resize, encode, walk, decode, fix colours, guard."""

import copy
from collections.abc import Callable, Generator, Sequence
from dataclasses import replace
from fractions import Fraction
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sr_cli.device import compile_all, resolve_device, to_host
from sr_cli.engine.arrays import FLOATS, Form, usable
from sr_cli.engine.cells import Cells
from sr_cli.engine.choice import Judge, best_of
from sr_cli.engine.events import Event
from sr_cli.engine.finish import finish_of, finished
from sr_cli.engine.options import NETWORKS, OutputOptions, UpscaleOptions
from sr_cli.engine.pictures import AnyPicture, alike, as_picture, colors, recolored
from sr_cli.engine.sampling import TiledCodec, Walk
from sr_cli.engine.source import PREPROCESS_TILE, enlargements
from sr_cli.engine.states import Noise
from sr_cli.engine.steps import (
    Course,
    Sizes,
    calibrated_start,
    calibration,
    check_texture,
    course,
    dtype_of,
)
from sr_cli.engine.stream.plan import Parts
from sr_cli.engine.tiling import OnNote, OnTile, ignore, of_group
from sr_cli.engine.timing import Timer, untimed
from sr_cli.errors import UsageError, enough_memory
from sr_cli.models.loading import UPSCALING, load_model, load_prior
from sr_cli.models.model import Model
from sr_cli.models.preprocess import load_preprocessor
from sr_cli.models.protocol import Preprocessor


class Upscaler:
    """The networks for one set of options; call it with one picture after another.

    Results depend on the picture and the options alone, not on what else is enlarged. Batches and
    threads, and tiles where the model's are exact, change the order in which networks add up: by
    that, results of pixel-space models differ by at most one 8-bit level, and those of latent ones
    in bfloat16 by more. Threads may share one.

    device: "auto", "cpu", "cuda", "cuda:N" or "mps". dtype: of the networks, "auto", "float32",
    "bfloat16" or "float16". timer: a hook around each part of the work.

    Raises:
        ModelError: weights are missing or damaged.
        UsageError: the steps do not fit the model's t1, an automatic t1 has no calibration, or the
            model has no dial for a texture.
        DeviceError: the device is missing, or its memory does not suffice for the smallest tile.
    """

    judge: Judge | None = None
    """Of draws, where options.best_of is above 1; None: agreement with the input alone counts."""

    def __init__(
        self,
        options: UpscaleOptions | None = None,
        *,
        device: str = "auto",
        dtype: str = "auto",
        timer: Timer = untimed,
    ) -> None:
        self.options = options = options or UpscaleOptions()
        self._device = resolve_device(device)
        self._dtype = dtype_of(options, dtype, self._device)
        self._timer = timer
        with enough_memory("the networks"):
            if options.method == "diffsr":
                self._model = load_prior(options.prior, self._device, self._dtype)
            else:
                self._model = load_model(options.model, self._device, self._dtype, UPSCALING)
            self._preprocess = self._preprocessor()
        self._in_float32 = cache(  # shared by the copies that `using` makes
            partial(Upscaler, options, device=self.device, dtype="float32", timer=timer)
        )
        self._choose_course()

    @property
    def device(self) -> str:
        """Name of the device, for reports."""
        return str(self._device)

    @property
    def dtype(self) -> str:
        """Precision of the networks, for reports."""
        return str(self._dtype).removeprefix("torch.")

    @property
    def steps(self) -> int:
        """Network calls for a tile, by the options or the model's card."""
        return self._model.steps_of(self.options.steps)

    @property
    def texture(self) -> float | None:
        """What the model is asked for, 0…1, for reports; None of one without a dial."""
        return self._model.texture_of(self.options.texture) if self._model.dial else None

    @property
    def model(self) -> Model:
        """What is walked with."""
        return self._model

    def using(self, **changes: Any) -> "Upscaler":
        """The same networks with other options.

        Raises UsageError for another `method`, `model`, `prior` or `preprocess`, which need other
        networks, and where the options make no sense.
        """
        for name in NETWORKS:
            if changes.get(name, own := getattr(self.options, name)) != own:
                raise UsageError(
                    f"{name} {changes[name]!r} needs other networks than {own!r}: make another "
                    "Upscaler for it."
                )
        other = copy.copy(self)
        other.options = replace(self.options, **changes)
        other._choose_course()
        return other

    def along(self, course: Course) -> "Upscaler":
        """The same networks on another course, whatever the options say of t1, steps and solver."""
        other = copy.copy(self)
        other._course = course
        return other

    def _choose_course(self) -> None:
        check_texture(self.options, self._model)
        self._model = self._model.textured(self.options.texture)
        self._course: Course | None = None  # each picture's own
        if self.options.automatic:
            self._calibration = calibration(self.options, self._model)
        else:
            t1 = self._model.t1 if self.options.t1 is None else int(self.options.t1)
            self._course = course(self.options, self._model, t1)

    def compile(self) -> None:
        """Let torch.compile make the networks faster, which takes minutes at their first call."""
        compile_all(self._model.networks)

    def share(self, width: int, height: int) -> Fraction:
        """Of a batch, that an LR picture of this size is: in each step so many network calls."""
        return self._cells.share(width, height)

    def __call__(
        self,
        picture: AnyPicture,
        *,
        on_step: Callable[[int, int], None] = ignore,
        on_note: Callable[[str], None] = ignore,
    ) -> AnyPicture:
        """A picture enlarged to `options.size`, as what it came as.

        picture: what `load` gives, with its alpha, depth and metadata; a Pillow image; a NumPy
        array as `as_picture` takes it; or a tensor of colours, (3, H, W), floats in [0, 1] or
        uint8, which becomes float32 in [0, 1] on the CPU.
        on_step(done, total) counts network calls, and ends the work by what it raises;
        on_note(text): what its user should know.

        Raises:
            UsageError: an array, image or tensor of no use.
            DeviceError: memory does not suffice.
        """
        if isinstance(picture, Tensor):
            return self._enlarged(usable(picture), on_step, on_note)
        found = as_picture(picture)
        for note in found.notes:
            on_note(note)
        return alike(recolored(found, self._enlarged(colors(found), on_step, on_note)), picture)

    def files(
        self,
        inputs: str | Path | Sequence[str | Path],
        output: str | Path,
        *,
        files: OutputOptions | None = None,
        recursive: bool = False,
    ) -> Generator[Event, None, None]:
        """Files, folders or glob patterns into a folder (or one file into one), as `srx upscale`.

        Gives its events: Started, Stepped, and one Finished, Failed or Skipped for each file. What
        fails does not stop the rest, nothing that exists is replaced unless `files.overwrite`, and
        a call that was interrupted goes on when it is made again. Closing the iterator ends it.

        Raises:
            UsageError: no input exists, or two would become one file.
            InputError: the output cannot be written, or another run works there.
        """
        from sr_cli.engine.runs import events

        named = [inputs] if isinstance(inputs, str | Path) else inputs
        return events(
            [Path(name) for name in named],
            Path(output),
            self.options,
            self,
            files=files or OutputOptions(),
            recursive=recursive,
        )

    def _enlarged(
        self,
        lr: Tensor,
        on_step: Callable[[int, int], None],
        on_note: Callable[[str], None],
        form: Form = FLOATS,
    ) -> Tensor:
        step, note = (lambda _, *told: on_step(*told)), (lambda _, text: on_note(text))
        return self.together([lr], forms=[form], on_step=step, on_note=note)[0]

    @torch.inference_mode()
    def together(
        self,
        lrs: Sequence[Tensor],
        *,
        sources: Sequence[Tensor] | None = None,
        forms: Sequence[Form] | None = None,
        on_step: OnTile = ignore,
        on_note: OnNote = ignore,
    ) -> list[Tensor]:
        """What the colours of each picture, (3, H, W), give alone; tiles of several go together.

        Where networks overflow in a lower precision the picture is repeated in float32; DeviceError
        if that does not help. sources: what `self.sources(lrs)` gave. forms: of the results, else
        float32 in [0, 1]. on_step and on_note as for one picture, with its index before.
        """
        sources = sources or self.sources(lrs, on_step if self.options.alone else ignore)
        forms = forms or [FLOATS] * len(lrs)
        if self.options.best_of > 1:
            return best_of(self, lrs, sources, forms, on_step, on_note)
        if self._course is None:
            return self._from_calibrated_starts(lrs, sources, forms, on_step, on_note)
        again = partial(self._repeated, lrs, forms, on_step, on_note)
        results = finished(
            finish_of(self.options, self._model, self._device, self._timer),
            self._walked(self._course, lrs, sources, on_step, on_note),
            lrs,
            sources,
            forms=forms,
            on_note=on_note,
            repeated=None if self._dtype == torch.float32 else again,
        )
        return to_host(results)

    def _walked(
        self,
        course: Course,
        lrs: Sequence[Tensor],
        sources: Sequence[Tensor],
        on_step: OnTile,
        on_note: OnNote,
    ) -> list[Tensor]:
        """The decoded images, whose sides may be larger; all else that was needed is freed."""
        noises = [self._noise(lr) for lr in lrs]
        tiler = self._cells.tiler([(lr.shape[-1], lr.shape[-2]) for lr in lrs], on_note)
        codec = TiledCodec(self._model, tiler, self._timer)
        walk = Walk(self._model.denoiser, course, tiler=tiler, timer=self._timer)
        states = walk(codec.encode([*map(self._cells.padded, sources)], noises), noises, on_step)
        return codec.decode(states)

    def _repeated(
        self, lrs: Sequence[Tensor], forms: Sequence[Form], on_step: OnTile, on_note: OnNote, i: int
    ) -> Tensor:
        """The i-th result by networks in float32."""
        on_note(i, f"{self.dtype} overflowed: repeated in float32")
        return self._exact()._enlarged(lrs[i], partial(on_step, i), partial(on_note, i), forms[i])

    def _exact(self) -> "Upscaler":
        """The same in float32, on the same course."""
        exact = self._in_float32().using(**vars(self.options))
        exact._course = self._course
        return exact

    def _from_calibrated_starts(
        self,
        lrs: Sequence[Tensor],
        sources: Sequence[Tensor],
        forms: Sequence[Form],
        on_step: OnTile,
        on_note: OnNote,
    ) -> list[Tensor]:
        """As `together`, the pictures of one t1, by the calibration and their scales, together."""
        groups: dict[int, list[int]] = {}
        for i, (lr, source) in enumerate(zip(lrs, sources, strict=True)):
            sizes = (lr.shape[-1], lr.shape[-2]), (source.shape[-1], source.shape[-2])
            groups.setdefault(self._start(sizes, partial(on_note, i)), []).append(i)
        results: dict[int, Tensor] = {}
        for t1, group in groups.items():
            images = self.using(t1=t1).together(
                [lrs[i] for i in group],
                sources=[sources[i] for i in group],
                forms=[forms[i] for i in group],
                on_step=partial(of_group, on_step, group),
                on_note=partial(of_group, on_note, group),
            )
            results |= dict(zip(group, images, strict=True))
        return [results[i] for i in range(len(lrs))]

    def _start(self, sizes: Sizes, on_note: Callable[[str], None]) -> int:
        return calibrated_start(self._calibration, self.options, self._model, sizes, on_note)

    def parts(self, sizes: Sizes, on_note: Callable[[str], None], exact: bool = False) -> Parts:
        """What a picture of these sizes is enlarged with piece by piece; exact: in float32."""
        engine = self if self._course else self.using(t1=self._start(sizes, on_note))
        engine = engine._exact() if exact else engine
        assert engine._course is not None
        networks = engine._model, engine._preprocess, engine._course
        return Parts(*networks, engine.options, engine._device, engine._dtype, engine._timer)

    def sources(self, lrs: Sequence[Tensor], on_tile: OnTile = ignore) -> list[Tensor]:
        """The plain enlargement of each picture: (1, 3, H', W') in [0, 1], on the device if it has
        room for all that is made of it. on_tile is told of the preprocessor's tiles."""
        options, sizes = self.options, [(lr.shape[-1], lr.shape[-2]) for lr in lrs]
        with self._timer("preprocess"):
            return enlargements(
                self._preprocess,
                lrs,
                [options.size.of(*size) for size in sizes],
                device=self._device,
                batch=self._cells.batch(sizes),
                core=PREPROCESS_TILE if options.tile is None else options.tile,
                on_tile=on_tile,
            )

    def _preprocessor(self) -> Preprocessor:
        chosen = self.options.preprocess or self._model.preprocess
        if isinstance(chosen, str):
            return load_preprocessor(chosen, self._device, self._dtype)
        return chosen

    @property
    def _cells(self) -> Cells:
        return Cells(self._model, self.options, self._device)

    def _noise(self, lr: Tensor) -> Noise:
        return Noise.of(lr, self.options.seed, self._model.channels, self._device)
