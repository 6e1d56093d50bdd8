"""Options that several commands share, and how an option of srx is declared."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from sr_cli.cli import presets
from sr_cli.diffusion import names
from sr_cli.engine import options as engine

LIST = "A,B,..."
WRITTEN = {"dir_okay": False, "writable": True}
"""What Typer checks of a file that is to be written, if it exists."""


def option(panel: str, *names: str, **settings: Any) -> Any:
    """An option of a help panel that a variable can set too, unless `envvar` is None.

    SRX_<NAME> in `srx upscale`; config.name_variables says how it is called in other commands.
    """
    long = next(name for name in names if name.startswith("--"))
    variable = "SRX_" + long[2:].split("/")[0].replace("-", "_").upper()
    settings = {"envvar": variable, "show_envvar": False, **settings}
    return typer.Option(*names, rich_help_panel=panel, **settings)


Lr = Annotated[
    Path | None,
    option("Data", "--lr", metavar="FOLDER", help="LR images, where the folder holds HR alone."),
]
DataScale = Annotated[float, option("Data", "--scale", help="Between LR and HR.")]
DataDegradation = Annotated[
    engine.Degradation | None,
    option(
        "Data",
        "--degradation",
        show_default="bicubic, where there are no LR images",
        help="Make LR images of HR by this, even where there are some.",
    ),
]
Half = Annotated[
    Literal["first", "second", "all"],
    option(
        "Data",
        "--half",
        help="Every other image of each set, from the 1st or the 2nd by name: choose settings on "
        "one half, report the other.",
    ),
]
PerFolder = Annotated[
    int | None,
    option(
        "Data",
        "--per-folder",
        metavar="N",
        show_default="all",
        help="Of each folder, as of each sequence, N images spread evenly; 1: the middle one.",
    ),
]
Crop = Annotated[
    int | None,
    option(
        "Data",
        "--crop",
        metavar="N",
        show_default="whole images",
        help="Centre crops of the HR images of this side.",
    ),
]

DataSeed = Annotated[int, option("Data", "--seed", metavar="N", help="Of the degradation.")]
Rows = Annotated[
    list[str] | None,
    option(
        "Methods",
        "--row",
        envvar=None,  # a variable would be split at its spaces
        metavar="OPTIONS",
        help="A row of srx by options of `srx upscale`, such as '--preprocess none --steps 1'; '' "
        "for the defaults. May be repeated.",
    ),
]
Peers = Annotated[
    list[str] | None,
    option(
        "Methods",
        "--peer",
        envvar=None,
        metavar="NAME=FILE|DIR|CMD",
        help="Another network's checkpoint (whatever spandrel reads), somebody's results on disk, "
        "or a program: a command with {input} and {output} for folders. May be repeated.",
    ),
]

Preset = Annotated[
    presets.Preset | None,
    option(
        "Diffusion",
        "--preset",
        help="fast: --steps 1; best: --steps 3; faithful: --texture 0; default: the model's own. "
        "Options beside it win.",
    ),
]
Steps = Annotated[
    int | None,
    option(
        "Diffusion",
        "--steps",
        metavar="N",
        help="Solver steps, network calls. More hardly change what embedded gives; to clean they "
        "add texture, above 3 a grain too.",
        show_default="the model's: as many as pay",
    ),
]
Order = Annotated[int, option("Diffusion", "--order", metavar="1|2|3", help="Order of the solver.")]
Variant = Annotated[
    names.Variant,
    option("Diffusion", "--variant", help="Order 3 as printed, or exact to third order."),
]
LastStep = Annotated[
    names.LastStep | None,
    option(
        "Diffusion",
        "--last-step",
        show_default="the model's",
        help="End on the network's x0, or, crisper, on the mean of the solver's step; step keeps "
        "its noise.",
    ),
]
Texture = Annotated[
    float | None,
    option(
        "Diffusion",
        "--texture",
        metavar="0...1",
        show_default="the model's",
        help="Of a model with a dial: 0 is the smooth, faithful answer, 1 the crispest.",
    ),
]
Preprocess = Annotated[
    str | None,
    option(
        "Diffusion",
        "--preprocess",
        metavar="NAME|FILE",
        show_default="the model's",
        help="What makes the first, smooth enlargement: compact, none (bicubic), realesrgan, "
        "anime, or a checkpoint that spandrel reads.",
    ),
]
Model = Annotated[
    str,
    option(
        "Diffusion",
        "--model",
        metavar="NAME",
        help="Diffusion model of dossr: embedded (camera photographs), clean (pictures that were "
        "only made smaller), or an imported one.",
    ),
]
Method = Annotated[
    engine.Method,
    option("Diffusion", "--method", help="dossr works with --model, diffsr with --prior."),
]
Prior = Annotated[
    str,
    option(
        "Diffusion",
        "--prior",
        metavar="NAME|FOLDER|HUB_ID",
        help="Unconditional model of diffsr: srx's own, or a DDPMPipeline of diffusers.",
    ),
]
Sampler = Annotated[
    names.SamplerName, option("Diffusion", "--sampler", help="What diffsr walks by.")
]

Metrics = Annotated[
    str,
    option(
        "Measuring",
        "--metrics",
        metavar=LIST,
        help="psnr, ssim, lpips, dists, niqe, clipiqa, musiq, maniqa, maniqa-pipal, topiq; in "
        "bench and prf-search also fid.",
    ),
]
Border = Annotated[
    int, option("Measuring", "--border", metavar="N", help="Pixels that PSNR and SSIM leave out.")
]
Download = Annotated[
    bool, option("Measuring", "--download", help="Fetch weights of metrics that are missing.")
]

Contact = Annotated[
    Path | None,
    option(
        "Files",
        "--contact",
        metavar="FILE",
        help="A page for a browser: every picture before and after, at the end.",
    ),
]
FilesFrom = Annotated[
    Path | None,
    option(
        "Files",
        "--files-from",
        metavar="FILE|-",
        help="More inputs: a file that names one a line, or stdin.",
    ),
]
ShardOf = Annotated[
    str | None,
    option(
        "Files",
        "--shard",
        metavar="K/N",
        help="Only the K-th of N shares of the files, by their names, for job arrays.",
    ),
]
Watch = Annotated[
    bool,
    option(
        "Files", "--watch", help="Then go on with what comes into the folders, until interrupted."
    ),
]
Frames = Annotated[
    str | None,
    option(
        "Files",
        "--frames",
        metavar="WxH",
        help="Raw frames of this size from stdin to stdout, rgb24, as ffmpeg pipes them.",
    ),
]
TrustExisting = Annotated[
    bool,
    option("Files", "--trust-existing", help="Take whatever exists for done, unread."),
]
OnlyEnlarge = Annotated[
    bool, option("Files", "--only-enlarge", help="Skip pictures that are large enough.")
]
Strip = Annotated[
    engine.Strip | None,
    option("Files", "--strip", help="Leave out metadata but for colours, or only the place."),
]
Tag = Annotated[
    bool, option("Files", "--tag", help="Say in each result's metadata how it was enlarged.")
]
KeepTimes = Annotated[
    bool, option("Files", "--keep-times", help="Give results the times of their inputs.")
]
MaxMegapixels = Annotated[
    float,
    option("Files", "--max-megapixels", metavar="N", help="Refuse larger inputs unread."),
]

Device = Annotated[
    str, option("Machine", "--device", metavar="auto|cpu|cuda[:N]|mps", help="Where to compute.")
]
Dtype = Annotated[
    Literal["auto", "float32", "bfloat16", "float16"],
    option("Machine", "--dtype", help="Precision of the networks."),
]
Threads = Annotated[
    int | None,
    option("Machine", "--threads", metavar="N", show_default="all", help="CPU threads."),
]
ClusterOf = Annotated[
    str | None,
    option(
        "Machine",
        "--cluster",
        metavar="auto|HOST:PORT",
        help="Work on the machines of a Ray cluster: a worker for each GPU, or for each --threads "
        "CPU cores. auto: the one that runs here, or else one for this run.",
    ),
]
Jobs = Annotated[
    int | None,
    option(
        "Machine",
        "--jobs",
        metavar="N",
        show_default="the CPUs, at most 8",
        help="Files read, and written, at a time; small pictures on a CPU are also enlarged so.",
    ),
]
Tile = Annotated[
    int | None,
    option(
        "Machine",
        "--tile",
        metavar="N",
        show_default="by free memory",
        help="Side of a tile in input pixels; 0: the whole picture at once.",
    ),
]

Csv = Annotated[
    Path | None,
    option("Reports and defaults", "--csv", metavar="FILE", help="The table.", **WRITTEN),
]
Curves = Annotated[
    Path | None,
    option(
        "Reports and defaults",
        "--plot",
        metavar="FILE",
        help="Curves: PNG, SVG or PDF.",
        **WRITTEN,
    ),
]
Cache = Annotated[
    Path | None,
    option(
        "Reports and defaults",
        "--cache",
        metavar="FILE",
        show_default="in the user's cache folder",
        help="Where measurements are kept, so that an interrupted command goes on.",
        **WRITTEN,
    ),
]
Json = Annotated[bool, option("Reports and defaults", "--json", help="A JSON document on stdout.")]
JsonEvents = Annotated[
    bool,
    option(
        "Reports and defaults",
        "--json-events",
        help="A line of JSON on stdout for everything that happens, while it does.",
    ),
]
NoProgress = Annotated[
    bool,
    option("Reports and defaults", "--no-progress", help="On a terminal too, lines and no bars."),
]
Quiet = Annotated[
    bool, option("Reports and defaults", "--quiet", "-q", help="Only errors on stderr.")
]
Verbose = Annotated[
    bool, option("Reports and defaults", "--verbose", "-v", help="Details, warnings, tracebacks.")
]
