"""Tables: the best value by each column's direction, and the written forms."""

import csv
import io
import json

import pytest

from sr_cli.evaluation.tables import Column, Table

COLUMNS = (
    Column("solver"),
    Column("steps"),
    Column("psnr", "higher"),
    Column("lpips", "lower", digits=3),
)
TABLE = Table(
    COLUMNS,
    (
        ("paper", 1, 27.451, 0.297),
        ("paper", 5, 26.65, 0.23649),
        ("DDIM, η = 1", 5, 27.449, 0.23651),
        ("edm", 5, None, 0.2362),
    ),
)


def test_the_best_values_follow_each_columns_direction() -> None:
    assert TABLE.best == {(0, 2), (2, 2), (1, 3), (3, 3)}


def test_values_that_read_the_same_are_equally_good() -> None:
    rows = ((1.004, 1.0), (1.0, 1.0), (0.99, 1.006))
    table = Table((Column("a", "higher"), Column("b", "lower")), rows)
    assert table.best == {(0, 0), (1, 0), (0, 1), (1, 1)}


def test_a_column_without_direction_or_numbers_has_no_best() -> None:
    table = Table((Column("steps"), Column("psnr", "higher")), ((1, None), (2, None)))
    assert table.best == frozenset()


def test_markdown_makes_the_best_bold() -> None:
    assert TABLE.markdown().splitlines() == [
        "| solver | steps | psnr | lpips |",
        "| --- | ---: | ---: | ---: |",
        "| paper | 1 | **27.45** | 0.297 |",
        "| paper | 5 | 26.65 | **0.236** |",
        "| DDIM, η = 1 | 5 | **27.45** | 0.237 |",
        "| edm | 5 | – | **0.236** |",
    ]


def test_csv_and_json_keep_every_digit() -> None:
    read = list(csv.DictReader(io.StringIO(TABLE.csv())))
    assert read[2] == {"solver": "DDIM, η = 1", "steps": "5", "psnr": "27.449", "lpips": "0.23651"}
    assert read[3]["psnr"] == ""
    records = json.loads(json.dumps(TABLE.records()))
    assert [record["lpips"] for record in records] == [0.297, 0.23649, 0.23651, 0.2362]
    assert records[3]["psnr"] is None


def test_rows_of_another_length_are_refused() -> None:
    with pytest.raises(ValueError, match="3 cells in 4 columns"):
        Table(COLUMNS, (("paper", 1, 2.0),))
