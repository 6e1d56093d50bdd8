"""Pictures to be judged by eye: one HTML file that shows any two results and asks nobody for more.

The page is page.html, filled. Its policy (CSP) forbids every request and every script but its own.
"""

from __future__ import annotations

import html
import io
import json
import os
import re
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from sr_cli.errors import FullDiskError, InputError, UsageError, is_full_disk
from sr_cli.files import is_folder, whole

if TYPE_CHECKING:
    from sr_cli.evaluation.tables import Table

Levels = npt.NDArray[np.uint8]
"""(H, W, 3)."""
Box = tuple[int, int, int, int]
"""Left, top, width and height in pixels."""

THUMBNAIL = 144
"""Pixels of the longer side."""
MARK = b'<meta name="generator" content="srx">'
WEBP_SIDE = 16_383
"""The longest that WebP has room for."""


@dataclass(frozen=True)
class Shown:
    """One picture of a page, made larger in several ways.

    name, text: its heading and the line below. size: (width, height) of the results.
    images: of each of the page's rows a data URI, of any size, or None where there is no picture.
    thumbnail: a data URI of the whole input. part: what of the input is shown, as fractions of its
    width and height (left, top, width, height), or None for all. table: a line for each row.
    """

    name: str
    text: str
    size: tuple[int, int]
    images: Sequence[str | None]
    thumbnail: str
    part: tuple[float, float, float, float] | None
    table: Table


@dataclass(frozen=True)
class Page:
    """rows: names of what is compared, of which `left` and `right` are shown first. means: of
    several pictures. smooth: whether pixels are at first enlarged smoothly, not as squares."""

    title: str
    rows: Sequence[str]
    pictures: Sequence[Shown]
    left: int
    right: int
    means: Table | None = None
    note: str = ""
    smooth: bool = False


class _Html(Template):
    """Fields begin with a sign that neither CSS nor JavaScript has."""

    delimiter = "@@"


def render(page: Page) -> str:
    """The page as HTML. Raises ValueError when it has no pictures."""
    if not page.pictures:
        raise ValueError("a page needs a picture")
    source = files("sr_cli.evaluation").joinpath("page.html").read_text("utf-8")
    content = {
        "rows": list(page.rows),
        "left": page.left,
        "right": page.right,
        "smooth": page.smooth,
        "note": page.note,
        "means": page.means and _table(page.means),
        "pictures": [_picture(shown) for shown in page.pictures],
    }
    fields = {"title": html.escape(page.title), "policy": _policy(source), "data": _json(content)}
    return _Html(source).substitute(fields)


def check(path: Path) -> None:
    """Raise UsageError for what could not be written after hours of work: a page that is no HTML,
    has no folder, or would replace anything but an older page of srx."""
    if path.suffix.lower() not in (".html", ".htm"):
        raise UsageError(f"The page {path} must end in .html.")
    folder = path.absolute().parent
    if not is_folder(folder):
        raise UsageError(f"The folder of {path} does not exist: make it first.")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UsageError(f"The folder of {path} is write-protected: choose another.")
    if path.is_dir():
        raise UsageError(f"{path} is a folder: choose another name for the page.")
    if path.exists():
        with path.open("rb") as file:
            ours = MARK in file.read(1024)
        if not ours:
            raise UsageError(f"{path} exists and is no page of srx: choose another name.")


def write(page: Page, path: Path) -> int:
    """Write the page, all of it or nothing; how many bytes it has.

    Raises InputError when the file cannot be written, FullDiskError when there is no room.
    """
    content = render(page).encode("utf-8", "replace")
    try:
        with whole(path) as partial:
            partial.write_bytes(content)
    except OSError as error:
        kind = FullDiskError if is_full_disk(error) else InputError
        raise kind(f"The page {path} cannot be written: {error.strerror or error}.") from error
    return len(content)


def data_uri(levels: Levels, icc: bytes | None = None) -> str:
    """A picture without loss: WebP, or PNG where it is too long for that; icc: its RGB profile."""
    image = Image.fromarray(levels)
    buffer = io.BytesIO()
    if max(image.size) > WEBP_SIDE:
        image.save(buffer, "PNG", icc_profile=icc)
        return _uri("png", buffer)
    # More effort than method 2 makes files 1 to 5 % smaller in twice the time.
    image.save(buffer, "WEBP", lossless=True, quality=50, method=2, icc_profile=icc)
    return _uri("webp", buffer)


def thumbnail(levels: Levels, icc: bytes | None = None) -> str:
    """A small picture of few kilobytes."""
    image = Image.fromarray(levels)
    image.thumbnail((THUMBNAIL, THUMBNAIL))
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=75, icc_profile=icc)
    return _uri("webp", buffer)


def share(box: Box, size: tuple[int, int]) -> tuple[float, float, float, float] | None:
    """A box as fractions of (width, height); None where it is all of it."""
    left, top, width, height = box
    if (width, height) == size:
        return None
    return left / size[0], top / size[1], width / size[0], height / size[1]


def _uri(kind: str, buffer: io.BytesIO) -> str:
    return f"data:image/{kind};base64,{b64encode(buffer.getvalue()).decode()}"


def _picture(shown: Shown) -> dict[str, Any]:
    return {
        "name": shown.name,
        "text": shown.text,
        "size": shown.size,
        "images": list(shown.images),
        "thumbnail": shown.thumbnail,
        "part": shown.part,
        "table": _table(shown.table),
    }


def _table(table: Table) -> dict[str, Any]:
    best = table.best
    return {
        "columns": [
            {"name": column.name, "text": not table.numeric(j)}
            for j, column in enumerate(table.columns)
        ],
        "rows": [
            [{"value": value, "best": (i, j) in best} for j, value in enumerate(row)]
            for i, row in enumerate(table.text)
        ],
    }


def _json(content: Any) -> str:
    """JSON that ends no element of HTML, whatever file names hold."""
    return json.dumps(content, separators=(",", ":")).replace("<", r"\u003c")


def _policy(source: str) -> str:
    """Nothing is loaded but what the page has, and nothing runs but its own script."""
    hashes = {}
    for tag in ("style", "script"):
        found = re.search(f"<{tag}>(.*?)</{tag}>", source, re.DOTALL)
        assert found is not None
        hashes[tag] = b64encode(sha256(found[1].encode()).digest()).decode()
    return "; ".join(
        (
            "default-src 'none'",
            "img-src data:",
            *(f"{tag}-src 'sha256-{value}'" for tag, value in hashes.items()),
            "base-uri 'none'",
            "form-action 'none'",
        )
    )
