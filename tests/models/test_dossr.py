"""The converted network computes what the released code computed, array by array."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from reference import solve
from released import CPU, codec, converted, denoiser, difference, golden, net
from safetensors.torch import save_file
from torch import Tensor
from torch._dynamo.testing import CompileCounter

from sr_cli.diffusion.path import Path as DiffusionPath
from sr_cli.diffusion.path import time_grid
from sr_cli.diffusion.schedules import alpha_bar
from sr_cli.diffusion.solvers import Step, plan, start
from sr_cli.engine.color import wavelet_color_fix
from sr_cli.errors import ModelError
from sr_cli.models.checkpoints import read_state_dict
from sr_cli.models.dossr.convert import LIMITS
from sr_cli.models.dossr.model import CONTEXT, LATENT_SCALE, DossrCodec, DossrDenoiser, load
from sr_cli.models.loading import load_model
from sr_cli.models.registry import Card, write_card

CLOSE = 1e-5
PATH = DiffusionPath.domain_shift(alpha_bar(), 500)
TIMES = [0, 499, 999]


def predict(model: DossrDenoiser, x: Tensor, y: Tensor, hint: Tensor, t: int) -> Tensor:
    alpha, sigma, a, m = (float(v[t]) for v in (PATH.alpha, PATH.sigma, PATH.a, PATH.m))
    return model.predict_x0(x, alpha=alpha, sigma=sigma, a=a, m=m, y=y, hint=hint, t=t)


def controls(t: int) -> list[Tensor]:
    model, g = denoiser(), golden()
    down, mid = model.control(
        torch.cat((g["z"], g["cond_latent"]), dim=1),
        torch.tensor([t]),
        g["ctx"],
        controlnet_cond=torch.zeros(()),
        return_dict=False,
    )
    return [*down, mid]


@pytest.mark.parametrize("t", TIMES)
def test_control(t: int) -> None:
    for i, control in enumerate(controls(t)):
        assert difference(control, golden()[f"t{t}_control{i}"]) < CLOSE


@pytest.mark.parametrize("t", TIMES)
def test_network(t: int) -> None:
    g = golden()
    eps = denoiser().eps(g["z"], g["cond_latent"], torch.tensor([t]))
    assert difference(eps, g[f"t{t}_eps"]) < CLOSE
    alone = denoiser().unet(g["z"], torch.tensor([t]), g["ctx"]).sample
    assert difference(alone, g[f"t{t}_eps_nocontrol"]) < CLOSE


def test_autoencoder() -> None:
    g = golden()
    posterior = codec().vae.encode(2 * g["pre"] - 1).latent_dist
    assert difference(posterior.mean, g["vae_mean"]) < CLOSE
    assert difference(posterior.logvar, g["vae_logvar"]) < CLOSE
    assert difference(2 * codec().decode(LATENT_SCALE * g["z"]) - 1, g["decode"]) < CLOSE


def test_source_and_hint() -> None:
    g = golden()
    noise = g["run_s1_noise"][0]
    y, hint = codec().encode(g["pre"], noise)
    sample = g["vae_mean"] + (g["vae_logvar"] / 2).exp() * noise
    assert difference(y, LATENT_SCALE * sample) < CLOSE
    assert difference(hint, g["cond_latent"]) < CLOSE


def test_preprocessor() -> None:
    assert difference(net("rrdbnet")(golden()["lr"]), golden()["pre_raw"]) < CLOSE


@pytest.mark.parametrize("t", [0, 250, 499, 999])
def test_training(t: int) -> None:
    g = golden()
    x0, y = g["z"], g["cond_latent"]
    x = PATH.a[t] * x0 + PATH.m[t] * y + PATH.sigma[t] * g[f"train_t{t}_noise"]
    prediction = predict(denoiser(), x, y, y, t)
    assert difference(prediction, g[f"train_t{t}_predx0"]) < CLOSE
    loss = (prediction - x0).abs().mean()
    assert float(loss) == pytest.approx(float(g[f"train_t{t}_loss"]), rel=CLOSE)


def run(
    steps: int, order: int, model: DossrDenoiser, coder: DossrCodec, *, mean: bool = False
) -> tuple[list[Tensor], Tensor]:
    """The states that the network sees from `pre`, and the image; mean: y without its noise."""
    g = golden()
    sample, first, *rest = g[f"run_s{steps}_noise"]
    y, hint = coder.encode(g["pre"], torch.zeros_like(sample) if mean else sample)
    seen = []

    def denoise(x: Tensor, step: Step) -> Tensor:
        seen.append(x)
        return predict(model, x, y, hint, step.s)

    table = plan(PATH, time_grid(500, steps), order=order)
    alpha, sigma = start(PATH, table[0].s)
    x = solve(table, denoise, y, alpha * y + sigma * first, lambda i: rest[i - 1])
    return seen, coder.decode(x)


RUNS = [(1, 1), (1, 2), (1, 3), (5, 1)]


@pytest.mark.parametrize(("steps", "order"), RUNS)
def test_whole_run(steps: int, order: int) -> None:
    g, name = golden(), f"run_s{steps}_o{order}"
    states, image = run(steps, order, denoiser(), codec())
    for state, want in zip(states, g[f"{name}_traj"], strict=True):
        assert difference(state, want) < CLOSE
    assert difference(image, g[f"{name}_img"]) < CLOSE
    fixed = wavelet_color_fix(image, g["pre"])
    assert difference(fixed, g[f"{name}_img_wavelet"]) < CLOSE


class Blind(DossrDenoiser):
    """The hint is not what is put beside the state."""

    def eps(self, x: Tensor, hint: Tensor, t: Tensor) -> Tensor:
        return super().eps(x, x, t)


class Shifted(DossrDenoiser):
    """The paper's Eq. 29 takes the source out of the state; the released weights were not so."""

    def predict_x0(self, x: Tensor, **given: Any) -> Tensor:
        shifted = given | {"alpha": given["a"]}
        return super().predict_x0(x - given["m"] * given["y"], **shifted)


