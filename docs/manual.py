"""The manual page and the completion scripts of srx, made from its commands: `make man`.

They lie in docs/share/ and are installed with the wheel; a test notices where they are out of step.
"""

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer
import typer.completion

from sr_cli.cli.app import app
from sr_cli.errors import ExitCode

SHARE = Path(__file__).parents[1] / "docs" / "share"
COMPLETIONS = {
    "bash": "bash-completion/completions/srx",
    "zsh": "zsh/site-functions/_srx",
    "fish": "fish/vendor_completions.d/srx.fish",
}
CODES = {
    ExitCode.DONE: "All is done.",
    ExitCode.SOME_FAILED: "Some inputs failed; the rest is done.",
    ExitCode.WRONG_USAGE: "An option or argument makes no sense.",
    ExitCode.MODEL: "A model or its weights are missing or damaged.",
    ExitCode.DEVICE: "The device is missing, or its memory does not suffice.",
    ExitCode.INTERRUPTED: "Interrupted; the same command goes on.",
}
VARIABLES = {
    "SRX_HOME": "Where models, calibrations and large temporary files go.",
    "SRX_WEIGHTS": "A folder of models that is searched first.",
    "SRX_CONFIG": "A file of defaults, as --config names one.",
    "SRX_<OPTION>": "The default of an option of srx upscale, such as SRX_STEPS; those of other "
    "commands bear their name, such as SRX_BENCH_METRICS.",
}
FILES = {
    "srx.toml": "Defaults, in the user's configuration folder.",
    ".srx-manifest.jsonl": "Beside results: what they were made of.",
}


def escaped(text: str) -> str:
    """Text as roff takes it, in ASCII: one paragraph, whose dashes can be copied."""
    line = " ".join(text.split()).replace("\\", r"\e").replace("-", r"\-").replace("'", r"\(aq")
    line = "".join(c if c.isascii() else rf"\[u{ord(c):04X}]" for c in line)
    return rf"\&{line}" if line.startswith((".", r"\(aq")) else line


def default_of(param: Any) -> str:
    """What help says of an option's default, or ""."""
    if isinstance(param.show_default, str):
        return param.show_default
    if param.default in (None, False, ()) or param.is_flag:
        return ""
    return str(param.default)


def entry(param: Any, ctx: typer.Context) -> list[str]:
    """An option or argument with its help."""
    value = param.metavar or param.display_type(ctx)
    if param.param_type_name == "argument":
        names = rf"\fI{escaped(value)}\fP"
    else:
        names = ", ".join(
            rf"\fB{escaped(name)}\fP" for name in (*param.opts, *param.secondary_opts)
        )
        names += "" if param.is_flag else rf" \fI{escaped(value.strip('<>'))}\fP"
    default = default_of(param) if param.param_type_name == "option" else ""
    text = (param.help or "") + (f" Default: {default}." if default else "")
    return [".TP", names, escaped(text)]


def section(name: str, command: Any, parent: typer.Context) -> Iterator[str]:
    """A command with its options by panel, then its sub-commands."""
    ctx = typer.Context(command, info_name=name.rpartition(" ")[2], parent=parent)
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    usage = " ".join(["[OPTIONS]", *(str(p.metavar) for p in arguments)])
    inner: dict[str, Any] = dict(getattr(command, "commands", {}))
    yield f'.SS "{escaped(name)} {escaped("COMMAND" if inner else usage)}"'
    for paragraph in inspect.cleandoc(command.help or "").split("\n\n"):
        yield from (".PP", escaped(paragraph))
    panel = None
    for param in command.params:
        if param.param_type_name == "option" and param.rich_help_panel != panel:
            panel = param.rich_help_panel
            yield from (".PP", rf"\fI{escaped(panel or 'Options')}\fP")
        yield from entry(param, ctx)
    for own, below in inner.items():
        yield from section(f"{name} {own}", below, ctx)


def page() -> str:
    """The manual page, in roff's macros `man`."""
    root: Any = typer.main.get_command(app)
    ctx = typer.Context(root, info_name="srx")
    lines = [
        '.TH SRX 1 "" srx "User commands"',
        ".SH NAME",
        r"srx \- enlarge photographs by domain\-shift diffusion",
        ".SH SYNOPSIS",
        r"\fBsrx\fP \fICOMMAND\fP [\fIOPTIONS\fP] [\fIARGUMENTS\fP]",
        ".PP",
        r"\fBsrx upscale\fP \fIin/\fP \fIout/\fP",
        ".SH DESCRIPTION",
        "Enlarges folders of photographs by any factor, offline, on a CPU or a GPU.",
        escaped("srx COMMAND --help shows the same as this page of one command."),
        ".SH COMMANDS",
    ]
    for name, command in root.commands.items():
        lines += section(f"srx {name}", command, ctx)
    lines.append('.SH "EXIT STATUS"')
    for code, meaning in CODES.items():
        lines += [".TP", str(int(code)), escaped(meaning)]
    lines.append(".SH ENVIRONMENT")
    for variable, meaning in VARIABLES.items():
        lines += [".TP", rf"\fB{escaped(variable)}\fP", escaped(meaning)]
    lines.append(".SH FILES")
    for file, meaning in FILES.items():
        lines += [".TP", escaped(file), escaped(meaning)]
    return "\n".join(lines) + "\n"


def files() -> dict[Path, str]:
    """What docs/share/ holds, by its path there."""
    made = {Path("man/man1/srx.1"): page()}
    for shell, place in COMPLETIONS.items():
        script = typer.completion.get_completion_script(
            prog_name="srx", complete_var="_SRX_COMPLETE", shell=shell
        )
        made[Path(place)] = script.strip() + "\n"
    return made


if __name__ == "__main__":
    for path, text in files().items():
        (SHARE / path).parent.mkdir(parents=True, exist_ok=True)
        (SHARE / path).write_text(text, "utf-8")
