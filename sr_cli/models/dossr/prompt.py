"""The fixed prompt's embedding by a checkpoint's own text tower, needed once: when it is imported.

Stable Diffusion 2 takes OpenCLIP ViT-H/14's text tower without its last block, then the final
normalisation, and every token (LDM's FrozenOpenCLIPEmbedder with layer="penultimate").
"""

import zipfile
from collections.abc import Mapping
from pathlib import Path
from textwrap import shorten
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sr_cli.errors import ModelError, UsageError

PROMPT = "clean, high-resolution, 8k"
"""What the released DoSSR code asks for."""
PREFIX = "cond_stage_model.model."
"""Of the tower's names in a released checkpoint."""
HEAD_WIDTH = 64
"""Channels of an attention head in every OpenCLIP tower; shapes do not tell it."""
BLOCK = "transformer.resblocks."
UNUSED = ("text_projection", "logit_scale", "attn_mask")


def embed(prompt: str, state: Mapping[str, Tensor]) -> Tensor:
    """A prompt's embedding, (1, context, width) float32, by the tower in `state`.

    state: names under PREFIX belong to the tower, others are not looked at; its dimensions follow
    from the shapes. A prompt that is longer than the context is cut. Raises ModelError when there
    is no tower, it is no OpenCLIP tower, or OpenCLIP is not installed.
    """
    tower = {name[len(PREFIX) :]: t for name, t in state.items() if name.startswith(PREFIX)}
    if not tower:
        raise ModelError(
            "The checkpoint has no text tower to embed the prompt with: "
            "give the embedding with --context FILE.npz:KEY."
        )
    try:
        from open_clip.tokenizer import SimpleTokenizer
    except ImportError as error:
        raise _missing("OpenCLIP") from error
    try:
        network = _penultimate(tower)
        with torch.inference_mode():
            tokens = SimpleTokenizer()(prompt, context_length=network.context_length)
            embedding: Tensor = network.eval()(tokens)
    except (RuntimeError, KeyError, IndexError, ValueError) as error:
        raise ModelError(
            f"The checkpoint's text tower is no OpenCLIP tower ({shorten(str(error), 300)}): "
            "give the prompt's embedding with --context FILE.npz:KEY."
        ) from error
    return embedding


def _penultimate(tower: Mapping[str, Tensor]) -> Any:
    """open_clip's TextTransformer without the last block, the projection and the pooling."""
    from open_clip.transformer import TextTransformer

    last = max(int(name[len(BLOCK) :].split(".")[0]) for name in tower if name.startswith(BLOCK))
    unused = (*UNUSED, f"{BLOCK}{last}.")
    context_length, width = tower["positional_embedding"].shape
    network = TextTransformer(
        context_length=context_length,
        vocab_size=len(tower["token_embedding.weight"]),
        width=width,
        heads=width // HEAD_WIDTH,
        layers=last,
        mlp_ratio=len(tower[f"{BLOCK}{last}.mlp.c_fc.weight"]) / width,
        output_dim=0,
        pool_type="none",
    )
    network.load_state_dict({k: v for k, v in tower.items() if not k.startswith(unused)})
    return network


def embed_by_folder(prompt: str, folder: Path) -> Tensor:
    """The same by the `tokenizer/` and `text_encoder/` of a folder in diffusers' layout.

    Raises ModelError when they are missing or damaged, or transformers is not installed.
    """
    for part in ("tokenizer", "text_encoder"):
        if not (folder / part).is_dir():
            raise ModelError(
                f"{folder} has no {part}/ to embed the prompt with: "
                "give the embedding with --context FILE.npz:KEY."
            )
    try:
        from transformers import CLIPTextModel, CLIPTokenizer
    except ImportError as error:
        raise _missing("transformers") from error
    try:
        tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True)
        encoder: Any = CLIPTextModel.from_pretrained(
            folder / "text_encoder", local_files_only=True, use_safetensors=True
        )
        length = encoder.config.max_position_embeddings
        tokens = tokenizer(
            prompt, padding="max_length", max_length=length, truncation=True, return_tensors="pt"
        )
        with torch.inference_mode():
            embedding: Tensor = encoder.float().eval()(tokens.input_ids).last_hidden_state
    except Exception as error:  # transformers raises whatever a damaged file makes it raise
        raise ModelError(
            f"The text encoder in {folder} cannot be used ({shorten(str(error), 300)}): "
            "fetch the folder again."
        ) from error
    return embedding


def read_context(place: str) -> Tensor:
    """An embedding that was saved by NumPy: FILE.npz:KEY → (1, tokens, width) float32.

    Raises UsageError when `place` is not of that form, ModelError when there is no such array.
    """
    file, colon, key = place.rpartition(":")
    if not (colon and file and key):
        raise UsageError(f"context must be FILE.npz:KEY, not {place!r}.")
    try:
        with np.load(file, allow_pickle=False) as arrays:
            if key not in arrays:
                raise ModelError(f"{file} has no array {key!r}, only: {', '.join(arrays)}.")
            array = np.asarray(arrays[key], dtype=np.float32)
    except FileNotFoundError as error:
        raise ModelError(f"There is no file {file} with the prompt's embedding.") from error
    except (OSError, ValueError, TypeError, AttributeError, zipfile.BadZipFile) as error:
        raise ModelError(f"{file} is damaged or no .npz file of plain arrays: {error}.") from error
    context = torch.from_numpy(array)
    if context.ndim == 2:
        context = context[None]
    if context.ndim != 3 or len(context) != 1 or not context.isfinite().all():
        raise ModelError(
            f"{place} is no embedding of one prompt: its shape is {tuple(array.shape)}, "
            "(1, tokens, width) of finite numbers is wanted."
        )
    return context


def _missing(library: str) -> ModelError:
    return ModelError(
        f"{library} is not installed, which embeds the prompt once for all: "
        "run pip install 'srx[import]', or give the embedding with --context FILE.npz:KEY."
    )
