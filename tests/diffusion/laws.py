"""What must hold of any solver on any path, stated once.

A law takes the code under test and raises AssertionError where it does not hold. The same laws
judge the real modules (test_solvers.py) and deliberately wrong ones (test_mistakes.py).

For x0 ~ N(μ, s²) and fixed y all is known: with V_t = a_t² s² + σ_t² the variance of u = x − m y,
E[x0 | x_t] = μ + a_t s²/V_t · (u_t − a_t μ) and E[u_t | u_s] = a_t μ + (a_s/a_t) V_t/V_s · (u_s −
a_s μ).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import reference
import torch
from diffusers import DPMSolverMultistepScheduler
from numpy.testing import assert_allclose
from numpy.typing import NDArray

from sr_cli.diffusion import path, solvers
from sr_cli.diffusion.schedules import alpha_bar

Array = NDArray[np.float64]
GOLDEN = Path(__file__).parents[1] / "golden" / "dossr_solver.npz"
SOLVERS: tuple[dict[str, Any], ...] = (
    {"order": 1},
    {"order": 2},
    {"order": 3},
    {"order": 3, "variant": "corrected"},
)
Y = 0.7


@dataclass(frozen=True)
class Code:
    """The modules that a law judges."""

    path: ModuleType = path
    solvers: ModuleType = solvers
    reference: ModuleType = reference


@cache
def golden() -> dict[str, NDArray[Any]]:
    with np.load(GOLDEN) as arrays:
        return dict(arrays)


def smooth_path(code: Code, n: int, shift: float = 0.9) -> Any:
    """n + 1 points, λ even in its logarithm where η = 0; shift = 1 ends at η = 1 exactly."""
    tau = np.linspace(0, 1, n + 1)
    alpha = 1 / np.sqrt(1 + np.exp(-6 + 9 * tau))
    return code.path.Path(alpha, np.sqrt(1 - alpha**2), np.sin(np.pi / 2 * shift * tau) ** 2)


def paths(code: Code) -> Iterator[tuple[Any, int]]:
    """Paths of every kind, each with its last time."""
    yield code.path.Path.domain_shift(alpha_bar(), 500), 499
    yield code.path.Path.domain_shift(alpha_bar("linear"), 1000), 999
    yield code.path.Path.plain(alpha_bar("squared_cosine")), 700
    yield smooth_path(code, 60, shift=1.0), 60


def even(last: int, steps: int) -> list[int]:
    return [round(last * (steps - i) / steps) for i in range(steps + 1)]


def variance(p: Any, t: int, s2: float) -> Any:
    return p.a[t] ** 2 * s2 + p.sigma[t] ** 2


def gaussian(p: Any, mu: float, s2: float) -> Callable[[Array, Any], Array]:
    """The exact denoiser of x0 ~ N(μ, s²)."""

    def denoise(x: Array, step: Any) -> Array:
        a, m = p.a[step.s], p.m[step.s]
        return np.asarray(mu + a * s2 / variance(p, step.s, s2) * (x - a * mu - m * Y))

    return denoise


def silent(_: int) -> float:
    return 0.0


def impulses(steps: int) -> Callable[[int], Array]:
    """Noise for a batch of steps + 1 rows: at step k, 1 in row k and 0 in the others."""
    rows = np.eye(steps + 1)
    return lambda k: rows[k]


def mean_is_exact(code: Code) -> None:
    """Without noise, from any start and in any number of steps, the result is E[x_t | x_s]."""
    mu, s2 = -0.4, 0.3
    for p, last in paths(code):
        V_s, V_0 = variance(p, last, s2), variance(p, 0, s2)
        u = p.a[last] * mu + np.array([0.0, 1.3, -2.0])
        want = p.m[0] * Y + p.a[0] * mu + p.a[last] / p.a[0] * V_0 / V_s * (u - p.a[last] * mu)
        for options in SOLVERS:
            for n in (1, 2, 5, 20):
                steps = code.solvers.plan(p, even(last, n), **options)
                start = u + p.m[last] * Y
                got = code.reference.solve(steps, gaussian(p, mu, s2), Y, start, silent)
                assert_allclose(got, want, rtol=0, atol=1e-12)


def splitting_is_exact(code: Code) -> None:
    """A constant x0 reaches the same mean and variance in 1, 2 and 11 steps."""
    for p, last in paths(code):
        for options in SOLVERS:
            ends = []
            for n in (1, 2, 11):
                steps = code.solvers.plan(p, even(last, n), **options)
                x = np.full(n + 1, 1.5)
                x0 = np.full(n + 1, 0.8)
                got = code.reference.solve(steps, lambda _x, _s, x0=x0: x0, Y, x, impulses(n))
                ends.append((got[0], np.sum((got[1:] - got[0]) ** 2)))
            assert_allclose(ends, [ends[0]] * 3, rtol=0, atol=1e-12)


def variance_converges(code: Code) -> None:
    """The variance of the scheme tends to a_t² s² + σ_t² with slope 1 at order 1, 2 above.

    The scheme is affine in its noise, so one batch of unit impulses gives the variance exactly.
    Order 3 is of order 2 here: the noise of a step is felt in the history only as a difference.
    """
    s2 = 0.3
    for options in SOLVERS:
        errors = []
        for n in (256, 512):
            p = smooth_path(code, n)
            x = np.zeros(n + 1)
            x[0] = np.sqrt(variance(p, n, s2))
            x += p.m[n] * Y
            steps = code.solvers.plan(p, range(n, -1, -1), **options)
            got = code.reference.solve(steps, gaussian(p, 0.0, s2), Y, x, impulses(n))
            errors.append(np.sum((got - p.m[0] * Y) ** 2) / variance(p, 0, s2) - 1)
        slope = np.log2(errors[0] / errors[1])
        assert_allclose(slope, min(options["order"], 2), rtol=0, atol=0.1)


def polynomials_are_exact(code: Code, solver: dict[str, Any] | None = None) -> None:
    """After warm-up a step of order k is exact for an x0 of degree k − 1 in λ.

    Of order 3 only `corrected` is: pass the `solver` to judge another one.
    """
    p = smooth_path(code, 12)
    for options in [solver] if solver else [s for s in SOLVERS if s != {"order": 3}]:
        order = options["order"]
        c = np.array([0.5, -0.2, 0.03])[:order]
        steps = code.solvers.plan(p, range(12, -1, -1), **options)
        states: list[float] = []

        def denoise(x: float, step: Any, states: list[float] = states, c: Array = c) -> Any:
            states.append(x)
            return np.polynomial.Polynomial(c)(p.lam[step.s])

        states.append(code.reference.solve(steps, denoise, Y, 1.1, silent))
        want = [polynomial_step(p, s.s, s.t, x, c) for s, x in zip(steps, states, strict=False)]
        assert_allclose(states[order:], want[order - 1 :], rtol=0, atol=1e-12)


def polynomial_step(p: Any, s: int, t: int, x: float, c: Array) -> Any:
    """u_t/a_t = r² u_s/a_s + 2 λ_t² ∫ x0(λ)/λ³ dλ from λ_t to λ_s, integrated by hand."""
    b, e = p.lam[t], p.lam[s]
    integrals = [(b**-2 - e**-2) / 2, 1 / b - 1 / e, np.log(e / b)][: len(c)]
    v = (b / e) ** 2 * (x - p.m[s] * Y) / p.a[s] + 2 * b**2 * np.dot(c, integrals)
    return p.m[t] * Y + p.a[t] * v


def agrees_with_dpm_solver(code: Code) -> None:
    """Order 1 with η = 0 is diffusers' DPM-Solver++ SDE of order 1 (which computes in float32)."""
    scheduler: Any = DPMSolverMultistepScheduler(  # type: ignore[no-untyped-call]
        beta_schedule="scaled_linear",
        beta_start=0.00085,
        beta_end=0.012,
        algorithm_type="sde-dpmsolver++",
        solver_order=1,
        prediction_type="sample",
        final_sigmas_type="sigma_min",
    )
    times = [900, 700, 450, 200, 50, 0]
    scheduler.set_timesteps(timesteps=times[:-1])
    x, *z = torch.randn(6, 4, 1, 8, 8, generator=torch.manual_seed(1), dtype=torch.float64)

    def denoise(x: Any, t: int) -> Any:
        return torch.tanh(x) + t / 1000

    steps = code.solvers.plan(code.path.Path.plain(alpha_bar()), times, order=1)
    got = code.reference.solve(steps, lambda x, s: denoise(x, s.s), 0 * x, x, lambda i: z[i - 1])
    want = x
    for t, noise in zip(scheduler.timesteps, z, strict=True):
        predicted = denoise(want, int(t))
        want = scheduler.step(predicted, t, want, variance_noise=noise).prev_sample
    assert_allclose(got, want, rtol=0, atol=1e-5)


