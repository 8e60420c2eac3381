"""What subscribers see: facts about an execution, each with a type and a data object.

`encode_event` gives an event the wire form of the API reference (the WebSocket envelope), with
`seq` and `timestamp_ms` added. Outputs are spliced in as the JSON they are kept as, so that an
event costs no second parse.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, get_args
from urllib.parse import quote

from harmonia_actors.core import jsontext
from harmonia_actors.core.log_lines import LogLine
from harmonia_actors.core.stimuli import WORKER_LOST, Failure, Output
from harmonia_actors.core.timestamps import timestamp

__all__ = [
    "EVENT_STATUSES",
    "EVENT_TYPES",
    "FINAL_EVENT_TYPES",
    "CheckpointCreated",
    "Event",
    "ExecutionCancelled",
    "ExecutionCompleted",
    "ExecutionFailed",
    "ExecutionStarted",
    "TaskCancelled",
    "TaskCompleted",
    "TaskFailed",
    "TaskLog",
    "TaskProgress",
    "TaskSkipped",
    "TaskStarted",
    "encode_event",
    "event_status",
    "output_descriptor",
    "output_json",
]


def output_json(output: Output, execution_id: str, task_name: str | None) -> bytes:
    """An output as it is shown: its JSON, or for a large one where it can be had."""
    if output.inline is not None:
        return output.inline
    return jsontext.encode(output_descriptor(execution_id, task_name, output.size, output.preview))


def output_descriptor(
    execution_id: str, task_name: str | None, size: int, preview: str
) -> dict[str, Any]:
    """What stands in for an output that is too large to be shown.

    `$ref` is a path below the API's base; `task_name` is None for the execution's own output.
    """
    place = "" if task_name is None else f"/tasks/{quote(task_name, safe='')}"
    return {"$ref": f"/executions/{execution_id}{place}/output", "size": size, "preview": preview}


@dataclass(frozen=True, slots=True)
class ExecutionStarted:
    """The execution has begun to run."""

    type: ClassVar[str] = "execution_started"
    workflow_id: str
    workflow_name: str

    def data(self, execution_id: str) -> bytes:  # noqa: ARG002
        """The event's data object as JSON."""
        return jsontext.encode(
            {"workflow_id": self.workflow_id, "workflow_name": self.workflow_name}
        )


@dataclass(frozen=True, slots=True)
class TaskStarted:
    """An attempt of a task runs."""

    type: ClassVar[str] = "task_started"
    task_name: str
    task_index: int
    total_tasks: int
    attempt: int

    def data(self, execution_id: str) -> bytes:  # noqa: ARG002
        """The event's data object as JSON."""
        return jsontext.encode(
            {
                "task_name": self.task_name,
                "task_index": self.task_index,
                "total_tasks": self.total_tasks,
                "attempt": self.attempt,
            }
        )


@dataclass(frozen=True, slots=True)
class TaskProgress:
    """A running task says how far it is."""

    type: ClassVar[str] = "task_progress"
    task_name: str
    progress: float
    message: str

    def data(self, execution_id: str) -> bytes:  # noqa: ARG002
        """The event's data object as JSON."""
        return jsontext.encode(
            {"task_name": self.task_name, "progress": self.progress, "message": self.message}
        )


@dataclass(frozen=True, slots=True)
class TaskLog:
    """What a running task has written, if it is asked for; `dropped` lines before are left out."""

    type: ClassVar[str] = "task_log"
    task_name: str
    attempt: int
    lines: tuple[LogLine, ...]
    dropped: int

    def data(self, execution_id: str) -> bytes:  # noqa: ARG002
        """The event's data object as JSON."""
        return jsontext.encode(
            {
                "task_name": self.task_name,
                "attempt": self.attempt,
                "lines": [line.to_json() for line in self.lines],
                "dropped": self.dropped,
            }
        )


@dataclass(frozen=True, slots=True)
class TaskCompleted:
    """A task has its output."""

    type: ClassVar[str] = "task_completed"
    task_name: str
    task_index: int
    total_tasks: int
    attempt: int
    output: Output

    def data(self, execution_id: str) -> bytes:
        """The event's data object as JSON."""
        head = jsontext.encode(
            {
                "task_name": self.task_name,
                "task_index": self.task_index,
                "total_tasks": self.total_tasks,
                "attempt": self.attempt,
            }
        )
        shown = output_json(self.output, execution_id, self.task_name)
        return head[:-1] + b',"output":' + shown + b"}"


@dataclass(frozen=True, slots=True)
class TaskFailed:
    """An attempt has failed; `will_retry` says whether another one follows."""

    type: ClassVar[str] = "task_failed"
    task_name: str
    task_index: int
    total_tasks: int
    attempt: int
    failure: Failure
    retry_count: int
    max_retries: int
    will_retry: bool

    def data(self, execution_id: str) -> bytes:  # noqa: ARG002
        """The event's data object as JSON."""
        return jsontext.encode(
            {
                "task_name": self.task_name,
                "task_index": self.task_index,
                "total_tasks": self.total_tasks,
                "attempt": self.attempt,
                "error": self.failure.message,
                "error_details": self.failure.shown_details(),
                "retry_count": self.retry_count,
                "max_retries": self.max_retries,
                "will_retry": self.will_retry,
            }
        )


