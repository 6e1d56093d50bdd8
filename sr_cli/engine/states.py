"""Pictures of one size on their way through a walk: states side by side, advanced in one pass."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sr_cli.device import side_by_side
from sr_cli.diffusion.noise import add_noise, digest, gaussian_noise, noise_key, noise_keys
from sr_cli.diffusion.solvers import Step
from sr_cli.engine.tiling import Window
from sr_cli.models import fused

ENCODING = -1
"""The step of a codec's draw."""
PART = 2**24
"""Values that are advanced at a time: states in files pass through memory in parts."""

Buffer = Callable[[tuple[int, ...]], Tensor]
"""A shape → an uninitialised float32 tensor where states live."""


@dataclass(frozen=True)
class Noise:
    """A picture's own noise, as it is known by its digest, on a device."""

    seed: int
    picture: bytes
    channels: int
    device: torch.device

    @classmethod
    def of(cls, lr: Tensor, seed: int, channels: int, device: torch.device) -> "Noise":
        """Of an LR picture, (3, h, w) float32 or uint8, which is known by its 8-bit levels."""
        bits = lr if lr.dtype == torch.uint8 else (lr * 255).round().to(torch.uint8)
        return cls(seed, digest(bits.cpu().numpy()), channels, device)

    def key(self, step: int) -> int:
        """The generator's key of a step: 0 is the start, ENCODING the codec."""
        return noise_key(self.seed, self.picture, step)

    def __call__(self, step: int, window: Window) -> Tensor:
        """z of a step in a window of cells: (1, C, h, w) float32."""
        rows, cols = ((side.start, side.stop) for side in window)
        keys = noise_keys([self.key(step)], self.device)
        with side_by_side(keys.device) as each:
            z = gaussian_noise(keys, rows, cols, self.channels, each=each)
        return z.to(self.device)


def place_of(number: int, depth: int) -> int:
    """The place beside y, which has 0, of what is predicted in the step of this number (from 1),
    where `depth` predictions are looked back on."""
    return 1 + (number - 1) % depth


def weights_of(steps: Sequence[Step], number: int, depth: int) -> list[float]:
    """Of y and the predictions in their places, in the step of this number."""
    step = steps[number - 1]
    weights = [step.y, *([0.0] * depth)]
    for ago, weight in enumerate(step.x0):
        weights[place_of(number - ago, depth)] = weight
    return weights


class States:
    """x, the source y, the hint and the predictions of x0 of N pictures of one size.

    All are (N, C, H, W) float32. Coefficients and noise keys of all steps are put beside them at
    the start, so that nothing crosses to or from the device between the steps.
    """

    def __init__(
        self,
        sources: Sequence[tuple[Tensor, Tensor]],
        noises: Sequence[Noise],
        steps: Sequence[Step],
        buffer: Buffer,
    ) -> None:
        """sources: y and hint of each picture, (1, C, H, W)."""
        shape = (len(sources), *sources[0][0].shape[1:])
        self.depth = max(len(step.x0) for step in steps)  # predictions looked back on
        self.steps = steps
        self.x = buffer(shape)
        self.terms = buffer((1 + self.depth, *shape))  # y, and predictions in turn
        shared = all(hint is y for y, hint in sources)
        self.hint = self.terms[0] if shared else buffer(shape)
        for i, (y, hint) in enumerate(sources):
            self.terms[0, i].copy_(y[0])
            if not shared:
                self.hint[i].copy_(hint[0])
        device = self.x.device
        keys = [noise.key(step) for step in range(len(steps) + 1) for noise in noises]
        self.keys = noise_keys(keys, device).view(-1, len(noises))
        self.weights = torch.tensor(
            [weights_of(steps, number, self.depth) for number in range(1, len(steps) + 1)],
            device=device,
        )

    def read(self, picture: int, window: Window) -> tuple[Tensor, Tensor, Tensor]:
        """x, y and hint of one picture there, (1, C, h, w)."""
        place = (slice(picture, picture + 1), ..., *window)
        return self.x[place], self.terms[0][place], self.hint[place]

    def predictions(self, number: int) -> list[Tensor]:
        """Where the x0 of each picture, (1, C, H, W), predicted in that step belongs."""
        return list(self.terms[place_of(number, self.depth), :, None])

    def start(self, source: float, noise: float) -> None:
        """x = source·y + noise·z."""
        torch.mul(self.terms[0], source, out=self.x)
        noised(self.x, self.keys[0], noise)

    def advance(self, number: int) -> None:
        """x after the step of this number: x·x + Σ weights·terms in one pass, and noise; what was
        predicted, not copied, where that is all, as at the end of a path."""
        step, used = self.steps[number - 1], 1 + min(number, self.depth)
        if not (step.x or step.y or step.noise) and step.x0 == (1.0,):
            self.x = self.terms[place_of(number, self.depth)]
            return
        x, terms = self.x.flatten(), self.terms[:used].flatten(1)
        weights = self.weights[number - 1, :used]
        for begin in range(0, len(x), PART):
            part = slice(begin, begin + PART)
            x[part].addmv_(terms[:, part].T, weights, beta=step.x)
        if step.noise:
            noised(self.x, self.keys[number], step.noise)


def noised(x: Tensor, keys: Tensor, scale: float) -> Tensor:
    """`add_noise` in the quickest way there is where x lives; the same bits."""
    if fused.serves(x):
        fused.add_noise(x, keys, scale)
        return x
    with side_by_side(x.device) as each:
        return add_noise(x, keys, scale, each=each)
