"""`srx bench`: what goes to stdout and what to stderr, and which rows a command line means."""

import csv
import json
import os
import shlex
import shutil
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from calls import Srx, called
from PIL import Image

from sr_cli.evaluation import datasets
from sr_cli.models.registry import card

pytest_plugins = ["calls"]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for seed in (0, 1):
        rough = np.random.default_rng(seed).integers(0, 256, (5, 6, 3), dtype=np.uint8)
        image = Image.fromarray(rough).resize((64, 48), Image.Resampling.BICUBIC)
        image.save(folder / f"{seed}.png")
    return folder


@pytest.fixture
def bench(
    isolated: None,
    tiny: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> Srx:
    """The command in this process, with the tiny weights."""
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    return partial(called, capsys, "bench", "--metrics", "psnr,niqe", "--device", "cpu")


@pytest.fixture
def plain(bench: Srx, capsys: pytest.CaptureFixture[str]) -> Srx:
    """The same without metrics, of which a suite and a profile have none."""
    return partial(called, capsys, "bench", "--device", "cpu")


def test_json_is_all_that_stdout_has(bench: Srx, photos: Path) -> None:
    code, out, err = bench(photos, "--no-baselines", "--steps", "1,2", "--json")
    assert code == 0
    report = json.loads(out)
    assert [row["method"] for row in report["rows"]] == ["--steps 1", "--steps 2"]
    assert [row["nfe"] for row in report["rows"]] == [1, 2]
    assert report["rows"][0]["scores"]["niqe"] is None
    assert "niqe" in report["metrics"]["missing"]
    assert report["environment"]["device"] == "cpu"
    assert report["environment"]["dtype"] in ("float32", "bfloat16")
    assert "niqe" in err
    assert ("niqe has no weights" if find_spec("pyiqa") else "niqe needs pyiqa") in err
    assert "CPU thread" in err


def test_without_a_terminal_the_table_is_whole_and_plain(bench: Srx, photos: Path) -> None:
    name = "a peer with a name that is far longer than a line of eighty columns could ever hold"
    theirs = photos.parent / "theirs"
    theirs.mkdir()
    for photo in photos.iterdir():
        Image.open(photo).save(theirs / photo.name)
    _, out, err = bench(photos, "--no-baselines", "--row", "--steps 1", f"--peer={name}={theirs}")
    assert out == ""
    assert any(name in line and "80.00" in line for line in err.splitlines())
    assert "\x1b" not in err


@pytest.mark.parametrize(("setting", "colours"), [("", True), ("1", False)])
def test_no_color_is_honoured(
    bench: Srx, photos: Path, monkeypatch: pytest.MonkeyPatch, setting: str, colours: bool
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("NO_COLOR", setting)
    _, _, err = bench(photos, "--no-baselines", "--peer", "bad=photos/0.png", "--scale", "0")
    assert ("\x1b[31m" in err) == colours


def test_rows_are_what_is_written_in_them(
    bench: Srx, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Variables and keys of srx upscale do not reach them, be they right or wrong there."""
    monkeypatch.setenv("SRX_ORDER", "nonsense")
    monkeypatch.setenv("SRX_SEED", "3")
    Path("srx.toml").write_text("steps = 5\n[upscale]\nsteps = 4\n")
    monkeypatch.setenv("SRX_STEPS", "7")
    monkeypatch.setenv("SRX_BENCH_STEPS", "2")  # the control: of srx bench, which makes a row of it
    code, out, err = bench(photos, "--no-baselines", "--row=", "--row=--seed 1", "--json")
    assert code == 0, err
    found = {row["method"]: row["nfe"] for row in json.loads(out)["rows"]}
    assert found == {
        "--steps 2": 2,
        "(defaults)": card("embedded").limits.steps,
        "--seed 1": card("embedded").limits.steps,
    }


def test_rows_and_peers_can_stand_in_the_file(
    bench: Srx, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("own.toml").write_text(
        '[bench]\nbaselines = false\nrow = ["--steps 1 --order 1", ""]\npeer = ["p=photos"]'
    )
    monkeypatch.setenv("SRX_BENCH_ROW", "--steps 9")  # options that are repeated are no variables
    monkeypatch.setenv("SRX_CONFIG", "own.toml")
    code, out, err = bench(photos, "--json")
    assert code == 0, err
    rows = ["--steps 1 --order 1", "(defaults)"]
    assert [row["method"] for row in json.loads(out)["rows"]] == [*rows, "p"]
    _, out, _ = bench(photos, "--json", "--row=--steps 2")  # the command line wins
    assert [row["method"] for row in json.loads(out)["rows"]] == ["--steps 2", "p"]


def test_sets_of_one_name_are_told_apart(bench: Srx, photos: Path) -> None:
    """By as much of their paths as they need; a set of another name keeps its own."""
    folders = [Path(name) for name in ("a/s/Set", "b/s/Set", "c/Set/HR", "d/images")]
    for folder in folders:
        folder.mkdir(parents=True)
        shutil.copy(photos / "0.png", folder)
    paths = (photos, *folders, "photos/0.png", "--no-baselines", "--row=--steps 1")
    _, out, _ = bench(*paths, "--markdown")
    tables = [table.splitlines() for table in out.split("\n\n**")]
    names = ["photos", "a/s/Set", "b/s/Set", "Set/HR", "d/images", "images"]
    assert [lines[0].strip("*").split(":")[0] for lines in tables] == names
    assert [len(lines) for lines in tables] == [5] * len(names)  # title, blank, head, ruler, row
    rows = json.loads(bench(*paths, "--json")[1])["rows"]
    assert [row["data"] for row in rows] == names


def test_a_half_is_measured_and_named_in_every_report(bench: Srx, photos: Path) -> None:
    run = (photos, "--no-baselines", "--row=--steps 1")
    halves = {}
    for half in ("first", "second"):
        _, out, err = bench(*run, "--half", half, "--json")
        document = json.loads(out)
        (row,) = document["rows"]
        assert (row["data"], row["images"]) == (f"photos, {half} half", 1)
        assert document["options"]["half"] == half
        assert f"photos, {half} half: 1 images" in err
        halves[half] = row["scores"]["psnr"]
    assert halves["first"] != halves["second"]
    whole = json.loads(bench(*run, "--json")[1])["rows"][0]
    assert whole["data"] == "photos"
    assert whole["scores"]["psnr"] == pytest.approx(sum(halves.values()) / 2)
    assert bench(photos / "0.png", "--half", "second").code == 2


def test_a_row_can_turn_the_dial(
    bench: Srx, photos: Path, dialled_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = (photos, "--no-baselines", "--row=--texture 0", "--row=--texture 1", "--row=", "--json")
    code, out, err = bench(*run)
    assert (code, out) == (2, "")
    assert "embedded has no dial" in err
    monkeypatch.setenv("SRX_WEIGHTS", str(dialled_weights))
    smooth, crisp, own = (row["scores"]["psnr"] for row in json.loads(bench(*run).out)["rows"])
    assert smooth != crisp == own


def test_an_explicit_degradation_makes_lr(bench: Srx, photos: Path) -> None:
    pair = photos.parent / "set"
    photos.rename(photos.parent / "HR")
    pair.mkdir()
    (photos.parent / "HR").rename(pair / "HR")
    (pair / "LR").mkdir()
    for file in (pair / "HR").iterdir():
        Image.new("RGB", (16, 12), "teal").save(pair / "LR" / file.name)
    row = ("--no-baselines", "--row=--steps 1", "--markdown")
    assert "given LR" in bench(pair, *row)[1]
    assert "given LR" in bench(pair / "HR", *row)[1]
    for folder in (pair, pair / "HR"):
        assert "LR by bicubic" in bench(folder, *row, "--degradation", "bicubic")[1]
    code, _, err = bench(pair / "HR", "--lr", pair / "LR", "--degradation", "mild")
    assert code == 2
    assert "--lr gives LR images and --degradation makes them" in err


def test_baselines_stand_beside_and_files_are_one_set(bench: Srx, photos: Path) -> None:
    Image.new("RGB", (32, 32), "teal").save("a.png")
    code, out, _ = bench("a.png", "--markdown", "--row=", "--warmup=0")
    assert code == 0
    title, _, *lines = out.splitlines()
    assert title == "**images: 1 images x4, LR by bicubic x1/4**"
    methods = [line.split("|")[1].strip() for line in lines[2:]]
    assert methods[:4] == ["nearest", "bicubic", "lanczos", "compact alone"]
    assert methods[4:] == ["(defaults)", "Real-ESRGAN x4plus", "Real-ESRGAN x4plus, ncnn"]


def test_several_scales_stand_beside_each_other(bench: Srx, photos: Path, tmp_path: Path) -> None:
    """A table for each metric that there is; a row of JSON and of CSV for each scale and method."""
    run = (photos, "--scales", "4,2,2.7", "--row=", "--baselines", "--csv", "t.csv")
    code, out, err = bench(*run, "--markdown")
    assert code == 0, err
    title, *tables = out.split("\n\n")
    assert "LR by bicubic x1/2, LR by bicubic x1/2.7, LR by bicubic x1/4" in title
    assert [table.split(" |")[0] for table in tables] == ["| psnr", "| s/image"]
    assert tables[0].splitlines()[0] == "| psnr | 2× | 2.7× | 4× |"
    shown = {
        line.split(" | ")[0].strip("| "): [cell.strip("*| ") for cell in line.split(" | ")[1:]]
        for line in tables[0].splitlines()[2:]
    }
    rows = list(csv.DictReader(Path("t.csv").read_text().splitlines()))
    for method, cells in shown.items():
        own = [row for row in rows if row["method"] == method]
        assert [f"{float(row['psnr']):.2f}" for row in own] == cells
        assert [float(row["scale"]) for row in own] == [2, 2.7, 4]
    for scale in (2, 4):  # the control: as each scale by itself
        alone = bench(photos, "--scale", scale, "--row=", "--no-baselines", "--json")[1]
        (row,) = json.loads(alone)["rows"]
        assert shown["(defaults)"][(2, 2.7, 4).index(scale)] == f"{row['scores']['psnr']:.2f}"
        assert row["scale"] == scale


def test_a_scale_that_given_images_do_not_have_stops_before_measuring(
    bench: Srx, photos: Path
) -> None:
    Path("pair/HR").mkdir(parents=True)
    Path("pair/LR").mkdir()
    Image.open(photos / "0.png").save("pair/HR/a.png")
    Image.open(photos / "0.png").resize((32, 24)).save("pair/LR/a.png")
    code, _, err = bench("pair", "--scales", "2,4", "--row=", "--no-baselines")
    assert code == 2
    assert "is not 4 times as large" in err
    code, _, err = bench("pair", "--scales", "2", "--row=", "--no-baselines")
    assert code == 0, err


def test_results_of_several_scales_lie_in_folders_of_theirs(bench: Srx, photos: Path) -> None:
    for name in ("X2", "x4"):
        Path("theirs", name).mkdir(parents=True)
        for photo in photos.iterdir():
            Image.open(photo).save(Path("theirs", name, photo.name))
    Image.new("RGB", (64, 48)).save("theirs/X2/0.png")
    run = (photos, "--no-baselines", "--row=", "--peer", "it=theirs", "--scales", "2,4", "--json")
    code, out, err = bench(*run)
    assert code == 0, err
    found = [row["scores"]["psnr"] for row in json.loads(out)["rows"] if row["method"] == "it"]
    assert found[0] < 60
    assert found[1] == 80
    code, _, err = bench(*run[:-2], "2,3", "--json")
    assert code == 2
    assert "theirs has no results of x3: no folder X3" in err


def test_without_arguments_the_examples_are_measured(
    bench: Srx, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert [path.name for path in datasets.examples()] == list(datasets.EXAMPLES)
    monkeypatch.setattr(datasets, "EXAMPLES", ("0.png", "1.png"))
    monkeypatch.setattr(datasets, "PACKAGE", photos.parent / "package")
    code, _, err = bench()
    assert code == 2
    assert "examples are not installed" in err
    photos.rename(photos.parent / "examples")
    assert bench("--no-baselines", "--steps", "1")[0] == 0


def test_the_table_as_csv_and_figure(bench: Srx, photos: Path) -> None:
    code, _, err = bench(
        *(photos, "--no-baselines", "--row=", "--quiet"),
        *("--csv=t.csv", "--plot=t.svg", "--plot-metric=psnr"),
    )
    assert code == 0
    assert err == ""
    with Path("t.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert {row["data"] for row in rows} == {"photos"}
    assert float(rows[0]["psnr"]) > 10
    assert "<!-- (defaults) -->" in Path("t.svg").read_text("utf-8")


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("--csv=locked/t.csv", "write-protected"),
        ("--csv=locked.csv", "not writable"),
        ("--plot=locked.png", "not writable"),
        ("--update-card", "which is write-protected"),
    ],
)
def test_what_may_not_be_written_is_refused_before_any_work(
    bench: Srx, photos: Path, monkeypatch: pytest.MonkeyPatch, option: str, words: str
) -> None:
    Path("locked").mkdir()
    for name in ("locked.csv", "locked.png"):
        Path(name).touch()

    protected = ("locked", card("embedded").folder.stem)

    def access(path: str | Path, mode: int) -> bool:  # the real one lets root do everything
        return mode != os.W_OK or Path(path).stem not in protected

    monkeypatch.setattr(os, "access", access)
    code, out, err = bench(photos, option, "--plot-metric=psnr", "--json")
    assert (code, out) == (2, "")
    assert words in err
    assert len(err.splitlines()) == 1


def test_a_failing_peer_is_a_row_and_all_of_srx_failing_an_error(bench: Srx, photos: Path) -> None:
    """With the code of the first of these failures, whatever others did."""
    Path("bad.pth").write_bytes(b"nothing")
    arguments = (photos, "--no-baselines", "--peer", "bad=bad.pth", "--json")
    code, out, _ = bench(*arguments, "--steps", "1")
    assert code == 0
    assert [bool(row["failure"]) for row in json.loads(out)["rows"]] == [False, True]
    code, out, _ = bench(photos, "--row=--preprocess gone", "--row=--preprocess none", "--json")
    assert code == 0
    code, out, _ = bench(photos, "--row=--preprocess gone", "--json", "--update-card")
    assert code == 3
    failed = [row["method"] for row in json.loads(out)["rows"] if row["failure"]]
    assert "--preprocess gone" in failed
    assert "bicubic" not in failed
    assert card("embedded").scores == {}


@pytest.mark.parametrize("model", ["gone", "compact"])
def test_a_model_that_is_none_stops_before_measuring(bench: Srx, photos: Path, model: str) -> None:
    code, out, err = bench(photos, "--model", f"embedded,{model}", "--json")
    assert (code, out) == (3, "")
    assert model in err
    assert len(err.strip().splitlines()) <= 2  # the missing metric's and the error


def test_results_without_partners_stop_before_measuring(bench: Srx, photos: Path) -> None:
    theirs = photos.parent / "theirs"
    theirs.mkdir()
    Image.new("RGB", (64, 48)).save(theirs / "0.png")
    code, out, err = bench(photos, "--row=", "--json", "--peer", "theirs=theirs")
    assert (code, out) == (2, "")
    assert "1.png has no partner" in err
    Image.new("RGB", (64, 48)).save(theirs / "1.png")
    assert bench(photos, "--row=--steps 1", "--no-baselines", "--peer", "theirs=theirs")[0] == 0


def test_a_picture_too_small_is_left_out_and_named(bench: Srx, photos: Path) -> None:
    plain = (photos, photos.parent / "photos", "--no-baselines", "--row=--steps 1", "--json")
    expected = json.loads(bench(*plain)[1])["rows"]
    assert len(expected) == 1  # the folder that was named twice is measured once
    Image.new("RGB", (3, 9)).save(photos / "small.png")
    code, out, err = bench(*plain)
    assert code == 0
    assert "small.png is left out" in err
    (row,) = json.loads(out)["rows"]
    assert (row["images"], row["scores"]) == (2, expected[0]["scores"])
    for number in (0, 1):
        (photos / f"{number}.png").unlink()
    code, out, err = bench(*plain)
    assert (code, out) == (2, "")
    assert "No image of photos is large enough" in err


def test_the_log_ends_with_all_done(bench: Srx, photos: Path) -> None:
    Path("bad.pth").write_bytes(b"nothing")
    rows = (photos, "--no-baselines", "--row=--steps 1")
    for arguments, total in ((rows, 2), ((*rows, "--peer", "bad=bad.pth"), 4)):
        counts = [line for line in bench(*arguments)[2].splitlines() if line.startswith("[")]
        assert [line.startswith(f"[{total}/{total}] ") for line in counts][-2:] == [False, True]


def test_a_row_is_of_the_diffusion_alone(bench: Srx, photos: Path) -> None:
    """Sizes are the data's: a row would say --scale 3 of what was measured at another scale."""
    for row in ("--scale 3", "--size 9x9", "--long-side 9", "--short-side 9"):
        code, _, err = bench(photos, f"--row={row}")
        assert code == 2
        assert f"cannot have {row.split()[0]}" in err
    for row in ("-r", "--format jpeg", "--overwrite", "--device cpu", "--json", "a.png"):
        assert bench(photos, f"--row={row}")[0] == 2
    every = "--steps 1 --order 1 --seed 3 --tile 16 --preprocess none --color none --t1 300"
    assert bench(photos, "--no-baselines", f"--row={every}")[0] == 0


def test_a_profile_names_the_bottleneck(plain: Srx, photos: Path) -> None:
    code, out, err = plain(photos, "--profile", "--steps", "2", "--json")
    assert code == 0
    (found,) = json.loads(out)["profiles"]
    assert {"read", "network, step 2", "write"} <= set(found["parts"])
    assert 0 < found["outside"] < 1
    assert "The bottleneck is" in err


def test_the_card_is_updated_only_when_asked(bench: Srx, photos: Path) -> None:
    before = card("embedded")
    bench(photos, "--no-baselines", "--steps", "1")
    assert card("embedded") == before
    bench(photos, "--no-baselines", "--steps", "1", "--update-card")
    after = card("embedded")
    assert list(after.scores) == ["measured by", "photos, --steps 1"]
    command = "srx bench photos --row '--steps 1' (photos LR by bicubic x1/4)"
    assert after.scores["measured by"] == command
    assert 0 <= (after.limits.margin_one_level or 0) <= after.limits.margin
    assert after.sha256 == before.sha256


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("--row '--nonsense 1'", "nonsense"),
        ("""--row "--steps '1" """, "cannot be read"),
        ("--steps 1 --update-card --model embedded,prior", "--update-card"),
        ("--row= --row '--method diffsr --t1 9' --update-card", "not for embedded, prior"),
        ("--steps 0", "steps"),
        ("--steps 1,", "lacks a value"),
        ("--model ,embedded", "lacks a value"),
        ("--peer bad", "NAME=FILE"),
        ("--peer bad=gone.pth", "gone.pth"),
        ("--metrics beauty", "beauty"),
        ("--json --markdown", "stdout"),
        ("--plot t.gif", "t.gif"),
        ("--plot t.png --plot-metric musiq", "musiq"),
        ("--csv gone/t.csv", "make it first"),
        ("--csv photos", "'photos' is a directory"),
        ("--plot photos", "'photos' is a directory"),
        ("--plot gone/t.png", "make it first"),
        ("--scale 0", "scale"),
        ("--scales 2,0", "scale"),
        ("--scales 2,two", "--scales"),
        ("--scales 2,4 --update-card", "one --scale"),
        ("--crop 8", "crop must be at least 32"),
        ("--per-folder 0", "--per-folder must be at least 1"),
        ("--repeat 0", "repeat"),
        ("gone.png", "gone.png"),
    ],
)
def test_wrong_usage_is_one_sentence(bench: Srx, photos: Path, arguments: str, words: str) -> None:
    code, out, err = bench(photos, *shlex.split(arguments))
    assert (code, out) == (2, "")
    assert words in err
    assert len(err.strip().splitlines()) == 1


def test_a_suite_writes_a_page_and_numbers(
    plain: Srx, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sr_cli.evaluation.suite import checks, run, speed

    monkeypatch.setattr(run, "TASKS", {"checks": (checks.tiles,), "speed": (speed.noise,)})
    page = tmp_path / "page.md"
    page.write_text("# Mine\n")
    code, out, err = plain("--suite", page, "--quick", "--parts", "checks,speed", "--json")
    assert code == 0
    assert page.read_text().startswith("# Mine\n")
    assert "| the same once and twice more | 0 levels | holds" in page.read_text()
    (machine,) = json.loads((tmp_path / "page.json").read_text()).values()
    assert machine == json.loads(out)
    assert [machine[part]["title"] for part in ("checks", "speed")] == ["checks", "speed"]
    assert "page.json" in err


def test_a_suite_that_fails_says_so(
    plain: Srx, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sr_cli.evaluation.suite import checks, run
    from sr_cli.evaluation.suite.commands import Ended

    monkeypatch.setattr(run, "TASKS", {"checks": (checks.command,)})
    monkeypatch.setattr(checks, "srx", lambda *_: Ended(0, {}, ""))
    code, _, err = plain("--suite", tmp_path / "page.md", "--quick", "--parts", "checks")
    assert code == 1
    assert "srx upscale: a missing file: does not hold (exit code 0 instead of 2)" in err
    assert "FAILS" in (tmp_path / "page.md").read_text()


def test_a_suite_that_is_ended_has_written_what_it_found(
    plain: Srx, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sr_cli.evaluation.suite import checks, run

    def ended(_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "TASKS", {"checks": (checks.noise, ended)})
    page = tmp_path / "page.md"
    code, _, err = plain("--suite", page, "--quick", "--parts", "checks")
    assert code == 130, err
    assert "| noise: a window and the whole | 0 | holds" in page.read_text()
    (machine,) = json.loads(page.with_suffix(".json").read_text()).values()
    assert [finding["passed"] for finding in machine["checks"]["findings"]] == [True, True]


def test_mistakes_of_a_suite_are_told_before_the_work(
    plain: Srx, tmp_path: Path, photos: Path
) -> None:
    page = tmp_path / "page.md"
    for words, said in (
        (("--suite", page, photos), "leave DATA out"),
        (("--suite", page, "--parts", "all"), "--parts knows checks"),
        (("--suite", tmp_path / "none" / "page.md"), "does not exist"),
        (("--quick",), "--quick is of --suite"),
        (("--minutes", 1), "--minutes is of --suite"),
        (("--suite", page, "--row", ""), "--row is not for --suite"),
        (("--suite", page, "--batch", 2), "--batch is not for --suite"),
    ):
        code, _, err = plain(*words)
        assert (code, said in err) == (2, True), err
    (tmp_path / "page.json").write_text('{"a": 1}')
    code, _, err = plain("--suite", page, "--quick")
    assert code == 2
    assert "would be replaced" in err
    assert not page.exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--scale 2 --scales 2,4", "--scale is one scale"),
        ("--profile --csv a.csv", "--csv is not for --profile"),
        ("--json --markdown", "both want stdout"),
        ("--lr in --degradation mild in", "choose one"),
    ],
)
def test_options_that_contradict_each_other(plain: Srx, words: str, said: str) -> None:
    Path("in").mkdir()
    code, out, err = plain(*words.split())
    assert (code, out, said in err) == (2, "", True), err
