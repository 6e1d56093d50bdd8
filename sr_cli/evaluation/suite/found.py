"""What a suite finds: numbers with what is wanted of them, checks, and what was left out."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sr_cli.evaluation.tables import Column, Table


@dataclass(frozen=True)
class Finding:
    """One line.

    name: what was looked at. value: what was measured, in `unit`. target: what the value should at
    most be; a target that is missed is told and fails nothing. passed: of a check, whether it
    holds; None of what is only measured, or was left out. note: why.
    """

    name: str
    value: float | None = None
    unit: str = ""
    target: float | None = None
    passed: bool | None = None
    note: str = ""

    @property
    def cells(self) -> tuple[str, str, str]:
        """Name, value and what to say of it, for people."""
        value = "" if self.value is None else f"{self.value:.4g} {self.unit}".strip()
        said = []
        if self.passed is not None:
            said.append("holds" if self.passed else "FAILS")
        if self.target is not None and self.value is not None:
            met = "" if self.value <= self.target else ": missed"
            said.append(f"target {self.target:g}{met}")
        return self.name, value, "; ".join([*said, *([self.note] if self.note else [])])

    @property
    def failed(self) -> bool:
        """Whether it is a check that does not hold."""
        return self.passed is False


@dataclass(frozen=True)
class Part:
    """Findings of one kind under a heading.

    text: what stands above them, in Markdown. everywhere: whether they are those of any machine.
    figure: draws one into a file.
    """

    title: str
    findings: Sequence[Finding]
    text: str = ""
    tables: Sequence[Table] = ()
    everywhere: bool = False
    figure: Callable[[Path], None] | None = None

    @property
    def table(self) -> Table:
        """The findings."""
        columns = (Column(self.title), Column("measured"), Column("wanted"))
        return Table(columns, tuple(finding.cells for finding in self.findings))

    @property
    def all_tables(self) -> list[Table]:
        """That of the findings, if there are any, and the others."""
        return [*([self.table] if self.findings else []), *self.tables]

    @property
    def markdown(self) -> str:
        """All of it."""
        tables = (table.markdown() for table in self.all_tables)
        return "\n\n".join(filter(None, [self.text, *tables]))

    @property
    def record(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "title": self.title,
            "findings": [asdict(finding) for finding in self.findings],
            "tables": [table.records() for table in self.tables],
        }


def levels(name: str, value: float, most: float, note: str = "") -> Finding:
    """A check of how far apart two results are, in 8-bit levels."""
    said = f"at most {most:g}"
    said = f"{said}; {note}" if note else said
    return Finding(name, value, "levels", passed=value <= most, note=said)


def failures(parts: Sequence[Part]) -> Iterator[Finding]:
    """The checks that do not hold."""
    yield from (finding for part in parts for finding in part.findings if finding.failed)
