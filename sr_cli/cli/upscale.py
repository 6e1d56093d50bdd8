"""`srx upscale`: options to jobs to files."""

from __future__ import annotations

import logging
import os
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from sr_cli.cli import options as shared
from sr_cli.cli.config import ConfigOption, NoConfigOption, tell
from sr_cli.cli.options import option
from sr_cli.cli.running import SOURCES, Run, exit_code, plan_of
from sr_cli.cli.streams import given, streams
from sr_cli.cli.ui import terminal
from sr_cli.diffusion.names import Schedule
from sr_cli.engine.options import (
    AUTO,
    NAME_FIELDS,
    Color,
    Degradation,
    Method,
    OutputOptions,
    UpscaleOptions,
)
from sr_cli.engine.size import Exact, LongSide, ShortSide, Size
from sr_cli.errors import UsageError

if TYPE_CHECKING:
    from sr_cli.engine.upscaler import Upscaler

OPTIONS_OF: dict[Method, tuple[str, ...]] = {
    "dossr": ("model", "order", "variant", "last_step", "texture"),
    "diffsr": ("prior", "sampler"),
}
Compile = Literal["auto", "on", "off"]


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


@dataclass(frozen=True)
class Machine:
    """What computes: `device` auto, cpu, cuda, cuda:N or mps; CPU `threads`, None for all;
    whether torch.compile prepares the networks first."""

    device: str
    dtype: str
    threads: int | None
    compile: Compile = "auto"

    def __post_init__(self) -> None:
        cpus = os.cpu_count() or 1
        if self.threads is not None and not 1 <= self.threads <= cpus:  # more are far slower
            raise UsageError(f"threads must lie between 1 and {cpus} (CPUs), not {self.threads}.")


def upscale(
    ctx: typer.Context,
    inputs: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="INPUT",
            readable=False,  # a file that is not fails by itself
            show_default=False,
            help="Images, folders of images or glob patterns; - is one picture from stdin.",
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Argument(
            metavar="OUTPUT",
            readable=False,
            show_default=False,
            help="Folder; or an image file, for one input file; - is stdout.",
        ),
    ] = None,
    scale: Annotated[
        float | None,
        option("Size", "--scale", help="Enlarge by this factor, up to 32 [default: 4]."),
    ] = None,
    size: Annotated[
        str | None,
        option("Size", "--size", metavar="WxH", help="Exactly this many pixels."),
    ] = None,
    long_side: Annotated[
        int | None,
        option("Size", "--long-side", metavar="N", help="The longer side gets N pixels."),
    ] = None,
    short_side: Annotated[
        int | None,
        option("Size", "--short-side", metavar="N", help="The shorter side gets N pixels."),
    ] = None,
    steps: shared.Steps = UpscaleOptions.steps,
    order: shared.Order = UpscaleOptions.order,
    variant: shared.Variant = UpscaleOptions.variant,
    last_step: shared.LastStep = UpscaleOptions.last_step,
    texture: shared.Texture = UpscaleOptions.texture,
    t1: Annotated[
        str | None,
        option(
            "Diffusion",
            "--t1",
            metavar="N|auto",
            show_default="the model's; of diffsr: auto",
            help="Start of the diffusion, of T = 1000; auto: what prf-search found for the scale.",
        ),
    ] = None,
    seed: Annotated[
        int,
        option("Diffusion", "--seed", metavar="N", help="Same seed, same picture."),
    ] = UpscaleOptions.seed,
    model: shared.Model = UpscaleOptions.model,
    method: shared.Method = UpscaleOptions.method,
    prior: shared.Prior = UpscaleOptions.prior,
    sampler: shared.Sampler = UpscaleOptions.sampler,
    schedule: Annotated[
        Schedule | None,
        option("Diffusion", "--schedule", show_default="the model's", help="Noise over time."),
    ] = UpscaleOptions.schedule,
    degradation: Annotated[
        Degradation,
        option("Diffusion", "--degradation", help="What --t1 auto takes the input for."),
    ] = UpscaleOptions.degradation,
    preprocess: shared.Preprocess = UpscaleOptions.preprocess,
    color: Annotated[
        Color,
        option("Diffusion", "--color", help="Take the colours of the input over."),
    ] = UpscaleOptions.color,
    recursive: Annotated[
        bool,
        option("Files", "--recursive", "-r", help="Enter folders; OUTPUT mirrors their tree."),
    ] = False,
    files_from: shared.FilesFrom = None,
    format: Annotated[  # noqa: A002
        Literal["png", "jpeg", "jpg", "webp", "tiff", "tif", "avif", "same"] | None,
        option(
            "Files",
            "--format",
            show_default="png",
            case_sensitive=False,
            help="Format of the results; same: that of the input.",
        ),
    ] = None,
    quality: Annotated[
        int,
        option(
            "Files",
            "--quality",
            metavar="1...100",
            help="Quality of JPEG, WebP and AVIF; WebP is lossless at 100.",
        ),
    ] = OutputOptions.quality,
    name: Annotated[
        str,
        option(
            "Files",
            "--name",
            metavar="TEMPLATE",
            help=f"Names of the results, without suffix; fields: {', '.join(NAME_FIELDS)}.",
        ),
    ] = OutputOptions.name,
    overwrite: Annotated[
        bool,
        option(
            "Files",
            "--overwrite/--skip-existing",
            help="Replace what exists, or keep it: then an interrupted run continues.",
        ),
    ] = OutputOptions.overwrite,
    trust_existing: shared.TrustExisting = OutputOptions.trust_existing,
    only_enlarge: shared.OnlyEnlarge = OutputOptions.only_enlarge,
    strip: shared.Strip = OutputOptions.strip,
    tag: shared.Tag = OutputOptions.tag,
    keep_times: shared.KeepTimes = OutputOptions.keep_times,
    max_megapixels: shared.MaxMegapixels = OutputOptions.max_megapixels,
    dry_run: Annotated[
        bool, option("Files", "--dry-run", help="Only list what would be done.")
    ] = False,
    device: shared.Device = "auto",
    dtype: shared.Dtype = "auto",
    tile: shared.Tile = None,
    overlap: Annotated[
        int | None,
        option(
            "Machine",
            "--overlap",
            metavar="N",
            show_default="exact",
            help="Margin of a tile in output pixels; less is faster.",
        ),
    ] = None,
    batch: Annotated[
        int, option("Machine", "--batch", metavar="N", help="Tiles at a time, of several pictures.")
    ] = UpscaleOptions.batch,
    compile: Annotated[  # noqa: A002
        Compile,
        option(
            "Machine",
            "--compile",
            help="Compile the networks: minutes at first, then faster; auto: long runs on a GPU.",
        ),
    ] = Machine.compile,
    threads: shared.Threads = None,
    as_json: shared.Json = False,
    quiet: shared.Quiet = False,
    verbose: shared.Verbose = False,
    no_config: NoConfigOption = False,
    config: ConfigOption = None,
) -> None:
    """Enlarge photographs.

    Results of the same input and options are kept, so an interrupted command continues when run
    again; .srx-manifest.jsonl beside them says what they are.
    Options can also come from variables (SRX_STEPS=7) and from srx.toml (steps = 7);
    the command line wins over variables, and variables over srx.toml.
    """
    talk(quiet, verbose)
    options = upscale_options(ctx)
    files = output_options(ctx)
    machine = Machine(device, dtype, threads, compile)
    if config:
        terminal.detail(f"defaults from {config}")
    arguments, target = given(inputs, output, files_from)
    with streams(arguments, target, files, as_json=as_json) as (arguments, target):
        planned = plan_of(arguments, target, options, files, recursive=recursive)
        run = Run(
            ctx, options, files, machine, planned, target, lambda: make_upscaler(options, machine)
        )
        with run.reporting(as_json=as_json, dry_run=dry_run, recursive=recursive):
            if dry_run:
                run.rehearse()
            elif planned.jobs:
                run.work()
    raise typer.Exit(exit_code(run.outcomes))


