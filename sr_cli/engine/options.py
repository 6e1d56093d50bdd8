"""What an upscaling is asked to do: frozen, checked at construction, free of heavy imports."""

from __future__ import annotations

import os
import re
import string
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from sr_cli.diffusion.names import LastStep, SamplerName, Schedule, Variant
from sr_cli.engine.size import Scale, Side, Size
from sr_cli.errors import UsageError
from sr_cli.models.kinds import is_alone

Color = Literal["wavelet", "adain", "none"]
Method = Literal["dossr", "diffsr"]
Degradation = Literal["bicubic", "mild", "realesrgan"]
Strip = Literal["all", "gps"]
Format = Literal["png", "jpeg", "jpg", "webp", "tiff", "tif", "avif", "same"]
AUTO: Literal["auto"] = "auto"
AT_ONCE = 16
"""Tiles of a batch by `auto`, at most: on an H100 64 took no less for each."""
FIELD_PATTERNS = {
    "stem": ".+",
    "ext": "[^.]*",
    "scale": r"\d+(?:\.\d+)?",
    "width": r"\d+",
    "height": r"\d+",
    "steps": r"\d+",
    "seed": r"\d+",
    "model": r"[a-z][\w.-]*",
}
"""Fields of name templates, and patterns of their values."""
NAME_FIELDS = tuple(FIELD_PATTERNS)
NAME_BYTES = 255
"""What a file system takes as the name of one file."""


def _require(condition: bool, sentence: str) -> None:
    if not condition:
        raise UsageError(sentence)


def _one_of(name: str, value: str, choices: tuple[str, ...]) -> None:
    _require(value in choices, f"{name} must be one of {', '.join(choices)}, not {value!r}.")


DIFFUSION_ONLY = (
    *("steps", "order", "variant", "last_step", "texture", "t1", "best_of", "schedule"),
    *("degradation", "preprocess", "overlap"),
)
"""Options that a network alone has no use for."""
NETWORKS = ("method", "model", "prior", "preprocess")
"""Options that choose what is loaded."""
MOST_DRAWS = 64
"""Seeds of one picture, all of whose results are in memory at a time."""


