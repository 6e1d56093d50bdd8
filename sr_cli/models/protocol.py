"""What the engine knows of a model: three protocols, and no model's name.

Images are (N, 3, H, W) float32 tensors, RGB in [0, 1]; "state" is the space where diffusion runs.
What limits a model (scale, multiples, margins, trained t1) is data in its card, not in code.
"""

from collections.abc import Callable, Iterator
from typing import Protocol, runtime_checkable

from torch import Tensor

from sr_cli.diffusion.path import Moment


class Denoiser(Protocol):
    """A network that recovers the target x0; ε-, v- and residual networks convert inside."""

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
        """E[x0 | x, y] for x = a·x0 + m·y + sigma·ε, ε ~ N(0, I).

        x, y, hint, result: (N, C, H, W) float32 states, H and W multiples of what the card says; y
        is the source (the upscaled LR image) and hint what the network is conditioned on, as the
        codec gives them; x0 and y are about [−1, 1] in pixel space. On the path of DoSSR Eq. 2
        alpha = √ᾱ_t, sigma = √(1 − ᾱ_t), a = alpha·(1 − η_t), m = alpha·η_t; t is the index 0…T−1.
        An unconditional network ignores y and hint.
        """
        ...


class RowsOfX0(Protocol):
    """`predict_x0` of one picture whose rows come from above to below, (1, C, h, W) at a time."""

    def __call__(self, x: Tensor, y: Tensor) -> Iterator[Tensor]:
        """Take the next rows, a multiple of what the card says, float32; what the network makes of
        those rows that can be told by now: later than they come, after the last ones all."""
        ...

    def x0(self, x: Tensor, y: Tensor, output: Tensor) -> Tensor:
        """E[x0 | x, y] of rows, from what went in there and what came out."""
        ...


@runtime_checkable
class DenoiserByRows(Protocol):
    """A denoiser of a finite receptive field that takes a picture row by row."""

    def by_rows(self, height: int, moment: Moment) -> RowsOfX0:
        """For one picture of so many rows, a multiple of what the card says, at this time."""
        ...


class Codec(Protocol):
    """Between images and the space where diffusion runs (pixels, or an autoencoder's latents)."""

    def encode(self, image: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Image (N, 3, H, W) in [0, 1] → source y and hint, both states (N, C, h, w).

        noise: ~ N(0, 1), of y's shape, for an encoder that samples its y. Pixel space ignores it
        and gives y itself as hint. DoSSR: y = 0.18215 × a sample of the VAE's posterior, hint =
        0.18215 × the mean of the condition encoder's.
        """
        ...

    def decode(self, state: Tensor) -> Tensor:
        """State (N, C, h, w) → image (N, 3, H, W), about [0, 1] but not clamped."""
        ...


class Preprocessor(Protocol):
    """A regression network that turns the LR image into the source y of the diffusion."""

    @property
    def scale(self) -> int:
        """Factor between LR and output, 1…8; the engine resizes what is left to the target."""
        ...

    @property
    def margin(self) -> int:
        """LR pixels of context around a tile: exact for a finite receptive field that is small,
        otherwise an overlap wide enough that no seam shows."""
        ...

    def __call__(self, lr: Tensor) -> Tensor:
        """LR (N, 3, H, W) in [0, 1], any H, W ≥ 1 → (N, 3, scale·H, scale·W) clamped to [0, 1]."""
        ...


@runtime_checkable
class PreprocessorByRows(Protocol):
    """A preprocessor of a finite receptive field that takes a picture row by row."""

    @property
    def scale(self) -> int:
        """As of a `Preprocessor`."""
        ...

    def by_rows(self, height: int) -> Callable[[Tensor], Iterator[Tensor]]:
        """For one picture of so many rows: what takes the next ones, (1, 3, n, W), and gives those
        of the result that can be told by now, in the end all."""
        ...
