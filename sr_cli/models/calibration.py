"""Calibrations: where the diffusion starts best at each scale, as `srx prf-search` measured it.

One small JSON file for each setting, in the folder `calibrations` of srx's home or beside the
shipped weights; between the scales that were measured the start is interpolated.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from sr_cli.errors import ModelError
from sr_cli.models import registry
from sr_cli.models.store import home, writing

FOLDER = "calibrations"


@dataclass(frozen=True)
class Setting:
    """What the best start depends on, beside the scale.

    model: SHA-256 of the weights (`Model.identity`). schedule: name of ᾱ, or "own" for a model's
    that has no name. sampler: one of Diff-SR's, or "dossr". degradation: how LR images came about.
    """

    model: str
    schedule: str
    sampler: str
    degradation: str

    @property
    def file(self) -> str:
        """Name of the file."""
        return f"{self.model[:16]}-{self.schedule}-{self.sampler}-{self.degradation}.json"


@dataclass(frozen=True)
class Calibration:
    """Starting times by scale: 0 means that no noise, so the enlargement itself, is best.

    starts: rising scales with times 0..T−1. origin: how they were found, for people.
    """

    starts: Mapping[float, int]
    origin: Mapping[str, Any]

    def start(self, scale: float) -> int:
        """The time for a scale: straight lines between those measured, level outside."""
        scales = sorted(self.starts)
        return round(float(np.interp(scale, scales, [self.starts[s] for s in scales])))

    @classmethod
    def read(cls, path: Path, setting: Setting) -> Self:
        """Raises ModelError where the file is damaged or of another setting."""
        try:
            content = json.loads(path.read_text("utf-8"))
            if content["setting"] != asdict(setting) or not content["starts"]:
                raise ValueError("another setting")
            starts = {float(scale): int(t) for scale, t in content["starts"].items()}
            return cls(starts, content["origin"])
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ModelError(
                f"The calibration {path} is damaged: delete it and run srx prf-search again."
            ) from error


def find(setting: Setting) -> Calibration | None:
    """The user's own calibration of this setting, else the shipped one, else None.

    Raises ModelError where it is damaged.
    """
    for folder in (home(), *registry.folders()):
        path = folder / FOLDER / setting.file
        if path.is_file():
            return Calibration.read(path, setting)
    return None


def keep(setting: Setting, calibration: Calibration) -> Path:
    """Write it to srx's home, with the scales known there already; the file.

    Raises ModelError where the folder cannot be written.
    """
    path = home() / FOLDER / setting.file
    known = Calibration.read(path, setting).starts if path.is_file() else {}
    starts = dict(sorted({**known, **calibration.starts}.items()))
    content = {
        "setting": asdict(setting),
        "starts": {f"{scale:g}": t for scale, t in starts.items()},
        "origin": dict(calibration.origin),
    }
    with writing(path.parent):
        partial = path.with_name(f".{path.name}.{os.getpid()}")
        partial.write_text(json.dumps(content, indent=2) + "\n", "utf-8")
        partial.replace(path)
    return path
