"""Pictures, tensor to tensor: preprocess, resize, encode, walk, decode, fix colours, guard."""

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache, partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from sr_cli.device import compile_all, home, resolve_device, resolve_dtype, to_host
from sr_cli.diffusion.noise import digest
from sr_cli.engine.arrays import finite, levels
from sr_cli.engine.color import WAVELET_MARGIN, color_fix
from sr_cli.engine.guard import guarded
from sr_cli.engine.options import UpscaleOptions
from sr_cli.engine.sampling import TiledCodec, Walk
from sr_cli.engine.states import Noise
from sr_cli.engine.steps import Course, calibration, check_texture, conditions, course, scale_of
from sr_cli.engine.tiling import MEMORY_SHARE, OnTile, Tiler, ignore
from sr_cli.engine.timing import Timer, untimed
from sr_cli.errors import DeviceError, enough_memory
from sr_cli.models.loading import DIFFUSION, load_model, load_prior
from sr_cli.models.model import Model
from sr_cli.models.preprocess import load_preprocessor
from sr_cli.models.protocol import Preprocessor
from sr_cli.models.resampling import resize

PREPROCESS_TILE = 512
"""LR pixels: keeps a large network's memory within a few GiB."""

COLOR_TILE = 512
"""Output pixels: what the wavelet fix works on stays in a processor's cache, or fits any GPU."""

WORTH_A_NOTE = 0.01
"""Share of a picture on which the guard doubted the network."""

BYTES_PER_PIXEL = 12 * 6
"""Of output: float32 pictures that are held at a time, preprocessed, enlarged, decoded, fixed."""

OnNote = Callable[[int, str], None]
"""(picture, what its user should know)."""


