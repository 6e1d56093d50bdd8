"""The metrics that come from pyiqa (the extra `iqa`): what each is, loads and lacks."""

import contextlib
import io
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

Better = Literal["higher", "lower"]


@dataclass(frozen=True)
class Spec:
    """One metric.

    name: pyiqa's. reference: whether it compares with HR. files: what it loads, below torch.hub's
    folder. backbone: a Hugging Face repository that timm loads for it. of_sets: whether it
    measures sets of images, not single ones.
    """

    name: str
    better: Better
    files: tuple[str, ...]
    reference: bool = False
    backbone: str | None = None
    of_sets: bool = False


SPECS = {
    "lpips": Spec(
        "lpips",
        "lower",
        ("checkpoints/alexnet-owt-7be5be79.pth", "pyiqa/LPIPS_v0.1_alex-df73285e.pth"),
        reference=True,
    ),
    "dists": Spec(
        "dists",
        "lower",
        ("checkpoints/vgg16-397923af.pth", "pyiqa/DISTS_weights-f5e65c96.pth"),
        reference=True,
    ),
    "niqe": Spec("niqe", "lower", ("pyiqa/niqe_modelparameters.mat",)),
    "clipiqa": Spec("clipiqa", "higher", ("clip/RN50.pt",)),
    "musiq": Spec("musiq", "higher", ("pyiqa/musiq_koniq_ckpt-e95806b9.pth",)),
    "maniqa": Spec(
        "maniqa",
        "higher",
        ("pyiqa/ckpt_koniq10k.pt",),
        backbone="timm/vit_base_patch8_224.augreg2_in21k_ft_in1k",
    ),
    "maniqa-pipal": Spec(
        "maniqa-pipal",
        "higher",
        ("pyiqa/MANIQA_PIPAL-ae6d356b.pth",),
        backbone="timm/vit_base_patch8_224.augreg2_in21k_ft_in1k",
    ),
    "topiq": Spec(
        "topiq_nr",
        "higher",
        ("pyiqa/cfanet_nr_koniq_res50-9a73138b.pth",),
        backbone="timm/resnet50.a1_in1k",
    ),
    "fid": Spec("fid", "lower", ("pyiqa/pt_inception-2015-12-05-6726825d.pth",), of_sets=True),
}

SOURCES = {
    "checkpoints": "https://download.pytorch.org/models",
    "pyiqa": "https://huggingface.co/chaofengc/IQA-PyTorch-Weights/resolve/main",
    "clip": "https://openaipublic.azureedge.net/clip/models/"
    "afeb0e10f9e5a86da6080e35cf09123aca3b358a0c3e3b6c78a7b63bc04b6762",
}
"""Where the files of each folder come from."""


@dataclass(frozen=True)
class Asset:
    """One thing that a metric loads: a file, or (without one) a backbone in Hugging Face's cache.

    source: a URL, or the command that gets it.
    """

    metric: str
    file: Path | None
    source: str
    there: bool


def assets(name: str) -> Iterator[Asset]:
    """All that a metric of SPECS loads, whether or not it is there."""
    spec, hub = SPECS[name], Path(torch.hub.get_dir())
    for file in spec.files:
        folder, base = file.split("/")
        yield Asset(name, hub / file, f"{SOURCES[folder]}/{base}", (hub / file).is_file())
    if spec.backbone:
        command = f"hf download {spec.backbone} model.safetensors"
        yield Asset(name, None, command, find_spec("pyiqa") is not None and _cached(spec.backbone))


def absent(name: str, *, download: bool | None) -> str | None:
    """Why a metric of SPECS cannot be had, in one sentence; None if it can.

    It only looks for files: pyiqa would try to download what is missing, and without a network
    that takes minutes to fail. download: that is wanted, so only pyiqa itself has to be there; None
    where nobody can want it.
    """
    if find_spec("pyiqa") is None:
        return f"{name} needs pyiqa: run pip install 'srx[iqa]'."
    if download:
        return None
    other = "" if download is None else ", or give --download"
    for asset in (asset for asset in assets(name) if not asset.there):
        if asset.file:
            return f"{name} has no weights {asset.file}: put {asset.source} there{other}."
        backbone = SPECS[name].backbone
        return f"{name} has no backbone {backbone}: run {asset.source}{other}."
    return None


def _cached(repository: str) -> bool:
    from huggingface_hub import try_to_load_from_cache

    return isinstance(try_to_load_from_cache(repository, "model.safetensors"), str)


def create(name: str, device: torch.device) -> Any:
    """pyiqa's metric for a name of SPECS, on the device; raises whatever its set-up raises."""
    with undisturbed():
        import pyiqa

        return pyiqa.create_metric(SPECS[name].name, device=device)


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Keep pyiqa's announcements off stdout, and let it draw the same random crops every time.

    MANIQA draws them, with NumPy's global generator in some versions of pyiqa.
    """
    state = np.random.get_state()  # noqa: NPY002
    with contextlib.redirect_stdout(io.StringIO()), torch.random.fork_rng():
        torch.manual_seed(0)
        np.random.seed(0)  # noqa: NPY002
        try:
            yield
        finally:
            np.random.set_state(state)  # noqa: NPY002
