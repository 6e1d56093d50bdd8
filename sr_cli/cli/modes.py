"""Options of `srx upscale` that exclude each other, or places where results go."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from sr_cli.errors import UsageError

FLAGS: Final = {
    "watch": "--watch",
    "shard": "--shard",
    "cluster": "--cluster",
    "dry_run": "--dry-run",
    "as_json": "--json",
    "json_events": "--json-events",
    "contact": "--contact",
}
"""By parameter."""
EXCLUSIVE: Final = {
    ("--shard", "--cluster"): "both share the files out",
    ("--json", "--json-events"): "both want stdout",
}
NOT_WATCHED: Final = ("--dry-run", "--shard", "--cluster")
"""What --watch contradicts."""
NOT_REMOTE: Final = ("--dry-run", "--watch", "--cluster", "--contact")
"""What an output that is no folder of this machine contradicts."""
NOT_ON_STDOUT: Final = ("--json", "--json-events", "--shard", "--cluster", "--contact")
"""What an output on stdout contradicts."""


def asked_modes(params: Mapping[str, Any]) -> list[str]:
    """The flags that a parsed command line has. Raises UsageError where two exclude each other."""
    asked = [flag for name, flag in FLAGS.items() if params[name]]
    for (one, other), reason in EXCLUSIVE.items():
        if one in asked and other in asked:
            raise UsageError(f"{one} and {other} {reason}: choose one.")
    return asked


def among(asked: Iterable[str], kinds: Iterable[str]) -> list[str]:
    """The flags that are of some kind."""
    return [flag for flag in asked if flag in kinds]
