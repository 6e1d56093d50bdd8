"""Where the time of an upscaling goes: file to file, part by part."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from tempfile import TemporaryDirectory

import torch

from sr_cli.engine.arrays import to_rgb
from sr_cli.engine.images import Picture, load, save, write
from sr_cli.engine.options import UpscaleOptions
from sr_cli.engine.pictures import colors, enlarged, form_of
from sr_cli.engine.timing import Stopwatch
from sr_cli.engine.upscaler import Upscaler
from sr_cli.evaluation.datasets import Pairs
from sr_cli.evaluation.tables import Column, Table

PARTS = ("read", "preprocess", "encode", "network", "decode", "colour", "guard", "write")
NETWORKS = ("preprocess", "encode", "network", "decode")
"""Of these, what networks take; a model of pixels has none to encode and decode."""
REST = "everything else"
"""Noise, solver steps, cropping."""
COLUMNS = (Column("part"), Column("s/image", digits=4), Column("share (%)", digits=1))


@dataclass(frozen=True)
class Profile:
    """Mean seconds an image in each part, in the order of the work; the network's by step."""

    name: str
    images: int
    parts: Mapping[str, float]

    @property
    def total(self) -> float:
        """Seconds an image."""
        return sum(self.parts.values())

    @property
    def networks(self) -> float:
        """Seconds an image inside the networks, the preprocessor's too."""
        return sum(value for part, value in self.parts.items() if part.startswith(NETWORKS))

    @property
    def outside(self) -> float:
        """Share of the time outside the networks, 0…1."""
        return 1 - self.networks / self.total

    @property
    def verdict(self) -> str:
        """What the bottleneck is, and the share of the time outside the networks."""
        outside = {part: v for part, v in self.parts.items() if not part.startswith(NETWORKS)}
        slowest = max(outside, key=lambda part: outside[part])
        first = "networks" if self.networks >= outside[slowest] else slowest
        return (
            f"The bottleneck is {first}; {100 * self.outside:.1f} % of the time is outside the "
            f"networks, most of it in {slowest} ({100 * outside[slowest] / self.total:.1f} %)."
        )

    @property
    def table(self) -> Table:
        """Part, seconds an image, share."""
        rows = [(part, value, 100 * value / self.total) for part, value in self.parts.items()]
        return Table(COLUMNS, (*rows, ("total", self.total, 100.0)))


def profile(
    name: str, pairs: Pairs, options: UpscaleOptions, *, device: torch.device, dtype: str
) -> Profile:
    """Upscale the LR of each pair, PNG to PNG, one after another, and look at the clock.

    Raises what loading the model and upscaling raise.
    """
    watch = Stopwatch(device)
    upscaler = Upscaler(options, device=str(device), dtype=dtype, timer=watch)
    seconds: list[dict[str, float]] = []
    with TemporaryDirectory(prefix="srx-") as scratch:
        lr, out = Path(scratch, "lr.png"), Path(scratch, "out.png")
        for pair in pairs:
            save(Picture(to_rgb(pair.lr)), lr)
            for _ in range(1 if seconds else 2):  # the first image warms up
                out.unlink(missing_ok=True)  # whose room on the disk takes time to free
                watch.seconds.clear()
                _upscaled(lr, out, upscaler, watch)
            seconds.append(_split(watch.seconds, upscaler.steps))
    parts = list(dict.fromkeys(part for image in seconds for part in image))
    means = {part: fmean(image.get(part, 0.0) for image in seconds) for part in parts}
    return Profile(name, len(pairs), means)


def _upscaled(lr: Path, out: Path, upscaler: Upscaler, watch: Stopwatch) -> None:
    with watch("whole"):
        with watch("read"):
            picture = load(lr)
        (hr,) = upscaler.together([colors(picture)], forms=[form_of(picture, "png")])
        with watch("write"):
            write(enlarged(picture, "png", hr), out, overwrite=False)


def _split(seconds: Mapping[str, Sequence[float]], steps: int) -> dict[str, float]:
    """One image's seconds in each part; the network's by step, where each has as many tiles."""
    whole = sum(seconds["whole"])
    parts: dict[str, float] = {}
    for part in PARTS:
        calls = seconds.get(part, ())
        if part == "network" and calls and len(calls) % steps == 0:
            tiles = len(calls) // steps
            for step in range(steps):
                parts[f"network, step {step + 1}"] = sum(calls[step * tiles : (step + 1) * tiles])
        else:
            parts[part] = sum(calls)
    return parts | {REST: max(0.0, whole - sum(parts.values()))}
