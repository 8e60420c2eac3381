"""A report as one HTML file: no script, nothing loaded from elsewhere, charts inlined."""

from __future__ import annotations

import base64
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from harmonia_actors.components.reports.model import Report

if TYPE_CHECKING:
    from jinja2 import Environment

__all__ = ["render_html"]


def render_html(report: Report, pictures: Mapping[str, bytes]) -> bytes:
    """The report as UTF-8 HTML. All text is escaped; none of it is ever template code.

    `pictures` has each chart's SVG by the chart's name.
    """
    template = _environment().get_template("report.html.jinja")
    rendered: str = template.render(
        report=report,
        kind=lambda block: type(block).__name__,
        picture=lambda chart: _inlined(pictures[chart.name]),
    )
    return rendered.encode("utf-8", "replace")


def _inlined(picture: bytes) -> str:
    encoded = base64.b64encode(picture).decode("ascii")
    return f"data:image/svg+xml;base64,{encoded}"


@functools.cache
def _environment() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    return Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
