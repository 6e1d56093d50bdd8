"""From the words of a command line to values: lists, and the options of `srx upscale`."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from functools import partial
from typing import Any, Final, Literal, TypeVar, get_args

import typer

from sr_cli.cli.presets import PRESETS
from sr_cli.engine.options import AUTO, DIFFUSION_ONLY, Method, OutputOptions, UpscaleOptions
from sr_cli.engine.size import Exact, Measure, Side, Size
from sr_cli.errors import UsageError
from sr_cli.models.kinds import is_alone

CHOSEN = ("COMMANDLINE", "ENVIRONMENT", "DEFAULT_MAP")
"""Where values come from that somebody chose, the strongest first."""
OPTIONS_OF: dict[Method, tuple[str, ...]] = {
    "dossr": ("model", "order", "variant", "last_step", "texture", "preset"),
    "diffsr": ("prior", "sampler"),
}
OPPOSITES: Final = {
    ("quiet", "verbose"): "contradict each other",
    ("overwrite", "trust_existing"): "say two things of what exists",
}
"""Flags of which one alone can hold."""

Value = TypeVar("Value")


def exact_size(name: str, text: str) -> Exact:
    """A size as it is written. Raises UsageError that names the option."""
    match = re.fullmatch(r"(\d{1,9})[xX](\d{1,9})", text)
    if match is None:
        raise UsageError(f"{name} must be WIDTHxHEIGHT like 1920x1080, not {text!r}.")
    return Exact(int(match[1]), int(match[2]))


SIZES: dict[str, Callable[[Any], float | Size]] = {
    "scale": float,
    "size": partial(exact_size, "--size"),
    **{measure: partial(Side, measure) for measure in get_args(Measure)},
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
    return _rank(ctx, name) < len(CHOSEN)


def _rank(ctx: typer.Context, name: str) -> int:
    """The place in CHOSEN of where a value is from; the last of all where nobody chose it."""
    source = ctx.get_parameter_source(name)
    return CHOSEN.index(source.name) if source and source.name in CHOSEN else len(CHOSEN)


def origin(ctx: Any, name: str) -> str | None:
    """The variable or the file that a parameter's value came from; None of the command line."""
    source = ctx.get_parameter_source(name)
    param = next(param for param in ctx.command.params if param.name == name)
    places = {"ENVIRONMENT": param.envvar, "DEFAULT_MAP": ctx.params.get("config")}
    place = places.get(source.name) if source else None
    return str(place) if place else None


@contextmanager
def naming_options(ctx: typer.Context) -> Iterator[None]:
    """Let a complaint about a value say the option as it is written, and where the value is from:
    "steps must …" becomes "--steps must … (from SRX_STEPS)."."""
    try:
        yield
    except UsageError as error:
        subject, must, rest = str(error).partition(" must ")
        name = re.sub(r"[ -]", "_", subject)
        if not must or name not in ctx.params:
            raise
        flag = f"--{name.replace('_', '-')}"
        place = origin(ctx, name)
        end = f" (from {place})." if place else "."
        raise UsageError(f"{flag} must {rest.removesuffix('.')}{end}") from error


def choose_flags(ctx: typer.Context) -> None:
    """Of two flags of OPPOSITES leave on the one that a stronger source sets.

    Raises UsageError where one source sets both.
    """
    for pair, reason in OPPOSITES.items():
        if all(ctx.params.get(name) for name in pair):
            ranks = {name: _rank(ctx, name) for name in pair}
            if len(set(ranks.values())) == 1:
                flags = " and ".join(f"--{name.replace('_', '-')}" for name in pair)
                raise UsageError(f"{flags} {reason}: choose one.")
            ctx.params[max(pair, key=ranks.__getitem__)] = False


def check_method(ctx: typer.Context) -> None:
    """Raise UsageError where the command line has options of the method that is not chosen.

    In srx.toml and in variables they wait for their method.
    """
    for method, names in OPTIONS_OF.items():
        if method != ctx.params["method"]:
            refuse(ctx, names, f"belongs to --method {method}: add that, or leave it out.")


