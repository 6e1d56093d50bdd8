"""`srx compare`: several methods on the same pictures, side by side in one page for a browser."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sr_cli.cli import options as shared
from sr_cli.cli import reports
from sr_cli.cli.config import ConfigOption, NoConfigOption
from sr_cli.cli.machine import Machine, ResolvedMachine
from sr_cli.cli.options import option
from sr_cli.cli.parsing import is_chosen, parse_list, refuse
from sr_cli.cli.rows import DEFAULTS, check, engine_rows, methods
from sr_cli.cli.ui import terminal
from sr_cli.engine.options import Degradation, UpscaleOptions
from sr_cli.errors import ExitCode, UsageError

if TYPE_CHECKING:
    from sr_cli.evaluation.comparison import Result
    from sr_cli.evaluation.datasets import Pairs
    from sr_cli.evaluation.metrics import Metrics
    from sr_cli.evaluation.peers import Peer
    from sr_cli.evaluation.subjects import Group

ROWS = ("", "--texture 0", "--model clean")
"""Unless rows are asked for: the default, and what is chosen instead of it most often."""


def compare(
    ctx: typer.Context,
    images: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[IMAGE]...",
            help="Pictures to enlarge, or folders of them; also data sets of LR and HR images in "
            "usual layouts. Without any: the examples that come with srx.",
            show_default=False,
        ),
    ] = None,
    html: Annotated[
        Path | None,
        option(
            "Page",
            "--html",
            metavar="FILE",
            help="The page to write; one that srx made before is replaced.",
        ),
    ] = None,
    crop: Annotated[
        int | None,
        option(
            "Page",
            "--crop",
            metavar="N",
            show_default="256; fewer, where there are many pictures",
            help="Longest side of the part of each picture that is compared, in its own pixels; "
            "0: all of it.",
        ),
    ] = None,
    at: Annotated[
        str | None,
        option(
            "Page",
            "--at",
            metavar="X,Y",
            show_default="the middle of the picture",
            help="The middle of that part, in pixels from the left and from the top.",
        ),
    ] = None,
    hr: Annotated[
        Path | None,
        option(
            "Data",
            "--hr",
            metavar="FILE|FOLDER",
            help="The original of the picture, or the originals of all by name, to measure with.",
        ),
    ] = None,
    scale: shared.DataScale = 4.0,
    degradation: Annotated[
        Degradation | None,
        option(
            "Data",
            "--degradation",
            show_default=False,
            help="Take the pictures for originals, and make smaller ones of them by this.",
        ),
    ] = None,
    seed: shared.DataSeed = 0,
    row: shared.Rows = None,
    peer: shared.Peers = None,
    baselines: Annotated[
        bool,
        option(
            "Methods",
            "--baselines/--no-baselines",
            help="Bicubic, Lanczos, the preprocessor alone and Real-ESRGAN x4plus.",
        ),
    ] = True,
    metrics: shared.Metrics = "psnr,ssim,lpips",
    border: shared.Border = 0,
    download: shared.Download = False,
    device: shared.Device = "auto",
    dtype: shared.Dtype = "auto",
    threads: shared.Threads = None,
    quiet: shared.Quiet = False,
    verbose: shared.Verbose = False,
    no_config: NoConfigOption = False,
    config: ConfigOption = None,
) -> None:
    """Look at several results of the same pictures, side by side in a browser.

    The page is one file and works offline: a divider between any two results, zoom, seconds, and
    metrics where there are originals. Only a part of a large picture is compared. Without --row:
    the defaults, --texture 0 and --model clean.
    """
    from sr_cli.evaluation import page
    from sr_cli.evaluation.comparison import build, groups
    from sr_cli.evaluation.subjects import Part

    terminal.talk(quiet=quiet, verbose=verbose)
    if html is None:
        raise UsageError("Where shall the page go? srx compare photo.jpg --html page.html")
    page.check(html)
    if crop == 0:
        refuse(ctx, ("at",), "is the middle of a part, and --crop 0 is all: leave one out.")
    part = Part(crop, _place(at))
    asked = engine_rows(ctx, None, None, row, default=ROWS)
    rows = {"srx" if text == DEFAULTS else f"srx {text}": asked[text] for text in asked}
    sets = _sets(images, hr, scale, degradation, seed)
    measures, blind = _metrics_by_name(ctx, metrics, originals=any(known for _, known in sets))
    machine = Machine(device, dtype, threads).resolve()
    compared = methods(rows, peer or [], machine, baselines=baselines, twice=False)
    check(rows, compared, [pairs for pairs, _ in sets])
    found = groups(sets, part, len(compared))
    loaded = [
        reports.load_metrics(names, machine.device, border, download=download)
        for names in (measures, blind)
    ]
    done, interrupted = _compared(found, compared, loaded[0], loaded[1], machine)
    if not done:
        raise typer.Exit(ExitCode.INTERRUPTED)
    conditions = f" {loaded[0].conditions}." if {"psnr", "ssim"} & set(measures) else ""
    made = build(
        found,
        done,
        loaded[0],
        own=list(rows),
        title=f"srx compare: {', '.join(dict.fromkeys(pairs.name for pairs, _ in sets))}",
        note=f"×{scale:g}, {_made_by(sets)}. {machine.sentence}{conditions}",
    )
    size = page.write(made, html)
    for shown in made.pictures:
        terminal.note(f"{shown.name}: {shown.text}")
        terminal.results(shown.table)
    if made.means:
        terminal.note(f"mean of {len(made.pictures)} pictures")
        terminal.results(made.means)
    terminal.note(f"{html} ({size / 1e6:.1f} MB): open it in a browser.")
    if interrupted:
        raise typer.Exit(ExitCode.INTERRUPTED)
    own = [result for name in rows for result in done[name]]
    if all(result.failure for result in own):
        raise typer.Exit(own[0].exit_code)


def _place(at: str | None) -> tuple[int, int] | None:
    if at is None:
        return None
    place = parse_list("--at", at, int, example="640,480", repeats=True)
    if len(place) != 2:
        raise UsageError(f"--at {at} must be two numbers like 640,480.")
    return place[0], place[1]


def _sets(
    images: Sequence[Path] | None,
    hr: Path | None,
    scale: float,
    degradation: str | None,
    seed: int,
) -> list[tuple[Pairs, bool]]:
    """The pictures, those of each folder together, and whether there are originals of them.

    Raises UsageError where a file is missing or options contradict each other.
    """
    from sr_cli.evaluation import datasets

    chosen = list({path.resolve(): path for path in images or datasets.examples()}.values())
    for path in (*chosen, *([hr] if hr else [])):
        if not path.exists():
            raise UsageError(f"{path} does not exist.")
    UpscaleOptions(scale=scale)  # checks it
    if hr and degradation:
        raise UsageError("--hr gives originals, --degradation takes the pictures for them.")
    if hr:
        inputs = [file for path in chosen for file in _files(path)]
        return [(datasets.matched(inputs, _files(hr), scale), True)]
    folders = [path for path in chosen if path.is_dir()]
    files = [path for path in chosen if not path.is_dir()]
    each: list[Path | list[Path]] = [*folders, *([files] if files else [])]
    found = [datasets.pairs(e, scale=scale, degradation=degradation, seed=seed) for e in each]
    if degradation:
        return [(reports.usable(pairs), True) for pairs in found]
    return [(pairs, pairs.given) for pairs in found]


def _files(path: Path) -> list[Path]:
    from sr_cli.evaluation.layouts import images

    return images(path) if path.is_dir() else [path]


def _made_by(sets: Sequence[tuple[Pairs, bool]]) -> str:
    """Where the inputs come from, for people."""
    known = dict.fromkeys(
        pairs.made_by if originals else "no originals" for pairs, originals in sets
    )
    return "; ".join(known)


def _metrics_by_name(
    ctx: typer.Context, text: str, *, originals: bool
) -> tuple[list[str], list[str]]:
    """Which metrics are asked for, and which of them need no original."""
    from sr_cli.evaluation.iqa import SPECS

    names = list(parse_list("--metrics", text, str, example="psnr,ssim"))
    if "fid" in names:
        raise UsageError("fid is of whole sets, not of pictures: srx bench measures it.")
    blind = [name for name in names if name in SPECS and not SPECS[name].reference]
    if originals:
        return names, blind
    if is_chosen(ctx, "metrics") and blind != names:
        without = ", ".join(name for name in names if name not in blind)
        terminal.note(f"{without}: there are no originals to measure with; see --hr.")
    return blind, blind


def _compared(
    found: Sequence[Group],
    compared: Sequence[Peer],
    measures: Metrics,
    blind: Metrics,
    machine: ResolvedMachine,
) -> tuple[dict[str, list[Result]], bool]:
    """Every method on every picture; what there was, and whether it was interrupted."""
    from sr_cli.evaluation.comparison import compare as results_of

    rows: dict[str, list[Result]] = {}
    pictures = sum(len(group.subjects) for group in found)
    done = 0
    try:
        with terminal.counting(len(compared) * pictures) as show:
            for peer in compared:

                def advance(what: str = peer.name) -> None:
                    nonlocal done
                    done += 1
                    show(done, what)

                rows[peer.name] = [
                    result
                    for group in found
                    for result in results_of(
                        peer, group, measures, blind, device=machine.device, on_picture=advance
                    )
                ]
    except KeyboardInterrupt:
        terminal.line(f"interrupted: {len(rows)} of {len(compared)} rows are done.")
        return rows, True
    return rows, False
