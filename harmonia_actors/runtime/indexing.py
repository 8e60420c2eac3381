"""In which lists an execution stands, and their names: by time, overall, by workflow, by status.

One that was asked for with an idempotency key also stands in a list of its own, by which it is
found again. Checkpoints stand in lists by time, overall and of their execution.
"""

from __future__ import annotations

from harmonia_actors.core.records import Head
from persistence.store import IndexEntry

__all__ = [
    "checkpoint_indexes",
    "checkpoints_index",
    "execution_indexes",
    "executions_index",
    "once_index",
]


def executions_index(workflow_id: str | None = None, status: str | None = None) -> str:
    """The list of executions that match both filters; None means any."""
    return f"executions:{workflow_id or '*'}:{status or '*'}"


def checkpoints_index(execution_id: str | None = None) -> str:
    """The list of checkpoints of an execution; None means any."""
    return f"checkpoints:{execution_id or '*'}"


def checkpoint_indexes(execution_id: str, created_ms: int) -> list[IndexEntry]:
    """All lists that a checkpoint stands in."""
    score = float(created_ms)
    return [IndexEntry(checkpoints_index(one), score) for one in (None, execution_id)]


def once_index(name: str) -> str:
    """The list of the one execution that was asked for under an idempotency key."""
    return f"executions-once:{name}"


def execution_indexes(head: Head) -> list[IndexEntry]:
    """All lists that an execution stands in, ordered by its creation."""
    score = float(head.created_ms)
    alone = [IndexEntry(head.once, score)] if head.once else []
    return alone + [
        IndexEntry(executions_index(workflow_id, status), score)
        for workflow_id in (None, head.workflow_id)
        for status in (None, head.status.value)
    ]
