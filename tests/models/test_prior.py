"""Priors: the shipped kind, any pixel DDPM of diffusers, and what is refused how."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel
from torch import Tensor

from sr_cli.diffusion.schedules import alpha_bar
from sr_cli.errors import ModelError
from sr_cli.models.loading import load_prior
from sr_cli.models.model import Model
from sr_cli.models.prior import UNet2DDenoiser

CPU = torch.device("cpu")


def unet(**changes: Any) -> Any:
    torch.manual_seed(3)
    shape: dict[str, Any] = {
        "sample_size": 16,
        "block_out_channels": (8, 16),
        "layers_per_block": 1,
        "norm_num_groups": 4,
        "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
        "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
        "attention_head_dim": 4,
    }
    return UNet2DModel(**shape | changes)  # type: ignore[no-untyped-call]


def save(folder: Path, net: Any = None, **scheduler: Any) -> Path:
    """A DDPMPipeline, small and random."""
    pipeline: Any = DDPMPipeline(net or unet(), DDPMScheduler(**scheduler))  # type: ignore[no-untyped-call]
    pipeline.save_pretrained(folder)
    return folder


def load(prior: object) -> Model:
    return load_prior(str(prior), CPU, torch.float32)


def predict(denoiser: Any, x: Tensor, bar: float, t: int, **values: Any) -> Tensor:
    a, sigma = values.pop("a", bar**0.5), values.pop("sigma", (1 - bar) ** 0.5)
    settings = {"alpha": a, "sigma": sigma, "a": a, "m": 0.0, "y": x, "hint": x, "t": t} | values
    result: Tensor = denoiser.predict_x0(x, **settings)
    return result


def test_the_shipped_kind_ignores_y(tiny: Path) -> None:
    del tiny
    model = load("prior")
    assert (model.tiling, model.preprocess, model.schedule) == ("exact", "none", "scaled_linear")
    x, y = torch.randn(2, 1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    bar = float(model.alpha_bar[200])
    one = predict(model.denoiser, x, bar, 200)
    torch.testing.assert_close(predict(model.denoiser, x, bar, 200, y=y, hint=y), one)
    assert (predict(model.denoiser, y, bar, 200) - one).abs().max() > 1e-2


@pytest.mark.parametrize("prediction", ["epsilon", "sample", "v_prediction"])
def test_a_pipeline_of_diffusers_predicts_what_its_scheduler_says(
    tmp_path: Path, prediction: str
) -> None:
    """One full DDPM step by diffusers' own scheduler, whose x0 is the reference."""
    folder = save(tmp_path / "p", prediction_type=prediction, beta_schedule="squaredcos_cap_v2")
    model = load(folder)
    pipeline: Any = DDPMPipeline.from_pretrained(folder)  # type: ignore[no-untyped-call]
    np.testing.assert_allclose(model.alpha_bar, alpha_bar("squared_cosine"), rtol=1e-3)
    x = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    for t in (0, 300, 800):
        with torch.no_grad():
            output = pipeline.unet(x, t).sample
        want = pipeline.scheduler.step(output, t, x).pred_original_sample
        got = predict(model.denoiser, x, float(model.alpha_bar[t]), t)
        torch.testing.assert_close(got, want, atol=2e-4, rtol=1e-3)
        assert got.abs().max() <= 1  # it clips, as its scheduler says
    other = load(save(tmp_path / "q", prediction_type=prediction, clip_sample=False))
    bar = float(other.alpha_bar[900])
    assert predict(other.denoiser, 4 * x, bar, 900).abs().max() > 1


def test_the_network_is_asked_for_the_time_of_the_same_noise() -> None:
    """Its training schedule was linear; on any other path its time follows from a/σ."""
    seen: list[float] = []

    class Spy(torch.nn.Module):
        def forward(self, x: Tensor, t: Tensor) -> Any:
            seen.append(float(t))
            return type("Output", (), {"sample": torch.zeros_like(x)})

    bar = alpha_bar("linear")
    denoiser = UNet2DDenoiser(Spy(), bar, "epsilon", None, torch.float32)
    x = torch.ones(1, 3, 4, 4)
    predict(denoiser, x, float(bar[321]), 321)
    predict(denoiser, x, float(alpha_bar()[321]), 321)
    predict(denoiser, x, 0.0, 5, a=0.5 * bar[77] ** 0.5, sigma=0.5 * (1 - bar[77]) ** 0.5)
    assert seen[0] == pytest.approx(321, abs=1e-3)
    assert seen[2] == pytest.approx(77, abs=1e-3)
    found = np.interp(seen[1], np.arange(1000), bar)
    assert found == pytest.approx(alpha_bar()[321], rel=1e-4)
    assert abs(seen[1] - 321) > 1


