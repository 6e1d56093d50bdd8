"""`srx doctor`: what is there, what is missing, and the command that mends it."""

from __future__ import annotations

from dataclasses import asdict

import typer

from sr_cli.cli import options as shared
from sr_cli.cli.config import ConfigOption, NoConfigOption
from sr_cli.cli.ui import terminal
from sr_cli.errors import ExitCode

WIDEST = 140
"""Columns of the table where there is no terminal, so that a pager or an issue can show it."""


def doctor(
    device: shared.Device = "auto",
    as_json: shared.Json = False,
    verbose: shared.Verbose = False,
    no_config: NoConfigOption = False,
    config: ConfigOption = None,
) -> None:
    """Say what is there, what is broken, and what mends it.

    Exit codes: 0 nothing is broken, 1 packages, 3 weights, 4 the device. Nothing is changed.
    """
    terminal.talk(quiet=False, verbose=verbose)
    from sr_cli.cli.health import examine

    findings = list(examine(device))
    broken = [finding for finding in findings if finding.state == "broken"]
    code = broken[0].exit_code if broken else ExitCode.DONE
    if as_json:
        records = [asdict(finding) | {"exit_code": int(finding.exit_code)} for finding in findings]
        for record, finding in zip(records, findings, strict=True):
            if finding.state != "broken":
                del record["exit_code"]
        terminal.document({"broken": len(broken), "findings": records})
    else:
        rows = [(f.state, f.what, f.found, f.mend) for f in findings]
        terminal.grid(("state", "what", "found", "what mends it"), rows, widest=WIDEST)
        terminal.note(f"{len(broken)} broken" if broken else "Nothing is broken.")
    raise typer.Exit(code)
