"""The quality table: pairs by name, means of what was measured, defaults that exist."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sr_cli.engine.options import UpscaleOptions
from sr_cli.engine.upscaler import Upscaler
from sr_cli.errors import UsageError
from sr_cli.evaluation.metrics import load_metric
from sr_cli.evaluation.scores import Row, bicubic, markdown, one_level_margin, pairs, score


def save(path: Path, level: int, side: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((side, side, 3), level, np.uint8)).save(path)


def test_pairs_match_by_name(tmp_path: Path) -> None:
    for level, name in ((10, "b"), (20, "a")):
        save(tmp_path / "HR" / f"{name}.png", level, 8)
        save(tmp_path / "LR" / f"{name}.png", level, 2)
    found = list(pairs(tmp_path))
    assert len(found) == 2
    assert all(float(lr.mean()) == pytest.approx(float(hr.mean())) for lr, hr in found)
    (tmp_path / "LR" / "a.png").unlink()
    with pytest.raises(UsageError, match="no partner"):
        list(pairs(tmp_path))


def test_without_lr_it_is_pillows_reduction(tmp_path: Path) -> None:
    levels = np.random.default_rng(0).integers(0, 256, (18, 21, 3), dtype=np.uint8)
    (tmp_path / "HR").mkdir()
    Image.fromarray(levels).save(tmp_path / "HR" / "a.png")
    ((lr, hr),) = pairs(tmp_path)
    assert hr.shape == (3, 16, 20)
    expected = Image.fromarray(levels[:16, :20]).resize((5, 4), Image.Resampling.BICUBIC)
    assert np.array_equal((lr.permute(1, 2, 0).numpy() * 255).round(), np.asarray(expected))


def test_a_folder_without_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no image"):
        list(pairs(tmp_path))


def test_scores_are_means_over_images(tmp_path: Path) -> None:
    for level in (51, 102):
        save(tmp_path / "HR" / f"{level}.png", level, 8)
    row = score(tmp_path, "bicubic", bicubic, {"level": lambda result, hr: float(result.mean())})
    assert (row.dataset, row.images, row.method) == (tmp_path.name, 2, "bicubic")
    assert row.means["level"] == pytest.approx(0.3)


def test_bicubic_is_four_times_as_large() -> None:
    assert bicubic(torch.rand(3, 5, 7)).shape == (3, 20, 28)


def test_the_table_is_markdown() -> None:
    row = Row("Set14", 14, "bicubic", {"psnr": 25.826, "lpips": 0.4405}, 0.004)
    assert markdown([row]).splitlines() == [
        "| data | method | psnr | lpips | s/image |",
        "|---|---|---:|---:|---:|",
        "| Set14 (14) | bicubic | 25.83 | 0.441 | 0.00 |",
    ]


@pytest.mark.usefixtures("tiny")
def test_the_margin_of_one_level_is_enough_and_less_is_not() -> None:
    lr = torch.rand(3, 48, 48, generator=torch.Generator().manual_seed(0))
    margin = one_level_margin(lr, exact=180)

    def apart(overlap: int) -> float:
        one, other = (Upscaler(UpscaleOptions(tile=tile, overlap=overlap))(lr) for tile in (0, 32))
        return float(((one * 255).round() - (other * 255).round()).abs().max())

    assert 0 < margin < 180
    assert apart(margin) <= 1 < apart(margin - 16)


def test_unknown_metrics_are_refused() -> None:
    with pytest.raises(UsageError, match="no metric"):
        load_metric("beauty")
