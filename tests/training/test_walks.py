"""The states at which embedded learns are those that the engine's walk visits."""

from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import TINY
from torch import Tensor

from sr_cli.degradation.degrade import Randomness
from sr_cli.diffusion.solvers import start
from sr_cli.engine.sampling import Walk
from sr_cli.engine.states import Noise
from sr_cli.engine.steps import Course
from sr_cli.engine.tiling import Tiler, ignore
from sr_cli.errors import UsageError
from sr_cli.models.embedded import EmbeddedDenoiser
from sr_cli.models.network import EmbeddedNet
from sr_cli.training.criterion import Criterion, Truth
from sr_cli.training.objectives import Mix
from sr_cli.training.objectives_walk import WalkObjective
from sr_cli.training.sharpening import sharpened
from sr_cli.training.teacher import Teacher
from sr_cli.training.walks import LENGTHS, STARTS, Stage

CPU = torch.device("cpu")
CLEAN = Mix(1, 0, 0)


@pytest.fixture
def objective(tiny_vgg: None) -> WalkObjective:
    torch.manual_seed(0)
    made = WalkObjective(TINY, preprocess=None, mix=CLEAN, criterion=Criterion(1.0))
    for parameter in made.model.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.05)
    return made


class Visited(EmbeddedDenoiser):
    """Keeps the states that it is shown."""

    def __init__(self, net: EmbeddedNet) -> None:
        super().__init__(net, trained=WalkObjective.LOG_RATIO)
        self.states: list[Tensor] = []

    def predict_x0(self, x: Tensor, **levels: object) -> Tensor:
        self.states.append(x.clone())
        return super().predict_x0(x, **levels).clone()  # type: ignore[arg-type]


def by_the_engine(net: EmbeddedNet, stage: Stage, y: Tensor, noise: Noise) -> list[Tensor]:
    denoiser = Visited(net)
    tiler = Tiler(CPU, 1, [0], margin=0, multiple=16)
    course = Course(stage.path, stage.steps, start(stage.path, stage.steps[0].s))
    walk = Walk(denoiser, course, tiler=tiler, timer=lambda _: nullcontext())
    walk([(y, y)], [noise], ignore)
    return denoiser.states


@pytest.mark.parametrize("seed", range(6))
def test_own_states_are_those_of_the_engines_walk(objective: WalkObjective, seed: int) -> None:
    """And the one before, or after right answers, is another."""
    random = torch.Generator().manual_seed(seed)
    y, x0 = (torch.randn(1, 3, 32, 32, generator=random) for _ in range(2))
    drawn = Noise(seed, b"picture", 3, CPU)
    zs = [drawn(step, (slice(0, 32), slice(0, 32))) for step in range(6)]
    stage = Stage.draw(np.random.default_rng(seed))
    assert isinstance(objective.model, EmbeddedNet)
    visited = by_the_engine(objective.model, stage, y, drawn)

    noise = iter(zs)
    recover = partial(objective.recover, stage, y, torch.ones(1))
    begun = stage.begin(y, next(noise))
    first = recover(begun, 0)
    state = stage.arrive(begun, y, first, recover, lambda: next(noise))
    torch.testing.assert_close(begun, visited[0])
    torch.testing.assert_close(state, visited[stage.taken])
    assert not torch.allclose(state, visited[stage.taken - 1], atol=1e-3)
    assert not torch.allclose(state, stage.true(x0, y, zs[stage.taken]), atol=1e-3)
    assert first.requires_grad
    assert not state.requires_grad


