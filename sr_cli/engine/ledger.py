"""What is known of remote results, in small objects beside them that no two runs share.

There is one for each result, put before the result itself; and instead of these, every now and then
and at the end of a run, one for many.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections import defaultdict
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from itertools import chain
from typing import Any, Final
from uuid import uuid4

from sr_cli import __version__
from sr_cli.engine.events import Finished
from sr_cli.engine.manifest import Recipe, file_of
from sr_cli.engine.store import FOLDER, Store, reaching, tag_of

EVERY: Final = 500
"""Results whose objects become one."""


@dataclass(frozen=True, slots=True)
class _Made:
    """Of a line: options and networks, the input's tag, the result, and its tag if it is known."""

    recipe: tuple[Any, Any]
    source: str
    sha256: str
    bytes: int
    tag: str | None


class Ledger:
    """What is known of remote results; `publish` puts one, and `close` ends.

    Raises InputError where the remote folder cannot be read.
    """

    def __init__(self, store: Store) -> None:
        self.store, self.fs = store, store.fs
        self.done: defaultdict[str, list[_Made]] = defaultdict(list)
        self._folder = f"{store.root}/{FOLDER}"
        self._run = f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{uuid4().hex[:8]}"
        self._count = 0
        self._fresh: list[dict[str, Any]] = []
        self._journal: list[str] = []
        self._lock = threading.Lock()
        with reaching(store.address):
            paths = self.fs.find(self._folder)
            found = self.fs.cat(paths) if paths else {}
        for line in chain.from_iterable(found[path].splitlines() for path in sorted(found)):
            with suppress(ValueError, TypeError, KeyError, RecursionError):
                self._take(json.loads(line))

    def _take(self, line: Any) -> None:
        if not isinstance(line, dict):
            return
        if line.get("status") == "done":
            result, recipe = line["result"], (line.get("options"), line.get("networks"))
            made = _Made(
                recipe, line["source_tag"], result["sha256"], result["bytes"], line.get("tag")
            )
            self.done[line["output"]].append(made)

    def matching(self, name: str, info: Mapping[str, Any]) -> list[_Made]:
        """Lines of exactly the result that is there; it is fetched where a run was killed before
        its tag was known."""
        lines = self.done.get(name, [])
        found = [made for made in lines if made.tag is not None and made.tag == tag_of(info)]
        if found:
            return found
        unsure = [made for made in lines if made.tag is None and made.bytes == info.get("size")]
        if not unsure:
            return []
        with reaching(self.store.address / name):
            sha256 = hashlib.sha256(self.fs.cat_file(self.store.place(name))).hexdigest()
        return [made for made in unsure if made.sha256 == sha256]

    def publish(
        self, name: str, finished: Finished, recipe: Recipe, source: str, *, inputs: str
    ) -> None:
        """Put a result, which is in a temporary file; inputs: the name of its input.

        Raises InputError where that is impossible, or something of its name has appeared.
        """
        job, place = finished.job, self.store.place(name)
        line = self._line(
            "done",
            name,
            inputs,
            options=recipe.options,
            networks=recipe.networks,
            source_tag=source,
            result=asdict(file_of(job.output)),
            size_in=finished.size_in,
            size_out=finished.size_out,
            seconds=round(finished.seconds, 3),
        )
        with reaching(self.store.address / name):
            if not job.replaces and self.fs.exists(place):
                raise FileExistsError(place)  # which not every server tells of itself
            entry = f"{self._folder}/{self._run}-{uuid4().hex[:8]}.json"
            self.fs.pipe_file(entry, json.dumps(line).encode())
            mode = "overwrite" if job.replaces else "create"
            self.fs.put_file(str(job.output), place, mode=mode)
            line["tag"] = tag_of(self.fs.info(place))
        with self._lock:
            self._fresh.append(line)
            self._journal.append(entry)
        if len(self._fresh) >= EVERY:
            self._gather()

    def failed(self, name: str, inputs: str, reason: str) -> None:
        """Tell of a picture that failed."""
        with self._lock:
            self._fresh.append(self._line("failed", name, inputs, reason=reason[:1000]))

    def start(self, pictures: int) -> None:
        """Tell that a run begins, and how many pictures it has to do."""
        with self._lock:
            self._fresh.append(
                {"status": "run", "pictures": pictures, "time": self._now(), "srx": __version__}
            )

    def close(self) -> None:
        """Put what is not put yet."""
        if self._fresh:
            self._gather()

    def _line(self, status: str, name: str, inputs: str, **facts: Any) -> dict[str, Any]:
        head = {"status": status, "output": name, "input": inputs}
        return {**head, **facts, "time": self._now(), "srx": __version__}

    @staticmethod
    def _now() -> str:
        return datetime.now(UTC).isoformat(timespec="milliseconds")

    def _gather(self) -> None:
        with self._lock:
            lines, self._fresh = self._fresh, []
            entries, self._journal = self._journal, []
        self._count += 1
        text = "".join(json.dumps(line) + "\n" for line in lines)
        with reaching(self.store.address / FOLDER):
            self.fs.pipe_file(f"{self._folder}/{self._run}-{self._count:05}.jsonl", text.encode())
            if entries:
                self.fs.rm(entries)
