"""What DoSSR's Table 5 compares: a walk with right answers visits the states it says it does."""

from collections.abc import Iterator
from dataclasses import replace
from typing import get_args

import numpy as np
import pytest

from sr_cli.diffusion.formulations import Formulation, FormulationName, T, formulation
from sr_cli.errors import UsageError

NAMES: tuple[FormulationName, ...] = get_args(FormulationName)
LINEAR = [name for name in NAMES if name != "colddiff"]


def visited(way: Formulation) -> Iterator[tuple[int, tuple[float, float, float]]]:
    """Weights of x0 and y and the variance of each state, from the exact one at the start on, if
    the network always says x0."""
    begin = way.steps[0].s
    x0, y, variance = way.x0[begin], way.y[begin], way.noise[begin] ** 2
    for step in way.steps[:-1]:
        x0, y = step.x * x0 + sum(step.x0), step.x * y + step.y
        variance = step.x**2 * variance + step.noise**2
        yield step.t, (x0, y, variance)


def error(way: Formulation) -> float:
    return max(
        float(np.abs(np.subtract(found, (way.x0[t], way.y[t], way.noise[t] ** 2))).max())
        for t, found in visited(way)
    )


@pytest.mark.parametrize("steps", [2, 5, 9])
@pytest.mark.parametrize("name", LINEAR)
def test_a_walk_visits_the_states_of_its_formulation(name: FormulationName, steps: int) -> None:
    way = formulation(name, steps)
    assert error(way) < 1e-12
    first = replace(way.steps[0], x=1.05 * way.steps[0].x, noise=1.05 * way.steps[0].noise)
    assert error(replace(way, steps=(first, *way.steps[1:]))) > 1e-3  # negative control


@pytest.mark.parametrize("name", NAMES)
def test_every_walk_ends_on_the_networks_answer(name: FormulationName) -> None:
    for steps in (1, 4):
        last = formulation(name, steps).steps[-1]
        assert (last.x, last.y, last.x0[0], sum(last.x0), last.noise) == (0, 0, 1, 1, 0)


@pytest.mark.parametrize("name", NAMES)
def test_a_walk_starts_where_its_states_end(name: FormulationName) -> None:
    """At y, but for `plain`, which starts at noise; what of x0 is left there the start lacks."""
    way = formulation(name, 5)
    begin = way.steps[0].s
    assert begin == len(way.x0) - 1 == (T // 2 if name == "domain-shift" else T) - 1
    whole, noise = way.start
    assert noise == pytest.approx(way.noise[begin])
    if name == "colddiff":  # blurred x0 is taken for y
        assert (whole, way.blur[begin]) == (1, 2)
    elif name == "plain":
        assert whole == 0
        assert not way.y.any()
    else:
        assert whole == pytest.approx(way.x0[begin] + way.y[begin])
        assert way.x0[begin] < 2e-3


def test_times_next_to_x0_are_nearly_x0() -> None:
    for name in NAMES:
        way = formulation(name, 5)
        assert way.x0[0] > 0.99
        assert max(way.y[0], way.noise[0], way.blur[0]) < 0.05
        assert way.noisy == (name in {"domain-shift", "plain", "resshift"})


def test_unknown_names_and_steps_are_refused() -> None:
    with pytest.raises(UsageError, match="one of domain-shift, plain"):
        formulation("flowie", 5)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="number of steps"):
        formulation("flow", 0)
