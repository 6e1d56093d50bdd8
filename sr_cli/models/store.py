"""The folder of installed models: each is a folder of its own that appears whole or not at all.

HOME/models/NAME/           NAME.json, NAME.md and the safetensors files that the card lists
HOME/models/.NAME.partial/  a model under construction; the same import goes on there
HOME/downloads/             checkpoints that are being fetched
"""

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sr_cli.errors import ModelError
from sr_cli.files import digest, home, is_file_name, whole, writing

MANIFEST = "import.json"
Progress = Callable[[str, int, int | None], None]
"""Told what is being done, how many bytes of it are done, and of how many (None: unknown)."""


@dataclass(frozen=True)
class Shard:
    """What is known of one file of a model: SHA-256 in hexadecimal, and its size in bytes."""

    sha256: str
    bytes: int


def installed() -> tuple[Path, ...]:
    """The folders of installed models, sorted; what is under construction is none."""
    found = (home() / "models").glob("[!.]*/")
    return tuple(sorted(path for path in found if path.is_dir()))


class Staging:
    """A model under construction, file by file.

    origin: what decides its content, as JSON; files of another origin are thrown away, those of
    the same one are kept, so that an interrupted import goes on with the first missing file.
    Raises ModelError where the folder cannot be written.
    """

    def __init__(self, name: str, origin: Mapping[str, Any]) -> None:
        self.target = home() / "models" / name
        self.folder = self.target.with_name(f".{name}.partial")
        self.shards: dict[str, Shard] = {}
        self._origin = json.loads(json.dumps(origin))
        if self.folder.is_dir() and not self._resume():
            with writing(self.folder.parent):
                shutil.rmtree(self.folder)

    def add(self, file: str, write: Callable[[Path], None]) -> Shard:
        """Have `write` make a file, unless that was done before; it appears only when whole."""
        if file not in self.shards:
            with writing(self.folder):
                try:
                    with whole(self.folder / file) as partial:
                        write(partial)
                        shard = Shard(digest(partial), partial.stat().st_size)
                except ModelError:  # the content will not do, so another try would fail too
                    shutil.rmtree(self.folder)
                    raise
                self.shards[file] = shard
                self._save_manifest()
        return self.shards[file]

    def install(self) -> Path:
        """Make the model visible, as the last step; its folder."""
        with writing(self.folder):
            for leftover in (self.folder / MANIFEST, *self.folder.glob(".*.partial")):
                leftover.unlink(missing_ok=True)
            self.folder.rename(self.target)
        return self.target

    def _resume(self) -> bool:
        """Whether the folder is of this origin; then `shards` gets the files that are whole."""
        try:
            manifest = json.loads((self.folder / MANIFEST).read_text("utf-8"))
            shards = {name: Shard(**shard) for name, shard in manifest["files"].items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return False
        if manifest["origin"] != self._origin:
            return False
        for name, shard in shards.items():
            path = self.folder / name
            if is_file_name(name) and path.is_file() and path.stat().st_size == shard.bytes:
                self.shards[name] = shard
        return True

    def _save_manifest(self) -> None:
        files = {name: asdict(shard) for name, shard in self.shards.items()}
        with whole(self.folder / MANIFEST) as partial:
            partial.write_text(json.dumps({"origin": self._origin, "files": files}), "utf-8")
