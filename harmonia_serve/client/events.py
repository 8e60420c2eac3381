"""A subscriber's place in a stream of events: what to ask for, what to make of it.

A cursor sees each event once and in order: repeats are dropped, a gap or a break makes it ask
again after the last event it has seen, with growing pauses, for as long as an outage may take. It
does no I/O.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NotRequired, TypedDict, cast
from urllib.parse import urlencode

from harmonia_serve.client.errors import ApiError, ServiceUnreachable
from harmonia_serve.client.flows import JsonObject, path_segment
from harmonia_serve.client.outage import PATIENCE_S, Outage

__all__ = [
    "AnyCursor",
    "Event",
    "EventCursor",
    "InstallationCursor",
    "LogLine",
    "Selection",
    "Wanted",
    "log_lines",
    "stream_cursor",
]

_STREAMS = "/events/harmonia/executions"
#: From where on is said in the query, not by Last-Event-ID: whoever began at something unusable is
#: told so by the name that they gave it.
_HEADERS = {"Accept": "text/event-stream"}
#: A stream that has lasted for longer was a good one: the service ends each at its greatest age.
_GOOD_STREAM_S = 30.0
#: So long a service may be away that was never there: it may be the wrong place to ask.
_FIRST_PATIENCE_S = 30.0

#: Types of the events that no other event follows.
_LAST_TYPES = frozenset({"execution_completed", "execution_failed", "execution_cancelled"})
#: The last word of a stream of the installation that was to end.
_END = "end"
#: The last word to a follower that was cut off. It is no event and has no id of its own: what an
#: SSE parser gives it is the id of the event before.
_CUT_OFF = "slow_consumer"


class Event(TypedDict):
    """One event: its number within the execution, what happened, when, where, and more of it.

    A summary is told in the same form, with the type `execution_progress`.

    In the stream of the whole installation it has the `cursor` to resume after; an event `gap`
    there is about no execution, and its seq is 0. Log lines (`task_log`) have the seq of the event
    before them, and a `part`.
    """

    seq: int
    type: str
    timestamp: str
    execution_id: str
    data: dict[str, Any]
    part: NotRequired[int]
    cursor: NotRequired[str]


class LogLine(TypedDict):
    """A line that a task has written after the event of this seq.

    `stream` is log (what the action says; it has a level), stdout or stderr. With the stream
    `dropped` it stands for lines that are left out; `dropped` says how many.
    """

    seq: int
    task_name: str
    attempt: int
    stream: str
    level: NotRequired[str]
    text: str
    timestamp_ms: int | None
    dropped: NotRequired[int]


class Wanted(TypedDict, total=False):
    """Which events are wanted, as arguments of `events`; what is left out is no filter."""

    types: Sequence[str] | None
    task: str | None
    logs: bool
    workflow_id: str | None
    statuses: Sequence[str] | None
    detail: Literal["full", "summary"]


@dataclass(frozen=True, slots=True)
class Selection:
    """Which events are wanted; by default all but log lines."""

    types: Sequence[str] | None = None
    task: str | None = None
    workflow_id: str | None = None
    statuses: Sequence[str] | None = None
    logs: bool = False
    #: `summary`: not each event of a task, but what they come to.
    detail: Literal["full", "summary"] = "full"

    @property
    def query(self) -> dict[str, str]:
        """As query parameters."""
        listed = {"type": self.types, "status": self.statuses}
        words = {name: ",".join(them) for name, them in listed.items() if them is not None}
        detail = None if self.detail == "full" else self.detail
        logs = "true" if self.logs else None
        plain = {
            "task": self.task,
            "workflow_id": self.workflow_id,
            "detail": detail,
            "logs": logs,
        }
        return words | {name: value for name, value in plain.items() if value is not None}


class _Cursor(ABC):
    """What all cursors share: how to go on after a break."""

    ended: bool = False

    def __init__(self) -> None:
        self._outage = Outage(_FIRST_PATIENCE_S)
        self._is_open = False

    @property
    @abstractmethod
    def path(self) -> str:
        """What to GET, from where on included."""

    def note_open(self) -> None:
        """Take in that the service has begun to answer with a stream."""
        self._is_open = True
        self._outage.patience_s = PATIENCE_S

    def pause_after_break(
        self, error: ServiceUnreachable | ApiError | None, lasted_s: float
    ) -> float:
        """Seconds until asking again, after the stream broke (or closed early: None).

        `lasted_s`: how long ago it was asked for. Raises the error if it will not go away, or
        after two minutes without a good stream: one that brought an event, or lasted for a while.
        Time that a stream was open for is no outage, however it ended.
        """
        was_open, self._is_open = self._is_open, False
        if was_open and lasted_s > _GOOD_STREAM_S:
            self._outage.end()
        if error is None:
            reason = "the stream closes again and again"
            error = ServiceUnreachable(self.path, reason, sent=True)
        return self._outage.pause_s(error, 0.0 if was_open else lasted_s)

    def note_nothing_more(self) -> None:
        """Take in that the service has no event after the last one (204)."""
        self.ended = True


class EventCursor(_Cursor):
    """Where a follower of one execution stands.

    Feed it what the stream sends; ask it what to do on a break.
    """

    def __init__(
        self,
        execution_id: str,
        after: int | str,
        until: int | str | None = None,
        selection: Selection | None = None,
    ) -> None:
        super().__init__()
        self.execution_id = execution_id
        self.after = str(after)
        self._place = _place(self.after) or (0, 0)
        self._until = None if until is None else _place(str(until))
        query = selection.query if selection else {}
        #: Whether each event is sent, so that a number that is missing is an event that is missing.
        self._is_whole = query.keys() <= {"logs"}
        # A summary of what has been so far goes on: its end is found here.
        has_end = until is not None and "detail" not in query
        self._query = {**query, "until": str(until)} if has_end else query
        self.ended = self._is_enough()
        self._taken_since_open = 0

    def _is_enough(self) -> bool:
        return self._until is not None and self._place >= self._until

    @property
    def path(self) -> str:
        """What to GET: events in their envelope, because a stream's own fields lack the time."""
        begin = {} if self.after == "0" else {"after": self.after}
        query = urlencode({"envelope": "true", **self._query, **begin})
        return f"{_STREAMS}/{path_segment(self.execution_id)}?{query}"

    def headers(self) -> dict[str, str]:
        """What to send with it."""
        self._taken_since_open = 0
        return dict(_HEADERS)

    def take(self, event_id: str, event_type: str, text: str) -> Event | None:
        """The next event, or None if this one was seen already or is no event of the execution.

        Raises ServiceUnreachable on a gap, so that the subscriber asks again. Where something is
        left out, or summed up, there are gaps, and ids without data that say how far the stream has
        come.
        """
        place = _place(event_id)
        if place is None or event_type == _CUT_OFF or place <= self._place:
            return None
        if event_type in ("", "message"):
            if not text:
                self._pass(place, event_id)
                self.ended = self._is_enough()
            return None
        seq, part = place
        is_next = place == (self._place[0], self._place[1] + 1) if part else self._is_next(seq)
        if self._is_whole and self._taken_since_open and not is_next:
            raise ServiceUnreachable(
                self.path, f"event {event_id} came after event {self.after}", sent=True
            )
        self._pass(place, event_id)
        self._outage.end()
        self._taken_since_open += 1
        self.ended = event_type in _LAST_TYPES or self._is_enough()
        envelope = json.loads(text)
        event = Event(
            seq=seq,
            type=event_type,
            timestamp=envelope["timestamp"],
            execution_id=self.execution_id,
            data=envelope["data"],
        )
        if part:
            event["part"] = part
        return event

    def _is_next(self, seq: int) -> bool:
        return seq == self._place[0] + 1

    def _pass(self, place: tuple[int, int], event_id: str) -> None:
        self._place, self.after = place, event_id


