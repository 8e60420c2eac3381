"""What a follower makes of events, and that many tasks stay readable."""

from __future__ import annotations

import io
from typing import Any

from rich.console import Console

from harmonia_serve.cli.board import Board
from harmonia_serve.cli.follow import _View
from harmonia_serve.cli.output import duration_text, plain, size_text
from harmonia_serve.client import Event


def event(kind: str, **data: Any) -> Event:
    return Event(seq=1, type=kind, timestamp="", execution_id="exec-1", data=data)


def drawn(board: Board) -> str:
    console = Console(file=io.StringIO(), width=120, force_terminal=False)
    console.print(_View(board))
    return str(console.file.getvalue())  # type: ignore[attr-defined]


def test_a_task_from_start_to_end() -> None:
    board = Board.for_tasks(["a", "b"])
    board.take(event("task_started", task_name="a"), 1.0)
    board.take(event("task_progress", task_name="a", progress=0.5, message="half"), 2.0)
    task = board.tasks["a"]
    assert (task.status, task.progress, task.message) == ("running", 0.5, "half")
    assert task.elapsed_s(3.0) == 2.0
    board.take(event("task_completed", task_name="a"), 4.0)
    assert (task.status, task.elapsed_s(99.0), board.ended) == ("completed", 3.0, 1)
    assert not board.active


def test_a_failure_that_is_tried_again_is_no_end() -> None:
    board = Board.for_tasks(["a"])
    board.take(event("task_started", task_name="a"), 1.0)
    board.take(event("task_failed", task_name="a", error="no", will_retry=True), 2.0)
    assert (board.tasks["a"].status, board.ended, board.failed) == ("retrying", 0, 0)
    board.take(event("task_started", task_name="a"), 3.0)
    board.take(event("task_failed", task_name="a", error="no", will_retry=False), 4.0)
    assert (board.tasks["a"].status, board.ended, board.failed) == ("failed", 1, 1)


def test_an_execution_that_fails_says_why() -> None:
    board = Board()
    board.take(event("execution_failed", error={"message": "disk full"}), 1.0)
    assert (board.status, board.error) == ("failed", "disk full")


def test_few_tasks_have_a_row_each() -> None:
    board = Board.for_tasks([f"task-{number}" for number in range(20)])
    assert all(f"task-{number}" in drawn(board) for number in range(20))


def test_many_tasks_are_counted_and_only_some_running_ones_shown() -> None:
    board = Board()
    board.total = 10_000
    for number in range(500):
        board.take(event("task_started", task_name=f"task-{number}"), 1.0)
    for number in range(300):
        board.take(event("task_completed", task_name=f"task-{number}"), 2.0)
    text = drawn(board)
    assert "300 of 10,000 tasks" in text
    assert "task-300" in text
    assert "and 192 more at work" in text
    assert len(text.splitlines()) <= 12


def test_durations_and_sizes_are_for_people() -> None:
    assert [duration_text(ms) for ms in (12, 3_400, 125_000, 11_220_000, None)] == [
        "12 ms",
        "3.4 s",
        "2 min 05 s",
        "3 h 07 min",
        "",
    ]
    assert [size_text(size) for size in (812, 1_400_000, 5e12)] == ["812 B", "1.4 MB", "5.0 TB"]


def test_control_codes_are_made_visible() -> None:
    assert plain("a\x1b[31mb\x00") == "a\N{REPLACEMENT CHARACTER}[31mb\N{REPLACEMENT CHARACTER}"
    assert plain("zwölf 日本") == "zwölf 日本"
