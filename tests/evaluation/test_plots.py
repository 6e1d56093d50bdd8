"""Figures: files of the promised size and content, and refusals before any work."""

import builtins
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from sr_cli.errors import InputError, UsageError
from sr_cli.evaluation import plots
from sr_cli.evaluation.plots import (
    Curve,
    Panel,
    check_plot,
    check_sheet,
    contact_sheet,
    curves,
    latency_plot,
)

PANEL = Panel("t1", "psnr", (Curve("order 1", [(500, 27.0), (333, 26.0)]), Curve("b", [], True)))


def pixels(path: Path) -> np.ndarray[Any, Any]:
    return np.asarray(Image.open(path).convert("RGB"))


def test_curves_draw_their_points(tmp_path: Path) -> None:
    curves([[PANEL], [PANEL]], tmp_path / "full.png")
    curves([[Panel("t1", "psnr", ())], [Panel("t1", "psnr", ())]], tmp_path / "empty.png")
    full, empty = pixels(tmp_path / "full.png"), pixels(tmp_path / "empty.png")
    assert full.shape == empty.shape
    colourful = [int((np.ptp(image, axis=2) > 50).sum()) for image in (full, empty)]
    assert colourful[0] > 100
    assert colourful[1] == 0


def test_points_are_drawn_in_the_order_of_x(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Any] = []

    class Axes:
        def __getattr__(self, name: str) -> Any:
            return lambda *args, **_: drawn.append(args) if name == "plot" else None

    monkeypatch.setattr(plots, "_figure", lambda rows, columns: (None, [[Axes()]]))
    monkeypatch.setattr(plots, "_write", lambda figure, path: None)
    curves([[Panel("t1", "psnr", PANEL.curves[:1])]], Path("x.png"))
    assert [[*map(list, arguments)] for arguments in drawn] == [[[333, 500], [26, 27], ["o", "-"]]]


def test_latency_is_drawn_with_its_names(tmp_path: Path) -> None:
    path = tmp_path / "latency.svg"
    latency_plot([("srx", 0.3, 5.8, 1_400_000), ("bicubic", 0.01, 7.9, 0)], path, "niqe")
    text = path.read_text()
    assert "srx" in text
    assert "niqe" in text


def test_a_sheet_shows_its_crops_pixel_for_pixel(tmp_path: Path) -> None:
    levels = torch.randint(0, 256, (2, 3, 3, 20, 24), generator=torch.Generator().manual_seed(0))
    crops = [list(row) for row in levels / 255]
    path = tmp_path / "sheet.png"
    contact_sheet(crops, ["LR", "5 steps", "HR"], ["a.png", "b.png"], path)
    sheet = pixels(path)
    width = sheet.shape[1]
    for i in range(2):
        for j in range(3):
            top, left = plots.HEAD + i * (20 + plots.GAP), width - (3 - j) * (24 + plots.GAP)
            got = sheet[top : top + 20, left : left + 24]
            assert np.array_equal(got, levels[i, j].permute(1, 2, 0).numpy())
    assert (sheet[: plots.HEAD] < 128).any()  # labels


def test_figures_that_cannot_be_are_refused_at_once(tmp_path: Path) -> None:
    check_plot(tmp_path / "a.PNG")
    check_sheet(tmp_path / "a.png")
    with pytest.raises(UsageError, match=r"end in \.png or \.svg or \.pdf"):
        check_plot(tmp_path / "a.doc")
    with pytest.raises(UsageError, match=r"end in \.png\."):
        check_sheet(tmp_path / "a.svg")


def test_a_figure_that_cannot_be_written_is_an_input_error(tmp_path: Path) -> None:
    (tmp_path / "a.png").mkdir()
    with pytest.raises(InputError, match=r"a\.png cannot be written"):
        curves([[PANEL]], tmp_path / "a.png")
    with pytest.raises(InputError, match=r"a\.png cannot be written"):
        contact_sheet([[torch.zeros(3, 4, 4)]], ["x"], ["y"], tmp_path / "a.png")


def test_without_matplotlib_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def absent(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", absent)
    with pytest.raises(UsageError, match=r"srx\[plot\]"):
        check_plot(Path("a.png"))
