"""The end of an execution that ends its owners: failed, by a decision that looks at little.

What is read here must be as small as possible, because reading something of it may be what kills.
This module must not know clocks, stores or logs.
"""

from __future__ import annotations

from typing import Any

from harmonia_actors.core import events as ev
from harmonia_actors.core.records import Head
from harmonia_actors.core.state import NumberedEvent
from harmonia_actors.core.statuses import ExecutionStatus

__all__ = ["QUARANTINED", "fail_head", "quarantine_error"]

#: The error code of a quarantined execution.
QUARANTINED = "quarantined"


def quarantine_error(crashes: int) -> dict[str, Any]:
    """Why it failed, in the form the API shows."""
    return {
        "code": QUARANTINED,
        "message": (
            f"the execution was quarantined: {crashes} times in a row the process that drove it "
            "died or broke, the last times while it was alone there; look into the service's log"
        ),
        "details": {"crashes": crashes},
    }


def fail_head(head: Head, seq: int, at_ms: int, error: dict[str, Any]) -> NumberedEvent:
    """Fail an execution by its head alone, whatever its tasks are; the event that says so.

    `seq` is how many events its log has.
    """
    head.status = ExecutionStatus.FAILED
    head.error = head.error or error
    head.updated_ms = head.completed_ms = at_ms
    head.started_ms = at_ms if head.started_ms is None else head.started_ms
    head.running, head.running_count = (), 0
    duration_ms = max(0, at_ms - head.started_ms)
    failed = ev.ExecutionFailed(head.workflow_id, head.workflow_name, duration_ms, head.error)
    head.log_part = 0
    return NumberedEvent(seq + 1 - head.log_events, at_ms, failed, index=seq + 1)
