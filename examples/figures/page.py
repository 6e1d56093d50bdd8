"""README's picture of `srx compare`: its page of the examples on a desk and on a phone.

    python examples/figures/page.py [--out FILE]

It needs Chromium (Debian: apt-get install chromium).
"""

import argparse
import io
import shutil
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, sync_playwright

from sr_cli.cli.app import main as srx
from sr_cli.evaluation.datasets import examples

HEIGHT, GAP = 740, 24


def made(folder: Path) -> Path:
    """The page."""
    path = folder / "page.html"
    with suppress(SystemExit):
        srx(["compare", *map(str, examples()), "--html", str(path), "--quiet"])
    return path


def seen(browser: Browser, path: Path, *, width: int, dark: bool, zooms: int) -> Image.Image:
    """The second picture of the page, zoomed in some times."""
    size = {"width": width, "height": HEIGHT}
    with browser.new_context(viewport=size, color_scheme="dark" if dark else "light") as context:
        tab = context.new_page()
        tab.goto(path.as_uri())
        for key in ("n", *["+"] * zooms):
            tab.keyboard.press(key)
        return Image.open(io.BytesIO(tab.screenshot())).convert("RGB")


def main() -> None:
    """Write the picture."""
    parser = argparse.ArgumentParser(description="The page of srx compare.")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("page.webp"))
    arguments = parser.parse_args()
    program = shutil.which("chromium") or sys.exit("There is no chromium: install it first.")
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as driver:
        path = made(Path(folder))
        browser = driver.chromium.launch(executable_path=program, args=["--no-sandbox"])
        desk = seen(browser, path, width=1080, dark=False, zooms=1)
        phone = seen(browser, path, width=360, dark=True, zooms=0)
        browser.close()
    sheet = Image.new("RGB", (desk.width + GAP + phone.width, HEIGHT), "white")
    sheet.paste(desk, (0, 0))
    sheet.paste(phone, (desk.width + GAP, 0))
    sheet.save(arguments.out, quality=82, method=6)


if __name__ == "__main__":
    main()
