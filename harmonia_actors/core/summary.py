"""What the events of an execution come to: counts, how far it is, what runs and what has failed.

For those who want to know how an execution goes, and not each of its 30,000 events. It is folded
from the log alone; what a log cannot tell is how many tasks had completed before the checkpoint
that an execution was restored from, so that must be said. One byte is kept for each task.
"""

from __future__ import annotations

from typing import Any, Final

from harmonia_actors.core import jsontext
from harmonia_actors.core.events import (
    ExecutionCancelled,
    ExecutionCompleted,
    ExecutionFailed,
    ExecutionStarted,
    TaskCancelled,
    TaskCompleted,
    TaskFailed,
    TaskProgress,
    TaskSkipped,
    TaskStarted,
)
from harmonia_actors.core.requests import JsonObject, StreamEvent
from harmonia_actors.core.state import CANCELLED_REASON
from harmonia_actors.core.statuses import ExecutionStatus, TaskStatus
from harmonia_actors.core.stimuli import WORKER_LOST

__all__ = ["SUMMARY_TYPE", "ExecutionSummary", "is_of_a_task"]

#: The type of the message. It is no event: no log has it.
SUMMARY_TYPE: Final = "execution_progress"

_STATUSES: Final = tuple(TaskStatus)
_CODES: Final = {status: code for code, status in enumerate(_STATUSES)}
_EXECUTION: Final = {
    ExecutionStarted.type: ExecutionStatus.RUNNING,
    ExecutionCompleted.type: ExecutionStatus.COMPLETED,
    ExecutionFailed.type: ExecutionStatus.FAILED,
    ExecutionCancelled.type: ExecutionStatus.CANCELLED,
}
_TASK: Final = {
    TaskStarted.type: TaskStatus.RUNNING,
    TaskCompleted.type: TaskStatus.COMPLETED,
    TaskFailed.type: TaskStatus.FAILED,
    TaskSkipped.type: TaskStatus.SKIPPED,
    TaskCancelled.type: TaskStatus.CANCELLED,
}
#: Where the output begins in the data of a task's end. All before it is flat, so that this cannot
#: stand in a value: there it would have its quotes escaped.
_OUTPUT: Final = b'"output":'
#: The share of what is done is told so finely, and as 1 only if all tasks have completed.
_DIGITS: Final = 4
_NEARLY_ALL: Final = 0.9999


def is_of_a_task(kind: str) -> bool:
    """Whether events of this type are summed up; the others are the execution's own."""
    return kind in _TASK or kind == TaskProgress.type


class ExecutionSummary:
    """The events of one execution up to some seq, summed up. Feed it each, in order."""

    def __init__(self, total_tasks: int, *, names_max: int) -> None:
        """`names_max`: names told of tasks that run, and of those that have failed."""
        self._names_max = names_max
        self._tasks = bytearray(total_tasks)
        self._counts = dict.fromkeys(TaskStatus, 0) | {TaskStatus.PENDING: total_tasks}
        self._status = ExecutionStatus.PENDING
        #: How far each task is that runs, in the order of their starts.
        self._running: dict[str, float] = {}
        self._failed: list[str] = []
        self._restored = 0
        self._head = b""
        #: The event of a task that was taken in last.
        self.seq = 0

    @property
    def completed(self) -> int:
        """Tasks that have completed, as the events say."""
        return self._counts[TaskStatus.COMPLETED]

    def note_restored(self, tasks: int) -> None:
        """So many tasks had completed before the first event."""
        self._restored = tasks

    def take(self, event: StreamEvent) -> None:
        """Take in the next event."""
        if event.type in _EXECUTION:
            self._status = _EXECUTION[event.type]
        elif is_of_a_task(event.type):
            self.seq = event.seq
            self._head = event.body[: event.data_at]
            self._take_task(event.type, _data(event))

    def _take_task(self, kind: str, data: JsonObject) -> None:
        name = data["task_name"]
        if kind == TaskProgress.type:
            if name in self._running:
                self._running[name] = data["progress"]
            return
        status = _TASK[kind]
        if kind == TaskFailed.type and data["will_retry"]:
            lost = data["error_details"]["code"] == WORKER_LOST
            status = TaskStatus.PENDING if lost else TaskStatus.RETRYING
        if kind == TaskCancelled.type and data["reason"] == CANCELLED_REASON:
            self._status = ExecutionStatus.CANCELLING
        if status is TaskStatus.FAILED and len(self._failed) < self._names_max:
            self._failed.append(name)
        self._running.pop(name, None)
        if status is TaskStatus.RUNNING:
            self._running[name] = 0.0
        self._move(data["task_index"], status)

    def _move(self, index: int, status: TaskStatus) -> None:
        self._counts[_STATUSES[self._tasks[index]]] -= 1
        self._tasks[index] = _CODES[status]
        self._counts[status] += 1

    def data(self) -> JsonObject:
        """What there is to be told."""
        counts = {status.value: count for status, count in self._counts.items()}
        counts["completed"] += self._restored
        counts["pending"] -= self._restored
        total = len(self._tasks)
        share = (counts["completed"] + sum(self._running.values())) / max(1, total)
        if counts["completed"] < total:
            share = min(share, _NEARLY_ALL)
        return {
            "status": self._status.value,
            "progress": round(share, _DIGITS),
            "total_tasks": total,
            "tasks": counts,
            "running_tasks": list(self._running)[: self._names_max],
            "failed_tasks": list(self._failed),
        }

    def told(self) -> StreamEvent:
        """The message: in the envelope of the event of a task that was taken in last."""
        envelope = jsontext.decode(self._head + b"null}")
        del envelope["data"]
        head = jsontext.encode({**envelope, "type": SUMMARY_TYPE})[:-1] + b',"data":'
        body = head + jsontext.encode(self.data()) + b"}"
        return StreamEvent(self.seq, SUMMARY_TYPE, body, len(head), last=False)


def _data(event: StreamEvent) -> JsonObject:
    """An event's data, without the output that it may have, which may be large."""
    text, begin, end = event.body, event.data_at, -1
    if event.type == TaskCompleted.type:
        end = text.find(_OUTPUT, begin)
    data = text[begin:end].rstrip(b", \r\n\t")
    decoded: dict[str, Any] = jsontext.decode(data if end == -1 else data + b"}")
    return decoded
