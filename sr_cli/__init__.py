"""srx: batch upscaling of photographs by domain-shift diffusion.

    from sr_cli import Upscaler, UpscaleOptions, load, save

    up = Upscaler(UpscaleOptions(model="clean", scale=2.7))
    save(up(load("in.png")), "out.webp", quality=90)

Importing it imports neither torch nor Pillow: each public name is fetched when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sr_cli.engine.events import (
        Event,
        Failed,
        Finished,
        Job,
        Planned,
        Skipped,
        Started,
        Stepped,
    )
    from sr_cli.engine.images import Picture, load, save
    from sr_cli.engine.metadata import Metadata
    from sr_cli.engine.options import OutputOptions, UpscaleOptions
    from sr_cli.engine.size import Exact, Scale, Side, Size
    from sr_cli.engine.upscaler import Upscaler
    from sr_cli.errors import DeviceError, InputError, ModelError, SrxError, UsageError
    from sr_cli.memory import keep_freed

__version__ = "0.1.0"

_HOMES = {
    "DeviceError": "errors",
    "Event": "engine.events",
    "Exact": "engine.size",
    "Failed": "engine.events",
    "Finished": "engine.events",
    "InputError": "errors",
    "Job": "engine.events",
    "Metadata": "engine.metadata",
    "ModelError": "errors",
    "OutputOptions": "engine.options",
    "Picture": "engine.images",
    "Planned": "engine.events",
    "Scale": "engine.size",
    "Side": "engine.size",
    "Size": "engine.size",
    "Skipped": "engine.events",
    "SrxError": "errors",
    "Started": "engine.events",
    "Stepped": "engine.events",
    "UpscaleOptions": "engine.options",
    "Upscaler": "engine.upscaler",
    "UsageError": "errors",
    "keep_freed": "memory",
    "load": "engine.images",
    "save": "engine.images",
}
"""Where each public name lives."""

__all__ = [
    "DeviceError",
    "Event",
    "Exact",
    "Failed",
    "Finished",
    "InputError",
    "Job",
    "Metadata",
    "ModelError",
    "OutputOptions",
    "Picture",
    "Planned",
    "Scale",
    "Side",
    "Size",
    "Skipped",
    "SrxError",
    "Started",
    "Stepped",
    "UpscaleOptions",
    "Upscaler",
    "UsageError",
    "keep_freed",
    "load",
    "save",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"sr_cli.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted((*globals(), *_HOMES))
