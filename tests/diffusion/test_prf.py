"""The losses and the field against closed forms; each law is also run on deliberate mistakes."""

import inspect
from collections.abc import Callable
from types import ModuleType

import numpy as np
import pytest
from numpy.testing import assert_allclose
from numpy.typing import NDArray

from sr_cli.diffusion import prf
from sr_cli.diffusion.schedules import SCHEDULES, alpha_bar
from sr_cli.errors import UsageError

Law = Callable[[ModuleType], None]
Array = NDArray[np.float64]


def kl_divergence(mean: float, other: float, std: float) -> float:
    """KL of N(mean, std²) from N(other, std²), by quadrature of its definition."""
    x = np.linspace(mean - 12 * std, mean + 12 * std, 20_001)
    density = np.exp(-(((x - mean) / std) ** 2) / 2) / (std * np.sqrt(2 * np.pi))
    log_ratio = (((x - other) / std) ** 2 - ((x - mean) / std) ** 2) / 2
    return float(np.sum(density * log_ratio) * (x[1] - x[0]))


def fidelity_is_the_divergence_of_the_noised_images(code: ModuleType) -> None:
    bar, x0, y = alpha_bar(), 0.3, -0.2
    loss = code.fidelity_loss(bar, (x0 - y) ** 2)
    for t in (5, 200, 800):
        root = np.sqrt(bar[t])
        want = kl_divergence(root * x0, root * y, np.sqrt(1 - bar[t]))
        assert_allclose(loss[t], want, rtol=1e-9)


def weights_are_the_divergence_of_the_reverse_steps(code: ModuleType) -> None:
    """The step's means differ by β/(√(1−β) √(1−ᾱ))·δ for an error δ of ε; its variance is β̃."""
    bar, delta = alpha_bar("linear"), 0.7
    weights = code.signature_weights(bar)
    for i in (1, 150, 999):
        beta = 1 - bar[i] / bar[i - 1]
        shift = beta / np.sqrt((1 - beta) * (1 - bar[i])) * delta
        std = np.sqrt(beta * (1 - bar[i - 1]) / (1 - bar[i]))
        assert_allclose(weights[i] * delta**2, kl_divergence(0, shift, std), rtol=1e-9)


def weights_by_hand(code: ModuleType) -> None:
    """β = .1, .2, .5: ᾱ = .9, .72, .36, so w = –, .2/(2·.8·.1), .5/(2·.5·.28)."""
    got = code.signature_weights(np.array([0.9, 0.72, 0.36]))
    assert_allclose(got, [0, 1.25, 0.5 / 0.28], rtol=1e-12)


def sums_by_hand(code: ModuleType) -> None:
    """E = 4, 9 at times 1 and 3, so 6 between; the sum at t ends before t."""
    bar = np.array([0.9, 0.72, 0.36, 0.18])
    w = [0, 1.25, 0.5 / 0.28, 0.5 / (2 * 0.5 * 0.64)]
    got = code.signature_loss(bar, code.at_all_times(4, [1, 3], [4, 9]))
    assert_allclose(got, [0, 0, 4 * w[1], 4 * w[1] + 6 * w[2]], rtol=1e-12)


def no_error_is_no_knowledge(code: ModuleType) -> None:
    assert_allclose(code.at_all_times(4, [0, 1, 3], [5, 4, 0]), [5, 4, 4, 4])
    assert not code.at_all_times(3, [0, 1], [0, 0]).any()


def no_loss_where_y_is_the_target(code: ModuleType) -> None:
    image = np.linspace(-1, 1, 48).reshape(3, 4, 4)
    assert code.squared_norm(image - image) == 0
    assert not code.fidelity_loss(alpha_bar(), 0.0).any()


