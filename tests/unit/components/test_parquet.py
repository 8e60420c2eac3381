"""Parquet files of every column type are analysed, each column as what it is."""

from __future__ import annotations

import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from pyarrow import parquet

from harmonia_actors.components.analysis.clean import cell
from tests.unit.components.context import RecordingContext, context_in
from tests.unit.components.test_sophia import analyse, column

DAY = datetime.date(2025, 1, 31)


@pytest.fixture
def context(tmp_path: Path) -> RecordingContext:
    return context_in(tmp_path)


def analyse_table(context: RecordingContext, table: pa.Table | pd.DataFrame) -> dict[str, Any]:
    file = context.workspace.directory / "made.parquet"
    if isinstance(table, pd.DataFrame):
        table.to_parquet(file)
    else:
        parquet.write_table(table, file)
    return analyse(context, file.read_bytes(), "data.parquet")


@pytest.mark.parametrize(
    ("values", "kind", "first"),
    [
        (pa.array([[1, 2], None, [3]]), "text", "[1, 2]"),
        (pa.array([[5], [6], [7]]), "text", "[5]"),
        (pa.array([[["a"], []], [], None]), "text", "[['a'], []]"),
        (pa.array([{"a": 1}, {"a": 2}] * 2)[:3], "text", "{'a': 1}"),
        (pa.array([Decimal("1.50"), None, Decimal("2.25")]), "number", 1.5),
        (pa.array([Decimal("1.50")] * 3, pa.decimal256(60, 2)), "number", 1.5),
        (pa.array([DAY, None, DAY], pa.date32()), "date", "2025-01-31T00:00:00"),
        (pa.array([DAY, None, DAY], pa.date64()), "date", "2025-01-31T00:00:00"),
        (pa.array([0, 1, None], pa.timestamp("ns", tz="UTC")), "date", "1970-01-01T00:00:00+00:00"),
        (pa.array([0.5, None, 1e30], pa.float32()), "number", 0.5),
        (pa.array([np.float16(0.5)] * 3, pa.float16()), "number", 0.5),
        (pa.array([2**64 - 1, 1, 2], pa.uint64()), "integer", 2**64 - 1),
        (pa.array([1, 2, 3], pa.duration("s")), "text", "0 days 00:00:01"),
        (pa.array([1, 2, 3], pa.time32("s")), "text", "00:00:01"),
        (pa.array([b"x", b"\xff", None]), "text", "b'x'"),
        (pa.nulls(3), "text", None),
        (pa.array(["b", "a", "b"]).dictionary_encode(), "text", "b"),
    ],
    ids=lambda value: str(value.type) if isinstance(value, pa.Array) else None,
)
def test_each_column_type_is_read_as_what_it_holds(
    context: RecordingContext, values: pa.Array, kind: str, first: Any
) -> None:
    output = analyse_table(context, pa.table({"x": values, "n": [1, 2, 3]}))
    assert column(output, "x")["type"] == kind
    assert output["results"]["preview"]["rows"][0] == [first, 1]


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (np.array([1]), "[1]"),
        (np.array([]), "[]"),
        (np.array([[1, 2]]), "[[1, 2]]"),
        ({"a": np.array([1])}, "{'a': [1]}"),
        (np.float64(0.5), 0.5),
        (np.array(3)[()], 3),
    ],
)
def test_an_array_is_no_number(value: Any, shown: Any) -> None:
    assert cell(value) == shown


def test_money_is_a_measure(context: RecordingContext) -> None:
    prices = [Decimal(n) / 4 for n in range(30)]
    found = column(analyse_table(context, pa.table({"price": prices})), "price")
    assert found["role"] == "measure"
    assert found["statistics"]["max"] == 7.25


