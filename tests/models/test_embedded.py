"""The embedded denoiser: what it sees, how it is conditioned, what it ignores."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from sr_cli.device import layout
from sr_cli.errors import ModelError, UsageError
from sr_cli.models import network, registry
from sr_cli.models.embedded import EmbeddedDenoiser
from sr_cli.models.loading import load_model
from sr_cli.models.network import EmbeddedConfig, EmbeddedNet, capped
from sr_cli.models.registry import card
from sr_cli.models.strips import by_strips

CONFIG = EmbeddedConfig(widths=(8, 12, 16), blocks=(1, 2, 1), embed=16)


@pytest.fixture(scope="module")
def net() -> EmbeddedNet:
    """Random weights, the zero-initialised ones included."""
    torch.manual_seed(0)
    net = EmbeddedNet(CONFIG).eval()
    for parameter in net.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)
    return net.requires_grad_(False)


def influence(net: EmbeddedNet, core: slice) -> Tensor:
    """Rows of the input that change the output rows `core`, by gradient."""
    z = torch.randn(1, 3, 640, 16, requires_grad=True)
    y = torch.randn(1, 3, 640, 16, requires_grad=True)
    net(z, y, torch.zeros(1))[..., core, :].square().sum().backward()
    assert z.grad is not None
    assert y.grad is not None
    return ((z.grad != 0) | (y.grad != 0)).any(dim=3).any(dim=1)[0].nonzero()[:, 0]


def test_the_stated_receptive_field_is_exact(net: EmbeddedNet) -> None:
    rows = influence(net, slice(320, 336))
    margin = CONFIG.receptive_field()
    assert int(rows.min()) == 320 - margin
    assert int(rows.max()) == 336 + margin - 1


@pytest.mark.parametrize("refine", [0, 1, 2])
def test_strips_of_the_last_layers_do_not_show(
    monkeypatch: pytest.MonkeyPatch, refine: int
) -> None:
    """And with one row of cells less around them they do."""
    torch.manual_seed(0)
    net = EmbeddedNet(replace(CONFIG, detail=4, refine=refine)).eval()
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    z, y = torch.randn(2, 1, 3, 208, 16, generator=torch.Generator().manual_seed(1))
    level = torch.zeros(1)
    whole = net(z, y, level).detach()  # with gradients
    with torch.inference_mode():
        torch.testing.assert_close(net(z, y, level), whole, atol=1e-5, rtol=0)
        monkeypatch.setattr(
            network,
            "by_strips",
            lambda *x, cell, margin: by_strips(*x, cell=cell, margin=margin - 1),
        )
        assert (net(z, y, level) - whole).abs().max() > 1e-3


def test_the_noise_level_is_embedded_once_for_a_batch(net: EmbeddedNet) -> None:
    """Embedded N times in bfloat16 it moved 20 steps' pictures by 4 levels with --batch."""
    seen: list[int] = []
    hook = net.level.register_forward_pre_hook(lambda _, args: seen.append(len(args[0])))
    x, y = torch.randn(2, 4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    together = predict(net, x, y, a=0.5, m=0.2, sigma=0.4)
    hook.remove()
    assert seen == [1]
    for one, x1, y1 in zip(together, x, y, strict=True):
        alone = predict(net, x1[None], y1[None], a=0.5, m=0.2, sigma=0.4)[0]
        torch.testing.assert_close(one, alone, atol=1e-5, rtol=0)


def test_a_dial_is_heard_and_one_that_is_set_changes_no_other() -> None:
    torch.manual_seed(0)
    net = EmbeddedNet(replace(CONFIG, dial=True)).eval()
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    x, y = torch.randn(2, 2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    values: dict[str, Any] = {"alpha": 0.7, "sigma": 0.4, "a": 0.5, "m": 0.2, "t": 0}

    def answer(denoiser: EmbeddedDenoiser) -> Tensor:
        return denoiser.predict_x0(x, y=y, hint=y, **values)

    own = EmbeddedDenoiser(net)
    before = answer(own)
    smooth = own.textured(0)
    assert smooth.net is own.net
    assert (answer(smooth) - before).abs().max() > 1e-3
    assert torch.equal(answer(own), before)
    assert torch.equal(answer(smooth.textured(1)), before)


def test_margin_grows_with_depth() -> None:
    deeper = EmbeddedConfig(widths=(8, 12, 16), blocks=(2, 2, 1), embed=16)
    assert deeper.receptive_field() > CONFIG.receptive_field()


def predict(net: EmbeddedNet, x: Tensor, y: Tensor, *, a: float, m: float, sigma: float) -> Tensor:
    denoiser = EmbeddedDenoiser(net)
    return denoiser.predict_x0(x, alpha=a + m, sigma=sigma, a=a, m=m, y=y, hint=y, t=0)


def test_the_prediction_depends_on_the_residual_state_and_the_ratio_alone(
    net: EmbeddedNet,
) -> None:
    """z = x − (a + m)y and a/σ: another m, or a and σ scaled together, change nothing."""
    x0, y, eps = torch.randn(3, 2, 3, 32, 32, generator=torch.Generator().manual_seed(3))

    def at(a: float, m: float, sigma: float) -> Tensor:
        return predict(net, a * x0 + m * y + sigma * eps, y, a=a, m=m, sigma=sigma)

    reference = at(0.5, 0.25, 0.4)
    torch.testing.assert_close(at(0.5, 0.0, 0.4), reference)
    torch.testing.assert_close(at(0.25, 0.6, 0.2), reference)
    assert (at(0.5, 0.25, 0.8) - reference).abs().max() > 1e-3


def test_without_noise_the_state_is_the_answer(net: EmbeddedNet) -> None:
    """σ → 0: c_skip → 1/a and c_out → 0, so x0 = y + z/a whatever the network says."""
    x0, y = torch.randn(2, 1, 3, 32, 32, generator=torch.Generator().manual_seed(4))
    torch.testing.assert_close(
        predict(net, 0.9 * x0 + 0.1 * y, y, a=0.9, m=0.1, sigma=1e-6), x0, atol=1e-4, rtol=0
    )


def test_without_signal_the_answer_is_finite(net: EmbeddedNet) -> None:
    x, y = torch.randn(2, 1, 3, 32, 32)
    assert predict(net, x, y, a=0.0, m=0.7, sigma=0.7).isfinite().all()


def test_optimal_preconditioning_for_gaussian_residuals() -> None:
    """With F = 0 the prediction is E[r0 | z] for r0 ~ N(0, s²): the least-squares slope."""
    ratio = torch.tensor([0.5, 3.0])
    _, _, c_skip, c_out = CONFIG.preconditioning(ratio)
    for r, skip, out in zip(ratio, c_skip.flatten(), c_out.flatten(), strict=True):
        variance = r**2 * CONFIG.s**2 + 1
        torch.testing.assert_close(skip, r * CONFIG.s**2 / variance)
        torch.testing.assert_close(out**2, CONFIG.s**2 - skip**2 * variance)


@pytest.mark.parametrize("limit", [0.5, -0.5])
def test_less_noise_than_it_was_trained_at_is_shown_as_the_least(
    net: EmbeddedNet, limit: float
) -> None:
    """The network sees (a/σ)(x0 − y) with its largest ratio; below the limit nothing changes."""
    y, residual = torch.zeros(1, 3, 16, 16), torch.full((1, 3, 16, 16), 0.1)
    largest = math.exp(limit) / CONFIG.s
    bounded = EmbeddedDenoiser(net, trained=(-math.inf, limit))
    free = EmbeddedDenoiser(net)
    clear: dict[str, Any] = {"alpha": 1.0, "a": 1.0, "m": 0.0, "y": y, "hint": y, "t": 0}
    for ratio, shown in ((10 * largest, largest), (largest / 3, largest / 3)):
        seen = bounded.predict_x0(residual, sigma=1 / ratio, **clear)
        expected = free.predict_x0(residual, sigma=1 / shown, **clear)
        torch.testing.assert_close(seen, expected)
        other = free.predict_x0(residual, sigma=1 / ratio, **clear)
        assert torch.allclose(seen, other) == (ratio == shown)


@pytest.mark.parametrize("conditional", [True, False])
def test_more_noise_than_it_was_trained_at_is_shown_as_noise_alone(conditional: bool) -> None:
    """Only to a network with a condition: without one, noise alone was no part of its training."""
    torch.manual_seed(0)
    net = EmbeddedNet(replace(CONFIG, conditional=conditional))
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    bounded, free = EmbeddedDenoiser(net, trained=(-4.0, 0.5)), EmbeddedDenoiser(net)
    y, z = torch.rand(1, 3, 16, 16), torch.randn(1, 3, 16, 16)
    noisy: dict[str, Any] = {"alpha": 1.0, "sigma": 1.0, "m": 0.0, "y": y, "hint": y, "t": 0}
    for level, shown in ((-5.0, 0.0), (-3.9, math.exp(-3.9) / CONFIG.s)):
        a = math.exp(level) / CONFIG.s
        seen = bounded.predict_x0(a * y + z, a=a, **noisy)
        as_it_is = free.predict_x0(a * y + z, a=a, **noisy)
        as_shown = free.predict_x0(shown * y + z, a=shown, **noisy)
        assert torch.allclose(seen, as_shown if conditional else as_it_is, atol=1e-5)
        assert torch.allclose(as_it_is, as_shown, atol=1e-5) == (shown == a)


def test_channels_last_is_not_for_metal() -> None:
    """Where PyTorch's convolutions have been wrong in that layout."""
    layouts = {kind: layout(torch.device(kind)) for kind in ("cpu", "cuda", "mps")}
    usual = torch.channels_last
    assert layouts == {"cpu": usual, "cuda": usual, "mps": torch.preserve_format}


@pytest.mark.parametrize(
    ("widths", "blocks"),
    [((8, 8), (1,)), ((8, 8), (1, 1, 1)), ((0, 8), (1, 1)), ((8, 8), (1, -1)), ((), ())],
)
def test_a_shape_that_makes_no_sense(widths: tuple[int, ...], blocks: tuple[int, ...]) -> None:
    with pytest.raises(UsageError, match=r"--widths .* --blocks"):
        EmbeddedConfig(widths, blocks)


@pytest.mark.usefixtures("tiny")
def test_in_a_card_it_is_no_mistake_of_the_users(monkeypatch: pytest.MonkeyPatch) -> None:
    found = card("embedded")
    wrong = replace(found, architecture={**found.architecture, "blocks": [1]})
    monkeypatch.setattr(registry, "card", lambda *_: wrong)
    with pytest.raises(ModelError, match="do not fit their card"):
        load_model("embedded", torch.device("cpu"), torch.float32)


# ---------------------------------------------------------------------------------------- the cap
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_no_cell_holds_more_than_the_cap(dtype: torch.dtype) -> None:
    """What holds less stays to the last bit, what holds more keeps its direction, to bfloat16's
    precision; and in float16 squares of what it can hold do not overflow."""
    cells = torch.randn(2, 12, 5, 4, generator=torch.Generator().manual_seed(0)).clamp(-2, 2)
    sizes = torch.tensor([0, 0.5, 3, 4e3, 3e4])[:, None].expand(5, 4)
    x = (cells * sizes).to(dtype)
    result = capped(x, 4.0)
    assert result.dtype == dtype
    assert torch.equal(result[..., :2, :], x[..., :2, :])
    large = result[..., 3:, :].float()
    torch.testing.assert_close(
        large.square().mean(dim=1).sqrt(), torch.full((2, 2, 4), 4.0), atol=0, rtol=0.02
    )
    cosine = torch.cosine_similarity(large, x[..., 3:, :].float(), dim=1)
    torch.testing.assert_close(cosine, torch.ones(2, 2, 4), atol=0, rtol=0.02)
    assert not torch.equal(capped(x, 0), result)  # the control: no cap


def test_the_cap_has_a_gradient_where_a_cell_is_blank() -> None:
    x = torch.zeros(1, 3, 2, 2)
    x[..., 0] = 9
    x.requires_grad_()
    (gradient,) = torch.autograd.grad(capped(x, 1.0).sum(), x)
    assert torch.equal(gradient[..., 1], torch.ones(1, 3, 2))
    assert bool((gradient[..., 0].abs() < 0.01).all())  # the control: equal channels, at the cap
