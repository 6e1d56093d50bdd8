"""Small random weights, so that most tests need none of the shipped ones."""

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from hypothesis import settings
from safetensors.torch import save_file
from spandrel.architectures.Compact import Compact

from sr_cli.models.embedded import EmbeddedConfig, EmbeddedNet
from sr_cli.models.registry import Card, write_card
from sr_cli.training.objectives import EmbeddedObjective, Mix

settings.register_profile("srx", deadline=None)
settings.load_profile("srx")

TINY = EmbeddedConfig(widths=(8, 12, 16), blocks=(1, 1, 1), embed=16)


@pytest.fixture(scope="session", autouse=True)
def one_thread_for_tiny_networks() -> None:
    torch.set_num_threads(min(2, torch.get_num_threads()))


@pytest.fixture(scope="session")
def tiny_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of cards: `embedded` and `compact`, random, small, with visible effect."""
    folder = tmp_path_factory.mktemp("weights")
    torch.manual_seed(7)
    net = EmbeddedNet(TINY)
    for parameter in net.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.05)
    objective = EmbeddedObjective(TINY, preprocess=None, mix=Mix(1, 0, 0))
    write(folder, "embedded", net, dict(objective.architecture), dict(objective.limits))
    shape = {"num_feat": 8, "num_conv": 2, "upscale": 4}
    write(folder, "compact", Compact(**shape, act_type="prelu"), shape, {"scale": 4, "margin": 4})
    return folder


def write(
    folder: Path,
    name: str,
    net: torch.nn.Module,
    architecture: Mapping[str, object],
    limits: Mapping[str, object],
) -> None:
    file = f"{name}.safetensors"
    save_file({k: v.contiguous() for k, v in net.state_dict().items()}, folder / file)
    card = Card(name, name, file, architecture, "CC0-1.0", {}, limits, {}, folder=folder)
    write_card(card)


@pytest.fixture
def tiny(tiny_weights: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let `embedded` and `compact` mean the tiny ones."""
    monkeypatch.setenv("SRX_WEIGHTS", str(tiny_weights))
    return tiny_weights
