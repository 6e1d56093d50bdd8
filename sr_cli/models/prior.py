"""Priors of Diff-SR: unconditional denoisers, srx's own or any pixel-space DDPM of diffusers."""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sr_cli.device import layout
from sr_cli.errors import ModelError, is_out_of_memory
from sr_cli.models import embedded, registry
from sr_cli.models.model import Model
from sr_cli.models.pixels import PixelCodec
from sr_cli.models.registry import Card

HUB_TIMEOUT = 10.0
"""Seconds to wait for the hub's first answer."""
BYTES_PER_CHANNEL = 96
"""Peak memory of a UNet2DModel for each pixel and channel of its first level, rounded up."""
UNET = ("unet", "config.json")
SCHEDULER = ("scheduler", "scheduler_config.json")
PREDICTIONS = ("epsilon", "sample", "v_prediction")


def load(card: Card, device: torch.device, dtype: torch.dtype) -> Model:
    """The model of a "prior" card: the embedded network without y. Raises as `embedded.load`."""
    return replace(embedded.load(card, device, dtype), preprocess="none", prf=card.limits.prf)


def check_prior(prior: str) -> bool:
    """Whether a prior without a card is here; else it would be fetched, if the hub has it.

    Raises ModelError where `load_prior` would, as far as names of files tell.
    """
    from huggingface_hub import try_to_load_from_cache

    if folder := _folder(prior):
        _part(folder, *UNET)
        _part(folder, *SCHEDULER)
        return True
    places = ("/".join(UNET), UNET[1])
    return any(isinstance(try_to_load_from_cache(prior, place), str) for place in places)


class UNet2DDenoiser:
    """`Denoiser` around a UNet2DModel that predicts ε, x0 or v at its own times.

    alpha_bar: ᾱ of its training, (T,). It is asked for the time at which it saw the same a/σ, so
    any path serves; on a path of its own schedule that is t itself. clip: largest |x0|, or None.
    """

    def __init__(
        self,
        net: torch.nn.Module,
        alpha_bar: NDArray[np.float64],
        prediction: str,
        clip: float | None,
        dtype: torch.dtype,
    ) -> None:
        self.net, self.alpha_bar, self.prediction = net, alpha_bar, prediction
        self.clip, self.dtype = clip, dtype

    @torch.inference_mode()
    def predict_x0(
        self,
        x: Tensor,
        *,
        alpha: float,
        sigma: float,
        a: float,
        m: float,
        y: Tensor,
        hint: Tensor,
        t: int,
    ) -> Tensor:
        """x0 from x = a·x0 + m·y + σ·ε: x, y, result (N, 3, H, W) float32; the rest is unused."""
        total = float(np.hypot(a, sigma))
        signal, noise = a / total, sigma / total
        x = (x - m * y) / total
        time = np.interp(noise**2, 1 - self.alpha_bar, np.arange(len(self.alpha_bar)))
        with torch.autocast(x.device.type, self.dtype, enabled=self.dtype != torch.float32):
            output = self.net(x, torch.tensor(float(time), device=x.device)).sample.float()
        x0: Tensor
        if self.prediction == "sample":
            x0 = output
        elif self.prediction == "v_prediction":
            x0 = signal * x - noise * output
        else:
            x0 = (x - noise * output) / max(signal, 1e-6)
        return x0 if self.clip is None else x0.clamp(-self.clip, self.clip)


