"""README's first picture: crops of many kinds at ×4 by bicubic, srx and Real-ESRGAN.

    python examples/figures/crops.py [FOLDER] [--out FILE]

Each picture is made smaller first, so that the original can stand last; SOURCES.md says where they
are from. FOLDER: pictures of your own, HR alone or HR and LR in the layouts that `srx bench` reads,
of which the centres are shown.
"""

import argparse
import io
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scenes
import torch
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from sr_cli.engine.arrays import to_tensor
from sr_cli.engine.options import UpscaleOptions
from sr_cli.engine.source import preprocessed
from sr_cli.engine.upscaler import Upscaler
from sr_cli.errors import ModelError
from sr_cli.evaluation.datasets import pairs, reduced
from sr_cli.evaluation.peers import bicubic
from sr_cli.models.preprocess import load_preprocessor

SCALE, SIDE, ZOOM = 4, 128, 2
"""SIDE: of a crop in output pixels, each of which is ZOOM pixels of the sheet wide."""
CONTEXT = 16
"""LR pixels around a crop that the methods see too."""
GAP, HEAD = 8, 40
"""Pixels between crops, and above the first row."""
INK, FAINT = (20, 24, 33), (120, 126, 138)

Method = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Row:
    """lr (3, h, w) and hr (3, 4h, 4w) around a crop, whose corner (left, top) is in LR pixels."""

    label: str
    made_by: str
    lr: torch.Tensor
    hr: torch.Tensor
    corner: tuple[int, int]


def shipped() -> Iterator[Row]:
    """A row for each of the scenes."""
    for scene in scenes.SCENES:
        hr = to_tensor(scene.picture().astype(np.float32) / np.float32(255))
        height, width = (side // SCALE for side in hr.shape[1:])
        hr = hr[:, : SCALE * height, : SCALE * width].contiguous()
        small = (height, width)
        lr = phone(hr, small) if scene.made_by == "phone" else reduced(hr, small, scene.made_by, 0)
        yield around(scene.label, scene.made_by, lr, hr, scene.corner)


def own(folder: Path) -> Iterator[Row]:
    """A row for the centre of each picture of a folder; LR is made as a camera would, unless
    there is some."""
    found = pairs(folder)
    if found.made_by != "given LR":
        found = pairs(folder, degradation="mild")
    for pair in found:
        corner = [max(0, SCALE * side - SIDE) // 2 for side in pair.lr.shape[:0:-1]]
        made_by = "given" if found.made_by == "given LR" else "mild"
        yield around(pair.name, made_by, pair.lr, pair.hr, (corner[0], corner[1]))


def around(
    label: str, made_by: str, lr: torch.Tensor, hr: torch.Tensor, corner: tuple[int, int]
) -> Row:
    """The row of a crop whose corner (left, top) is in HR pixels, with its context."""
    places = []
    for start in (corner[1], corner[0]):
        first = max(0, start // SCALE - CONTEXT)
        places.append((first, start // SCALE + SIDE // SCALE + CONTEXT))
    (top, bottom), (left, right) = places
    large = hr[:, SCALE * top : SCALE * bottom, SCALE * left : SCALE * right]
    seen = lr[:, top:bottom, left:right].contiguous()
    return Row(label, made_by, seen, large, (corner[0] // SCALE - left, corner[1] // SCALE - top))


def phone(hr: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """As a phone sends a picture: sharpened, and a JPEG of quality 50, whose blocks show."""
    levels = (hr.permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
    picture = Image.fromarray(levels).filter(ImageFilter.GaussianBlur(1.5))
    small = picture.resize(size[::-1], Image.Resampling.BOX)
    file = io.BytesIO()
    small.filter(ImageFilter.UnsharpMask(1, 60, 0)).save(file, "JPEG", quality=50)
    return to_tensor(np.asarray(Image.open(file), np.float32) / np.float32(255))


def methods() -> dict[str, Method]:
    """What enlarges, by column. Real-ESRGAN is left out, with a word, where it is not installed."""
    own = Upscaler(UpscaleOptions(), device="cpu")
    if own.steps > 1:
        others = {"srx, 1 step": own.using(steps=1)}
    else:
        others = {"srx --texture 0": own.using(texture=0)}
    name = f"srx, default ({own.steps} step{'s' * (own.steps > 1)})"
    found: dict[str, Method] = {
        "bicubic": lambda lr: bicubic(lr, (SCALE * lr.shape[1], SCALE * lr.shape[2])),
        **others,
        name: own,
        "srx --model clean": Upscaler(UpscaleOptions(model="clean"), device="cpu"),
    }
    try:
        network = load_preprocessor("realesrgan")
    except ModelError as error:
        sys.stderr.write(f"Real-ESRGAN is left out: {error}\n")
        return found
    device = torch.device("cpu")
    return found | {
        "Real-ESRGAN x4plus": lambda lr: preprocessed(network, [lr], device=device)[0][0]
    }


def tile(image: torch.Tensor, corner: tuple[int, int]) -> Image.Image:
    """The crop of a result (3, H, W) in [0, 1], magnified."""
    left, top = (SCALE * start for start in corner)
    crop = image[:, top : top + SIDE, left : left + SIDE]
    levels = (crop.permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
    shown = Image.fromarray(levels)
    return shown.resize((ZOOM * shown.width, ZOOM * shown.height), Image.Resampling.NEAREST)


def sheet(rows: list[Row]) -> Image.Image:
    """All rows beside their methods and the original."""
    columns = methods() | {"original": None}
    notes = [scenes.MADE_BY[row.made_by] for row in rows]
    large, small = ImageFont.load_default(20), ImageFont.load_default(14)
    widths = [large.getlength(row.label) for row in rows] + [small.getlength(n) for n in notes]
    first, cell = round(max(widths)) + 2 * GAP, ZOOM * SIDE + GAP
    drawn = Image.new("RGB", (first + cell * len(columns), HEAD + cell * len(rows)), "white")
    draw = ImageDraw.Draw(drawn)
    for j, label in enumerate(columns):
        draw.text((first + j * cell + ZOOM * SIDE // 2, HEAD // 2), label, INK, large, anchor="mm")
    for i, row in enumerate(rows):
        top = HEAD + i * cell
        draw.text((GAP, top + ZOOM * SIDE // 2 - 10), row.label, INK, large, anchor="lm")
        draw.text((GAP, top + ZOOM * SIDE // 2 + 12), notes[i], FAINT, small, anchor="lm")
        for j, method in enumerate(columns.values()):
            image = method(row.lr) if method else row.hr
            drawn.paste(tile(image, row.corner), (first + j * cell, top))
    return drawn


def main() -> None:
    """Write the sheet."""
    parser = argparse.ArgumentParser(description="Crops side by side.")
    parser.add_argument("folder", nargs="?", type=Path, help="pictures of your own")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("crops.webp"))
    arguments = parser.parse_args()
    rows = list(own(arguments.folder) if arguments.folder else shipped())
    options = {"quality": 88, "method": 6} if arguments.out.suffix == ".webp" else {}
    sheet(rows).save(arguments.out, **options)


if __name__ == "__main__":
    main()
