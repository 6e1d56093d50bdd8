"""What is said of models: of the shipped ones in words, of the scores those with the defaults."""

from pathlib import Path
from typing import Any

import pytest

from sr_cli.cli.listing import USES, line, scores, use
from sr_cli.models.limits import Limits
from sr_cli.models.registry import Card, cards

MEASURED = {
    "Set14, (defaults)": {"psnr": 26.1275, "lpips": 0.2685},
    "Set14, --steps 2": {"psnr": 20.0, "lpips": 0.9},
    "drealsr20, --model mine": {"psnr": 28.0, "niqe": 6.5},
    "Set14, --model other": {"psnr": 1.0},
}


def made(**changes: Any) -> Card:
    given: dict[str, Any] = {"name": "mine", "kind": "embedded", "scores": MEASURED} | changes
    return Card(
        file="mine.safetensors", architecture={}, licence="", training={}, limits=Limits(1), **given
    )


def test_scores_are_those_with_the_defaults() -> None:
    found = scores(made())
    assert found == {
        "Set14": MEASURED["Set14, (defaults)"],
        "drealsr20": {"psnr": 28.0, "niqe": 6.5},
    }
    assert line(found) == "Set14: LPIPS 0.269, PSNR 26.13; drealsr20: PSNR 28.00"
    assert line(scores(made(scores={}))) == ""


@pytest.mark.parametrize(("kind", "words"), [("dossr", "DoSSR"), ("prior", "--prior mine")])
def test_a_model_is_used_by_its_kind(kind: str, words: str) -> None:
    assert words in use(made(kind=kind), shipped=False)
    assert use(made(kind="new"), shipped=False) == ""


def test_a_name_of_ours_says_nothing_of_the_user_s_own_model() -> None:
    assert use(made(name="clean"), shipped=True) == USES["clean"]
    assert use(made(name="clean"), shipped=False) == "--model clean"


def test_every_shipped_model_has_a_use_and_no_other() -> None:
    shipped = {
        card.name for card in cards() if card.folder == Path(__file__).parents[2] / "weights"
    }
    assert shipped == USES.keys()
