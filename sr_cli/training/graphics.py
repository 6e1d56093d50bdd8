"""Graphics among the photographs: what screenshots, logos, print and skies have and they lack.

A network trained on photographs alone has never seen a saturated plane beside another and breaks
down on one. Everything is drawn on the host from a batch's own numbers.
"""

from __future__ import annotations

import string
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

Picture = NDArray[np.uint8]
"""(H, W, 3), RGB."""
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
COLOURED, DRAWN, STARS = 0.75, 1.0, 0.12
"""Of `share`: how many crops get other colours, graphics, a night sky."""
LETTERS = string.ascii_letters + string.digits + ".,:;!?%&@#()+-=/ÄÖÜäéèñßçøЖДЯждяαβγΩ "


def decorate(hr: Tensor, numbers: np.random.Generator, share: float) -> Tensor:
    """Crops (N, 3, H, W) in [0, 1] of which a share (0 to 0.5) becomes graphics; the rest as it is.

    About three quarters of `share` get permuted, inverted or oversaturated colours, as many again
    drawings (planes, stripes, shapes, text, a logo, a page), and an eighth stars on a dark sky.
    """
    result = hr.clone()
    for i in range(len(hr)):
        colours, drawing, stars = numbers.random(3)
        if colours < share * COLOURED:
            result[i] = recoloured(result[i], numbers)
        if drawing < share * DRAWN:
            picture = (result[i] * 255).round().byte().permute(1, 2, 0).cpu().numpy()
            drawn = drawing_on(np.ascontiguousarray(picture), numbers)
            result[i] = torch.from_numpy(drawn).permute(2, 0, 1).to(result) / 255
        elif stars < share * STARS:
            result[i] = night_sky(result[i], numbers)
    return result


def recoloured(image: Tensor, numbers: np.random.Generator) -> Tensor:
    """(3, H, W) in [0, 1] with its channels permuted, perhaps inverted, its saturation raised."""
    image = image[torch.from_numpy(numbers.permutation(3))]
    if numbers.random() < 0.5:
        image = 1 - image
    grey = image.mean(dim=0, keepdim=True)
    return (grey + (image - grey) * float(numbers.uniform(1, 4))).clamp(0, 1)


def night_sky(image: Tensor, numbers: np.random.Generator) -> Tensor:
    """(3, H, W) in [0, 1] darkened, with points of light of different sizes and tints on it."""
    _, height, width = image.shape
    count = int(numbers.integers(4, 60))
    light = np.zeros((height, width, 3), np.float32)
    rows, columns = numbers.integers(height, size=count), numbers.integers(width, size=count)
    tints = numbers.uniform(0.7, 1, (count, 3))
    light[rows, columns] = 6 * numbers.random((count, 1)) * tints
    light = np.asarray(cv2.GaussianBlur(light, (0, 0), float(numbers.uniform(0.5, 1.3))))
    sky = image * float(numbers.uniform(0, 0.08))
    return (sky + torch.from_numpy(light).permute(2, 0, 1).to(sky)).clamp(0, 1)


def drawing_on(picture: Picture, numbers: np.random.Generator) -> Picture:
    """A drawing over the picture or over a plane, with hard or with smoothed edges."""
    height, width = picture.shape[:2]
    zoom = int(numbers.choice((1, 3)))  # drawn larger and reduced, edges become smooth
    canvas = Image.fromarray(picture).resize(
        (width * zoom, height * zoom), Image.Resampling.NEAREST
    )
    if numbers.random() < 0.5:
        canvas.paste(colour(numbers), (0, 0, *canvas.size))
    scenes: tuple[Callable[[Image.Image, np.random.Generator], None], ...]
    scenes = (stripes, shapes, lettering, logo, page, checks)
    for scene in numbers.choice(len(scenes), int(numbers.integers(1, 3)), replace=False):
        scenes[int(scene)](canvas, numbers)
    return np.array(canvas.resize((width, height), Image.Resampling.BOX), np.uint8)


def colour(numbers: np.random.Generator) -> tuple[int, int, int]:
    """RGB: often a corner of the cube, else a grey or any other."""
    kind = numbers.random()
    if kind < 0.5:
        red, green, blue = numbers.choice((0, 255), 3)
    elif kind < 0.6:
        red = green = blue = numbers.integers(256)
    else:
        red, green, blue = numbers.integers(0, 256, 3)
    return int(red), int(green), int(blue)


def stripes(canvas: Image.Image, numbers: np.random.Generator) -> None:
    """Parallel stripes at any angle, in two colours."""
    side = max(canvas.size)
    period = float(numbers.uniform(2, side / 2))
    angle = float(numbers.choice((0.0, np.pi / 2, numbers.uniform(0, np.pi))))
    row, column = np.mgrid[: canvas.height, : canvas.width]
    phase = (column * np.cos(angle) + row * np.sin(angle)) % period
    mask = Image.fromarray((phase < period / 2).astype(np.uint8) * 255)
    canvas.paste(colour(numbers), (0, 0, *canvas.size), mask)
    if numbers.random() < 0.5:
        canvas.paste(colour(numbers), (0, 0, *canvas.size), Image.eval(mask, lambda v: 255 - v))


