"""A widened network answers as the one that it comes from."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import TINY, write
from torch import Tensor

from sr_cli.errors import ModelError
from sr_cli.models.limits import Limits
from sr_cli.models.network import EmbeddedNet
from sr_cli.models.registry import card, load_weights
from sr_cli.training.widening import config_of, widened

pytestmark = pytest.mark.usefixtures("tiny")
LARGER = replace(TINY, widths=(10, 12, 20), blocks=(3, 1, 2), cap=1e6, detail=5, dial=True)


def answer(net: EmbeddedNet, texture: float = 1.0) -> Tensor:
    random = torch.Generator().manual_seed(0)
    z, y = (torch.randn(2, 3, 32, 48, generator=random) for _ in range(2))
    ratio = torch.tensor([-1.0, float("-inf")])
    with torch.no_grad():
        result: Tensor = net(z, y, ratio, torch.full((2,), texture))
    return result


def original() -> EmbeddedNet:
    net = EmbeddedNet(TINY)
    net.load_state_dict({k: v.float() for k, v in load_weights(card("embedded")).items()})
    return net


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"widths": (16, 12, 16)},
        {"widths": (8, 16, 16)},
        {"widths": (8, 12, 24)},
        {"blocks": (2, 3, 2)},
        {"detail": 13},
        {"detail": 13, "refine": 2},
        {"dial": True},
        {"cap": 1e6},
        {"widths": (10, 12, 20), "blocks": (3, 1, 2), "cap": 1e6, "detail": 5, "dial": True},
    ],
)
def test_widening_changes_no_answer(change: dict[str, Any]) -> None:
    """A network of the larger shape that is not made so answers otherwise."""
    torch.manual_seed(1)
    config = replace(TINY, **change)
    net = widened("embedded", config)
    torch.testing.assert_close(answer(net), answer(original()), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(answer(net, 0.3), answer(original()), atol=1e-5, rtol=1e-5)
    assert not torch.allclose(answer(EmbeddedNet(config)), answer(original()), atol=1e-2)


def test_what_is_new_can_learn() -> None:
    """All of it, in three steps: what writes zeros, what that hides, and what is hidden then."""
    torch.manual_seed(1)
    net = widened("embedded", LARGER)
    before = {name: value.clone() for name, value in net.named_parameters()}
    optimiser = torch.optim.SGD(net.parameters(), 0.1)
    for _ in range(3):
        optimiser.zero_grad()
        z = torch.randn(2, 3, 32, 32)
        net(z, z, torch.zeros(2), torch.tensor([0.0, 1.0])).square().mean().backward()
        optimiser.step()
    old = original().state_dict()
    for name, value in net.named_parameters():
        moved = value != before[name]
        if name in old and old[name].shape == value.shape:
            continue
        if name in old:
            moved[tuple(slice(size) for size in old[name].shape)] = False
        assert moved.any(), name


def test_a_widened_network_can_be_widened_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(1)
    net = widened("embedded", LARGER)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    write(tmp_path, "embedded", net, asdict(LARGER), Limits(margin=0))
    monkeypatch.setenv("SRX_WEIGHTS", str(tmp_path))
    assert config_of("embedded") == LARGER
    more = widened("embedded", replace(LARGER, widths=(12, 14, 24), blocks=(3, 2, 2), detail=9))
    torch.testing.assert_close(answer(more), answer(net), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(answer(more, 0.5), answer(net, 0.5), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    "change",
    [
        {"widths": (8, 8, 16)},
        {"widths": (8, 12), "blocks": (1, 1)},
        {"embed": 32},
        {"s": 0.2},
        {"conditional": False},
    ],
)
def test_what_is_smaller_or_different_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ModelError, match="cannot be widened"):
        widened("embedded", replace(TINY, **change))
