"""The released layout: every name is accounted for, and faults are named."""

import json
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.loaders import single_file_utils
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from released import CPU, converted, full_shapes, golden, tiny_state
from safetensors.torch import save_file
from torch import Tensor

from sr_cli.errors import ModelError
from sr_cli.models.dossr.convert import (
    OLD_ATTENTION,
    SCHEDULE,
    TEXT,
    Converted,
    convert,
    from_diffusers,
)
from sr_cli.models.dossr.model import DossrDenoiser
from sr_cli.models.dossr.names import PREFIXES
from sr_cli.models.dossr.networks import network, skeleton

State = dict[str, Tensor]


@cache
def full() -> Converted:
    """The full model, of tensors that hold one number each, its own, in no memory."""
    numbered = enumerate(full_shapes().items())
    return convert({name: torch.tensor(float(i)).expand(shape) for i, (name, shape) in numbered})


def test_the_full_model() -> None:
    """All 2083 keys map one to one onto parameters of equal shapes, of the published numbers."""
    found, millions = [], {}
    for part, tensors in full().parts.items():
        parameters = skeleton(part, full().architecture).state_dict()
        assert {k: v.shape for k, v in parameters.items()} == {
            k: v.shape for k, v in tensors.items()
        }
        found += [int(tensor.flatten()[0]) for tensor in tensors.values()]
        millions[part] = round(sum(tensor.numel() for tensor in tensors.values()) / 1e6, 1)
    assert len(full_shapes()) == 2083
    assert len(set(found)) == len(found) == 2083 - len(SCHEDULE)
    assert millions == {
        "unet": 865.9,
        "control": 363.2,
        "vae": 83.7,
        "condition": 34.2,
        "rrdbnet": 16.7,
    }


def test_the_full_models_architecture_is_stable_diffusion_2() -> None:
    """The values of SD 2.1-base's config.json; attention_head_dim is diffusers' name for heads."""
    architecture = full().architecture
    assert json.loads(json.dumps(architecture)) == architecture
    unet = architecture["unet"]
    assert unet["block_out_channels"] == [320, 640, 1280, 1280]
    assert unet["attention_head_dim"] == [5, 10, 20, 20]
    assert unet["down_block_types"] == [*3 * ["CrossAttnDownBlock2D"], "DownBlock2D"]
    assert (unet["cross_attention_dim"], unet["layers_per_block"]) == (1024, 2)
    assert unet["use_linear_projection"]
    assert architecture["vae"]["block_out_channels"] == [128, 256, 512, 512]
    assert architecture["rrdbnet"] == {"num_feat": 64, "num_block": 23, "num_grow_ch": 32}


def same(left: State, right: State) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[k], right[k]) for k in left)


def test_diffusers_own_converters_agree() -> None:
    """They know the three networks that are Stable Diffusion's, and drop what they do not know."""
    library: Any = single_file_utils
    state, parts = tiny_state(), converted().parts
    unet, vae = (converted().architecture[part] for part in ("unet", "vae"))
    assert same(library.convert_ldm_unet_checkpoint(state, unet), dict(parts["unet"]))
    assert same(library.convert_controlnet_checkpoint(state, unet), dict(parts["control"]))
    assert same(library.convert_ldm_vae_checkpoint(state, vae), dict(parts["vae"]))


def test_nothing_is_copied() -> None:
    storages = {tensor.untyped_storage().data_ptr() for tensor in tiny_state().values()}
    for part in converted().parts.values():
        assert storages >= {tensor.untyped_storage().data_ptr() for tensor in part.values()}


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: {"state_dict": state, "epoch": 3},
        lambda state: {f"module.{name}": tensor for name, tensor in state.items()},
        lambda state: {"state_dict": {f"module.{name}": t for name, t in state.items()}},
        lambda state: {k: v for k, v in state.items() if k not in SCHEDULE},
        lambda state: state | {f"{TEXT}model.ln_final.weight": torch.zeros(3)},
    ],
    ids=["state_dict", "module", "both", "no schedule", "a text tower"],
)
def test_wrappers(wrap: Callable[[State], State]) -> None:
    model = convert(wrap(tiny_state()))
    assert model.architecture == converted().architecture
    for part, tensors in converted().parts.items():
        assert same(dict(model.parts[part]), dict(tensors))


