"""What an analysis found, in plain sentences, the most telling first."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["FINDINGS_MAX", "findings"]

FINDINGS_MAX = 12
#: Below these, a relation is not worth a sentence.
_CORRELATION_MIN = 0.5
_EXPLAINED_MIN = 0.14
_SKEWNESS_MIN = 1.0
_CLOSE = 0.8


def findings(results: Mapping[str, Any]) -> list[str]:
    """Sentences about the results that `sophia.analyze_data` is about to return."""
    found = [_overview(results)]
    found += _groups(results)
    found += _correlations(results)
    found += _frequent(results)
    found += _skewed(results)
    found += _outliers(results)
    found += _quality(results)
    return found[:FINDINGS_MAX]


def _overview(results: Mapping[str, Any]) -> str:
    summary = results["summary"]
    rows, columns = summary["rows"], summary["columns"]
    if not rows:
        return f"The data has {_count(columns, 'column')} but no rows."
    text = f"The data has {_count(rows, 'row')} and {_count(columns, 'column')}"
    missing = summary["missing_cells"]
    if not missing:
        return f"{text}; no value is missing."
    worst = max(results["columns"], key=lambda column: column["missing"])
    share = f"{summary['missing_percent']:g} %" if summary["missing_percent"] else "under 0.1 %"
    values = "1 value is" if missing == 1 else f"{missing:,} values are"
    return (
        f"{text}; {values} missing ({share} of all), most in {worst['name']} "
        f"({worst['missing']:,}, {worst['missing_percent']:g} % of its rows)."
    )


def _groups(results: Mapping[str, Any]) -> list[str]:
    sentences = []
    for grouping in results.get("groups", []):
        for measure in grouping["measures"][:2]:
            if measure["explained"] < _EXPLAINED_MIN:
                continue
            ranked = sorted(measure["groups"], key=lambda group: group["mean"])
            low, high = ranked[0], ranked[-1]
            sentences.append(
                f"{measure['column']} differs by {grouping['by']}: on average from "
                f"{_short(low['mean'])} ({low['group']}) to {_short(high['mean'])} "
                f"({high['group']}); {grouping['by']} explains "
                f"{100 * measure['explained']:.0f} % of its variance."
            )
    return sentences[:4]


def _correlations(results: Mapping[str, Any]) -> list[str]:
    sentences = []
    for pair in (results.get("correlations") or {}).get("strongest", [])[:3]:
        strength = abs(pair["r"])
        if strength < _CORRELATION_MIN:
            break
        how = "closely related" if strength >= _CLOSE else "related"
        direction = "they rise together" if pair["r"] > 0 else "one falls as the other rises"
        sentences.append(
            f"{pair['a']} and {pair['b']} are {how}: {direction} (r = {pair['r']:.2f})."
        )
    return sentences


def _frequent(results: Mapping[str, Any]) -> list[str]:
    sentences = []
    for column in results["columns"]:
        top = column.get("statistics", {}).get("top")
        if not top or column["role"] != "category" or column["type"] == "integer":
            continue
        first = max(top, key=lambda entry: entry["count"])
        sentences.append(
            f"The most frequent {column['name']} is {first['value']}: {first['count']:,} rows "
            f"({first['percent']:g} %)."
        )
    return sentences[:2]


def _skewed(results: Mapping[str, Any]) -> list[str]:
    sentences = []
    for column in results["columns"]:
        statistics = column.get("statistics", {})
        skewness = statistics.get("skewness")
        if column["role"] != "measure" or skewness is None or abs(skewness) < _SKEWNESS_MIN:
            continue
        side, where = ("right", "above") if skewness > 0 else ("left", "below")
        sentences.append(
            f"{column['name']} is skewed to the {side}: its mean ({_short(statistics['mean'])}) "
            f"lies {where} its median ({_short(statistics['median'])})."
        )
    return sentences[:2]


def _outliers(results: Mapping[str, Any]) -> list[str]:
    if "outliers" not in results:
        return []
    told = [outlier for outlier in results["outliers"] if outlier["count"]]
    if not told:
        measured = len(results["outliers"])
        return ["No measure has values far from the rest."] if measured else []
    told.sort(key=lambda outlier: -outlier["percent"])
    return [
        f"{outlier['column']} has {_count(outlier['count'], 'value')} far from the rest "
        f"({outlier['percent']:g} %), beyond {_short(outlier['low'])} to {_short(outlier['high'])}."
        for outlier in told[:2]
    ]


def _quality(results: Mapping[str, Any]) -> list[str]:
    sentences = []
    empty = [column["name"] for column in results["columns"] if column["role"] == "empty"]
    if empty and results["summary"]["rows"]:
        sentences.append(f"No row has a value for {', '.join(empty[:5])}.")
    duplicates = results.get("duplicates")
    if duplicates is not None and duplicates["rows"]:
        repeats = (
            "1 row repeats" if duplicates["rows"] == 1 else f"{duplicates['rows']:,} rows repeat"
        )
        sentences.append(f"{repeats} an earlier row ({duplicates['percent']:g} %).")
    elif duplicates is not None and results["summary"]["rows"]:
        sentences.append("No row repeats another.")
    return sentences


def _count(count: int, noun: str) -> str:
    return f"{count:,} {noun}" + ("" if count == 1 else "s")


def _short(value: float | None) -> str:
    """A number for reading: thousands apart, at most four significant digits of a fraction."""
    if value is None:
        return "nothing"
    return f"{value:,.0f}" if 1000 <= abs(value) < 1e15 else f"{value:.4g}"