@dataclass(frozen=True)
class UpscaleOptions:
    """How one picture becomes a larger one.

    `scale` is a factor above 0, at most 32, or an `Exact` or a `Side`, which count output pixels.
    `tile` and `overlap`: None chooses by the free memory
    and by the model's card, `tile` 0 is the whole picture; `tile` counts LR pixels, `overlap`
    output pixels. `batch`: tiles at a time, "auto" as many as pay on the device. `model` and
    `preprocess` name entries of the registry, `preprocess` also a checkpoint; `preprocess`,
    `schedule`, `steps`, `last_step`, `texture` and `t1` are the model's own where they are None.
    `texture` runs from 0, the smooth, faithful answer, to 1, the crispest; only models with a dial
    take one. `t1` "auto" is what `srx prf-search` found best for the picture's scale and the
    assumed `degradation`.

    `method` "dossr" walks with `model` by `order` and `variant`, and ends with `last_step`: on the
    network's x0, on the mean of the solver's step, or on the step with its noise. "diffsr" walks
    with `prior` (a name, a folder or a hub id) by `sampler`. Its t1 is "auto" if it is None, 0
    leaves the enlargement as it is, and it takes at most t1 steps.

    `model` may also be a network alone, a checkpoint's path or one of `models.kinds.NAMED`: its
    output is resized to `size`, without diffusion, guard or, unless asked for, colour fix, and what
    is in DIFFUSION_ONLY must be left as it is. `color` None is "wavelet", and "none" there.

    Of `best_of` seeds from `seed` on the one is kept that `engine.choice` says.

    Raises:
        UsageError: a value that makes no sense.
    """

    scale: float | Size = 4.0
    steps: int | None = None
    order: int = 3
    variant: Variant = "paper"
    last_step: LastStep | None = None
    texture: float | None = None
    t1: int | Literal["auto"] | None = None
    preprocess: str | None = None
    color: Color | None = None
    seed: int = 0
    best_of: int = 1
    tile: int | None = None
    overlap: int | None = None
    batch: int | Literal["auto"] = AUTO
    model: str = "embedded"
    method: Method = "dossr"
    prior: str = "prior"
    sampler: SamplerName = "ddim"
    schedule: Schedule | None = None
    degradation: Degradation = "bicubic"

    def __post_init__(self) -> None:
        self._check_kinds()
        _ = self.size  # which checks itself
        self._check_sampling()
        self._check_machine()
        for name in DIFFUSION_ONLY if self.alone else ():
            usual = getattr(self, name) == getattr(UpscaleOptions, name)
            _require(usual, f"{name} is for diffusion; {self.model} is a network alone.")

    @property
    def alone(self) -> bool:
        """Whether a regression network enlarges by itself, without diffusion."""
        return self.method == "dossr" and is_alone(self.model)

    @property
    def color_fix(self) -> Color:
        """What is done to the colours."""
        return self.color or ("none" if self.alone else "wavelet")

    @property
    def model_name(self) -> str:
        """Of what enlarges, for names of files: as FIELD_PATTERNS says, without folders."""
        if self.method == "diffsr":
            return Path(self.prior).absolute().name
        if not self.alone:
            return self.model
        stem = re.sub(r"[^\w.-]+", "-", Path(self.model).stem)
        return stem if re.match("[A-Za-z]", stem) else f"model-{stem}"

    @property
    def recorded(self) -> dict[str, Any]:
        """For reports and manifests."""
        found = asdict(self) | {"color": self.color_fix}
        return found | ({"scale": self.scale.recorded} if isinstance(self.scale, Side) else {})

    @property
    def size(self) -> Size:
        """What decides the size of a result: `size.of(width, height)`."""
        return Scale(self.scale) if isinstance(self.scale, int | float) else self.scale

    def _check_kinds(self) -> None:
        """Numbers have other kinds than type hints say where they come out of a file or a form."""
        sentence = f"scale must be an int, a float or a Size, not {self.scale!r}."
        _require(isinstance(self.scale, int | float | Size), sentence)
        for name in ("steps", "order", "seed", "best_of", "tile", "overlap", "t1", "batch"):
            value = getattr(self, name)
            usual = value == getattr(UpscaleOptions, name) or (name == "t1" and value == AUTO)
            sentence = f"{name} must be a whole number, not {value!r}."
            _require(usual or isinstance(value, int), sentence)
        sentence = f"texture must be a number, not {self.texture!r}."
        _require(self.texture is None or isinstance(self.texture, int | float), sentence)

    def _check_sampling(self) -> None:
        self._check_start()
        sentence = f"steps must lie between 1 and 1000, not {self.steps}."
        _require(self.steps is None or 1 <= self.steps <= 1000, sentence)
        _require(1 <= self.order <= 3, f"order must be 1, 2 or 3, not {self.order}.")
        _require(0 <= self.seed < 2**64, f"seed must lie between 0 and 2^64 - 1, not {self.seed}.")
        sentence = f"best_of must lie between 1 and {MOST_DRAWS}, not {self.best_of}."
        _require(1 <= self.best_of <= MOST_DRAWS, sentence)
        _one_of("variant", self.variant, get_args(Variant))
        if self.last_step is not None:
            _one_of("last step", self.last_step, get_args(LastStep))
        if self.texture is not None:
            sentence = f"texture must lie between 0 and 1, not {self.texture:g}."
            _require(0 <= self.texture <= 1, sentence)
        _one_of("color", self.color_fix, get_args(Color))
        _one_of("method", self.method, get_args(Method))
        _one_of("sampler", self.sampler, get_args(SamplerName))
        _one_of("degradation", self.degradation, get_args(Degradation))
        if self.schedule is not None:
            _one_of("schedule", self.schedule, get_args(Schedule))

    def _check_start(self) -> None:
        if self.t1 is None or self.t1 == AUTO:
            return
        if self.method == "diffsr":
            _require(0 <= self.t1 < 1000, f"t1 must lie between 0 and 999, not {self.t1}.")
            return
        _require(10 <= self.t1 <= 1000, f"t1 must lie between 10 and 1000, not {self.t1}.")
        sentence = f"steps must be below t1, but {self.steps} steps do not fit into t1 = {self.t1}."
        _require(self.steps is None or self.steps <= self.t1 - 1, sentence)

    @property
    def automatic(self) -> bool:
        """Whether each picture's t1 comes from a calibration."""
        return self.t1 == AUTO or (self.method == "diffsr" and self.t1 is None)

    def _check_machine(self) -> None:
        sentence = f"tile must be 0 (whole picture) or at least 16, not {self.tile}."
        _require(self.tile in (None, 0) or (self.tile or 0) >= 16, sentence)
        sentence = f"overlap must not be negative, but it is {self.overlap}."
        _require(self.overlap is None or self.overlap >= 0, sentence)
        sentence = f"batch must be auto or at least 1, not {self.batch}."
        _require(self.batch == AUTO or (isinstance(self.batch, int) and self.batch >= 1), sentence)
        _require(bool(self.model), "model must not be empty.")
        _require(bool(self.prior), "prior must not be empty.")
        _require(self.preprocess != "", "preprocess must not be empty.")


