"""`srx sweep-t1`: what it prints where, its files, its exit codes, and how it goes on."""

import csv
import io
import json
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from calls import Srx, called
from PIL import Image

from sr_cli.cli.sweep_t1 import _time
from sr_cli.cli.ui import Terminal
from sr_cli.evaluation.metrics import Metrics
from sr_cli.evaluation.tables import Column, Table

pytest_plugins = ["calls"]

SMALL = ("--t1", "500,T/3", "--steps", "1,3", "--order", "1,3", "--metrics", "psnr,ssim")
FAST = (*SMALL, "--device", "cpu", "--dtype", "float32")


@pytest.fixture
def srx(
    isolated: None,
    tiny: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Srx:
    """The command in this process, in a folder with HR/a.png and HR/b.png, with tiny weights."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    Path("HR").mkdir()
    for seed, name in enumerate("ab"):
        levels = np.random.default_rng(seed).integers(0, 256, (48, 52, 3), dtype=np.uint8)
        Image.fromarray(levels).save(Path("HR") / f"{name}.png")

    return partial(called, capsys, "sweep-t1")


@pytest.fixture
def scored(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """One entry for each measurement; the third raises an exception that is put in before."""
    calls: list[Any] = []
    real = Metrics.score

    def score(self: Metrics, *images: Any) -> dict[str, float | None]:
        calls.append(images[0].shape)
        if isinstance(calls[0], BaseException) and len(calls) == 4:
            raise calls[0]
        return real(self, *images)

    monkeypatch.setattr(Metrics, "score", score)
    return calls


def test_the_table_goes_to_stderr_and_json_alone_to_stdout(srx: Srx) -> None:
    code, out, err = srx("HR", *FAST, "--json")
    assert code == 0
    document = json.loads(out)
    rows = document["rows"]
    own = [(r["t1"], r["steps"], r["order"]) for r in rows if r["t1"]]
    assert own == [(t1, n, order) for t1 in (500, 333) for n, order in ((1, 1), (3, 1), (3, 3))]
    rivals = [(r["sampler"], r["steps"]) for r in rows if r["t1"] is None]
    assert rivals == [(name, n) for name in ("ddim", "edm", "dpmsolver++") for n in (1, 3)]
    assert all(5 < row["psnr"] < 40 and 0 < row["ssim"] < 1 and row["s/image"] > 0 for row in rows)
    assert document["data"]["images"] == 2
    assert document["options"]["steps"] == [1, 3]
    assert "dpmsolver++" in err
    assert "psnr" in err
    assert "[1/24] a" in err
    assert "\x1b" not in err
    assert srx("HR", *FAST)[1] == ""


def test_a_half_is_swept_and_named(srx: Srx) -> None:
    _, out, err = srx("HR", *FAST, "--half", "second", "--json")
    data = json.loads(out)["data"]
    assert (data["half"], data["images"]) == ("second", 1)
    assert "second half: 1 images" in err


def test_a_texture_of_a_model_with_a_dial_is_swept(
    srx: Srx, dialled_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = ("HR", *FAST, "--steps", "1", "--sampler", "none", "--json", "--texture")
    assert srx(*run, "0.5").code == 2
    monkeypatch.setenv("SRX_WEIGHTS", str(dialled_weights))
    smooth, crisp = (json.loads(srx(*run, value).out) for value in ("0", "1"))
    assert smooth["environment"]["texture"] == 0
    assert smooth["rows"][0]["psnr"] != crisp["rows"][0]["psnr"]


def test_another_texture_in_the_card_is_measured_again(
    srx: Srx,
    dialled_weights: Path,
    tmp_path: Path,
    scored: list[Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    weights = shutil.copytree(dialled_weights, tmp_path / "weights")
    monkeypatch.setenv("SRX_WEIGHTS", str(weights))
    run = ("HR", *FAST, "--t1", "500", "--steps", "1", "--order", "1", "--sampler", "none")
    for texture, measured in ((None, 2), (None, 2), (0.0, 4)):
        content = json.loads((weights / "embedded.json").read_text())
        if texture is not None:
            content["limits"]["texture"] = texture
        (weights / "embedded.json").write_text(json.dumps(content))
        assert srx(*run).code == 0
        assert len(scored) == measured


def test_quiet_says_nothing(srx: Srx) -> None:
    assert srx("HR", *FAST, "--quiet") == (0, "", "")


def test_files_hold_the_table_the_curves_and_the_crops(srx: Srx) -> None:
    code, out, _ = srx(
        "HR", *FAST, "--json", "--csv", "t.csv", "--plot", "p.png", "--sheet", "s.png"
    )
    assert code == 0
    with Path("t.csv").open(encoding="utf-8") as file:
        read = list(csv.DictReader(file))
    rows = json.loads(out)["rows"]
    assert [float(row["psnr"]) for row in read] == [row["psnr"] for row in rows]
    assert Image.open("p.png").size[0] > 500
    assert Image.open("s.png").size[0] > Image.open("s.png").size[1]


def test_an_interrupted_sweep_goes_on_to_the_same_table(srx: Srx, scored: list[Any]) -> None:
    scored.append(KeyboardInterrupt())
    code, out, err = srx("HR", *FAST, "--json")
    assert (code, out) == (130, "")
    assert "interrupted: 2 of 24 measured; the same command does the rest" in err
    scored.clear()
    first = srx("HR", *FAST, "--json")
    assert len(scored) == 22
    assert srx("HR", *FAST, "--json")[1] == first[1]
    assert len(scored) == 22


def test_a_bad_image_ends_a_sweep_before_it_begins(srx: Srx, scored: list[Any]) -> None:
    Path("HR/zz.png").write_text("no image")
    code, _, err = srx("HR", *FAST)
    assert (code, "zz.png" in err, scored) == (1, True, [])
    assert "zz.png is a file, not a folder" in srx("HR/zz.png", *FAST)[2]


@pytest.mark.parametrize(
    ("change", "measurements"),
    [
        (("--seed", "1"), 24),
        (("--color", "none"), 24),
        (("--border", "2"), 24),
        (("--degradation", "mild"), 24),
        (("--steps", "1,3,4"), 14),
        (("--cache", "other.jsonl"), 24),
        (("--csv", "t.csv"), 0),
    ],
)
def test_a_changed_option_is_measured_again(
    srx: Srx, scored: list[Any], change: tuple[str, ...], measurements: int
) -> None:
    assert srx("HR", *FAST)[0] == 0
    scored.clear()
    assert srx("HR", *FAST, *change)[0] == 0
    assert len(scored) == measurements


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (("--t1", "T/0"), "--t1 must be a list like 500,T/2,2T/3, not 'T/0'"),
        (("--t1", "1001"), "between 10 and 1000"),
        (("--t1", ""), "lacks a value"),
        (("--steps", "1,x"), "--steps must be a list like"),
        (("--steps", "0"), "between 1 and 1000"),
        (("--order", "4"), "order must be 1, 2 or 3"),
        (("--variant", "euler"), "variant must be one of"),
        (("--sampler", "euler"), "ddim"),
        (("--metrics", "beauty"), "no metric"),
        (("--metrics", "fid"), "whole sets"),
        (("--plot", "p.doc"), "p.doc must end in"),
        (("--sheet", "no/s.png"), "make it first"),
        (("--sheet", "s.png", "--sheet-by", "seed"), "needs --seeds"),
        (("--crop", "7"), "crop must be at least 32"),
        (("--csv", "no/t.csv"), "make it first"),
        (("--csv", "HR"), "is a directory"),
        (("--plot", "HR"), "is a directory"),
        (("--sheet", "HR"), "is a directory"),
        (("--cache", "HR"), "is a directory"),
        (("--cache", "HR/a.png/cache.jsonl"), "choose --cache"),
        (("--scale", "0"), "scale"),
        (("--device", "tpu"), "device must be"),
    ],
)
def test_what_makes_no_sense_is_refused_before_any_work(
    srx: Srx, scored: list[Any], wrong: tuple[str, ...], said: str
) -> None:
    code, out, err = srx("HR", *FAST, *wrong)
    assert (code, out, scored) == (2, "", [])
    assert said in err
    assert "Traceback" not in err


def test_a_folder_without_images_is_refused(srx: Srx) -> None:
    Path("empty").mkdir()
    code, _, err = srx("empty", *FAST)
    assert code == 2
    assert "no image" in err


def test_missing_metrics_are_named_and_left_open(
    srx: Srx, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    code, out, err = srx("HR", *FAST, "--metrics", "psnr,lpips", "--json")
    assert code == 0
    assert "lpips" in json.loads(out)["metrics"]["missing"]
    assert {row["lpips"] for row in json.loads(out)["rows"]} == {None}
    assert "lpips" in err


def test_starts_are_read_as_the_paper_writes_them() -> None:
    assert [_time(t) for t in ("T", "2T/3", "T/2", "T/3", "500")] == [1000, 666, 500, 333, 500]
    for wrong in ("t", "T/", "-5", "2.5", "3T/0", "x"):
        with pytest.raises(ValueError, match="no part of T"):
            _time(wrong)


class Screen(io.StringIO):
    """A stream that says that it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_the_best_value_is_bold_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    screen = Screen()
    monkeypatch.setattr("sys.stderr", screen)
    table = Table((Column("solver"), Column("psnr", "higher")), (("edm", 21.5), ("ddim", 23.25)))
    Terminal().results(table)
    assert "\x1b[1m23.25\x1b[0m" in screen.getvalue()
    assert "\x1b[1m21.5" not in screen.getvalue()
