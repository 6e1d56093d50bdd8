"""What a search found: a row for each scale, a JSON record, and the spectra of one picture."""

from dataclasses import asdict
from typing import Any

from sr_cli.evaluation.metrics import DIGITS
from sr_cli.evaluation.prf.found import AtScale, Point, SearchResult
from sr_cli.evaluation.prf.losses import Array, radial
from sr_cli.evaluation.prf.search import Search
from sr_cli.evaluation.tables import Cell, Column, Table

FIRST = ("lpips", "psnr", "ssim")
"""The order in which scores stand in the table; others follow, and the spectrum's come last."""
SPECTRAL = ("low", "high")
AMPLITUDE = "amplitude"
"""Shown where t* was chosen by it."""


def table(result: SearchResult) -> Table:
    """One row a scale: the measured t*, scores at it and beside; before it the analytic field, if
    there are thresholds, and its t*."""
    reference = result.found[0].reference
    beside = "t 0" if reference == 0 else "T/2"
    shown = _shown(result.found[0])
    analytic = ("PRF", "its t*") if result.thresholds else ()
    columns = [Column(name) for name in ("scale", *analytic, "t*")]
    columns += [Column("t*/T", digits=3)]
    columns += [Column(name, digits=DIGITS.get(name, 3)) for name in shown]
    columns += [Column("s", digits=2)]
    columns += [Column(f"{name}, {beside}", digits=DIGITS.get(name, 3)) for name in shown]
    return Table(tuple(columns), tuple(_row(row, result, shown) for row in result.found))


def _shown(row: AtScale) -> list[str]:
    """What was measured of t*, in the table's order."""
    others = [name for name in row.star.scores if name not in (*FIRST, *SPECTRAL, AMPLITUDE)]
    last = [AMPLITUDE] * (row.criterion == AMPLITUDE)
    return [name for name in (*FIRST, *others, *SPECTRAL, *last) if row.best(name)]


def _row(row: AtScale, result: SearchResult, shown: list[str]) -> tuple[Cell, ...]:
    field = row.field
    analytic = (f"0–{field.high}", field.best) if field else ("none", 0)
    return (
        f"{row.scale:g}",
        *(analytic if result.thresholds else ()),
        row.star.t,
        row.star.t / result.length,
        *(row.star.scores[name] for name in shown),
        row.star.seconds,
        *(row.at(row.reference).scores[name] for name in shown),
    )


def record(result: SearchResult) -> dict[str, Any]:
    """Everything that was found, for JSON."""
    thresholds = result.thresholds
    return {
        "T": result.length,
        "thresholds": thresholds and asdict(thresholds),
        "texture": result.texture,
        "scales": [_scale(row) for row in result.found],
    }


def _scale(row: AtScale) -> dict[str, Any]:
    field = row.field
    best = {name: row.best(name) for name in row.star.scores}
    return {
        "scale": row.scale,
        "prf": field and asdict(field),
        "t": row.star.t,
        "criterion": row.criterion,
        "best": {name: point.t for name, point in best.items() if point},
        "distance": row.distance,
        "points": [_point(point) for point in row.points],
    }


def _point(point: Point) -> dict[str, Any]:
    return {"t": point.t, "seconds": point.seconds, **point.scores}


def spectra(search: Search, result: SearchResult) -> dict[str, tuple[Array, Array]]:
    """Mean amplitudes by frequency of the first image at the largest scale: the original, and
    recovered from the reference, from t* and from the last time of the grid."""
    row = result.found[-1]
    scene = search.scene(search.images[0], row.scale)
    times = {"reference": row.reference, "t*": row.star.t, "last": row.points[-1].t}
    found = {"HR": radial(scene.hr)}
    for name, t in times.items():
        recovered, _ = scene.through(search.engine.using(t1=t))
        found[f"{name}, t/T = {t / result.length:.2f}"] = radial(recovered)
    return found
