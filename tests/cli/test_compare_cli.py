"""`srx compare`: what a command line compares, what it says, and the page it leaves."""

import json
import re
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from calls import Srx, called, paint
from PIL import Image

from sr_cli.evaluation import comparison

pytest_plugins = ["calls"]


@pytest.fixture
def compare(
    isolated: None, tiny: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Srx:
    """The command in this process, with the tiny weights, without baselines."""
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(Path("hub").absolute()))
    own = ("--no-baselines", "--row=", "--row=--steps 2", "--device", "cpu", "--html", "page.html")
    return partial(called, capsys, "compare", *own)


def page(path: str = "page.html") -> Any:
    text = Path(path).read_text("utf-8")
    found = re.search(r'id="data">(.*?)</script>', text)
    assert found is not None
    return json.loads(found[1])


def table(picture: Any) -> list[list[str]]:
    return [[cell["value"] for cell in row] for row in picture["table"]["rows"]]


def heads(picture: Any) -> list[str]:
    return [column["name"] for column in picture["table"]["columns"]]


def test_photographs_are_enlarged_as_they_are(compare: Srx) -> None:
    paint(Path("in/a.png"), (12, 8))
    paint(Path("in/b.png"), (10, 10))
    code, out, err = compare("in")
    assert (code, out) == (0, "")
    found = page()
    assert found["rows"] == ["input", "srx", "srx --steps 2"]
    assert [picture["name"] for picture in found["pictures"]] == ["a.png", "b.png"]
    assert [picture["size"] for picture in found["pictures"]] == [[48, 32], [40, 40]]
    assert all(all(picture["images"]) for picture in found["pictures"])
    assert heads(found["pictures"][0]) == ["method", "seconds"]
    assert "open it in a browser" in err
    assert "mean of 2 pictures" in err


def test_with_originals_there_are_numbers(compare: Srx) -> None:
    paint(Path("in/a.png"), (48, 32))
    assert compare("in", "--degradation", "mild", "--metrics", "psnr,ssim").code == 0
    (picture,) = page()["pictures"]
    assert page()["rows"][-1] == "original"
    assert heads(picture) == ["method", "seconds", "psnr", "ssim"]
    assert all(float(cell) > 0 for row in table(picture)[1:3] for cell in row[2:])
    assert table(picture)[0][2:] == table(picture)[3][2:] == ["–", "–"]
    assert "LR by mild x1/4" in page()["note"]


def test_originals_can_be_named(compare: Srx) -> None:
    paint(Path("small.png"), (12, 8))
    paint(Path("large.png"), (48, 32))
    assert compare("small.png", "--hr", "large.png", "--metrics", "psnr").code == 0
    assert page()["rows"][-1] == "original"
    paint(Path("lr/a.png"), (12, 8))
    paint(Path("hr/a.png"), (48, 32))
    assert compare("lr", "--hr", "hr", "--metrics", "psnr").code == 0
    assert page()["pictures"][0]["size"] == [48, 32]
    code, _, err = compare("lr", "--hr", "large.png", "--scale", "2")
    assert (code, "is not 2 times as large" in err) == (2, True)


def test_data_sets_are_known_by_their_layout(compare: Srx) -> None:
    paint(Path("set/LR/a.png"), (12, 8))
    paint(Path("set/HR/a.png"), (48, 32))
    assert compare("set", "--metrics", "psnr").code == 0
    assert page()["rows"][-1] == "original"


def test_metrics_that_need_originals_are_told_of_only_when_asked_for(compare: Srx) -> None:
    paint(Path("a.png"), (12, 8))
    assert "originals to measure" not in compare("a.png").err
    assert "psnr: there are no originals" in compare("a.png", "--metrics", "psnr").err


def test_the_part_is_chosen(compare: Srx) -> None:
    file = paint(Path("a.png"), (60, 40))
    assert compare("a.png", "--crop", "10", "--at", "50,9").code == 0
    (picture,) = page()["pictures"]
    assert picture["size"] == [40, 40]
    assert picture["part"] == pytest.approx([45 / 60, 4 / 40, 10 / 60, 10 / 40])
    theirs = Path("theirs/a.png")
    theirs.parent.mkdir()
    Image.open(file).resize((240, 160), Image.Resampling.NEAREST).save(theirs)
    assert compare("a.png", "--crop", "10", "--at", "50,9", "--peer", "them=theirs").code == 0
    assert page()["rows"] == ["input", "srx", "srx --steps 2", "them"]
    assert page()["pictures"][0]["images"][3]


