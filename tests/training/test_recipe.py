"""What can be trained for what, with the first weights' shape or the default one."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import TINY

from sr_cli.errors import UsageError
from sr_cli.training.objectives import CompactObjective, EmbeddedObjective
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
