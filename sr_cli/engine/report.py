"""What the manifests beside results tell, of all shards together: the last word on each result."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from sr_cli.engine.manifest import parts, read_lines
from sr_cli.errors import UsageError

State = Literal["done", "failed", "unfinished", "missing", "changed"]
STATES: dict[str, State] = {"begun": "unfinished", "done": "done", "failed": "failed"}


@dataclass(frozen=True)
class Entry:
    """The last word on a result.

    output: below the folder. input: as the run named it. state: missing or changed where the result
    that was made is not there any more, or is of another length; unfinished where a run works on it
    or ended without a word. shard: K/N of the run, or "". Sizes are (width, height), bytes those of
    the result; all of them, and the seconds, None where the line does not tell.
    """

    output: str
    input: str
    state: State
    time: str
    shard: str = ""
    size_in: tuple[int, int] | None = None
    size_out: tuple[int, int] | None = None
    seconds: float | None = None
    bytes: int | None = None
    reason: str = ""


@dataclass(frozen=True)
class Report:
    """All results of a folder in the order of their names.

    left: pictures that the last run, or the last of each of its shards, has not come to. silent:
    the shards of that run which have told nothing.
    """

    entries: list[Entry]
    left: int
    silent: list[str]

    @property
    def complete(self) -> bool:
        """Whether all was done, and is there."""
        done = all(entry.state == "done" for entry in self.entries)
        return done and not self.left and not self.silent


def read(folder: Path) -> Report:
    """The manifests of a folder, joined. Raises UsageError where there is none."""
    files = parts(folder)
    if not files:
        what = f"no manifest in {folder}" if folder.is_dir() else f"no folder {folder}"
        raise UsageError(f"There is {what}: name a folder that srx upscale wrote results to.")
    found = [_Part.of(path) for path in files]
    last: dict[str, Entry] = {}
    for part in found:
        for output, entry in part.entries.items():
            if output not in last or last[output].time <= entry.time:
                last[output] = entry
    latest = max(found, key=lambda part: part.begun)
    together = [part for part in found if part.count == latest.count]
    numbers = {part.number for part in together}
    silent = [f"{k}/{latest.count}" for k in range(1, latest.count + 1) if k not in numbers]
    told = {o for p in together for o, time in p.told.items() if p.begun or time >= latest.begun}
    left = max(0, sum(part.pictures for part in together) - len(told))
    return Report([_checked(folder, last[output]) for output in sorted(last)], left, silent)


@dataclass
class _Part:
    """One file: its shard (count 0: of a whole run), the last words on its results, when its last
    run began and how many pictures that had to do, and of which results it has told since, when."""

    number: int
    count: int
    entries: dict[str, Entry]
    begun: str = ""
    pictures: int = 0
    told: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, path: Path) -> _Part:
        match = re.search(r"\.(\d+)-of-(\d+)\.jsonl$", path.name)
        part = cls(int(match[1]), int(match[2]), {}) if match else cls(0, 0, {})
        shard = f"{match[1]}/{match[2]}" if match else ""
        for line, _ in read_lines(path):
            if not isinstance(line, dict):
                continue
            if line.get("status") == "run" and isinstance(line.get("pictures"), int):
                part.pictures, part.begun = line["pictures"], str(line.get("time"))
                part.told.clear()
            elif entry := _entry(line, shard):
                part.entries[entry.output] = entry
                part.told[entry.output] = entry.time
        return part


def _entry(line: dict[str, Any], shard: str) -> Entry | None:
    state, output, source = (line.get(key) for key in ("status", "output", "input"))
    state = STATES.get(state) if isinstance(state, str) else None
    if state is None or not (isinstance(output, str) and isinstance(source, str)):
        return None
    result, seconds = line.get("result"), line.get("seconds")
    length = result.get("bytes") if isinstance(result, dict) else None
    return Entry(
        output,
        source,
        state,
        str(line.get("time")),
        shard,
        _size(line.get("size_in")),
        _size(line.get("size_out")),
        seconds if isinstance(seconds, int | float) else None,
        length if isinstance(length, int) else None,
        str(line.get("reason", "")),
    )


def _size(value: object) -> tuple[int, int] | None:
    match value:
        case [int(width), int(height)]:
            return width, height
    return None


def _checked(folder: Path, entry: Entry) -> Entry:
    if entry.state != "done":
        return entry
    try:
        length = (folder / entry.output).lstat().st_size
    except (OSError, ValueError):
        return replace(entry, state="missing")
    same = entry.bytes is None or length == entry.bytes
    return entry if same else replace(entry, state="changed")
