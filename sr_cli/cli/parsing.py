"""From the words of a command line to values: lists, and the options of `srx upscale`."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import fields
from typing import Any, Literal, TypeVar

import typer

from sr_cli.engine.options import AUTO, Method, OutputOptions, UpscaleOptions
from sr_cli.engine.size import Exact, LongSide, ShortSide, Size
from sr_cli.errors import UsageError

CHOSEN = ("COMMANDLINE", "ENVIRONMENT", "DEFAULT_MAP")
"""Where values come from that somebody chose, the strongest first."""
OPTIONS_OF: dict[Method, tuple[str, ...]] = {
    "dossr": ("model", "order", "variant", "last_step", "texture"),
    "diffsr": ("prior", "sampler"),
}

Value = TypeVar("Value")


def _exact(text: str) -> Exact:
    match = re.fullmatch(r"(\d{1,9})[xX](\d{1,9})", text)
    if match is None:
        raise UsageError(f"size must be WIDTHxHEIGHT like 1920x1080, not {text!r}.")
    return Exact(int(match[1]), int(match[2]))


SIZES: dict[str, Callable[[Any], float | Size]] = {
    "scale": float,
    "size": _exact,
    "long_side": LongSide,
    "short_side": ShortSide,
}
"""Options that decide the size, and what makes one of each."""


def parse_list(
    name: str,
    text: str,
    kind: Callable[[str], Value],
    *,
    example: str,
    repeats: bool = False,
) -> tuple[Value, ...]:
    """The parts of a comma-separated list in their order, each once unless `repeats`.

    name: of the option, such as --steps. kind: makes a value of a part, or raises ValueError.

    Raises:
        UsageError: a part is empty or is refused by `kind`; `example` shows how the list looks.
    """
    parts = [part.strip() for part in text.split(",")]
    if not all(parts):
        raise UsageError(f"{name} {text!r} lacks a value: write it like {example}.")
    try:
        values = [kind(part) for part in parts]
    except ValueError as error:
        raise UsageError(f"{name} must be a list like {example}, not {text!r}.") from error
    return tuple(values if repeats else dict.fromkeys(values))


def is_chosen(ctx: typer.Context, name: str) -> bool:
    """Whether somebody chose this parameter's value, wherever."""
    source = ctx.get_parameter_source(name)
    return source is not None and source.name in CHOSEN


def check_method(ctx: typer.Context) -> None:
    """Raise UsageError where the command line has options of the method that is not chosen.

    In srx.toml and in variables they wait for their method.
    """
    for method, names in OPTIONS_OF.items():
        for name in names if method != ctx.params["method"] else ():
            source = ctx.get_parameter_source(name)
            if source is not None and source.name == "COMMANDLINE":
                flag = f"--{name.replace('_', '-')}"
                raise UsageError(f"{flag} belongs to --method {method}: add that, or leave it out.")


def output_options(ctx: typer.Context) -> OutputOptions:
    """How a parsed command line of `srx upscale` reads and writes files."""
    return OutputOptions(**{field.name: ctx.params[field.name] for field in fields(OutputOptions)})


def upscale_options(ctx: typer.Context) -> UpscaleOptions:
    """What a parsed command line of `srx upscale` asks for. Raises UsageError."""
    check_method(ctx)
    values = {field.name: ctx.params[field.name] for field in fields(UpscaleOptions)}
    values["scale"] = _size(ctx)
    if values["method"] != "dossr":
        values["texture"] = None  # the engine refuses one that means nothing
    return UpscaleOptions(**values | {"t1": _start(values["t1"])})


def _start(t1: str | None) -> int | Literal["auto"] | None:
    if t1 is None:
        return None
    if t1 == AUTO:
        return AUTO
    if not t1.isdecimal():
        raise UsageError(f"t1 must be a whole number or auto, not {t1!r}.")
    return int(t1)


def _size(ctx: typer.Context) -> float | Size:
    """Of the options that decide the size, those of the strongest source, so that --size on the
    command line needs no fight with a scale in srx.toml."""
    sources = {name: ctx.get_parameter_source(name) for name in SIZES}
    ranks = {name: source.name for name, source in sources.items() if source is not None}
    strongest = next((rank for rank in CHOSEN if rank in ranks.values()), None)
    chosen = [name for name in SIZES if ranks[name] == strongest and ctx.params[name] is not None]
    if len(chosen) > 1:
        flags = " and ".join(f"--{name.replace('_', '-')}" for name in chosen)
        raise UsageError(f"Only one of {flags} can decide the size.")
    if not chosen:
        return UpscaleOptions.scale
    (name,) = chosen
    return SIZES[name](ctx.params[name])
