"""Defaults: from variables, and below them from srx.toml.

`upscale` reads SRX_STEPS and the keys at the top of srx.toml, any other command SRX_BENCH_STEPS and
its own table [bench]; options of COMMON are read by all of them as `upscale` reads them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any

import typer

from sr_cli.cli.ui import terminal
from sr_cli.errors import UsageError
from sr_cli.files import is_file

NAME = "srx.toml"
MAX_BYTES = 1 << 20
PLAIN = "upscale"
"""The command whose variables and keys bear no command's name."""
COMMON = frozenset(
    ("device", "dtype", "threads", "quiet", "verbose", "no_progress", "config", "no_config")
)
"""Options that mean the same in every command: what computes, how much is said, which file."""

LOOKS = frozenset(
    {
        *("scale", "size", "width", "height", "long_side", "short_side"),
        *("steps", "order", "variant", "last_step"),
        *("t1", "seed", "model", "method", "sampler", "schedule", "degradation", "color"),
        *("preprocess", "format", "quality", "texture", "preset"),
    }
)
"""What the srx.toml of the current folder may set, which came with somebody's pictures perhaps: how
results look. No paths, devices, networks or hubs, and nothing of what is overwritten or hidden."""


PREFIX = "SRX_"
FOLDERS = frozenset({"SRX_HOME", "SRX_WEIGHTS"})
"""Variables that no option stands for."""


def find() -> Path | None:
    """The first srx.toml of the current folder and of the user's configuration folder."""
    from platformdirs import user_config_path

    candidates = (Path(NAME), user_config_path("srx") / NAME)
    return next((path for path in candidates if is_file(path)), None)


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
    path: Path,
    table: dict[str, Any],
    command: str,
    known: Mapping[str, Mapping[str, tuple[Any, bool]]],
    place: str,
) -> Iterator[tuple[str, Any]]:
    """Parameters of `command` and their values; known: the keys of every command."""
    for key, value in table.items():
        plain = key.replace("-", "_")
        if plain not in known[command]:
            owners = [f"[{name}]" for name, keys in known.items() if plain in keys]
            hint = _one(nearest(plain, [*known[command], *(() if place else known)]))
            if owners and not place:
                hint = f": it belongs in {' or '.join(owners)}"
            raise UsageError(f"The config file {path} has an unknown key {key!r}{place}{hint}.")
        param, opposite = known[command][plain]
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

    A key is an option's long name, with - or _. At the top stand options of `upscale`, of which
    other commands take those of COMMON.

    Raises:
        UsageError: the file cannot be read, or has a key that no option has.
    """
    known = {name: _options(command) for name, command in commands.items()}
    document = read(path)
    tables = {name: document.pop(name) for name in commands if isinstance(document.get(name), dict)}
    top = dict(_entries(path, document, PLAIN, known, ""))
    own = {
        name: dict(_entries(path, table, name, known, f" in [{name}]"))
        for name, table in tables.items()
    }
    if chosen != PLAIN:
        usable = COMMON & {param.name for param, _ in known[chosen].values()}
        top = {name: value for name, value in top.items() if name in usable}
    return top | own.get(chosen, {})


def name_variables(commands: Mapping[str, Any], prefix: str = PREFIX) -> None:
    """Give the options of every command but `upscale` variables of their own, as SRX_BENCH_STEPS.

    Those of COMMON, and those that have no variable, stay as they are.
    """
    for name, command in commands.items():
        if prefix == PREFIX and name == PLAIN:
            continue
        own = f"{prefix}{name.replace('-', '_').upper()}_"
        for param in command.params:
            if param.envvar and param.name not in COMMON:
                param.envvar = own + param.envvar.removeprefix(PREFIX)
        name_variables(getattr(command, "commands", {}), own)


def variables(commands: Iterable[Any]) -> set[str]:
    """The variables that these commands read, and those below them."""
    found = set(FOLDERS)
    for command in commands:
        found |= {param.envvar for param in command.params if param.envvar}
        found |= variables(getattr(command, "commands", {}).values())
    return found


def misspelt(chosen: Any, commands: Mapping[str, Any]) -> list[str]:
    """Sentences on variables that look like srx's and that no command reads, with the nearest that
    one does; chosen: the command that runs, whose variables need none of the others."""
    there = {name for name in os.environ if name.startswith(PREFIX)} - variables([chosen])
    if not there:
        return []
    known = variables(commands.values())
    words = {name.removeprefix(PREFIX) for name in known}
    found = []
    for name in sorted(there - known):
        near = nearest(name.removeprefix(PREFIX), words)
        found.append(f"No command of srx reads the variable {name}{_one(near and PREFIX + near)}.")
    return found


def nearest(word: str, words: Iterable[str]) -> str:
    """What was meant, perhaps, or nothing."""
    return next(iter(get_close_matches(word, words, n=1)), "")


def _one(name: str) -> str:
    return f": {name} is one" if name else ""


def apply(ctx: typer.Context, path: Path | None) -> Path | None:
    """Typer callback: make the file's values the defaults of the command that is being parsed."""
    if ctx.params.get("no_config"):
        if path is not None:
            raise UsageError("--config and --no-config contradict each other: leave one out.")
        return None
    terminal.deferred.clear()
    chosen, path = path is not None, path or find()
    if path is not None and ctx.parent is not None and ctx.info_name is not None:
        commands = ctx.parent.command.commands  # type: ignore[attr-defined]
        values = defaults(path, commands, ctx.info_name)
        if not chosen and path == Path(NAME):
            values = _harmless(values)
        ctx.default_map = values
    return path


def _harmless(values: dict[str, Any]) -> dict[str, Any]:
    """The values that a stranger may set, and a note on the others."""
    taken = {name: value for name, value in values.items() if _is_look(name, value)}
    line = f"{NAME} of this folder sets {', '.join(sorted(taken)) or 'nothing'}"
    if ignored := sorted(values.keys() - taken.keys()):
        line += f", but may not set {', '.join(ignored)} (--config {NAME} trusts it)"
    terminal.deferred.append(f"{line}.")
    return taken


def _is_look(name: str, value: Any) -> bool:
    """Whether a value is of LOOKS; names of networks are no paths."""
    if name in ("model", "preprocess") and not re.fullmatch(r"[A-Za-z0-9][\w-]*", str(value)):
        return False
    return name in LOOKS


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