def talk(quiet: bool, verbose: bool) -> None:
    """Say as much as the user wants, before libraries are imported that would say more."""
    terminal.quiet, terminal.verbose = quiet, verbose
    tell()
    quieten_libraries(verbose)


def quieten_libraries(verbose: bool) -> None:
    if not verbose:
        warnings.simplefilter("ignore")
        logging.basicConfig(level=logging.ERROR)
        os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")
        os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
        logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)  # "No CUDA runtime"


def output_options(ctx: typer.Context) -> OutputOptions:
    """How a parsed command line of `srx upscale` reads and writes files."""
    return OutputOptions(**{field.name: ctx.params[field.name] for field in fields(OutputOptions)})


def upscale_options(ctx: typer.Context) -> UpscaleOptions:
    """What a parsed command line of `srx upscale` asks for."""
    _check_method(ctx)
    values = {field.name: ctx.params[field.name] for field in fields(UpscaleOptions)}
    values["scale"] = _size(ctx)
    if values["method"] != "dossr":
        values["texture"] = None  # the engine refuses one that means nothing
    return UpscaleOptions(**values | {"t1": _start(values["t1"])})


def _check_method(ctx: typer.Context) -> None:
    """Raise UsageError where the command line has options of the method that is not chosen.

    In srx.toml and in variables they wait for their method.
    """
    for method, names in OPTIONS_OF.items():
        for name in names if method != ctx.params["method"] else ():
            source = ctx.get_parameter_source(name)
            if source is not None and source.name == "COMMANDLINE":
                flag = f"--{name.replace('_', '-')}"
                raise UsageError(f"{flag} belongs to --method {method}: add that, or leave it out.")


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
    strongest = next((rank for rank in SOURCES if rank in ranks.values()), None)
    chosen = [name for name in SIZES if ranks[name] == strongest and ctx.params[name] is not None]
    if len(chosen) > 1:
        flags = " and ".join(f"--{name.replace('_', '-')}" for name in chosen)
        raise UsageError(f"Only one of {flags} can decide the size.")
    if not chosen:
        return UpscaleOptions.scale
    (name,) = chosen
    value = ctx.params[name]
    return SIZES[name](value)


def make_upscaler(options: UpscaleOptions, machine: Machine) -> Upscaler:
    """The engine, ready to enlarge.

    Raises:
        ModelError: the model or the preprocessor is missing or damaged.
        DeviceError: the device is missing or too small.
    """
    import torch

    from sr_cli.engine.upscaler import Upscaler

    if machine.threads is not None:
        torch.set_num_threads(machine.threads)
    return Upscaler(options, device=machine.device, dtype=machine.dtype)