def test_equal_encoders_are_kept_once() -> None:
    state = tiny_state()
    hint = {name for name in state if name.startswith(PREFIXES["condition"])}
    vae = {name: PREFIXES["vae"] + name.removeprefix(PREFIXES["condition"]) for name in hint}
    equal = state | {name: state[vae[name]] for name in hint}
    assert "condition" in convert(state).parts
    assert "condition" not in convert(equal).parts


FAULTS = {
    "missing": lambda state, name: state.pop(name),
    "shorter": lambda state, name: state.update({name: state[name][:-1]}),
    "flat": lambda state, name: state.update({name: state[name].flatten()[None]}),
}


@pytest.mark.parametrize("fault", FAULTS)
@given(data=st.data())
@settings(max_examples=6, suppress_health_check=list(HealthCheck))
def test_a_fault_is_named_and_nothing_else(fault: str, data: st.DataObject) -> None:
    """Also where the tensor is one of those that the architecture is derived from."""
    state = tiny_state().copy()
    needed = [name for name in state if not name.startswith(TEXT) and name not in SCHEDULE]
    name = data.draw(st.sampled_from(needed))
    FAULTS[fault](state, name)
    with pytest.raises(ModelError) as caught:
        convert(state, "broken.ckpt")
    message = str(caught.value)
    assert message.startswith("broken.ckpt does not fit")
    assert set(re.findall(r"[\w.]+\w", message)) & set(needed) == {name}


@pytest.mark.parametrize(
    "extra",
    [
        "control_model.input_hint_block.0.weight",
        "model.diffusion_model.input_blocks.4.0.in_layers.0.weight",
        "first_stage_model.encoder.down.0.attn.0.q.weight",
        "model_ema.decay",
        "betas2",
    ],
)
def test_unexpected_names(extra: str) -> None:
    with pytest.raises(ModelError, match=f"Unexpected: {re.escape(extra)}"):
        convert(tiny_state() | {extra: torch.zeros(3)})


def test_swapped_names() -> None:
    first, second = "control_model.input_blocks.0.0.weight", "control_model.zero_convs.3.0.weight"
    state = tiny_state()
    swapped = state | {first: state[second], second: state[first]}
    with pytest.raises(ModelError, match=f"{first} is .*{second} is "):
        convert(swapped)


def test_hundreds_of_names_are_counted() -> None:
    plain = {k: v for k, v in tiny_state().items() if not k.startswith("control_model.")}
    with pytest.raises(ModelError, match=r"Missing: control_model\..* more\)") as caught:
        convert(plain)
    assert len(str(caught.value)) < 2000


@pytest.mark.parametrize(
    "state",
    [
        {},
        {"conv_first.weight": torch.zeros(8, 3, 3, 3)},
        {"model.diffusion_model.out.2.weight": torch.zeros(4, 32, 3, 3)},
        {k: v for k, v in tiny_state().items() if not k.startswith("first_stage_model.")},
        {k: torch.zeros(()) for k in tiny_state()},
    ],
    ids=["empty", "another network", "one tensor", "no autoencoder", "scalars"],
)
def test_other_files(state: State) -> None:
    with pytest.raises(ModelError, match=r"other\.ckpt is no DoSSR checkpoint"):
        convert(state, "other.ckpt")


def save(folder: Path, part: str, tensors: State) -> None:
    """One network in diffusers' layout."""
    folder.mkdir(parents=True, exist_ok=True)
    kept = {name: tensor.contiguous() for name, tensor in tensors.items()}
    save_file(kept, folder / "diffusion_pytorch_model.safetensors")
    config = converted().architecture.get(part, {}) | {"_class_name": "X", "sample_size": 64}
    (folder / "config.json").write_text(json.dumps(config))


