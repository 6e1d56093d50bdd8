"""Values as people read them."""

from __future__ import annotations

from sr_cli.engine.events import Failed

SPELT = {"→": "->", "×": "x", "²": "^2", "…": "...", "–": "-", "≥": ">=", "µ": "u"}
"""What srx says in signs that not every encoding has."""


def size(pair: tuple[int, int]) -> str:
    """(640, 480) as 640x480."""
    return f"{pair[0]}x{pair[1]}"


def mebibytes(count: int) -> str:
    """Bytes as MiB."""
    return f"{count / 2**20:.0f} MiB"


def printable(text: str) -> str:
    """In one line: control characters, which file names may hold, are escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def spelt(error: UnicodeError) -> tuple[str, int]:
    """Handler of codecs: signs and names that an encoding lacks, in signs that it has."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lost = error.object[error.start : error.end]
    return "".join(SPELT.get(c) or escaped(c) for c in lost), error.end


def escaped(sign: str) -> str:
    """A sign by its number."""
    return sign.encode("ascii", "backslashreplace").decode("ascii")


def complaint(failure: Failed) -> str:
    """Why a file failed, as a sentence that names it."""
    name, reason = str(failure.job.input), failure.reason
    return reason if name in reason else f"{name}: {reason}"
