"""What became of files, as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from sr_cli.cli.event_lines import line_of
from sr_cli.engine.events import Failed, Finished, Outcome, Planned, Skipped


def record(outcome: Outcome) -> dict[str, Any]:
    """One file's outcome for JSON: its event line, but for the kind, which its list says."""
    found = asdict(line_of(outcome))
    del found["event"]
    return found


def document(settings: dict[str, Any], found: dict[str, Any], outcomes: Sequence[Outcome]) -> Any:
    """The JSON report: options, environment and the files by how they ended."""
    kinds = {"results": Finished, "planned": Planned, "failures": Failed, "skipped": Skipped}
    return {"options": settings, "environment": found} | {
        key: [record(outcome) for outcome in outcomes if isinstance(outcome, kind)]
        for key, kind in kinds.items()
    }
