"""Settings of other libraries are srx's own while it reads, and the caller's before and after."""

import logging
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image, TiffImagePlugin

from sr_cli.engine import reading
from sr_cli.engine.images import load, probe
from sr_cli.engine.library_settings import Shared, settings_for_reading
from sr_cli.errors import InputError

State = tuple[object, ...]
OWN: State = (None, True, logging.CRITICAL, cv2.utils.logging.LOG_LEVEL_SILENT)
CHOSEN: State = (5, False, logging.INFO, cv2.utils.logging.LOG_LEVEL_ERROR)

STATE = """
import logging
import cv2
from PIL import Image, TiffImagePlugin

def state():
    return (
        Image.MAX_IMAGE_PIXELS,
        TiffImagePlugin.READ_LIBTIFF,
        logging.getLogger("tifffile").level,
        cv2.utils.logging.getLogLevel(),
    )
"""


def state() -> State:
    return (
        Image.MAX_IMAGE_PIXELS,
        TiffImagePlugin.READ_LIBTIFF,
        logging.getLogger("tifffile").level,
        cv2.utils.logging.getLogLevel(),
    )


@pytest.fixture
def chosen(monkeypatch: pytest.MonkeyPatch) -> Iterator[State]:
    """Values of the caller's own, Pillow's limit so low that every picture is beyond it."""
    tiff, opencv = logging.getLogger("tifffile"), cv2.utils.logging.getLogLevel()
    level = tiff.level
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 5)
    monkeypatch.setattr(TiffImagePlugin, "READ_LIBTIFF", False)
    tiff.setLevel(logging.INFO)
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_ERROR)
    assert state() == CHOSEN
    yield CHOSEN
    tiff.setLevel(level)
    cv2.utils.logging.setLogLevel(opencv)


def changed_by(code: str) -> bool:
    """Whether a process in which nothing else happens has other settings afterwards."""
    program = f"{STATE}\nbefore = state()\n{code}\nraise SystemExit(state() != before)"
    return subprocess.run([sys.executable, "-c", program], check=False).returncode == 1


def test_an_import_changes_nothing() -> None:
    modules = ("batch", "images", "reading", "upscaler", "jobs")
    imports = "\n".join(f"import sr_cli.engine.{module}" for module in modules)
    assert not changed_by(f"{imports}\nimport sr_cli.evaluation.datasets, sr_cli.training.data")
    assert changed_by("Image.MAX_IMAGE_PIXELS = None")  # the control
    assert changed_by("logging.getLogger('tifffile').setLevel(50)")


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.webp", "a.gif", "planes.tif", "a.txt", "no"])
def test_after_a_read_they_are_what_they_were(tmp_path: Path, name: str, chosen: State) -> None:
    """Where the read fails too. Pillow's limit alone would let no picture through."""
    path = tmp_path / name
    levels = np.arange(300, dtype=np.uint8).reshape(10, 10, 3)
    if name == "planes.tif":
        tifffile.imwrite(path, levels.transpose(2, 0, 1) * np.uint16(257), planarconfig="separate")
    elif name == "a.txt":
        path.write_text("no picture")
    elif name != "no":
        Image.fromarray(levels).save(path)
        with pytest.raises(Image.DecompressionBombError):  # the control
            Image.open(path)
    for read in (probe, load):
        with suppress(InputError):
            read(path)
        assert state() == chosen
        assert path.suffix in (".txt", "") or read(path)


def test_while_reading_they_are_srxs(
    tmp_path: Path, chosen: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[State] = []

    def check_still(*_: object) -> None:
        seen.append(state())

    monkeypatch.setattr(reading, "_check_still", check_still)
    Image.new("RGB", (9, 9)).save(tmp_path / "a.tif")
    load(tmp_path / "a.tif")
    assert seen == [OWN]
    assert state() == chosen


def test_the_last_of_several_threads_sets_them_back(chosen: State) -> None:
    inside, leave = threading.Event(), threading.Event()

    def other() -> None:
        with settings_for_reading:
            inside.set()
            leave.wait(30)

    thread = threading.Thread(target=other)
    with settings_for_reading:
        thread.start()
        assert inside.wait(30)
    assert state() == OWN  # the other thread still reads
    leave.set()
    thread.join()
    assert state() == chosen


def test_a_shared_context_is_entered_once_however_many_are_in_it() -> None:
    calls: list[str] = []

    @contextmanager
    def context() -> Iterator[None]:
        calls.append("enter")
        yield
        calls.append("leave")

    shared = Shared(context)
    for _ in range(2):
        with shared, shared:
            pass
        with suppress(ValueError), shared:
            raise ValueError
    assert calls == ["enter", "leave"] * 4
