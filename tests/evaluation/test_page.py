"""The page as a file: what is in it, what it may replace, and that names end no element."""

import base64
import io
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms

from sr_cli.errors import InputError, UsageError
from sr_cli.evaluation import page
from sr_cli.evaluation.tables import Column, Table

HOSTILE = "</script><img src=x onerror=alert(1)>'\"&amp;<!--\u2028\udcff"


def pixels(seed: int, size: tuple[int, int] = (9, 6)) -> page.Levels:
    noise: page.Levels = np.random.default_rng(seed).integers(0, 256, (*size[::-1], 3), np.uint8)
    return noise


def shown(name: str = "a.png") -> page.Shown:
    uri = page.data_uri(pixels(0))
    table = Table((Column("method"), Column("seconds", "lower")), (("one", 2.0), (HOSTILE, 1.0)))
    return page.Shown(name, name, (9, 6), [uri, None], uri, None, table)


def document(name: str = "a.png") -> page.Page:
    return page.Page(name, ("one", name), (shown(name),), 0, 1, note=name)


def decoded(uri: str) -> Image.Image:
    kind, _, text = uri.partition(",")
    image = Image.open(io.BytesIO(base64.b64decode(text)))
    assert kind == f"data:image/{str(image.format).lower()};base64"
    return image


class Elements(HTMLParser):
    """What a browser would make of it: names of elements, texts of title and data."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags = [""]
        self.texts: dict[str, str] = {}
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(dict(attrs).get("id") or tag)

    def handle_data(self, data: str) -> None:
        self.texts[self.tags[-1]] = self.texts.get(self.tags[-1], "") + data


def content(text: str) -> Any:
    return json.loads(Elements(text).texts["data"])


def test_names_end_no_element() -> None:
    plain, hostile = (Elements(page.render(document(name))) for name in ("a.png", HOSTILE))
    assert hostile.tags == plain.tags
    assert json.loads(hostile.texts["data"])["pictures"][0]["name"] == HOSTILE
    assert hostile.texts["title"].strip() == HOSTILE


def test_a_name_that_would_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = Elements(page.render(document()))
    monkeypatch.setattr(page, "_json", json.dumps)
    assert Elements(page.render(document(HOSTILE))).tags != plain.tags


def test_best_values_and_texts_are_marked() -> None:
    table = content(page.render(document()))["pictures"][0]["table"]
    assert [column["text"] for column in table["columns"]] == [True, False]
    assert [[cell["best"] for cell in row] for row in table["rows"]] == [
        [False, False],
        [False, True],
    ]


def test_a_page_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="picture"):
        page.render(replace(document(), pictures=()))


@pytest.mark.parametrize(("size", "kind"), [((9, 6), "WEBP"), ((16_384, 2), "PNG")])
def test_pictures_are_whole_to_the_last_bit(size: tuple[int, int], kind: str) -> None:
    levels = pixels(1, size)
    image = decoded(page.data_uri(levels))
    assert image.format == kind
    assert (np.asarray(image.convert("RGB")) == levels).all()


def test_colours_keep_their_profile() -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for uri in (page.data_uri(pixels(0), profile), page.thumbnail(pixels(0), profile)):
        assert decoded(uri).info["icc_profile"] == profile
    assert "icc_profile" not in decoded(page.data_uri(pixels(0))).info


def test_a_thumbnail_is_small() -> None:
    assert decoded(page.thumbnail(pixels(0, (800, 400)))).size == (page.THUMBNAIL, 72)


def test_a_part_is_told_in_fractions() -> None:
    assert page.share((2, 3, 4, 3), (8, 6)) == (0.25, 0.5, 0.5, 0.5)
    assert page.share((0, 0, 8, 6), (8, 6)) is None


def test_an_older_page_is_replaced_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.html"
    page.check(path)
    assert page.write(document(), path) == path.stat().st_size
    page.check(path)
    page.write(document("b"), path)
    assert content(path.read_text("utf-8"))["note"] == "b"
    path.write_text("<!doctype html><p>my diary")
    with pytest.raises(UsageError, match="no page of srx"):
        page.check(path)


def test_what_could_not_be_written_is_said_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "folder.html").mkdir()
    for name, reason in {
        "a.txt": r"\.html",
        "nowhere/a.html": "does not exist",
        "folder.html": "is a folder",
    }.items():
        with pytest.raises(UsageError, match=reason):
            page.check(tmp_path / name)
    with pytest.raises(InputError, match="cannot be written"):
        page.write(document(), tmp_path / "nowhere" / "a.html")
    assert [entry.name for entry in tmp_path.iterdir()] == ["folder.html"]


def test_the_policy_lets_only_the_page_s_own_script_run() -> None:
    text = page.render(document())
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)
    assert policy is not None
    assert "default-src 'none'" in policy[1]
    assert "unsafe" not in policy[1]
    assert not re.search(r"https?://|\bimport\b|\bfetch\(", re.sub("data:[^\"']*", "", text))
