"""Imports: what is stored is what was read, damage leaves nothing, interruptions cost little."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import save_file
from torch import Tensor

from sr_cli.errors import ModelError, UsageError
from sr_cli.models.checkpoints import read_state_dict
from sr_cli.models.dossr import importer
from sr_cli.models.dossr.convert import convert
from sr_cli.models.dossr.importer import ImportOptions, import_model
from sr_cli.models.dossr.prompt import PREFIX
from sr_cli.models.registry import Card, card, check, load_weights, names

GOLDEN = Path(__file__).parents[1] / "golden"
TINY = GOLDEN / "tiny_controlldm.ckpt"
CONTEXT = f"{GOLDEN / 'dossr_net.npz'}:ctx"

State = dict[str, Tensor]


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SRX_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("SRX_WEIGHTS", raising=False)
    return tmp_path / "home"


@pytest.fixture(scope="module")
def state() -> State:
    return read_state_dict(TINY)


def silent(what: str, done: int, total: int | None) -> None: ...


def run(source: Path, **options: Any) -> Card:
    return import_model(ImportOptions(source, **{"context": CONTEXT, **options}), silent)


def written(tmp_path: Path, state: State) -> Path:
    torch.save({"state_dict": state}, tmp_path / "model.ckpt")
    return tmp_path / "model.ckpt"


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_what_is_stored_is_what_was_read(state: State, dtype: str) -> None:
    found = run(TINY, dtype=dtype)
    assert found == card("tiny_controlldm")
    assert found.kind == "dossr"
    check(found, hashing=True)
    weights = load_weights(found)
    expected = {
        f"{part}.{name}": tensor.to(getattr(torch, dtype))
        for part, tensors in convert(state).parts.items()
        for name, tensor in tensors.items()
    }
    context = weights.pop("context")
    assert context.dtype == torch.float32
    np.testing.assert_array_equal(context, np.load(GOLDEN / "dossr_net.npz")["ctx"])
    assert weights.keys() == expected.keys()
    for name, tensor in weights.items():
        assert tensor.dtype == expected[name].dtype
        assert torch.equal(tensor, expected[name]), name


def test_the_card_tells_where_it_is_from() -> None:
    found = run(TINY, name="small", licence="CC0-1.0")
    assert found.training["imported from"] == TINY.name
    assert found.licence == "CC0-1.0"
    assert found.architecture["unet"]["cross_attention_dim"] == 24
    assert (found.limits.t1, found.limits.schedule, found.limits.scale) == (500, "scaled_linear", 4)


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("dossr_default.ckpt", "dossr"),
        ("dossr_onestep.ckpt", "dossr-onestep"),
        ("my.net.safetensors", "my.net"),
        ("folder", "folder"),
    ],
)
def test_default_names(file: str, name: str) -> None:
    assert ImportOptions(Path(file)).model == name
    assert ImportOptions(Path(file), name="mine").model == "mine"


@pytest.mark.parametrize("bad", [{"name": "../x"}, {"name": ".x"}, {"dtype": "int8"}])
def test_bad_options(bad: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        ImportOptions(TINY, **bad)


def test_a_name_that_is_taken() -> None:
    run(TINY, name="small")
    with pytest.raises(UsageError, match=r"a model small already in .*choose another --name"):
        run(TINY, name="small")


def test_large_parts_are_split(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = load_weights(run(TINY, name="whole"))
    monkeypatch.setattr(importer, "SHARD", 500_000)
    found = run(TINY, name="split")
    assert sum(name.startswith("unet-") for name in found.shards) > 2
    weights = load_weights(found)
    assert weights.keys() == whole.keys()
    assert all(torch.equal(weights[name], whole[name]) for name in whole)
    largest = max(tensor.nbytes for tensor in whole.values())
    assert max(shard.bytes for shard in found.shards.values()) < 500_000 + largest


def first(state: State) -> str:
    return next(name for name in state if name.startswith("model.diffusion_model."))


def misshape(state: State) -> None:
    state[first(state)] = torch.zeros(3, 1, 2)


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda s: s.pop(first(s)), r"[Mm]issing.*model\.diffusion_model\."),
        (lambda s: s.update({"control_model.extra": torch.ones(1)}), r"control_model\.extra"),
        (misshape, r"shape.*model\.diffusion_model\..*\(3, 1, 2\)"),
        (lambda s: s[first(s)].fill_(1e6), r"float16 cannot hold.*--dtype float32"),
        (lambda s: s[first(s)].fill_(torch.nan), r"float16 cannot hold"),
    ],
    ids=["missing", "extra", "misshapen", "too large", "not a number"],
)
def test_damage_is_told_and_leaves_nothing(
    tmp_path: Path, own_home: Path, state: State, damage: Callable[[State], object], sentence: str
) -> None:
    changed = dict(state)
    changed[first(changed)] = changed[first(changed)].clone()
    damage(changed)
    with pytest.raises(ModelError, match=sentence) as error:
        run(written(tmp_path, changed))
    assert "\n" not in str(error.value)
    assert not [path for path in own_home.rglob("*") if path.is_file()]
    assert "model" not in names()


def test_the_same_checkpoint_undamaged_is_imported(tmp_path: Path, state: State) -> None:
    assert run(written(tmp_path, state)).name == "model"  # negative control of the damages above


def test_values_beyond_half_precision_fit_float32(tmp_path: Path, state: State) -> None:
    changed = state | {first(state): torch.full_like(state[first(state)], 1e6)}
    found = run(written(tmp_path, changed), dtype="float32")
    assert max(float(tensor.max()) for tensor in load_weights(found).values()) == 1e6


def test_a_truncated_checkpoint(tmp_path: Path, own_home: Path) -> None:
    path = tmp_path / "cut.ckpt"
    path.write_bytes(TINY.read_bytes()[:-1000])
    with pytest.raises(ModelError, match=r"cut\.ckpt is damaged"):
        run(path)
    assert not own_home.exists()


def test_code_is_not_run(tmp_path: Path, own_home: Path, state: State) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (tmp_path / "executed",)

    path = tmp_path / "bomb.ckpt"
    torch.save({"state_dict": state, "callbacks": Bomb()}, path)
    with pytest.raises(ModelError, match="holds code"):
        run(path)
    assert not (tmp_path / "executed").exists()
    assert not own_home.exists()


def test_without_text_tower_and_context(own_home: Path) -> None:
    with pytest.raises(ModelError, match=r"no text tower.*--context"):
        run(TINY, context=None)
    assert not [path for path in own_home.rglob("*") if path.is_file()]


def test_a_context_of_another_width(tmp_path: Path) -> None:
    np.savez(tmp_path / "c.npz", ctx=np.zeros((1, 7, 25), np.float32))
    with pytest.raises(ModelError, match="25 wide and the network takes 24"):
        run(TINY, context=f"{tmp_path / 'c.npz'}:ctx")


def test_the_towers_embedding_is_stored_and_the_tower_is_not(
    tmp_path: Path, state: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    embedding = torch.randn(1, 77, 24)
    asked = {}

    def embed(prompt: str, tower: State) -> Tensor:
        asked[prompt] = PREFIX + "ln_final.bias" in tower
        return embedding

    monkeypatch.setattr(importer, "embed", embed)
    source = written(tmp_path, state | {PREFIX + "ln_final.bias": torch.ones(24)})
    found = run(source, context=None, prompt="sharp")
    assert asked == {"sharp": True}
    assert found.training["prompt"] == "sharp"
    weights = load_weights(found)
    assert torch.equal(weights["context"], embedding)
    assert not [name for name in weights if "ln_final" in name]


def interrupted(source: Path, at: str, **options: Any) -> list[str]:
    """Import until a stage begins; the stages before it."""
    stages: list[str] = []

    def progress(what: str, done: int, total: int | None) -> None:
        if at in what:
            raise KeyboardInterrupt
        stages.append(what)

    with pytest.raises(KeyboardInterrupt):
        import_model(ImportOptions(source, context=CONTEXT, **options), progress)
    return stages


def test_an_interrupted_import_goes_on(own_home: Path) -> None:
    assert interrupted(TINY, "vae")[-1] == "writing control.safetensors"
    assert "tiny_controlldm" not in names()
    staged = own_home / "models" / ".tiny_controlldm.partial"
    before = (staged / "unet.safetensors").stat()
    found = run(TINY)
    after = (found.folder / "unet.safetensors").stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    check(found, hashing=True)
    assert not staged.exists()


def test_an_import_with_other_options_begins_again(own_home: Path) -> None:
    interrupted(TINY, "vae")
    staged = own_home / "models" / ".tiny_controlldm.partial" / "unet.safetensors"
    before = staged.stat().st_ino, staged.stat().st_size
    found = run(TINY, dtype="float32")
    assert (found.folder / "unet.safetensors").stat().st_size > 1.5 * before[1]
    assert load_weights(found)["unet.conv_in.weight"].dtype == torch.float32


def test_progress_counts_bytes() -> None:
    told: list[tuple[str, int, int | None]] = []
    found = import_model(ImportOptions(TINY, context=CONTEXT), lambda *stage: told.append(stage))
    writing = [(done, total) for what, done, total in told if what.startswith("writing")]
    assert writing == sorted(writing)
    (total,) = {total for _, total in writing}
    stored = [tensor for name, tensor in load_weights(found).items() if name != "context"]
    assert total == sum(tensor.nbytes for tensor in stored)


def test_too_little_space(monkeypatch: pytest.MonkeyPatch, own_home: Path) -> None:
    def require(folder: Path, needed: int) -> None:
        raise ModelError(f"{needed} bytes")

    monkeypatch.setattr(importer, "require_space", require)
    with pytest.raises(ModelError, match="bytes"):
        run(TINY)
    assert not own_home.exists()


def test_safetensors_and_a_folder_in_diffusers_layout(tmp_path: Path, state: State) -> None:
    save_file({name: t.clone() for name, t in state.items()}, tmp_path / "whole.safetensors")
    original = load_weights(run(tmp_path / "whole.safetensors"))
    folder = tmp_path / "folder"
    architecture = card("whole").architecture
    parts = convert(state).parts
    for part, kind in (("unet", UNet2DConditionModel), ("vae", AutoencoderKL)):
        network: Any = kind(**architecture[part])
        network.load_state_dict(parts[part])
        network.save_pretrained(folder / part)
    found = load_weights(run(folder))
    assert torch.equal(found["unet.conv_in.weight"], original["unet.conv_in.weight"])
    assert torch.equal(found["vae.quant_conv.weight"], original["vae.quant_conv.weight"])


def test_no_such_source(tmp_path: Path, own_home: Path) -> None:
    with pytest.raises(ModelError, match="no model file"):
        run(tmp_path / "gone.ckpt")
    with pytest.raises(ModelError, match="diffusers' layout"):
        run(tmp_path)
    assert not own_home.exists()