def refuse(ctx: typer.Context, names: Iterable[str], reason: str) -> None:
    """Raise UsageError, with that reason, where one of these is on the command line."""
    for name in names:
        if _rank(ctx, name) == CHOSEN.index("COMMANDLINE"):
            raise UsageError(f"--{name.replace('_', '-')} {reason}")


def _without_diffusion(ctx: typer.Context) -> dict[str, Any]:
    """What the options of diffusion are where a network alone is the model: as nobody chose them.

    Raises UsageError where the command line has one; in srx.toml and in variables they wait for a
    model of theirs.
    """
    model = ctx.params["model"]
    if ctx.params["method"] != "dossr" or not is_alone(model):
        return {}
    reason = f"is for diffusion, and {model} is a network alone: leave it out, or choose another"
    refuse(ctx, (*DIFFUSION_ONLY, "preset"), f"{reason} --model.")
    return {name: getattr(UpscaleOptions, name) for name in DIFFUSION_ONLY}


def output_options(ctx: typer.Context) -> OutputOptions:
    """How a parsed command line of `srx upscale` reads and writes files."""
    with naming_options(ctx):
        names = [field.name for field in fields(OutputOptions)]
        return OutputOptions(**{name: ctx.params[name] for name in names})


def upscale_options(ctx: typer.Context) -> UpscaleOptions:
    """What a parsed command line of `srx upscale` asks for. Raises UsageError."""
    check_method(ctx)
    values = {field.name: ctx.params[field.name] for field in fields(UpscaleOptions)}
    with naming_options(ctx):
        values |= _preset(ctx) | _without_diffusion(ctx) | {"scale": _size(ctx)}
        for name in ("t1", "batch"):
            values[name] = _whole_or_auto(name, values[name])
        if values["method"] != "dossr":
            values["texture"] = None  # the engine refuses one that means nothing
        options = UpscaleOptions(**values)
    _check_use(ctx, options)
    return options


def _check_use(ctx: typer.Context, options: UpscaleOptions) -> None:
    """Raise UsageError where the command line has an option that means nothing beside others."""
    if not options.automatic:
        reason = "is what --t1 auto takes the input for: add that, or leave it out."
        refuse(ctx, ("degradation",), reason)
    if options.tile == 0:
        refuse(ctx, ("overlap",), "is the margin of tiles, and --tile 0 makes none: leave one out.")
    if ctx.params["cluster"]:
        refuse(ctx, ("jobs",), "is of one machine, and --cluster has many: leave one out.")


def _preset(ctx: typer.Context) -> dict[str, Any]:
    """The options of --preset, but for those that a source as strong as the preset's sets."""
    preset = ctx.params["preset"]
    if preset is None or ctx.params["method"] != "dossr":
        return {}
    own = _rank(ctx, "preset")
    return {name: value for name, value in PRESETS[preset].items() if _rank(ctx, name) > own}


def _whole_or_auto(name: str, text: str | None) -> int | Literal["auto"] | None:
    if text is None or text == AUTO:
        return AUTO if text else None
    if not text.isdecimal():
        raise UsageError(f"{name} must be a whole number or auto, not {text!r}.")
    return int(text)


def _size(ctx: typer.Context) -> float | Size:
    """Of the options that decide the size, those of the strongest source, so that --size on the
    command line needs no fight with a scale in srx.toml."""
    strongest = min(_rank(ctx, name) for name in SIZES)
    chosen = [
        name for name in SIZES if _rank(ctx, name) == strongest and ctx.params[name] is not None
    ]
    if len(chosen) > 1:
        flags = " and ".join(f"--{name.replace('_', '-')}" for name in chosen)
        raise UsageError(f"Only one of {flags} can decide the size.")
    if not chosen:
        return UpscaleOptions.scale
    (name,) = chosen
    return SIZES[name](ctx.params[name])
