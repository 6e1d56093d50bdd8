"""The engine with the small checkpoint in the released layout, against the released code's runs."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from sr_cli.engine import states
from sr_cli.engine.options import UpscaleOptions
from sr_cli.engine.states import Noise
from sr_cli.engine.tiling import Window
from sr_cli.engine.upscaler import Upscaler
from sr_cli.models.checkpoints import read_state_dict
from sr_cli.models.dossr.convert import LIMITS, convert
from sr_cli.models.dossr.model import CONTEXT
from sr_cli.models.registry import Card, write_card

GOLDEN = Path(__file__).parents[1] / "golden"


@pytest.fixture(scope="module")
def golden() -> dict[str, Tensor]:
    with np.load(GOLDEN / "dossr_net.npz") as arrays:
        return {name: torch.from_numpy(array) for name, array in arrays.items()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, golden: dict[str, Tensor]) -> Path:
    folder = tmp_path_factory.mktemp("released")
    found = convert(read_state_dict(GOLDEN / "tiny_controlldm.ckpt"))
    tensors = {f"{part}.{k}": v for part, own in found.parts.items() for k, v in own.items()}
    tensors[CONTEXT] = golden["ctx"]
    save_file({k: v.contiguous() for k, v in tensors.items()}, folder / "small.safetensors")
    architecture = found.architecture
    card = Card("small", "dossr", "small.safetensors", architecture, "", {}, LIMITS, {})
    write_card(replace(card, folder=folder))
    return folder


@pytest.fixture(scope="module")
def small(folder: Path) -> Upscaler:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SRX_WEIGHTS", str(folder))
        return Upscaler(UpscaleOptions(model="small"), device="cpu", dtype="float32")


class Given:
    """`Preprocessor` that answers what the golden arrays start from."""

    scale, margin = 4, 0

    def __init__(self, image: Tensor) -> None:
        self.image = image

    def __call__(self, lr: Tensor) -> Tensor:
        del lr
        return self.image


@dataclass(frozen=True)
class Drawn(Noise):
    """The released run's draws, (steps + 2, …): of the posterior, the start, and each step."""

    draws: Tensor

    def key(self, step: int) -> int:
        return step + 1

    def __call__(self, step: int, window: Window) -> Tensor:
        return self.draws[self.key(step)][(..., *window)]

    def add(self, x: Tensor, keys: Tensor, scale: float, **_: Any) -> Tensor:
        return x.add_(self.draws[int(keys)], alpha=scale)


@pytest.mark.usefixtures("unguarded")
@pytest.mark.parametrize(("steps", "order"), [(1, 1), (1, 2), (1, 3), (5, 1)])
@pytest.mark.parametrize("color", ["none", "wavelet"])
def test_a_run_is_the_released_run(  # noqa: PLR0917
    small: Upscaler,
    golden: dict[str, Tensor],
    monkeypatch: pytest.MonkeyPatch,
    steps: int,
    order: int,
    color: str,
) -> None:
    engine = small.using(steps=steps, order=order, color=color)
    engine._preprocess = Given(golden["pre"])
    noise = Drawn(0, b"", 4, torch.device("cpu"), golden[f"run_s{steps}_noise"])
    engine._noise = lambda lr: noise  # type: ignore[method-assign]
    monkeypatch.setattr(states, "add_noise", noise.add)
    suffix = "_wavelet" if color == "wavelet" else ""
    expected = golden[f"run_s{steps}_o{order}_img{suffix}"].clamp(0, 1)
    torch.testing.assert_close(engine(golden["lr"][0])[None], expected, atol=1e-5, rtol=0)
    monkeypatch.undo()
    assert (engine(golden["lr"][0])[None] - expected).abs().max() > 1e-3  # the control


@pytest.mark.parametrize("size", [(16, 16), (97, 61), (30, 77)])
@pytest.mark.parametrize("scale", [1.5, 2, 2.7])
def test_sizes_are_rounded_exactly(small: Upscaler, size: tuple[int, int], scale: float) -> None:
    height, width = size
    lr = torch.rand(3, height, width, generator=torch.Generator().manual_seed(0))
    result = small.using(scale=scale, steps=1)(lr)
    assert tuple(result.shape) == (3, *(int(side * scale + 0.5) for side in size))
    assert result.isfinite().all()