def the_image_size_does_not_matter(code: ModuleType) -> None:
    """Tiled nine times, and at the paper's size a plain sum."""
    small = np.linspace(-1, 1, 48).reshape(3, 4, 4)
    assert_allclose(code.squared_norm(np.tile(small, (1, 3, 3))), code.squared_norm(small))
    full = np.tile(small, (1, 64, 64))
    assert_allclose(code.squared_norm(full), np.sum(full**2))


def one_loss_rises_and_the_other_falls(code: ModuleType) -> None:
    """Theorem 1, for every schedule, whatever the errors."""
    times = [0, 10, 100, 400, 999]
    for name in SCHEDULES:
        bar = alpha_bar(name)
        for errors in ([9, 7, 4, 2, 1], [1, 2, 4, 7, 9]):
            signature = code.signature_loss(bar, code.at_all_times(len(bar), times, errors))
            assert np.all(np.diff(signature)[1:] > 0)
            assert np.all(signature[:2] == 0)
        assert np.all(np.diff(code.fidelity_loss(bar, 2.0)) < 0)


def a_step_weighs_the_error_of_x0_by_what_fidelity_loses(code: ModuleType) -> None:
    """w_i E_i = (K_{i−1} − K_i) e_i, for every schedule, whatever the errors."""
    for name in SCHEDULES:
        bar = alpha_bar(name)
        errors = np.linspace(9, 2, len(bar))
        falls = -np.diff(code.divergence(bar))
        rises = (code.signature_weights(bar) * errors)[1:]
        assert_allclose(rises, falls * code.restoration_error(bar, errors)[1:], rtol=1e-9)


def the_best_time_has_the_least_sum(code: ModuleType) -> None:
    """Of L^S, with step t in it, and ω L^F: by the sums themselves."""
    bar, distance = alpha_bar("linear"), 900.0
    errors = 40_000 / (1 + np.arange(len(bar)) / 50)
    for omega in (0.05, 0.21, 0.8):
        summed = np.cumsum(code.signature_weights(bar) * errors)
        total = summed + omega * code.fidelity_loss(bar, distance)
        limits = code.Thresholds(omega=omega, signature=1e9, fidelity=1e9)
        found = code.find(code.restoration_error(bar, errors), distance, 1.0, limits)
        assert found.best == np.argmin(total)
        assert 5 < found.best < 990


def field(code: ModuleType, **changes: float) -> tuple[int, int] | None:
    """(high, best) for e = 1, 2, … 10, ‖x0 − y‖² = 20, τ = 4: e ≤ 1.75·τ = 7 until time 6, and
    e ≤ ω·20 = 4 until time 3; e_0 = 1 is .05 of 20."""
    values = {"omega": 0.2, "signature": 1.75, "fidelity": 0.05} | changes
    found = code.find(np.arange(1.0, 11.0), 20.0, 4.0, code.Thresholds(**values))
    return found and (found.high, found.best)


def the_field_ends_where_the_error_reaches_its_limit(code: ModuleType) -> None:
    assert field(code) == (6, 3)
    assert field(code, signature=0.75) == (2, 2)
    assert field(code, omega=1.0) == (6, 6)
    assert field(code, omega=0.05) == (6, 0)


def there_may_be_no_field(code: ModuleType) -> None:
    assert field(code, fidelity=0.049) is None
    assert field(code, signature=0.2) is None
    assert field(code, omega=0.04) is None


def noise_alone_is_outside_the_field(code: ModuleType) -> None:
    restored = code.restoration_error(np.array([0.5, 0.2, 0.0]), np.array([4.0, 4.0, 0.0]))
    assert_allclose(restored, [4, 16, np.inf])
    limits = code.Thresholds(1e9, 1e9, 1e9)
    assert code.find(restored, 1.0, 1.0, limits) == code.Field(1, 1)


