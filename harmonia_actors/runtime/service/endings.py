"""What those are told who wait for the end of an execution, or come too late for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harmonia_actors.core.errors import ComponentFailed, Conflict, ExecutionFailed, HarmoniaError
from harmonia_actors.core.records import Head
from harmonia_actors.core.requests import ExecutionReply, JsonObject
from harmonia_actors.core.statuses import ExecutionStatus

__all__ = ["ended_reply", "has_ended"]


def has_ended(head: Head) -> Conflict:
    """The error for whoever would cancel it."""
    return Conflict(
        f"execution '{head.execution_id}' has ended and cannot be cancelled",
        {"execution_id": head.execution_id, "status": head.status.value},
    )


def ended_reply(document: JsonObject) -> ExecutionReply:
    """The answer to whoever has waited, from a status. Raises ComponentFailed, ExecutionFailed."""
    error = document.get("error")
    if document["status"] == ExecutionStatus.FAILED and error is not None:
        raise _failure(document["execution_id"], error)
    return ExecutionReply(document, ended=ExecutionStatus(document["status"]).is_final)


def _failure(execution_id: str, error: Mapping[str, Any]) -> HarmoniaError:
    details = {
        "execution_id": execution_id,
        "task": error.get("task"),
        "error": error,
    }
    message = f"execution '{execution_id}' failed: {error['message']}"
    if error["code"] == "component_error":
        return ComponentFailed(message, details)
    return ExecutionFailed(message, details)
