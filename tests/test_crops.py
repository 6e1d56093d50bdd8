"""The sheet of crops: every method shows the place that the original shows."""

import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from sr_cli.errors import ModelError

FIGURES = Path(__file__).parents[1] / "examples" / "figures"


@pytest.fixture
def crops(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The script, where Real-ESRGAN is not installed."""
    monkeypatch.syspath_prepend(FIGURES)
    module = import_module("crops")

    def missing(_: str) -> None:
        raise ModelError("it is an extra.")

    monkeypatch.setattr(module, "load_preprocessor", missing)
    return module


def test_a_dozen_scenes_whose_enlargements_lie_where_the_original_does(crops: Any) -> None:
    rows = list(crops.shipped())
    assert len({row.label for row in rows}) == len(rows) >= 12
    side = crops.SIDE
    enlarge = crops.bicubic
    for row in rows:
        left, top = (crops.SCALE * start for start in row.corner)
        assert row.hr.shape == (3, *(crops.SCALE * length for length in row.lr.shape[1:]))
        result = enlarge(row.lr, row.hr.shape[1:])[:, top : top + side, left : left + side]
        errors = {
            (dx, dy): float((result - row.hr[:, y : y + side, x : x + side]).abs().mean())
            for dx in (-8, 0, 8)
            for dy in (-8, 0, 8)
            if min(x := left + dx, y := top + dy) >= 0
            if x + side <= row.hr.shape[2] and y + side <= row.hr.shape[1]
        }
        assert len(errors) > 3
        assert min(errors, key=lambda shift: errors[shift]) == (0, 0), row.label


def test_own_pictures_stand_in_rows_of_the_sheet(
    crops: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (200, 300, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    Image.fromarray(pixels[:40, :50]).save(tmp_path / "small.png")
    out = tmp_path / "sheet" / "crops.png"
    out.parent.mkdir()
    monkeypatch.setattr(sys, "argv", ["crops.py", str(tmp_path), "--out", str(out)])
    crops.main()
    assert "Real-ESRGAN is left out: it is an extra." in capsys.readouterr().err
    cell = crops.ZOOM * crops.SIDE
    with Image.open(out) as sheet:
        assert sheet.height == crops.HEAD + 2 * (cell + crops.GAP)
        last = sheet.width - crops.GAP - cell
        original = np.asarray(sheet)[crops.HEAD : crops.HEAD + cell, last : last + cell]
    left, top = ((length - crops.SIDE) // 2 // crops.SCALE * crops.SCALE for length in (300, 200))
    expected = pixels[top : top + crops.SIDE, left : left + crops.SIDE]
    assert np.array_equal(original[:: crops.ZOOM, :: crops.ZOOM], expected)


def test_lr_that_is_there_is_what_is_enlarged(crops: Any, tmp_path: Path) -> None:
    for name, level, length in (("HR", 40, 160), ("LR", 90, 40)):
        (tmp_path / name).mkdir()
        Image.new("RGB", (length, length), (level,) * 3).save(tmp_path / name / "a.png")
    (row,) = crops.own(tmp_path)
    assert row.made_by == "given"
    torch.testing.assert_close(row.lr, torch.full_like(row.lr, 90 / 255))