def checks(canvas: Image.Image, numbers: np.random.Generator) -> None:
    """A checker-board over a part of the picture."""
    cell = int(numbers.integers(2, max(3, canvas.width // 4)))
    row, column = np.mgrid[: canvas.height, : canvas.width]
    odd = (row // cell + column // cell) % 2 == 0
    odd &= row >= numbers.integers(canvas.height // 2)
    mask = Image.fromarray(odd.astype(np.uint8) * 255)
    canvas.paste(colour(numbers), (0, 0, *canvas.size), mask)


def shapes(canvas: Image.Image, numbers: np.random.Generator) -> None:
    """Rectangles, ellipses, polygons and lines."""
    draw = ImageDraw.Draw(canvas)
    for _ in range(int(numbers.integers(1, 5))):
        points = [tuple(p) for p in (numbers.random((3, 2)) * canvas.size).tolist()]
        box = _box(points[0], points[1])
        match int(numbers.integers(4)):
            case 0:
                draw.rectangle(box, fill=colour(numbers))
            case 1:
                draw.ellipse(box, fill=colour(numbers))
            case 2:
                draw.polygon(points, fill=colour(numbers))
            case _:
                thick = int(numbers.integers(1, max(2, canvas.width // 10)))
                draw.line(points, fill=colour(numbers), width=thick)


def lettering(canvas: Image.Image, numbers: np.random.Generator) -> None:
    """A word in some font, size and colour, turned a little at times."""
    font = font_of(numbers, canvas.width / 10, canvas.width / 2)
    mask = Image.new("L", canvas.size)
    place = numbers.uniform(-0.2, 0.6, 2) * canvas.size
    ImageDraw.Draw(mask).text((place[0], place[1]), word(numbers), fill=255, font=font)
    if numbers.random() < 0.3:
        mask = mask.rotate(float(numbers.uniform(-45, 45)), Image.Resampling.BICUBIC)
    canvas.paste(colour(numbers), (0, 0, *canvas.size), mask)


def page(canvas: Image.Image, numbers: np.random.Generator) -> None:
    """Lines of small text on paper or a screen, mostly dark on light."""
    dark, light = (20, 20, 20), (250, 250, 250)
    if numbers.random() < 0.3:
        dark, light = light, dark
    if numbers.random() < 0.3:
        dark = colour(numbers)
    canvas.paste(light, (0, 0, *canvas.size))
    font = font_of(numbers, canvas.width / 12, canvas.width / 5)
    draw, top = ImageDraw.Draw(canvas), float(numbers.uniform(-20, 20))
    while top < canvas.height:
        line = " ".join(word(numbers) for _ in range(4))
        draw.text((float(numbers.uniform(-10, 10)), top), line, fill=dark, font=font)
        top += 1.3 * canvas.width / 8


def logo(canvas: Image.Image, numbers: np.random.Generator) -> None:
    """A coloured plate with a disc and a word, pasted anywhere."""
    points = (numbers.random((2, 2)) * canvas.size).tolist()
    left, top, right, bottom = _box(tuple(points[0]), tuple(points[1]))
    draw = ImageDraw.Draw(canvas)
    draw.rectangle((left, top, right, bottom), fill=colour(numbers))
    middle = (left + right) / 2
    draw.ellipse((middle, (top + bottom) / 2, right, bottom), fill=colour(numbers))
    font = font_of(numbers, canvas.width / 12, canvas.width / 4)
    draw.text((left + 2, top + 2), word(numbers), fill=colour(numbers), font=font)


def word(numbers: np.random.Generator) -> str:
    """Two to nine characters."""
    return "".join(numbers.choice(list(LETTERS), int(numbers.integers(2, 10))))


def font_of(numbers: np.random.Generator, least: float, most: float) -> Font:
    """One of the fonts at hand, of a size in pixels between the two."""
    size, files = float(numbers.uniform(least, most)), font_files()
    if not files or numbers.random() < 1 / (1 + len(files)):
        return ImageFont.load_default(size)
    return ImageFont.truetype(files[int(numbers.integers(len(files)))], size)


@cache
def font_files() -> tuple[Path, ...]:
    """The text fonts that matplotlib brings, where it is installed; Pillow has one of its own."""
    package = find_spec("matplotlib")
    if package is None or package.origin is None:
        return ()
    folder = Path(package.origin).parent / "mpl-data" / "fonts" / "ttf"
    return tuple(sorted(folder.glob("DejaVu*.ttf")) + sorted(folder.glob("STIXGeneral*.ttf")))


def _box(one: tuple[float, ...], other: tuple[float, ...]) -> tuple[float, float, float, float]:
    """Left, top, right, bottom of two corners."""
    (left, right), (top, bottom) = sorted((one[0], other[0])), sorted((one[1], other[1]))
    return left, top, right, bottom
