"""The report of any JSON: each member a section; tables, lists and charts by the values' shape.

Bounded whatever it is given: what is left out is said.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from decimal import Decimal
from itertools import islice
from typing import Any

from harmonia_actors.components.reports.model import (
    Bars,
    Block,
    Bullets,
    Chart,
    Line,
    Paragraph,
    Section,
    Table,
)

__all__ = ["data_sections"]

SECTIONS_MAX = 40
TABLE_ROWS_MAX = 100
TABLE_COLUMNS_MAX = 8
LIST_ITEMS_MAX = 100
PARAGRAPHS_MAX = 100
#: Characters of one paragraph and of one cell.
TEXT_LENGTH_MAX = 4_000
CELL_LENGTH_MAX = 120
CHART_BARS_MAX = 20
CHART_POINTS_MAX = 5_000
#: Objects within objects whose members get rows of their own.
DEPTH_MAX = 6


def data_sections(data: Any) -> tuple[Section, ...]:
    """Sections for any JSON value."""
    if not isinstance(data, dict) or not data:
        return (Section("Data", tuple(_blocks("data", data))),)
    plain = {key: value for key, value in data.items() if not isinstance(value, (dict, list))}
    short = {key: value for key, value in plain.items() if not _is_long(value)}
    sections = [Section("Overview", tuple(_blocks("overview", short)))] if short else []
    rest = [(key, value) for key, value in data.items() if key not in short]
    for at, (key, value) in enumerate(rest[:SECTIONS_MAX]):
        sections.append(Section(_title(key), tuple(_blocks(f"section{at + 1}", value))))
    if len(rest) > SECTIONS_MAX:
        note = f"{len(rest) - SECTIONS_MAX} more members are left out."
        sections.append(Section("Left out", (Paragraph(note),)))
    return tuple(sections)


def _blocks(name: str, value: Any) -> Iterator[Block]:
    if isinstance(value, dict):
        yield from _object(name, value)
    elif isinstance(value, list):
        yield from _array(name, value)
    elif isinstance(value, str):
        yield from _text(value)
    else:
        yield Paragraph(_cell(value))


def _text(text: str) -> Iterator[Block]:
    pieces = [piece.strip() for piece in text.split("\n\n") if piece.strip()]
    for piece in pieces[:PARAGRAPHS_MAX]:
        yield Paragraph(_cut(piece, TEXT_LENGTH_MAX))
    if len(pieces) > PARAGRAPHS_MAX:
        yield Paragraph(f"{len(pieces) - PARAGRAPHS_MAX} more paragraphs are left out.")
    if not pieces:
        yield Paragraph("(empty)")


def _object(name: str, value: dict[str, Any]) -> Iterator[Block]:
    numbers = [(key, float(v)) for key, v in value.items() if _is_number(v)]
    if 2 <= len(numbers) == len(value) <= CHART_BARS_MAX:
        caption = "The values side by side."
        yield Chart(f"{name}-values", caption, Bars((("", tuple(numbers)),)))
    leaves = list(islice(_leaves(value, "", 0), TABLE_ROWS_MAX + 1))
    rows = tuple(leaves[:TABLE_ROWS_MAX])
    if not rows:
        yield Paragraph("(empty)")
        return
    numeric = frozenset({1}) if len(numbers) == len(value) else frozenset[int]()
    yield Table(("Name", "Value"), rows, numeric)
    if len(leaves) > TABLE_ROWS_MAX:
        yield Paragraph(f"Only the first {TABLE_ROWS_MAX} values are shown.")


def _leaves(value: dict[str, Any], prefix: str, depth: int) -> Iterator[tuple[str, str]]:
    for key, member in value.items():
        path = _cut(f"{prefix}{key}", CELL_LENGTH_MAX)
        if isinstance(member, dict) and member and depth < DEPTH_MAX:
            yield from _leaves(member, f"{path}.", depth + 1)
        else:
            yield path, _cell(member)


def _array(name: str, items: list[Any]) -> Iterator[Block]:
    if not any(item != {} for item in items):
        yield Paragraph("(empty)")
    elif all(isinstance(item, dict) for item in items):
        yield from _table(name, items)
    elif len(items) > 2 and all(_is_number(item) for item in items):
        shown = tuple(float(item) for item in items[:CHART_POINTS_MAX])
        caption = f"{len(items):,} values in order."
        yield Chart(f"{name}-values", caption, Line((("", shown),)))
    else:
        yield Bullets(tuple(_cut(_cell(item), 400) for item in items[:LIST_ITEMS_MAX]))
        if len(items) > LIST_ITEMS_MAX:
            yield Paragraph(f"Only the first {LIST_ITEMS_MAX} of {len(items):,} items are shown.")


def _table(name: str, items: list[dict[str, Any]]) -> Iterator[Block]:
    columns: dict[str, None] = {}
    for item in items:
        columns |= dict.fromkeys(item)
    head = list(columns)[:TABLE_COLUMNS_MAX]
    numeric = {
        at for at, column in enumerate(head) if all(_is_number(item.get(column)) for item in items)
    }
    chart = _table_chart(name, items, head, numeric)
    if chart is not None:
        yield chart
    rows = tuple(
        tuple(_cell(item.get(column)) for column in head) for item in items[:TABLE_ROWS_MAX]
    )
    yield Table(tuple(_title(column) for column in head), rows, frozenset(numeric))
    left_out = []
    if len(items) > TABLE_ROWS_MAX:
        left_out.append(f"the first {TABLE_ROWS_MAX} of {len(items):,} rows")
    if len(columns) > len(head):
        left_out.append(f"the first {len(head)} of {len(columns)} columns")
    if left_out:
        yield Paragraph(f"Shown are {' and '.join(left_out)}.")


def _table_chart(
    name: str, items: list[dict[str, Any]], head: list[str], numeric: set[int]
) -> Chart | None:
    """Bars of the first numeric column by the first text column, or lines of the numeric ones."""
    if not numeric or len(items) < 2:
        return None
    labels = [c for c in head if all(isinstance(item.get(c), str) for item in items)]
    measures = [head[at] for at in sorted(numeric)]
    if labels and len(items) <= CHART_BARS_MAX:
        bars = tuple((str(item[labels[0]]), float(item[measures[0]])) for item in items)
        caption = f"{_cut(measures[0], 80)} by {_cut(labels[0], 80)}."
        return Chart(f"{name}-values", caption, Bars((("", bars),)))
    if len(items) > 2:
        series = tuple(
            (measure, tuple(float(item[measure]) for item in items[:CHART_POINTS_MAX]))
            for measure in measures[:4]
        )
        caption = f"{', '.join(_cut(m, 80) for m in measures[:4])}, row by row."
        return Chart(f"{name}-values", caption, Line(series))
    return None


def _is_number(value: Any) -> bool:
    """Finite, and small enough to draw."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return -1e300 < value < 1e300


def _is_long(value: Any) -> bool:
    return isinstance(value, str) and (len(value) > CELL_LENGTH_MAX or "\n" in value)


def _cell(value: Any) -> str:
    if isinstance(value, str):
        return _cut(value, CELL_LENGTH_MAX if "\n" not in value else TEXT_LENGTH_MAX)
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return str(value) if abs(value) < 10**15 else f"{Decimal(value).normalize():.6g}"
    if isinstance(value, float):
        return f"{value:.6g}"
    return _cut(_compact(value), CELL_LENGTH_MAX)


def _compact(value: Any) -> str:
    try:
        return json.dumps(value, ensure_ascii=False)
    except RecursionError:
        return "(nested too deeply to show)"


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"


def _title(key: str) -> str:
    """`bill_length` as a heading: Bill length. Keys that are more than a word stay as they are."""
    words = _cut(key, 80).replace("_", " ").strip()
    return words[:1].upper() + words[1:] if key.islower() else words or "(unnamed)"
