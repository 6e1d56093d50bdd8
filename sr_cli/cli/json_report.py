"""What became of files, as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sr_cli.engine.events import Failed, Finished, Outcome, Planned, Skipped


def record(outcome: Outcome) -> dict[str, Any]:
    """One file's outcome for JSON."""
    files = {"input": str(outcome.job.input), "output": str(outcome.job.output)}
    match outcome:
        case Failed():
            return files | {"error": outcome.reason}
        case Skipped():
            return files | {"reason": outcome.reason}
        case Planned():
            return files | {"size_in": outcome.size_in, "size_out": outcome.size_out}
        case Finished():
            return files | {
                "size_in": outcome.size_in,
                "size_out": outcome.size_out,
                "seconds": outcome.seconds,
                "megapixels_per_second": outcome.megapixels_per_second,
                "peak_memory_bytes": outcome.peak_memory,
                "notes": outcome.notes,
            }


def document(settings: dict[str, Any], found: dict[str, Any], outcomes: Sequence[Outcome]) -> Any:
    """The JSON report: options, environment and the files by how they ended."""
    kinds = {"results": Finished, "planned": Planned, "failures": Failed, "skipped": Skipped}
    return {"options": settings, "environment": found} | {
        key: [record(outcome) for outcome in outcomes if isinstance(outcome, kind)]
        for key, kind in kinds.items()
    }
