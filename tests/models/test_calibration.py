"""Calibrations: found by what they depend on, interpolated, merged, never half-written."""

import json
from pathlib import Path

import pytest

from sr_cli.errors import ModelError
from sr_cli.models.calibration import FOLDER, Calibration, Setting, find, keep

SETTING = Setting("ab" * 32, "scaled_linear", "dpmsolver++", "mild")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SRX_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("SRX_WEIGHTS", str(tmp_path / "weights"))
    return tmp_path / "home"


def test_between_scales_it_is_interpolated_and_outside_level() -> None:
    calibration = Calibration({4.0: 100, 2.0: 0}, {})
    starts = {1.2: 0, 2: 0, 2.5: 25, 3.3: 65, 4: 100, 9: 100}
    assert {scale: calibration.start(scale) for scale in starts} == starts


def test_what_is_kept_is_found_under_its_own_setting_alone() -> None:
    keep(SETTING, Calibration({2.7: 30}, {"images": 4}))
    assert find(SETTING) == Calibration({2.7: 30}, {"images": 4})
    for name, other in {
        "model": "cd" * 32,
        "schedule": "linear",
        "sampler": "ddim",
        "degradation": "bicubic",
    }.items():
        assert find(Setting(**{**vars(SETTING), name: other})) is None


def test_scales_are_added_and_replaced() -> None:
    keep(SETTING, Calibration({2.0: 5, 4.0: 90}, {"run": 1}))
    path = keep(SETTING, Calibration({4.0: 100, 2.7: 30}, {"run": 2}))
    found = find(SETTING)
    assert found
    assert dict(found.starts) == {2.0: 5, 2.7: 30, 4.0: 100}
    assert found.origin == {"run": 2}
    assert [file.name for file in path.parent.iterdir()] == [SETTING.file]


def test_the_users_own_comes_before_the_shipped_one(tmp_path: Path, home: Path) -> None:
    path = keep(SETTING, Calibration({2.0: 5}, {}))
    shipped = tmp_path / "weights" / FOLDER
    shipped.mkdir(parents=True)
    path.rename(shipped / path.name)
    found = find(SETTING)
    assert found
    assert found.start(2) == 5
    keep(SETTING, Calibration({2.0: 7}, {}))
    found = find(SETTING)
    assert found
    assert found.start(2) == 7
    assert home.is_dir()


@pytest.mark.parametrize("damage", ["", "[]", '{"setting": {}, "starts": {"2": 1}}', "starts"])
def test_a_damaged_file_is_named(damage: str) -> None:
    path = keep(SETTING, Calibration({2.0: 5}, {}))
    text = path.read_text("utf-8")
    if damage == "starts":
        damage = json.dumps(json.loads(text) | {"starts": {"two": "five"}})
    path.write_text(damage, "utf-8")
    with pytest.raises(ModelError, match=r"ab.*damaged: delete it and run srx prf-search"):
        find(SETTING)


def test_a_home_that_cannot_be_written_is_a_model_error(home: Path) -> None:
    home.write_text("a file")
    with pytest.raises(ModelError, match="cannot be written"):
        keep(SETTING, Calibration({2.0: 5}, {}))
