"""`srx upscale`: options to jobs to files."""

from __future__ import annotations

import logging
import os
import re
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from sr_cli import __version__
from sr_cli.cli import options as shared
from sr_cli.cli.config import ConfigOption
from sr_cli.cli.options import option
from sr_cli.cli.ui import terminal
from sr_cli.engine.events import (
    Event,
    Failed,
    Finished,
    Job,
    Outcome,
    Planned,
    Skipped,
    Started,
    Step,
)
from sr_cli.engine.options import (
    AUTO,
    NAME_FIELDS,
    Color,
    Degradation,
    LastStep,
    OutputOptions,
    Schedule,
    Solver,
    UpscaleOptions,
)
from sr_cli.errors import SrxError, UsageError

if TYPE_CHECKING:
    from sr_cli.engine.upscaler import Upscaler

SIZES = ("scale", "size", "long_side", "short_side")
SOURCES = ("COMMANDLINE", "ENVIRONMENT", "DEFAULT_MAP")
Compile = Literal["auto", "on", "off"]


@dataclass(frozen=True)
class Machine:
    """What computes: `device` auto, cpu, cuda, cuda:N or mps; CPU `threads`, None for all;
    whether torch.compile prepares the networks first."""

    device: str
    dtype: str
    threads: int | None
    compile: Compile = "auto"

    def __post_init__(self) -> None:
        if self.threads is not None and self.threads < 1:
            raise UsageError(f"threads must be at least 1, not {self.threads}.")


def upscale(
    ctx: typer.Context,
    inputs: Annotated[
        list[Path],
        typer.Argument(metavar="INPUT", help="Images, folders of images or glob patterns."),
    ],
    output: Annotated[
        Path,
        typer.Argument(metavar="OUTPUT", help="Folder; or an image file, for one input file."),
    ],
    scale: Annotated[
        float | None,
        option("Size", "--scale", show_default="4", help="Enlarge by this factor, up to 32."),
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
    order: Annotated[
        int,
        option("Diffusion", "--order", metavar="1|2|3", help="Order of the solver."),
    ] = UpscaleOptions.order,
    solver: Annotated[
        Solver,
        option("Diffusion", "--solver", help="Order 3 as printed, or exact to third order."),
    ] = UpscaleOptions.solver,
    last_step: Annotated[
        LastStep | None,
        option(
            "Diffusion",
            "--last-step",
            show_default="the model's",
            help="End on the network's x0, or, crisper, on the mean of the solver's step; step "
            "keeps its noise.",
        ),
    ] = None,
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
    preprocess: Annotated[
        str | None,
        option(
            "Diffusion",
            "--preprocess",
            metavar="NAME|FILE",
            show_default="the model's",
            help="What makes the first, smooth enlargement: compact, none (bicubic), "
            "realesrgan, or a checkpoint that spandrel reads.",
        ),
    ] = None,
    color: Annotated[
        Color,
        option("Diffusion", "--color", help="Take the colours of the input over."),
    ] = UpscaleOptions.color,
    recursive: Annotated[
        bool,
        option("Files", "--recursive", "-r", help="Enter folders; OUTPUT mirrors their tree."),
    ] = False,
    format: Annotated[  # noqa: A002
        Literal["png", "jpeg", "webp", "tiff", "avif"] | None,
        option("Files", "--format", show_default="png", help="Format of the results."),
    ] = None,
    quality: Annotated[
        int,
        option("Files", "--quality", metavar="1...100", help="Quality of JPEG, WebP and AVIF."),
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
            help="Replace results that exist, or keep them: then an interrupted run continues.",
        ),
    ] = OutputOptions.overwrite,
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
    config: ConfigOption = None,
) -> None:
    """Enlarge photographs.

    Results that exist are kept, so an interrupted command continues when run again.
    Options can also come from variables (SRX_STEPS=7) and from srx.toml (steps = 7);
    the command line wins over variables, and variables over srx.toml.
    """
    from sr_cli.engine.jobs import pending, plan, preview

    talk(quiet, verbose)
    options = upscale_options(ctx)
    files = OutputOptions(format=format, quality=quality, name=name, overwrite=overwrite)
    machine = Machine(device, dtype, threads, compile)
    if config:
        terminal.detail(f"defaults from {config}")
    jobs = plan(inputs, output, options, files, recursive=recursive)
    todo, skipped = pending(jobs, overwrite=overwrite)
    outcomes: list[Outcome] = [*skipped]
    engine: dict[str, Any] = {}
    try:
        if dry_run:
            outcomes += preview(todo, options)
        elif todo:
            _work(todo, options, files, machine, outcomes, engine)
    finally:  # what was done is told of an interrupted run too
        position = {job: index for index, job in enumerate(jobs)}
        outcomes.sort(key=lambda outcome: position[outcome.job])
        terminal.table(outcomes, on_stdout=dry_run and not as_json)
        if as_json:
            settings = asdict(options) | asdict(files) | asdict(machine) | {"recursive": recursive}
            terminal.document(document(settings, environment() | engine, outcomes))
    raise typer.Exit(exit_code(outcomes))


