"""The noise schedules mean what diffusers means by them."""

from typing import Any

import numpy as np
import pytest
from diffusers import DDPMScheduler
from laws import golden

from sr_cli.diffusion.schedules import SCHEDULES, alpha_bar
from sr_cli.errors import UsageError


@pytest.mark.parametrize(
    ("name", "theirs", "first", "last"),
    [
        ("scaled_linear", "scaled_linear", 0.00085, 0.012),
        ("linear", "linear", 0.0001, 0.02),
        ("sigmoid", "sigmoid", 0.0001, 0.02),
        ("squared_cosine", "squaredcos_cap_v2", 0.0001, 0.02),
    ],
)
@pytest.mark.parametrize("T", [50, 1000])
def test_agrees_with_diffusers(name: str, theirs: str, first: float, last: float, T: int) -> None:
    scheduler: Any = DDPMScheduler(  # type: ignore[no-untyped-call]
        T, beta_schedule=theirs, beta_start=first, beta_end=last
    )
    ours = alpha_bar(name, T)
    alphas = ours / np.append(1, ours[:-1])
    # diffusers computes in float32.
    np.testing.assert_allclose(alphas, scheduler.alphas, rtol=0, atol=1e-7)


def test_default_is_the_released_schedule() -> None:
    want = np.cumprod(1 - golden()["betas_1000"])
    np.testing.assert_allclose(alpha_bar(), want, rtol=1e-14)


def test_cosine_is_nearly_squared_cosine() -> None:
    """Both are cos² of time; only the offset at 0 and the clipping at T tell them apart."""
    cosine, squared = alpha_bar("cosine"), alpha_bar("squared_cosine")
    assert 1e-4 < np.abs(cosine - squared).max() < 0.02
    assert cosine[-1] == 1e-9


@pytest.mark.parametrize("T", [2, 10, 1000])
@pytest.mark.parametrize("name", SCHEDULES)
def test_signal_falls_inside_0_to_1(name: str, T: int) -> None:
    values = alpha_bar(name, T)
    assert values.dtype == np.float64
    assert values.shape == (T,)
    assert values[0] < 1
    assert np.all(np.diff(values) < 0)
    assert values[-1] > 0


@pytest.mark.parametrize(("name", "T"), [("squaredcos_cap_v2", 1000), ("", 1000), ("linear", 1)])
def test_nonsense_is_refused(name: str, T: int) -> None:
    with pytest.raises(UsageError):
        alpha_bar(name, T)
