"""A teacher: what another network makes of an LR image as the target of training."""

import hashlib
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from sr_cli.degradation.degrade import Randomness
from sr_cli.errors import UsageError
from sr_cli.files import whole, writing
from sr_cli.models.protocol import Preprocessor
from sr_cli.models.resampling import resize
from sr_cli.training.pairs import Degraded

UNIT = 4
"""HR pixels from one place of a window to the next: an LR pixel of most pairs."""


class Teacher:
    """Answers of `network`, kept in `folder` with what they answer, so that each is computed once.

    name: for the card. share: of the parts of a batch that have the answer as their target instead
    of the HR. side: of the windows of the crops at which is learnt, a multiple of UNIT; None: whole
    crops. A deep network answers a window well only if it is shown more than that. Raises
    UsageError unless 0 < share ≤ 1.
    """

    def __init__(
        self,
        network: Preprocessor,
        name: str,
        folder: Path,
        *,
        share: float = 1.0,
        side: int | None = None,
    ) -> None:
        if not 0 < share <= 1:
            raise UsageError(f"--teacher-share must be more than 0 and at most 1, not {share}.")
        self.network, self.name, self.folder = network, name, folder
        self.share, self.side = share, side

    def describe(self) -> str:
        """For a card."""
        taught = f"answers of {self.name} instead of the HR in {self.share:.0%} of the parts"
        return taught + (f", of windows of {self.side}² of the crops" if self.side else "")

    def teaches(self, hr: Tensor) -> bool:
        """Whether it has the answer to crops (N, 3, H, W): always the same of the same crops."""
        return int(_digest(hr), 16) % 2**32 < self.share * 2**32

    def lesson(self, hr: Tensor, degraded: Degraded) -> tuple[Tensor, Tensor]:
        """What the network is given and the answer, in [0, 1], of 8 bit; of HR's size but where LR
        is given. The same crops are always degraded in one way.

        Raises ModelError when the folder cannot be written.
        """
        name = _digest(hr)
        file = self.folder / f"{name}.safetensors"
        if not file.is_file():
            lr, source = degraded(hr, Randomness.keyed(hr.device, int(name, 16)))
            with torch.autocast(lr.device.type, enabled=False):  # deep ones would round visibly
                answer = resize(self.network(lr), (hr.shape[-2], hr.shape[-1])).clamp(0, 1)
            levels = {"source": _levels(source), "answer": _levels(answer)}
            with writing(self.folder), whole(file) as partial:
                save_file(levels, partial)
        kept = load_file(file)
        source, answer = (kept[part].to(hr.device).float() / 255 for part in ("source", "answer"))
        return source, answer

    def window(self, numbers: np.random.Generator, *images: Tensor) -> tuple[Tensor, ...]:
        """The same window of all of them: of HR's size, or LR of a quarter of its size."""
        largest = max(image.shape[-1] for image in images)
        if self.side is None or self.side == largest:
            return images
        places = (largest - self.side) // UNIT + 1
        top, left = (int(place) for place in numbers.integers(0, places, 2))
        found = []
        for image in images:
            unit = UNIT * image.shape[-1] // largest
            side = self.side // UNIT * unit
            rows, columns = (slice(n * unit, n * unit + side) for n in (top, left))
            found.append(image[..., rows, columns])
        return tuple(found)


def _levels(images: Tensor) -> Tensor:
    return (images * 255).round().byte().cpu().contiguous()


def _digest(images: Tensor) -> str:
    levels = _levels(images).numpy()
    return hashlib.sha256(str(levels.shape).encode() + levels.tobytes()).hexdigest()[:32]
