"""Paths and time grids: what test_solvers.py does not say already."""

import numpy as np
import pytest

from sr_cli.diffusion.path import Path, shifting_sequence, time_grid
from sr_cli.diffusion.schedules import SCHEDULES, alpha_bar
from sr_cli.errors import UsageError


@pytest.mark.parametrize(("t1", "steps"), [(1, 1), (0, 1), (-5, 1), (500, 0), (500, -1), (5, 5)])
def test_impossible_grids_are_refused(t1: int, steps: int) -> None:
    with pytest.raises(UsageError, match="t1"):
        time_grid(t1, steps)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("t1", [2, 3, 333, 500, 1000])
def test_noise_to_signal_rises_up_to_t1_and_is_infinite_after(schedule: str, t1: int) -> None:
    path = Path.domain_shift(alpha_bar(schedule), t1)
    assert np.all(np.diff(path.lam[:t1]) > 0)
    assert np.isfinite(path.lam[:t1]).all()
    assert np.isinf(path.lam[t1:]).all()
    assert np.all(path.a[t1:] == 0)


def test_plain_path_is_the_variance_preserving_diffusion() -> None:
    path = Path.plain(alpha_bar())
    assert np.all(path.m == 0)
    np.testing.assert_allclose(path.lam**-2, alpha_bar() / (1 - alpha_bar()), rtol=1e-12)


@pytest.mark.parametrize("t1", [1, 0, -1, 1001])
def test_impossible_shifts_are_refused(t1: int) -> None:
    with pytest.raises(UsageError, match="t1"):
        shifting_sequence(t1, 1000)


@pytest.mark.parametrize(
    ("alpha", "sigma", "eta"),
    [
        (np.ones(3), np.ones(3), np.ones(2)),
        (np.ones((3, 1)), np.ones((3, 1)), np.ones((3, 1))),
        (np.ones(3), np.zeros(3), np.ones(3)),
        (np.ones(3), np.full(3, np.nan), np.ones(3)),
        (np.ones(3), np.ones(3), np.full(3, 1.01)),
        (np.ones(3), np.ones(3), np.full(3, -0.01)),
    ],
)
def test_impossible_paths_are_refused(
    alpha: np.ndarray, sigma: np.ndarray, eta: np.ndarray
) -> None:
    with pytest.raises(UsageError, match="A path needs"):
        Path(alpha, sigma, eta)