LAWS: tuple[Law, ...] = (
    fidelity_is_the_divergence_of_the_noised_images,
    weights_are_the_divergence_of_the_reverse_steps,
    weights_by_hand,
    sums_by_hand,
    no_error_is_no_knowledge,
    no_loss_where_y_is_the_target,
    the_image_size_does_not_matter,
    one_loss_rises_and_the_other_falls,
    a_step_weighs_the_error_of_x0_by_what_fidelity_loses,
    the_best_time_has_the_least_sum,
    the_field_ends_where_the_error_reaches_its_limit,
    there_may_be_no_field,
    noise_alone_is_outside_the_field,
)

MISTAKES: dict[str, tuple[str, str]] = {
    "K not halved": ("alpha_bar / (2 * (1 - alpha_bar))", "alpha_bar / (1 - alpha_bar)"),
    "K upside down": ("alpha_bar / (2 * (1 - alpha_bar))", "(1 - alpha_bar) / (2 * alpha_bar)"),
    "K of √ᾱ": ("return alpha_bar / (2", "return alpha_bar**0.5 / (2"),
    "Eq. 17's A_t kept": ("divergence(alpha_bar) * distance", "divergence(alpha_bar) + distance"),
    "distance squared": ("(alpha_bar) * distance", "(alpha_bar) * distance**2"),
    "w not halved": ("(2 * kept * (1 -", "(kept * (1 -"),
    "w without 1 − β": ("(2 * kept * (1 -", "(2 * (1 -"),
    "w with ᾱ_i": ("(1 - alpha_bar[:-1]))", "(1 - alpha_bar[1:]))"),
    "w with Σ² = β": (
        "(1 - kept) / (2 * kept * (1 - alpha_bar[:-1]))",
        "(1 - kept) / (2 * kept * (1 - alpha_bar[1:]))",
    ),
    "w one time early": (
        "np.append(0.0, (1 - kept) / (2 * kept * (1 - alpha_bar[:-1])))",
        "np.append((1 - kept) / (2 * kept * (1 - alpha_bar[:-1])), 0.0)",
    ),
    "sum includes t": (
        "np.append(0.0, np.cumsum(signature_weights(alpha_bar) * errors)[:-1])",
        "np.cumsum(signature_weights(alpha_bar) * errors)",
    ),
    "no running sum": (
        "np.cumsum(signature_weights(alpha_bar) * errors)[:-1]",
        "(signature_weights(alpha_bar) * errors)[:-1]",
    ),
    "no weights": ("np.cumsum(signature_weights(alpha_bar) * errors)", "np.cumsum(errors)"),
    "straight lines of E": (
        "np.exp(np.interp(np.arange(length), at[told], np.log(values[told])))",
        "np.interp(np.arange(length), at[told], values[told])",
    ),
    "no error told": ("told = values > 0", "told = values >= 0\n    values = values + 1e-9"),
    "errors of ε for those of x0": ("2 * divergence(alpha_bar)", "np.ones_like(alpha_bar)"),
    "e not halved": ("2 * divergence(alpha_bar)", "divergence(alpha_bar)"),
    "nothing is known where there is noise alone": ("np.inf)", "0.0)"),
    "sum of the norm, not rescaled": (
        "float(np.mean(np.square(difference, dtype=np.float64))) * ELEMENTS",
        "float(np.sum(np.square(difference, dtype=np.float64)))",
    ),
    "mean of the norm": (" * ELEMENTS", ""),
    "norm not squared": ("np.square(difference, dtype=np.float64)", "np.abs(difference)"),
    "best outside the field": (
        "inside & (restored <= thresholds.omega",
        "(restored <= thresholds.omega",
    ),
    "ω left out": ("thresholds.omega * distance", "distance"),
    "ω of the texture": ("thresholds.omega * distance", "thresholds.omega * texture"),
    "signature threshold reversed": ("inside = restored <= ", "inside = restored >= "),
    "signature threshold excluded": ("inside = restored <= ", "inside = restored < "),
    "signature threshold of the distance": ("signature * texture", "signature * distance"),
    "fidelity threshold reversed": ("restored[0] > ", "restored[0] < "),
    "fidelity threshold excluded": ("restored[0] > ", "restored[0] >= "),
    "fidelity threshold ignored": ("restored[0] > thresholds.fidelity * distance or ", ""),
    "the first time for the last": ("np.flatnonzero(before)[-1]", "np.flatnonzero(before)[0]"),
    "field without its end": ("np.flatnonzero(inside)[-1]", "np.flatnonzero(inside)[-2]"),
    "an empty field is time 0": ("return None", "return Field(0, 0)"),
}


