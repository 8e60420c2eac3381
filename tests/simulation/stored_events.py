"""Events as they are stored, read back as far as a judge of their order needs them."""

from __future__ import annotations

from typing import Any

from harmonia_actors.core import events as ev
from harmonia_actors.core import jsontext
from harmonia_actors.core.log_lines import LogLine
from harmonia_actors.core.stimuli import Failure, Output

__all__ = ["read_event"]

_NO_OUTPUT = Output(0, b"")
_NO_FAILURE = Failure("", "", {})


def read_event(body: bytes) -> ev.Event:
    """The event; outputs and failures are left out of it."""
    raw = jsontext.decode(body)
    kind, data = raw["type"], raw["data"]
    return _of_task(kind, data) if kind.startswith("task_") else _of_execution(kind, data)


def _of_task(kind: str, data: dict[str, Any]) -> ev.Event:
    name = data["task_name"]
    if kind in (ev.TaskProgress.type, ev.TaskLog.type):
        return _midway(kind, name, data)
    place = (name, data["task_index"], data["total_tasks"])
    match kind:
        case ev.TaskStarted.type:
            return ev.TaskStarted(*place, data["attempt"])
        case ev.TaskCompleted.type:
            return ev.TaskCompleted(*place, data["attempt"], _NO_OUTPUT)
        case ev.TaskFailed.type:
            counts = (data["retry_count"], data["max_retries"], data["will_retry"])
            return ev.TaskFailed(*place, data["attempt"], _NO_FAILURE, *counts)
        case ev.TaskSkipped.type:
            return ev.TaskSkipped(*place, data["reason"])
        case ev.TaskCancelled.type:
            return ev.TaskCancelled(*place, data["reason"])
    raise AssertionError(f"there is no event {kind}")


def _midway(kind: str, name: str, data: dict[str, Any]) -> ev.Event:
    if kind == ev.TaskProgress.type:
        return ev.TaskProgress(name, data["progress"], data["message"])
    lines = tuple(
        LogLine(each["stream"], each["text"], each["timestamp_ms"], each.get("level", ""))
        for each in data["lines"]
    )
    return ev.TaskLog(name, data["attempt"], lines, data["dropped"])


def _of_execution(kind: str, data: dict[str, Any]) -> ev.Event:
    if kind == ev.CheckpointCreated.type:
        return ev.CheckpointCreated(data["checkpoint_id"], data["name"])
    workflow = (data["workflow_id"], data["workflow_name"])
    match kind:
        case ev.ExecutionStarted.type:
            return ev.ExecutionStarted(*workflow)
        case ev.ExecutionCompleted.type:
            return ev.ExecutionCompleted(*workflow, 0, _NO_OUTPUT)
        case ev.ExecutionFailed.type:
            return ev.ExecutionFailed(*workflow, 0, data["error"])
        case ev.ExecutionCancelled.type:
            return ev.ExecutionCancelled(*workflow, 0)
    raise AssertionError(f"there is no event {kind}")
