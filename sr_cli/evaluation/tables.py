"""Tables of results: plain values that know which of them are best, and their written forms."""

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

Better = Literal["higher", "lower"]
Cell = str | int | float | None
"""None: not measured."""


@dataclass(frozen=True)
class Column:
    """A heading, the direction in which a value is better (None: neither), decimals of floats."""

    name: str
    better: Better | None = None
    digits: int = 2


@dataclass(frozen=True)
class Table:
    """Rows of one cell for each column. Raises ValueError when a row has another length."""

    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(f"a row of {len(row)} cells in {len(self.columns)} columns: {row}")

    @property
    def text(self) -> tuple[tuple[str, ...], ...]:
        """The rows as people read them: floats with the column's decimals, "–" for None."""
        return tuple(
            tuple(_text(cell, column) for cell, column in zip(row, self.columns, strict=True))
            for row in self.rows
        )

    @property
    def best(self) -> frozenset[tuple[int, int]]:
        """(row, column) of the best values; those that read the same share the place."""
        return frozenset(self._best())

    def _best(self) -> Iterator[tuple[int, int]]:
        text = self.text
        for j, column in enumerate(self.columns):
            numbers = {
                i: row[j] for i, row in enumerate(self.rows) if isinstance(row[j], int | float)
            }
            if column.better is None or not numbers:
                continue
            choose = max if column.better == "higher" else min
            first = choose(numbers, key=lambda i: numbers[i])  # type: ignore[arg-type, return-value]
            yield from ((i, j) for i in numbers if text[i][j] == text[first][j])

    def markdown(self) -> str:
        """A GitHub table, best values bold."""
        names = [column.name for column in self.columns]
        ruler = ["---:" if self.numeric(j) else "---" for j in range(len(names))]
        best = self.best
        body = [
            [f"**{cell}**" if (i, j) in best else cell for j, cell in enumerate(row)]
            for i, row in enumerate(self.text)
        ]
        return "\n".join(f"| {' | '.join(cells)} |" for cells in (names, ruler, *body))

    def csv(self) -> str:
        """Comma-separated, values unrounded, None empty, lines ended by a line feed."""
        buffer = io.StringIO()
        writer = csv.writer(buffer, lineterminator="\n")
        writer.writerow(column.name for column in self.columns)
        writer.writerows(self.rows)
        return buffer.getvalue()

    def records(self) -> list[dict[str, Cell]]:
        """For JSON: each row as a mapping from headings to unrounded values."""
        names = [column.name for column in self.columns]
        return [dict(zip(names, row, strict=True)) for row in self.rows]

    def numeric(self, j: int) -> bool:
        """Whether column j holds no text, so that it stands on the right."""
        return not any(isinstance(row[j], str) for row in self.rows)


def _text(cell: Cell, column: Column) -> str:
    if cell is None:
        return "–"
    return f"{cell:.{column.digits}f}" if isinstance(cell, float) else str(cell)
