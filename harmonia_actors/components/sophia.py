"""Component `sophia`: analyses tables of data."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from harmonia_actors.components.analysis.clean import cell, percent
from harmonia_actors.components.analysis.columns import (
    COLUMNS_MAX,
    Column,
    columns_of,
    describe,
    statistics,
)
from harmonia_actors.components.analysis.findings import findings
from harmonia_actors.components.analysis.relations import (
    compare_groups,
    correlate,
    count_duplicates,
    find_outliers,
    sample_points,
)
from harmonia_actors.components.analysis.tables import read_table
from harmonia_actors.components.contract import ActionError, Component, TaskContext

__all__ = ["component"]

#: Rows and columns of the preview.
PREVIEW_ROWS = 5
PREVIEW_COLUMNS = 12


def _preload() -> None:
    import pandas
    import pyarrow.parquet

    # The first use of these parts takes as long as their import.
    pandas.Series([1.0, 2.0]).describe()
    pyarrow.table({"a": ["b"]}).to_pandas()


component = Component("sophia", description="Analyses tables of data", preload=_preload)


@component.action(uses_files=True)
def analyze_data(
    file_path: Annotated[str, Field(min_length=1)],
    analysis_type: Literal["basic", "detailed", "comprehensive"] = "basic",
    format: Literal["auto", "csv", "json", "parquet"] = "auto",  # noqa: A002 - the input's name
    *,
    context: TaskContext,
) -> dict[str, Any]:
    """Analyse a CSV, JSON or Parquet file.

    `basic` tells rows, columns, types and missing values; `detailed` adds each column's
    distribution; `comprehensive` adds correlations, group comparisons, outliers, duplicates and
    findings in plain sentences. `results` is what `rhetor.generate_content` makes reports of.

    Text is UTF-8, or UTF-16 or UTF-32 with its mark, or cp1252. A CSV row that is longer than the
    header is refused by its line, unless it only ends in separators. Dates beyond the years 1 to
    9999 count as missing.
    """
    _advance(context, 0.02, f"Reading {file_path}")
    with context.workspace.open_read(file_path) as opened:
        frame, found_format = read_table(opened, file_path, None if format == "auto" else format)
    _advance(context, 0.3, f"Describing {len(frame.columns)} columns of {len(frame)} rows")
    columns = columns_of(frame)
    results: dict[str, Any] = {
        "summary": _summary(frame, columns, file_path, found_format, analysis_type),
        "columns": [describe(column) for column in columns],
        "preview": _preview(frame),
    }
    if analysis_type != "basic":
        for position, (column, described) in enumerate(
            zip(columns, results["columns"], strict=True)
        ):
            _advance(context, 0.35 + 0.3 * position / len(columns), f"Column {column.name}")
            described["statistics"] = statistics(column)
    if analysis_type == "comprehensive":
        _relate(context, frame, columns, results)
    results["findings"] = findings(results)
    _advance(context, 1.0, "Analysis complete")
    return {
        "results": results,
        "rows": len(frame),
        "columns": len(frame.columns),
        "analysis_type": analysis_type,
        "format": found_format,
        "findings": results["findings"],
    }


def _relate(context: TaskContext, frame: Any, columns: list[Column], results: Any) -> None:
    _advance(context, 0.7, "Relating measures")
    results["correlations"] = correlate(columns)
    _advance(context, 0.78, "Comparing groups")
    results["groups"] = compare_groups(columns)
    results["scatter"] = sample_points(columns, results["correlations"], results["groups"])
    _advance(context, 0.9, "Looking for outliers and duplicates")
    results["outliers"] = find_outliers(columns)
    results["duplicates"] = count_duplicates(frame, columns)


def _summary(
    frame: Any, columns: list[Column], file_path: str, found_format: str, analysis_type: str
) -> dict[str, Any]:
    cells = len(frame) * len(columns)
    missing = sum(column.missing for column in columns)
    left_out = len(frame.columns) - len(columns)
    return {
        "file": file_path,
        "format": found_format,
        "analysis_type": analysis_type,
        "rows": len(frame),
        "columns": len(frame.columns),
        "missing_cells": missing,
        "missing_percent": percent(missing, cells),
        "notes": [f"Only the first {COLUMNS_MAX} of {len(frame.columns)} columns are described."]
        if left_out
        else [],
    }


def _preview(frame: Any) -> dict[str, Any]:
    rows = frame.iloc[:PREVIEW_ROWS, :PREVIEW_COLUMNS]
    return {
        "columns": [str(name) for name in rows.columns],
        "rows": [[cell(value) for value in row] for row in rows.itertuples(index=False)],
    }


def _advance(context: TaskContext, fraction: float, message: str) -> None:
    if context.cancelled:
        raise ActionError("the analysis was stopped", code="CANCELLED", retriable=False)
    context.progress(fraction, message)