@dataclass(frozen=True)
class OutputOptions:
    """How pictures are read and results are written.

    `format` None: by the suffix of an output file, else PNG; "same": the input's, or PNG where that
    cannot be written. `quality` (1-100) counts for lossy formats. `name` is a template with the
    fields of NAME_FIELDS, to which the format's suffix is added. What exists is kept unless
    `overwrite`: results of the same input and options as done, with `trust_existing` anything.
    `only_enlarge` skips pictures that are large enough. `strip` leaves out all metadata or "gps";
    `tag` adds what was done; `keep_times` gives results the times of their inputs. Inputs of over
    `max_megapixels` by their headers are refused.

    Raises:
        UsageError: an unknown field, format, quality or size, or two answers to what exists.
    """

    format: Format | None = None
    quality: int = 95
    name: str = "{stem}"
    overwrite: bool = False
    trust_existing: bool = False
    only_enlarge: bool = False
    strip: Strip | None = None
    tag: bool = False
    keep_times: bool = False
    max_megapixels: float = 400

    @property
    def max_pixels(self) -> int:
        """Most pixels of an input."""
        return int(self.max_megapixels * 1e6)

    def __post_init__(self) -> None:
        limit = f"max-megapixels must be above 0 and at most 1e6, not {self.max_megapixels:g}."
        _require(0 < self.max_megapixels <= 1e6, limit)
        both = "overwrite and trust_existing say two things of what exists: choose one."
        _require(not (self.overwrite and self.trust_existing), both)
        if self.format is not None:
            _one_of("format", self.format, get_args(Format))
        if self.strip is not None:
            _one_of("strip", self.strip, get_args(Strip))
        _require(1 <= self.quality <= 100, f"quality must lie in 1..100, not {self.quality}.")
        try:
            parts = self._parts()
        except ValueError as error:
            raise UsageError(f"The name template {self.name!r} is malformed: {error}.") from error
        for _, field, spec, _ in parts:
            wide = re.search(r"\d{4}|{", spec or "")  # would fill memory
            _require(not wide, f"The name template {self.name!r} has a format wider than 999.")
            known = ", ".join(NAME_FIELDS)
            sentence = f"The name template has no field {field!r}; there are {known}."
            _require(field is None or field in NAME_FIELDS, sentence)
        fixed = "".join(text for text, *_ in parts)
        sentence = f"The name template {self.name!r} names a folder: use a plain name."
        _require(not set(fixed) & set("/\\"), sentence)
        literal = len(fixed.encode(errors="replace"))
        long = f"The name template has {literal} bytes beside its fields; a name has {NAME_BYTES}."
        _require(literal < NAME_BYTES, long)

    def _parts(self) -> list[tuple[str, str | None, str | None, str | None]]:
        """Of the name template: literal text, and field, format and conversion after it."""
        return list(string.Formatter().parse(self.name))

    @property
    def name_needs_steps(self) -> bool:
        """Whether a name says the steps."""
        return any(field == "steps" for _, field, _, _ in self._parts())

    @property
    def name_needs_size(self) -> bool:
        """Whether a name depends on the picture's size."""
        return any(field in ("scale", "width", "height") for _, field, _, _ in self._parts())

    def file_name(self, values: Mapping[str, str | int | float], suffix: str) -> str:
        """The file name for `values`, which hold every field that the template uses.

        Raises:
            UsageError: the result is no plain file name.
        """
        try:
            stem = self.name.format_map(values)
            name = stem if stem.lower().endswith(suffix) else stem + suffix
            os.fsencode(name)
        except (ValueError, KeyError, OverflowError) as error:
            raise UsageError(f"The name template {self.name!r} is malformed: {error}.") from error
        plain = name != suffix and not set(name) & {os.sep, os.altsep, "\0"}
        _require(plain, f"The name template {self.name!r} gives {name!r}, which names no file.")
        return name

    def origin(self, name: str, stem: str = "") -> tuple[str, ...]:
        """What the names of all results of one file share, whatever scale, steps, … made them.

        It is the name's suffix, stem and ext; the name itself where it is not of this template.
        stem: what stands in the name, where that is not what it says.
        """
        pattern = ""
        for literal, field, _, _ in self._parts():
            group = f"(?P<{field}>"
            repeated = group in pattern
            pattern += re.escape(literal)
            if field is not None:
                pattern += f"(?P={field})" if repeated else f"{group}{FIELD_PATTERNS[field]})"
        root, suffix = os.path.splitext(name)  # noqa: PTH122
        of_root = re.fullmatch(pattern, root, re.IGNORECASE)
        found = of_root or re.fullmatch(pattern, name, re.IGNORECASE)
        if not found:
            return (name,)
        values = found.groupdict() | ({"stem": stem} if stem else {})
        fields = [field for field in ("stem", "ext") if field in found.groupdict()]
        return suffix, *(values[field] for field in fields)
