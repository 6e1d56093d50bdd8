"""docs/tutorial.md by the letter: its lines in their order, as a shell runs them."""

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from markdown_it import MarkdownIt
from PIL import Image, ImageOps

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "tutorial.md"
LIMIT = 300
"""Seconds after which something hangs."""
NEEDS = {"Watch": ("watchfiles",), "Export": ("onnx", "onnxruntime", "onnxscript")}
INSTALLS = re.compile(r"(python3 -m venv|\. |pip install )")
RESULTS = {
    "Install": (),
    "Enlarge": ("large.webp",),
    "Pipe": ("out.png",),
    "Watch": ("done/photo.png",),
    "Export": ("from-onnx.png",),
}
Sections = dict[str, list[str]]


def sections(text: str) -> Sections:
    """The blocks of shell lines under each heading, without the lines that install."""
    found: Sections = {}
    heading = False
    for token in MarkdownIt("commonmark").parse(text):
        heading = token.type == "heading_open" or (heading and token.type != "heading_close")
        if heading and token.type == "inline":
            found[token.content] = []
        elif token.type == "code_block":
            lines = [line for line in token.content.splitlines() if not INSTALLS.match(line)]
            found[list(found)[-1]].append("\n".join(lines))
    return {title: [block for block in blocks if block] for title, blocks in found.items()}


@pytest.fixture
def shell(tmp_path: Path, tiny_weights: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """What a newcomer's terminal has: the photograph, the runner, `srx` and `python`.

    The photograph is small. Exporting takes small random networks, as test_exporting.py does, since
    that of the shipped ones takes half a minute: no test exports those.
    """
    monkeypatch.chdir(tmp_path)
    with Image.open(ROOT / "docs" / "figures" / "photo.jpg") as photo:
        photo.resize((48, 36)).save("photo.jpg", exif=photo.getexif())
    shutil.copy(ROOT / "examples" / "run_onnx.py", tmp_path)
    own = tmp_path / "bin"
    own.mkdir()
    for name, arguments in (("python", ""), ("srx", "-m sr_cli")):
        (own / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" {arguments} "$@"\n')
        (own / name).chmod(0o755)
    hidden = [name for name in os.environ if name.startswith("SRX_")]
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    return environment | {
        "PATH": f"{own}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "SRX_HOME": str(tmp_path / "home"),
        "SRX_NO_CONFIG": "1",
    }


def ran(block: str, environment: dict[str, str]) -> None:
    """A block in a shell that ends at the first line that fails."""
    command = ["bash", "-e", "-o", "pipefail", "-c", block]
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, check=False, timeout=LIMIT
    )
    assert done.returncode == 0, f"{block}\n{done.stderr}"


def watched(blocks: list[str], result: Path, environment: dict[str, str]) -> None:
    """A block that does not end, the next beside it, and Ctrl-C once there is the result."""
    *before, last = blocks[0].splitlines()
    ran("\n".join(before), environment)
    watch = subprocess.Popen(
        ["bash", "-c", f"exec {last}"], env=environment, stderr=subprocess.PIPE, text=True
    )
    late = threading.Timer(LIMIT, watch.kill)  # which ends what waits for a line
    late.start()
    try:
        assert watch.stderr
        assert "watching" in watch.stderr.readline()
        for block in blocks[1:]:
            ran(block, environment)
        ends = time.monotonic() + LIMIT
        while not result.exists() and watch.poll() is None and time.monotonic() < ends:
            time.sleep(0.1)
        while watch.poll() is None and "[1/1]" not in watch.stderr.readline():
            pass
        watch.send_signal(signal.SIGINT)
        told = watch.stderr.read()
        assert watch.wait(LIMIT) == 0, told
        assert "1 done" in told
    finally:
        late.cancel()
        watch.kill()
        watch.wait()


def looked_at(title: str) -> Iterator[tuple[int, int]]:
    """The sizes of what a section leaves."""
    for name in RESULTS.get(title, ()):
        with Image.open(name) as result:
            result.load()
            yield result.size


@pytest.mark.skipif(not shutil.which("bash"), reason="there is no bash")
def test_the_lines_of_the_tutorial_run_in_their_order(
    shell: dict[str, str], tiny_weights: Path
) -> None:
    with Image.open("photo.jpg") as photo:
        upright = ImageOps.exif_transpose(photo).size
    assert upright == (36, 48)
    missing = []
    for title, blocks in sections(PAGE.read_text("utf-8")).items():
        if absent := [name for name in NEEDS.get(title, ()) if not find_spec(name)]:
            missing.append(f"{title}: {', '.join(absent)}")
        elif title == "Watch":
            watched(blocks, Path(RESULTS[title][0]), shell)
        else:
            own = {"SRX_WEIGHTS": str(tiny_weights)} if title == "Export" else {}
            for block in blocks:
                ran(block, shell | own)
        if not absent:
            assert set(looked_at(title)) <= {(4 * upright[0], 4 * upright[1])}
    assert "<html" in Path("page.html").read_text("utf-8")
    if missing:
        pytest.skip(f"run but for what is not installed: {'; '.join(missing)}")


def test_a_line_that_fails_is_noticed(shell: dict[str, str]) -> None:
    for wrong in (
        "srx upscale nowhere.jpg large.webp",
        "cat photo.jpg | srx upscale - - --steps x",
    ):
        with pytest.raises(AssertionError, match="error:"):
            ran(f"{wrong}\ntrue", shell)


def test_all_sections_are_found_with_their_lines() -> None:
    found = sections(PAGE.read_text("utf-8"))
    assert [title for title, blocks in found.items() if blocks] == [
        "Install",
        "Enlarge",
        "Compare",
        "Pipe",
        "Watch",
        "Export",
    ]
    assert found["Install"] == ["srx doctor"]
    assert len(found["Watch"]) == 2
    assert not any("pip install" in block for blocks in found.values() for block in blocks)
