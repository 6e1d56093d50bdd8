"""The command `srx`: its sub-commands, and the one way out for errors."""

from __future__ import annotations

import io
import signal
import sys
from typing import Annotated, NoReturn

import typer

from sr_cli import __version__
from sr_cli.cli.bench import bench
from sr_cli.cli.prf import prf_search
from sr_cli.cli.sweep import sweep_t1
from sr_cli.cli.train import app as train
from sr_cli.cli.ui import terminal
from sr_cli.cli.upscale import upscale
from sr_cli.cli.weights import app as weights
from sr_cli.errors import SrxError

app = typer.Typer(name="srx", pretty_exceptions_enable=False, rich_markup_mode="markdown")
app.command()(upscale)
app.command()(bench)
app.command()(sweep_t1)
app.command()(prf_search)
app.add_typer(train, name="train")
app.add_typer(weights, name="weights")


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"srx {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def srx(
    ctx: typer.Context,
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    """Enlarge photographs by domain-shift diffusion."""
    if ctx.invoked_subcommand is None:
        typer.echo(ctx.get_help())


def main(args: list[str] | None = None) -> NoReturn:
    """Run `args` (the command line by default) and exit with a code of sr_cli.errors."""
    for stream in (sys.stdout, sys.stderr):  # names and signs that the encoding lacks are escaped
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    for number in (signal.SIGINT, signal.SIGTERM):  # a shell may have told us to ignore SIGINT
        signal.signal(number, signal.default_int_handler)
    command = typer.main.get_command(app)
    try:
        sys.exit(command.main(args, prog_name="srx", standalone_mode=False))
    except Exception as error:
        sys.exit(_report(error))


def _report(error: Exception) -> int:
    """Say what went wrong; return the exit code."""
    if isinstance(error, SrxError):
        terminal.error(str(error))
        return error.exit_code
    if isinstance(error, typer.TyperException):
        terminal.error(error.format_message())
        return error.exit_code
    hint = "" if terminal.verbose else " (run again with --verbose for the traceback)"
    terminal.trace(error)
    terminal.error(f"{type(error).__name__}: {error}{hint}")
    return 1
