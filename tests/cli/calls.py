"""Calls of the command in this process and in others, with an upscaler without weights.

Fixtures for several files, so imported before pytest knows of them: PYTEST_DONT_REWRITE.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from sr_cli.cli import upscale as command
from sr_cli.cli.app import main
from sr_cli.cli.machine import make_upscaler
from sr_cli.cli.ui import terminal
from sr_cli.engine.arrays import Form
from sr_cli.engine.manifest import NAME
from sr_cli.engine.options import UpscaleOptions

MAKE_UPSCALER = make_upscaler


class Run(NamedTuple):
    """How a call of the command ended."""

    code: int
    out: str
    err: str


Srx = Callable[..., Run]


class Nearest:
    """An upscaler without weights; `failure` is raised at pictures 7 pixels wide."""

    device, dtype, texture, steps = "cpu", "float32", None, 5
    model = SimpleNamespace(tiling="blend")

    def __init__(self, options: UpscaleOptions, failure: BaseException | None = None) -> None:
        self.options, self.failure = options, failure

    def share(self, width: int, height: int) -> Fraction:
        return Fraction(1, 1 if self.options.batch == "auto" else self.options.batch)

    def together(
        self,
        lrs: Sequence[Tensor],
        *,
        forms: Sequence[Form],
        on_step: Callable[[int, int, int], None],
        on_note: Callable[[int, str], None],
    ) -> list[Tensor]:
        hrs = [self.enlarge(lr, partial(on_step, i)) for i, lr in enumerate(lrs)]
        return [form(hr[None])[0] for form, hr in zip(forms, hrs, strict=True)]

    def enlarge(self, lr: Tensor, on_step: Callable[[int, int], None]) -> Tensor:
        if self.failure and lr.shape[2] == 7:
            raise self.failure
        for step in range(self.steps):
            on_step(step + 1, self.steps)
        width, height = self.options.size.of(lr.shape[2], lr.shape[1])
        return torch.nn.functional.interpolate(lr[None], size=(height, width))[0]


@pytest.fixture
def isolated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A folder of its own, without the user's configuration, terminal state or signal handlers."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    for name in [name for name in os.environ if name.startswith("SRX_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("SRX_HOME", str(tmp_path / "home"))
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)
    terminal.quiet, terminal.verbose = False, None


@pytest.fixture
def failure() -> list[BaseException]:
    """Put an exception in, and pictures 7 pixels wide raise it."""
    return []


@pytest.fixture
def srx(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    failure: list[BaseException],
) -> Srx:
    """The command in this process, with an upscaler without weights; one file after another."""
    monkeypatch.setenv("SRX_JOBS", "1")
    monkeypatch.setattr(command, "make_upscaler", lambda options, _: Nearest(options, *failure))

    return partial(called, capsys)


def called(capsys: pytest.CaptureFixture[str], *args: object) -> Run:
    """The command in this process, at its end."""
    with pytest.raises(SystemExit) as end:
        main([str(arg) for arg in args])
    assert isinstance(end.value.code, int | None)
    return Run(end.value.code or 0, *capsys.readouterr())


def process(code: str, *args: str, stdout: int = subprocess.PIPE) -> "subprocess.Popen[str]":
    """Python in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-c", code, *args],
        env=os.environ | {"PYTHONPATH": str(Path(command.__file__).parents[2])},
        text=True,
        stdout=stdout,
        stderr=subprocess.PIPE,
    )


def finished(code: str, *args: str, stdout: int = subprocess.PIPE) -> Run:
    """Python in a process of its own, at its end."""
    with process(code, *args, stdout=stdout) as child:
        out, err = child.communicate()
        return Run(child.returncode, out or "", err)


def paint(path: Path, size: tuple[int, int] = (6, 4)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(0).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def results(folder: Path | str = "out") -> set[str]:
    """Names in the folder of the results, but for their manifest."""
    return {path.name for path in Path(folder).iterdir() if path.name != NAME}


@pytest.fixture
def photos() -> Path:
    """in/a.png, in/b.jpg and in/sub/c.png, 6, 7 and 8 pixels wide."""
    for i, name in enumerate(("a.png", "b.jpg", "sub/c.png")):
        paint(Path("in") / name, (6 + i, 4))
    return Path("in")