def talk(quiet: bool, verbose: bool) -> None:
    """Say as much as the user wants, before libraries are imported that would say more."""
    terminal.quiet, terminal.verbose = quiet, verbose
    quieten_libraries(verbose)


def quieten_libraries(verbose: bool) -> None:
    if not verbose:
        warnings.simplefilter("ignore")
        logging.basicConfig(level=logging.ERROR)
        os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")
        os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")


def upscale_options(ctx: typer.Context) -> UpscaleOptions:
    """What a parsed command line of `srx upscale` asks for."""
    values = {field.name: ctx.params[field.name] for field in fields(UpscaleOptions)}
    return UpscaleOptions(**values | _size(ctx) | {"t1": _start(values["t1"])})


def _start(t1: str | None) -> int | Literal["auto"] | None:
    if t1 is None:
        return None
    if t1 == AUTO:
        return AUTO
    if not t1.isdecimal():
        raise UsageError(f"t1 must be a whole number or auto, not {t1!r}.")
    return int(t1)


def _size(ctx: typer.Context) -> dict[str, Any]:
    """Of the options that decide the size, those of the strongest source, so that --size on the
    command line needs no fight with a scale in srx.toml."""
    sources = {name: ctx.get_parameter_source(name) for name in SIZES}
    ranks = {name: source.name for name, source in sources.items() if source is not None}
    strongest = next((rank for rank in SOURCES if rank in ranks.values()), None)
    values = {name: ctx.params[name] if ranks[name] == strongest else None for name in SIZES}
    if values["size"] is not None:
        match = re.fullmatch(r"(\d+)[xX](\d+)", values["size"])
        if match is None:
            raise UsageError(f"size must be WIDTHxHEIGHT like 1920x1080, not {values['size']!r}.")
        values["size"] = (int(match[1]), int(match[2]))
    return values


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


def _work(
    todo: Sequence[Job],
    options: UpscaleOptions,
    files: OutputOptions,
    machine: Machine,
    outcomes: list[Outcome],
    engine: dict[str, Any],
) -> None:
    """Do the jobs, add what became of them to `outcomes` and to `engine` what computed."""
    from sr_cli.engine.batch import run, worth_compiling

    def notify(event: Event) -> None:
        show(event)
        if not isinstance(event, Started | Step):
            outcomes.append(event)
        if isinstance(event, Failed) and not isinstance(event.error, SrxError):
            terminal.trace(event.error)

    try:
        upscaler = make_upscaler(options, machine)
        engine |= {"device": upscaler.device, "dtype": upscaler.dtype}
        if machine.compile == "on" or (
            machine.compile == "auto" and worth_compiling(todo, options, upscaler)
        ):
            upscaler.compile()
        name = options.prior if options.method == "diffsr" else options.model
        terminal.detail(f"{name} on {upscaler.device} in {upscaler.dtype}")
        with terminal.watching(len(todo)) as show:
            run(todo, options, upscaler, notify, quality=files.quality)
    except KeyboardInterrupt:
        done = sum(isinstance(outcome, Finished) for outcome in outcomes)
        command = "the same command without --overwrite" if files.overwrite else "the same command"
        terminal.line(f"interrupted: {done} of {len(todo)} done; {command} does the rest.")
        raise typer.Exit(130) from None


def exit_code(outcomes: Sequence[Outcome]) -> int:
    """0 without failures; their common code if nothing else was done; else 1."""
    errors = [outcome.error for outcome in outcomes if isinstance(outcome, Failed)]
    codes = {error.exit_code if isinstance(error, SrxError) else 1 for error in errors}
    if not codes:
        return 0
    alone = len(codes) == 1 and len(errors) == len(outcomes)
    return codes.pop() if alone else 1


def environment() -> dict[str, Any]:
    """What a number in a report may depend on."""
    import platform
    from importlib import metadata

    return {
        "srx": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "torch": metadata.version("torch"),
    }


def record(outcome: Outcome) -> dict[str, Any]:
    """One file's outcome for JSON."""
    files = {"input": str(outcome.job.input), "output": str(outcome.job.output)}
    match outcome:
        case Failed():
            return files | {"error": outcome.reason}
        case Skipped():
            return files | {"reason": outcome.reason}
        case Planned():
            return files | {"size_in": outcome.size_in, "size_out": outcome.size_out}
        case Finished():
            return files | {
                "size_in": outcome.size_in,
                "size_out": outcome.size_out,
                "seconds": outcome.seconds,
                "megapixels_per_second": outcome.megapixels_per_second,
                "peak_memory_bytes": outcome.peak_memory,
                "notes": outcome.notes,
            }


def document(settings: dict[str, Any], machine: dict[str, Any], outcomes: Sequence[Outcome]) -> Any:
    """The JSON report: options, environment and the files by how they ended."""
    kinds = {"results": Finished, "planned": Planned, "failures": Failed, "skipped": Skipped}
    return {"options": settings, "environment": machine} | {
        key: [record(outcome) for outcome in outcomes if isinstance(outcome, kind)]
        for key, kind in kinds.items()
    }
