"""Convolutions by NNPACK: the plain ones to rounding, whatever the size, in rows as in whole."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from sr_cli.diffusion.path import Moment
from sr_cli.models import winograd
from sr_cli.models.compact import CompactNet
from sr_cli.models.embedded import EmbeddedDenoiser
from sr_cli.models.network import EmbeddedConfig, EmbeddedNet
from sr_cli.models.preprocess import CompactPreprocessor
from sr_cli.models.winograd import Convolution, lay_out

CPU = torch.device("cpu")
BOUND = 1e-4
"""Of results' standard deviation; torch's own are within 1e-5."""
NOISE: Moment = {"alpha": 1.0, "sigma": 0.8, "a": 0.4, "m": 0.3, "t": 0}


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[torch.Size]:
    """Shapes of what NNPACK was shown, on any processor that it works on."""
    if not torch.backends.nnpack.is_available():  # type: ignore[no-untyped-call]
        pytest.skip("torch has no NNPACK here")
    shown: list[torch.Size] = []
    plain = winograd.nnpack

    def noted(x: Tensor, *rest: object) -> Tensor:
        shown.append(x.shape)
        return plain(x, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(winograd, "nnpack", noted)
    monkeypatch.setattr(winograd, "available", lambda: True)
    return shown


def layer(inputs: int = 32, outputs: int = 40) -> Convolution:
    torch.manual_seed(0)
    return Convolution(inputs, outputs).requires_grad_(False)


def error(layer: Convolution, x: Tensor, above: int = 1) -> float:
    """The largest, of the exact results' standard deviation."""
    assert layer.bias is not None
    exact = F.conv2d(x.double(), layer.weight.double(), layer.bias.double(), padding=(above, 1))
    return float((layer.over(x, above) - exact).abs().max() / exact.std())


@torch.inference_mode()
@pytest.mark.parametrize("size", [(4, 1), (5, 7), (6, 6), (13, 70), (40, 9)])
@pytest.mark.parametrize("above", [0, 1])
@pytest.mark.parametrize("values", [1, 1 << 12, 1 << 21])
def test_results_are_those_of_the_plain_convolution(
    calls: list[torch.Size],
    monkeypatch: pytest.MonkeyPatch,
    size: tuple[int, int],
    above: int,
    values: int,
) -> None:
    monkeypatch.setattr(winograd, "VALUES", values)
    rows, columns = size
    x = torch.randn(2, 32, rows + 2 - 2 * above, columns)
    assert error(layer(), x, above) < BOUND
    assert len(calls) >= 2
    assert values > 1 or max(shape[-2] for shape in calls) <= winograd.BLOCK + 2


@torch.inference_mode()
def test_a_wrong_edge_or_bias_would_show(
    calls: list[torch.Size], monkeypatch: pytest.MonkeyPatch
) -> None:
    x, right = torch.randn(1, 32, 20, 20), winograd.nnpack
    monkeypatch.setattr(winograd, "VALUES", 1)
    for wrong in (
        lambda x, weight, bias, padding: right(x, weight, bias * 1.01, padding),
        lambda x, weight, bias, padding: right(x.roll(1, 2), weight, bias, padding),
        lambda x, weight, bias, padding: right(x.bfloat16().float(), weight, bias, padding),
    ):
        monkeypatch.setattr(winograd, "nnpack", wrong)
        assert error(layer(), x) > BOUND
    assert calls


@torch.inference_mode()
@pytest.mark.parametrize("last", [False, True])
def test_results_have_the_layout_of_the_weights(calls: list[torch.Size], last: bool) -> None:
    form = torch.channels_last if last else torch.contiguous_format
    found = layer().to(memory_format=form)(torch.randn(1, 32, 8, 8))
    assert found.is_contiguous(memory_format=form)
    assert calls


@pytest.mark.parametrize(
    "why", ["gradients", "autocast", "compiled", "traced", "bfloat16", "channels", "rows"]
)
def test_elsewhere_it_is_torchs_own(
    calls: list[torch.Size], monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    conv, x = layer(31 if why == "channels" else 32), torch.randn(1, 32, 8, 8)
    match why:
        case "compiled":
            monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
        case "traced":
            monkeypatch.setattr(torch.jit, "is_tracing", lambda: True)
        case "bfloat16":
            conv, x = conv.bfloat16(), x.bfloat16()
        case "channels":
            x = x[:, 1:]
        case "rows":
            x = x[..., : winograd.ROWS - 1, :]
    with (
        torch.set_grad_enabled(why == "gradients"),
        torch.autocast("cpu", enabled=why == "autocast"),
    ):
        assert torch.equal(conv(x), F.conv2d(x, conv.weight, conv.bias, padding=1))
    assert not calls


def test_it_serves_float32_on_processors_with_avx2_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.nnpack, "is_available", lambda: True)
    for capability, served in (("AVX2", True), ("AVX512", False), ("DEFAULT", False)):
        winograd.available.cache_clear()
        monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda c=capability: c)
        assert winograd.serves(CPU, torch.float32) == served
        assert not winograd.serves(CPU, torch.bfloat16)
        assert not winograd.serves(torch.device("cuda"), torch.float32)
    winograd.available.cache_clear()


def network() -> EmbeddedDenoiser:
    torch.manual_seed(0)
    shape = {"widths": (32, 48), "blocks": (1, 2), "embed": 16}
    net = EmbeddedNet(EmbeddedConfig(**shape, detail=5, refine=1, cap=0.5)).eval()  # type: ignore[arg-type]
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    for part in net.requires_grad_(False).inner:
        lay_out(part, CPU, torch.float32)
    return EmbeddedDenoiser(net)


@torch.inference_mode()
def test_a_network_gives_what_it_gave_whole_and_by_rows(
    calls: list[torch.Size], monkeypatch: pytest.MonkeyPatch
) -> None:
    denoiser, height = network(), 208
    random = torch.Generator().manual_seed(1)
    x, y = (torch.randn(1, 3, height, 56, generator=random) for _ in range(2))
    whole = denoiser.predict_x0(x, y=y, hint=y, **NOISE)
    assert calls
    calls.clear()
    flow, parts = denoiser.by_rows(height, NOISE), []
    for begin in range(0, height, 48):
        rows = slice(begin, begin + 48)
        parts += list(flow(x[..., rows, :], y[..., rows, :]))
    by_rows = flow.x0(x, y, torch.cat(parts, dim=-2))
    assert calls
    monkeypatch.setattr(winograd, "available", lambda: False)
    plain = denoiser.predict_x0(x, y=y, hint=y, **NOISE)
    assert plain.std() > 0.1
    for found in (whole, by_rows):
        torch.testing.assert_close(found, plain, rtol=0, atol=2e-5)
    assert not torch.equal(whole, plain)


@torch.inference_mode()
def test_a_preprocessor_gives_what_it_gave(
    calls: list[torch.Size], monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    compact = CompactPreprocessor(CompactNet(32, 3, 4).eval().requires_grad_(False), torch.float32)
    lr = torch.rand(2, 3, 21, 17)
    quick = compact(lr)
    assert calls
    monkeypatch.setattr(winograd, "available", lambda: False)
    torch.testing.assert_close(quick, compact(lr), rtol=0, atol=2e-6)


def test_layouts_follow_what_computes(calls: list[torch.Size]) -> None:
    for dtype, first in ((torch.float32, True), (torch.bfloat16, False)):
        conv = layer()
        lay_out(conv, CPU, dtype)
        assert conv.weight.is_contiguous() == first
    assert not calls
