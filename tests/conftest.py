"""Small random weights, so that most tests need none of the shipped ones."""

import shutil
import signal
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import settings
from PIL import Image
from safetensors.torch import save_file
from spandrel.architectures.Compact import Compact
from torch import Tensor

from sr_cli.engine import finish
from sr_cli.models.limits import Limits
from sr_cli.models.network import EmbeddedConfig
from sr_cli.models.registry import Card, write_card
from sr_cli.training import criterion, vgg
from sr_cli.training.adversarial import Discriminator
from sr_cli.training.objectives import EmbeddedObjective, Mix, PriorObjective

settings.register_profile("srx", deadline=None)
settings.load_profile("srx")

TINY = EmbeddedConfig(widths=(8, 12, 16), blocks=(1, 1, 1), embed=16)
VGG_WIDTHS = (4, 4, 4, 4, 6, 6, 6, 8, 8, 8, 8, 8, 8)
TINY_PRIOR = PriorObjective(replace(TINY, s=0.5, conditional=False))


@pytest.fixture(scope="session", autouse=True)
def one_thread_for_tiny_networks() -> None:
    torch.set_num_threads(min(2, torch.get_num_threads()))


@pytest.fixture(scope="session", autouse=True)
def interruptible() -> None:
    """A shell that starts the tests in the background has told them to ignore SIGINT."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def no_models_of_the_user(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SRX_HOME", str(tmp_path_factory.mktemp("home")))
        yield


@pytest.fixture(scope="session")
def tiny_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of cards: `embedded`, `prior`, `compact`, random, small, with visible effect."""
    folder = tmp_path_factory.mktemp("weights")
    torch.manual_seed(7)
    for objective in (EmbeddedObjective(TINY, preprocess=None, mix=Mix(1, 0, 0)), TINY_PRIOR):
        for parameter in objective.model.parameters():
            if not parameter.any():
                torch.nn.init.normal_(parameter, std=0.05)
        architecture, limits = dict(objective.architecture), replace(objective.limits, weave=8)
        write(folder, objective.name, objective.model, architecture, limits)
    shape = {"num_feat": 8, "num_conv": 2, "upscale": 4}
    write(folder, "compact", Compact(**shape, act_type="prelu"), shape, Limits(scale=4, margin=4))
    return folder


def write(
    folder: Path,
    name: str,
    net: torch.nn.Module,
    architecture: Mapping[str, object],
    limits: Limits,
    *,
    kind: str = "",
) -> None:
    file = f"{name}.safetensors"
    save_file({k: v.contiguous() for k, v in net.state_dict().items()}, folder / file)
    card = Card(name, kind or name, file, architecture, "CC0-1.0", {}, limits, {}, folder=folder)
    write_card(card)


@pytest.fixture(scope="session")
def dialled_weights(tiny_weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As `tiny_weights`, but `embedded` has a dial, to which it listens; `clean` has none."""
    folder = tmp_path_factory.mktemp("dialled") / "weights"
    shutil.copytree(tiny_weights, folder)
    torch.manual_seed(8)
    for name, dial in (("embedded", True), ("clean", False)):
        objective = EmbeddedObjective(replace(TINY, dial=dial), preprocess=None, mix=Mix(1, 0, 0))
        for parameter in objective.model.parameters():
            if not parameter.any():
                torch.nn.init.normal_(parameter, std=0.05)
        if dial:
            objective.model.get_parameter("level.0.weight").data[:, -1] *= 20
        described = dict(objective.architecture), objective.limits
        write(folder, name, objective.model, *described, kind="embedded")
    return folder


@pytest.fixture(scope="session")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three pictures of sharp random shapes."""
    folder = tmp_path_factory.mktemp("shapes")
    random = np.random.default_rng(0)
    for number in range(3):
        image = np.zeros((96, 120, 3), np.uint8)
        for _ in range(60):
            top, left = random.integers(0, 80), random.integers(0, 100)
            image[top : top + 12, left : left + 14] = random.integers(0, 256, 3)
        Image.fromarray(image).save(folder / f"{number}.png")
    return folder


@pytest.fixture
def unguarded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the engine give what its networks say, even if they are random."""

    def as_it_is(image: Tensor, *_: object, **__: object) -> tuple[Tensor, Tensor]:
        return image.clamp(0, 1), torch.zeros(len(image))

    monkeypatch.setattr(finish, "guarded", as_it_is)
    monkeypatch.setattr(finish, "weaves", lambda *_: False)


@pytest.fixture
def tiny(tiny_weights: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let `embedded` and `compact` mean the tiny ones."""
    monkeypatch.setenv("SRX_WEIGHTS", str(tiny_weights))
    return tiny_weights


@pytest.fixture
def tiny_vgg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let VGG16 mean a random one of few channels; discriminators have few, too."""
    monkeypatch.setattr(criterion, "Discriminator", partial(Discriminator, 4))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    vgg.place().parent.mkdir(parents=True)
    random = torch.Generator().manual_seed(3)
    inputs, tensors = 3, dict[str, torch.Tensor]()
    for number, outputs in zip(vgg.CONVOLUTIONS, VGG_WIDTHS, strict=True):
        weight = torch.randn(outputs, inputs, 3, 3, generator=random) / (3 * inputs**0.5)
        tensors |= {f"features.{number}.weight": weight * 1.4}
        tensors |= {f"features.{number}.bias": torch.zeros(outputs)}
        inputs = outputs
    for index, outputs in enumerate((4, 4, 6, 8, 8)):
        tensors[f"lin{index}.weight"] = torch.rand(1, outputs, 1, 1, generator=random)
    save_file(tensors, vgg.place())
    return vgg.place()
