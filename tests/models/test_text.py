"""The prompt's embedding: OpenCLIP's tower against transformers', and its failures."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from open_clip.tokenizer import SimpleTokenizer
from open_clip.transformer import TextTransformer
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel

from sr_cli.errors import ModelError, UsageError
from sr_cli.models.dossr.prompt import PREFIX, PROMPT, embed, embed_by_folder, read_context

WIDTH, LAYERS, CONTEXT, VOCABULARY = 128, 3, 77, 49408


@pytest.fixture(scope="module")
def tower() -> dict[str, Tensor]:
    """A small tower under the names of a released checkpoint, biases and norms random too."""
    generator = torch.Generator().manual_seed(3)
    network = TextTransformer(
        vocab_size=VOCABULARY, width=WIDTH, heads=WIDTH // 64, layers=LAYERS, output_dim=WIDTH
    )
    state = {
        name: tensor + 0.05 * torch.randn(tensor.shape, generator=generator)
        for name, tensor in network.state_dict().items()
    }
    return {PREFIX + name: tensor for name, tensor in state.items()} | {
        PREFIX + "logit_scale": torch.ones(()),
        "model.diffusion_model.out.0.bias": torch.ones(3),
    }


def converted(tower: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tower under transformers' names."""
    own = {k.removeprefix(PREFIX): v for k, v in tower.items()}
    state = {
        "embeddings.token_embedding.weight": own["token_embedding.weight"],
        "embeddings.position_embedding.weight": own["positional_embedding"],
        "final_layer_norm.weight": own["ln_final.weight"],
        "final_layer_norm.bias": own["ln_final.bias"],
    }
    pairs = {
        "layer_norm1": "ln_1",
        "layer_norm2": "ln_2",
        "self_attn.out_proj": "attn.out_proj",
        "mlp.fc1": "mlp.c_fc",
        "mlp.fc2": "mlp.c_proj",
    }
    for layer in range(LAYERS):
        theirs, block = f"encoder.layers.{layer}.", f"transformer.resblocks.{layer}."
        for end in ("weight", "bias"):
            for name, original in pairs.items():
                state[f"{theirs}{name}.{end}"] = own[f"{block}{original}.{end}"]
            stacked = own[f"{block}attn.in_proj_{end}"].chunk(3)
            for letter, part in zip("qkv", stacked, strict=True):
                state[f"{theirs}self_attn.{letter}_proj.{end}"] = part
    return state


def encoder(layers: int, width: int = WIDTH) -> Any:
    network: Any = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=VOCABULARY,
            hidden_size=width,
            intermediate_size=4 * width,
            num_hidden_layers=layers,
            num_attention_heads=width // 64,
            max_position_embeddings=CONTEXT,
            hidden_act="gelu",
        )
    )
    return network.eval()


def load(network: Any, state: dict[str, Tensor]) -> None:
    """Whether or not this version of transformers has a module `text_model` around the tower."""
    inner = getattr(network, "text_model", network)
    result = inner.load_state_dict(state, strict=False)
    assert not result.unexpected_keys
    assert all("position_ids" in name for name in result.missing_keys)


def test_equals_the_penultimate_layer_of_transformers(tower: dict[str, Tensor]) -> None:
    network = encoder(LAYERS)
    load(network, converted(tower))
    tokens = SimpleTokenizer()(PROMPT)
    assert tokens.shape == (1, CONTEXT)
    with torch.inference_mode():
        hidden = network(tokens, output_hidden_states=True).hidden_states
        norm = getattr(network, "text_model", network).final_layer_norm
        expected, last = norm(hidden[-2]), norm(hidden[-1])
    found = embed(PROMPT, tower)
    assert found.shape == (1, CONTEXT, WIDTH)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    assert (found - last).abs().max() > 0.01  # negative control: the last layer's is another


def test_half_precision_towers_are_computed_in_float32(tower: dict[str, Tensor]) -> None:
    half = {name: tensor.half() for name, tensor in tower.items()}
    single = {name: tensor.float() for name, tensor in half.items()}
    assert torch.equal(embed(PROMPT, half), embed(PROMPT, single))


def test_prompts_differ_and_long_ones_are_cut(tower: dict[str, Tensor]) -> None:
    assert not torch.equal(embed(PROMPT, tower), embed("", tower))
    assert embed("eight " * 200, tower).shape == (1, CONTEXT, WIDTH)


def test_no_tower() -> None:
    with pytest.raises(ModelError, match=r"no text tower.*--context FILE\.npz:KEY"):
        embed(PROMPT, {"model.diffusion_model.out.0.bias": torch.ones(3)})