def _place(event_id: str) -> tuple[int, int] | None:
    """Seq and part of an id; None if it is none."""
    seq, dash, part = event_id.partition("-")
    if not seq.isdecimal() or (dash and not part.isdecimal()):
        return None
    return int(seq), int(part or 0)


def log_lines(event: Event) -> list[LogLine]:
    """The lines that an event `task_log` tells of, behind those that are left out before them."""
    data = event["data"]
    whose = {"seq": event["seq"], "task_name": data["task_name"], "attempt": data["attempt"]}
    lines: list[JsonObject] = [{**whose, **line} for line in data["lines"]]
    if count := data["dropped"]:
        text = "1 line is left out" if count == 1 else f"{count} lines are left out"
        gone = {"stream": "dropped", "text": text, "timestamp_ms": None, "dropped": count}
        lines.insert(0, {**whose, **gone})
    return cast(list[LogLine], lines)


class InstallationCursor(_Cursor):
    """Where a follower of all executions stands. `after` is None until the service has said it."""

    def __init__(self, after: str | None, selection: Selection, *, follow: bool) -> None:
        super().__init__()
        self.after = after
        self._query = {**selection.query, **({} if follow else {"follow": "false"})}

    @property
    def path(self) -> str:
        """What to GET."""
        begin = {} if self.after is None else {"after": self.after}
        query = urlencode({**self._query, **begin})
        return f"{_STREAMS}?{query}" if query else _STREAMS

    def headers(self) -> dict[str, str]:
        """What to send with it."""
        return dict(_HEADERS)

    def take(self, event_id: str, event_type: str, text: str) -> Event | None:
        """The next event; None for an id without data, which says how far the stream has come.

        None also for what is no event of an execution: the end, and the farewell to a slow reader.
        """
        if not event_id or event_type == _CUT_OFF:
            return None
        if event_type in ("", "message"):
            if not text:
                self.after = event_id
            return None
        self.after = event_id
        self._outage.end()
        if event_type == _END:
            self.ended = True
            return None
        envelope = json.loads(text)
        event = Event(
            seq=envelope["seq"],
            type=event_type,
            timestamp=envelope["timestamp"],
            execution_id=envelope["execution_id"],
            data=envelope["data"],
            cursor=event_id,
        )
        if "part" in envelope:
            event["part"] = envelope["part"]
        return event


AnyCursor = EventCursor | InstallationCursor


def stream_cursor(
    execution_id: str | None,
    after: int | str | None,
    until: int | str | None,
    wanted: Wanted,
    *,
    follow: bool,
) -> AnyCursor:
    """The cursor for what `events` of a client is given. Raises TypeError for what does not fit."""
    selection = Selection(**wanted)
    if execution_id is None:
        if until is not None:
            raise TypeError("until: only the events of one execution have an end to give")
        if selection.detail != "full":
            raise TypeError("detail: only the events of one execution can be summed up")
        return InstallationCursor(None if after is None else str(after), selection, follow=follow)
    if selection.workflow_id is not None or not follow:
        raise TypeError(
            "workflow_id and follow are for the events of all executions: leave them out, or leave "
            "out the execution"
        )
    return EventCursor(execution_id, after or 0, until, selection)
