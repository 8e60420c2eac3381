"""The report of an analysis: results of `sophia.analyze_data` become sections.

Results come as JSON from wherever a workflow took them, so their shape is checked here first;
what does not fit is no analysis and is left to `generic.py`.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, Field, ValidationError

from harmonia_actors.components.reports.model import (
    Bars,
    Block,
    Boxes,
    Bullets,
    Chart,
    HeatMap,
    Histogram,
    Histograms,
    KeyFigures,
    Paragraph,
    Scatter,
    Section,
    Table,
)

__all__ = ["Results", "analysis_sections", "parse_results"]

#: Panels of one chart, and charts of like panels.
PANELS_MAX = 9
CATEGORY_PANELS_MAX = 6
BARS_MAX = 12
HEAT_MAP_MAX = 30
TABLE_ROWS_MAX = 60
PREVIEW_COLUMNS_MAX = 8
#: Numbers from here on are not written out: nobody counts their digits, and no cell has room.
WRITTEN_OUT_MAX = 1e15
#: Groups in a table of means.
MEANS_MAX = 6

#: Finite, and small enough to draw: with others it is no analysis.
Number = (
    Annotated[float, Field(ge=-1e300, le=1e300)] | Annotated[int, Field(ge=-(10**300), le=10**300)]
)
Correlation = Annotated[float, Field(ge=-1, le=1)] | Annotated[int, Field(ge=-1, le=1)]
Count = Annotated[int, Field(ge=0, le=10**15)]
Scalar = str | Number | bool | None


class _Summary(BaseModel):
    file: str = ""
    format: str = ""
    analysis_type: str = ""
    rows: Count
    columns: Count
    missing_cells: Count = 0
    missing_percent: Number = 0
    notes: list[str] = []


class _Histogram(BaseModel):
    edges: list[Number | str | None]
    counts: list[Count]


class _Top(BaseModel):
    value: Scalar
    count: Count
    percent: Number = 0


class _Statistics(BaseModel):
    mean: Number | None = None
    std: Number | None = None
    min: Number | None = None
    q1: Number | None = None
    median: Number | None = None
    q3: Number | None = None
    max: Number | None = None
    first: str | None = None
    last: str | None = None
    histogram: _Histogram | None = None
    top: list[_Top] = []


class _Column(BaseModel):
    name: str
    type: str
    role: str = ""
    missing: Count = 0
    missing_percent: Number = 0
    unique: Count = 0
    statistics: _Statistics | None = None


class _Pair(BaseModel):
    a: str
    b: str
    r: Correlation


class _Correlations(BaseModel):
    columns: list[str]
    matrix: list[list[Correlation | None]]
    strongest: list[_Pair] = []


class _Group(BaseModel):
    group: Scalar
    count: Count
    mean: Number | None = None
    std: Number | None = None
    min: Number | None = None
    q1: Number | None = None
    median: Number | None = None
    q3: Number | None = None
    max: Number | None = None


class _Measure(BaseModel):
    column: str
    explained: Number | None = None
    groups: list[_Group]


class _Grouping(BaseModel):
    by: str
    measures: list[_Measure]


class _Scatter(BaseModel):
    x: str
    y: str
    r: Correlation
    by: str | None = None
    points: list[list[Scalar]]
    rows: Count = 0


class _Outliers(BaseModel):
    column: str
    count: Count
    percent: Number
    low: Number | None
    high: Number | None
    examples: list[Number | None] = []


class _Duplicates(BaseModel):
    rows: Count
    percent: Number


class _Preview(BaseModel):
    columns: list[str]
    rows: list[list[Scalar]]


class Results(BaseModel):
    """What `sophia.analyze_data` returns as `results`, whatever its depth."""

    summary: _Summary
    columns: list[_Column]
    findings: list[str] = []
    preview: _Preview | None = None
    correlations: _Correlations | None = None
    groups: list[_Grouping] = []
    scatter: _Scatter | None = None
    outliers: list[_Outliers] | None = None
    duplicates: _Duplicates | None = None


def parse_results(data: Any) -> Results | None:
    """The results in `data` or in its member `results`; None if there are none."""
    if not isinstance(data, dict):
        return None
    if "summary" not in data and isinstance(data.get("results"), dict):
        data = data["results"]
    try:
        return Results.model_validate(data)
    except ValidationError:
        return None


def analysis_sections(results: Results) -> tuple[Section, ...]:
    """The sections that these results are enough for, in reading order."""
    sections = (
        _findings(results),
        _data(results),
        _distributions(results),
        _categories(results),
        _relations(results),
        _groups(results),
        _quality(results),
    )
    return tuple(section for section in sections if section.blocks)


def _findings(results: Results) -> Section:
    summary = results.summary
    figures = [
        (f"{summary.rows:,}", "rows"),
        (f"{summary.columns:,}", "columns"),
        (f"{summary.missing_percent:g} %", "values missing"),
    ]
    if results.duplicates is not None:
        figures.append((f"{results.duplicates.rows:,}", "repeated rows"))
    blocks: list[Block] = [KeyFigures(tuple(figures))]
    if results.findings:
        blocks.append(Bullets(tuple(results.findings)))
    blocks += [Paragraph(note) for note in summary.notes]
    return Section("Key findings", tuple(blocks))


def _data(results: Results) -> Section:
    columns = results.columns[:TABLE_ROWS_MAX]
    blocks: list[Block] = [
        Table(
            ("Column", "Type", "Role", "Distinct", "Missing", "Missing %"),
            tuple(
                (
                    c.name,
                    c.type,
                    c.role,
                    f"{c.unique:,}",
                    f"{c.missing:,}",
                    f"{c.missing_percent:g}",
                )
                for c in columns
            ),
            frozenset({3, 4, 5}),
            "The columns: what they hold and how complete they are.",
        )
    ]
    lacking = sorted((c for c in columns if c.missing), key=lambda c: -c.missing)[:BARS_MAX]
    if lacking:
        bars = tuple((c.name, float(c.missing_percent)) for c in lacking)
        blocks.append(
            Chart("missing", "Share of missing values, by column.", Bars((("", bars),), " %"))
        )
    if results.preview is not None and results.preview.columns and results.preview.rows:
        blocks.append(_preview(results.preview))
    return Section("The data", tuple(blocks))


def _preview(preview: _Preview) -> Table:
    head = tuple(preview.columns[:PREVIEW_COLUMNS_MAX])
    rows = [row[: len(head)] for row in preview.rows[:TABLE_ROWS_MAX]]
    numeric = frozenset(
        at
        for at in range(len(head))
        if all(
            row[at] is None or isinstance(row[at], (int, float)) for row in rows if at < len(row)
        )
    )
    return Table(
        head,
        tuple(tuple(_text(value) for value in row) for row in rows),
        numeric,
        "The first rows.",
    )


def _distributions(results: Results) -> Section:
    described = [
        (column, column.statistics)
        for column in results.columns
        if column.statistics is not None
        and column.role in ("measure", "time")
        and column.statistics.histogram is not None
    ]
    panels = [panel for c, s in described if (panel := _panel(c.name, s)) is not None]
    blocks: list[Block] = []
    for start in range(0, min(len(panels), 2 * PANELS_MAX), PANELS_MAX):
        chosen = tuple(panels[start : start + PANELS_MAX])
        blocks.append(
            Chart(
                f"distributions{'' if start == 0 else start // PANELS_MAX + 1}",
                "How the values are distributed; the dashed line is the median."
                if any(panel.median is not None for panel in chosen)
                else "How the values are distributed.",
                Histograms(chosen),
            )
        )
    rows = tuple(
        (c.name, *map(_text, (s.mean, s.std, s.min, s.q1, s.median, s.q3, s.max)))
        for c, s in described[:TABLE_ROWS_MAX]
        if s.mean is not None
    )
    if rows:
        head = ("Measure", "Mean", "Std", "Min", "25 %", "Median", "75 %", "Max")
        blocks.append(
            Table(
                head,
                rows,
                frozenset(range(1, 8)),
                "The measures in numbers; 25 % and 75 % are quartiles.",
            )
        )
    return Section("Distributions", tuple(blocks))


def _panel(name: str, statistics: _Statistics) -> Histogram | None:
    found = statistics.histogram
    if found is None or len(found.edges) != len(found.counts) + 1 or not found.counts:
        return None
    numbers = [edge for edge in found.edges if isinstance(edge, (int, float))]
    if len(numbers) == len(found.edges):
        return Histogram(name, tuple(map(float, numbers)), tuple(found.counts), statistics.median)
    labels = tuple(str(edge)[:10] for edge in found.edges)
    places = tuple(float(at) for at in range(len(labels)))
    return Histogram(name, places, tuple(found.counts), edge_labels=labels)


def _categories(results: Results) -> Section:
    panels = [
        (
            column.name,
            tuple((_text(top.value), float(top.count)) for top in column.statistics.top[:BARS_MAX]),
        )
        for column in results.columns
        if column.role == "category" and column.statistics is not None and column.statistics.top
    ][:CATEGORY_PANELS_MAX]
    if not panels:
        return Section("Categories", ())
    chart = Chart("categories", "How many rows each category has.", Bars(tuple(panels)))
    return Section("Categories", (chart,))


def _relations(results: Results) -> Section:
    found = results.correlations
    if found is None or not found.strongest:
        return Section("Relations", ())
    blocks: list[Block] = []
    size = len(found.columns)
    square = len(found.matrix) == size and all(len(row) == size for row in found.matrix)
    if square and 0 < size <= HEAT_MAP_MAX:
        blocks.append(
            Chart(
                "correlations",
                "Correlation of the measures (Pearson's r): 1 rise together, −1 opposed, "
                "0 unrelated.",
                HeatMap(tuple(found.columns), tuple(tuple(row) for row in found.matrix)),
            )
        )
    if results.scatter is not None and (scatter := _scatter(results.scatter)) is not None:
        blocks.append(scatter)
    rows = tuple(
        (pair.a, pair.b, f"{pair.r:.2f}".replace("-", "−"))
        for pair in found.strongest[:TABLE_ROWS_MAX]
    )
    blocks.append(Table(("Measure", "Measure", "r"), rows, frozenset({2}), "The strongest pairs."))
    return Section("Relations", tuple(blocks))


def _scatter(found: _Scatter) -> Chart | None:
    groups: dict[str, list[tuple[float, float]]] = {}
    for point in found.points:
        if len(point) < 2:
            continue
        x, y = point[0], point[1]
        if isinstance(x, (int, float)) and isinstance(y, (int, float)):
            group = _text(point[2]) if len(point) > 2 else ""
            groups.setdefault(group, []).append((float(x), float(y)))
    if not groups:
        return None
    caption = f"The most closely related measures: {found.x} and {found.y} (r = {found.r:.2f})"
    caption += f", by {found.by}." if found.by else "."
    ordered = tuple((name, tuple(points)) for name, points in sorted(groups.items()))
    return Chart("scatter", caption, Scatter(found.x, found.y, ordered))


def _groups(results: Results) -> Section:
    blocks: list[Block] = []
    for grouping in results.groups:
        panels = []
        for measure in grouping.measures[:PANELS_MAX]:
            boxes = [
                (_text(group.group), five)
                for group in measure.groups[:BARS_MAX]
                if (five := _five(group)) is not None
            ]
            if boxes:
                panels.append((measure.column, tuple(boxes)))
        if not panels:
            continue
        blocks.append(
            Chart(
                f"groups{len(blocks) // 2 + 1}",
                f"Measures by {grouping.by}: the box is the middle half with its median, the "
                "lines reach from the smallest to the largest value.",
                Boxes(tuple(panels)),
            )
        )
        blocks.append(_means(grouping))
    return Section("Groups", tuple(blocks))


def _five(group: _Group) -> tuple[float, float, float, float, float] | None:
    low, q1, median, q3, high = group.min, group.q1, group.median, group.q3, group.max
    if low is None or q1 is None or median is None or q3 is None or high is None:
        return None
    return float(low), float(q1), float(median), float(q3), float(high)


def _means(grouping: _Grouping) -> Table:
    # A measure lacks the groups in which it has no value: the fullest has the order of all.
    fullest_first = sorted(grouping.measures, key=lambda measure: -len(measure.groups))
    groups = list(dict.fromkeys(g.group for measure in fullest_first for g in measure.groups))
    named = groups[:MEANS_MAX]
    rows = []
    for measure in grouping.measures[:TABLE_ROWS_MAX]:
        means = {group.group: group.mean for group in measure.groups}
        explained = "" if measure.explained is None else f"{100 * measure.explained:.0f} %"
        rows.append((measure.column, *(_text(means.get(group)) for group in named), explained))
    caption = f"Means by {grouping.by}, and the share of variance that {grouping.by} explains."
    if len(groups) > len(named):
        caption += f" Shown are the first {len(named)} of {len(groups)} groups."
    return Table(
        ("Mean of", *map(_text, named), "Explained"),
        tuple(rows),
        frozenset(range(1, len(named) + 2)),
        caption,
    )


def _quality(results: Results) -> Section:
    blocks: list[Block] = []
    if results.outliers:
        rows = tuple(
            (
                outlier.column,
                f"{outlier.count:,}",
                f"{outlier.percent:g}",
                f"{_text(outlier.low)} to {_text(outlier.high)}",
                ", ".join(_text(example) for example in outlier.examples) or "–",
            )
            for outlier in results.outliers[:TABLE_ROWS_MAX]
        )
        blocks.append(
            Table(
                ("Measure", "Outliers", "%", "Usual range", "Farthest"),
                rows,
                frozenset({1, 2}),
                "Values more than 1.5 times the middle half's spread away from it.",
            )
        )
    if results.duplicates is not None:
        repeated = results.duplicates.rows
        blocks.append(
            Paragraph(
                f"{repeated:,} rows repeat an earlier row ({results.duplicates.percent:g} %)."
                if repeated
                else "No row repeats another."
            )
        )
    return Section("Data quality", tuple(blocks))


def _text(value: Scalar) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (int, float)):
        if isinstance(value, int) and 1900 <= value <= 2100:
            return str(value)
        if abs(value) >= WRITTEN_OUT_MAX:
            return f"{value:.4g}".replace("-", "−")
        shown = f"{value:,.0f}" if abs(value) >= 10_000 or value == int(value) else f"{value:,.4g}"
        return shown.replace("-", "−")
    return value