def swapped() -> DossrDenoiser:
    """Two tensors of one shape have changed places, which no list of names can show."""
    unet = net("unet")
    layer = unet.mid_block.attentions[0].transformer_blocks[0].attn1
    layer.to_q, layer.to_k = layer.to_k, layer.to_v
    return DossrDenoiser(unet, net("control"), golden()["ctx"])


@pytest.mark.parametrize("mistake", ["blind", "shifted", "swapped", "mean", "one encoder"])
def test_mistakes_are_caught(mistake: str) -> None:
    """Negative controls: each moves the run's image by far more than CLOSE."""
    model, coder = denoiser(), codec()
    if mistake in {"blind", "shifted"}:
        kind = Blind if mistake == "blind" else Shifted
        model = kind(model.unet, model.control, model.context)
    elif mistake == "swapped":
        model = swapped()
    elif mistake == "one encoder":
        coder = DossrCodec(coder.vae, coder.vae)
    _, image = run(1, 1, model, coder, mean=mistake == "mean")
    assert not difference(image, golden()["run_s1_o1_img"]) < 100 * CLOSE


def test_pictures_of_a_batch_do_not_see_each_other() -> None:
    x, hint = torch.randn(2, 2, 4, 8, 8, generator=torch.Generator().manual_seed(2))
    both = predict(denoiser(), x, hint, hint, 300)
    alone = predict(denoiser(), x[1:], hint[1:], hint[1:], 300)
    torch.testing.assert_close(both[1:], alone, atol=1e-5, rtol=1e-5)


@pytest.fixture(scope="module")
def card(tmp_path_factory: pytest.TempPathFactory) -> Card:
    """The small model as it lies on a disk."""
    folder = tmp_path_factory.mktemp("dossr")
    tensors = {f"{part}.{k}": v for part, own in converted().parts.items() for k, v in own.items()}
    tensors[CONTEXT] = golden()["ctx"]
    save_file({k: v.contiguous() for k, v in tensors.items()}, folder / "small.safetensors")
    architecture = converted().architecture
    kept = Card("small", "dossr", "small.safetensors", architecture, "", {}, LIMITS, {})
    return write_card(replace(kept, folder=folder))


