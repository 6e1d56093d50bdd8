"""`srx doctor`: what is broken is named with what mends it, and decides the exit code."""

import json
import shutil
import sys
from collections.abc import Callable
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import torch
from calls import Srx, called

from sr_cli.cli import health
from sr_cli.cli.doctor import WIDEST
from sr_cli.engine import upscaler

pytest_plugins = ["calls"]

Findings = dict[str, dict[str, Any]]
Examine = Callable[..., tuple[int, Findings]]


@pytest.fixture
def srx(isolated: None, capsys: pytest.CaptureFixture[str]) -> Srx:
    return partial(called, capsys, "doctor")


@pytest.fixture
def examine(srx: Srx, monkeypatch: pytest.MonkeyPatch) -> Examine:
    """The exit code and the findings by name; the trial upscale, the slowest one, is left out."""
    monkeypatch.setattr(health, "trial", lambda device: iter(()))

    def found(*args: str) -> tuple[int, Findings]:
        run = srx("--json", "--device", "cpu", *args)
        return run.code, {finding["what"]: finding for finding in json.loads(run.out)["findings"]}

    return found


def versions(monkeypatch: pytest.MonkeyPatch, name: str, version: str | None) -> None:
    """Let a distribution have this version, or none."""
    true = metadata.version

    def told(asked: str) -> str:
        if asked != name:
            return true(asked)
        if version is None:
            raise metadata.PackageNotFoundError(asked)
        return version

    monkeypatch.setattr(metadata, "version", told)


def test_the_table_is_readable_without_a_terminal(srx: Srx) -> None:
    lines = srx().out.splitlines()
    assert 80 < max(map(len, lines)) <= WIDEST
    assert max(len(line.split("│")[-2].rstrip()) for line in lines if "│" in line) > 20


def test_here_nothing_is_broken_and_nothing_is_written(srx: Srx, tmp_path: Path) -> None:
    run = srx()
    assert run.code == 0
    assert "Nothing is broken." in run.err
    for what in ("torch", "device", "memory", "whole: clean", "srx[heic]", "32x32 → 128x128"):
        assert what in run.out, what
    assert not (tmp_path / "home").exists()


def test_a_damaged_network_is_named(
    examine: Examine, tiny_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shutil.copytree(tiny_weights, tmp_path / "weights")
    monkeypatch.setenv("SRX_WEIGHTS", str(folder))
    assert examine()[0] == 0
    whole = (folder / "compact.safetensors").read_bytes()
    (folder / "compact.safetensors").write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    code, found = examine()
    assert code == 3
    assert found["model compact"]["state"] == "broken"
    assert "compact.safetensors" in found["model compact"]["found"]
    assert found["weights"]["state"] == "ok"  # the others are whole


def test_a_folder_of_models_that_is_none(examine: Examine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SRX_WEIGHTS", "nowhere")
    code, found = examine()
    assert code == 3
    assert "nowhere" in found["weights"]["found"]
    assert "SRX_WEIGHTS" in found["settings"]["found"]


def test_a_home_that_cannot_be_written_breaks_nothing(
    examine: Examine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in many containers, whose users have none."""
    Path("file").write_text("no folder")
    monkeypatch.setenv("SRX_HOME", str(Path("file").absolute() / "home"))
    code, found = examine()
    assert (code, found["data folder"]["state"]) == (0, "hint")
    assert "SRX_HOME" in found["data folder"]["mend"]
    monkeypatch.setenv("SRX_HOME", str(Path.cwd()))
    assert examine()[1]["data folder"]["state"] == "ok"


@pytest.mark.parametrize(
    ("version", "words"), [(None, "is not installed"), ("1.2", "1.2 is installed, not >=2024.8")]
)
def test_a_package_that_is_missing_or_old(
    examine: Examine, monkeypatch: pytest.MonkeyPatch, version: str | None, words: str
) -> None:
    versions(monkeypatch, "tifffile", version)
    code, found = examine()
    assert code == 1
    assert found["tifffile"]["found"] == words
    assert found["tifffile"]["mend"] == "pip install 'tifffile>=2024.8'"


def test_a_package_that_cannot_be_imported(
    examine: Examine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tifffile", None)
    code, found = examine()
    assert code == 1
    assert found["tifffile"]["state"] == "broken"
    assert found["tifffile"]["mend"] == "pip install --force-reinstall --no-deps tifffile"


def test_an_extra_that_is_missing_is_not_broken(
    examine: Examine, monkeypatch: pytest.MonkeyPatch
) -> None:
    versions(monkeypatch, "ncnn", None)
    code, found = examine()
    assert code == 0
    assert found["srx[realesrgan]"]["state"] == "absent"
    assert found["srx[realesrgan]"]["mend"] == "pip install 'srx[realesrgan]'"
    assert found["srx[plot]"]["state"] == "ok"


def test_every_extra_of_a_user_is_looked_at() -> None:
    extras = metadata.metadata("srx").get_all("Provides-Extra") or []
    assert set(extras) - {"dev", "docs"} <= health.EXTRAS.keys()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_device_that_is_missing(examine: Examine) -> None:
    code, found = examine("--device", "cuda")
    assert code == 4
    assert found["device"]["state"] == "broken"
    assert "--device cpu" in found["device"]["found"]


@pytest.mark.parametrize("quick", [False, True])
def test_what_computes_in_float32_is_named(
    examine: Examine, monkeypatch: pytest.MonkeyPatch, quick: bool
) -> None:
    monkeypatch.setattr("sr_cli.device._native_bfloat16", lambda device: False)
    monkeypatch.setattr("sr_cli.models.winograd.available", lambda: quick)
    _, findings = examine()
    found = findings["device"]["found"]
    assert found.endswith("networks in float32 by NNPACK" if quick else "networks in float32")


def test_a_device_that_computes_nonsense(examine: Examine, monkeypatch: pytest.MonkeyPatch) -> None:
    true, calls = torch.nn.functional.conv2d, [0.0]

    def drifting(*args: Any) -> torch.Tensor:
        calls.append(calls[-1] + 1)
        return true(*args) + calls[-1]

    monkeypatch.setattr(torch.nn.functional, "conv2d", drifting)
    code, found = examine()
    assert code == 4
    assert "something else than the CPU" in found["device"]["found"]


def test_an_upscaler_that_gives_no_picture(srx: Srx, monkeypatch: pytest.MonkeyPatch) -> None:
    true = upscaler.Upscaler.__call__
    monkeypatch.setattr(upscaler.Upscaler, "__call__", lambda self, image: 0 * true(self, image))
    run = srx("--device", "cpu")
    assert run.code == 4
    assert "1 broken" in run.err


@pytest.mark.parametrize(
    ("driver", "cuda", "state"),
    [(True, None, "hint"), (True, "13.0", "ok"), (False, None, "ok"), (False, "13.0", "hint")],
)
def test_a_build_of_torch_that_does_not_suit_the_machine(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, driver: bool, cuda: str | None, state: str
) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(health, "NVIDIA", Path(__file__) if driver else tmp_path / "none")
    monkeypatch.setattr(torch.version, "cuda", cuda)
    monkeypatch.setattr(torch.version, "hip", None)
    (found,) = health.torch_build()
    assert found.state == state
    assert bool(found.mend) == (state == "hint")
