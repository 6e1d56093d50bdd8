"""`srx upscale --contact`: the sheet shows what is in the files, and only what is done."""

import base64
import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from calls import Srx, paint
from PIL import Image

from sr_cli.errors import InputError
from sr_cli.evaluation import contact

pytest_plugins = ["calls"]
pytestmark = pytest.mark.usefixtures("isolated")


def page(path: str = "sheet.html") -> Any:
    found = re.search(r'id="data">(.*?)</script>', Path(path).read_text("utf-8"))
    assert found is not None
    return json.loads(found[1])


def pixels(uri: str) -> npt.NDArray[np.uint8]:
    image = Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))
    return np.asarray(image.convert("RGB"))


def contents(path: str) -> npt.NDArray[np.uint8]:
    return np.asarray(Image.open(path).convert("RGB"))


def test_every_picture_is_there_before_and_after(srx: Srx, photos: Path) -> None:
    code, out, err = srx("upscale", photos, "out", "-r", "--contact", "sheet.html")
    assert (code, out) == (0, "")
    assert "sheet.html" in err
    found = page()
    assert found["rows"] == ["before", "after"]
    assert [picture["name"] for picture in found["pictures"]] == ["a.png", "b.jpg", "sub/c.png"]
    for picture, result in zip(found["pictures"], ("a", "b", "sub/c"), strict=True):
        before, after = map(pixels, picture["images"])
        assert (before == contents(f"in/{picture['name']}")).all()
        assert (after == contents(f"out/{result}.png")).all()
        assert (after == before.repeat(4, 0).repeat(4, 1)).all()
        assert picture["part"] is None
    assert str(Path.cwd()) not in Path("sheet.html").read_text("utf-8")


def test_large_pictures_are_shown_by_the_same_part_of_both(
    srx: Srx, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contact, "SIDE", 40)
    paint(Path("in/a.png"), (31, 18))
    assert srx("upscale", "in", "out", "--contact", "sheet.html").code == 0
    (picture,) = page()["pictures"]
    before, after = map(pixels, picture["images"])
    assert before.shape == (10, 10, 3)
    assert (before == contents("in/a.png")[4:14, 10:20]).all()
    assert (after == before.repeat(4, 0).repeat(4, 1)).all()
    assert picture["part"] == pytest.approx([10 / 31, 4 / 18, 10 / 31, 10 / 18])
    assert picture["size"] == [40, 40]
    assert "40×40 pixels of the result" in page()["note"]


def test_many_pictures_have_smaller_parts_and_a_last_one(
    srx: Srx, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contact, "BUDGET", 2 * 8**2)
    monkeypatch.setattr(contact, "MOST", 2)
    _, _, err = srx("upscale", photos, "out", "-r", "--contact", "sheet.html")
    assert [picture["size"] for picture in page()["pictures"]] == [[8, 8], [8, 8]]
    assert "1 pictures more; a sheet shows 2" in err
    assert "a sheet shows 2" in page()["note"]


def test_a_run_that_goes_on_shows_all_and_replaces_its_sheet(srx: Srx, photos: Path) -> None:
    assert srx("upscale", photos, "out", "--contact", "sheet.html").code == 0
    paint(photos / "d.png", (5, 4))
    assert srx("upscale", photos, "out", "--contact", "sheet.html").code == 0
    texts = {picture["name"]: picture["text"] for picture in page()["pictures"]}
    assert list(texts) == ["a.png", "b.jpg", "d.png"]
    assert texts["a.png"].endswith("done already")
    assert "done already" not in texts["d.png"]


def test_what_failed_is_not_shown(srx: Srx, photos: Path, failure: list[BaseException]) -> None:
    failure.append(InputError("seven is too many."))
    code, _, _ = srx("upscale", photos, "out", "-r", "--contact", "sheet.html")
    assert code == 1
    assert [picture["name"] for picture in page()["pictures"]] == ["a.png", "sub/c.png"]


def test_a_result_too_large_to_be_read_again_is_named(
    srx: Srx, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contact, "LARGEST", 24 * 16)
    _, _, err = srx("upscale", photos, "out", "--contact", "sheet.html")
    assert [picture["name"] for picture in page()["pictures"]] == ["a.png"]
    assert "out/b.png is too large for the sheet" in err


def test_without_a_result_there_is_no_sheet(srx: Srx, failure: list[BaseException]) -> None:
    paint(Path("in/a.png"), (7, 4))
    failure.append(InputError("seven is too many."))
    code, _, err = srx("upscale", "in", "out", "--contact", "sheet.html")
    assert (code, "no result to show" in err) == (1, True)
    assert not Path("sheet.html").exists()


def test_transparency_is_laid_on_white_and_greys_are_grey(srx: Srx) -> None:
    clear = np.zeros((4, 6, 4), np.uint8)
    clear[:, 3:] = (200, 100, 0, 255)
    Path("in").mkdir()
    Image.fromarray(clear).save("in/a.png")
    Image.fromarray(np.arange(24, dtype=np.uint8).reshape(4, 6)).save("in/b.png")
    assert srx("upscale", "in", "out", "--contact", "sheet.html").code == 0
    first, second = page()["pictures"]
    before = pixels(first["images"][0])
    assert (before[:, :3] == 255).all()
    assert (before[:, 3:] == (200, 100, 0)).all()
    assert (pixels(second["images"][0]) == np.arange(24).reshape(4, 6, 1)).all()


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("sheet.png", "must end in .html"),
        ("diary.html", "no page of srx"),
        ("nowhere/a.html", "does not exist"),
    ],
)
def test_what_could_not_be_written_is_said_before_the_batch(
    srx: Srx, photos: Path, path: str, reason: str
) -> None:
    Path("diary.html").write_text("<p>mine")
    code, _, err = srx("upscale", photos, "out", "--contact", path)
    assert (code, reason in err) == (2, True)
    assert not Path("out").exists()
    assert Path("diary.html").read_text() == "<p>mine"


def test_a_rehearsal_makes_no_sheet(srx: Srx, photos: Path) -> None:
    assert srx("upscale", photos, "out", "--dry-run", "--contact", "sheet.html").code == 0
    assert not Path("sheet.html").exists()


def test_an_interrupted_sheet_costs_no_result(
    srx: Srx, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(contact, "sheet", interrupted)
        code, _, err = srx("upscale", photos, "out", "--contact", "sheet.html")
    assert (code, "the same command makes the sheet" in err) == (130, True)
    assert not Path("sheet.html").exists()
    assert srx("upscale", photos, "out", "--contact", "sheet.html").code == 0
    assert len(page()["pictures"]) == 2


def test_the_picture_of_a_pipe_is_shown_too(
    srx: Srx, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stdin = io.TextIOWrapper((photos / "a.png").open("rb"))
    monkeypatch.setattr("sys.stdin", stdin)
    assert srx("upscale", "-", "large.png", "--contact", "sheet.html").code == 0
    (picture,) = page()["pictures"]
    assert picture["name"] == "stdin"
    assert (pixels(picture["images"][1]) == contents("large.png")).all()
