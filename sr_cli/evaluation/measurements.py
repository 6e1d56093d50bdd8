"""What has been measured, kept in a file, so that an interrupted measurement goes on."""

import hashlib
import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from sr_cli import __version__
from sr_cli.diffusion.noise import digest
from sr_cli.engine.upscaler import Upscaler
from sr_cli.errors import InputError, UsageError
from sr_cli.evaluation.metrics import Metrics
from sr_cli.files import digest as file_digest
from sr_cli.models.registry import card, names


@dataclass(frozen=True)
class Measured:
    """One image under one setting: its metrics (None: not defined), and the seconds it took."""

    scores: Mapping[str, float | None]
    seconds: float


def key(*parts: object) -> str:
    """SHA-256 of all that a measurement depends on; parts are what JSON can hold."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def conditions(engine: Upscaler, metrics: Metrics, varied: Collection[str]) -> dict[str, Any]:
    """All that a measurement depends on, but for the images and the options named in `varied`."""
    model = engine.model
    return {
        "versions": [__version__, torch.__version__],
        "options": {k: v for k, v in engine.options.recorded.items() if k not in varied},
        "weights": dict(_weights(engine)),
        "card": [digest(model.alpha_bar).hex(), model.last_step, engine.texture],
        "machine": [engine.device, engine.dtype, torch.get_num_threads()],
        "metrics": [sorted(set(metrics.names) - set(metrics.missing)), metrics.border],
    }


def _weights(engine: Upscaler) -> Iterator[tuple[str, str]]:
    yield "model", engine.model.identity
    chosen = engine.options.preprocess or engine.model.preprocess
    if chosen in names():
        yield "preprocess", card(str(chosen)).identity
    elif isinstance(chosen, str) and Path(chosen).is_file():
        yield "preprocess", file_digest(Path(chosen))


class Measurements:
    """Measurements by key: one JSON object a line, each written as soon as it is there.

    A line that a killed process left unfinished is passed over. Without a `path` nothing is kept.
    Raises UsageError for a `path` that cannot be read or written, `put` InputError when it later
    cannot.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._known: dict[str, Measured] = {}
        if path:
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                self._read(path)
            except OSError as error:
                raise UsageError(self._failure(error)) from error

    def get(self, key: str) -> Measured | None:
        """What was measured under this key, if it was."""
        return self._known.get(key)

    def put(self, key: str, measured: Measured, **note: Any) -> None:
        """Keep it; `note` is written beside it for people."""
        self._known[key] = measured
        if self._path:
            line = json.dumps({"key": key, **note, **asdict(measured)})
            try:
                with self._path.open("a", encoding="utf-8") as file:
                    file.write(line + "\n")
            except OSError as error:
                raise InputError(self._failure(error)) from error

    def _read(self, path: Path) -> None:
        text = path.read_text("utf-8", errors="replace") if path.exists() else ""
        for line in text.splitlines():
            try:
                entry = json.loads(line)
                self._known[entry["key"]] = Measured(entry["scores"], entry["seconds"])
            except (ValueError, KeyError, TypeError):
                continue
        with path.open("a", encoding="utf-8") as file:
            if text and not text.endswith("\n"):
                file.write("\n")  # so that what is added begins a line of its own

    def _failure(self, error: OSError) -> str:
        return f"The measurements {self._path} cannot be kept: {error.strerror}; choose --cache."
