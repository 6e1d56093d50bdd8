"""What a result is called: the fields of the template `--name`, for one input file."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from sr_cli.engine.formats import FORMATS, format_of
from sr_cli.engine.images import probe
from sr_cli.engine.options import OutputOptions, UpscaleOptions
from sr_cli.engine.size import Scale
from sr_cli.errors import InputError, UsageError

SAME = "same"
"""The format that is each input's own."""


def file_name(
    path: Path, options: UpscaleOptions, files: OutputOptions, *, twin: bool = False
) -> str:
    """The name, without a folder, of the result of an input file.

    The picture's header is read where the template needs its size; where that fails, sizes are 0.
    twin: another input has this one's stem, so that the whole name stands for it.

    Raises:
        UsageError: the template makes no name of this file.
        ModelError: the template needs the steps of a model that is not there.
    """
    values: dict[str, str | int | float] = {
        "stem": path.name if twin else path.stem,
        "ext": path.suffix[1:],
        "seed": options.seed,
        "model": options.model_name,
    }
    if files.name_needs_steps:
        values["steps"] = _steps(options)
    if files.name_needs_size:
        values |= _size_fields(path, options, files.max_pixels)
    chosen: str | None = "png" if files.format in (None, SAME) else files.format
    if files.format == SAME:
        with suppress(UsageError):  # a format that is read but not written
            chosen = format_of(path.suffix or "png")
    return files.file_name(values, FORMATS[format_of(chosen or "png")])


def _steps(options: UpscaleOptions) -> int:
    """The user's, or what the model's card says. Raises ModelError when there is no such card."""
    from sr_cli.models.limits import STEPS
    from sr_cli.models.registry import card

    if options.steps is not None:
        return options.steps
    if options.alone:
        return 0
    return STEPS if options.method == "diffsr" else card(options.model).limits.steps


def _size_fields(
    path: Path, options: UpscaleOptions, max_pixels: int
) -> dict[str, str | int | float]:
    try:
        width, height = probe(path, max_pixels=max_pixels)
    except InputError:  # without a size it gets no result either: loading it will say why
        return {"width": 0, "height": 0, "scale": 0}
    wide, high = options.size.of(width, height)
    size = options.size
    scale = round(size.factor if isinstance(size, Scale) else wide / width, 3)
    return {"width": wide, "height": high, "scale": int(scale) if scale == int(scale) else scale}
