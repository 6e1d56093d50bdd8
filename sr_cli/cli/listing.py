"""What `srx weights list` says of a model beside its files: what it is good for, and how good."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sr_cli.models.registry import Card

USES = {
    "embedded": "photographs as cameras make them; the default",
    "clean": "pictures that were only made smaller: --model clean",
    "clean-mse": "as clean, by squared error alone, as the papers assume",
    "compact": "the first, smooth enlargement: --preprocess compact",
    "prior": "Diff-SR: --method diffsr",
}
"""Of the shipped models, by name."""
KINDS = {
    "embedded": "--model {name}",
    "dossr": "DoSSR's released networks: --model {name}",
    "prior": "Diff-SR: --method diffsr --prior {name}",
}
"""Of all others, by kind."""
SHOWN = {"lpips": "LPIPS {:.3f}", "psnr": "PSNR {:.2f}"}
"""Scores of the table, and how they are written."""


def use(card: Card, *, shipped: bool) -> str:
    """What a model is good for, in a line."""
    if shipped and card.name in USES:
        return USES[card.name]
    return KINDS.get(card.kind, "").format(name=card.name)


def scores(card: Card) -> dict[str, Mapping[str, float]]:
    """Its scores with the defaults, by data set."""
    found = {}
    for measured, values in card.scores.items():
        data, _, options = measured.partition(", ")
        if options in ("(defaults)", f"--model {card.name}"):
            found[data] = values
    return found


def line(scores: Mapping[str, Mapping[str, float]]) -> str:
    """The scores of `scores` as the table has them."""
    parts = []
    for data, values in scores.items():
        told = [text.format(values[name]) for name, text in SHOWN.items() if name in values]
        if told:
            parts.append(f"{data}: {', '.join(told)}")
    return "; ".join(parts)
