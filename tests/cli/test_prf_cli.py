"""`srx prf-search` and what `srx upscale --method diffsr` makes of its calibrations."""

import json
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from calls import Srx, called
from PIL import Image
from safetensors.torch import save_file

from sr_cli.cli import prf_search as command
from sr_cli.evaluation import datasets
from sr_cli.models.registry import card, load_weights, write_card

pytest_plugins = ["calls"]

FAST = ("--device", "cpu", "--dtype", "float32", "--steps", "2", "--rounds", "0", "--crop", "48")


@pytest.fixture
def srx(
    isolated: None,
    tiny: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Srx:
    """The command in this process, in a folder with HR/a.png, without weights of metrics."""
    for name in ("XDG_CACHE_HOME", "SRX_HOME", "TORCH_HOME"):
        monkeypatch.setenv(name, str(tmp_path / name))
    grids = {"diffsr": (0, 0.02, 0.2), "dossr": (0.1, 0.5)}
    monkeypatch.setattr("sr_cli.evaluation.prf.search.GRIDS", grids)
    Path("HR").mkdir()
    levels = np.random.default_rng(0).integers(0, 256, (48, 48, 3), dtype=np.uint8)
    Image.fromarray(levels).save("HR/a.png")

    return partial(called, capsys)


def test_a_search_is_kept_and_upscale_uses_it(srx: Srx, tmp_path: Path) -> None:
    enlarge = (
        "upscale",
        "HR/a.png",
        "out",
        "--method",
        "diffsr",
        "--steps",
        "2",
        "--device",
        "cpu",
    )
    code, _, err = srx(*enlarge, "--scale", "2")
    assert code == 2
    assert "srx prf-search --prior prior" in err
    code, out, err = srx("prf-search", "HR", "--scale", "2", *FAST)
    assert (code, out) == (0, "")
    (kept,) = (tmp_path / "SRX_HOME" / "calibrations").iterdir()
    assert str(kept) in err
    assert "t* is by the spectrum's amplitudes" in err
    code, _, err = srx(*enlarge, "--scale", "3.3")
    assert code == 0
    with Image.open("out/a.png") as image:
        assert image.size == (158, 158)
    found = json.loads(kept.read_text())["starts"]["2"]
    start = found["t"]
    assert {"steps": 2, "preprocess": "none", "crop": 48}.items() <= found["origin"].items()
    code, *_ = srx(*enlarge[:2], "same", *enlarge[3:], "--scale", "3.3", "--t1", start)
    assert Path("same/a.png").read_bytes() == Path("out/a.png").read_bytes()


def test_a_half_of_the_images_can_be_searched_and_the_calibration_says_so(srx: Srx) -> None:
    Image.open("HR/a.png").rotate(90).save("HR/b.png")
    run = ("prf-search", "HR", "--scale", "2", "--json", *FAST)
    for half, name in (("first", "a.png"), ("second", "b.png")):
        document = json.loads(srx(*run, "--half", half)[1])
        assert [Path(file).name for file in document["images"]] == [name]
        (kept,) = document["calibrations"].values()
        origin = json.loads(Path(kept).read_text())["starts"]["2"]["origin"]
        assert (origin["half"], origin["images"]) == (half, 1)
    assert len(json.loads(srx(*run)[1])["images"]) == 2


def test_the_document_holds_rows_and_points(srx: Srx, tmp_path: Path) -> None:
    plot = tmp_path / "prf.png"
    names = ("--scales", "2.7,1.6", "--schedule", "linear,cosine", "--plot", plot, "--json")
    code, out, _ = srx("prf-search", "HR", *names, *FAST)
    assert code == 0
    document = json.loads(out)
    assert list(document["schedules"]) == ["linear", "cosine"]
    for name, found in document["schedules"].items():
        assert [row["scale"] for row in found["rows"]] == ["1.6", "2.7"]
        assert [p["t"] for p in found["scales"][0]["points"]] == [0, 20, 200]
        assert name in document["calibrations"][name]
    assert plot.is_file()


def test_metrics_that_are_missing_are_named_and_what_decides_then(srx: Srx) -> None:
    found = ("prf-search", "HR", "--scale", "2", *FAST)
    code, _, err = srx(*found, "--metrics", "psnr,fid", "--sheet", "s.png")
    assert code == 0
    assert "fid has no weights" in err or "fid needs pyiqa" in err
    assert "Without LPIPS t* is by the spectrum's amplitudes." in err
    assert Image.open("s.png").size[0] > Image.open("s.png").size[1]


def test_limits_come_from_options_or_are_written_into_the_card(
    srx: Srx, tiny: Path, tmp_path: Path
) -> None:
    limits = ("--signature-limit", "1e-9", "--fidelity-limit", "1e-9")
    code, out, err = srx("prf-search", "HR", "--scale", "2", *limits, *FAST, "--json")
    assert code == 0
    assert json.loads(out)["schedules"]["scaled_linear"]["scales"][0]["prf"] is None
    assert "none" in err
    wide = ("--omega", "1e9", "--signature-limit", "1e9", "--fidelity-limit", "1e9", "--json")
    found = json.loads(srx("prf-search", "HR", "--scale", "2", *wide, *FAST)[1])
    assert found["schedules"]["scaled_linear"]["scales"][0]["prf"] == {"high": 999, "best": 999}
    code, _, err = srx("prf-search", "HR", "--scale", "2", "--omega", "0", *FAST)
    assert code == 2
    assert "positive" in err
    before = card("prior")
    files = [tiny / "prior.json", tiny / "prior.md"]
    texts = [file.read_text("utf-8") for file in files]
    try:
        code, _, err = srx("prf-search", "HR", "--scale", "4", "--update-card", *FAST)
        assert code == 0
        assert "in the card" in err
        after = card("prior")
        assert (after.limits.prf is not None) == ("no thresholds" not in err)
        assert f"{tmp_path.name}, 4x, t = 0" in after.scores
        assert after.scores["measured by"].startswith(
            f"srx prf-search {tmp_path.name} --scales 4 ("
        )
        assert after.sha256 == before.sha256
    finally:
        for file, text in zip(files, texts, strict=True):
            file.write_text(text, "utf-8")


def test_dossr_can_be_searched(srx: Srx) -> None:
    code, _, err = srx("prf-search", "HR", "--scale", "2", "--method", "dossr", *FAST)
    assert code == 0
    assert "psnr, T/2" in err
    auto = ("upscale", "HR/a.png", "out", "--scale", "2", "--t1", "auto", "--steps", "2")
    assert srx(*auto, "--device", "cpu")[0] == 0


def test_without_the_colour_fix_other_numbers_are_found_and_the_calibration_says_so(
    srx: Srx,
) -> None:
    run = ("prf-search", "HR", "--scale", "2", "--json", *FAST)
    fixed, free = (json.loads(srx(*run, "--color", c)[1]) for c in ("wavelet", "none"))
    last = [d["schedules"]["scaled_linear"]["scales"][0]["points"][-1] for d in (fixed, free)]
    assert last[0]["low"] < last[1]["low"]  # what the fix hides
    walk = ("--method", "diffsr", "--steps", "2", "--scale", "2", "--device", "cpu")
    said = "color none, not wavelet"
    assert said in srx("upscale", "HR/a.png", "out", *walk)[2]
    assert said not in srx("upscale", "HR/a.png", "free", *walk, "--color", "none")[2]


def test_other_scales_keep_the_starts_that_ship(
    srx: Srx, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A search at one scale leaves `auto` at the others as it was."""
    search = ("prf-search", "HR", *FAST)
    assert srx(*search, "--scales", "2,6")[0] == 0
    (kept,) = (tmp_path / "SRX_HOME" / "calibrations").iterdir()
    weights = tmp_path / "weights"
    shutil.copytree(tiny, weights)
    (weights / "calibrations").mkdir()
    content = json.loads(kept.read_text("utf-8"))
    content["starts"]["6"] |= {"t": 321}
    (weights / "calibrations" / kept.name).write_text(json.dumps(content), "utf-8")
    kept.unlink()
    monkeypatch.setenv("SRX_WEIGHTS", str(weights))
    code, _, err = srx(*search, "--scale", "2.7")
    assert code == 0
    assert "scales not searched keep their starts: 2, 6\n" in err
    assert json.loads(kept.read_text("utf-8"))["starts"]["6"] == content["starts"]["6"]
    assert "keep their starts" not in srx(*search, "--scales", "2,2.7,6")[2]


def test_any_model_and_the_conditions_of_an_upscaling_can_be_searched(
    srx: Srx, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then --t1 auto has nothing to warn of under them; under others it has."""
    weights = tmp_path / "weights"
    shutil.copytree(tiny, weights)
    monkeypatch.setenv("SRX_WEIGHTS", str(weights))
    state = {name: tensor * 1.01 for name, tensor in load_weights(card("embedded")).items()}
    save_file(state, weights / "clean.safetensors")
    clean = replace(card("embedded"), name="clean", file="clean.safetensors")
    clean = write_card(replace(clean, limits=replace(clean.limits, preprocess="none")))
    run = ("--method", "dossr", "--model", "clean", "--order", "2", "--variant", "corrected")
    assert srx("prf-search", "HR", "--scale", "2", *run, "--last-step", "step", *FAST)[0] == 0
    (kept,) = (tmp_path / "SRX_HOME" / "calibrations").iterdir()
    document = json.loads(kept.read_text("utf-8"))
    assert document["setting"]["model"] == clean.sha256 != card("embedded").sha256
    origin = document["starts"]["2"]["origin"]
    chosen = {"order": 2, "variant": "corrected", "last_step": "step", "preprocess": "none"}
    assert chosen.items() <= origin.items()
    same = (*run, "--steps", "2", "--device", "cpu", "--scale", "2", "--t1", "auto")
    code, _, err = srx("upscale", "HR/a.png", "out", *same, "--last-step", "step")
    assert code == 0
    assert "t1 was found" not in err
    code, _, err = srx("upscale", "HR/a.png", "other", *same, "--last-step", "x0")
    assert "t1 was found with last_step step, not x0" in err
    own = ("prf-search", "HR", "--scale", "2", *run, "--preprocess", "compact", *FAST)
    assert srx(*own)[0] == 0
    assert json.loads(kept.read_text("utf-8"))["starts"]["2"]["origin"]["preprocess"] == "compact"
    code, _, err = srx("upscale", "HR/a.png", "third", "--t1", "auto", "--device", "cpu")
    assert code == 2
    assert "prf-search --method dossr --model embedded" in err


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (("--scale", "0.5"), 2, "above 1"),
        (("--scales", "a,b"), 2, "--scales must be a list like 2,2.7,4"),
        (("--schedule", "none"), 2, "schedule must be one of"),
        (("--prior", "compact"), 3, "kind 'compact'"),
        (("--prior", "HR"), 3, "no DDPMPipeline"),
        (("--update-card", "--method", "dossr"), 2, "has a card"),
        (("--plot", "missing/a.png"), 2, "does not exist"),
        (("--plot", "HR"), 2, "is a directory"),
        (("--sheet", "a.jpg"), 2, "a.jpg"),
        (("--metrics", "beauty"), 2, "no metric 'beauty'"),
        (("--cache", "HR"), 2, "is a directory"),
    ],
)
def test_mistakes_end_in_a_sentence(
    srx: Srx, args: tuple[str, ...], code: int, message: str
) -> None:
    found, out, err = srx("prf-search", "HR", *args)
    assert (found, out) == (code, "")
    assert message in err
    assert "Traceback" not in err


def test_a_start_that_is_no_number_is_refused(srx: Srx) -> None:
    code, _, err = srx("upscale", "HR/a.png", "out", "--method", "diffsr", "--t1", "half")
    assert code == 2
    assert "whole number or auto" in err


def test_without_a_folder_the_examples_are_searched(
    srx: Srx, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert command._files(None, "all") == datasets.examples()
    monkeypatch.setattr(datasets, "PACKAGE", tmp_path / "nothing")
    code, _, err = srx("prf-search")
    assert code == 2
    assert "name images or folders of them" in err
