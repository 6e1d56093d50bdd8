"""Released checkpoints and diffusers folders → installed models, in files with a card."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from safetensors.torch import save_file
from torch import Tensor

from sr_cli.errors import ModelError, UsageError
from sr_cli.files import require_space, writing
from sr_cli.models.checkpoints import narrowed, read_state_dict
from sr_cli.models.dossr import convert
from sr_cli.models.dossr.convert import State
from sr_cli.models.dossr.model import CONTEXT
from sr_cli.models.dossr.prompt import PROMPT, embed, embed_by_folder, read_context
from sr_cli.models.fetch import DOWNLOADS
from sr_cli.models.registry import Card, card, check_name, require_free, write_card
from sr_cli.models.store import Progress, Staging

Dtype = Literal["float16", "bfloat16", "float32"]
SHARD = 1_900_000_000
"""Most bytes of tensors in one file: the 2 GB that old file systems and tools can take."""


@dataclass(frozen=True)
class ImportOptions:
    """What is imported, and how.

    source: a .ckpt, .pth or .safetensors file, or a folder in diffusers' layout (unet/, vae/ …).
    name: of the model; None: "dossr" for dossr_default.ckpt, otherwise the source's own.
    prompt: fixed once for all, embedded by the source's own text tower. context: FILE.npz:KEY, an
    embedding that takes the prompt's place. dtype: of the stored weights; float16 because it is as
    small as bfloat16 and rounds eight times finer, and its range suffices (that is checked).
    licence: for the card; None: what is known of the source. Raises UsageError.
    """

    source: Path
    name: str | None = None
    prompt: str = PROMPT
    context: str | None = None
    dtype: Dtype = "float16"
    licence: str | None = None

    def __post_init__(self) -> None:
        if self.dtype not in get_args(Dtype):
            raise UsageError(f"dtype must be one of {', '.join(get_args(Dtype))}.")
        check_name(self.model)

    @property
    def model(self) -> str:
        """The name that the model gets."""
        known = (s.name for s in DOWNLOADS if s.file == self.source.name)
        return self.name or next(known, self.source.name.removesuffix(self.source.suffix))


def import_model(options: ImportOptions, progress: Progress) -> Card:
    """Convert, store and install a model; its card.

    The source is mapped, not read whole: memory is taken for one file of the result at a time. An
    import that was interrupted goes on with the file that it was writing, and nothing shows of it
    before all files are there. Raises UsageError when the name is taken; ModelError when the source
    is damaged, incomplete, holds code or is of another architecture, when there is no embedding of
    the prompt, or when the disk is full.
    """
    require_free(options.model)
    progress(f"reading {options.source.name}", 0, None)
    state: State = {} if options.source.is_dir() else read_state_dict(options.source)
    if state:
        model = convert.convert(state, str(options.source))
    else:
        model = convert.from_diffusers(options.source)
    dtype: torch.dtype = getattr(torch, options.dtype)
    files = dict(_files(model.parts, dtype))
    sizes = {file: _bytes(tensors, dtype) for file, tensors in files.items()}
    width = model.architecture["unet"]["cross_attention_dim"]
    writers = {f"{CONTEXT}.safetensors": partial(_save_context, options, state, width)}
    writers |= {file: partial(_save, tensors, dtype) for file, tensors in files.items()}
    staging = Staging(options.model, _origin(options))
    require_space(staging.folder, sum(sizes[file] for file in sizes.keys() - staging.shards.keys()))
    done = 0
    for file, write in writers.items():
        if file not in staging.shards:
            progress(f"writing {file}", done, sum(sizes.values()))
        staging.add(file, write)
        done += sizes.get(file, 0)
    with writing(staging.folder):
        write_card(_card(options, model.architecture, staging))
    staging.install()
    return card(options.model)


def _origin(options: ImportOptions) -> dict[str, Any]:
    """What decides the content of the result, without reading gigabytes: files by size and time."""
    paths = [options.source, *sorted(options.source.rglob("*"))]
    if options.context:
        paths.append(Path(options.context.rpartition(":")[0]))
    stats = [(str(path.absolute()), path.stat()) for path in paths if path.is_file()]
    return {
        "files": [(path, stat.st_size, stat.st_mtime_ns) for path, stat in stats],
        "options": [options.prompt, options.context, options.dtype],
    }


def _files(
    parts: Mapping[str, State], dtype: torch.dtype
) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Names of the files that hold the parts, at most about SHARD bytes each, and their tensors."""
    for part, tensors in parts.items():
        groups: list[dict[str, Tensor]] = [{}]
        for name, tensor in sorted(tensors.items()):
            if groups[-1] and _bytes(groups[-1], dtype) + tensor.numel() * dtype.itemsize > SHARD:
                groups.append({})
            groups[-1][f"{part}.{name}"] = tensor
        for number, group in enumerate(groups, 1):
            suffix = f"-{number}-of-{len(groups)}" if len(groups) > 1 else ""
            yield f"{part}{suffix}.safetensors", group


def _bytes(tensors: State, dtype: torch.dtype) -> int:
    return sum(tensor.numel() for tensor in tensors.values()) * dtype.itemsize


def _save(tensors: State, dtype: torch.dtype, path: Path) -> None:
    remedy = "use --dtype float32, or if that does not help fetch the checkpoint again"
    save_file({name: narrowed(name, t, dtype, remedy) for name, t in tensors.items()}, path)


def _save_context(options: ImportOptions, state: State, width: int, path: Path) -> None:
    if options.context:
        context = read_context(options.context)
    elif options.source.is_dir():
        context = embed_by_folder(options.prompt, options.source)
    else:
        context = embed(options.prompt, state)
    if context.shape[-1] != width:
        raise ModelError(
            f"The prompt's embedding is {context.shape[-1]} wide and the network takes {width}: "
            "give the right one with --context FILE.npz:KEY."
        )
    save_file({CONTEXT: context.contiguous()}, path)


def _card(options: ImportOptions, architecture: Mapping[str, Any], staging: Staging) -> Card:
    known = (source.licence for source in DOWNLOADS if source.file == options.source.name)
    prompt = {"context": options.context} if options.context else {"prompt": options.prompt}
    return Card(
        name=options.model,
        kind="dossr",
        file="",
        architecture=architecture,
        licence=options.licence or next(known, "not stated by its file"),
        training={"imported from": options.source.name, **prompt, "stored as": options.dtype},
        limits=convert.LIMITS,
        scores={},
        shards=staging.shards,
        folder=staging.folder,
    )
