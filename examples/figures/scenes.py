"""What crops.py shows: photographs that come with scikit-image, and drawings."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from skimage import data

Levels = NDArray[np.uint8]
SIDE, FINE = 256, 4
"""Of a drawing, in pixels, and how much finer it is drawn."""
MADE_BY = {
    "bicubic": "made smaller",
    "mild": "as by a camera",
    "phone": "JPEG, quality 50",
    "given": "LR as given",
}
"""What a reader is told of how LR came about."""


@dataclass(frozen=True)
class Scene:
    """picture: makes RGB levels (H, W, 3). corner: left and top of the crop in its pixels. made_by:
    how it is made smaller: one of `degradations.KINDS`, or "phone"."""

    label: str
    picture: Callable[[], Levels]
    corner: tuple[int, int]
    made_by: str


def colour(picture: Callable[[], Levels]) -> Callable[[], Levels]:
    """A grey picture in RGB."""
    return lambda: np.repeat(picture()[..., None], 3, axis=2)


def text() -> Levels:
    """A printed page."""
    page, draw = _canvas((250, 247, 238))
    lines = (
        (34, "Domain"),
        (23, "shift starts"),
        (23, "from the LR"),
        (16, "Fig. 3: 28.67 dB"),
    )
    top = 4
    for size, line in lines:
        draw.text((8 * FINE, top * FINE), line, (28, 30, 38), ImageFont.load_default(size * FINE))
        top += round(1.25 * size)
    return _reduced(page)


def line_art() -> Levels:
    """A compass rose: thin lines at all angles, circles and hatching."""
    page, draw = _canvas((255, 255, 255))
    middle = SIDE * FINE // 2
    for radius in (40, 44, 76, 80, 110):
        reach = radius * FINE
        box = (middle - reach, middle - reach, middle + reach, middle + reach)
        draw.ellipse(box, outline="black", width=FINE if radius % 4 == 0 else FINE // 2)
    for number in range(72):
        angle = number * math.pi / 36
        inner, outer = (80, 88 if number % 3 else 98)
        draw.line(_spoke(middle, angle, inner, outer), "black", FINE)
    for number in range(16):
        angle, reach = number * math.pi / 8, (106, 58, 76, 58)[number % 4]
        tip = _point(middle, angle, reach)
        for side in (-1, 1):
            corner = _point(middle, angle + side * math.pi / 16, 26)
            fill = "black" if side < 0 else "white"
            draw.polygon(
                [(middle, middle), corner, tip], fill=fill, outline="black", width=FINE // 2
            )
    return _reduced(page)


def gradient() -> Levels:
    """An evening sky: smooth colours without a texture, and two clean edges."""
    down, across = np.mgrid[0 : SIDE * FINE, 0 : SIDE * FINE] / (SIDE * FINE)
    stops = np.array([(24, 28, 84), (122, 54, 130), (238, 110, 88), (255, 206, 120)])
    place = 3 * np.clip(down * 0.9 + 0.1 * across, 0, 1)
    sky = np.stack([np.interp(place, range(4), stops[:, c]) for c in range(3)], axis=2)
    sky[np.hypot(across - 0.55, down - 0.6) < 0.13] = (255, 236, 170)
    sky[down > 0.8 + 0.06 * np.sin(5 * across)] = (30, 24, 52)
    return _reduced(Image.fromarray(sky.round().astype(np.uint8)))


def water() -> Levels:
    """Waves of random phase in a low sun: slopes towards it are brighter, the steepest glint."""
    random = np.random.default_rng(3)
    side = 2 * SIDE
    down, across = np.meshgrid(np.fft.fftfreq(side), np.fft.fftfreq(side), indexing="ij")
    k = np.hypot(across, 0.4 * down) + 1e-9
    phases = random.normal(size=(2, side, side))
    strength = k**-2.5 * np.exp(-((0.008 / k) ** 2) - (k / 0.12) ** 2)
    height = np.fft.ifft2(strength * (phases[0] + 1j * phases[1])).real
    slope = np.gradient(height, axis=0) + 0.4 * np.gradient(height, axis=1)
    slope = (slope / slope.std())[..., None]
    deep, sky = np.array((14, 54, 74)), np.array((150, 190, 206))
    glint = 110 * np.clip(slope - 1.5, 0, 1.2)
    waves = deep + (sky - deep) / (1 + np.exp(-1.3 * (slope - 0.4))) + glint
    return _reduced(Image.fromarray(np.clip(waves, 0, 255).astype(np.uint8)))


def logo() -> Levels:
    """scikit-image's, on white."""
    drawn = Image.fromarray(data.logo())
    page = Image.new("RGB", drawn.size, "white")
    page.paste(drawn, mask=drawn.getchannel("A"))
    return np.asarray(page)


def _canvas(paper: tuple[int, int, int]) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    page = Image.new("RGB", (SIDE * FINE, SIDE * FINE), paper)
    return page, ImageDraw.Draw(page)


def _reduced(page: Image.Image) -> Levels:
    return np.asarray(page.resize((SIDE, SIDE), Image.Resampling.BOX))


def _point(middle: int, angle: float, radius: float) -> tuple[float, float]:
    return middle + FINE * radius * math.cos(angle), middle + FINE * radius * math.sin(angle)


def _spoke(middle: int, angle: float, inner: float, outer: float) -> list[tuple[float, float]]:
    return [_point(middle, angle, inner), _point(middle, angle, outer)]


SCENES = (
    Scene("face", data.astronaut, (160, 56), "mild"),
    Scene("fur", data.chelsea, (100, 52), "mild"),
    Scene("phone JPEG", data.coffee, (312, 176), "phone"),
    Scene("brick", colour(data.brick), (180, 180), "mild"),
    Scene("foliage", colour(data.grass), (136, 60), "mild"),
    Scene("water", water, (64, 64), "mild"),
    Scene("night", data.rocket, (268, 280), "mild"),
    Scene("stars", data.hubble_deep_field, (620, 400), "mild"),
    Scene("text", text, (4, 0), "bicubic"),
    Scene("line art", line_art, (116, 24), "bicubic"),
    Scene("logo", logo, (180, 60), "bicubic"),
    Scene("gradient", gradient, (72, 96), "bicubic"),
)
