"""Statuses of tasks and executions, and the tables of their legal transitions.

What is not in a table is illegal: `check` raises before anything has changed. A cancel is not a
status of a task but a flag of its execution; an attempt is a number, never a status that remembers
another one.
"""

from __future__ import annotations

from enum import StrEnum

__all__ = [
    "EXECUTION_TRANSITIONS",
    "TASK_TRANSITIONS",
    "ExecutionStatus",
    "IllegalTransition",
    "TaskStatus",
    "check_execution",
    "check_task",
]


class TaskStatus(StrEnum):
    """Where a task is. `retrying` waits for its next attempt to start."""

    PENDING = "pending"
    RUNNING = "running"
    RETRYING = "retrying"
    COMPLETED = "completed"
    FAILED = "failed"
    SKIPPED = "skipped"
    CANCELLED = "cancelled"

    @property
    def is_final(self) -> bool:
        """True if the task will never change again."""
        return self in _TASK_FINAL


class ExecutionStatus(StrEnum):
    """Where an execution is."""

    PENDING = "pending"
    RUNNING = "running"
    CANCELLING = "cancelling"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_final(self) -> bool:
        """True if the execution has ended."""
        return self in _EXECUTION_FINAL


_T = TaskStatus
_E = ExecutionStatus

_TASK_FINAL = frozenset({_T.COMPLETED, _T.FAILED, _T.SKIPPED, _T.CANCELLED})
_EXECUTION_FINAL = frozenset({_E.COMPLETED, _E.FAILED, _E.CANCELLED})

TASK_TRANSITIONS: dict[TaskStatus, frozenset[TaskStatus]] = {
    #: A lost attempt that was never seen to start stays pending; a failure before the start
    #: (a reference without a value) goes straight to retrying or failed.
    _T.PENDING: frozenset(
        {_T.PENDING, _T.RUNNING, _T.RETRYING, _T.FAILED, _T.SKIPPED, _T.CANCELLED}
    ),
    #: Back to pending: its process died, and the next attempt is to start at once.
    _T.RUNNING: frozenset({_T.PENDING, _T.RETRYING, _T.COMPLETED, _T.FAILED, _T.CANCELLED}),
    _T.RETRYING: frozenset(
        {_T.RUNNING, _T.RETRYING, _T.PENDING, _T.FAILED, _T.SKIPPED, _T.CANCELLED}
    ),
    _T.COMPLETED: frozenset(),
    _T.FAILED: frozenset(),
    _T.SKIPPED: frozenset(),
    _T.CANCELLED: frozenset(),
}

EXECUTION_TRANSITIONS: dict[ExecutionStatus, frozenset[ExecutionStatus]] = {
    _E.PENDING: frozenset({_E.RUNNING, _E.CANCELLING, _E.CANCELLED}),
    _E.RUNNING: frozenset({_E.COMPLETED, _E.FAILED, _E.CANCELLING}),
    _E.CANCELLING: frozenset({_E.CANCELLED}),
    _E.COMPLETED: frozenset(),
    _E.FAILED: frozenset(),
    _E.CANCELLED: frozenset(),
}


class IllegalTransition(Exception):
    """A transition that is not in the table: a defect of the core, never of its input."""

    def __init__(self, what: str, start: str, finish: str) -> None:
        super().__init__(what, start, finish)
        self.what = what
        self.start = start
        self.finish = finish

    def __str__(self) -> str:
        return f"{self.what}: no transition from {self.start} to {self.finish}"


def check_task(name: str, start: TaskStatus, finish: TaskStatus) -> None:
    """Raise IllegalTransition unless the table allows it."""
    if finish not in TASK_TRANSITIONS[start]:
        raise IllegalTransition(f"task '{name}'", start, finish)


def check_execution(start: ExecutionStatus, finish: ExecutionStatus) -> None:
    """Raise IllegalTransition unless the table allows it."""
    if finish not in EXECUTION_TRANSITIONS[start]:
        raise IllegalTransition("execution", start, finish)
