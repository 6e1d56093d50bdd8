"""Which names are those of networks that are models of their own, told without loading anything."""

from pathlib import PurePath
from typing import Final

SUFFIXES: Final = (".safetensors", ".pth", ".pt", ".ckpt")
"""Of files that hold a checkpoint."""
FOREIGN: Final = (".onnx", ".param", ".bin")
"""Of networks for other programs, which no card is named by."""
NAMED: Final = ("anime", "realesrgan")
"""Networks of `srx[realesrgan]`."""


def is_alone(name: str) -> bool:
    """Whether a name is that of a network which enlarges by itself: a checkpoint, or of NAMED."""
    path = PurePath(name)
    return name in NAMED or path.name != name or path.suffix.lower() in SUFFIXES + FOREIGN
