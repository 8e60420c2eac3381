"""Component `rhetor`: writes reports."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import Field

from harmonia_actors.components.contract import ActionError, Component, TaskContext
from harmonia_actors.components.reports.generic import data_sections
from harmonia_actors.components.reports.model import Report, Section
from harmonia_actors.components.reports.results import Results, analysis_sections, parse_results

__all__ = ["component"]

_SUFFIXES = {"pdf": ".pdf", "html": ".html", "markdown": ".md"}
#: Sections of the template `summary`.
_SUMMARY_SECTIONS = 2
#: Characters of a file's name that titles show.
_NAME_LENGTH_MAX = 150


def _preload() -> None:
    from harmonia_actors.components.reports import charts, html, pdf
    from harmonia_actors.components.reports.model import Bars, Chart

    chart = Chart("warm", "", Bars((("", (("a", 1.0),)),)))
    # Drawing once loads what matplotlib and reportlab themselves import late.
    warm = Report("warm", (), (Section("warm", (chart,)),))
    pdf.render_pdf(warm, {"warm": charts.png(chart.drawing)})
    html.render_html(warm, {"warm": charts.svg(chart.drawing)})


component = Component("rhetor", description="Writes reports", preload=_preload)


@component.action(uses_files=True)
def generate_content(
    data: Any,
    template: Literal["report", "summary"] = "report",
    format: Literal["pdf", "html", "markdown"] = "pdf",  # noqa: A002 - the input's name
    title: Annotated[str, Field(min_length=1, max_length=200)] | None = None,
    output_file: Annotated[str, Field(min_length=1)] | None = None,
    *,
    context: TaskContext,
) -> dict[str, Any]:
    """Write a report with charts as PDF, HTML or Markdown.

    `data` may be any JSON: the `results` of `sophia.analyze_data` give the full report, anything
    else is laid out by its shape. The template `summary` keeps the first two sections. The file is
    named after the task unless `output_file` says otherwise.
    """
    _advance(context, 0.05, "Composing the report")
    report = _compose(data, title, summary=template == "summary")
    target = output_file or _file_name(context.task_name) + _SUFFIXES[format]
    _advance(context, 0.1, "Generating report sections")
    pictures = _draw(report, format, context)
    _advance(context, 0.8, f"Writing {target}")
    content, charts = _render(report, format, pictures, target, context)
    written = context.workspace.write_file(target, content)
    _advance(context, 1.0, "Report complete")
    return {
        "report_file": str(written),
        "format": format,
        "title": report.title,
        "sections": len(report.sections),
        "generated_charts": len(charts),
        "charts": charts,
        "size_bytes": len(content),
    }


def _compose(data: Any, title: str | None, *, summary: bool) -> Report:
    made = f"{datetime.now(UTC):%d %B %Y, %H:%M} UTC".lstrip("0")
    results = parse_results(data)
    if results is None:
        sections = data_sections(data)
        facts: tuple[str, ...] = (f"Made by Harmonia on {made}",)
        report_title = title or "Report"
    else:
        sections = analysis_sections(results)
        facts = (*_facts(results), f"Made by Harmonia on {made}")
        report_title = title or _default_title(results)
    return Report(report_title, facts, sections[:_SUMMARY_SECTIONS] if summary else sections)


def _default_title(results: Results) -> str:
    stem = PurePosixPath(results.summary.file).stem.replace("_", " ").strip()
    return f"Report on {stem[:_NAME_LENGTH_MAX]}" if stem else "Data report"


def _facts(results: Results) -> tuple[str, ...]:
    summary = results.summary
    told = f"{summary.rows:,} rows and {summary.columns:,} columns"
    if summary.analysis_type:
        told += f", {summary.analysis_type[:20]} analysis"
    if summary.file:
        told += f", from {PurePosixPath(summary.file).name[:_NAME_LENGTH_MAX]}"
    return (told,)


def _draw(report: Report, form: str, context: TaskContext) -> dict[str, bytes]:
    """Each chart's picture by its name: SVG for HTML, PNG otherwise."""
    from harmonia_actors.components.reports.charts import png, svg

    draw = svg if form == "html" else png
    charts = list(report.charts())
    pictures = {}
    for at, chart in enumerate(charts):
        _advance(context, 0.1 + 0.7 * at / len(charts), f"Drawing {chart.name}")
        pictures[chart.name] = draw(chart.drawing)
    return pictures


def _render(
    report: Report, form: str, pictures: dict[str, bytes], target: str, context: TaskContext
) -> tuple[bytes, list[str]]:
    """The report's file, and its charts: their files for Markdown, their names otherwise."""
    from harmonia_actors.components.reports import html, markdown, pdf

    if form == "pdf":
        return pdf.render_pdf(report, pictures), list(pictures)
    if form == "html":
        return html.render_html(report, pictures), list(pictures)
    path = PurePosixPath(target)
    folder = _file_name(path.stem) + "_charts"
    files = {name: f"{folder}/{name}.png" for name in pictures}
    written = [
        str(context.workspace.write_file(str(path.parent / files[name]), picture))
        for name, picture in pictures.items()
    ]
    return markdown.render_markdown(report, files), written


def _file_name(name: str) -> str:
    """A name that is safe as a file's, for any task name."""
    return re.sub(r"[^\w.-]+", "_", name)[:100].strip(".") or "report"


def _advance(context: TaskContext, fraction: float, message: str) -> None:
    if context.cancelled:
        raise ActionError("the report was stopped", code="CANCELLED", retriable=False)
    context.progress(min(1.0, fraction), message)
