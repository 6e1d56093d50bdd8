"""`srx upscale` as a user runs it, with the shipped weights."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sr_cli.engine.manifest import NAME

ROOT = Path(__file__).parents[1]
EXAMPLES = sorted((ROOT / "examples").glob("[acg]*.png"))


def srx(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "sr_cli", *map(str, arguments)]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("SRX_")}
    return subprocess.run(
        command, capture_output=True, text=True, check=False, env=environment, timeout=600
    )


def pixels(path: Path) -> np.ndarray[tuple[int, ...], np.dtype[np.int16]]:
    return np.asarray(Image.open(path).convert("RGB")).astype(np.int16)


@pytest.fixture
def inbox(tmp_path: Path) -> Path:
    """Three small photographs."""
    folder = tmp_path / "in"
    folder.mkdir()
    for path in EXAMPLES[:3]:
        Image.open(path).crop((20, 10, 52, 34)).save(folder / path.name)
    return folder


def test_a_folder_becomes_a_folder(inbox: Path, tmp_path: Path) -> None:
    run = srx("upscale", inbox, tmp_path / "out", "--scale", "4", "--steps", "5", "--json")
    assert run.returncode == 0, run.stderr
    report = json.loads(run.stdout)
    assert len(report["results"]) == 3
    for result in report["results"]:
        assert Image.open(result["output"]).size == (128, 96)


def test_batches_do_not_show(inbox: Path, tmp_path: Path) -> None:
    """Pictures of two sizes, three at a time, against one at a time."""
    Image.open(EXAMPLES[0]).crop((0, 0, 40, 40)).save(inbox / "other.png")
    for name, batch in (("one", 1), ("three", 3)):
        arguments = ("--steps", 2, "--batch", batch, "--compile", "off", "--dtype", "float32")
        run = srx("upscale", inbox, tmp_path / name, *arguments)
        assert run.returncode == 0, run.stderr
    for path in inbox.iterdir():
        one, three = (pixels(tmp_path / name / path.name) for name in ("one", "three"))
        assert np.abs(one - three).max() <= 1


def test_results_look_like_their_inputs_and_not_like_their_enlargement(
    inbox: Path, tmp_path: Path
) -> None:
    """Reduced again a result is close to its input, but it is not the bicubic enlargement."""
    srx("upscale", inbox, tmp_path / "out", "--quiet")
    for path in inbox.iterdir():
        small = Image.open(path)
        large = Image.open(tmp_path / "out" / path.name)
        back = np.asarray(large.resize(small.size, Image.Resampling.BOX)).astype(np.int16)
        assert np.abs(back - pixels(path)).mean() < 6
        enlarged = np.asarray(small.resize(large.size, Image.Resampling.BICUBIC)).astype(np.int16)
        assert np.abs(np.asarray(large).astype(np.int16) - enlarged).mean() > 1


def test_bad_inputs_fail_alone_and_by_name(inbox: Path, tmp_path: Path) -> None:
    (inbox / "text.png").write_text("no picture")
    (inbox / "empty.jpg").write_bytes(b"")
    (inbox / "folder.png").mkdir()
    Image.new("RGB", (1, 1), "teal").save(inbox / "dot.png")
    Image.effect_noise((90, 90), 60).save(inbox / "cut.jpg")
    (inbox / "cut.jpg").write_bytes((inbox / "cut.jpg").read_bytes()[:900])
    run = srx("upscale", inbox, tmp_path / "out", "--steps", "1")
    assert run.returncode == 1
    assert "Traceback" not in run.stderr
    done = {path.stem for path in (tmp_path / "out").glob("[!.]*")}
    assert done == {path.stem for path in EXAMPLES[:3]} | {"dot"}
    for name in ("text.png", "empty.jpg", "folder.png", "cut.jpg"):
        assert any(name in line and "failed" in line for line in run.stderr.splitlines()), name


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_an_interrupted_run_leaves_whole_files_and_continues(inbox: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    arguments = ("upscale", str(inbox), str(out), "--scale", "16", "--tile", "16")
    first = subprocess.Popen(
        [sys.executable, "-m", "sr_cli", *arguments], stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 300
    while not list(out.glob("*.png")) and time.monotonic() < deadline and first.poll() is None:
        time.sleep(0.02)
    first.send_signal(signal.SIGINT)
    message = first.communicate(timeout=300)[1]
    assert first.returncode == 130, message
    assert "interrupted" in message
    left = {path: path.stat().st_mtime_ns for path in out.glob("[!.]*")}
    assert 1 <= len(left) < 3
    assert {path.name for path in out.glob(".*")} == {NAME}
    second = srx(*arguments)
    assert second.returncode == 0, second.stderr
    assert len(list(out.glob("[!.]*"))) == 3
    assert all(path.stat().st_mtime_ns == when for path, when in left.items())


@pytest.mark.parametrize(
    "wrong",
    ["--scale 0", "--steps 0", "--t1 2", "--nonsense", "--order 4", "--size 4"],
)
def test_wrong_usage_is_one_sentence(inbox: Path, tmp_path: Path, wrong: str) -> None:
    run = srx("upscale", inbox, tmp_path / "out", *wrong.split())
    assert run.returncode == 2
    assert len(run.stderr.strip().splitlines()) == 1, run.stderr
    assert not (tmp_path / "out").exists()


def test_transparent_grey_and_deep_pictures_keep_their_kind(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    photo = Image.open(EXAMPLES[0]).crop((0, 0, 24, 16))
    alpha = photo.copy()
    alpha.putalpha(Image.linear_gradient("L").resize((24, 16)))
    alpha.save(folder / "alpha.png")
    photo.convert("L").save(folder / "grey.png")
    Image.fromarray(np.asarray(photo.convert("L")).astype(np.uint16) * 257).save(
        folder / "deep.png"
    )
    run = srx("upscale", folder, tmp_path / "out", "--scale", "2", "--steps", "2")
    assert run.returncode == 0, run.stderr
    modes = {path.stem: Image.open(path).mode for path in (tmp_path / "out").glob("[!.]*")}
    assert modes == {"alpha": "RGBA", "grey": "L", "deep": "I;16"}
