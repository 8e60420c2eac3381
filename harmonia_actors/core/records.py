"""What is stored of an execution: one small row per task, one head, both as versioned JSON.

A row is an array whose trailing defaults are cut off, because there may be 10,000 of them and each
is written whenever its task changes. Unknown versions are refused, never guessed at.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

from harmonia_actors.core import jsontext
from harmonia_actors.core.options import CheckpointPolicy, ExecutionOptions
from harmonia_actors.core.retry import RetryPolicy
from harmonia_actors.core.statuses import ExecutionStatus, TaskStatus
from harmonia_actors.core.stimuli import Failure

__all__ = [
    "SCHEMA_VERSION",
    "AutomaticCheckpoint",
    "Head",
    "OutputReference",
    "TaskRow",
    "UnknownSchema",
    "automatic_name",
    "decode_head",
    "decode_row",
    "encode_head",
    "encode_row",
]

#: What heads are written with; raised whenever a head gets a key that an older version would miss.
#: In version 1 there were no automatic checkpoints, and nodes were named by their ids alone; in
#: version 2 there were no log lines.
SCHEMA_VERSION = 3
_READ_VERSIONS = (1, 2, SCHEMA_VERSION)


class UnknownSchema(ValueError):
    """A record was written by another version of Harmonia than this one understands."""


@dataclass(frozen=True, slots=True)
class OutputReference:
    """Where an output is kept: under a key of the execution that made it, or in a blob.

    `execution_id` is that of another execution if the task was completed before a checkpoint that
    this one was restored from.
    """

    execution_id: str
    key: str
    size: int
    url: str | None = None
    preview: str = ""

    def to_list(self) -> list[Any]:
        """As it stands in a row."""
        return [self.execution_id, self.key, self.size, self.url, self.preview]


@dataclass(slots=True)
class TaskRow:
    """The state of one task. Times are milliseconds since 1970."""

    status: TaskStatus = TaskStatus.PENDING
    #: The attempt that runs, or the one that will be started next; from 1, only grows.
    attempt: int = 1
    #: Attempts that failed, and attempts whose process died.
    failures: int = 0
    losses: int = 0
    started_ms: int | None = None
    completed_ms: int | None = None
    #: When the next attempt may start; set while retrying.
    retry_at_ms: int | None = None
    failure: Failure | None = None
    output: OutputReference | None = None
    progress: float | None = None
    message: str = ""
    #: Why it cannot start yet, although all it depends on has completed.
    waiting: str = ""
    #: Lines of the attempt that runs which were told or left out.
    lines: int = 0


def automatic_name(seq: int) -> str:
    """The name of an automatic checkpoint that was decided on at `seq`."""
    return f"auto-{seq}"


@dataclass(frozen=True, slots=True)
class AutomaticCheckpoint:
    """The last checkpoint that an execution has decided to take by itself.

    Before the first one it stands for the beginning: seq 0, taken.
    """

    #: The last event when it was decided on; gives it its name.
    seq: int
    #: Tasks that had completed by then.
    completed_tasks: int
    at_ms: int
    #: Whether it is known to be there.
    taken: bool

    def to_list(self) -> list[Any]:
        """As it stands in a head."""
        return [self.seq, self.completed_tasks, self.at_ms, self.taken]


@dataclass(slots=True)
class Head:
    """What is known of an execution besides its tasks."""

    execution_id: str
    workflow_id: str
    workflow_name: str
    total: int
    options: ExecutionOptions
    created_ms: int
    updated_ms: int
    status: ExecutionStatus = ExecutionStatus.PENDING
    started_ms: int | None = None
    completed_ms: int | None = None
    deadline_ms: int | None = None
    completed_tasks: int = 0
    #: The first tasks that run, by name; how many there are in all.
    running: tuple[str, ...] = ()
    running_count: int = 0
    #: Why it failed, in the form the API shows; set as soon as it is bound to fail.
    error: dict[str, Any] | None = None
    output: OutputReference | None = None
    checkpoint_id: str | None = None
    #: Set from the beginning on, if the execution takes checkpoints by itself.
    automatic: AutomaticCheckpoint | None = None
    #: `node`, `files_from`: see there.
    labels: dict[str, Any] = field(default_factory=dict)
    #: How many events of log lines there are, in all and since the last other event; what they
    #: count for.
    log_events: int = 0
    log_part: int = 0
    log_bytes: int = 0
    #: The list in which it is alone, if it was asked for with an idempotency key; else "".
    once: str = ""

    @property
    def node(self) -> str:
        """The place of the node that has its files (`Capacity.place_of`); "" if any does."""
        return str(self.labels.get("node", ""))

    @property
    def files_from(self) -> tuple[str, ...]:
        """Executions whose files this one begins with, of the first that has any: nearest first."""
        return tuple(self.labels.get("files_from", ()))


_HEAD_KEYS = frozenset(each.name for each in fields(Head))
_OPTION_KEYS = frozenset(each.name for each in fields(ExecutionOptions))
_ROW_DEFAULTS: list[Any] = ["pending", 1, 0, 0, None, None, None, None, None, None, "", "", 0]


def encode_row(row: TaskRow) -> bytes:
    """A row as JSON."""
    values: list[Any] = [
        row.status.value,
        row.attempt,
        row.failures,
        row.losses,
        row.started_ms,
        row.completed_ms,
        row.retry_at_ms,
        _failure_to_list(row.failure),
        row.output.to_list() if row.output else None,
        row.progress,
        row.message,
        row.waiting,
        row.lines,
    ]
    while values and values[-1] == _ROW_DEFAULTS[len(values) - 1]:
        values.pop()
    return jsontext.encode(values)


def decode_row(body: bytes) -> TaskRow:
    """The row that `encode_row` wrote. Raises UnknownSchema.

    A ValueError for a value that no version writes whose heads this one reads: that is a defect.
    """
    values = jsontext.decode(body)
    if len(values) > len(_ROW_DEFAULTS):
        raise UnknownSchema(f"a task row has {len(values)} columns; this version knows fewer")
    full = [*values, *_ROW_DEFAULTS[len(values) :]]
    try:
        return TaskRow(
            status=TaskStatus(full[0]),
            attempt=full[1],
            failures=full[2],
            losses=full[3],
            started_ms=full[4],
            completed_ms=full[5],
            retry_at_ms=full[6],
            failure=Failure(*full[7]) if full[7] else None,
            output=OutputReference(*full[8]) if full[8] else None,
            progress=full[9],
            message=full[10],
            waiting=full[11],
            lines=full[12],
        )
    except TypeError as error:
        raise UnknownSchema(f"a task row is not as this version knows them: {error}") from error


def _failure_to_list(failure: Failure | None) -> list[Any] | None:
    if failure is None:
        return None
    return [failure.message, failure.code, failure.details, failure.origin, failure.retriable]


def encode_head(head: Head) -> bytes:
    """A head as JSON."""
    return jsontext.encode(
        {
            "v": SCHEMA_VERSION,
            "execution_id": head.execution_id,
            "workflow_id": head.workflow_id,
            "workflow_name": head.workflow_name,
            "total": head.total,
            "options": _options_to_json(head.options),
            "created_ms": head.created_ms,
            "updated_ms": head.updated_ms,
            "status": head.status.value,
            "started_ms": head.started_ms,
            "completed_ms": head.completed_ms,
            "deadline_ms": head.deadline_ms,
            "completed_tasks": head.completed_tasks,
            "running": list(head.running),
            "running_count": head.running_count,
            "error": head.error,
            "output": head.output.to_list() if head.output else None,
            "checkpoint_id": head.checkpoint_id,
            "automatic": head.automatic.to_list() if head.automatic else None,
            "labels": head.labels,
            "log_events": head.log_events,
            "log_part": head.log_part,
            "log_bytes": head.log_bytes,
            "once": head.once,
        }
    )


def decode_head(body: bytes) -> Head:
    """The head that `encode_head` wrote. Raises UnknownSchema."""
    raw = jsontext.decode(body)
    version = raw.pop("v", None)
    reads = f"this version of Harmonia reads {' and '.join(map(str, _READ_VERSIONS))}"
    if version not in _READ_VERSIONS:
        raise UnknownSchema(f"an execution was stored with schema version {version}; {reads}")
    try:
        if version == 1:
            raw.setdefault("automatic", None)
            raw["options"].setdefault("checkpoint", None)
            if "node_id" in raw["labels"]:
                raw["labels"]["node"] = raw["labels"].pop("node_id")
        if version < SCHEMA_VERSION:
            raw = {"log_events": 0, "log_part": 0, "log_bytes": 0, **raw}
        return _head_from_json(raw)
    except (KeyError, TypeError, ValueError) as error:
        raise UnknownSchema(
            f"an execution was stored with schema version {version} in a form that is not known "
            f"({type(error).__name__}: {error}); {reads}"
        ) from error


def _head_from_json(raw: dict[str, Any]) -> Head:
    _require_keys("a head", raw, _HEAD_KEYS)
    automatic = raw["automatic"]
    read = {
        "options": _options_from_json(raw["options"]),
        "status": ExecutionStatus(raw["status"]),
        "running": tuple(raw["running"]),
        "output": OutputReference(*raw["output"]) if raw["output"] else None,
        "automatic": AutomaticCheckpoint(*automatic) if automatic else None,
    }
    return Head(**{**raw, **read})


def _require_keys(what: str, raw: dict[str, Any], known: frozenset[str]) -> None:
    """A key that is not known may change what others mean; one that is missing had a meaning."""
    differing = raw.keys() ^ known
    if differing:
        raise ValueError(f"{what} has too much or lacks: {', '.join(sorted(differing))}")


def _options_to_json(options: ExecutionOptions) -> dict[str, Any]:
    retry, checkpoint = options.retry, options.checkpoint
    return {
        "wait": options.wait,
        "timeout_ms": options.timeout_ms,
        "retry": None
        if retry is None
        else [
            retry.max_retries,
            retry.retry_interval_ms,
            retry.backoff,
            retry.max_interval_ms,
            retry.jitter,
        ],
        "checkpoint": None
        if checkpoint is None
        else [checkpoint.every_completions, checkpoint.every_ms, checkpoint.keep],
    }


def _options_from_json(raw: dict[str, Any]) -> ExecutionOptions:
    _require_keys("options", raw, _OPTION_KEYS)
    retry, checkpoint = raw["retry"], raw["checkpoint"]
    return ExecutionOptions(
        wait=raw["wait"],
        timeout_ms=raw["timeout_ms"],
        retry=RetryPolicy(*retry) if retry else None,
        checkpoint=CheckpointPolicy(*checkpoint) if checkpoint else None,
    )
