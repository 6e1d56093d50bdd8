"""What can be trained for what, with the first weights' shape or the default one."""

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import TINY

from sr_cli.errors import UsageError
from sr_cli.training.criterion import LATTICE
from sr_cli.training.objectives import CompactObjective, EmbeddedObjective, Mix
from sr_cli.training.objectives_walk import WalkObjective
from sr_cli.training.recipe import Recipe

pytestmark = pytest.mark.usefixtures("tiny", "tiny_vgg")


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"network": "prior", "feature_loss": 1}, "--feature-loss is of no use to prior"),
        ({"network": "prior", "teacher": "compact"}, "--teacher is of no use to prior"),
        ({"network": "prior", "dial": True}, "--dial is of no use to prior"),
        ({"network": "compact", "widen_from": "compact"}, "--widen-from is of no use to compact"),
        ({"network": "compact", "cap": 4}, "--cap is of no use to compact"),
        ({"init": "embedded", "widen_from": "embedded"}, "give one"),
        ({"adversarial": 0.3}, "--adversarial needs --feature-loss"),
        ({"dial": True}, "--dial needs --feature-loss"),
        ({"sharpen": 0.5}, "--sharpen needs --feature-loss"),
        ({"feature_loss": 2, "sharpen": -0.5}, "--sharpen must not be negative"),
        ({"edges": 1}, "--edges needs --feature-loss"),
        ({"lattice": 2}, "--lattice needs --feature-loss"),
        ({"later": 0.3}, "--later needs --feature-loss"),
        ({"feature_loss": 2, "edges": -1}, "--edges must not be negative"),
        ({"feature_loss": 2, "lattice": float("nan")}, "--lattice must not be negative"),
        (
            {"network": "compact", "feature_loss": 2, "later": 0.3},
            "--later is of no use to compact",
        ),
        ({"network": "compact", "sharpen": 0.5}, "--sharpen is of no use to compact"),
        ({"network": "prior", "edges": 1}, "--edges is of no use to prior"),
        ({"window": 96}, "--window needs --teacher"),
        ({"network": "prior", "window": 96}, "--window is of no use to prior"),
        ({"teacher": "compact", "window": 40}, "--window must be a multiple of 16"),
        ({"teacher": "compact", "window": 16}, "--window must be .* 32 at least"),
        ({"feature_loss": -1}, "--feature-loss must not be negative"),
        ({"feature_loss": float("nan")}, "--feature-loss must not be negative"),
        ({"detail": -1}, "--detail must not be negative"),
    ],
)
def test_what_makes_no_sense_is_refused(wrong: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        Recipe(**{"network": "embedded", **wrong})


def test_shapes_are_those_of_the_first_weights_or_the_default() -> None:
    new = Recipe("embedded", feature_loss=2).config
    assert (new.cap, new.detail, new.refine, new.dial) == (4, 13, 1, True)
    assert new.widths == (64, 96, 128)
    assert not Recipe("embedded").config.dial
    assert not Recipe("embedded", feature_loss=2, dial=False).config.dial
    assert Recipe("embedded", init="embedded").config == TINY
    wide = Recipe("embedded", widen_from="embedded", widths=(8, 12, 24), feature_loss=2).config
    assert wide == replace(TINY, widths=(8, 12, 24), cap=4, detail=13, refine=1, dial=True)
    plain = Recipe("prior").config
    assert (plain.cap, plain.detail, plain.dial, plain.conditional) == (0, 0, False, False)


def test_the_loss_decides_what_learns(tmp_path: Path) -> None:
    def made(**settings: Any) -> Any:
        return Recipe(**settings).objective(tmp_path, "cpu")

    small = {"widths": (8, 8, 8), "blocks": (1, 1, 1), "preprocess": "none"}
    squared = made(network="embedded", **small)
    assert type(squared) is EmbeddedObjective
    seeing = made(network="embedded", feature_loss=2, adversarial=0.4, **small)
    assert isinstance(seeing, WalkObjective)
    assert seeing.criterion.weight == 2
    assert seeing.discriminator is not None
    compact = made(network="compact", feature_loss=2, teacher="compact")
    assert isinstance(compact, CompactObjective)
    assert compact.criterion is not None
    assert compact.discriminator is None
    assert compact.teacher is not None


def test_what_is_charged_and_learnt_can_be_chosen(tmp_path: Path) -> None:
    chosen: dict[str, Any] = {"lattice": 2, "edges": 1, "later": 0.34, "teacher": "compact"}
    small: dict[str, Any] = {"widths": (8, 8, 8), "blocks": (1, 1, 1), "preprocess": "none"}
    plain = Recipe("embedded", feature_loss=2, **small).objective(tmp_path, "cpu")
    recipe = Recipe("embedded", feature_loss=2, teacher_share=0.7, window=64, **chosen, **small)
    made = recipe.objective(tmp_path, "cpu")
    assert isinstance(plain, WalkObjective)
    assert isinstance(made, WalkObjective)
    assert (plain.criterion.lattice, plain.criterion.edges, plain.later) == (LATTICE, 0, None)
    assert (made.criterion.lattice, made.criterion.edges, made.later) == (2, 1, 0.34)
    assert (plain.least_crop, made.least_crop) == (32, 64)
    words = ("2 · the error that recurs", "1 · the mean absolute error of differences", "34%")
    for word in (*words, "70% of the parts, of windows of 64²"):
        assert word in str(made.describe())
        assert word not in str(plain.describe())


def test_windows_fit_the_network(tmp_path: Path) -> None:
    deep: dict[str, Any] = {"widths": (8, 8, 8, 8), "blocks": (1, 1, 1, 1), "preprocess": "none"}
    for window, fits in ((96, True), (80, False)):
        recipe = Recipe("embedded", teacher="compact", window=window, **deep)
        with nullcontext() if fits else pytest.raises(UsageError, match="no multiple of 32"):
            recipe.objective(tmp_path, "cpu")


def test_answers_are_kept_apart_where_something_decides_otherwise(tmp_path: Path) -> None:
    def folder(**settings: Any) -> Path:
        made: Any = Recipe("embedded", teacher="compact", **settings).objective(tmp_path, "cpu")
        return Path(made.teacher.folder)

    assert folder() == folder(teacher_share=0.5, feature_loss=1)
    others = {folder(), folder(preprocess="none"), folder(mix=Mix(1, 0, 0))}
    assert len(others) == 3


def test_cards_say_what_was_minimised(tmp_path: Path) -> None:
    recipe = Recipe(
        "embedded", feature_loss=2, adversarial=0.4, teacher="compact", widen_from="embedded"
    )
    said = str(recipe.objective(tmp_path, "cpu").describe())
    for words in ("2 · LPIPS on VGG16", "own walk", "discriminator", "compact", "texture", "0.65"):
        assert words in said
    assert "widened" in str(recipe.describe())
    plain = str(Recipe("embedded", preprocess="none").objective(tmp_path, "cpu").describe())
    for words in ("LPIPS", "discriminator", "texture"):
        assert words not in plain


def test_widened_weights_answer_alike_at_the_beginning(tmp_path: Path) -> None:
    """Within the cap, which photographs do not reach."""
    lr = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    settings: dict[str, Any] = {"network": "embedded", "preprocess": "none"}
    wide = Recipe(**settings, widen_from="embedded", cap=1e6, feature_loss=2)
    same = Recipe(**settings, init="embedded")
    answers = [r.objective(tmp_path, "cpu").regress(lr, (32, 32)) for r in (wide, same)]
    torch.testing.assert_close(*answers, atol=1e-5, rtol=0)
