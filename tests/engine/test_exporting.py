"""Exported graphs give what srx gives to one 8-bit level, whatever runs them."""

import importlib.util
import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from conftest import write
from numpy.typing import NDArray
from torch import Tensor

from sr_cli.diffusion.noise import gaussian_noise, noise_key, noise_keys
from sr_cli.engine.exporting import export
from sr_cli.engine.exporting_graph import Work
from sr_cli.engine.images import load
from sr_cli.engine.options import UpscaleOptions
from sr_cli.engine.states import Noise
from sr_cli.engine.upscaler import Upscaler
from sr_cli.errors import InputError, ModelError, UsageError
from sr_cli.models.network import EmbeddedConfig
from sr_cli.training.objectives import EmbeddedObjective, Mix

onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

ROOT = Path(__file__).parents[2]
CONFIG = EmbeddedConfig(
    widths=(8, 12), blocks=(1, 1), embed=16, cap=4.0, detail=5, refine=1, dial=True
)
"""A small network with every part that a shipped one may have."""
LEVEL = 1 / 255
OPTIONS = UpscaleOptions(steps=2, texture=0.5, preprocess="compact")
OTHER = UpscaleOptions(scale=3, steps=1, preprocess="none", model="plain")


@pytest.fixture(scope="module")
def networks(tiny_weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Cards: `embedded` with all parts, `plain` with few of them, `compact`."""
    folder = tmp_path_factory.mktemp("parts") / "weights"
    shutil.copytree(tiny_weights, folder)
    torch.manual_seed(9)
    few = replace(CONFIG, cap=0.0, detail=0, refine=0, dial=False)
    for name, config in (("embedded", CONFIG), ("plain", few)):
        objective = EmbeddedObjective(config, preprocess=None, mix=Mix(1, 0, 0))
        for parameter in objective.model.parameters():
            if not parameter.any():
                torch.nn.init.normal_(parameter, std=0.05)
        described = dict(objective.architecture), replace(objective.limits, weave=8)
        write(folder, name, objective.model, *described, kind="embedded")
    return folder


@pytest.fixture(autouse=True)
def used(networks: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SRX_WEIGHTS", str(networks))


@pytest.fixture(scope="module")
def plans(networks: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The plans of two exports as ONNX, by model."""
    folder = tmp_path_factory.mktemp("onnx")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SRX_WEIGHTS", str(networks))
        return {options.model: export(options, folder)[0] for options in (OPTIONS, OTHER)}


def runner() -> ModuleType:
    """examples/run_onnx.py."""
    spec = importlib.util.spec_from_file_location("run_onnx", ROOT / "examples" / "run_onnx.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def opened(plan: Path) -> tuple[dict[str, Any], Any]:
    """A plan, and the session of its graph."""
    content = json.loads(plan.read_text("utf-8"))
    return content, onnxruntime.InferenceSession(plan.with_name(content["file"]))


def cat(height: int, width: int) -> NDArray[np.uint8]:
    """(3, height, width), a part of the example."""
    rgb = load(ROOT / "examples" / "cat.png").rgb[:height, :width]
    levels: NDArray[np.uint8] = np.rint(rgb * 255).astype(np.uint8).transpose(2, 0, 1)
    return np.ascontiguousarray(levels)


def by_srx(options: UpscaleOptions, picture: NDArray[np.uint8]) -> NDArray[np.float32]:
    upscaler = Upscaler(options, device="cpu", dtype="float32")
    found: NDArray[np.float32] = upscaler(torch.from_numpy(picture)).numpy()
    return found


def noise_of(work: Work, picture: NDArray[np.uint8], sides: list[int]) -> Tensor:
    noise = Noise.of(torch.from_numpy(picture), 0, 3, torch.device("cpu"))
    rows, cols = (slice(0, side) for side in sides)
    return torch.cat([noise(draw, (rows, cols)) for draw in work.draws])


@pytest.mark.parametrize("options", [OPTIONS, OTHER], ids=lambda options: options.model)
@pytest.mark.parametrize("size", [(40, 33), (8, 8), (25, 50), (1, 3)])
def test_the_graph_is_the_upscaler(
    plans: dict[str, Path], options: UpscaleOptions, size: tuple[int, int]
) -> None:
    plan, session = opened(plans[options.model])
    picture, work = cat(*size), Work.of(options)
    sides = [-(-work.scale * side // work.unit) * work.unit for side in size]
    noise = noise_of(work, picture, sides)
    lr = np.float32(picture[None]) / 255

    def run(noise: Tensor) -> NDArray[np.float32]:
        found: NDArray[np.float32] = session.run(None, {"lr": lr, "noise": noise.numpy()})[0][0]
        return found

    expected = by_srx(options, picture)
    assert np.abs(run(noise) - expected).max() < 0.1 * LEVEL
    assert plan["draws"] == work.draws
    if min(size) > 1:
        assert np.abs(run(noise.flip(1)) - expected).max() > LEVEL  # other noise, another picture


def test_the_runner_draws_the_noise_of_srx() -> None:
    picture = cat(5, 7)
    of_srx = Noise.of(torch.from_numpy(picture), 3, 3, torch.device("cpu"))
    own = runner()
    key = own.key(picture, 2, seed=3)
    assert int(key) == of_srx.key(2)
    assert int(own.key(picture, 1, seed=3)) != of_srx.key(2)
    for rows, cols in (((0, 6), (0, 5)), ((4, 16), (7, 19)), ((2**20, 2**20 + 2), (3, 4))):
        keys = noise_keys([noise_key(3, of_srx.picture, 2)])
        expected = gaussian_noise(keys, rows, cols, 3)[0].numpy()
        found = own.noise(key, rows[0], cols[0], rows[1] - rows[0], cols[1] - cols[0])
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("options", [OPTIONS, OTHER], ids=lambda options: options.model)
def test_the_runner_s_tiles_give_the_picture_of_srx(
    plans: dict[str, Path], options: UpscaleOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, session = opened(plans[options.model])
    own, picture = runner(), cat(75, 111)
    monkeypatch.setattr(own, "TILE", 48)
    expected = np.rint(by_srx(options, picture) * 255)

    def off(plan: dict[str, Any]) -> float:
        result: NDArray[np.uint8] = own.enlarge(session, plan, picture)
        return float(np.abs(result - expected).max())

    assert off(plan) <= 1
    assert off(plan | {"margin": 0}) > 1  # seams


def test_the_runner_needs_neither_torch_nor_srx() -> None:
    source = (ROOT / "examples" / "run_onnx.py").read_text("utf-8")
    imported = {
        line.split()[1] for line in source.splitlines() if line.startswith(("import", "from"))
    }
    assert imported - set(sys.stdlib_module_names) == {"numpy", "onnxruntime", "PIL"}


def test_the_runner_s_tiles_begin_at_multiples(plans: dict[str, Path]) -> None:
    for path in plans.values():
        plan, _ = opened(path)
        assert runner().TILE % plan["multiple"] == 0
        assert plan["multiple"] * plan["scale"] % plan["unit"] == 0


def test_the_plan_says_what_the_graph_is(plans: dict[str, Path]) -> None:
    plan, session = opened(plans["embedded"])
    assert (plan["scale"], plan["texture"], plan["draws"]) == (4, 0.5, [0, 1])
    assert [step["s"] for step in plan["steps"]] == sorted(
        (step["s"] for step in plan["steps"]), reverse=True
    )
    held = json.loads(session.get_modelmeta().custom_metadata_map["srx"])
    assert held["sha256"] == plan["sha256"] == Work.of(OPTIONS).model.identity
    assert [given.name for given in session.get_inputs()] == list(plan["inputs"])
    assert [given.name for given in session.get_outputs()] == list(plan["outputs"])
    graph = plans["embedded"].with_name(plan["file"]).read_bytes()
    assert b"sr_cli" not in graph  # nor where that lies


@pytest.mark.parametrize("sides", [(6, 8), (10, 5)])
def test_ncnn_gives_the_walk(tmp_path: Path, sides: tuple[int, int]) -> None:
    """Up to the colour fix and the guard, which the plan does not list."""
    ncnn = pytest.importorskip("ncnn")
    pytest.importorskip("pnnx")
    options = replace(OPTIONS, steps=1)
    plan, param, binary = export(options, tmp_path / "new", "ncnn")
    content, work = json.loads(plan.read_text("utf-8")), Work.of(options)
    assert content["contains"] == ["preprocess", "walk"]
    picture = cat(*(content["multiple"] * side for side in sides))
    noise = noise_of(work, picture, [4 * side for side in picture.shape[1:]])
    lr = np.float32(picture) / 255
    with torch.no_grad():
        (walked,) = _walk(work, torch.from_numpy(lr)[None], noise)
    net = ncnn.Net()
    for setting in ("packed", "storage", "arithmetic"):
        setattr(net.opt, f"use_fp16_{setting}", False)
    assert net.load_param(str(param)) == 0
    assert net.load_model(str(binary)) == 0
    extractor = net.create_extractor()
    extractor.input("in0", ncnn.Mat(lr).clone())
    extractor.input("in1", ncnn.Mat(noise[0].numpy()).clone())
    _, found = extractor.extract("out0")
    assert np.abs(np.array(found) - walked.numpy()).max() < 0.1 * LEVEL
    assert np.abs(np.array(found) - lr.repeat(4, axis=1).repeat(4, axis=2)).max() > LEVEL


def _walk(work: Work, lr: Tensor, noise: Tensor) -> Tensor:
    """The image at the end of one step, by the denoiser itself."""
    course, (step,) = work.course, work.course.steps
    y = 2 * work.preprocess(lr) - 1
    x = course.start[0] * y + course.start[1] * noise
    values = {
        name: float(getattr(course.path, name)[step.s]) for name in ("alpha", "sigma", "a", "m")
    }
    x0 = work.denoiser.predict_x0(x, y=y, hint=y, t=step.s, **values)
    return (step.apply(x, y, [x0], None) + 1) / 2


@pytest.mark.parametrize(
    ("options", "form", "error", "words"),
    [
        (replace(OPTIONS, scale=2.5), "onnx", UsageError, "whole number"),
        (replace(OPTIONS, scale=9), "onnx", UsageError, "1 to 8"),
        (replace(OPTIONS, t1="auto"), "onnx", UsageError, "one t1"),
        (replace(OTHER, texture=0.5), "onnx", UsageError, "no dial"),
        (replace(OPTIONS, model="nothing"), "onnx", ModelError, "no weights named"),
        (replace(OPTIONS, model="compact", texture=None), "onnx", ModelError, "not of use here"),
        (OTHER, "ncnn", ModelError, "--format onnx"),
        (OPTIONS, "coreml", UsageError, "onnx or ncnn"),
    ],
)
def test_what_cannot_be_exported_is_refused(
    tmp_path: Path, options: UpscaleOptions, form: Any, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        export(options, tmp_path, form)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("form", "package"), [("onnx", "onnx"), ("onnx", "onnxscript"), ("ncnn", "pnnx")]
)
def test_a_missing_package_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: Any, package: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ModelError, match=rf"{package} is not installed: .*srx\[export\]"):
        export(replace(OPTIONS, steps=1), tmp_path, form)
    assert not list(tmp_path.iterdir())


def test_nothing_is_overwritten_unasked(tmp_path: Path) -> None:
    (tmp_path / "embedded_x4.json").write_text("mine")
    with pytest.raises(InputError, match=r"embedded_x4\.json is there already"):
        export(OPTIONS, tmp_path)
    assert (tmp_path / "embedded_x4.json").read_text() == "mine"
    assert len(list(tmp_path.iterdir())) == 1