def _folder(prior: str) -> Path | None:
    """The folder that `prior` names, or None where it is a hub id, OWNER/NAME; else ModelError."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    folder = Path(prior).expanduser()
    if os.path.isdir(folder):  # noqa: PTH112 (Path.is_dir raises at names that are too long)
        return folder
    if "/" in prior:
        with suppress(HFValidationError):
            validate_repo_id(prior)
            return None
    raise ModelError(_unknown(prior))


def _fetched(repository: str) -> Path:
    """The folder of a hub repository, from the cache or else from the network."""
    from huggingface_hub import snapshot_download

    files = ["*.json", "*.safetensors", "*.bin"]
    try:
        return Path(snapshot_download(repository, allow_patterns=files, etag_timeout=HUB_TIMEOUT))
    except Exception as error:  # no network, no such repository, not allowed, disk full, …
        reason = str(error).partition("\n")[0]
        raise ModelError(
            f"{_unknown(repository)} It is not in the cache of the hub and could not be fetched "
            f"({reason}); without a network, copy its folder here and name that."
        ) from error


def _unknown(prior: str) -> str:
    cards = [card.name for card in registry.cards(("prior",))]
    return (
        f"There is no prior {prior!r}: --prior takes the name of a card ({', '.join(cards)}), "
        "a folder that diffusers saved, or a hub id like google/ddpm-celebahq-256."
    )


def from_diffusers(prior: str, device: torch.device, dtype: torch.dtype) -> Model:
    """A prior by a folder in diffusers' layout, or by its hub id.

    A folder holds a DDPMPipeline (unet/ and scheduler/, or both files at its top). What is on the
    hub is fetched once and kept in diffusers' cache; a folder of that name comes first.

    Raises ModelError when there is no such prior, it is damaged, or of another kind.
    """
    folder, name = _folder(prior) or _fetched(prior), prior
    net = _unet(_part(folder, *UNET), name)
    alpha_bar, settings = _scheduler(_part(folder, *SCHEDULER), name)
    side = net.config.sample_size
    multiple = 2 ** (len(net.config.block_out_channels) - 1)
    tile = -(-(side if isinstance(side, int) else 256) // multiple) * multiple
    net.eval().requires_grad_(False).to(device, memory_format=layout(device))
    clip = settings.clip_sample_range if settings.get("clip_sample") else None
    return Model(
        denoiser=UNet2DDenoiser(net, alpha_bar, settings.prediction_type, clip, dtype),
        codec=PixelCodec(),
        schedule=alpha_bar,
        last_step="x0",
        multiple_of=multiple,
        margin=tile // 4,
        bytes_per_pixel=BYTES_PER_CHANNEL * net.config.block_out_channels[0],
        tiling="blend",  # group norm, and mostly attention, see the whole window
        tile=tile,
        preprocess="none",
        networks=(net,),
        identity=_digest(folder),
    )


def _part(folder: Path, part: str, file: str) -> Path:
    """The sub-folder of a pipeline, or the folder itself: old pipelines keep all at the top."""
    for place in (folder / part, folder):
        if (place / file).is_file():
            return place
    raise ModelError(
        f"{folder} is no DDPMPipeline of diffusers: there is no {part}/{file}. "
        "Save one with pipeline.save_pretrained(folder)."
    )


@contextmanager
def _reading(name: str, folder: Path) -> Iterator[None]:
    """Turn what diffusers raises into ModelError; a damaged file can make it raise anything."""
    try:
        yield
    except ModelError:
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise
        reason = str(error).partition("\n")[0]
        raise ModelError(
            f"{name} cannot be read from {folder} ({reason}): save or fetch it again."
        ) from error


def _unet(folder: Path, name: str) -> Any:
    from diffusers import UNet2DModel

    with _reading(name, folder):
        config: Any = UNet2DModel.load_config(folder)
        kind = config.get("_class_name")
        if kind != "UNet2DModel":
            raise ModelError(f"{name} holds a {kind}; a prior must be a UNet2DModel.")
        net: Any = UNet2DModel.from_pretrained(folder, local_files_only=True)  # type: ignore[no-untyped-call]
    channels = (net.config.in_channels, net.config.out_channels)
    if channels != (3, 3) or net.config.num_class_embeds:
        by_class = ", by class" if net.config.num_class_embeds else ""
        raise ModelError(
            f"{name} takes {channels[0]} channels and gives {channels[1]}{by_class}; "
            "a prior must take RGB and give RGB, without classes."
        )
    return net


def _scheduler(folder: Path, name: str) -> tuple[NDArray[np.float64], Any]:
    """ᾱ and the configuration of a scheduler."""
    from diffusers import DDPMScheduler

    with _reading(name, folder):
        config: Any = DDPMScheduler.load_config(folder)
        if "beta_schedule" not in config:
            kind = config.get("_class_name")
            raise ModelError(f"{name} is made for {kind}, whose noise is not that of a DDPM.")
        scheduler: Any = DDPMScheduler.from_config(config)  # type: ignore[no-untyped-call]
    prediction = scheduler.config.prediction_type
    if prediction not in PREDICTIONS:
        raise ModelError(f"{name} predicts {prediction!r}; srx reads {', '.join(PREDICTIONS)}.")
    return np.cumprod(1 - scheduler.betas.double().numpy()), scheduler.config


def _digest(folder: Path) -> str:
    """SHA-256 over the configurations and weights that a folder holds."""
    total = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.suffix in (".json", ".safetensors", ".bin"):
            with path.open("rb") as file:
                total.update(hashlib.file_digest(file, "sha256").digest())
    return total.hexdigest()
