"""Methods at several scales, as the tables of the Diff-SR paper set them beside each other."""

from collections.abc import Sequence

from sr_cli.evaluation.bench import Row
from sr_cli.evaluation.metrics import Metrics, column
from sr_cli.evaluation.tables import Cell, Column, Table


def by_scale(rows: Sequence[Row], metrics: Metrics) -> list[Table]:
    """Of the rows of one data set a table for each metric that there is, and one for the median of
    the seconds an image: a row for each method, a column for each scale."""
    found = {(row.method, row.scale): row for row in rows}
    names = [name for name in metrics.names if name not in metrics.missing]
    measured = [
        (column(name), {key: row.scores.get(name) for key, row in found.items()}) for name in names
    ]
    seconds = {key: row.percentile(50) for key, row in found.items()}
    measured.append((Column("s/image", "lower", 3), seconds))
    return [_table(kind, values) for kind, values in measured]


def _table(kind: Column, values: dict[tuple[str, float], float | None]) -> Table:
    methods = dict.fromkeys(method for method, _ in values)
    scales = sorted({scale for _, scale in values})
    columns = [Column(kind.name)]
    columns += [Column(f"{scale:g}×", kind.better, kind.digits) for scale in scales]
    cells: list[tuple[Cell, ...]] = [
        (method, *(values.get((method, scale)) for scale in scales)) for method in methods
    ]
    return Table(tuple(columns), tuple(cells))
