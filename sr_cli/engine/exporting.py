"""`srx weights export`: a model and its steps as one graph for other programs, and its plan."""

import importlib
import json
import logging
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, get_args

import torch

from sr_cli.engine import exporting_ncnn
from sr_cli.engine.exporting_graph import INSTALL, Enlargement, Work
from sr_cli.engine.options import UpscaleOptions
from sr_cli.engine.tiling import ignore
from sr_cli.errors import InputError, ModelError, UsageError
from sr_cli.files import whole

Format = Literal["onnx", "ncnn"]
PACKAGES: dict[Format, tuple[str, ...]] = {"onnx": ("onnx", "onnxscript"), "ncnn": ("pnnx",)}
"""What each form takes; torch imports the first two in its exporter."""
OPSET = 18
"""Of ONNX: the first with antialiased resizing."""


def export(
    options: UpscaleOptions,
    folder: Path,
    form: Format = "onnx",
    *,
    overwrite: bool = False,
    on_begin: Callable[[], None] = ignore,
) -> tuple[Path, ...]:
    """Write MODEL_xSCALE.onnx, or .param and .bin of ncnn, and the plan MODEL_xSCALE.json.

    Each file appears whole or not at all, the plan as the last; their paths, the plan's first.
    on_begin is told when all is there that it takes, before the work.

    Raises:
        UsageError: the scale is no whole number up to MOST, or the options make no sense.
        ModelError: the model is missing or of a kind that cannot be exported, or a package is.
        InputError: a file is there already and is not to be overwritten, or cannot be written.
    """
    if form not in get_args(Format):
        raise UsageError(f"format must be onnx or ncnn, not {form!r}.")
    work = Work.of(options)
    plan = folder / f"{options.model}_x{work.scale}.json"
    suffixes = (".onnx",) if form == "onnx" else (".param", ".bin")
    graphs = [plan.with_suffix(suffix) for suffix in suffixes]
    for path in (plan, *graphs):
        if path.exists() and not overwrite:
            raise InputError(f"{path} is there already: choose another folder, or say --overwrite.")
    _check_packages(form)
    if form == "ncnn":
        exporting_ncnn.check(work)
    content = work.plan(graphs[0].name)
    on_begin()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if form == "onnx":
            content |= _write_onnx(work, graphs[0])
        else:
            content |= exporting_ncnn.write(work, *graphs)
        with whole(plan) as partial:
            partial.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", "utf-8")
    except OSError as error:
        raise InputError(f"{folder} cannot be written: {error.strerror}.") from error
    return (plan, *graphs)


def _check_packages(form: Format) -> None:
    try:
        for package in PACKAGES[form]:
            importlib.import_module(package)
    except ImportError as error:
        raise ModelError(f"{error.name} is not installed: {INSTALL}.") from error


def _write_onnx(work: Work, path: Path) -> dict[str, Any]:
    """The graph with its weights inside; what the plan says of it."""
    from onnxscript import optimizer

    steps, dim, unit = work.course.steps, torch.export.Dim, work.unit
    module = Enlargement(
        [work.denoiser] * len(steps),
        work.preprocess,
        work.course,
        work.scale,
        cell=work.model.weave,
    )
    lr = torch.rand(1, 3, 3 * unit // 2 + 1, 5 * unit // 2 + 1)
    sides = (-(-work.scale * side // unit) * unit for side in lr.shape[-2:])
    noise = torch.randn(len(work.draws), 3, *sides)
    shapes = (
        {2: dim("h", min=2), 3: dim("w", min=2)},
        {2: unit * dim("rows", min=1), 3: unit * dim("columns", min=1)},
    )
    with warnings.catch_warnings(action="ignore"), torch.no_grad():
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        program = torch.onnx.export(
            module.eval(),
            (lr, noise),
            dynamo=True,
            dynamic_shapes=shapes,
            input_names=["lr", "noise"],
            output_names=["hr"],
            opset_version=OPSET,
            optimize=False,  # whose rewriting takes as long as all else, and changes little
            verbose=False,
        )
        assert program is not None
        optimizer.fold_constants(program.model)
        optimizer.remove_unused_nodes(program.model)
    for part in (program.model.graph, *program.model.graph):  # where the code lies on this machine
        part.metadata_props.clear()
    program.model.metadata_props["srx"] = json.dumps(work.plan(path.name))
    with whole(path) as partial:
        program.save(partial, external_data=False)
    return {
        "format": f"onnx, opset {OPSET}",
        "contains": ["preprocess", "resize", "walk", "weave", "colour fix (wavelet)", "guard"],
        "inputs": {
            "lr": "(1, 3, h, w) float32, RGB in [0, 1]",
            "noise": f"({len(work.draws)}, 3, H, W) float32 ~ N(0, 1), one plane for each of "
            f"draws; H and W are scale·h and scale·w rounded up to multiples of {unit}",
        },
        "outputs": {"hr": "(1, 3, scale·h, scale·w) float32, RGB in [0, 1]"},
    }
