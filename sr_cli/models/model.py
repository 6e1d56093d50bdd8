"""A diffusion model, ready for the engine: its denoiser, its codec and what it is used with."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

from torch import nn

from sr_cli.diffusion.names import LastStep
from sr_cli.diffusion.prf import Thresholds
from sr_cli.diffusion.schedules import Array, alpha_bar
from sr_cli.models.limits import STEPS
from sr_cli.models.protocol import Codec, Denoiser, Preprocessor

Tiling = Literal["exact", "blend"]


@dataclass(frozen=True)
class Model:
    """What the engine needs to know.

    schedule: name of ᾱ in `diffusion.schedules`, or ᾱ itself, float64 (T,).
    last_step: what the last solver step returns.
    multiple_of: sides of the state. margin: context of a tile in output pixels: what makes it
    exact, or what a blended tile shares with each neighbour.
    bytes_per_pixel: peak memory of one network call, for each output pixel of a float32 window.
    cell: output pixels along a side of a state's cell (1: pixel space). channels: of the state.
    tiling: "exact" for a finite receptive field; "blend" where a network sees the whole window
    (attention, group norm), so that overlapping windows are averaged. tile: side of such a window
    in output pixels (a multiple of cell · multiple_of), None for exact tiling.
    preprocess: name, checkpoint or network that is used where the user chooses none.
    t1, steps: start of the diffusion and network calls where the user chooses none.
    dial: the denoiser for a texture of 0…1, of a model that can be told how much is wanted.
    texture: of a model with a dial, how much where the user chooses none.
    weave: output pixels along a side of the cells whose pattern is taken out of a result (0: none).
    networks: what torch.compile may take: modules that are called, as it compiles no methods.
    identity: SHA-256 of the weights, by which calibrations are kept.
    prf: ω, C^S and C^F of a prior that has its own.
    """

    denoiser: Denoiser
    codec: Codec
    schedule: str | Array
    last_step: LastStep
    multiple_of: int
    margin: int
    bytes_per_pixel: int
    cell: int = 1
    channels: int = 3
    tiling: Tiling = "exact"
    tile: int | None = None
    preprocess: str | Preprocessor = "compact"
    t1: int = 500
    steps: int = STEPS
    dial: Callable[[float], Denoiser] | None = None
    texture: float = 1.0
    weave: int = 0
    networks: Sequence[nn.Module] = ()
    identity: str = ""
    prf: Thresholds | None = None

    @cached_property
    def alpha_bar(self) -> Array:
        """ᾱ of the model's own schedule, float64 (T,)."""
        return alpha_bar(self.schedule) if isinstance(self.schedule, str) else self.schedule

    def textured(self, texture: float | None) -> "Model":
        """The model with its dial at `texture`, None: at its own; itself where it has no dial."""
        if self.dial is None:
            return self
        return replace(self, denoiser=self.dial(self.texture_of(texture)))

    def steps_of(self, steps: int | None) -> int:
        """What a user's choice means: None is the model's own."""
        return self.steps if steps is None else steps

    def texture_of(self, texture: float | None) -> float:
        """What a user's choice means: None is the model's own."""
        return self.texture if texture is None else texture
