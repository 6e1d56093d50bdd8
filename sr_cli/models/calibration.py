"""Calibrations: where the diffusion starts best at each scale, as `srx prf-search` measured it.

One small JSON file for each setting, in the folder `calibrations` of srx's home or beside the
shipped weights. Between two measured scales the start is interpolated if their starts are close,
else it is that of the nearer scale.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from sr_cli.errors import ModelError
from sr_cli.files import home, whole, writing
from sr_cli.models import registry

FOLDER = "calibrations"
CLOSE = 200
"""Time steps between two starts of which the mean may be as good as either. A mixture of starts
that lie farther apart is near neither of them, and nobody has measured how good it is."""
AS_MEASURED = 0.02
"""Relative difference of scales that count as one: the sides of a picture are whole pixels."""


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
    """One measured start.

    t: 0 to T−1; 0 means that the enlargement without noise is best. origin: how it was found: what
    the start depends on beside its setting, such as the steps, and remarks for people.
    """

    t: int
    origin: Mapping[str, Any]


@dataclass(frozen=True)
class Calibration:
    """Starting times by scale."""

    starts: Mapping[float, Start]

    def start(self, scale: float) -> int:
        """The time to start at for an enlargement by `scale`.

        At a measured scale it is what was measured. Between two of them it lies on the straight
        line between their starts if these are CLOSE, else it is the start of the nearer scale by
        ratio. Beyond them it is that of the last.
        """
        near = self._deciding(scale)
        if len(near) == 1:
            return self.starts[near[0]].t
        below, above = near
        share = (scale - below) / (above - below)
        return round((1 - share) * self.starts[below].t + share * self.starts[above].t)

    def doubt(self, scale: float, run: Mapping[str, Any]) -> str:
        """How the start for a scale was found otherwise than for this run, or "".

        run: conditions by name, such as the steps; those of which a start says nothing agree with
        it. A scale that was not measured is such a difference too.
        """
        near = self._deciding(scale)
        found = {
            f"{name} {origin[name]}, not {value}": None
            for origin in (self.starts[each].origin for each in near)
            for name, value in run.items()
            if origin.get(name, value) != value
        }
        if not _as_measured(scale, near[0]):
            scales = " and ".join(f"{each:g}" for each in near)
            found[f"scale{'s' * (len(near) > 1)} {scales}, not {scale:.3g}"] = None
        return f"t1 was found with {'; '.join(found)}" if found else ""

    def _deciding(self, scale: float) -> tuple[float, ...]:
        """The measured scale whose start is taken, or the two whose starts are interpolated."""
        nearest = min(sorted(self.starts), key=lambda each: abs(math.log(each / scale)))
        below = max((each for each in self.starts if each < scale), default=None)
        above = min((each for each in self.starts if each > scale), default=None)
        if below is None or above is None or _as_measured(scale, nearest):
            return (nearest,)
        apart = abs(self.starts[above].t - self.starts[below].t)
        return (below, above) if apart <= CLOSE else (nearest,)

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


def _as_measured(scale: float, measured: float) -> bool:
    return math.isclose(scale, measured, rel_tol=AS_MEASURED)


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