def starts_from_pure_source(code: Code) -> None:
    """At η = 1 exactly (λ = ∞) the first step forgets u, and no order sees an infinity."""
    p = smooth_path(code, 10, shift=1.0)
    for options in SOLVERS:
        first, *rest = code.solvers.plan(p, range(10, -1, -1), **options)
        assert first.x == 0
        got = first.apply(123.0, Y, [0.4], 1.7)
        assert_allclose(got, p.m[9] * Y + p.a[9] * 0.4 + p.sigma[9] * 1.7, rtol=1e-14)
        assert np.isfinite([w for s in rest for w in (s.x, s.y, s.noise, *s.x0)]).all()


def can_end_on_x0(code: Code) -> None:
    """last_step="x0" changes the last step alone, into the prediction of x0 without noise."""
    p = code.path.Path.domain_shift(alpha_bar(), 500)
    for options in SOLVERS:
        for n in (1, 4):
            times = code.path.time_grid(500, n)
            *body, last = code.solvers.plan(p, times, last_step="x0", **options)
            assert body == [*code.solvers.plan(p, times, **options)][:-1]
            assert (last.x, last.y, last.x0, last.noise) == (0, 0, (1,), 0)


def can_end_on_the_mean(code: Code) -> None:
    """last_step="mean" changes the last step alone: no noise, and what x0 and y share is kept."""
    p = code.path.Path.domain_shift(alpha_bar(), 500)
    for options in SOLVERS:
        for n in (1, 4):
            times = code.path.time_grid(500, n)
            *body, last = code.solvers.plan(p, times, last_step="mean", **options)
            *same, plain = code.solvers.plan(p, times, **options)
            assert body == same
            assert last.noise == 0
            clean = (p.m[last.s] + p.a[last.s]) * Y  # of a picture Y, without noise
            assert_allclose(last.apply(clean, Y, [Y] * 3, None), Y, rtol=1e-12)
            got, want = (step.apply(0.3, Y, [0.1, -0.2, 0.5], 0.0) for step in (last, plain))
            assert_allclose(got * p.alpha[0], want, rtol=1e-12)


