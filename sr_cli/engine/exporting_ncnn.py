"""The graph of an export for ncnn, which pnnx makes of what torch traces.

ncnn has no gathering of rows, no `lerp` and no clamping between two maps. So the graph ends before
the colour fix and the guard, and takes tiles whose sides are multiples alone. The noise level of a
step does not change, so it is folded into the convolutions that it modulates.
"""

import copy
import subprocess
import tempfile
import warnings
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sr_cli.engine.exporting_graph import Enlargement, Place, Work, place
from sr_cli.errors import ModelError
from sr_cli.files import whole
from sr_cli.models.embedded import EmbeddedDenoiser
from sr_cli.models.network import Block, capped


class Folded(nn.Module):
    """A block at one noise level: its modulation is part of its first convolution."""

    def __init__(self, block: Block, level: Tensor) -> None:
        """level: (1, embed)."""
        super().__init__()
        self.cap = block.cap
        self.conv1, self.conv2 = copy.deepcopy(block.conv1), block.conv2
        scale, shift = block.modulation(level)[0].chunk(2)
        assert self.conv1.bias is not None
        self.conv1.weight.mul_(1 + scale[:, None, None, None])
        self.conv1.bias.mul_(1 + scale).add_(shift)

    def forward(self, x: Tensor, level: Tensor) -> Tensor:
        """As `Block`, whatever the level."""
        del level
        branch: Tensor = self.conv2(F.silu(self.conv1(capped(x, self.cap))))
        return x + branch


@torch.no_grad()
def folded(denoiser: EmbeddedDenoiser, told: Place) -> EmbeddedDenoiser:
    """The denoiser at one σ, a and m, with another network."""
    other = copy.copy(denoiser)
    other.net = copy.deepcopy(denoiser.net)
    levels: list[Tensor] = []
    handle = other.net.level.register_forward_hook(lambda _net, _given, level: levels.append(level))
    state = torch.zeros(1, 3, *[other.net.config.multiple_of] * 2)
    other.recover(state, state, **told)
    handle.remove()
    for blocks in [m for m in other.net.modules() if isinstance(m, nn.ModuleList)]:
        for i, block in enumerate(blocks):
            if isinstance(block, Block):
                blocks[i] = Folded(block, levels[0])
    return other


def check(work: Work) -> None:
    """Raise ModelError where ncnn lacks what is asked for."""
    if work.preprocess.scale != work.scale:
        raise ModelError(
            "ncnn does not resize as srx does: choose --preprocess compact --scale 4, or "
            "--format onnx."
        )


def write(work: Work, param: Path, binary: Path) -> dict[str, Any]:
    """The graph and its weights in float32; what the plan says of them.

    Raises ModelError where pnnx fails.
    """
    denoisers = [folded(work.denoiser, place(work.course, step)) for step in work.course.steps]
    module = Enlargement(denoisers, work.preprocess, work.course, work.scale, complete=False).eval()
    shapes = [_shapes(work, sides) for sides in ((2, 3), (3, 4))]
    with tempfile.TemporaryDirectory() as folder:
        traced = Path(folder) / "graph.pt"
        with warnings.catch_warnings(action="ignore"), torch.no_grad():
            given = tuple(torch.rand(shape) for shape in shapes[0])
            script: Any = torch.jit.trace(module, given, check_trace=False)  # type: ignore[no-untyped-call]
            script.save(str(traced))
        _convert(traced, shapes)
        for name, target in ((".ncnn.param", param), (".ncnn.bin", binary)):
            with whole(target) as partial:
                partial.write_bytes(traced.with_name(f"graph{name}").read_bytes())
    return {
        "format": "ncnn",
        "weights": binary.name,
        "contains": ["preprocess", "walk"],
        "inputs": {
            "in0": f"lr: (3, h, w) float32, RGB in [0, 1]; sides are multiples of {work.multiple}",
            "in1": "noise: (3, scale·h, scale·w) float32 ~ N(0, 1)",
        },
        "outputs": {"out0": "(3, scale·h, scale·w) float32, RGB, about [0, 1]"},
    }


def _shapes(work: Work, sides: tuple[int, int]) -> list[tuple[int, ...]]:
    """Of the two inputs, so many multiples large."""
    height, width = (work.multiple * side for side in sides)
    lr = (1, 3, height, width)
    return [lr, (len(work.draws), 3, work.scale * height, work.scale * width)]


def _convert(traced: Path, shapes: list[list[tuple[int, ...]]]) -> None:
    import pnnx

    told = [",".join(f"[{','.join(map(str, shape))}]f32" for shape in pair) for pair in shapes]
    command = [pnnx.EXEC_PATH, traced, f"inputshape={told[0]}", f"inputshape2={told[1]}", "fp16=0"]
    done = subprocess.run(command, cwd=traced.parent, capture_output=True, text=True, check=False)
    graph = traced.with_name("graph.ncnn.param")
    layers = graph.read_text("ascii").splitlines()[2:] if graph.is_file() else []
    kinds = {line.split()[0] for line in layers}
    strange = sorted(kind for kind in kinds if "." in kind or ":" in kind)
    if done.returncode or not kinds or strange:
        what = f"ncnn has no {', '.join(strange)}" if strange else done.stdout.strip()[-200:]
        raise ModelError(f"pnnx could not convert the network ({what}): use --format onnx.")
