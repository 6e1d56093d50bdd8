"""Calibrations: where the diffusion starts best at each scale, as `srx prf-search` measured it.

One small JSON file for each setting, in the folder `calibrations` of srx's home or beside the
shipped weights; between the scales that were measured the start is interpolated.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from sr_cli.errors import ModelError
from sr_cli.files import home, whole, writing
from sr_cli.models import registry

FOLDER = "calibrations"


@dataclass(frozen=True)
class Setting:
    """What the best start depends on most, beside the scale: each has a calibration of its own.

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
class Start:
    """t: 0..T−1; 0 means that no noise, so the enlargement itself, is best. origin: how it was
    found: what else it depends on, such as the steps, and the rest for people."""

    t: int
    origin: Mapping[str, Any]


@dataclass(frozen=True)
class Calibration:
    """Starting times by scale."""

    starts: Mapping[float, Start]

    def start(self, scale: float) -> int:
        """The time for a scale: straight lines between those measured, level outside."""
        scales = sorted(self.starts)
        return round(float(np.interp(scale, scales, [self.starts[s].t for s in scales])))

    def doubt(self, scale: float, run: Mapping[str, Any]) -> str:
        """In what the start for a scale was found otherwise than `run`, as far as known; or "".

        Beyond the scales that were searched the start is that of the nearest.
        """
        below = max((s for s in self.starts if s <= scale), default=min(self.starts))
        above = min((s for s in self.starts if s >= scale), default=max(self.starts))
        origins = [self.starts[near].origin for near in (below, above)]
        found = {
            f"{name} {origin[name]}, not {value}": None
            for origin in origins
            for name, value in run.items()
            if origin.get(name, value) != value
        }
        rounded = math.isclose(scale, below, rel_tol=0.02)  # as a picture's sides are
        if below == above and not rounded:
            found[f"scale {below:g}, not {scale:.3g}"] = None
        return f"t1 was found with {'; '.join(found)}" if found else ""

    @classmethod
    def read(cls, path: Path, setting: Setting) -> Self:
        """Raises ModelError where the file is damaged or of another setting."""
        try:
            content = json.loads(path.read_text("utf-8"))
            if content["setting"] != asdict(setting) or not content["starts"]:
                raise ValueError("another setting")
            starts = {
                float(scale): Start(int(found["t"]), dict(found["origin"]))
                for scale, found in content["starts"].items()
            }
            return cls(starts)
        except (
            OSError,
            ValueError,
            KeyError,
            TypeError,
            AttributeError,
            OverflowError,
            RecursionError,
        ) as error:
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
    """Write it to srx's home, beside the other scales that `find` knows already; the file.

    Raises ModelError where what is known is damaged or the folder cannot be written.
    """
    path = home() / FOLDER / setting.file
    known = find(setting)
    starts = dict(sorted({**(known.starts if known else {}), **calibration.starts}.items()))
    content = {
        "setting": asdict(setting),
        "starts": {f"{scale:g}": asdict(start) for scale, start in starts.items()},
    }
    with writing(path.parent), whole(path) as partial:
        partial.write_text(json.dumps(content, indent=2) + "\n", "utf-8")
    return path
