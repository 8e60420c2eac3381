"""Executions as the API shows them: status documents, tasks, checkpoints' task states.

Pure: from heads, rows and outputs to JSON objects in the reference's shapes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from harmonia_actors.core import jsontext
from harmonia_actors.core.events import output_descriptor
from harmonia_actors.core.records import Head, OutputReference, TaskRow
from harmonia_actors.core.requests import JsonObject
from harmonia_actors.core.statuses import TaskStatus
from harmonia_actors.core.stimuli import Failure
from harmonia_actors.core.timestamps import timestamp, timestamp_or_none
from harmonia_actors.core.workflow import Workflow

__all__ = [
    "edits",
    "execution_times",
    "list_item",
    "progress",
    "shown_outputs",
    "started",
    "task_view",
]

_PENDING = TaskRow()


def execution_times(head: Head) -> JsonObject:
    """The times of an execution, in the API's form and in milliseconds."""
    return {
        "created_at": timestamp(head.created_ms),
        "updated_at": timestamp(head.updated_ms),
        "started_at": timestamp_or_none(head.started_ms),
        "completed_at": timestamp_or_none(head.completed_ms),
        "created_ms": head.created_ms,
        "started_ms": head.started_ms,
        "completed_ms": head.completed_ms,
    }


def started(head: Head, input_values: JsonObject, options: JsonObject) -> JsonObject:
    """An execution as the answer to its start shows it.

    Of a restored one, what is known of it without a look at the store.
    """
    restored: JsonObject = {}
    if head.checkpoint_id:
        restored = {
            "checkpoint_id": head.checkpoint_id,
            "task_status": {},
            "task_status_truncated": True,
            "tasks_url": f"/executions/{head.execution_id}/tasks",
        }
    return {
        **restored,
        "execution_id": head.execution_id,
        "workflow_id": head.workflow_id,
        "status": head.status.value,
        **execution_times(head),
        "input": input_values,
        "execution_options": options,
    }


def edits(
    names: Mapping[str, Sequence[str]], input_values: JsonObject, workflow: Workflow
) -> JsonObject:
    """What a restored execution was given besides its checkpoint: the names are as stored."""
    return {
        "input": {name: input_values[name] for name in names["input"]},
        "task_inputs": {name: workflow.by_name[name].input for name in names["task_inputs"]},
    }


def list_item(head: Head) -> JsonObject:
    """An execution as lists show it."""
    return {
        "execution_id": head.execution_id,
        "workflow_id": head.workflow_id,
        "workflow_name": head.workflow_name,
        "status": head.status.value,
        **execution_times(head),
        "progress": progress(head),
        "error": head.error,
    }


def progress(head: Head) -> JsonObject:
    """How many tasks have completed, and which run now."""
    running = [] if head.status.is_final else list(head.running)
    return {
        "completed_tasks": head.completed_tasks,
        "total_tasks": head.total,
        "current_task": running[0] if running else None,
        "running_tasks": running,
        "running_count": 0 if head.status.is_final else head.running_count,
    }


def task_view(row: TaskRow | None, output: Any = None) -> JsonObject:
    """A task as a status shows it; `output` is in a list of one, if it is to be shown."""
    row = row or _PENDING
    has_attempt = row.started_ms is not None or row.attempt > 1
    view: JsonObject = {
        "status": row.status.value,
        "started_at": timestamp_or_none(row.started_ms),
        "completed_at": timestamp_or_none(row.completed_ms),
        "started_ms": row.started_ms,
        "completed_ms": row.completed_ms,
        # The one that runs or ran last; while none does, the next one; 0 before the first.
        "attempt": row.attempt if has_attempt else 0,
        "progress": 1.0 if row.status is TaskStatus.COMPLETED else row.progress,
        "error": _error(row.failure),
    }
    if row.message and row.status is TaskStatus.RUNNING:
        view["message"] = row.message
    if row.waiting and not row.status.is_final:
        view["waiting"] = row.waiting
    if row.retry_at_ms is not None:
        view["retry_at"] = timestamp(row.retry_at_ms)
    if output is not None:
        view["output"] = output[0]
    return view


def _error(failure: Failure | None) -> JsonObject | None:
    if failure is None:
        return None
    return {
        "code": failure.code,
        "message": failure.message,
        "details": failure.details,
        "origin": failure.origin,
    }


def shown_outputs(
    rows: Sequence[tuple[str, TaskRow | None]], budget_bytes: int
) -> tuple[dict[str, OutputReference], dict[str, OutputReference]]:
    """Which outputs are shown whole and which by a descriptor: the first ones, while they fit."""
    whole: dict[str, OutputReference] = {}
    described: dict[str, OutputReference] = {}
    left = budget_bytes
    for name, row in rows:
        if row is None or row.output is None or row.status is not TaskStatus.COMPLETED:
            continue
        if row.output.url is None and row.output.size <= left:
            left -= row.output.size
            whole[name] = row.output
        else:
            described[name] = row.output
    return whole, described


def descriptor(execution_id: str, name: str | None, reference: OutputReference) -> JsonObject:
    """What stands in for an output that is not shown whole."""
    return output_descriptor(execution_id, name, reference.size, reference.preview)


def decode_outputs(names: Sequence[str], bodies: Sequence[bytes | None]) -> Mapping[str, Any]:
    """Outputs by task name."""
    return {
        name: jsontext.decode(body)
        for name, body in zip(names, bodies, strict=True)
        if body is not None
    }
