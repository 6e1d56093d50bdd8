"""What the papers' mathematics says, drawn from exact formulas: nothing here is trained or sampled.

    python examples/figures/theory.py [--out FILE]

Above: the score fields of Fig. 2c of DoSSR, in two dimensions, half way to t1. HR are twelve points
on a ring, LR the same without their second coordinate. Below: the grids of noise levels that domain
shift chooses; by how much an error of the network grows in x0; and the bound of Diff-SR's Lemma 1.
"""

import argparse
from pathlib import Path as File
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from sr_cli.diffusion import prf
from sr_cli.diffusion.path import Path, time_grid
from sr_cli.diffusion.schedules import alpha_bar

Array = NDArray[np.float64]
T1, STEPS, S2 = 500, 5, 0.25
"""Start and steps of the paper; variance of the Gaussian pixel of Lemma 1."""
ANGLES = 2 * np.pi * (np.arange(12) + 0.5) / 12
RADIUS = 2.5
HR: Array = RADIUS * np.stack((np.cos(ANGLES), np.sin(ANGLES)), axis=1)
LR: Array = HR * (1, 0)
SPREAD, WINDOW = 0.15, 3.4
"""Standard deviation of HR around each point; half the side of what is drawn."""


def score(x: Array, centres: Array, variance: float) -> Array:
    """∇ log of an even mixture of Gaussians of one variance: x (N, 2), centres (K, 2) → (N, 2)."""
    away = centres[None] - x[:, None]
    weights = -(away**2).sum(-1) / (2 * variance)
    weights = np.exp(weights - weights.max(axis=1, keepdims=True))
    weights /= weights.sum(axis=1, keepdims=True)
    return np.asarray((weights[..., None] * away).sum(axis=1) / variance)


def fields(path: Path, t: int) -> tuple[Array, float]:
    """Centres and variance of the mixture that x_t is (Eq. 2)."""
    centres = path.m[t] * LR + path.a[t] * HR
    return centres, float(path.a[t] ** 2 * SPREAD**2 + path.sigma[t] ** 2)


def draw_scores(axes: Any, path: Path, t: int, title: str) -> None:
    """The field of x_t's scores, and where each pair's mean goes from t1 − 1 to 0."""
    side = np.linspace(-WINDOW, WINDOW, 41)
    grid = np.stack(np.meshgrid(side, side), axis=-1).reshape(-1, 2)
    found = score(grid, *fields(path, t)).reshape(41, 41, 2)
    axes.streamplot(
        side, side, found[..., 0], found[..., 1], color="0.7", linewidth=0.6, density=1.6
    )
    times = np.arange(T1 - 1, -1, -10)
    for low, high in zip(LR, HR, strict=True):
        means = path.m[times, None] * low + path.a[times, None] * high
        axes.plot(*means.T, color="C0", linewidth=1)
    axes.plot(*HR.T, "o", color="C2", label="HR")
    axes.plot(*LR.T, "s", color="C3", label="LR")
    axes.set(title=title, xlim=(-WINDOW, WINDOW), ylim=(-WINDOW, WINDOW), aspect="equal")


def draw_grids(axes: Any, shifted: Path, plain: Path) -> None:
    """λ at which the steps stop."""
    for path, last, name in ((shifted, T1, "t1 = 500"), (plain, 1000, "no shift, from T")):
        levels = path.lam[list(time_grid(last, STEPS))]
        axes.plot(range(STEPS + 1), levels, "o-", label=name)
    axes.set(yscale="log", xlabel="step", title="λ = σ/a at each stop", ylim=(0.02, 1e6))


def draw_amplification(axes: Any, path: Path) -> None:
    """The error of x0 for one of the network's output."""
    times = np.arange(T1)
    axes.plot(times, path.lam[:T1], label="Eq. 29, of the noise: σ/a")
    axes.plot(times, (path.sigma / path.alpha)[:T1], label="as released: σ/α")
    axes.set(yscale="log", xlabel="t, t1 = 500", title="error of x0 / error of the output")


def bound(times: int = 1000) -> tuple[Array, Array, Array]:
    """C_t, the sum up to t and both together of one pixel x0 ~ N(0, S2) with the exact denoiser."""
    bar = np.interp(np.linspace(0, 999, times), np.arange(1000), alpha_bar("linear"))
    ratio = bar / (1 - bar)
    errors = ratio * S2 / (1 + S2 * ratio)
    summed = prf.signature_loss(bar, errors)[1:]
    prior = np.log1p(S2 * ratio[:-1]) / 2
    return prior, summed, prior + summed


def draw_bound(axes: Any) -> None:
    """Lemma 1 of Diff-SR."""
    for values, name in zip(bound(), ("$C_t$", "the sum", "both"), strict=True):
        axes.plot(values, label=name)
    axes.set(xlabel="t", title="Lemma 1, Gaussian data, nats a pixel")


def draw() -> Figure:
    """The whole figure."""
    shifted, plain = Path.domain_shift(alpha_bar(), T1), Path.plain(alpha_bar())
    figure = Figure(figsize=(13, 8.4), layout="constrained")
    above, below = figure.subfigures(2, 1, height_ratios=(1.25, 1))
    left, right = above.subplots(1, 2)
    draw_scores(left, plain, T1 // 2, "score of a plain diffusion, t = 250")
    draw_scores(right, shifted, T1 // 2, "score of domain shift, t = 250, t1 = 500")
    one, two, three = below.subplots(1, 3)
    draw_grids(one, shifted, plain)
    draw_amplification(two, shifted)
    draw_bound(three)
    for axes in (left, right, one, two, three):
        axes.legend(fontsize="small")
    return figure


def main() -> None:
    """Write the figure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=File, default=File(__file__).parent / "theory.png")
    draw().savefig(parser.parse_args().out, dpi=80)


if __name__ == "__main__":
    main()
