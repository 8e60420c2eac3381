"""What each column of a table holds: its kind, what is missing, its distribution."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from harmonia_actors.components.analysis.clean import cell, number, percent, shown

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["COLUMNS_MAX", "Column", "columns_of", "describe", "statistics"]

#: Columns that results describe; a wider table is described in part.
COLUMNS_MAX = 60
#: Bars of a histogram, and values in a list of the most frequent.
BINS_MAX = 20
TOP_VALUES = 10
#: A column with at most this many distinct values divides rows into groups.
CATEGORIES_MAX = 12
#: Numbers beyond it count as missing, as infinity does: their squares have no value.
MAGNITUDE_MAX = 1e150
#: The first and the last year of dates; dates beyond count as missing, for no calendar has them.
YEARS = (1, 9999)

Kind = Literal["integer", "number", "boolean", "date", "text"]
#: measure: a quantity; category: divides rows into groups; identifier: tells rows apart;
#: time: when; text: anything else; empty: nothing at all.
Role = Literal["measure", "category", "identifier", "time", "text", "empty"]


@dataclass(frozen=True)
class Column:
    """A column with its values, and what kind of thing it is."""

    name: str
    values: Any  # a pandas Series, hashable throughout
    kind: Kind
    role: Role
    unique: int
    missing: int


def columns_of(frame: pd.DataFrame) -> list[Column]:
    """The table's first columns, each with its kind and role."""
    return [
        _column(str(name), frame.iloc[:, position])
        for position, name in enumerate(frame.columns[:COLUMNS_MAX])
    ]


def _column(name: str, values: Any) -> Column:
    from pandas.api import types

    kind: Kind
    if types.is_bool_dtype(values):
        kind = "boolean"
    elif types.is_integer_dtype(values):
        kind = "integer"
    elif types.is_numeric_dtype(values) and not types.is_complex_dtype(values):
        values = values.where(abs(values) < MAGNITUDE_MAX)
        whole = values.dropna()
        kind = "integer" if len(whole) and (whole % 1 == 0).all() else "number"
    elif types.is_datetime64_any_dtype(values):
        values = values.where(values.dt.year.between(*YEARS))
        kind = "date"
    else:
        kind = "text"
        values = values.map(shown, na_action="ignore")
    unique = int(values.nunique())
    missing = int(values.isna().sum())
    return Column(name, values, kind, _role(values, kind, unique, missing), unique, missing)


def _role(values: Any, kind: Kind, unique: int, missing: int) -> Role:
    rows = len(values)
    if missing == rows:
        return "empty"
    if kind == "date":
        return "time"
    few = unique <= min(CATEGORIES_MAX, max(2, rows // 5))
    if kind in ("integer", "number"):
        if kind == "integer" and rows > 20 and unique == rows and values.is_monotonic_increasing:
            return "identifier"
        return "category" if kind == "integer" and few and rows > 20 else "measure"
    if kind == "boolean" or few:
        return "category"
    return "identifier" if unique == rows - missing and rows > 20 else "text"


def describe(column: Column) -> dict[str, Any]:
    """The column in short: name, type, role, missing and distinct values."""
    return {
        "name": shown(column.name),
        "type": column.kind,
        "role": column.role,
        "dtype": str(column.values.dtype),
        "missing": column.missing,
        "missing_percent": percent(column.missing, len(column.values)),
        "unique": column.unique,
    }


def statistics(column: Column) -> dict[str, Any]:
    """The column's distribution, by its kind; empty for a column without values."""
    if column.role == "empty":
        return {}
    present = column.values.dropna()
    if column.kind in ("integer", "number"):
        found = _numeric(present)
        if column.role == "category":
            found["top"] = _top(column, by_value=True)
        return found
    if column.kind == "date":
        return _dates(present)
    found = {"top": _top(column), "distinct": column.unique}
    if column.kind == "text":
        lengths = present.str.len()
        found |= {"shortest": number(lengths.min()), "longest": number(lengths.max())}
    return found


def _numeric(values: Any) -> dict[str, Any]:
    present = values.astype("float64")
    q1, median, q3 = (number(present.quantile(share)) for share in (0.25, 0.5, 0.75))
    return {
        "count": len(present),
        "mean": number(present.mean()),
        "std": number(present.std()),
        "min": number(present.min()),
        "q1": q1,
        "median": median,
        "q3": q3,
        "max": number(present.max()),
        "skewness": number(present.skew()) if len(present) > 2 else None,
        "zeros": int((present == 0).sum()),
        "histogram": _histogram(present),
    }


def _histogram(values: Any) -> dict[str, Any] | None:
    """Counts between edges; None for values that are all the same."""
    import numpy as np

    low, high = float(values.min()), float(values.max())
    if low == high:
        return None
    bins = _bin_count(values)
    # Numbers may lie so close that there is no number between them.
    edges = np.unique(np.linspace(low, high, bins + 1))
    counts, _ = np.histogram(values, bins=edges)
    return {
        "edges": [number(edge) for edge in edges],
        "counts": [int(count) for count in counts],
    }


def _bin_count(values: Any) -> int:
    """By Freedman and Diaconis: the spread of the middle half decides."""
    spread = float(values.quantile(0.75) - values.quantile(0.25))
    reach = float(values.max() - values.min())
    if spread <= 0 or reach <= 0:
        return 10
    width = 2 * spread / len(values) ** (1 / 3)
    return int(min(BINS_MAX, max(5, round(reach / width))))


def _dates(values: Any) -> dict[str, Any]:
    import numpy as np

    # Microseconds reach over all years; nanoseconds, which pandas prefers, over 292.
    values = values.dt.as_unit("us")
    first, last = values.min(), values.max()
    ticks = (values - first).astype("int64")
    counts, edges = np.histogram(ticks, bins=BINS_MAX if first < last else 1)
    starts = [first + np.timedelta64(round(edge), "us") for edge in edges[:-1]]
    return {
        "first": cell(first),
        "last": cell(last),
        "span_days": number((last - first).total_seconds() / 86_400),
        "histogram": {
            "edges": [cell(edge) for edge in (*starts, last)],
            "counts": [int(count) for count in counts],
        },
    }


def _top(column: Column, *, by_value: bool = False) -> list[dict[str, Any]]:
    counts = column.values.value_counts().head(max(TOP_VALUES, CATEGORIES_MAX))
    if by_value:
        counts = counts.sort_index()
    rows = len(column.values)
    return [
        {"value": cell(value), "count": int(count), "percent": percent(count, rows)}
        for value, count in counts.items()
    ]