class Upscaler:
    """The engine for one set of options; call it with one picture after another, or with several.

    Results depend on the picture and the options alone, not on what else is enlarged. Batches and
    threads, and tiles where the model's are exact, change the order in which networks add up: by
    that, results of pixel-space models differ by at most one 8-bit level, and those of latent ones
    in bfloat16 by more. timer: a hook around each part of the work.

    Raises:
        ModelError: weights are missing or damaged.
        UsageError: the steps do not fit the model's t1, an automatic t1 has no calibration, or the
            model has no dial for a texture.
        DeviceError: the device is missing, or its memory does not suffice for the smallest tile.
    """

    def __init__(
        self,
        options: UpscaleOptions,
        *,
        device: str = "auto",
        dtype: str = "auto",
        timer: Timer = untimed,
    ) -> None:
        self.options = options
        self._device = resolve_device(device)
        self._dtype = resolve_dtype(dtype, self._device)
        self._timer = timer
        with enough_memory("the networks"):
            if options.method == "diffsr":
                self._model = load_prior(options.prior, self._device, self._dtype)
            else:
                self._model = load_model(options.model, self._device, self._dtype, DIFFUSION)
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
        """The same networks with other options than `method`, `model`, `prior`, `preprocess`."""
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

    def tiles(self, width: int, height: int) -> int:
        """Tiles of an LR picture of this size: its network calls in each step."""
        wide, high = self.options.size.of(width, height)
        rows, cols = (-(-side // self._unit) * self._model.multiple_of for side in (high, wide))
        return self._tiler([(width, height)], ignore).count(0, rows, cols)

    def __call__(
        self,
        lr: Tensor,
        *,
        on_step: Callable[[int, int], None] = ignore,
        on_note: Callable[[str], None] = ignore,
    ) -> Tensor:
        """LR (3, H, W) → (3, H', W'), float32 in [0, 1] on the CPU; H', W' by options.target.

        lr: float32 in [0, 1], or uint8, which says the same in a quarter of the bytes.
        on_step(done, total) counts the network's calls; on_note(text): what its user should know.
        """
        return self.together(
            [lr],
            on_step=lambda _, done, total: on_step(done, total),
            on_note=lambda _, text: on_note(text),
        )[0]

    @torch.inference_mode()
    def together(
        self,
        lrs: Sequence[Tensor],
        *,
        sources: Sequence[Tensor] | None = None,
        on_step: OnTile = ignore,
        on_note: OnNote = ignore,
    ) -> list[Tensor]:
        """What each picture gives alone, `options.batch` tiles at a time whosever they are.

        A picture whose networks overflow in a lower precision is repeated in float32; DeviceError
        when that does not help. on_step and on_note as for one picture, with its index before.
        sources: what `self.sources(lrs)` gave.
        """
        sources = self.sources(lrs) if sources is None else sources
        if self._course is None:
            return self._from_calibrated_starts(lrs, sources, on_step, on_note)
        images = self._walked(self._course, lrs, sources, on_step, on_note)
        results = []
        for i, (lr, source) in enumerate(zip(lrs, sources, strict=True)):
            image = images.pop(0)[..., : source.shape[-2], : source.shape[-1]]
            if self._dtype != torch.float32 and overflowed(image, source):
                step, note = partial(on_step, i), partial(on_note, i)
                results.append(self._repeated(lr, step, note))
            else:
                results.append(self._finished(image, source, lr, partial(on_note, i)))
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
        tiler = self._tiler([(lr.shape[-1], lr.shape[-2]) for lr in lrs], on_note)
        codec = TiledCodec(self._model, tiler, self._timer)
        walk = Walk(self._model.denoiser, course, tiler=tiler, timer=self._timer)
        coded = codec.encode([self._padded(source) for source in sources], noises)
        states = walk(coded, noises, on_step)
        del coded
        return codec.decode(states)

    def _repeated(
        self,
        lr: Tensor,
        on_step: Callable[[int, int], None],
        on_note: Callable[[str], None],
    ) -> Tensor:
        on_note(f"{self.dtype} overflowed: repeated in float32")
        exact = self._in_float32().using(**vars(self.options))
        exact._course = self._course
        return exact.together(
            [lr],
            on_step=lambda _, done, total: on_step(done, total),
            on_note=lambda _, text: on_note(text),
        )[0]

    def _from_calibrated_starts(
        self,
        lrs: Sequence[Tensor],
        sources: Sequence[Tensor],
        on_step: OnTile,
        on_note: OnNote,
    ) -> list[Tensor]:
        """As `together`, the pictures of one t1 together."""
        groups: dict[int, list[int]] = {}
        run = conditions(self.options, self._model)
        for i, (lr, source) in enumerate(zip(lrs, sources, strict=True)):
            size, target = (lr.shape[-1], lr.shape[-2]), (source.shape[-1], source.shape[-2])
            scale = scale_of(self.options, size, target)
            t1 = self._calibration.start(scale)
            groups.setdefault(t1, []).append(i)
            on_note(i, f"t1 = {t1}" if t1 else "t1 = 0: the enlargement as it is, no diffusion")
            if doubt := self._calibration.doubt(scale, run):
                on_note(i, doubt)
        results: dict[int, Tensor] = {}
        for t1, group in groups.items():

            def step(k: int, done: int, total: int, group: list[int] = group) -> None:
                on_step(group[k], done, total)

            def note(k: int, text: str, group: list[int] = group) -> None:
                on_note(group[k], text)

            images = self.using(t1=t1).together(
                [lrs[i] for i in group],
                sources=[sources[i] for i in group],
                on_step=step,
                on_note=note,
            )
            results |= dict(zip(group, images, strict=True))
        return [results[i] for i in range(len(lrs))]

    def _finished(
        self, image: Tensor, source: Tensor, lr: Tensor, on_note: Callable[[str], None]
    ) -> Tensor:
        if not finite(image):
            raise DeviceError(
                f"The networks gave no picture, even with --dtype float32 on {self.device}: "
                "their weights may be damaged; try another --t1 or --steps."
            )
        with self._timer("colour"):
            image = self._recoloured(image, source)
        with self._timer("guard"):
            result, strayed = guarded(
                image, source, levels(lr.to(source.device))[None], self._device
            )
        if strayed >= WORTH_A_NOTE:
            on_note(
                f"the network strayed on {strayed:.0%} of the picture: "
                "the plain enlargement is shown there"
            )
        return result[0]

    def _recoloured(self, image: Tensor, source: Tensor) -> Tensor:
        """By the colour fix, in tiles where it is one of tiles (AdaIN is not); float32.

        May be `image` itself.
        """
        fix = partial(color_fix, self.options.color)
        if self.options.color != "wavelet":
            return fix(image, source)
        fixed = torch.empty_like(image)
        tiler = Tiler(self._device, 1, [COLOR_TILE], WAVELET_MARGIN)
        tiler.fill(fix, lambda _, w: (image[(..., *w)], source[(..., *w)]), [fixed])
        return fixed

    def sources(self, lrs: Sequence[Tensor]) -> list[Tensor]:
        """Each picture preprocessed, at its final size: (1, 3, H', W') in [0, 1], on the device if
        it has room for all that is made of it."""
        sizes = [self.options.size.of(lr.shape[-1], lr.shape[-2]) for lr in lrs]
        nbytes = sum(BYTES_PER_PIXEL * width * height for width, height in sizes)
        place = home(self._device, nbytes, MEMORY_SHARE)
        lrs = [levels(lr.to(place)) for lr in lrs]
        core = PREPROCESS_TILE if self.options.tile is None else self.options.tile
        with self._timer("preprocess"):
            larger_ones = preprocessed(
                self._preprocess, lrs, device=self._device, batch=self.options.batch, core=core
            )
            return [
                resize(larger, (height, width)).clamp_(0, 1)
                for larger, (width, height) in zip(larger_ones, sizes, strict=True)
            ]

    def _preprocessor(self) -> Preprocessor:
        chosen = self.options.preprocess or self._model.preprocess
        if isinstance(chosen, str):
            return load_preprocessor(chosen, self._device, self._dtype)
        return chosen

    def _tiler(self, sizes: Sequence[tuple[int, int]], on_note: OnNote) -> Tiler:
        """For the states of LR pictures of these sizes (width, height)."""
        model, options = self._model, self.options
        margin = model.margin if options.overlap is None else options.overlap
        return Tiler(
            self._device,
            options.batch,
            [self._core(*size) for size in sizes],
            margin=-(-margin // model.cell),
            multiple=model.multiple_of,
            tiling=model.tiling,
            cell=model.cell,
            bytes_per_cell=model.bytes_per_pixel * model.cell**2,
            on_note=on_note,
        )

    def _core(self, width: int, height: int) -> int | None:
        """A tile's cells, from LR pixels where the user chose them; 0: all, None: by memory."""
        tile, cell = self.options.tile, self._model.cell
        if tile is None:
            return self._model.tile and self._model.tile // cell
        wide, high = self.options.size.of(width, height)
        return tile and max(1, round(tile * max(wide / width, high / height) / cell))

    @property
    def _unit(self) -> int:
        """Output pixels of which an image's sides are multiples before it is encoded."""
        return self._model.cell * self._model.multiple_of

    def _padded(self, image: Tensor) -> Tensor:
        """Replicated at the right and the bottom up to multiples of what the model takes."""
        bottom, right = (-side % self._unit for side in image.shape[-2:])
        return F.pad(image, (0, right, 0, bottom), mode="replicate")

    def _noise(self, lr: Tensor) -> Noise:
        """Noise of the picture's own, which it is known by at 8 bits."""
        bits = lr if lr.dtype == torch.uint8 else (lr * 255).round().to(torch.uint8)
        picture = digest(bits.cpu().numpy())
        return Noise(self.options.seed, picture, self._model.channels, self._device)


def preprocessed(
    network: Preprocessor,
    lrs: Sequence[Tensor],
    *,
    device: torch.device,
    batch: int = 1,
    core: int = PREPROCESS_TILE,
) -> list[Tensor]:
    """LR (3, h, w) → (1, 3, scale·h, scale·w) in [0, 1] beside it, in tiles of `core` pixels."""
    scale = network.scale
    tiler = Tiler(device, batch, [core] * len(lrs), network.margin)
    images = [lr.new_empty(1, 3, *(scale * side for side in lr.shape[-2:])) for lr in lrs]
    tiler.fill(network, lambda i, w: (lrs[i][(None, ..., *w)],), images, scale=scale)
    return images


def overflowed(image: Tensor, source: Tensor) -> bool:
    """Whether an image is no image, or black although its source is not."""
    largest = float(image.max()) if finite(image) else math.nan
    return math.isnan(largest) or (largest <= 0 and bool(source.max() > 0))
