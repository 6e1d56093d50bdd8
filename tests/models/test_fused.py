"""Kernels that fuse passes make what torch makes: on a CPU, by Triton's interpreter."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from sr_cli.models import fused

pytest.importorskip("triton")
LAWS = Path(__file__).with_name("fused_laws.py")


@pytest.fixture(scope="module")
def laws() -> Any:
    """What the program says."""
    done = subprocess.run([sys.executable, LAWS], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_kernels_make_what_torch_makes(laws: Any) -> None:
    tolerances = {name: 2e-2 if "bfloat16" in name else 2e-5 for name in laws["errors"]}
    wrong = {name: e for name, e in laws["errors"].items() if not e <= tolerances[name]}
    assert not wrong
    assert {"UNet", "encoder", "decoder", "embedded", "compact"} < set(laws["errors"])


def test_what_leaves_out_a_part_is_told_from_it(laws: Any) -> None:
    assert laws["controls"]
    assert all(error > 3e-2 for error in laws["controls"].values()), laws["controls"]


def test_every_kernel_was_tried(laws: Any) -> None:
    kernels = {"cap", "add_and_cap", "modulate", "add", "prelu", "moments", "settle", "normalise"}
    assert set(laws["launched"]) == kernels | {"noise"}


def test_a_cpu_is_not_served() -> None:
    with torch.inference_mode():
        assert not fused.serves(torch.zeros(1, 4, 2, 2))


def test_grids_are_of_sizes_that_cuda_takes() -> None:
    """Of blocks there may be 2³¹ − 1, of pictures and of channels 65,535."""
    for shape in ((1, 16, 4320, 7680), (64, 64, 128, 128), (16, 512, 512, 512)):
        blocks, pictures, channels = fused._grid(torch.empty(shape, device="meta"))
        assert blocks < 1 << 31
        assert max(pictures, channels) <= 65535
    assert blocks * fused.ROWS >= 512 * 512
    assert fused._grid(torch.empty(1, 16, 4320, 7680, device="meta"))[0] > 65535  # so it matters
