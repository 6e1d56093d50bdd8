"""The command `srx`: its sub-commands, and the one way out for errors."""

from __future__ import annotations

import codecs
import io
import os
import signal
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn, TextIO, get_args

import typer
import typer.core

from sr_cli import __version__
from sr_cli.cli import config
from sr_cli.cli.text import spelt
from sr_cli.cli.ui import terminal
from sr_cli.engine.options import Strip
from sr_cli.errors import ExitCode, SrxError, UsageError, is_out_of_memory
from sr_cli.files import is_file, is_folder

NAMES = (
    "upscale",
    "compare",
    "bench",
    "sweep-t1",
    "prf-search",
    "report",
    "train",
    "weights",
    "doctor",
)
MARKUP: Literal["markdown"] = "markdown"
NUMBERS = {
    "float_parsing": "a number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
}
"""What a value should have been, by pydantic's name of the mistake."""


class Lazy(Mapping[str, Any]):
    """The sub-commands by name, each imported when it is asked for, with its own variables."""

    def __init__(self) -> None:
        self._made: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in NAMES:
            raise KeyError(name)
        if name not in self._made:
            self._made[name] = made = _made(name)
            config.name_variables({name: made})
        return self._made[name]

    def __iter__(self) -> Iterator[str]:
        return iter(NAMES)

    def __len__(self) -> int:
        return len(NAMES)


def _made(name: str) -> Any:
    """The sub-command as Typer makes it of its function, or of its own sub-commands."""
    parent = typer.Typer(add_completion=False, rich_markup_mode=MARKUP)
    found = _imported(name)
    if isinstance(found, typer.Typer):
        parent.add_typer(found, name=name)
        for info in found.registered_commands:
            info.cls = Command
    else:
        parent.command(name, cls=Command)(found)
    return typer.main.get_group(parent).commands[name]


@cache
def _imported(name: str) -> Any:
    """The function or the group behind a sub-command: of its module, which bears its name."""
    own = name.replace("-", "_")
    module = import_module(f"sr_cli.cli.{own}")
    found = getattr(module, "app", None) or getattr(module, own)
    if name == "train":
        from sr_cli.cli.train_dossr import dossr
        from sr_cli.cli.train_formulations import formulations

        found.command()(dossr)
        found.command()(formulations)
    return found


class Command(typer.core.TyperCommand):
    """A sub-command, whose complaints about a value name the option as it is written, and which
    tells of variables that nobody reads."""

    def invoke(self, ctx: Any) -> Any:
        from sr_cli.cli.parsing import choose_flags, naming_options

        with naming_options(ctx):
            choose_flags(ctx)
            if not ctx.params.get("quiet"):
                for sentence in config.misspelt(self, ctx.find_root().command.commands):
                    terminal.note(sentence)
            return super().invoke(ctx)


class Commands(typer.core.TyperGroup):
    """The sub-commands."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        commands: Any = Lazy()  # Typer only reads it
        self.commands = commands

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The sub-command of the first word. Raises UsageError where that is a picture or help."""
        if args[0] not in NAMES:
            if is_file(Path(args[0])) or is_folder(Path(args[0])):
                raise UsageError(
                    f"{args[0]} is no command: srx upscale {args[0]} out/ enlarges it."
                )
            if args[0] == "help":
                raise UsageError("help is no command: srx --help, or srx upscale --help.")
        return super().resolve_command(ctx, args)

    def get_params(self, ctx: Any) -> list[Any]:
        """Flags without a default are off: of None Typer makes False by pydantic, .05 s."""
        found: list[Any] = super().get_params(ctx)
        for param in found:
            if param.is_flag and param.default is None:
                param.default = False
        return found


app = typer.Typer(
    name="srx",
    cls=Commands,
    pretty_exceptions_enable=False,
    rich_markup_mode=MARKUP,
    context_settings={"help_option_names": ["--help", "-h"]},
)


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
    sys.stdin = sys.stdin or open(os.devnull)  # noqa: PTH123, SIM115  (closed by the shell)
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: PTH123, SIM115
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: PTH123, SIM115
    codecs.register_error("srx", spelt)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="srx")
    sys.stderr = Patient(sys.stderr)
    for number in (signal.SIGINT, signal.SIGTERM):  # a shell may have told us to ignore SIGINT
        signal.signal(number, signal.default_int_handler)
    # Threads of torch that spin while one of them waits for its core: a busy machine is 7x slower.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    words = with_values(sys.argv[1:] if args is None else args)
    try:
        command = typer.main.get_command(app)
        sys.exit(command.main(words, prog_name="srx", standalone_mode=False))
    except Exception as error:
        sys.exit(_report(error, words))


class Patient(io.TextIOBase):
    """A stream whose reader may have gone: what nobody reads any more costs no picture."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream.inner if isinstance(stream, Patient) else stream

    @property
    def inner(self) -> TextIO:
        """The stream itself."""
        return self._stream

    def write(self, text: str) -> int:
        with suppress(OSError, ValueError):  # a pipe without reader; closed
            return self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError, ValueError):
            self._stream.flush()

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """By which Rich chooses the lines of its tables."""
        return str(self._stream.encoding)

    def isatty(self) -> bool:
        with suppress(OSError, ValueError):
            return self._stream.isatty()
        return False

    def fileno(self) -> int:
        return self._stream.fileno()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def with_values(words: list[str]) -> list[str]:
    """The command line with what --strip means by itself."""
    found = []
    for word, following in zip(words, [*words, ""][1:], strict=True):
        found.append(word)
        if word == "--strip" and following not in get_args(Strip):
            found.append("all")
    return found


def _report(error: Exception, words: Iterable[str]) -> int:
    """Say what went wrong with this command line; return the exit code."""
    if isinstance(error, SrxError):
        terminal.error(str(error))
        return error.exit_code
    if isinstance(error, typer.TyperException):
        wrong = (
            _complaint(error) if isinstance(error, typer.BadParameter) else error.format_message()
        )
        dashed = next((word for word in words if word[:1] == "-" and is_file(Path(word))), None)
        hint = f" The file of this name is ./{dashed}." if dashed else ""
        terminal.error(wrong + hint)
        return error.exit_code
    if is_out_of_memory(error):
        terminal.trace(error)
        terminal.error(
            "There is too little free memory, or too narrow a limit (ulimit -v), to work at all: "
            "close other programs, or raise the limit."
        )
        return ExitCode.DEVICE
    can_tell_more = terminal.verbose is False
    hint = " (run again with --verbose for the traceback)" if can_tell_more else ""
    terminal.trace(error)
    terminal.error(f"{type(error).__name__}: {error}{hint}")
    return ExitCode.SOME_FAILED


def _complaint(error: typer.BadParameter) -> str:
    """What is wrong with the value of a parameter, and where that is from."""
    from pydantic import ValidationError

    from sr_cli.cli.parsing import origin

    ctx, param, cause = error.ctx, error.param, error.__cause__
    if ctx is None or param is None:
        return error.format_message()
    if not isinstance(cause, ValidationError):
        return error.format_message()
    place = origin(ctx, param.name)
    wrong = cause.errors()[0]
    if kind := NUMBERS.get(wrong["type"]):
        end = f" (from {place})." if place else "."
        return f"{param.opts[0]} must be {kind}, not {wrong['input']!r}{end}"
    return (
        f"Invalid value {wrong['input']!r} for {param.get_error_hint()}"
        f"{f' from {place}' if place else ''}: {wrong['msg'].removeprefix('Value error, ')}"
    )