@pytest.fixture
def stable_diffusion(tmp_path: Path) -> Path:
    for part in ("unet", "vae"):
        save(tmp_path / part, part, dict(converted().parts[part]))
    return tmp_path


def networks(model: Converted) -> DossrDenoiser:
    unet, control = (
        network(part, model.architecture, model.parts[part], CPU, torch.float32)
        for part in ("unet", "control")
    )
    return DossrDenoiser(unet, control, golden()["ctx"])


def test_fine_tuning_starts_from_stable_diffusion(stable_diffusion: Path) -> None:
    """The ControlNet says nothing at first: the network is the UNet alone, as the golden one is."""
    model = from_diffusers(stable_diffusion)
    assert set(model.parts) == {"unet", "control", "vae"}
    g = golden()
    eps = networks(model).eps(g["z"], g["cond_latent"], torch.tensor([499]))
    torch.testing.assert_close(eps, g["t499_eps_nocontrol"], atol=1e-5, rtol=1e-5)
    speaking = networks(converted()).eps(g["z"], g["cond_latent"], torch.tensor([499]))
    assert (speaking - eps).abs().max() > 0.01  # negative control: the released one speaks


def test_the_new_control_is_the_unets_encoder_blind_to_the_hint(stable_diffusion: Path) -> None:
    model = from_diffusers(stable_diffusion)
    control, unet = model.parts["control"], model.parts["unet"]
    assert torch.equal(control["conv_in.weight"][:, :4], unet["conv_in.weight"])
    assert not control["conv_in.weight"][:, 4:].any()
    zeros = {name for name, tensor in control.items() if not tensor.any()}
    assert zeros >= {name for name in control if name.startswith("controlnet_")}
    rest = control.keys() - zeros - {"conv_in.weight"}
    assert all(control[name] is unet[name] for name in rest)
    assert any(name.startswith("mid_block.") for name in rest)


def test_a_control_beside_it_is_taken(stable_diffusion: Path) -> None:
    save(stable_diffusion / "controlnet", "control", dict(converted().parts["control"]))
    model = from_diffusers(stable_diffusion)
    assert same(dict(model.parts["control"]), dict(converted().parts["control"]))


def test_old_names_of_attention(stable_diffusion: Path) -> None:
    old = {}
    for name, tensor in converted().parts["vae"].items():
        place = name
        for before, now in OLD_ATTENTION.items():
            place = place.replace(f".{now}.", f".{before}.")
        old[place] = tensor
    assert "encoder.mid_block.attentions.0.proj_attn.weight" in old
    save(stable_diffusion / "vae", "vae", old)
    vae = from_diffusers(stable_diffusion).parts["vae"]
    assert same(dict(vae), dict(converted().parts["vae"]))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "unet" / "config.json").unlink(), "no Stable Diffusion .*config.json"),
        (lambda f: (f / "unet" / "config.json").write_text("{"), "no Stable Diffusion"),
        (
            lambda f: (f / "vae" / "config.json").write_text("{}"),
            r"vae.*encoder.conv_in.weight is ",
        ),
        (
            lambda f: (f / "vae" / "diffusion_pytorch_model.safetensors").unlink(),
            r"no .*vae/diffusion_pytorch_model.safetensors",
        ),
        (lambda f: save(f / "unet", "unet", {"a": torch.zeros(1)}), r"unet.*Unexpected: a"),
        (
            lambda f: save(f / "controlnet", "control", dict(converted().parts["unet"])),
            r"controlnet.*Missing: controlnet_down_blocks",
        ),
    ],
)
def test_folders_that_will_not_do(
    stable_diffusion: Path, damage: Callable[[Path], object], message: str
) -> None:
    damage(stable_diffusion)
    with pytest.raises(ModelError, match=message):
        from_diffusers(stable_diffusion)
