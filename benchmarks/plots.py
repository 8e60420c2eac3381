"""The plots of a summary: what the tables say, to be seen at a glance."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("agg")
from matplotlib import pyplot

__all__ = ["write_plots"]

Json = dict[str, Any]

#: Workload, figure to the right, figure upwards, both names.
_CURVES = (
    ("W2", "grain_us", "efficiency_percent", "work of a task, µs", "efficiency, %"),
    ("W3", "width", "seconds", "tasks at once", "seconds"),
    ("W6", "rate", "p99_ms", "executions offered a second", "p99, ms"),
)
#: Workload, figure, its name.
_BARS = (
    ("W1", "seconds", "seconds"),
    ("W4", "steps_per_s", "steps/s"),
    ("W5", "seconds", "seconds"),
    ("W7", "seconds", "seconds"),
)


def write_plots(document: Json, folder: Path) -> dict[str, str]:
    """Write them; workload → name of the file."""
    found = {workload["id"]: workload for workload in document["workloads"]}
    written = {}
    for name, right, up, right_title, up_title in _CURVES:
        if name in found:
            axes = pyplot.figure(figsize=(7, 4), layout="constrained").add_subplot()
            _curves(axes, document, found[name], right, up)
            axes.set(xscale="log", xlabel=right_title, ylabel=up_title)
            axes.set_yscale("linear" if up == "efficiency_percent" else "log")
            axes.legend(fontsize="small")
            written[name] = _save(document, name, folder)
    for name, figure, title in _BARS:
        if name in found:
            cases = found[name]["cases"]
            size = (7, 1 + 0.2 * sum(len(case["systems"]) for case in cases))
            axes = pyplot.figure(figsize=size, layout="constrained").add_subplot()
            _bars(axes, document, cases, figure)
            axes.set_xlabel(title)
            written[name] = _save(document, name, folder)
    return written


def _save(document: Json, name: str, folder: Path) -> str:
    file = f"{document['form']}-{name.lower()}.png"
    pyplot.savefig(folder / file, dpi=110)
    pyplot.close()
    return file


def _titled(entry: Json) -> str:
    return f"{entry['title']} ({entry['durability']})"


def _curves(axes: Any, document: Json, workload: Json, right: str, up: str) -> None:
    for entry in document["systems"]:
        series: dict[float, list[float]] = {}
        for case in workload["cases"]:
            figures = case["systems"].get(entry["name"], {}).get("figures", {})
            # Of W6 the ladder with one task is drawn.
            is_drawn = figures.get("tasks", {}).get("median", 1) == 1
            if is_drawn and right in figures and up in figures:
                point = (figures[up][part] for part in ("median", "low", "high"))
                series.setdefault(figures[right]["median"], list(point))
        if series:
            places = sorted(series)
            middle = [series[place][0] for place in places]
            (line,) = axes.plot(places, middle, marker="o", label=_titled(entry))
            low, high = ([series[place][part] for place in places] for part in (1, 2))
            axes.fill_between(places, low, high, alpha=0.2, color=line.get_color())


def _bars(axes: Any, document: Json, cases: Sequence[Json], figure: str) -> None:
    labels, widths, low, high = [], [], [], []
    for case in cases:
        for entry in document["systems"]:
            found = case["systems"].get(entry["name"], {}).get("figures", {}).get(figure)
            if found:
                labels.append(f"{case['case']}: {_titled(entry)}")
                widths.append(found["median"])
                low.append(found["median"] - found["low"])
                high.append(found["high"] - found["median"])
    axes.barh(range(len(labels)), widths, xerr=(low, high), capsize=2)
    axes.set_yticks(range(len(labels)), labels, fontsize="x-small")
    axes.invert_yaxis()
