"""Networks on rows that come from above to below: what they make of the whole picture."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from sr_cli.diffusion.path import Moment
from sr_cli.models import rows
from sr_cli.models.compact import CompactNet
from sr_cli.models.embedded import EmbeddedDenoiser
from sr_cli.models.network import EmbeddedConfig, EmbeddedNet
from sr_cli.models.preprocess import CompactPreprocessor
from sr_cli.models.rows import Flow, Room, Waiting

SHAPE: dict[str, Any] = {"widths": (8, 12, 16), "blocks": (2, 1, 2), "embed": 16}
HEIGHT, WIDTH = 208, 48


@pytest.fixture(params=["plain", "refined", "unconditional"])
def denoiser(request: pytest.FixtureRequest) -> EmbeddedDenoiser:
    more: dict[str, dict[str, Any]] = {
        "plain": {},
        "refined": {"detail": 5, "refine": 1, "cap": 0.5, "dial": True},
        "unconditional": {"conditional": False},
    }
    torch.manual_seed(0)
    net = EmbeddedNet(EmbeddedConfig(**SHAPE, **more[request.param])).eval()
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return EmbeddedDenoiser(net.requires_grad_(False))


def picture(height: int = HEIGHT) -> tuple[Tensor, Tensor]:
    """x and y."""
    random = torch.Generator().manual_seed(1)
    return tuple(torch.randn(1, 3, height, WIDTH, generator=random) for _ in range(2))  # type: ignore[return-value]


NOISE: Moment = {"alpha": 1.0, "sigma": 0.8, "a": 0.4, "m": 0.3, "t": 0}


def by_rows(denoiser: EmbeddedDenoiser, most: int, height: int = HEIGHT) -> Iterator[Tensor]:
    """x0 in the pieces in which it comes."""
    x, y = picture(height)
    flow, top = denoiser.by_rows(height, NOISE), 0
    for begin in range(0, height, most):
        for output in flow(x[..., begin : begin + most, :], y[..., begin : begin + most, :]):
            part = slice(top, top := top + output.shape[-2])
            yield flow.x0(x[..., part, :], y[..., part, :], output)


@torch.inference_mode()
@pytest.mark.parametrize("most", [16, 48, HEIGHT])
def test_rows_give_what_the_whole_picture_gives(denoiser: EmbeddedDenoiser, most: int) -> None:
    x, y = picture()
    whole = denoiser.predict_x0(x, y=y, hint=y, **NOISE)
    parts = list(by_rows(denoiser, most))
    torch.testing.assert_close(torch.cat(parts, dim=-2), whole, rtol=0, atol=2e-5)
    assert max(part.shape[-2] for part in parts) <= most


@torch.inference_mode()
def test_rows_that_are_forgotten_would_show(
    denoiser: EmbeddedDenoiser, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = torch.cat(list(by_rows(denoiser, HEIGHT)), dim=-2)
    forgetting = rows._Convolution.__call__

    def call(self: rows._Convolution, x: Tensor) -> list[Tensor]:
        found = forgetting(self, x)
        assert self._kept is not None
        self._kept.zero_()
        return found

    monkeypatch.setattr(rows._Convolution, "__call__", call)
    assert (torch.cat(list(by_rows(denoiser, 16)), dim=-2) - whole).abs().max() > 1e-2


@torch.inference_mode()
def test_what_is_kept_does_not_grow_with_the_height(
    denoiser: EmbeddedDenoiser, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Values that wait, at most, in all queues."""
    waiting: dict[int, int] = {}
    peaks: list[int] = []
    put, take = Waiting.put, Waiting.take

    def noted(self: Waiting) -> None:
        waiting[id(self)] = sum(part.numel() for part in self._parts)
        peaks[-1] = max(peaks[-1], sum(waiting.values()))

    def putting(self: Waiting, rows: Tensor) -> Tensor:
        found = put(self, rows)
        noted(self)
        return found

    def taking(self: Waiting, count: int) -> Tensor:
        found = take(self, count)
        noted(self)
        return found

    monkeypatch.setattr(Waiting, "put", putting)
    monkeypatch.setattr(Waiting, "take", taking)
    for height, most in ((HEIGHT, 16), (4 * HEIGHT, 16), (4 * HEIGHT, 4 * HEIGHT)):
        peaks.append(0)
        waiting.clear()
        for _ in by_rows(denoiser, most, height):
            pass
    low, high, whole = peaks
    assert low == high
    assert whole > 3 * high


@torch.inference_mode()
@pytest.mark.parametrize("most", [1, 7, 40])
def test_a_preprocessor_takes_any_number_of_rows(most: int) -> None:
    torch.manual_seed(0)
    network = CompactPreprocessor(CompactNet(8, 3, 4).eval(), torch.float32)
    lr = torch.rand(1, 3, 40, 24)
    larger = network.by_rows(40)
    parts = [part for top in range(0, 40, most) for part in larger(lr[..., top : top + most, :])]
    torch.testing.assert_close(torch.cat(parts, dim=-2), network(lr), rtol=0, atol=1e-6)


def test_layers_may_be_asked_again_when_more_has_come() -> None:
    flow = Flow(partial(map, torch.neg))
    assert not list(flow.rows)
    for value in (1.0, 2.0):
        flow.put(torch.full((1, 1, 1, 1), value))
        assert [float(part) for part in flow.rows] == [-value]


@torch.inference_mode()
def test_what_lay_in_the_room_before_does_not_show(
    denoiser: EmbeddedDenoiser, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, of = torch.cat(list(by_rows(denoiser, 48)), dim=-2), Room.of
    monkeypatch.setattr(Room, "of", lambda *given: of(*given).fill_(torch.nan))
    assert torch.equal(torch.cat(list(by_rows(denoiser, 48)), dim=-2), found)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_a_room_is_one_place_in_the_layout_of_the_layer(layout: torch.memory_format) -> None:
    room, layer = Room(), torch.nn.Conv2d(8, 4, 3).to(memory_format=layout)
    large = room.of((1, 8, 10, 6), layer)
    small = room.of((1, 8, 3, 6), layer)
    assert large.data_ptr() == small.data_ptr()
    assert small.is_contiguous(memory_format=layout)
    assert small.shape == (1, 8, 3, 6)
    assert room.of((1, 8, 11, 6), layer).data_ptr() != large.data_ptr()