def released_grids(code: Code) -> None:
    """The times and the shifting sequences of the released sampler."""
    g = golden()
    for n in (1, 3, 5, 10, 15):
        assert code.path.time_grid(500, n) == tuple(g[f"s{n}_timesteps"][::-1])
    assert code.path.time_grid(502, 2) == (501, 250, 0)  # 250.5: Python rounds half to even
    assert code.path.time_grid(16, 14)[7] == 7  # 7 strides add up to just below 7.5
    for key, t1 in (("etas_1000", 500), ("etas_trunc_13", 333), ("etas_trunc_23", 666)):
        assert_allclose(code.path.shifting_sequence(t1, 1000), g[key], rtol=0, atol=1e-15)


def released_trajectories(code: Code) -> None:
    """All states of the released sampler, at each order and number of steps."""
    assert max(difference for *_, difference in golden_differences(code)) < 1e-6


def golden_differences(code: Code) -> Iterator[tuple[int, int, float]]:
    """(steps, order, largest difference) of each golden run."""
    g = golden()
    p = code.path.Path.domain_shift(alpha_bar(), 500)
    y = (2 * g["x_T"].astype(np.float64) - 1) * 0.18215
    c = 0.5 * g["cond_img"].astype(np.float64)
    for n in (1, 3, 5, 10, 15):
        times = [int(t) for t in g[f"s{n}_timesteps"][::-1]]
        z = g[f"s{n}_noise"].astype(np.float64)
        for order in (1, 2, 3):
            states: list[Array] = []

            def denoise(x: Array, step: Any, states: list[Array] = states) -> Any:
                states.append(x)
                t = step.s
                out = 0.35 * x + 0.15 * np.tanh(x) * np.cos(t / 100) + 0.2 * t / 1000 - 0.1 * c
                return (x - p.sigma[t] * out) / p.alpha[t]

            alpha, sigma = code.solvers.start(p, times[0])
            steps = code.solvers.plan(p, times, order=order)
            start = alpha * y + sigma * z[0]
            states.append(code.reference.solve(steps, denoise, y, start, z.__getitem__))
            want = [*g[f"s{n}_o{order}_f64_traj"], g[f"s{n}_o{order}_f64_final_latent"]]
            yield n, order, float(np.abs(np.array(states) - want).max())


def times_fall(code: Code) -> None:
    """A grid of N calls has N + 1 times from t1 − 1 to 0, strictly falling and even to within 1."""
    for t1 in (2, 3, 17, 333, 1000):
        for n in sorted({1, 2, 7, t1 // 2, t1 - 2, t1 - 1} & set(range(1, t1))):
            times = code.path.time_grid(t1, n)
            assert (len(times), times[0], times[-1]) == (n + 1, t1 - 1, 0)
            gaps = [s - t for s, t in pairwise(times)]
            assert min(gaps) >= 1
            assert max(gaps) - min(gaps) <= 1


def marginals_are_eq_2(code: Code) -> None:
    """a + m = α, α² + σ² = 1, and η leads from x0 at time 0 to y at t1."""
    for p in (
        code.path.Path.domain_shift(alpha_bar(), 500),
        code.path.Path.plain(alpha_bar("cosine")),
    ):
        assert_allclose(p.a + p.m, p.alpha, rtol=0, atol=1e-15)
        assert_allclose(p.alpha**2 + p.sigma**2, 1, rtol=0, atol=1e-15)
    eta = code.path.Path.domain_shift(alpha_bar(), 500).eta
    assert_allclose([eta[0], eta[499]], [0, 1], rtol=0, atol=1e-5)
    assert np.all(np.diff(eta[:500]) > 0)
    assert np.all(eta[500:] == 1)
    assert_allclose(eta[:500] + eta[499::-1], 1, rtol=0, atol=1e-12)


Law = Callable[[Code], None]
THEORY: tuple[Law, ...] = (
    mean_is_exact,
    splitting_is_exact,
    variance_converges,
    polynomials_are_exact,
    agrees_with_dpm_solver,
    starts_from_pure_source,
    can_end_on_x0,
    can_end_on_the_mean,
    times_fall,
    marginals_are_eq_2,
)
RELEASED: tuple[Law, ...] = (released_grids, released_trajectories)
LAWS = THEORY + RELEASED