@pytest.mark.parametrize(
    "damage",
    [
        lambda tower: tower.pop(PREFIX + "ln_final.bias"),
        lambda tower: tower.pop(PREFIX + "positional_embedding"),
        lambda tower: tower.update({PREFIX + "text_model.embeddings": torch.ones(1)}),
        lambda tower: tower.update({PREFIX + "ln_final.bias": torch.ones(3)}),
        lambda tower: [tower.pop(k) for k in list(tower) if "resblocks" in k],
        lambda tower: tower.update({PREFIX + "token_embedding.weight": torch.ones(9, WIDTH)}),
    ],
    ids=["key", "position", "another's", "shape", "no blocks", "few tokens"],
)
def test_another_tower(
    tower: dict[str, Tensor], damage: Callable[[dict[str, Tensor]], object]
) -> None:
    changed = dict(tower)
    damage(changed)
    with pytest.raises(ModelError, match=r"no OpenCLIP tower.*--context"):
        embed(PROMPT, changed)


def test_without_open_clip(tower: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "open_clip.tokenizer", None)
    with pytest.raises(ModelError, match=r"pip install 'srx\[import\]'"):
        embed(PROMPT, tower)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """text_encoder/ and a tokenizer/ of single letters, in diffusers' layout."""
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    words = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    (tmp_path / "tokenizer").mkdir()
    vocabulary = {word: index for index, word in enumerate(words)}
    (tmp_path / "tokenizer" / "vocab.json").write_text(json.dumps(vocabulary), "utf-8")
    (tmp_path / "tokenizer" / "merges.txt").write_text("#version: 0.2\n", "utf-8")
    settings = {"tokenizer_class": "CLIPTokenizer", "model_max_length": CONTEXT}
    (tmp_path / "tokenizer" / "tokenizer_config.json").write_text(json.dumps(settings), "utf-8")
    encoder(2, width=64).save_pretrained(tmp_path / "text_encoder")
    return tmp_path


def test_a_folder_in_diffusers_layout(folder: Path) -> None:
    found = embed_by_folder("a b", folder)
    assert found.shape == (1, CONTEXT, 64)
    assert found.dtype == torch.float32
    assert found.isfinite().all()
    assert torch.equal(found, embed_by_folder("a b", folder))
    assert not torch.equal(found, embed_by_folder("b a", folder))


def test_a_folder_without_text_encoder_or_with_a_damaged_one(folder: Path) -> None:
    weights = folder / "text_encoder" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ModelError, match=r"text encoder in .* cannot be used"):
        embed_by_folder(PROMPT, folder)
    with pytest.raises(ModelError, match=r"no tokenizer/.*--context"):
        embed_by_folder(PROMPT, folder / "text_encoder")


@pytest.mark.parametrize("shape", [(1, 7, 24), (7, 24)])
def test_context_from_a_file(tmp_path: Path, shape: tuple[int, ...]) -> None:
    array = np.arange(np.prod(shape), dtype=np.float64).reshape(shape)
    np.savez(tmp_path / "c.npz", ctx=array)
    found = read_context(f"{tmp_path / 'c.npz'}:ctx")
    assert found.dtype == torch.float32
    assert torch.equal(found, torch.from_numpy(array).float().reshape(1, 7, 24))


def test_context_that_is_none(tmp_path: Path) -> None:
    good = np.zeros((1, 7, 24), np.float32)
    file = tmp_path / "c.npz"
    np.savez(
        file,
        ctx=good,
        flat=good[0, 0],
        two=np.zeros((2, 7, 24)),
        nan=good * np.nan,
        obj=np.array([{}]),
    )
    for place in ("c.npz", "", ":ctx", "c.npz:"):
        with pytest.raises(UsageError, match=r"FILE\.npz:KEY"):
            read_context(place)
    with pytest.raises(ModelError, match=r"no array 'other', only: ctx"):
        read_context(f"{file}:other")
    for key in ("flat", "two", "nan"):
        with pytest.raises(ModelError, match="no embedding of one prompt"):
            read_context(f"{file}:{key}")
    with pytest.raises(ModelError, match=r"no \.npz file of plain arrays"):
        read_context(f"{file}:obj")
    with pytest.raises(ModelError, match="There is no file"):
        read_context(f"{tmp_path / 'gone.npz'}:ctx")
    np.save(tmp_path / "c.npy", good)
    (tmp_path / "cut.npz").write_bytes(file.read_bytes()[:300])
    for damaged in ("c.npy", "cut.npz"):
        with pytest.raises(ModelError, match=r"no \.npz file of plain arrays"):
            read_context(f"{tmp_path / damaged}:ctx")