def edited(old: str, new: str) -> ModuleType:
    """prf.py with the one place that reads `old` reading `new`."""
    source = inspect.getsource(prf)
    assert source.count(old) == 1, f"{old!r} is not found just once"
    copy = ModuleType(prf.__name__)
    exec(compile(source.replace(old, new), prf.__name__, "exec"), copy.__dict__)
    return copy


def breaks(law: Law, code: ModuleType) -> bool:
    try:
        law(code)
    except (AssertionError, AttributeError, IndexError, UsageError, TypeError):
        return True
    return False


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
def test_law(law: Law) -> None:
    law(prf)


@pytest.mark.parametrize("name", MISTAKES)
def test_a_law_finds_the_mistake(name: str) -> None:
    code = edited(*MISTAKES[name])
    assert any(breaks(law, code) for law in LAWS)


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
def test_each_law_finds_something_and_no_harmless_edit(law: Law) -> None:
    assert any(breaks(law, edited(*edit)) for edit in MISTAKES.values())
    assert not breaks(law, edited("(2 * kept * (1 -", "(kept * 2 * (1 -"))


def test_nonsense_is_refused() -> None:
    bar = alpha_bar()
    for times, errors in (([], []), ([1], [1, 2]), ([2, 1], [1, 1]), ([1000], [1]), ([1], [-1])):
        with pytest.raises(UsageError):
            prf.at_all_times(len(bar), times, errors)
    for name in ("omega", "signature", "fidelity"):
        with pytest.raises(UsageError, match="positive"):
            prf.Thresholds(**{name: 0.0})
    with pytest.raises(UsageError, match="pixels"):
        prf.squared_norm(np.zeros((3, 0, 4)))


# ------------------------------------------------------------- the full bound of Lemma 1


def full_bound(times: int, excess: float = 1.0) -> tuple[Array, Array]:
    """L̄_t = C_t + Σ_{i≤t} w_i E_i of one Gaussian pixel without L_0, (T − 1,), and its sum alone.

    x0 ~ N(0, s²), with the exact denoiser (E_i is `excess` times its error), on the linear schedule
    at `times` times. C_t is the divergence of q(x_t | x0) from the marginal of x_t, in nats.
    """
    s2, given = 0.25, alpha_bar("linear")
    bar = np.interp(np.linspace(0, 999, times), np.arange(1000), given)
    ratio = bar / (1 - bar)  # α²/σ²
    prior = np.log1p(s2 * ratio) / 2
    errors = excess * ratio * s2 / (1 + s2 * ratio)  # of ε: (α/σ)² Var(x0 | x_t)
    summed = prf.signature_loss(bar, errors)
    return prior[:-1] + summed[1:], summed[1:]


def test_with_gaussian_data_the_full_bound_does_not_depend_on_t() -> None:
    """The sum rises by as much as C_t falls, but for the width of the steps; so that "the signature
    loss rises with t" is said of the sum without C_t."""
    for times, share in ((1000, 0.11), (10_000, 0.011)):
        bound, summed = full_bound(times)
        assert np.ptp(bound) < share * np.ptp(summed)
        assert np.all(np.diff(summed[1:]) > 0)


def test_with_a_worse_denoiser_the_full_bound_rises() -> None:
    bound, summed = full_bound(10_000, excess=2.0)
    assert np.ptp(bound) > 0.4 * np.ptp(summed)
