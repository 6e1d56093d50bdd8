"""The solvers obey the laws; what they are given is checked; they work on any kind of array."""

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from laws import LAWS, SOLVERS, Code, Law, polynomials_are_exact
from reference import solve

from sr_cli.diffusion.path import Path, time_grid
from sr_cli.diffusion.schedules import alpha_bar
from sr_cli.diffusion.solvers import Step, plan, start
from sr_cli.errors import UsageError


@pytest.fixture(scope="module")
def path() -> Path:
    return Path.domain_shift(alpha_bar(), 500)


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
def test_law_holds(law: Law) -> None:
    law(Code())


def test_order_3_as_printed_is_not_exact_for_a_quadratic() -> None:
    polynomials_are_exact(Code(), {"order": 3, "variant": "corrected"})
    with pytest.raises(AssertionError):
        polynomials_are_exact(Code(), {"order": 3, "variant": "paper"})


@pytest.mark.parametrize("options", SOLVERS)
@pytest.mark.parametrize("steps", [1, 2, 3, 499])
def test_orders_warm_up(path: Path, options: dict[str, Any], steps: int) -> None:
    planned = plan(path, time_grid(500, steps), **options)
    assert [len(s.x0) for s in planned[:3]] == [min(options["order"], k) for k in (1, 2, 3)][:steps]
    assert all(before.t == after.s for before, after in pairwise(planned))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_numpy_and_torch_agree_in_any_dtype(path: Path, dtype: torch.dtype) -> None:
    steps = plan(path, time_grid(500, 5))
    rows = torch.randn(7, 2, 9, generator=torch.manual_seed(0)).to(dtype)
    y, x, *z = rows
    got = solve(steps, lambda x, s: 0.9 * x + s.s / 1000, y, x, lambda i: z[i - 1])
    assert got.dtype == dtype
    np_dtype = np.float64 if dtype == torch.float64 else np.float32
    y_, x_, *z_ = rows.to(torch.float64).numpy().astype(np_dtype)
    want = solve(steps, lambda x, s: 0.9 * x + s.s / 1000, y_, x_, lambda i: z_[i - 1])
    assert want.dtype == np_dtype
    tolerance = 100 * torch.finfo(dtype).eps
    np.testing.assert_allclose(got.to(torch.float64), want, rtol=0, atol=tolerance)


def test_a_step_is_the_same_tile_by_tile(path: Path) -> None:
    steps = plan(path, time_grid(500, 3))
    x, y, z, *history = np.random.default_rng(0).standard_normal((6, 8, 8), np.float32)
    whole = steps[-1].apply(x, y, history, z)
    tiles = [steps[-1].apply(x[i], y[i], [h[i] for h in history], z[i]) for i in range(8)]
    np.testing.assert_array_equal(whole, tiles)


def test_noise_is_drawn_only_where_it_is_added(path: Path) -> None:
    asked: list[int] = []

    def noise(i: int) -> float:
        asked.append(i)
        return 0.0

    solve(plan(path, time_grid(500, 4)), lambda x, _: x, 1.0, 1.0, noise)
    solve(plan(path, time_grid(500, 4), last_step="x0"), lambda x, _: x, 1.0, 1.0, noise)
    assert asked == [1, 2, 3, 4, 1, 2, 3]


def test_a_step_refuses_too_short_a_history(path: Path) -> None:
    last = plan(path, time_grid(500, 3))[-1]
    with pytest.raises(ValueError, match="shorter"):
        last.apply(1.0, 1.0, [1.0, 1.0], 1.0)


def test_start_and_coefficients_are_plain_floats(path: Path) -> None:
    step = plan(path, time_grid(500, 3))[-1]
    assert isinstance(step, Step)
    values = (*start(path, 499), step.x, step.y, step.noise, *step.x0)
    assert all(type(v) is float for v in values)


@pytest.mark.parametrize(
    ("times", "options", "message"),
    [
        ([499], {}, "at least two times"),
        ([], {}, "at least two times"),
        ([0, 499], {}, "smaller than the one before"),
        ([499, 200, 200, 0], {}, "smaller than the one before"),
        ([1000, 0], {}, r"0\.\.999"),
        ([499, -1], {}, r"0\.\.999"),
        ([900, 600, 0], {}, "must fall"),
        ([499, 0], {"order": 0}, "1, 2 or 3, not 0"),
        ([499, 0], {"order": 4}, "1, 2 or 3, not 4"),
        ([499, 0], {"variant": "ode"}, "paper, corrected, not 'ode'"),
        ([499, 0], {"last_step": "y"}, "step, mean, x0, not 'y'"),
    ],
)
def test_a_senseless_plan_is_refused(
    path: Path, times: list[int], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        plan(path, times, **options)
