"""Of several seeds the one that its input and a judge rank first; scores of all are told."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from sr_cli.engine.arrays import FLOATS, Form
from sr_cli.engine.choice import Judge, best_of, disagreement
from sr_cli.engine.options import UpscaleOptions
from sr_cli.engine.upscaler import Upscaler
from sr_cli.errors import UsageError
from sr_cli.models.resampling import resize

LR = torch.linspace(0.3, 0.7, 16).expand(3, 12, 16).contiguous()
ENLARGED = resize(LR[None], (48, 64))[0].clamp(0, 1)


class Fake:
    """Draws whose disagreement with the input and whose mark are given by the seed."""

    def __init__(self, shifts: Sequence[float], judge: Judge | None = None) -> None:
        self.options = UpscaleOptions(best_of=len(shifts), seed=5)
        self.shifts, self.judge = shifts, judge

    def using(self, **changes: Any) -> "Fake":
        other = Fake(self.shifts, self.judge)
        other.options = replace(self.options, **changes)
        return other

    def together(
        self, lrs: Any, *, forms: Any, on_step: Any, on_note: Any, **_: Any
    ) -> list[Tensor]:
        assert self.options.best_of == 1
        image = (ENLARGED + self.shifts[self.options.seed - 5] / 255).clamp(0, 1)
        for i in range(len(lrs)):
            on_step(i, 1, 2)
            on_note(i, "its own")
        form = forms[0]
        if form.bits == 8:
            image = (image * 255).round().to(torch.uint8)
        return [image] * len(lrs)


def chosen(fake: Fake, form: Form = FLOATS) -> tuple[int, list[str], list[tuple[int, int, int]]]:
    """The seed, the notes and the steps."""
    notes: list[str] = []
    steps: list[tuple[int, int, int]] = []
    best_of(
        fake,
        [LR],
        [LR],
        [form],
        lambda *told: steps.append(told),
        lambda _, text: notes.append(text),
    )
    return int(notes[-1].split()[1]), notes, steps


def marks(values: Sequence[float]) -> Judge:
    given = iter(values)
    return Judge("mark", "higher", lambda _: next(given))


def test_without_a_judge_the_nearest_to_the_input_is_kept() -> None:
    seed, notes, steps = chosen(Fake((6, 1, -9)))
    assert seed == 6
    assert notes[0] == "its own"
    assert len(notes) == 2
    assert "of 5 to 7" in notes[1]
    assert steps == [(0, 1, 6), (0, 3, 6), (0, 5, 6)]
    assert chosen(Fake((6, 4, 0)))[0] == 7


def test_the_sum_of_both_ranks_decides_and_agreement_breaks_ties() -> None:
    assert chosen(Fake((6, 1, -9), marks((2, 3, 1))))[0] == 6  # first by both
    assert chosen(Fake((6, 1, 3), marks((3, 1, 2))))[0] == 6  # ranks 2+0, 0+2, 1+1: the nearest
    assert chosen(Fake((6, 1, 3), marks((1, 2, 3))))[0] == 6  # 2+2, 0+1, 1+0: the nearest again
    assert chosen(Fake((6, 1, 3, 9), marks((2, 1, 4, 3))))[0] == 7  # 2+2, 0+3, 1+0, 3+1
    undefined = Judge("mark", "lower", lambda _: None)
    assert chosen(Fake((6, 1, 3), undefined))[0] == 6


@pytest.mark.parametrize("form", [FLOATS, Form(8)])
def test_scores_are_of_the_result_whatever_its_form(form: Form) -> None:
    _, notes, _ = chosen(Fake((6, 1), marks((1, 0.5))), form)
    assert "levels from the input (6." in notes[-1]
    assert "mark (1.00, 0.50)" in notes[-1]


def test_disagreement_is_in_levels() -> None:
    grey = torch.full((3, 8, 8), 0.5)
    assert disagreement(torch.full((3, 32, 32), 0.5 + 3 / 255), grey) == pytest.approx(3, abs=1e-3)
    levels = torch.full((3, 8, 8), 100, dtype=torch.uint8)
    assert disagreement(torch.full((3, 32, 32), 102 / 255), levels) == pytest.approx(2, abs=1e-3)


def test_the_engine_keeps_one_of_its_own_draws(tiny: Path) -> None:
    assert tiny
    options = UpscaleOptions(t1=500, steps=3, best_of=3, seed=2)
    engine = Upscaler(options, device="cpu", dtype="float32")
    notes: list[str] = []
    kept = engine(LR, on_note=notes.append)
    seed = int(notes[-1].split()[1])
    draws = {n: engine.using(best_of=1, seed=n)(LR) for n in (2, 3, 4)}
    assert torch.equal(kept, draws[seed])
    assert min(draws, key=lambda n: disagreement(draws[n], LR)) == seed
    assert not any(torch.equal(kept, draws[n]) for n in draws if n != seed)


@pytest.mark.parametrize("count", [0, 65])
def test_a_number_of_draws_that_makes_no_sense_is_refused(count: int) -> None:
    with pytest.raises(UsageError, match="best_of must lie between 1 and 64"):
        UpscaleOptions(best_of=count)
