"""Calibrations: found by what they depend on, interpolated, merged, never half-written."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sr_cli.cli.prf_search import SCALES
from sr_cli.diffusion.names import SamplerName
from sr_cli.engine.options import UpscaleOptions
from sr_cli.engine.steps import conditions, setting
from sr_cli.errors import ModelError
from sr_cli.models.calibration import CLOSE, FOLDER, Calibration, Setting, Start, find, keep
from sr_cli.models.loading import load_model
from sr_cli.models.registry import card, names

SETTING = Setting("ab" * 32, "scaled_linear", "dpmsolver++", "mild")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SRX_HOME", str(tmp_path / "home"))
    (tmp_path / "weights").mkdir()
    monkeypatch.setenv("SRX_WEIGHTS", str(tmp_path / "weights"))
    return tmp_path / "home"


def calibration(starts: Mapping[float, int], **origin: object) -> Calibration:
    return Calibration({scale: Start(t, origin) for scale, t in starts.items()})


def test_between_scales_close_starts_are_interpolated_and_outside_they_are_level() -> None:
    found = calibration({4.0: 100, 2.0: 0})
    starts = {1.2: 0, 2: 0, 2.5: 25, 3.3: 65, 4: 100, 9: 100}
    assert {scale: found.start(scale) for scale in starts} == starts


def test_starts_far_apart_are_never_mixed() -> None:
    """525, between 1000 and 50, would be a start that was good at neither scale; the nearer scale
    is that of the smaller ratio, so that the two meet at √(1.6 · 2) = 1.79."""
    far = calibration({1.6: 1000, 2.0: 50})
    assert [far.start(scale) for scale in (1.6, 1.7, 1.78, 1.8, 1.9, 2)] == [1000] * 3 + [50] * 3
    for apart, mixed in ((CLOSE, True), (CLOSE + 1, False)):
        found = calibration({1.6: 300 + apart, 2.0: 300})
        assert (found.start(1.8) not in (300, 300 + apart)) == mixed


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(st.sampled_from([1.6, 2.0, 2.7, 3.5, 4.0, 8.0]), st.integers(0, 1000)))
def test_a_start_is_measured_or_near_what_was(starts: dict[float, int]) -> None:
    """Whatever the scale: at the measured ones exactly, else within half of CLOSE."""
    found = calibration(starts or {2.0: 5})
    for scale in np.geomspace(1, 16, 60):
        distance = min(abs(start.t - found.start(scale)) for start in found.starts.values())
        assert distance <= CLOSE / 2
    for scale, start in found.starts.items():
        assert [found.start(scale * off) for off in (0.99, 1, 1.01)] == [start.t] * 3


def test_what_is_kept_is_found_under_its_own_setting_alone() -> None:
    keep(SETTING, calibration({2.7: 30}, images=4))
    assert find(SETTING) == calibration({2.7: 30}, images=4)
    for name, other in {
        "model": "cd" * 32,
        "schedule": "linear",
        "sampler": "ddim",
        "degradation": "bicubic",
    }.items():
        assert find(Setting(**{**vars(SETTING), name: other})) is None


def test_scales_are_added_and_replaced_each_with_its_own_origin() -> None:
    keep(SETTING, calibration({2.0: 5, 4.0: 90}, run=1))
    path = keep(SETTING, calibration({4.0: 100, 2.7: 30}, run=2))
    assert find(SETTING) == Calibration(
        {2.0: Start(5, {"run": 1}), 2.7: Start(30, {"run": 2}), 4.0: Start(100, {"run": 2})}
    )
    assert [file.name for file in path.parent.iterdir()] == [SETTING.file]


def test_scales_of_a_shipped_calibration_are_kept_beside_the_users(tmp_path: Path) -> None:
    """Else one scale of the user's own would decide for all others."""
    shipped = tmp_path / "weights" / FOLDER
    path = keep(SETTING, calibration({2.0: 5, 8.0: 170}, run="shipped"))
    shipped.mkdir()
    original = path.rename(shipped / path.name).read_bytes()
    keep(SETTING, calibration({2.0: 7}, run="own"))
    merged = Calibration({2.0: Start(7, {"run": "own"}), 8.0: Start(170, {"run": "shipped"})})
    assert find(SETTING) == merged
    keep(SETTING, calibration({8.0: 160}, run="own"))
    assert find(SETTING) == calibration({2.0: 7, 8.0: 160}, run="own")
    assert (shipped / path.name).read_bytes() == original


