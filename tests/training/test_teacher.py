"""A teacher's answers: computed once, the same when the same crops come again."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from sr_cli.degradation.degrade import Randomness
from sr_cli.errors import UsageError
from sr_cli.models.network import EmbeddedConfig
from sr_cli.training.objectives import CompactObjective, EmbeddedObjective, Mix, Objective
from sr_cli.training.teacher import Teacher
from sr_cli.training.train import Trainer, TrainOptions

CPU = torch.device("cpu")
HEAVY = Mix(0, 0.5, 0.5)


class Counting:
    """A preprocessor that counts the images that it is shown."""

    scale, margin = 4, 0

    def __init__(self) -> None:
        self.shown = 0

    def __call__(self, lr: Tensor) -> Tensor:
        self.shown += len(lr)
        return 1 - interpolate(lr, scale_factor=4, mode="nearest")


def objectives(teacher: Teacher) -> list[Objective]:
    torch.manual_seed(0)
    config = EmbeddedConfig((8, 8, 8), (1, 1, 1), embed=8)
    return [
        CompactObjective(features=8, convolutions=2, mix=HEAVY, teacher=teacher),
        EmbeddedObjective(config, preprocess=Counting(), mix=HEAVY, teacher=teacher),
    ]


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize(("epoch", "asked"), [(6, 8), (None, 20)])
def test_the_second_epoch_does_not_ask_the_teacher(
    shapes: Path, tmp_path: Path, which: int, epoch: int | None, asked: int
) -> None:
    """Five iterations of four crops, in epochs of two iterations (6 crops, rounded up)."""
    network = Counting()
    objective = objectives(Teacher(network, "mine", tmp_path / "kept"))[which]
    settings = TrainOptions(shapes, tmp_path, iterations=5, batch=4, crop=32, workers=0)
    list(Trainer(objective, replace(settings, epoch=epoch)).run())
    assert network.shown == asked


def test_the_target_is_the_teachers_answer_to_this_very_lr(tmp_path: Path) -> None:
    teacher = Teacher(Counting(), "mine", tmp_path)
    lr, other = torch.rand(2, 2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    hr, rng = torch.zeros(2, 3, 32, 32), Randomness.keyed(CPU, 0)
    for images in (lr, other, lr):
        expected = 1 - interpolate(images, scale_factor=4, mode="nearest")
        found = teacher.target(images, hr, rng)
        assert float((found - expected).abs().max()) <= 0.51 / 255
    assert teacher.target(lr, torch.zeros(2, 3, 24, 24), rng).shape == (2, 3, 24, 24)


def test_a_share_of_the_targets_is_hr(tmp_path: Path) -> None:
    teacher = Teacher(Counting(), "mine", tmp_path, share=0.3)
    lr, hr, rng = torch.rand(1, 3, 4, 4), torch.full((1, 3, 16, 16), 9.0), Randomness.keyed(CPU, 0)
    answers = sum(bool((teacher.target(lr, hr, rng) < 2).all()) for _ in range(300))
    assert answers == pytest.approx(90, abs=4 * (300 * 0.3 * 0.7) ** 0.5)
    for wrong in (0.0, 1.5):
        with pytest.raises(UsageError, match="--teacher-share"):
            Teacher(Counting(), "mine", tmp_path, share=wrong)
