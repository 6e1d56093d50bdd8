"""Values as people read them."""

from __future__ import annotations

from sr_cli.engine.events import Failed


def size(pair: tuple[int, int]) -> str:
    """(640, 480) as 640x480."""
    return f"{pair[0]}x{pair[1]}"


def mebibytes(count: int) -> str:
    """Bytes as MiB."""
    return f"{count / 2**20:.0f} MiB"


def printable(text: str) -> str:
    """In one line: control characters, which file names may hold, are escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def complaint(failure: Failed) -> str:
    """Why a file failed, as a sentence that names it."""
    name, reason = str(failure.job.input), failure.reason
    return reason if name in reason else f"{name}: {reason}"