def test_no_other_state_than_its_own_matters(tmp_path: Path) -> None:
    """x0 from a·x0 + m·y + σ·ε: with the domain shift taken out, nothing is left of y."""
    denoiser = load(save(tmp_path / "p")).denoiser
    x, y = torch.randn(2, 1, 3, 16, 16, generator=torch.Generator().manual_seed(2))
    plain = predict(denoiser, x, 0.5, 100)
    torch.testing.assert_close(predict(denoiser, x + 0.3 * y, 0.5, 100, m=0.3, y=y), plain)
    assert (predict(denoiser, x + 0.3 * y, 0.5, 100) - plain).abs().max() > 1e-4


def test_limits_of_a_pipeline(tmp_path: Path) -> None:
    model = load(save(tmp_path / "p", unet(sample_size=30)))
    assert (model.tiling, model.tile, model.multiple_of, model.preprocess) == (
        "blend",
        30,
        2,
        "none",
    )
    assert model.last_step == "x0"


def test_old_pipelines_keep_all_at_the_top(tmp_path: Path) -> None:
    folder = save(tmp_path / "p")
    old = tmp_path / "old"
    unet().save_pretrained(old)
    scheduler: Any = DDPMScheduler()  # type: ignore[no-untyped-call]
    scheduler.save_pretrained(old)
    x = torch.ones(1, 3, 16, 16)
    torch.testing.assert_close(
        predict(load(old).denoiser, x, 0.5, 9), predict(load(folder).denoiser, x, 0.5, 9)
    )


def test_identity_follows_the_weights(tmp_path: Path) -> None:
    one, same = load(save(tmp_path / "a")), load(save(tmp_path / "b"))
    net = unet()
    torch.nn.init.ones_(net.conv_out.bias)
    assert one.identity == same.identity
    assert load(save(tmp_path / "c", net)).identity != one.identity
    assert load(save(tmp_path / "d", beta_schedule="sigmoid")).identity != one.identity


@pytest.mark.usefixtures("tiny")
def test_a_missing_or_wrong_prior_is_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    with pytest.raises(ModelError, match="kind 'compact', not an unconditional prior"):
        load("compact")
    with pytest.raises(ModelError, match=r"no prior 'nonsense!/x/y'"):
        load("nonsense!/x/y")
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(ModelError, match="there is no unet"):
        load(empty)
    with pytest.raises(ModelError, match="4 channels"):
        load(save(tmp_path / "latent", unet(in_channels=4, out_channels=4)))
    with pytest.raises(ModelError, match="by class"):
        load(save(tmp_path / "classes", unet(num_class_embeds=10)))


def test_a_damaged_pipeline_is_a_sentence(tmp_path: Path) -> None:
    folder = save(tmp_path / "p")
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-100])
    with pytest.raises(ModelError, match="cannot be read"):
        load(folder)
    weights.write_bytes(whole)
    load(folder)
    config = folder / "unet" / "config.json"
    text = config.read_text()
    config.write_text(text.replace("UNet2DModel", "UNet2DConditionModel"))
    with pytest.raises(ModelError, match="UNet2DConditionModel"):
        load(folder)
    config.write_text(text[:50])
    with pytest.raises(ModelError, match="cannot be read"):
        load(folder)


@pytest.mark.parametrize(
    "change", [{"prediction_type": "flow"}, {"_class_name": "ScoreSdeVeScheduler"}]
)
def test_a_scheduler_of_another_kind_is_refused(tmp_path: Path, change: dict[str, str]) -> None:
    folder = save(tmp_path / "p")
    path = folder / "scheduler" / "scheduler_config.json"
    content = json.loads(path.read_text()) | change
    if "_class_name" in change:
        del content["beta_schedule"]
    path.write_text(json.dumps(content))
    with pytest.raises(ModelError):
        load(folder)


@pytest.mark.usefixtures("tiny")
def test_an_id_that_cannot_be_fetched_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    def fetch(repository: str, **values: Any) -> str:
        raise OSError(f"no network for {repository}\nmore")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    with pytest.raises(ModelError, match=r"no network for a/b\); without a network, copy"):
        load("a/b")
