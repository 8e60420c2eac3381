"""What the columns of a table have to do with each other, and which rows stand out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from harmonia_actors.components.analysis.clean import cell, number, percent
from harmonia_actors.components.analysis.columns import Column

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["compare_groups", "correlate", "count_duplicates", "find_outliers", "sample_points"]

#: Measures that are related to each other, and those that are compared between groups.
CORRELATED_MAX = 16
COMPARED_MEASURES_MAX = 6
#: Columns by which groups are compared.
GROUPINGS_MAX = 3
STRONGEST_PAIRS = 10
#: Points of the scatter plot; a larger table is thinned evenly.
POINTS_MAX = 400
OUTLIER_EXAMPLES = 5
#: Pairs of values below which a correlation says nothing.
PAIRS_MIN = 3


def correlate(columns: Sequence[Column]) -> dict[str, Any] | None:
    """Pearson's correlation of the measures, pair by pair; None with fewer than two."""
    import pandas as pd

    measures = [column for column in columns if column.role == "measure" and column.unique > 1]
    if len(measures) < 2:
        return None
    chosen = measures[:CORRELATED_MAX]
    frame = pd.concat([column.values.astype("float64") for column in chosen], axis=1)
    matrix = frame.corr(min_periods=PAIRS_MIN).to_numpy()
    names = [column.name for column in chosen]
    pairs = [
        {"a": names[i], "b": names[j], "r": found}
        for i in range(len(names))
        for j in range(i + 1, len(names))
        if (found := number(matrix[i, j])) is not None
    ]
    pairs.sort(key=lambda pair: -abs(pair["r"]))  # type: ignore[arg-type]
    return {
        "columns": names,
        "matrix": [[number(value) for value in row] for row in matrix],
        "strongest": pairs[:STRONGEST_PAIRS],
        "left_out": len(measures) - len(chosen),
    }


def compare_groups(columns: Sequence[Column]) -> list[dict[str, Any]]:
    """For the columns that divide the rows best: the measures of each group."""
    measures = [c for c in columns if c.role == "measure" and c.unique > 1]
    categories = [c for c in columns if c.role == "category" and c.unique > 1]
    found = []
    for category in categories:
        compared = [_compare(category, measure) for measure in measures[:CORRELATED_MAX]]
        told = [comparison for comparison in compared if comparison["explained"] is not None]
        told.sort(key=lambda comparison: -comparison["explained"])
        if told:
            found.append({"by": category.name, "measures": told[:COMPARED_MEASURES_MAX]})
    found.sort(key=lambda grouping: -grouping["measures"][0]["explained"])  # type: ignore[index]
    return found[:GROUPINGS_MAX]


def _compare(category: Column, measure: Column) -> dict[str, Any]:
    """A measure by group, and which share of its variance the groups explain (eta squared)."""
    values = measure.values.astype("float64")
    there = values.notna() & category.values.notna()
    values = values[there]
    grouped = values.groupby(category.values[there], observed=True)
    total = float(((values - values.mean()) ** 2).sum())
    means = grouped.transform("mean")
    between = float(((means - values.mean()) ** 2).sum())
    return {
        "column": measure.name,
        "explained": number(between / total) if total > 0 else None,
        "groups": [
            {
                "group": cell(name),
                "count": len(group),
                "mean": number(group.mean()),
                "std": number(group.std()),
                **{label: number(group.quantile(share)) for label, share in _FIVE_NUMBERS.items()},
            }
            for name, group in grouped
        ],
    }


_FIVE_NUMBERS = {"min": 0.0, "q1": 0.25, "median": 0.5, "q3": 0.75, "max": 1.0}


def sample_points(
    columns: Sequence[Column],
    correlations: dict[str, Any] | None,
    groups: Sequence[dict[str, Any]],
) -> dict[str, Any] | None:
    """Points of the two most closely related measures, with the group of each if there are any."""
    import pandas as pd

    if not correlations or not correlations["strongest"]:
        return None
    by_name = {column.name: column for column in columns}
    pair = correlations["strongest"][0]
    grouping = groups[0]["by"] if groups else None
    chosen = [by_name[pair["a"]].values, by_name[pair["b"]].values]
    if grouping is not None:
        chosen.append(by_name[grouping].values)
    rows = pd.concat(chosen, axis=1).dropna()
    step = -(-len(rows) // POINTS_MAX) or 1
    points = [[cell(value) for value in row] for row in rows.iloc[::step].itertuples(index=False)]
    return {
        "x": pair["a"],
        "y": pair["b"],
        "r": pair["r"],
        "by": grouping,
        "points": points,
        "rows": len(rows),
    }


def find_outliers(columns: Sequence[Column]) -> list[dict[str, Any]]:
    """Of each measure, values beyond 1.5 times the middle half's spread from that half."""
    found = []
    for column in columns:
        if column.role != "measure":
            continue
        values = column.values.dropna().astype("float64")
        q1, q3 = values.quantile(0.25), values.quantile(0.75)
        low, high = q1 - 1.5 * (q3 - q1), q3 + 1.5 * (q3 - q1)
        beyond = values[(values < low) | (values > high)]
        distance = (beyond - values.median()).abs().sort_values(ascending=False)
        found.append(
            {
                "column": column.name,
                "count": len(beyond),
                "percent": percent(len(beyond), len(values)),
                "low": number(low),
                "high": number(high),
                "examples": [number(beyond[at]) for at in distance.index[:OUTLIER_EXAMPLES]],
            }
        )
    return found


def count_duplicates(frame: pd.DataFrame, columns: Sequence[Column]) -> dict[str, Any]:
    """Rows that repeat an earlier row, in the columns that are described."""
    import pandas as pd

    if not columns:
        return {"rows": 0, "percent": 0.0}
    hashable = pd.concat([column.values for column in columns], axis=1)
    repeated = int(hashable.duplicated().sum())
    return {"rows": repeated, "percent": percent(repeated, len(frame))}
