"""The figure of the papers' mathematics: its scores are gradients of log densities."""

import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

FIGURES = Path(__file__).parents[1] / "examples" / "figures"


@pytest.fixture
def theory(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(FIGURES)
    return import_module("theory")


def slope(theory: Any, variance: float) -> float:
    """How far the scores are from finite differences of the log density, at random places."""
    x, step = np.random.default_rng(0).normal(size=(20, 2)), 1e-5

    def log_density(x: Any) -> Any:
        squares = ((x[:, None] - theory.HR[None]) ** 2).sum(-1)
        return np.log(np.exp(-squares / (2 * variance)).sum(1))

    sides = [step * np.eye(2)[i] for i in range(2)]
    gradient = [(log_density(x + e) - log_density(x - e)) / (2 * step) for e in sides]
    return float(np.abs(theory.score(x, theory.HR, variance) - np.transpose(gradient)).max())


def test_the_scores_are_exact(theory: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert slope(theory, 0.3) < 1e-6
    real = theory.score
    monkeypatch.setattr(
        theory, "score", lambda x, centres, variance: real(x, centres, 0.9 * variance)
    )
    assert slope(theory, 0.3) > 1e-2


def test_the_bound_is_level_and_its_parts_are_not(theory: Any) -> None:
    prior, summed, both = theory.bound()
    assert np.ptp(both) < 0.15 * min(np.ptp(prior), np.ptp(summed))


def test_it_is_drawn(theory: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["theory.py", "--out", str(tmp_path / "theory.png")])
    theory.main()
    with Image.open(tmp_path / "theory.png") as image:
        assert image.width > 600
