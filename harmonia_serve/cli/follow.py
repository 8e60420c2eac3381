"""Following an execution to its end: bars on a terminal, a line per event elsewhere.

Up to 20 tasks have a bar each; of more, one bar counts all and the running ones are below it.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from harmonia_serve.cli.board import Board, TaskView
from harmonia_serve.cli.output import STATUS_STYLES, duration_text, plain
from harmonia_serve.client import Event, HarmoniaClient, LogLine

__all__ = ["board_of", "event_line", "follow", "log_line"]

#: More tasks than this do not get a bar each.
_BARS_MAX = 20
#: Of so many tasks, the ones that run now are listed.
_RUNNING_SHOWN = 8
_BAR_WIDTH = 28
_REFRESHES_PER_S = 10
_MESSAGE_WIDTH = 60

#: By level, or by stream where there is no level.
_LINE_STYLES = {"error": "red", "warning": "yellow", "debug": "dim", "dropped": "yellow"}
#: What the service sends in place of the events of tasks, to those who ask for summaries.
SUMMARY_TYPE = "execution_progress"

_MARKS = {"completed": "✓", "failed": "✗", "skipped": "-", "cancelled": "-", "pending": "·"}


def board_of(client: HarmoniaClient, execution_id: str) -> Board:
    """What is to be shown of an execution, before any of its events."""
    page = client.list_tasks(execution_id, limit=_BARS_MAX)
    few = int(page["total"]) <= _BARS_MAX
    board = Board.for_tasks(task["task_name"] for task in page["items"]) if few else Board()
    board.total = int(page["total"])
    return board


def follow(client: HarmoniaClient, execution_id: str, console: Console, board: Board) -> None:
    """Show an execution's events that the board has not seen, until it ends."""
    events = client.events(execution_id, after=board.seq)
    if not console.is_terminal:
        _print_lines(events, board, console)
        return
    with Live(_View(board), console=console, refresh_per_second=_REFRESHES_PER_S):
        for event in events:
            board.take(event, time.monotonic())
        if board.total <= _BARS_MAX:
            board.settle(client.list_tasks(execution_id, limit=_BARS_MAX)["items"])


def _print_lines(events: Iterable[Event], board: Board, console: Console) -> None:
    for event in events:
        board.take(event, time.monotonic())
        if event["type"] != "task_progress":
            console.print(event_line(event), soft_wrap=True)


def event_line(event: Event) -> Text:
    """An event in a line: seq, type, task, and what there is to say of it."""
    data, kind = event["data"], event["type"]
    status = kind.rpartition("_")[2]
    line = Text(f"{event['seq']:>5}  ", style="dim")
    line.append(f"{plain(kind):<20}", style=STATUS_STYLES.get(status, ""))
    if "task_name" in data:
        line.append(f"  {plain(data['task_name'])}")
    if kind == "task_progress":
        line.append(f"  {float(data.get('progress') or 0):.0%} {plain(data.get('message') or '')}")
    if kind == SUMMARY_TYPE:
        _add_summary(line, data)
    if data.get("error"):
        error = data["error"]
        message = error.get("message") if isinstance(error, dict) else error
        line.append(f"  {plain(message)}", style="red")
    if data.get("will_retry"):
        line.append(f"  (will be tried again, {data.get('retry_count')} of {data['max_retries']})")
    if "duration_seconds" in data:
        line.append(f"  in {duration_text(float(data['duration_seconds']) * 1000)}", style="dim")
    return line


def log_line(line: LogLine) -> Text:
    """A line of a task's log: the task, its attempt if it is not the first, and the text."""
    attempt = f" ({line['attempt']})" if line["attempt"] > 1 else ""
    style = _LINE_STYLES.get(line.get("level", line["stream"]), "")
    shown = Text(f"{plain(line['task_name'])}{attempt} | ", style="dim")
    return shown.append(plain(line["text"]), style=style)


def _add_summary(line: Text, data: Mapping[str, Any]) -> None:
    counts = data["tasks"]
    line.append(f"  {float(data['progress']):.0%}  ")
    line.append(f"{counts['completed']:,} of {data['total_tasks']:,} tasks")
    for status in ("running", "retrying", "failed", "skipped", "cancelled"):
        if counts[status]:
            line.append(f", {counts[status]:,} {status}", style=STATUS_STYLES.get(status, ""))


class _View:
    """The board as it is drawn; asked anew for each refresh."""

    def __init__(self, board: Board) -> None:
        self._board = board
        self._spinner = Spinner("dots")

    def __rich__(self) -> RenderableType:
        now_s = time.monotonic()
        if self._board.total <= _BARS_MAX:
            return self._grid(self._board.tasks.values(), now_s)
        names = list(self._board.active)
        shown = [self._board.tasks[name] for name in names[:_RUNNING_SHOWN]]
        parts: list[RenderableType] = [self._total(), self._grid(shown, now_s)]
        if len(names) > len(shown):
            parts.append(Text(f"  and {len(names) - len(shown)} more at work", style="dim"))
        return Group(*parts)

    def _total(self) -> RenderableType:
        board = self._board
        grid = Table.grid(padding=(0, 1))
        count = Text(f"{board.ended:,} of {board.total:,} tasks")
        if board.failed:
            count.append(f", {board.failed:,} failed", style="red")
        style = "red" if board.failed else "green"
        bar = ProgressBar(board.total, board.ended, width=_BAR_WIDTH, complete_style=style)
        grid.add_row(Text(" "), bar, count)
        return grid

    def _grid(self, tasks: Iterable[TaskView], now_s: float) -> Table:
        grid = Table.grid(padding=(0, 1))
        for task in tasks:
            grid.add_row(*self._row(task, now_s))
        return grid

    def _row(self, task: TaskView, now_s: float) -> tuple[RenderableType, ...]:
        style = STATUS_STYLES.get(task.status, "")
        working = task.status in ("running", "retrying")
        mark = _MARKS.get(task.status)
        bar = ProgressBar(
            1.0,
            task.progress,
            width=_BAR_WIDTH,
            # Most actions report no progress: a bar that moves says that they are at work.
            pulse=task.status == "running" and task.progress == 0.0,
            complete_style=style or "cyan",
            finished_style=style or "green",
            animation_time=now_s,
        )
        elapsed = task.elapsed_s(now_s)
        message = plain(task.message).replace("\n", " ")
        return (
            self._spinner if working or mark is None else Text(mark, style=style),
            Text(plain(task.name)),
            bar,
            Text(task.status, style=style),
            Text("" if elapsed is None else duration_text(elapsed * 1000), style="dim"),
            Text(message[:_MESSAGE_WIDTH], style="dim"),
        )
