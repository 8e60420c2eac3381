"""What a follower knows of an execution, kept up to date from its events.

It holds one small record per task that it heard of, and takes in each event at constant cost.
This module must not know how it is shown.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from harmonia_serve.client import Event

__all__ = ["Board", "TaskView"]

_ENDED = frozenset({"completed", "failed", "skipped", "cancelled"})


@dataclass(slots=True)
class TaskView:
    """One task as last heard of. Times are the follower's own, in seconds."""

    name: str
    status: str = "pending"
    progress: float = 0.0
    message: str = ""
    started_s: float | None = None
    ended_s: float | None = None

    @property
    def ended(self) -> bool:
        """Whether the task will not run again."""
        return self.status in _ENDED

    def elapsed_s(self, now_s: float) -> float | None:
        """Seconds since it started, until it ended or until now."""
        if self.started_s is None:
            return None
        return (self.ended_s if self.ended_s is not None else now_s) - self.started_s


@dataclass(slots=True)
class Board:
    """All that is shown of a followed execution."""

    #: Seq of the last event that was taken in.
    seq: int = 0
    total: int = 0
    status: str = "pending"
    error: str = ""
    tasks: dict[str, TaskView] = field(default_factory=dict)
    #: Names of the tasks that are at work or wait for a retry, in the order they started.
    active: dict[str, None] = field(default_factory=dict)
    ended: int = 0
    failed: int = 0

    @classmethod
    def for_tasks(cls, names: Iterable[str]) -> Board:
        """A board that knows all tasks from the start."""
        board = cls(tasks={name: TaskView(name) for name in names})
        board.total = len(board.tasks)
        return board

    def take(self, event: Event, now_s: float) -> TaskView | None:
        """Take in an event; returns the task it was about, if any."""
        data, kind = event["data"], event["type"]
        self.seq = event["seq"]
        if "total_tasks" in data:
            self.total = max(self.total, int(data["total_tasks"]))
        if "task_name" not in data:
            self._take_execution(kind, data)
            return None
        task = self.tasks.setdefault(str(data["task_name"]), TaskView(str(data["task_name"])))
        match kind:
            case "task_started":
                self._start(task, now_s)
            case "task_progress":
                task.progress = min(1.0, max(0.0, float(data.get("progress") or 0.0)))
                task.message = str(data.get("message") or "")
            case "task_completed":
                self._end(task, "completed", "", now_s)
            case "task_failed":
                self._fail(task, data, now_s)
            case "task_skipped" | "task_cancelled":
                self._end(task, kind.removeprefix("task_"), str(data.get("reason") or ""), now_s)
            case _:
                pass
        return task

    def settle(self, states: Iterable[Mapping[str, Any]]) -> None:
        """Take in the tasks' own times, which are exact, once the execution has ended."""
        for state in states:
            task = self.tasks.get(str(state["task_name"]))
            started, completed = state.get("started_ms"), state.get("completed_ms")
            if task is not None and started is not None and completed is not None:
                task.started_s, task.ended_s = started / 1000, completed / 1000

    def _take_execution(self, kind: str, data: Mapping[str, Any]) -> None:
        match kind:
            case "execution_started":
                self.status = "running"
            case "execution_completed" | "execution_failed" | "execution_cancelled":
                self.status = kind.removeprefix("execution_")
                self.error = _error_text(data.get("error"))
            case _:
                pass

    def _start(self, task: TaskView, now_s: float) -> None:
        task.status, task.progress, task.message = "running", 0.0, ""
        task.started_s, task.ended_s = now_s, None
        self.active[task.name] = None

    def _fail(self, task: TaskView, data: Mapping[str, Any], now_s: float) -> None:
        reason = _error_text(data.get("error"))
        if data.get("will_retry"):
            task.status, task.message = "retrying", reason
            self.active[task.name] = None
        else:
            self.failed += not task.ended
            self._end(task, "failed", reason, now_s)

    def _end(self, task: TaskView, status: str, message: str, now_s: float) -> None:
        self.ended += not task.ended
        task.status, task.message = status, message
        task.ended_s = now_s
        if status == "completed":
            task.progress = 1.0
        self.active.pop(task.name, None)


def _error_text(error: object) -> str:
    if isinstance(error, Mapping):
        return str(error.get("message") or "")
    return str(error or "")