@dataclass(frozen=True, slots=True)
class TaskSkipped:
    """A task will not run, because another one failed or time ran out."""

    type: ClassVar[str] = "task_skipped"
    task_name: str
    task_index: int
    total_tasks: int
    reason: str

    def data(self, execution_id: str) -> bytes:  # noqa: ARG002
        """The event's data object as JSON."""
        return _named(self.task_name, self.task_index, self.total_tasks, self.reason)


@dataclass(frozen=True, slots=True)
class TaskCancelled:
    """A task was stopped, or will not run: the execution is being cancelled or timed out."""

    type: ClassVar[str] = "task_cancelled"
    task_name: str
    task_index: int
    total_tasks: int
    reason: str

    def data(self, execution_id: str) -> bytes:  # noqa: ARG002
        """The event's data object as JSON."""
        return _named(self.task_name, self.task_index, self.total_tasks, self.reason)


@dataclass(frozen=True, slots=True)
class CheckpointCreated:
    """A checkpoint of the execution was written."""

    type: ClassVar[str] = "checkpoint_created"
    checkpoint_id: str
    name: str

    def data(self, execution_id: str) -> bytes:  # noqa: ARG002
        """The event's data object as JSON."""
        return jsontext.encode({"checkpoint_id": self.checkpoint_id, "name": self.name})


@dataclass(frozen=True, slots=True)
class ExecutionCompleted:
    """Every task has completed, and the execution has its output."""

    type: ClassVar[str] = "execution_completed"
    workflow_id: str
    workflow_name: str
    duration_ms: int
    output: Output

    def data(self, execution_id: str) -> bytes:
        """The event's data object as JSON."""
        head = jsontext.encode(_ended(self.workflow_id, self.workflow_name, self.duration_ms))
        shown = output_json(self.output, execution_id, None)
        return head[:-1] + b',"output":' + shown + b"}"


@dataclass(frozen=True, slots=True)
class ExecutionFailed:
    """The execution has ended without completing; `error` is what the status shows."""

    type: ClassVar[str] = "execution_failed"
    workflow_id: str
    workflow_name: str
    duration_ms: int
    error: dict[str, Any]

    def data(self, execution_id: str) -> bytes:  # noqa: ARG002
        """The event's data object as JSON."""
        ended = _ended(self.workflow_id, self.workflow_name, self.duration_ms)
        return jsontext.encode({**ended, "error": self.error})


@dataclass(frozen=True, slots=True)
class ExecutionCancelled:
    """The execution was cancelled, and nothing of it runs any more."""

    type: ClassVar[str] = "execution_cancelled"
    workflow_id: str
    workflow_name: str
    duration_ms: int

    def data(self, execution_id: str) -> bytes:  # noqa: ARG002
        """The event's data object as JSON."""
        return jsontext.encode(_ended(self.workflow_id, self.workflow_name, self.duration_ms))


Event = (
    ExecutionStarted
    | TaskStarted
    | TaskProgress
    | TaskLog
    | TaskCompleted
    | TaskFailed
    | TaskSkipped
    | TaskCancelled
    | CheckpointCreated
    | ExecutionCompleted
    | ExecutionFailed
    | ExecutionCancelled
)

EVENT_TYPES: tuple[str, ...] = tuple(kind.type for kind in get_args(Event))

#: What a task, or an execution, comes to by an event. By progress it comes to nothing else.
_STATUSES = {
    ExecutionStarted.type: "running",
    TaskStarted.type: "running",
    TaskCompleted.type: "completed",
    TaskFailed.type: "failed",
    TaskSkipped.type: "skipped",
    TaskCancelled.type: "cancelled",
    ExecutionCompleted.type: "completed",
    ExecutionFailed.type: "failed",
    ExecutionCancelled.type: "cancelled",
}
_RETRYING = "retrying"
EVENT_STATUSES = (*dict.fromkeys(_STATUSES.values()), _RETRYING)

#: After one of these no other event follows.
FINAL_EVENT_TYPES = frozenset(
    {ExecutionCompleted.type, ExecutionFailed.type, ExecutionCancelled.type}
)


def event_status(kind: str, data: bytes) -> str | None:
    """The status that the task or execution comes to by this event; None if there is none to tell.

    A task whose attempt was lost is started again at once: it does not wait for a retry.
    """
    if kind == TaskFailed.type:
        told = jsontext.decode(data)
        if told["will_retry"]:
            return None if told["error_details"]["code"] == WORKER_LOST else _RETRYING
    return _STATUSES.get(kind)


def _named(task_name: str, task_index: int, total_tasks: int, reason: str) -> bytes:
    return jsontext.encode(
        {
            "task_name": task_name,
            "task_index": task_index,
            "total_tasks": total_tasks,
            "reason": reason,
        }
    )


def _ended(workflow_id: str, workflow_name: str, duration_ms: int) -> dict[str, Any]:
    seconds = duration_ms / 1000
    return {
        "workflow_id": workflow_id,
        "workflow_name": workflow_name,
        "duration_seconds": int(seconds) if seconds == int(seconds) else seconds,
    }


def encode_event(event: Event, *, seq: int, at_ms: int, execution_id: str, part: int = 0) -> bytes:
    """The event in the API's envelope, as UTF-8 JSON.

    `seq` comes first, with `part` if it has one, and `data` last, so that a reader can find either
    without a full parse.
    """
    place = f'{seq},"part":{part}' if part else str(seq)
    return (
        (
            f'{{"seq":{place},"type":"{event.type}","timestamp":"{timestamp(at_ms)}",'
            f'"timestamp_ms":{at_ms},"execution_id":"{execution_id}","data":'
        ).encode()
        + event.data(execution_id)
        + b"}"
    )
