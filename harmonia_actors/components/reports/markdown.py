"""A report as Markdown, with its charts as PNG files beside it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from harmonia_actors.components.reports.model import (
    Bullets,
    Chart,
    KeyFigures,
    Paragraph,
    Report,
    Table,
)

__all__ = ["render_markdown"]

#: Characters that could be read as mark-up, wherever they stand.
_MARKUP = re.compile(r"([\\`*_{}\[\]<>|~#$&])")
#: At a line's start, these make lists, rules and headings; of a number, the point after it.
_LINE_START = re.compile(r"^(?:(?=[-+=])|([0-9]+)(?=[.)](?: |$)))")


def render_markdown(report: Report, chart_files: Mapping[str, str]) -> bytes:
    """The report as UTF-8 Markdown. `chart_files` has each chart's file, relative to this one."""
    lines = [f"# {_plain(report.title)}", ""]
    for fact in report.facts:
        lines += [f"{_line(fact)}  "]
    lines.append("")
    figures = 0
    for section in report.sections:
        lines += [f"## {_plain(section.title)}", ""]
        for block in section.blocks:
            if isinstance(block, Chart):
                figures += 1
                caption = _plain(f"Figure {figures}. {block.caption}")
                lines += [f"![{caption}]({chart_files[block.name]})", "", f"*{caption}*"]
            else:
                lines += _block(block)
            lines.append("")
    return ("\n".join(lines).rstrip() + "\n").encode("utf-8", "replace")


def _block(block: Any) -> Iterator[str]:
    match block:
        case Paragraph():
            for line in block.text.splitlines():
                yield _line(line) + ("  " if "\n" in block.text else "")
        case Bullets():
            yield from (f"- {_line(item)}" for item in block.items)
        case KeyFigures():
            told = (f"**{_plain(value)}** {_plain(label)}" for value, label in block.figures)
            yield " · ".join(told)
        case Table():
            yield _row(block.head)
            marks = ("---:" if at in block.numeric else "---" for at in range(len(block.head)))
            yield "| " + " | ".join(marks) + " |"
            yield from (_row(row) for row in block.rows)
            if block.caption:
                yield ""
                yield f"*{_plain(block.caption)}*"
        case _:
            raise TypeError(f"no such block: {type(block).__name__}")


def _row(cells: tuple[str, ...]) -> str:
    return "| " + " | ".join(_plain(cell) for cell in cells) + " |"


def _plain(text: str) -> str:
    """One line of text in which nothing is mark-up, to stand after something else."""
    return _MARKUP.sub(r"\\\1", " ".join(text.split()))


def _line(text: str) -> str:
    """The same, to stand at a line's start."""
    return _LINE_START.sub(r"\1\\", _plain(text))
