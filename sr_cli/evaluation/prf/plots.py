"""The figure of a search: losses (Fig. 4), metrics by time (6), schedules (7), spectra (8)."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sr_cli.errors import InputError
from sr_cli.evaluation.prf.found import SearchResult
from sr_cli.evaluation.prf.losses import RADIUS, Array

METRICS = ("lpips", "high", "psnr")


def draw(
    results: Mapping[str, SearchResult], spectra: Mapping[str, tuple[Array, Array]], path: Path
) -> None:
    """results: by schedule. spectra: (frequencies, mean amplitudes) by what they are of.

    A row of panels for each schedule: losses with the fields shaded, then metrics by time. Below:
    the schedules compared, the spectra, and where the first schedule's losses balance. Raises
    InputError if `path` cannot be written.
    """
    from matplotlib.figure import Figure

    rows = len(results) + 1
    figure = Figure(figsize=(18, 4.2 * rows), layout="constrained")
    axes = figure.subplots(rows, 1 + len(METRICS), squeeze=False)
    for line, (name, result) in zip(axes, results.items(), strict=False):
        _losses(line[0], name, result)
        for panel, metric in zip(line[1:], METRICS, strict=True):
            _by_time(panel, metric, result)
    _schedules(axes[-1][:2], results)
    _spectra(axes[-1][2], spectra)
    _balance(axes[-1][3], next(iter(results.values())))
    try:
        figure.savefig(path, dpi=120)
    except OSError as error:
        raise InputError(f"The figure {path} cannot be written: {error.strerror}.") from error


def _losses(axes: Any, name: str, result: SearchResult) -> None:
    """Fig. 4: L^S, and ω L^F of each scale; the widest field shaded; a dot at t*, a cross at the
    measured one."""
    time = np.arange(result.length) / result.length
    axes.plot(time[2:], result.signature[2:], "k", label="$L^S$")
    for i, row in enumerate(result.found):
        color, loss = f"C{i}", result.fidelity(row)
        axes.plot(time, loss, color, label=f"$\\omega L^F$ {row.scale:g}x")
        if row.field:
            axes.plot(time[row.field.best], loss[row.field.best], "o", color=color)
        if row.star.t < result.length:
            axes.plot(time[row.star.t], loss[row.star.t], "x", color=color)
    if ends := [row.field.high for row in result.found if row.field]:
        axes.axvspan(0, time[max(ends)], color="gray", alpha=0.12)
    axes.set(yscale="log", title=f"losses, {name}")
    _time_axis(axes)
    axes.legend(fontsize="x-small")


def _balance(axes: Any, result: SearchResult) -> None:
    """e_t, and ω ‖x0 − y‖² of each scale, which it must not exceed until t* (a dot; a cross at the
    measured one), nor C^S τ (dotted)."""
    limits = result.thresholds
    if limits is None:
        axes.axis("off")
        return
    time = np.arange(result.length) / result.length
    axes.plot(time, result.restored, "k", label="$e_t$")
    axes.axhline(limits.signature * result.texture, color="k", linestyle=":", label=r"$C^S\tau$")
    for i, row in enumerate(result.found):
        level, color = limits.omega * row.distance, f"C{i}"
        axes.axhline(level, color=color, label=f"$\\omega|x_0-y|^2$ {row.scale:g}x")
        if row.field:
            axes.plot(time[row.field.best], result.restored[row.field.best], "o", color=color)
        if row.star.t < result.length:
            axes.plot(time[row.star.t], level, "x", color=color)
    axes.set(yscale="log", title="where they balance")
    _time_axis(axes)
    axes.legend(fontsize="x-small")


def _by_time(axes: Any, metric: str, result: SearchResult) -> None:
    """Fig. 6: a metric against the starting time."""
    T = result.length
    for i, row in enumerate(result.found):
        known = [p for p in row.points if p.scores.get(metric) is not None]
        values = [p.scores[metric] for p in known]
        axes.plot([p.t / T for p in known], values, ".-", color=f"C{i}", label=f"{row.scale:g}x")
        best = row.best(metric)
        if best:
            axes.plot(best.t / T, best.scores[metric], "o", color=f"C{i}")
    axes.set(title=metric)
    axes.grid(alpha=0.3)
    axes.legend(fontsize="x-small")
    _time_axis(axes)


def _time_axis(axes: Any) -> None:
    """Logarithmic, as most happens at small t, and yet with a place for 0."""
    axes.set_xscale("symlog", linthresh=0.01)
    ticks = (0, 0.01, 0.03, 0.1, 0.3, 1)
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.set_xlim(0, 1)
    axes.set_xlabel("t/T")


def _schedules(axes: Sequence[Any], results: Mapping[str, SearchResult]) -> None:
    """Fig. 7: t* by scale under each schedule, as a time and as the noise that it means."""
    for name, result in results.items():
        scales = [row.scale for row in result.found]
        stars = [row.star.t for row in result.found]
        sigma = np.append(np.sqrt(1 - result.alpha_bar), 1.0)  # DoSSR may start at T
        noise = [sigma[t] if t else 0.0 for t in stars]
        axes[0].plot(scales, [t / result.length for t in stars], "o-", label=name)
        axes[1].plot(scales, noise, "o-", label=name)
    axes[0].set(xlabel="scale", title="t*/T by schedule")
    axes[1].set(xlabel="scale", title="σ at t* by schedule")
    for panel in axes:
        panel.grid(alpha=0.3)
        panel.legend(fontsize="x-small")


def _spectra(axes: Any, spectra: Mapping[str, tuple[Array, Array]]) -> None:
    """Fig. 8: mean amplitude by frequency."""
    for name, (frequency, amplitude) in spectra.items():
        axes.plot(frequency, amplitude, label=name)
    axes.axvline(RADIUS, color="gray", linestyle=":")
    axes.set(yscale="log", xlabel="cycles a pixel", title="spectra")
    axes.legend(fontsize="x-small")