def test_a_run_under_other_conditions_is_told_so() -> None:
    """By the starts that decide for its scale alone, and by what these say of themselves."""
    starts = {2.0: Start(5, {"steps": 5, "images": 4}), 4.0: Start(90, {"steps": 3})}
    found = Calibration({**starts, 8.0: Start(200, {})})
    assert found.doubt(1.99, {"steps": 5, "preprocess": "none"}) == ""
    assert found.doubt(1.5, {"steps": 5}) == "t1 was found with scale 2, not 1.5"
    assert found.doubt(2, {"steps": 5}) == ""
    assert found.doubt(3, {"steps": 5}) == "t1 was found with steps 3, not 5; scales 2 and 4, not 3"
    assert "steps 5, not 1; steps 3, not 1; " in found.doubt(3, {"steps": 1})
    assert found.doubt(8.1, {"steps": 1}) == ""
    assert found.doubt(9, {"steps": 1}) == "t1 was found with scale 8, not 9"
    apart = Calibration({**starts, 8.0: Start(800, {})})
    assert apart.doubt(5, {"steps": 5}) == "t1 was found with steps 3, not 5; scale 4, not 5"
    assert apart.doubt(7, {"steps": 5}) == "t1 was found with scale 8, not 7"
    both = Calibration({2.0: Start(5, {"steps": 5, "preprocess": "compact"})})
    assert both.doubt(2, {"steps": 1, "preprocess": "none"}) == (
        "t1 was found with steps 5, not 1; preprocess compact, not none"
    )


def test_the_users_own_comes_before_the_shipped_one(tmp_path: Path, home: Path) -> None:
    path = keep(SETTING, calibration({2.0: 5}))
    shipped = tmp_path / "weights" / FOLDER
    shipped.mkdir()
    path.rename(shipped / path.name)
    found = find(SETTING)
    assert found
    assert found.start(2) == 5
    keep(SETTING, calibration({2.0: 7}))
    found = find(SETTING)
    assert found
    assert found.start(2) == 7
    assert home.is_dir()


@pytest.mark.parametrize(
    "damage", ["", "[]", '{"setting": {}, "starts": {"2": 1}}', "two", 5, {"t": 5}]
)
def test_a_damaged_file_is_named(damage: Any) -> None:
    path = keep(SETTING, calibration({2.0: 5}))
    text = path.read_text("utf-8")
    if damage == "two":
        text = text.replace('"2"', '"two"')
    elif isinstance(damage, str):
        text = damage
    else:
        text = json.dumps(json.loads(text) | {"starts": {"2": damage}})
    path.write_text(text, "utf-8")
    with pytest.raises(ModelError, match=r"ab.*damaged: delete it and run srx prf-search"):
        find(SETTING)


def test_a_home_that_cannot_be_written_is_a_model_error(home: Path) -> None:
    home.write_text("a file")
    with pytest.raises(ModelError, match="cannot be written"):
        keep(SETTING, calibration({2.0: 5}))


def test_shipped_weights_have_their_calibrations(monkeypatch: pytest.MonkeyPatch) -> None:
    """At the scales that prf-search tries by itself, and under the conditions of an upscaling that
    asks for nothing else; other weights need it to be run again."""
    monkeypatch.delenv("SRX_WEIGHTS")
    methods = {"embedded": "dossr", "prior": "diffsr"}
    shipped = {name: methods[card(name).kind] for name in names() if card(name).kind in methods}
    assert {"embedded", "prior"} <= set(shipped)
    samplers = [(name, method, UpscaleOptions.sampler) for name, method in shipped.items()]
    samplers += [("prior", "diffsr", sampler) for sampler in get_args(SamplerName)]
    for name, method, sampler in samplers:
        model = load_model(name, torch.device("cpu"), torch.float32)
        options = UpscaleOptions(method=method, sampler=sampler)  # type: ignore[arg-type]
        found = find(setting(options, model))
        option = "--prior" if method == "diffsr" else "--model"
        assert found, f"run srx prf-search Set14/HR --method {method} {option} {name}"
        scales = {float(scale) for scale in SCALES[method].split(",")}
        assert set(found.starts) >= scales, name
        assert not any(found.doubt(scale, conditions(options, model)) for scale in scales), name
        other = conditions(replace(options, steps=9), model)
        assert all("not 9" in found.doubt(scale, other) for scale in scales), name
