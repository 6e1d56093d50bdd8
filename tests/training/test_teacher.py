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
from sr_cli.training.pairs import Degraded, Pairs
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
@pytest.mark.parametrize("side", [None, 16])
def test_the_second_epoch_does_not_ask_the_teacher(
    shapes: Path, tmp_path: Path, which: int, *, epoch: int | None, asked: int, side: int | None
) -> None:
    """Five iterations of four crops, in epochs of two iterations (6 crops, rounded up)."""
    network = Counting()
    objective = objectives(Teacher(network, "mine", tmp_path / "kept", side=side))[which]
    settings = TrainOptions(shapes, tmp_path, iterations=5, batch=4, crop=32, workers=0)
    list(Trainer(objective, replace(settings, epoch=epoch)).run())
    assert network.shown == asked


def degraded(hr: Tensor, rng: Randomness) -> tuple[Tensor, Tensor]:
    """Noise, so that another draw would be another answer, and LR as it is."""
    height, width = hr.shape[-2] // 4, hr.shape[-1] // 4
    lr = torch.rand(len(hr), 3, height, width, generator=rng.fields)
    return lr, lr


def enlarged(hr: Tensor, rng: Randomness) -> tuple[Tensor, Tensor]:
    lr, _ = degraded(hr, rng)
    return lr, interpolate(lr, scale_factor=4, mode="nearest")


def crops(seed: int, side: int = 32) -> Tensor:
    return torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(seed))


def close(one: Tensor, other: Tensor) -> bool:
    """Of 8 bit."""
    return float((one - other).abs().max()) <= 1.02 / 255


def test_the_target_is_the_teachers_answer_to_this_very_lr(tmp_path: Path) -> None:
    """Also when it comes again; other crops are degraded otherwise."""
    network = Counting()
    teacher, sources = Teacher(network, "mine", tmp_path), []
    for seed in (0, 1, 0):
        source, answer = teacher.lesson(crops(seed), enlarged)
        assert source.shape == answer.shape == (2, 3, 32, 32)
        assert close(answer, 1 - source)
        sources.append(source)
    assert torch.equal(sources[0], sources[2])
    assert not close(sources[0], sources[1])
    assert network.shown == 4


def test_a_share_of_the_crops_is_taught_always_the_same(tmp_path: Path) -> None:
    teacher = Teacher(Counting(), "mine", tmp_path, share=0.3)
    taught = [teacher.teaches(crops(seed, 4)) for seed in range(300)]
    assert sum(taught) == pytest.approx(90, abs=4 * (300 * 0.3 * 0.7) ** 0.5)
    assert taught == [teacher.teaches(crops(seed, 4)) for seed in range(300)]
    assert all(Teacher(Counting(), "", tmp_path).teaches(crops(seed, 4)) for seed in range(50))
    for wrong in (0.0, 1.5):
        with pytest.raises(UsageError, match="--teacher-share"):
            Teacher(Counting(), "mine", tmp_path, share=wrong)


def test_crops_that_are_not_taught_are_degraded_anew(tmp_path: Path) -> None:
    """And aim at themselves; those that are taught come again as they were."""
    hr, never = crops(0), Teacher(Counting(), "mine", tmp_path, share=1e-9)
    always = Teacher(Counting(), "mine", tmp_path)
    for teacher, taught in ((never, False), (always, True)):
        one, other = (
            Pairs.of(hr, Randomness.keyed(CPU, seed), teacher, enlarged) for seed in (0, 1)
        )
        assert one.taught.bool().tolist() == [taught] * 2
        assert torch.equal(one.source, other.source) == taught
        assert torch.equal(one.target, hr) != taught
        assert torch.equal(one.hr, hr)


@pytest.mark.parametrize("source", [enlarged, degraded])
def test_windows_are_of_the_same_place_and_of_any(tmp_path: Path, source: Degraded) -> None:
    teacher, hr = Teacher(Counting(), "mine", tmp_path, side=16), crops(0)
    whole = teacher.lesson(hr, source)
    places = set()
    for seed in range(60):
        pairs = Pairs.of(hr, Randomness.keyed(CPU, seed), teacher, source)
        assert pairs.hr.shape == pairs.target.shape == (2, 3, 16, 16)
        unit = 4 * pairs.source.shape[-1] // 16
        (place,) = (
            (top, left)
            for top in range(5)
            for left in range(5)
            if torch.equal(hr[..., 4 * top :, 4 * left :][..., :16, :16], pairs.hr)
        )
        top, left = place
        for image, part, step in ((whole[0], pairs.source, unit), (whole[1], pairs.target, 4)):
            found = image[..., top * step :, left * step :][..., : 4 * step, : 4 * step]
            assert torch.equal(found, part)
        places.add(place)
    assert len(places) > 15
    assert teacher.network.shown == 2  # type: ignore[attr-defined]


def test_a_window_of_what_is_not_taught_is_cut_before_it_is_degraded(tmp_path: Path) -> None:
    teacher = Teacher(Counting(), "mine", tmp_path, share=1e-9, side=16)
    shown = []

    def looked_at(hr: Tensor, rng: Randomness) -> tuple[Tensor, Tensor]:
        shown.append(hr.shape[-1])
        return degraded(hr, rng)

    assert Pairs.of(crops(0), Randomness.keyed(CPU, 0), teacher, looked_at).hr.shape[-1] == 16
    assert shown == [16]
