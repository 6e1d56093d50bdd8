"""Defaults from srx.toml: below the command line and SRX_* variables, above the built-in ones."""

from __future__ import annotations

import re
from collections import ChainMap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from sr_cli.cli.ui import terminal
from sr_cli.errors import UsageError

NAME = "srx.toml"
MAX_BYTES = 1 << 20


LOOKS = frozenset(
    {
        *("scale", "size", "long_side", "short_side", "steps", "order", "variant", "last_step"),
        *("t1", "seed", "model", "method", "sampler", "schedule", "degradation", "color"),
        *("preprocess", "format", "quality", "texture"),
    }
)
"""What the srx.toml of the current folder may set, which came with somebody's pictures perhaps: how
results look. No paths, devices, networks or hubs, and nothing of what is overwritten or hidden."""
_untold: list[str] = []


def find() -> Path | None:
    """The first srx.toml of the current folder and of the user's configuration folder."""
    from platformdirs import user_config_path

    candidates = (Path(NAME), user_config_path("srx") / NAME)
    return next((path for path in candidates if path.is_file()), None)


def read(path: Path) -> dict[str, Any]:
    """The file's content.

    Raises:
        UsageError: it is missing or no TOML.
    """
    import tomllib

    try:
        if path.stat().st_size > MAX_BYTES:
            raise UsageError(f"The config file {path} is larger than {MAX_BYTES} bytes.")
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"The config file {path} cannot be read: {error.strerror}.") from error
    except (ValueError, RecursionError) as error:  # TOMLDecodeError and UnicodeDecodeError too
        raise UsageError(f"The config file {path} is no valid TOML: {error}.") from error


def _options(command: Any) -> dict[str, tuple[Any, bool]]:
    """Keys that a file may hold: the parameter behind each, and whether it means its opposite."""
    return {
        opt[2:].replace("-", "_"): (param, opt in param.secondary_opts)
        for param in command.params
        if param.param_type_name == "option"
        for opt in (*param.opts, *param.secondary_opts)
        if opt.startswith("--") and opt not in ("--config", "--no-config")
    }


def _entries(
    path: Path, table: dict[str, Any], known: Mapping[str, tuple[Any, bool]], place: str
) -> Iterator[tuple[str, Any]]:
    for key, value in table.items():
        param, opposite = known.get(key.replace("-", "_"), (None, False))
        if param is None:
            raise UsageError(f"The config file {path} has an unknown key {key!r}{place}.")
        try:
            yield param.name, _converted(value, param, opposite=opposite)
        except ValueError as error:
            where = f"{key!r}{place}"
            raise UsageError(f"The config file {path} has no {error} for {where}.") from error


def _converted(value: Any, param: Any, *, opposite: bool) -> Any:
    """A value as Typer takes it. Raises ValueError that says what it should have been."""
    if param.is_flag:
        if isinstance(value, bool):
            return value != opposite
        raise ValueError("true or false")
    if param.multiple:
        if isinstance(value, list) and all(isinstance(text, str) for text in value):
            return value
        raise ValueError("list of texts")
    if isinstance(value, int | float | str) and not isinstance(value, bool):
        return str(value)
    raise ValueError("number or text")


def defaults(path: Path, commands: dict[str, Any], chosen: str) -> dict[str, Any]:
    """Defaults for the command `chosen`: keys at the top, then those of its own [table].

    A key is an option's long name, with - or _. At the top stands what some command knows.

    Raises:
        UsageError: the file cannot be read, or has a key that no option has.
    """
    known = {name: _options(command) for name, command in commands.items()}
    document = read(path)
    tables = {name: document.pop(name) for name in commands if isinstance(document.get(name), dict)}
    shared = dict(_entries(path, document, ChainMap(*known.values()), ""))
    own = {
        name: dict(_entries(path, table, known[name], f" in [{name}]"))
        for name, table in tables.items()
    }
    usable = {param.name for param, _ in known[chosen].values()}
    return {name: v for name, v in shared.items() if name in usable} | own.get(chosen, {})


def apply(ctx: typer.Context, path: Path | None) -> Path | None:
    """Typer callback: make the file's values the defaults of the command that is being parsed."""
    if ctx.params.get("no_config"):
        if path is not None:
            raise UsageError("--config and --no-config contradict each other: leave one out.")
        return None
    _untold.clear()
    chosen, path = path is not None, path or find()
    if path is not None and ctx.parent is not None and ctx.info_name is not None:
        commands = ctx.parent.command.commands  # type: ignore[attr-defined]
        values = defaults(path, commands, ctx.info_name)
        if not chosen and path == Path(NAME):
            values = _harmless(values)
        ctx.default_map = values
    return path


def _harmless(values: dict[str, Any]) -> dict[str, Any]:
    """The values that a stranger may set, and a line on the others for `tell`."""
    taken = {name: value for name, value in values.items() if _is_look(name, value)}
    line = f"{NAME} of this folder sets {', '.join(sorted(taken)) or 'nothing'}"
    if ignored := sorted(values.keys() - taken.keys()):
        line += f", but may not set {', '.join(ignored)} (--config {NAME} trusts it)"
    _untold.append(f"{line}.")
    return taken


def _is_look(name: str, value: Any) -> bool:
    """Whether a value is of LOOKS; names of networks are no paths."""
    if name in ("model", "preprocess") and not re.fullmatch(r"[A-Za-z0-9][\w-]*", str(value)):
        return False
    return name in LOOKS


def tell() -> None:
    """Say that the file of this folder was read, once it is known how much is wanted told."""
    while _untold:
        terminal.note(_untold.pop())


NoConfigOption = Annotated[
    bool,
    typer.Option(
        "--no-config",
        is_eager=True,
        envvar="SRX_NO_CONFIG",
        show_envvar=False,
        help="Read no srx.toml.",
        rich_help_panel="Reports and defaults",
    ),
]

ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE",
        callback=apply,
        is_eager=True,
        envvar="SRX_CONFIG",
        help="Defaults in TOML; without it the user's srx.toml is read, and of ./srx.toml what "
        "results look like.",
        rich_help_panel="Reports and defaults",
    ),
]
