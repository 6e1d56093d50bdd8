"""The rows of `srx bench` and `srx compare`, from the words of a command line."""

from __future__ import annotations

import copy
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import fields
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from sr_cli.cli.parsing import SIZES, parse_list, upscale_options
from sr_cli.engine.options import UpscaleOptions
from sr_cli.errors import UsageError

if TYPE_CHECKING:
    from sr_cli.cli.machine import ResolvedMachine
    from sr_cli.evaluation.datasets import Pairs
    from sr_cli.evaluation.peers import Peer

DEFAULTS = "(defaults)"
DEFAULT_ROWS = ("", "--steps 3")
ROW_OPTIONS = {"preset", *(field.name for field in fields(UpscaleOptions))} - set(SIZES)


def engine_rows(
    ctx: typer.Context,
    steps: str | None,
    models: str | None,
    rows: Sequence[str] | None,
    *,
    default: Sequence[str] = DEFAULT_ROWS,
) -> dict[str, UpscaleOptions]:
    """Rows of srx by name: every model with every number of steps, and rows of options; those of
    `default` where none is asked for.

    The options are those of `srx upscale`, which parses them; what a row does not write is the
    default, whatever SRX_* variables and srx.toml say. Raises UsageError for wrong ones.
    """
    lists = [_flags("--model", models, "embedded,clean"), _flags("--steps", steps, "1,2,5")]
    texts = [" ".join(part for part in parts if part) for parts in product(*lists)]
    asked = (texts if steps or models else []) + list(rows or [])
    return {text or DEFAULTS: _parsed(ctx, text) for text in asked or default}


def _flags(name: str, text: str | None, example: str) -> list[str]:
    """An option once for each value of a list, or not at all."""
    values = () if text is None else parse_list(name, text, str, example=example)
    return [f"{name} {value}" for value in values] or [""]


def _parsed(ctx: typer.Context, text: str) -> UpscaleOptions:
    assert ctx.parent is not None
    command = copy.copy(ctx.parent.command.commands["upscale"])  # type: ignore[attr-defined]
    command.params = [copy.copy(parameter) for parameter in command.params]
    for parameter in command.params:
        parameter.envvar = None
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise UsageError(f"The row {text!r} cannot be read: {error}.") from error
    row = command.make_context("upscale", [*words, "-", "-"])
    strange = [str(file) for file in row.params["inputs"][:-1]]
    for parameter in command.params:
        source = row.get_parameter_source(parameter.name)
        if parameter.param_type_name == "option" and parameter.name not in ROW_OPTIONS:
            strange += [parameter.opts[0]] if source and source.name == "COMMANDLINE" else []
    if strange:
        raise UsageError(
            f"The row {text!r} cannot have {strange[0]}: images, sizes and files are those of "
            f"srx {ctx.info_name} itself."
        )
    return upscale_options(row)


def check(
    rows: Mapping[str, UpscaleOptions], compared: Sequence[Peer], sets: Sequence[Pairs]
) -> None:
    """Raise before anything is measured: ModelError for a --model that is none, UsageError for a
    texture without a dial and for results on disk that lack an image."""
    from sr_cli.engine.steps import check_texture
    from sr_cli.models.loading import DIFFUSION
    from sr_cli.models.preprocess import load_preprocessor
    from sr_cli.models.registry import card

    for options in rows.values():
        if options.alone:
            load_preprocessor(options.model)
        elif options.method == "dossr":
            check_texture(options, card(options.model, DIFFUSION))
    for peer in (peer for peer in compared if peer.reads):
        for pairs in sets:
            peer.make(pairs)


def methods(
    rows: Mapping[str, UpscaleOptions],
    peers: Sequence[str],
    machine: ResolvedMachine,
    *,
    baselines: bool,
    twice: bool = True,
) -> list[Peer]:
    """Everything that is compared, the quick ones first; `twice`: also what looks like another, as
    nearest does like the input and Real-ESRGAN by ncnn does like that by torch.

    Raises UsageError for a wrong --peer.
    """
    from sr_cli.evaluation.peers import engine, interpolation, network, through_ncnn

    device, dtype = machine.device, machine.dtype
    found = [engine(n, o, device=device, dtype=machine.asked_dtype) for n, o in rows.items()]
    if baselines:
        found = [
            *([interpolation("nearest")] if twice else []),
            interpolation("bicubic"),
            interpolation("lanczos"),
            network("compact alone", "compact", device=device, dtype=dtype),
            *found,
            network("Real-ESRGAN x4plus", "realesrgan", device=device, dtype=dtype),
            *([through_ncnn("Real-ESRGAN x4plus, ncnn")] if twice and device.type == "cpu" else []),
        ]
    return found + [_peer(text, machine) for text in peers]


def _peer(text: str, machine: ResolvedMachine) -> Peer:
    from sr_cli.evaluation.peers import network, stored
    from sr_cli.evaluation.programs import Command, program

    name, _, file = text.partition("=")
    path = Path(file).expanduser()
    if not name or not file:
        raise UsageError(f"--peer {text} must be NAME=FILE, NAME=FOLDER or NAME='COMMAND …'.")
    if "{" in file and "}" in file:
        return program(name, Command.parsed(file))
    if path.is_dir():
        return stored(name, path)
    if not path.is_file():
        raise UsageError(f"--peer {text}: there is no file or folder {path}.")
    return network(name, path, device=machine.device, dtype=machine.dtype)
