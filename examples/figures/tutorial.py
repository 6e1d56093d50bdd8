"""The pictures of docs/tutorial.md: its photograph, and what its commands make of it.

    python examples/figures/tutorial.py

It needs Chromium (Debian: apt-get install chromium).
"""

import os
import shutil
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import skimage
from page import seen
from PIL import Image, ImageOps
from playwright.sync_api import sync_playwright

from sr_cli.cli.app import main as srx

OUT = Path(__file__).parents[2] / "docs" / "figures"
UPRIGHT = (150, 0, 450, 400)
"""What a phone held upright would see of scikit-image's coffee."""
ROWS = ("", "--texture 0", "--model clean")
PART = (330, 560, 730, 960)
"""Of the result of 1200x1600."""


def photograph(path: Path) -> None:
    """Write a JPEG as phones do: lying on its side, with a tag that says how to hold it."""
    exif = Image.Exif()
    exif[0x0112] = 6  # its top is on the right
    with Image.open(Path(skimage.__file__).parent / "data" / "coffee.png") as coffee:
        held = coffee.convert("RGB").crop(UPRIGHT).transpose(Image.Transpose.ROTATE_90)
    held.save(path, quality=85, exif=exif)


def side_by_side(photo: Path, large: Path) -> Image.Image:
    """A part as bicubic interpolation gives it, and as srx does."""
    with Image.open(photo) as small, Image.open(large) as result:
        upright = ImageOps.exif_transpose(small)
        plain = upright.resize(result.size, Image.Resampling.BICUBIC)
        width, height = PART[2] - PART[0], PART[3] - PART[1]
        sheet = Image.new("RGB", (2 * width + 8, height), "white")
        sheet.paste(plain.crop(PART), (0, 0))
        sheet.paste(result.convert("RGB").crop(PART), (width + 8, 0))
    return sheet


def run(*words: str) -> None:
    """A command of srx."""
    with suppress(SystemExit):
        srx([*words, "--quiet"])


def main() -> None:
    """Write the photograph and both pictures."""
    program = shutil.which("chromium") or sys.exit("There is no chromium: install it first.")
    OUT.mkdir(exist_ok=True)
    photograph(OUT / "photo.jpg")
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as driver:
        photo, large, page = (
            Path(folder, name) for name in ("photo.jpg", "large.webp", "page.html")
        )
        shutil.copy(OUT / "photo.jpg", photo)
        os.chdir(folder)
        run("upscale", photo.name, large.name)
        run(
            "compare", photo.name, *(w for row in ROWS for w in ("--row", row)), "--html", page.name
        )
        side_by_side(photo, large).save(OUT / "tutorial-result.webp", quality=80, method=6)
        browser = driver.chromium.launch(executable_path=program, args=["--no-sandbox"])
        shown = seen(browser, page, width=1000, dark=False, zooms=1)
        shown.save(OUT / "tutorial-page.webp", quality=70, method=6)
        browser.close()


if __name__ == "__main__":
    main()