def test_the_truth_is_looked_at_once_and_every_answer_once(
    objective: WalkObjective, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[bool] = []
    lpips = objective.criterion.lpips
    features = lpips.features

    def counted(image: Tensor) -> list[Tensor]:
        seen.append(image.requires_grad)
        return features(image)

    monkeypatch.setattr(lpips, "features", counted)
    loss = objective.loss(torch.rand(4, 3, 32, 32), Randomness.keyed(CPU, 0))
    loss.backward()  # type: ignore[no-untyped-call]
    assert seen == [False, True, True]
    assert all(p.grad is not None for p in objective.model.parameters())


@pytest.mark.parametrize("later", [0.0, 1.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_one_state_is_learnt_where_a_share_is_given(
    objective: WalkObjective, monkeypatch: pytest.MonkeyPatch, later: float, dtype: torch.dtype
) -> None:
    """And all of the network has a gradient from it, also after it was asked without one."""
    objective.later = later
    learnt: list[bool] = []
    recover = objective.recover

    def seen(stage: Stage, y: Tensor, texture: Tensor, state: Tensor, number: int) -> Tensor:
        answer = recover(stage, y, texture, state, number)
        if answer.requires_grad:
            learnt.append(number > 0)
        return answer

    monkeypatch.setattr(objective, "recover", seen)
    for seed in range(8):
        objective.model.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
            loss = objective.loss(torch.rand(2, 3, 32, 32), Randomness.keyed(CPU, seed))
        loss.backward()  # type: ignore[no-untyped-call]
        assert all(p.grad is not None for p in objective.model.parameters())
    assert learnt == [bool(later)] * 8


def test_both_states_count_alike_where_no_share_is_given(objective: WalkObjective) -> None:
    """Which is the mean of what each of them costs alone, of the same draws."""
    hr = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    found = {}
    for later in (None, 0.0, 1.0):
        objective.later = later
        found[later] = objective.loss(hr, Randomness.keyed(CPU, 3)).item()
    assert found[None] == pytest.approx((found[0.0] + found[1.0]) / 2, rel=1e-6)
    assert found[0.0] != pytest.approx(found[1.0], rel=1e-4)
    for wrong in (-0.1, 1.1, float("nan")):
        with pytest.raises(UsageError, match="--later must be 0 to 1"):
            WalkObjective(
                TINY, preprocess=None, mix=CLEAN, criterion=objective.criterion, later=wrong
            )


class Grey:
    """A teacher's network whose answer is the same everywhere."""

    scale, margin = 4, 0

    def __call__(self, lr: Tensor) -> Tensor:
        return torch.full((len(lr), 3, 4 * lr.shape[-2], 4 * lr.shape[-1]), 0.6)


@pytest.mark.parametrize("share", [1.0, 1e-9])
def test_without_texture_the_hr_is_aimed_at_and_a_mask_sharpens_it_alone(
    tiny_vgg: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, share: float
) -> None:
    objective = WalkObjective(
        replace(TINY, dial=True),
        preprocess=None,
        mix=CLEAN,
        criterion=Criterion(1.0),
        teacher=Teacher(Grey(), "grey", tmp_path, share=share),
        sharpen=0.5,
    )
    hr, aims = torch.rand(8, 3, 32, 32, generator=torch.Generator().manual_seed(0)), []
    truth = objective.criterion.truth

    def kept(*arguments: Any, **settings: Any) -> Truth:
        aims.append(truth(*arguments, **settings))
        return aims[0]

    monkeypatch.setattr(objective.criterion, "truth", kept)
    objective.loss(hr, Randomness.keyed(CPU, 0))
    (aim,), taught, photograph = aims, share == 1, 2 * hr - 1
    none, full = aim.texture == 0, aim.texture == 1
    assert none.any()
    assert full.any()
    torch.testing.assert_close(aim.image[none], photograph[none])
    assert torch.equal(aim.taught, aim.texture if taught else torch.zeros(8))
    expected = sharpened(photograph, torch.full((8,), 0.5))
    if taught:
        expected = torch.full_like(photograph, 2 * 0.6 - 1)
    torch.testing.assert_close(aim.image[full], expected[full])
    assert not torch.allclose(aim.image[full], photograph[full], atol=0.01)


def test_with_right_answers_the_true_state_has_the_walks_mean(objective: WalkObjective) -> None:
    """Without noise, both are a·x0 + m·y, to what the start's η of almost 1 leaves."""
    stage = Stage.draw(np.random.default_rng(1))
    y, x0 = torch.full((1, 3, 16, 16), -2.0), torch.full((1, 3, 16, 16), 2.0)
    zero = torch.zeros_like(y)
    begun = stage.begin(y, zero)
    state = stage.arrive(begun, y, x0, lambda *_: x0, lambda: zero)
    torch.testing.assert_close(state, stage.true(x0, y, zero), atol=1e-3, rtol=0)
    assert not torch.allclose(stage.true(y, y, zero), state, atol=1e-2)


def test_every_start_and_length_is_drawn_and_a_step_is_always_left() -> None:
    pick = np.random.default_rng(0)
    stages = [Stage.draw(pick) for _ in range(400)]
    assert {stage.steps[0].s for stage in stages} == {t1 - 1 for t1 in STARTS}
    assert {len(stage.steps) for stage in stages} == set(LENGTHS)
    assert all(1 <= stage.taken < len(stage.steps) for stage in stages)
    assert {stage.taken for stage in stages} == {1, 2, 3, 4}
