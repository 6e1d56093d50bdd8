"""A teacher: what another network makes of an LR image as the target of training."""

import hashlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sr_cli.degradation.degrade import Randomness
from sr_cli.errors import UsageError
from sr_cli.files import whole, writing
from sr_cli.models.protocol import Preprocessor
from sr_cli.models.resampling import resize


class Teacher:
    """Answers of `network`, each kept in a file below `folder`, so that it is computed once.

    name: for the card. share: of the parts of a batch that have the answer as their target instead
    of the HR. Raises UsageError unless 0 < share ≤ 1.
    """

    def __init__(
        self, network: Preprocessor, name: str, folder: Path, *, share: float = 1.0
    ) -> None:
        if not 0 < share <= 1:
            raise UsageError(f"--teacher-share must be more than 0 and at most 1, not {share}.")
        self.network, self.name, self.folder, self.share = network, name, folder, share

    def describe(self) -> str:
        """For a card."""
        return f"answers of {self.name} instead of the HR in {self.share:.0%} of the parts"

    def randomness(self, hr: Tensor) -> Randomness:
        """For the degradation of (N, 3, H, W): the same crops are always degraded in one way."""
        return Randomness.keyed(hr.device, int(_digest(hr), 16))

    def target(self, lr: Tensor, hr: Tensor, rng: Randomness) -> Tensor:
        """(N, 3, H, W) in [0, 1] of HR's size: the answer to LR, of 8 bit, or HR itself.

        Raises ModelError when the folder cannot be written.
        """
        if rng.numbers.random() >= self.share:
            return hr
        size = (hr.shape[-2], hr.shape[-1])
        file = self.folder / f"{_digest(lr)}-{size[0]}x{size[1]}.npy"
        if file.is_file():
            levels = torch.from_numpy(np.load(file))
        else:
            with torch.autocast(lr.device.type, enabled=False):  # deep ones would round visibly
                answer = resize(self.network(lr), size).clamp(0, 1)
            levels = (answer * 255).round().byte().cpu()
            with writing(self.folder), whole(file) as partial, partial.open("wb") as stream:
                np.save(stream, levels.numpy())
        return levels.to(hr.device).float() / 255


def _digest(images: Tensor) -> str:
    levels = (images * 255).round().byte().cpu().contiguous().numpy()
    return hashlib.sha256(str(levels.shape).encode() + levels.tobytes()).hexdigest()[:32]
