"""`srx upscale`: options to jobs to files."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from sr_cli.cli import options as shared
from sr_cli.cli.config import ConfigOption, NoConfigOption
from sr_cli.cli.contact import check_contact, write_contact
from sr_cli.cli.event_lines import event_lines
from sr_cli.cli.machine import Compile, Machine, make_upscaler
from sr_cli.cli.modes import NOT_WATCHED, among, asked_modes
from sr_cli.cli.options import option
from sr_cli.cli.parsing import output_options, refuse, upscale_options
from sr_cli.cli.remotely import opened
from sr_cli.cli.running import exit_code, plan_of
from sr_cli.cli.streams import given
from sr_cli.cli.tars import pipe_tar
from sr_cli.cli.ui import terminal
from sr_cli.cli.video import OF_FILES, frame_size, pipe_frames
from sr_cli.cli.watching import check_watch, plan_what_comes, watch_folders
from sr_cli.diffusion.names import Schedule
from sr_cli.engine.options import (
    AUTO,
    NAME_FIELDS,
    Color,
    Degradation,
    Format,
    OutputOptions,
    UpscaleOptions,
)
from sr_cli.engine.shards import Shard


def upscale(
    ctx: typer.Context,
    inputs: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="INPUT",
            readable=False,  # a file that is not fails by itself
            show_default=False,
            help="Images, folders of images or glob patterns; - is stdin.",
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
    width: Annotated[
        int | None,
        option("Size", "--width", metavar="N", help="N pixels wide, in the same proportions."),
    ] = None,
    height: Annotated[
        int | None,
        option("Size", "--height", metavar="N", help="N pixels high, in the same proportions."),
    ] = None,
    long_side: Annotated[
        int | None,
        option("Size", "--long-side", metavar="N", help="The longer side gets N pixels."),
    ] = None,
    short_side: Annotated[
        int | None,
        option("Size", "--short-side", metavar="N", help="The shorter side gets N pixels."),
    ] = None,
    preset: shared.Preset = None,
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
    best_of: Annotated[
        int,
        option(
            "Diffusion",
            "--best-of",
            metavar="N",
            help="Draw N seeds of each picture, keep the best by its input and NIQE.",
        ),
    ] = UpscaleOptions.best_of,
    model: Annotated[
        str,
        option(
            "Diffusion",
            "--model",
            metavar="NAME|FILE",
            help="embedded (camera photographs), clean (pictures that were only made smaller), or "
            "an imported model. Or a network alone, without diffusion: anime, realesrgan, or a "
            "checkpoint that spandrel reads.",
        ),
    ] = UpscaleOptions.model,
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
        Color | None,
        option(
            "Diffusion",
            "--color",
            show_default="wavelet; of a network alone: none",
            help="Take the colours of the input over.",
        ),
    ] = UpscaleOptions.color,
    recursive: Annotated[
        bool,
        option("Files", "--recursive", "-r", help="Enter folders; OUTPUT mirrors their tree."),
    ] = False,
    files_from: shared.FilesFrom = None,
    watch: shared.Watch = False,
    frames: shared.Frames = None,
    format: Annotated[  # noqa: A002
        Format | None,
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
    shard: shared.ShardOf = None,
    only_enlarge: shared.OnlyEnlarge = OutputOptions.only_enlarge,
    strip: shared.Strip = OutputOptions.strip,
    tag: shared.Tag = OutputOptions.tag,
    keep_times: shared.KeepTimes = OutputOptions.keep_times,
    max_megapixels: shared.MaxMegapixels = OutputOptions.max_megapixels,
    contact: shared.Contact = None,
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
        str,
        option(
            "Machine",
            "--batch",
            metavar="N|auto",
            help="Tiles at a time, of several pictures; auto: 1 on a CPU, on a GPU by its memory.",
        ),
    ] = AUTO,
    compile: Annotated[  # noqa: A002
        Compile,
        option(
            "Machine",
            "--compile",
            help="Compile the networks: minutes at first, then faster; auto: long runs on a GPU.",
        ),
    ] = Machine.compile,
    threads: shared.Threads = None,
    cluster: shared.ClusterOf = None,
    jobs: shared.Jobs = None,
    as_json: shared.Json = False,
    json_events: shared.JsonEvents = False,
    no_progress: shared.NoProgress = False,
    quiet: shared.Quiet = False,
    verbose: shared.Verbose = False,
    no_config: NoConfigOption = False,
    config: ConfigOption = None,
) -> None:
    """Enlarge photographs.

    Results of the same input and options are kept, so an interrupted command continues when run
    again; .srx-manifest.jsonl beside them says what they are.
    Options can also come from variables (SRX_STEPS=7) and from srx.toml (steps = 7); those of other
    commands bear their name (SRX_BENCH_STEPS, and steps in [bench]), but for the machine's and for
    how much is said. The command line wins over variables, and variables over srx.toml.
    """
    terminal.talk(quiet=quiet, verbose=verbose, progress=not no_progress)
    options = upscale_options(ctx)
    files = output_options(ctx)
    machine = Machine(device, dtype, threads, compile, cluster, jobs)
    part = None if shard is None else Shard.parse(shard)
    check_contact(contact)
    if config:
        terminal.detail(f"defaults from {config}")
    arguments, target = given(inputs, output, files_from)
    asked = asked_modes(ctx.params)
    if frames:
        refuse(ctx, OF_FILES, "is for files, and --frames gives raw frames: leave it out.")
    make = partial(make_upscaler, options, machine)
    if frames:
        pipe_frames(frame_size(frames, arguments, target, others=asked), options, files, make)
        return
    if watch:
        check_watch(arguments, target, others=among(asked, NOT_WATCHED))
    with event_lines(wanted=json_events) as listener:
        with opened(arguments, target, files, asked=asked, recursive=recursive) as (
            piped,
            make_run,
        ):
            found, place, aliases = piped.arguments, piped.output, piped.aliases
            if watch or piped.source:
                planned = plan_what_comes(found, place, options, files, recursive=recursive)
            else:
                planned = plan_of(
                    found, place, options, files, recursive=recursive, shard=part, aliases=aliases
                )
            run = make_run(
                *(ctx, options, files, machine, planned, place),
                make=make,
                shard=part,
                listener=listener,
                aliases=aliases,
            )
            on_stdout = dry_run and not (as_json or json_events)
            with run.reporting(as_json=as_json, on_stdout=on_stdout, recursive=recursive):
                if dry_run:
                    run.rehearse()
                elif watch:
                    watch_folders(run, found, recursive=recursive)
                elif piped.tar:
                    pipe_tar(run, piped)
                elif planned.jobs or part:
                    run.work()
            if contact:
                write_contact(contact, run.outcomes, files, output=target)
        raise typer.Exit(exit_code(run.outcomes))
