"""What an answer is worth: its error, LPIPS on VGG16, patterns in it, a discriminator's opinion."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from sr_cli.errors import UsageError
from sr_cli.training.adversarial import Discriminator, real
from sr_cli.training.differences import DISTANCES, differences
from sr_cli.training.lattice import lattice
from sr_cli.training.perceptual import SHIFT, Lpips, any_offset, window

LATTICE = 1.5
"""Weight of the pattern that recurs from cell to cell, where nothing else is said."""
PLAIN = 0.25
"""Weight of differences where the HR is aimed at, beside where a teacher is: what is finest in a
photograph cannot be foreseen, and who is charged for it leaves it out."""
CELLS = (1, 4, 16)
"""Pixels of a side of cells."""
SMOOTH, BETWEEN = 1 / 8, 1 / 8
"""Shares of a batch that a network with a dial learns at texture 0, and somewhere from 0 to 1."""


@dataclass(frozen=True)
class Truth:
    """What the answers of a batch are compared with.

    image, source: (N, 3, H, W) in [−1, 1], and what the answers were made of. texture: (N,), how
    much of it is wanted. textured: numbers of the images where that is more than 0. offset: of the
    window whose features (of these images alone) are compared. taught: (N,), 1 where a teacher's
    answer is aimed at, 0 where the HR is.
    """

    image: Tensor
    source: Tensor
    texture: Tensor
    textured: Tensor
    offset: tuple[int, int]
    features: list[Tensor]
    taught: Tensor


class Criterion:
    """Mean absolute error + lattice · `lattice` + edges · `differences` + weight · LPIPS; then a
    discriminator, with `adversarial` > 0.

    The discriminator's gradient on an answer is scaled to be `adversarial` times as long as that of
    the rest, or shorter, so that no mean of it over cells of CELLS pixels is longer than that: one
    that agrees over many pixels, as that of a young discriminator does, moves a network far more
    than one of its length that does not, and what it moves are colours. Both it and LPIPS count in
    each image as much as texture is wanted there.

    Raises UsageError unless weight > 0 and the others ≥ 0, ModelError when VGG16's weights are
    missing.
    """

    def __init__(
        self,
        weight: float,
        *,
        adversarial: float = 0.0,
        lattice: float = LATTICE,
        edges: float = 0.0,
        device: str | torch.device = "cpu",
    ) -> None:
        if not (weight > 0 and min(adversarial, lattice, edges) >= 0):
            raise UsageError(
                "--feature-loss must be more than 0, and --adversarial, --lattice and --edges must "
                "not be negative."
            )
        self.weight, self.adversarial = weight, adversarial
        self.lattice, self.edges = lattice, edges
        self.lpips = Lpips().to(device)
        self.discriminator = Discriminator().to(device) if adversarial else None

    def describe(self) -> Mapping[str, Any]:
        loss = (
            f"mean absolute error + {self.weight:g} · LPIPS on VGG16 (five taps, windows "
            f"shifted by 0 to {SHIFT} pixels), images in [−1, 1]; + {self.lattice:g} · the error "
            "that recurs from cell to cell"
        )
        if self.edges:
            apart = " and ".join(map(str, DISTANCES))
            loss += (
                f" + {self.edges:g} · the mean absolute error of differences between pixels "
                f"{apart} apart ({PLAIN:g} of that where the HR is the target)"
            )
        described = {"loss": loss}
        if self.adversarial:
            described["adversarial"] = (
                "U-Net discriminator with spectral norm that is shown y too, its gradient at most "
                f"{self.adversarial:g} of the others', in means over cells too"
            )
        return described

    def truth(
        self,
        image: Tensor,
        texture: NDArray[np.float32],
        numbers: np.random.Generator,
        *,
        source: Tensor | None = None,
        taught: Tensor | None = None,
    ) -> Truth:
        """Of images (N, 3, H, W) in [−1, 1]: the features are computed here, once for all.

        source, taught: see `Truth`; None: nothing is known of it, and nowhere.
        """
        textured = torch.from_numpy(np.flatnonzero(texture)).to(image.device)
        offset, features = any_offset(numbers), []
        if len(textured):
            with torch.no_grad():
                features = self.lpips.features(window(image[textured], offset))
        wanted = torch.from_numpy(texture).to(image.device)
        taught = torch.zeros_like(wanted) if taught is None else taught
        source = torch.zeros_like(image) if source is None else source
        return Truth(image, source, wanted, textured, offset, features, taught)

    def __call__(self, answer: Tensor, truth: Truth) -> Tensor:
        """Scalar: its value is that of error and LPIPS, its gradient the discriminator's too.

        answer: (N, 3, H, W) float32. The discriminator's own gradients are added to its parameters.
        """
        with torch.enable_grad():
            seen = answer.detach().requires_grad_()
            value = self._value(seen, truth)
            (gradient,) = torch.autograd.grad(value, seen)
            if self.discriminator is not None:
                gradient = gradient + self._opinion(self.discriminator, seen, truth, gradient)
        # Nothing in value, it carries the gradient; VGG16's part of the graph is free by now.
        nothing: Tensor = ((answer - answer.detach()) * gradient).sum()
        return value.detach() + nothing

    def _value(self, seen: Tensor, truth: Truth) -> Tensor:
        difference = seen - truth.image
        error = difference.abs().mean() + self.lattice * lattice(difference)
        if self.edges:
            weights = PLAIN + (1 - PLAIN) * truth.taught
            error = error + self.edges * differences(difference, weights)
        if not len(truth.textured):
            return error
        distances: Tensor = self.lpips(window(seen[truth.textured], truth.offset), truth.features)
        return error + self.weight * (distances * truth.texture[truth.textured]).sum() / len(seen)

    def _opinion(
        self, discriminator: Discriminator, seen: Tensor, truth: Truth, gradient: Tensor
    ) -> Tensor:
        """The gradient that makes answers look real, of `adversarial` times the other's length."""
        known, made = (discriminator(x, truth.source) for x in (truth.image, seen.detach()))
        (real(known) + real(-made)).backward()  # type: ignore[no-untyped-call]
        (push,) = torch.autograd.grad(real(discriminator(seen, truth.source)), seen)
        push = push * truth.texture[:, None, None, None]
        shares = [_length(gradient, cell) / (_length(push, cell) + 1e-12) for cell in CELLS]
        return push * (self.adversarial * torch.stack(shares).min())


def any_textures(count: int, numbers: np.random.Generator) -> NDArray[np.float32]:
    """How much texture is wanted of each image of a batch, (N,): stratified, mostly 1."""
    position = (np.arange(count) + numbers.random(count)) / count
    between = np.where(position < SMOOTH + BETWEEN, numbers.random(count), 1.0)
    return numbers.permutation(np.where(position < SMOOTH, 0.0, between)).astype(np.float32)


def _length(gradient: Tensor, cell: int) -> Tensor:
    """Of an image's means over cells, on average."""
    length: Tensor = F.avg_pool2d(gradient, cell).flatten(1).norm(dim=1).mean()
    return length
