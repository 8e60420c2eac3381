"""The form of each event as it is stored: which fields it has, and of what kind they are.

Said here once more, apart from `events`, so that a mistake there is found.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from harmonia_actors.core import jsontext
from harmonia_actors.core.audit_outputs import ToldOutput, told_output
from harmonia_actors.core.log_lines import LEVELS, STREAMS
from harmonia_actors.core.timestamps import timestamp

__all__ = ["StoredForm", "UnreadableEvent", "read_event", "timestamp_problem"]


class UnreadableEvent(ValueError):
    """The bytes are no event: not JSON, of no known type, or without the fields of their type."""


@dataclass(frozen=True, slots=True)
class StoredForm:
    """An event that has the form of its type."""

    seq: int
    kind: str
    timestamp: str
    at_ms: int
    execution_id: str
    data: dict[str, Any]
    part: int = 0
    #: What it tells of an output, if it is an event that has one.
    output: ToldOutput | None = None


def _text(value: Any) -> bool:
    return isinstance(value, str)


def _storable(value: Any) -> bool:
    """Of JSON's texts those that are UTF-8: half a surrogate is not."""
    try:
        return isinstance(value, str) and value.encode() is not None
    except UnicodeEncodeError:
        return False


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _numbered(value: Any) -> bool:
    return _whole(value) and value >= 1


def _seconds(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value >= 0


def _share(value: Any) -> bool:
    return _seconds(value) and value <= 1


def _flag(value: Any) -> bool:
    return isinstance(value, bool)


def _anything(value: Any) -> bool:  # noqa: ARG001
    return True


def _lines(value: Any) -> bool:
    return isinstance(value, list) and all(map(_line, value))


def _line(value: Any) -> bool:
    if not isinstance(value, dict) or value.keys() - {"level"} != {
        "stream",
        "text",
        "timestamp_ms",
    }:
        return False
    is_fit = _storable(value["text"]) and _whole(value["timestamp_ms"])
    return is_fit and value["stream"] in STREAMS and value.get("level", LEVELS[0]) in LEVELS


def _object(value: Any) -> bool:
    return isinstance(value, dict)


def _with_code(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("code"), str)


def _error(value: Any) -> bool:
    return (
        _with_code(value)
        and isinstance(value.get("message"), str)
        and isinstance(value.get("details"), dict)
        and isinstance(value.get("task", ""), str)
    )


_Fields = Mapping[str, Callable[[Any], bool]]

_ENVELOPE: Final[_Fields] = {
    "seq": _numbered,
    "type": _text,
    "timestamp": _text,
    "timestamp_ms": _whole,
    "execution_id": _text,
    "data": _object,
}
_TASK: Final[_Fields] = {"task_name": _text, "task_index": _whole, "total_tasks": _numbered}
_ATTEMPT: Final[_Fields] = {**_TASK, "attempt": _numbered}
_WORKFLOW: Final[_Fields] = {"workflow_id": _text, "workflow_name": _text}
_ENDED: Final[_Fields] = {**_WORKFLOW, "duration_seconds": _seconds}
_FORMS: Final[Mapping[str, _Fields]] = {
    "execution_started": _WORKFLOW,
    "task_started": _ATTEMPT,
    "task_progress": {"task_name": _text, "progress": _share, "message": _text},
    "task_log": {"task_name": _text, "attempt": _numbered, "lines": _lines, "dropped": _whole},
    "task_completed": {**_ATTEMPT, "output": _anything},
    "task_failed": {
        **_ATTEMPT,
        "error": _text,
        "error_details": _with_code,
        "retry_count": _whole,
        "max_retries": _whole,
        "will_retry": _flag,
    },
    "task_skipped": {**_TASK, "reason": _text},
    "task_cancelled": {**_TASK, "reason": _text},
    "checkpoint_created": {"checkpoint_id": _text, "name": _text},
    "execution_completed": {**_ENDED, "output": _anything},
    "execution_failed": {**_ENDED, "error": _error},
    "execution_cancelled": _ENDED,
}


def read_event(body: bytes) -> StoredForm:
    """The event that `encode_event` wrote. Raises UnreadableEvent."""
    try:
        envelope = jsontext.decode(body)
    except (ValueError, RecursionError) as error:
        raise UnreadableEvent(f"the event is not JSON: {error}") from error
    if not isinstance(envelope, dict):
        raise UnreadableEvent("the event is no JSON object")
    part = envelope.pop("part", 0)
    _check("the event", envelope, _ENVELOPE)
    if not _whole(part):
        raise UnreadableEvent(f"the event has part = {str(part)[:100]!r}")
    kind = envelope["type"]
    if kind not in _FORMS:
        raise UnreadableEvent(f"there is no event type '{kind[:60]}'")
    _check(f"the data of {kind}", envelope["data"], _FORMS[kind])
    return StoredForm(
        seq=envelope["seq"],
        kind=kind,
        timestamp=envelope["timestamp"],
        at_ms=envelope["timestamp_ms"],
        execution_id=envelope["execution_id"],
        data=envelope["data"],
        part=part,
        output=told_output(body, envelope["data"]["output"]) if "output" in _FORMS[kind] else None,
    )


def _check(what: str, found: Mapping[str, Any], fields: _Fields) -> None:
    for name in sorted(fields.keys() - found.keys()):
        raise UnreadableEvent(f"{what} has no {name}")
    for name in sorted(found.keys() - fields.keys()):
        raise UnreadableEvent(f"{what} has {name[:100]!r}, which is unknown")
    for name, is_fit in fields.items():
        if not is_fit(found[name]):
            raise UnreadableEvent(f"{what} has {name} = {str(found[name])[:100]!r}")


def timestamp_problem(event: StoredForm) -> str:
    """What is wrong between the two forms of the event's time; empty if they agree."""
    try:
        written = timestamp(event.at_ms)
    except (ValueError, OverflowError, OSError):
        return f"timestamp_ms {event.at_ms} is no time"
    if event.timestamp != written:
        return f"timestamp is {event.timestamp}, timestamp_ms means {written}"
    return ""
