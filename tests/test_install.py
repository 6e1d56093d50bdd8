"""The wheel as users get it: in an environment of its own, away from the repository."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from PIL import Image

ROOT = Path(__file__).parents[1]
MOST = 60_000_000
"""Bytes of the wheel."""
Installed = Callable[..., "subprocess.CompletedProcess[str]"]


def run(*command: str | Path, **settings: object) -> None:
    subprocess.run([str(word) for word in command], check=True, capture_output=True, **settings)  # type: ignore[call-overload]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As `make dist` builds it, but with the hatchling that is here."""
    folder = tmp_path_factory.mktemp("dist")
    pip = (sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation")
    run(*pip, "--wheel-dir", folder, ROOT)
    (found,) = folder.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def prefix(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment that holds the wheel, and sees what it needs where the tests have it."""
    folder = tmp_path_factory.mktemp("bare") / "venv"
    run(sys.executable, "-m", "venv", "--without-pip", folder)
    python = folder / "bin" / "python"
    pip = (sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index")
    run(*pip, wheel)
    (own,) = folder.glob("lib/python*/site-packages")
    # A path of a .pth file is searched last, and the .pth files there, the editable srx's among
    # them, do not count.
    (own / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    return folder


@pytest.fixture
def srx(prefix: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Installed:
    """The installed command, in an empty folder and without what the user has set."""
    monkeypatch.chdir(tmp_path)
    hidden = {name for name in os.environ if name.startswith(("SRX_", "PYTHON"))}
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    environment |= {"SRX_HOME": str(tmp_path / "home"), "SRX_NO_CONFIG": "1"}
    # Else Typer looks for the shell among its parents, of which a job may have none.
    environment["_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION"] = "1"

    def call(*args: str) -> "subprocess.CompletedProcess[str]":
        command = [str(prefix / "bin" / "srx"), *args]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    return call


def test_the_wheel_is_small(wheel: Path) -> None:
    assert wheel.stat().st_size < MOST
    weights = sum(path.stat().st_size for path in (ROOT / "weights").glob("*.safetensors"))
    assert wheel.stat().st_size > 0.5 * weights  # they are inside


def test_it_enlarges_away_from_the_repository(srx: Installed, prefix: Path, tmp_path: Path) -> None:
    with Image.open(ROOT / "examples" / "cat.png") as cat:
        cat.crop((0, 0, 24, 20)).save("photo.png")
    assert srx("--version").stdout.startswith("srx ")
    done = srx("upscale", "photo.png", "large.png")
    assert done.returncode == 0, done.stderr
    with Image.open(tmp_path / "large.png") as large:
        assert large.size == (96, 80)
    listed = json.loads(srx("weights", "list", "--json").stdout)["models"]
    assert {"embedded", "clean", "compact"} <= {model["name"] for model in listed}
    assert all(Path(model["folder"]).is_relative_to(prefix) for model in listed)


def test_without_its_weights_it_says_so(srx: Installed, prefix: Path) -> None:
    (own,) = prefix.glob("lib/python*/site-packages/sr_cli/_weights/embedded.safetensors")
    kept = shutil.move(own, own.with_suffix(".kept"))
    try:
        Image.new("RGB", (8, 8)).save("photo.png")
        failed = srx("upscale", "photo.png", "large.png")
        assert failed.returncode == 3
        assert "install srx again" in failed.stderr
        assert not Path("large.png").exists()
    finally:
        shutil.move(kept, own)


def test_manual_and_completion_come_with_it(srx: Installed, prefix: Path) -> None:
    for path in manual().files():
        assert (prefix / "share" / path).is_file(), path
    shown = srx("--show-completion", "bash").stdout.strip()
    completion = prefix / "share" / manual().COMPLETIONS["bash"]
    assert completion.read_text("utf-8").strip() == shown


def manual() -> ModuleType:
    """docs/manual.py."""
    spec = importlib.util.spec_from_file_location("manual", ROOT / "docs" / "manual.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_manual_and_completion_are_of_the_commands_as_they_are() -> None:
    for path, text in manual().files().items():
        assert (ROOT / "docs/share" / path).read_text("utf-8") == text, f"{path}: run make man"


def test_the_manual_names_every_option_and_is_plain_roff() -> None:
    page = manual().page()
    assert page.isascii()
    for option in (r"\-\-texture", r"\-\-scale", "srx doctor", "srx weights fetch"):
        assert option in page, option
    assert manual().escaped(".x 'a' - b\\") == r"\&.x \(aqa\(aq \- b\e"
    if shutil.which("groff"):
        command = ["groff", "-man", "-Tutf8", "-ww", "-z"]
        told = subprocess.run(command, input=page, capture_output=True, text=True, check=True)
        assert not told.stderr