def test_a_card_brings_all_that_the_engine_needs(
    card: Card, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SRX_WEIGHTS", str(card.folder))
    model = load_model("small", CPU, torch.float32)
    assert (model.cell, model.channels, model.multiple_of) == (8, 4, 2)
    assert (model.schedule, model.last_step, model.t1) == ("scaled_linear", "step", 500)
    assert model.tiling == "blend"
    assert model.tile is not None
    assert model.tile % (model.cell * model.multiple_of) == 0
    g = golden()
    _, hint = model.codec.encode(g["pre"], torch.zeros_like(g["z"]))
    assert difference(hint, g["cond_latent"]) < CLOSE
    x0 = model.denoiser.predict_x0(g["z"], alpha=1, sigma=-1, a=0, m=1, y=hint, hint=hint, t=499)
    assert difference(x0 - g["z"], g["t499_eps"]) < CLOSE
    assert not isinstance(model.preprocess, str)
    assert model.preprocess.scale == 4
    torch.testing.assert_close(model.preprocess(g["lr"]), g["pre_raw"].clamp(0, 1))


@pytest.mark.parametrize("separate", [True, False])
def test_compiling_reaches_all_that_computes(card: Card, separate: bool) -> None:
    """By a backend that only counts graphs. A module's own methods are never compiled."""
    model, g = load(card, CPU, torch.float32), golden()
    vae = model.codec.vae  # type: ignore[attr-defined]
    networks = model.networks if separate else (vae,)
    counters = [CompileCounter() for _ in networks]
    for network, counter in zip(networks, counters, strict=True):
        network.compile(backend=counter)
    _, hint = model.codec.encode(g["pre"], torch.zeros_like(g["z"]))
    x0 = model.denoiser.predict_x0(g["z"], alpha=1, sigma=-1, a=0, m=1, y=hint, hint=hint, t=499)
    image = model.codec.decode(LATENT_SCALE * g["z"])
    assert [counter.frame_count > 0 for counter in counters] == [separate] * len(networks)
    assert difference(hint, g["cond_latent"]) < CLOSE
    assert difference(x0 - g["z"], g["t499_eps"]) < CLOSE
    assert difference(2 * image - 1, g["decode"]) < CLOSE
    assert len(model.networks) == 5  # UNet, ControlNet, two encoders, decoder


def test_low_precision_is_for_the_diffusion_alone(card: Card) -> None:
    """float32 states go in and come out; what makes pixels stays in float32 on a CPU."""
    model, g = load(card, CPU, torch.bfloat16), golden()
    eps = model.denoiser.predict_x0(
        g["z"], alpha=1, sigma=-1, a=0, m=1, y=g["z"], hint=g["cond_latent"], t=499
    )
    error = difference(eps - g["z"], g["t499_eps"])
    assert eps.dtype == torch.float32
    assert CLOSE < error < 0.05  # bfloat16 keeps 8 bits: 0.004 a rounding
    assert difference(2 * model.codec.decode(LATENT_SCALE * g["z"]) - 1, g["decode"]) < CLOSE


def test_one_encoder_is_enough_where_both_are_equal(card: Card) -> None:
    same = {
        name: tensor
        for name, tensor in read_state_dict(card.path).items()
        if not name.startswith("condition.")
    }
    save_file(same, card.folder / "one.safetensors")
    one = write_card(replace(card, name="one", file="one.safetensors"))
    codec = load(one, CPU, torch.float32).codec
    noise = torch.zeros_like(golden()["z"])
    y, hint = codec.encode(golden()["pre"], noise)
    assert torch.equal(y, hint)


@pytest.mark.parametrize("lost", [CONTEXT, "unet.", "vae.", "control.conv_in.weight"])
def test_weights_that_do_not_fit_their_card(
    card: Card, lost: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tensors = read_state_dict(card.path)
    kept = {name: tensor for name, tensor in tensors.items() if not name.startswith(lost)}
    assert len(kept) < len(tensors)
    save_file(kept, tmp_path / card.file)
    write_card(replace(card, folder=tmp_path))
    monkeypatch.setenv("SRX_WEIGHTS", str(tmp_path))
    with pytest.raises(ModelError, match=r"small\.safetensors do not fit their card"):
        load_model("small", CPU, torch.float32)


def test_the_control_net_names_the_blocks_that_the_unet_repeats() -> None:
    names = [set(net(part)._repeated_blocks) for part in ("unet", "control")]
    assert names[0] == names[1]
    kinds = {type(module).__name__ for module in net("control").modules()}
    assert names[0] & kinds
