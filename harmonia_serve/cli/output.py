"""How answers look: tables, colours of statuses, durations, and JSON for programs.

Whatever comes from the service is shown as plain text: no markup, no terminal control codes.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

__all__ = [
    "STATUS_STYLES",
    "duration_text",
    "elapsed_ms",
    "local_time",
    "out",
    "plain",
    "show_fields",
    "show_json",
    "show_json_line",
    "show_page_note",
    "show_table",
    "size_text",
    "status_text",
]

STATUS_STYLES = {
    "pending": "dim",
    "waiting": "dim",
    "running": "cyan",
    "retrying": "yellow",
    "completed": "green",
    "failed": "red",
    "cancelling": "yellow",
    "cancelled": "yellow",
    "skipped": "dim",
}

#: Width when the output is not a terminal: nothing is cut or wrapped for the sake of a screen.
_PIPE_WIDTH = 240


def out() -> Console:
    """The console on stdout, as it is now."""
    width = None if sys.stdout.isatty() else _PIPE_WIDTH
    return Console(highlight=False, width=width)


def plain(value: object) -> str:
    """Text without control codes, so that no answer can drive the reader's terminal."""
    return "".join(
        character if character in "\n\t" or character.isprintable() else "\N{REPLACEMENT CHARACTER}"
        for character in str(value)
    )


def status_text(status: object) -> Text:
    """A status in its colour."""
    return Text(plain(status), style=STATUS_STYLES.get(str(status), ""))


def duration_text(milliseconds: float | None) -> str:
    """A duration for people: `12 ms`, `3.4 s`, `2 min 05 s`, `3 h 07 min`."""
    if milliseconds is None:
        return ""
    if milliseconds < 1000:
        return f"{milliseconds:.0f} ms"
    seconds = milliseconds / 1000
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def size_text(size: float) -> str:
    """A size for people: `812 B`, `1.4 MB`."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def local_time(timestamp: object) -> str:
    """A timestamp of the API in the reader's own time zone; as it is if it is none."""
    try:
        moment = datetime.fromisoformat(str(timestamp))
    except ValueError:
        return "" if timestamp is None else plain(timestamp)
    return moment.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def elapsed_ms(document: Mapping[str, Any]) -> float | None:
    """How long an execution or a task took, by its own times; None if it has not ended."""
    started, completed = document.get("started_ms"), document.get("completed_ms")
    if isinstance(started, int | float) and isinstance(completed, int | float):
        return float(completed - started)
    try:
        begin = datetime.fromisoformat(str(document["started_at"]))
        end = datetime.fromisoformat(str(document["completed_at"]))
    except (KeyError, ValueError):
        return None
    return (end - begin).total_seconds() * 1000


def show_json(document: object) -> None:
    """JSON on stdout and nothing else; coloured on a terminal only."""
    if sys.stdout.isatty():
        out().print_json(data=document, ensure_ascii=False)
    else:
        sys.stdout.write(json.dumps(document, indent=2, ensure_ascii=False) + "\n")


def show_json_line(document: object) -> None:
    """One of many JSON documents, on a line of its own, at once: somebody may read along."""
    sys.stdout.write(json.dumps(document, ensure_ascii=False) + "\n")
    sys.stdout.flush()


def show_table(headers: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """A table; the first column holds what names the row, and is never cut."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    for position, header in enumerate(headers):
        table.add_column(header, no_wrap=position == 0, overflow="fold")
    for row in rows:
        table.add_row(*map(_cell, row))
    _print_table(table)


def _cell(value: object) -> Text:
    if isinstance(value, Text):
        return value
    return Text("" if value is None else plain(value))


def _print_table(table: Table) -> None:
    """A table without the blanks that fill its last column: they are noise in a file."""
    console = out()
    with console.capture() as captured:
        console.print(table)
    lines = (line.rstrip(" ") for line in captured.get().splitlines())
    sys.stdout.write("".join(f"{line}\n" for line in lines))


def show_page_note(page: Mapping[str, Any], noun: str) -> None:
    """Below a list: how much of it this is, and how to see more."""
    total, number, limit = int(page["total"]), int(page["page"]), int(page["limit"])
    pages = max(1, -(-total // limit))
    more = f"; --page {number + 1} for more" if number < pages else ""
    note = f"{total} {noun}{'' if total == 1 else 's'}, page {number} of {pages}{more}"
    out().print(Text(note, style="dim"))


def show_fields(fields: Mapping[str, object]) -> None:
    """Names and values below each other; empty values are left out."""
    shown = {name: value for name, value in fields.items() if value not in (None, "")}
    width = max(map(len, shown), default=0)
    console = out()
    for name, value in shown.items():
        text = value if isinstance(value, Text) else Text(plain(value))
        console.print(Text.assemble((name.ljust(width), "bold"), "  ", text), soft_wrap=True)
