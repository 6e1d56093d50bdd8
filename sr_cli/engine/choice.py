"""Several seeds of one picture, of which one is kept: DoSSR's limitation, and what it asks for.

Seeds differ in details that the input does not decide. Kept is the one whose rank by agreement with
the input, added to its rank by a judge that needs no original, is the least.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, Self

from torch import Tensor

from sr_cli.engine.arrays import Form, levels
from sr_cli.engine.options import UpscaleOptions
from sr_cli.engine.tiling import OnNote, OnTile, ignore
from sr_cli.models.resampling import resize


@dataclass(frozen=True)
class Judge:
    """A metric without an original.

    score: of (3, H, W) float32 in [0, 1]; None where it is undefined.
    """

    name: str
    better: Literal["higher", "lower"]
    score: Callable[[Tensor], float | None]


class Draws(Protocol):
    """What an engine must be able to do."""

    @property
    def options(self) -> UpscaleOptions:
        """With the first seed, and how many."""
        ...

    @property
    def judge(self) -> Judge | None:
        """None: agreement alone counts."""
        ...

    def using(self, **changes: Any) -> Self:
        """The same with other options."""
        ...

    def together(
        self,
        lrs: Sequence[Tensor],
        *,
        sources: Sequence[Tensor] | None,
        forms: Sequence[Form],
        on_step: OnTile,
        on_note: OnNote,
    ) -> list[Tensor]:
        """Each picture enlarged."""
        ...


def best_of(  # noqa: PLR0917
    engine: Draws,
    lrs: Sequence[Tensor],
    sources: Sequence[Tensor],
    forms: Sequence[Form],
    on_step: OnTile,
    on_note: OnNote,
) -> list[Tensor]:
    """As `Upscaler.together`, of `options.best_of` seeds from `options.seed` on.

    A note says which seed was kept, and the scores of all. What the engine itself notes is told of
    the first seed. All draws are in memory at a time.
    """
    first, count = engine.options.seed, engine.options.best_of
    draws: list[list[Tensor]] = []
    for k in range(count):
        one = engine.using(best_of=1, seed=(first + k) % 2**64)
        step = _share(on_step, k, count)
        note: OnNote = on_note if k == 0 else ignore
        draws.append(one.together(lrs, sources=sources, forms=forms, on_step=step, on_note=note))
    kept = []
    for i, lr in enumerate(lrs):
        images = [draw[i] for draw in draws]
        shown = [_floats(image, forms[i]) for image in images]
        best, said = _chosen(shown, lr, first, engine.judge)
        on_note(i, said)
        kept.append(images[best])
    return kept


def disagreement(image: Tensor, lr: Tensor) -> float:
    """Mean absolute difference, in 8-bit levels, of a result made as small as its input.

    image: (3, H, W) float32 in [0, 1]; lr: (3, h, w), the same or uint8.
    """
    low = levels(lr.cpu())
    height, width = low.shape[-2:]
    smaller = resize(image[None], (height, width))[0].clamp(0, 1)
    return 255 * float((smaller - low).abs().mean())


def _chosen(
    images: Sequence[Tensor], lr: Tensor, first: int, judge: Judge | None
) -> tuple[int, str]:
    """Which is kept, and what a note says of it."""
    errors = [disagreement(image, lr) for image in images]
    places = _places(errors)
    told = [("levels from the input", errors)]
    scores = [judge.score(image) for image in images] if judge else []
    known = [score for score in scores if score is not None]
    if judge and len(known) == len(images):
        sign = -1 if judge.better == "higher" else 1
        places = [a + b for a, b in zip(places, _places([sign * x for x in known]), strict=True)]
        told.append((judge.name, known))
    best = min(range(len(images)), key=lambda i: (places[i], errors[i]))
    said = [
        f"{values[best]:.2f} {name} ({', '.join(f'{value:.2f}' for value in values)})"
        for name, values in told
    ]
    last = first + len(images) - 1
    return best, f"seed {first + best} of {first} to {last}: {'; '.join(said)}"


def _places(values: Sequence[float]) -> list[int]:
    """How many are smaller than each."""
    return [sum(other < value for other in values) for value in values]


def _floats(image: Tensor, form: Form) -> Tensor:
    """(3, H, W) float32 in [0, 1] of a result in its form, on the CPU."""
    scale = 1 if form.bits == 32 else 2**form.bits - 1
    return (image.cpu().float() / scale).expand(3, -1, -1)


def _share(on_step: OnTile, k: int, count: int) -> OnTile:
    """Tells of the k-th draw's steps as a part of all."""
    return lambda picture, done, total: on_step(picture, k * total + done, count * total)