def test_categories_that_no_row_has_are_not_listed(context: RecordingContext) -> None:
    kinds = pd.Series(["a", "b", "a", "c"] * 9, dtype="category")
    output = analyse_table(context, pd.DataFrame({"kind": kinds[kinds != "b"]}))
    assert [described["name"] for described in output["results"]["columns"]] == ["kind"]
    top = column(output, "kind")["statistics"]["top"]
    assert [entry["value"] for entry in top] == ["a", "c"]


def test_all_columns_of_an_index_are_kept(context: RecordingContext) -> None:
    levels = pd.MultiIndex.from_product([["x", "y"], [1, 2]], names=["place", "n"])
    output = analyse_table(context, pd.DataFrame({"value": [1.5, 2, 3, 4]}, index=levels))
    assert output["results"]["preview"]["columns"] == ["place", "n", "value"]
    assert output["results"]["preview"]["rows"][0] == ["x", 1, 1.5]


@pytest.mark.parametrize(
    ("index", "columns"),
    [
        (pd.Index(["a", "b"], name="name"), ["name", "value"]),
        (pd.Index(["a", "b"], name="value"), ["value", "value.1"]),
        (pd.Index(["a", "b"]), ["index", "value"]),
        (pd.MultiIndex.from_product([["x"], [1, 2]]), ["level_0", "level_1", "value"]),
        # Row numbers, of all rows or of those that were left, say nothing.
        (pd.RangeIndex(2), ["value"]),
        (pd.Index([3, 7]), ["value"]),
    ],
)
def test_an_index_is_a_column_if_it_says_something(
    context: RecordingContext, index: Any, columns: list[str]
) -> None:
    output = analyse_table(context, pd.DataFrame({"value": [1.5, 2.5]}, index=index))
    assert output["results"]["preview"]["columns"] == columns


def test_row_numbers_may_repeat(context: RecordingContext) -> None:
    part = pd.DataFrame({"kind": ["a", "b"] * 15, "n": [*range(29), 900]})
    output = analyse_table(context, pd.concat([part, part]))
    assert output["results"]["outliers"][0]["examples"] == [900, 900]


def test_columns_of_one_name_stay_apart(context: RecordingContext) -> None:
    days = [f"2025-01-{n:02}" for n in range(1, 29)]
    words = ["one", "two"] * 14
    table = pa.table([days, words, range(28), words], names=["a", "a", "a.1", "a"])
    output = analyse_table(context, table)
    assert output["results"]["preview"]["columns"] == ["a", "a.2", "a.1", "a.3"]
    assert output["results"]["preview"]["rows"][1] == ["2025-01-02T00:00:00", "two", 1, "two"]


def test_dates_of_all_times_are_described(context: RecordingContext) -> None:
    lines = "when\n0001-01-01\n2025-06-01\n9999-12-31\n"
    found = column(analyse(context, lines), "when")["statistics"]
    assert (found["first"], found["last"]) == ("0001-01-01T00:00:00", "9999-12-31T00:00:00")
    assert found["span_days"] == 3652058
    edges = found["histogram"]["edges"]
    assert (edges[0], edges[-1]) == (found["first"], found["last"])
    assert edges == sorted(edges)
    assert sum(found["histogram"]["counts"]) == 3


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_times_of_every_unit_are_described(context: RecordingContext, unit: str) -> None:
    ticks = pa.array([0, 40, 20], pa.timestamp(unit))
    found = column(analyse_table(context, pa.table({"t": ticks})), "t")["statistics"]
    assert sum(found["histogram"]["counts"]) == 3
    assert found["histogram"]["edges"][0] == "1970-01-01T00:00:00"
    assert found["histogram"]["edges"][-1] == found["last"]


def test_dates_that_no_calendar_has_count_as_missing(context: RecordingContext) -> None:
    days = pa.array([10**7, -(10**7), 2**31 - 1, 0, 1, None], pa.date32())
    found = column(analyse_table(context, pa.table({"day": days})), "day")
    assert found["missing"] == 4
    assert found["statistics"]["span_days"] == 1
