"""Tables in Markdown, of a summary."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

__all__ = ["aims_table", "cases_table", "derived_table", "systems_table", "table"]

Json = dict[str, Any]
_NONE = "–"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; a | in a cell stays one."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(
        "| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines
    )


def _number(value: float, digits: int) -> str:
    return f"{value:,.{digits}f}"


def _spread(figure: Json | None, digits: int) -> str:
    """The median, with the quartiles if they differ from it as it is shown."""
    if figure is None:
        return _NONE
    low, median, high = (_number(figure[name], digits) for name in ("low", "median", "high"))
    return median if low == median == high else f"{median} [{low}, {high}]"


def cases_table(document: Json, columns: Sequence[Json], cases: Sequence[Json]) -> str:
    """A row for each case and system; figures that none of them has are left out."""
    titles = {entry["name"]: entry for entry in document["systems"]}
    used = {
        name for case in cases for found in case["systems"].values() for name in found["figures"]
    }
    shown = [column for column in columns if column["figure"] in used]
    rows = []
    for case in cases:
        for system, found in case["systems"].items():
            entry = titles[system]
            row = [case["case"], entry["title"], entry["durability"]]
            if found["figures"]:
                row += [_spread(found["figures"].get(c["figure"]), c["digits"]) for c in shown]
            else:
                row += [_NONE] * len(shown)
            remarks = [*found["cannot"], *found["errors"], *found["problems"]]
            rows.append([*row, "; ".join(remarks)])
    head = ["case", "system", "class", *(column["title"] for column in shown), ""]
    return table(head, rows)


def derived_table(document: Json, workload: Json) -> str:
    """What was derived, a row for each system."""
    rows = [
        [
            entry["title"],
            entry["durability"],
            *(
                _number(found[column["figure"]], column["digits"])
                if column["figure"] in found
                else _NONE
                for column in workload["derived_columns"]
            ),
        ]
        for entry in document["systems"]
        if (found := workload["derived"].get(entry["name"]))
    ]
    titles = [column["title"] for column in workload["derived_columns"]]
    return table(["system", "class", *titles], rows)


def systems_table(document: Json) -> str:
    """Who was compared, in which versions and with which durability."""
    return table(
        ["system", "class", "what it is here", "versions"],
        [
            [
                entry["title"],
                entry["durability"],
                entry["note"],
                ", ".join(f"{name} {value}" for name, value in entry["versions"].items()),
            ]
            for entry in document["systems"]
        ],
    )


def aims_table(document: Json) -> str:
    """The aims and what was measured."""
    words = {True: "yes", False: "no", None: "not measured"}
    return table(
        ["workload", "aim", "limit", "measured", "met"],
        [
            [
                aim["workload"],
                aim["what"],
                aim["limit"],
                _NONE if aim["measured"] is None else f"{aim['measured']:,.4g}",
                words[aim["met"]],
            ]
            for aim in document["aims"]
        ],
    )
