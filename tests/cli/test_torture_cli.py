"""Every file of the torture folder is right, or named with a reason; another reader says so."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from calls import Srx, results

sys.path.insert(0, str(Path(__file__).parents[1]))
import torture

pytest_plugins = ["calls"]
pytestmark = pytest.mark.usefixtures("isolated")


@pytest.mark.filterwarnings("ignore")
def test_the_torture_folder(srx: Srx) -> None:
    cases = torture.cases()
    assert len(cases) >= 100
    assert len({name for name, *_ in cases}) == len(cases)
    Path("in").mkdir()
    for name, data, _ in cases:
        suffix = {"tga": ".tga"}.get(name, ".png")  # whatever the suffix says
        Path("in", name + suffix).write_bytes(data)
    run = srx("upscale", "in", "out", "--scale", 1, "--json", "--color", "none")
    report = json.loads(run.out)
    done = {Path(entry["input"]).stem: entry for entry in report["results"]}
    failed = {Path(entry["input"]).stem: entry["reason"] for entry in report["failures"]}
    assert run.code == 1
    assert not report["skipped"]
    assert results() == {f"{name}.png" for name in done}
    wrong = []
    for name, _, expected in cases:
        if expected is None:
            if f"in/{name}.png" not in failed.get(name, ""):
                wrong.append(f"{name}: not refused")
        elif name not in done:
            wrong.append(f"{name}: {failed[name]}")
        elif problem := different(
            torture.png_pixels(Path(f"out/{name}.png").read_bytes()), expected
        ):
            wrong.append(f"{name}: {problem}, {done[name]['notes']}")
    assert not wrong, "\n".join(wrong)


def different(found: torture.Array, expected: torture.Array) -> str:
    """How the samples that are seen differ, or nothing."""
    if found.shape != expected.shape or found.dtype.itemsize != expected.dtype.itemsize:
        return f"{found.shape} of {found.dtype}, not {expected.shape} of {expected.dtype}"
    off = np.abs(found.astype(np.int64) - expected.astype(np.int64))
    if expected.shape[2] in (2, 4):  # colours under full transparency are replaced
        off[..., :-1] *= expected[..., -1:] > 0
    return f"{off.max()} levels off" if off.max() > expected.dtype.itemsize - 1 else ""


def test_half_a_picture_would_be_noticed() -> None:
    half = torture.RGB.copy()
    half[5:] = 0
    assert different(half, torture.RGB)
    assert different(torture.deep(torture.RGB), torture.RGB)
    assert not different(torture.RGB, torture.RGB)