def test_a_peer_that_fails_is_a_line_that_says_why(compare: Srx) -> None:
    paint(Path("a.png"), (12, 8))
    Path("bad.pth").write_bytes(b"no checkpoint")
    code, _, err = compare("a.png", "--peer", "bad=bad.pth")
    assert code == 0
    (picture,) = page()["pictures"]
    assert picture["images"][3] is None
    assert "bad.pth" in table(picture)[3][-1]
    assert "bad.pth" in err


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["nowhere.png"], "nowhere.png does not exist"),
        (["a.png", "--at", "3"], "--at 3 must be two numbers"),
        (["a.png", "--at", "x,y"], "--at must be a list like 640,480"),
        (["a.png", "--crop", "-3"], "crop must not be negative"),
        (["a.png", "--crop", "0", "--at", "3,4"], "--at is the middle of a part"),
        (["a.png", "--hr", "a.png", "--degradation", "mild"], "--hr gives originals"),
        (["a.png", "--metrics", "fid"], "srx bench measures it"),
        (["a.png", "--row=--scale 2"], "are those of srx compare itself"),
        (["a.png", "--scale", "0"], "scale must be above 0"),
        (["a.png", "--html", "page.png"], "must end in .html"),
        (["a.png", "--html", "diary.html"], "no page of srx"),
        (["a.png", "--html", "nowhere/a.html"], "does not exist"),
    ],
)
def test_mistakes_are_told_before_the_work(compare: Srx, arguments: list[str], reason: str) -> None:
    paint(Path("a.png"), (12, 8))
    Path("diary.html").write_text("<p>mine")
    code, _, err = compare(*arguments)
    assert (code, reason in err) == (2, True), err
    assert not Path("page.html").exists()
    assert Path("diary.html").read_text() == "<p>mine"


def test_a_damaged_picture_is_named(compare: Srx) -> None:
    paint(Path("a.png"), (12, 8))
    Path("b.png").write_bytes(Path("a.png").read_bytes()[:60])
    code, _, err = compare("a.png", "b.png")
    assert (code, "b.png" in err) == (1, True)
    assert not Path("page.html").exists()


def test_a_page_is_needed(capsys: pytest.CaptureFixture[str], isolated: None) -> None:
    code, _, err = called(capsys, "compare", "a.png")
    assert (code, "--html page.html" in err) == (2, True)


def test_an_interruption_leaves_a_page_of_what_is_done(
    compare: Srx, monkeypatch: pytest.MonkeyPatch
) -> None:
    paint(Path("a.png"), (12, 8))
    real = comparison.compare

    def interrupted(peer: Any, *args: Any, **kwargs: Any) -> Any:
        if peer.name == "srx --steps 2":
            raise KeyboardInterrupt
        return real(peer, *args, **kwargs)

    monkeypatch.setattr(comparison, "compare", interrupted)
    code, _, err = compare("a.png")
    assert (code, "interrupted: 1 of 2 rows" in err) == (130, True)
    assert page()["rows"] == ["input", "srx"]


def test_nothing_done_is_no_page(compare: Srx, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: Any, **__: Any) -> Any:
        raise KeyboardInterrupt

    paint(Path("a.png"), (12, 8))
    monkeypatch.setattr(comparison, "compare", interrupted)
    assert compare("a.png").code == 130
    assert not Path("page.html").exists()


def test_weights_that_are_missing_are_an_error_of_the_model(
    compare: Srx, tmp_path: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(tiny, "weights")
    Path("weights/embedded.safetensors").write_bytes(b"damaged")
    monkeypatch.setenv("SRX_WEIGHTS", str(Path("weights").absolute()))
    paint(Path("a.png"), (12, 8))
    code, _, err = compare("a.png")
    assert (code, "embedded" in err) == (3, True)
    assert page()["pictures"][0]["images"][1:] == [None, None]


def test_the_same_pictures_as_upscale_makes(
    compare: Srx, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of a picture that is compared whole."""
    paint(Path("a.png"), (12, 8))
    assert called(capsys, "upscale", "a.png", "out/", "--device", "cpu").code == 0
    assert compare("a.png", "--peer", "file=out").code == 0
    images = page()["pictures"][0]["images"]
    assert images[1] == images[3]
    assert images[1] != images[2]
    assert np.asarray(Image.open("out/a.png")).shape == (32, 48, 3)
