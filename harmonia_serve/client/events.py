"""A subscriber's place in an execution's event stream: what to ask for, what to make of it.

The cursor sees each event once and in order: repeats are dropped, a gap or a break makes it ask
again after the last seq it has seen, with growing pauses and a limit. It does no I/O.
"""

from __future__ import annotations

import json
from typing import Any, TypedDict

from harmonia_serve.client.errors import ApiError, ServiceUnreachable
from harmonia_serve.client.flows import path_segment

__all__ = ["Event", "EventCursor"]

_BREAKS_MAX = 8
_FIRST_PAUSE_S = 0.1
_PAUSE_S_MAX = 10.0
_GOOD_STREAM_S = 30.0

#: Types of the events that no other event follows.
_LAST_TYPES = frozenset({"execution_completed", "execution_failed", "execution_cancelled"})


class Event(TypedDict):
    """One event: its number within the execution, what happened, when, where, and more of it."""

    seq: int
    type: str
    timestamp: str
    execution_id: str
    data: dict[str, Any]


class EventCursor:
    """Where a subscriber stands. Feed it what the stream sends; ask it what to do on a break."""

    def __init__(self, execution_id: str, after: int, until: int | None = None) -> None:
        self.execution_id = execution_id
        self.after = after
        self._until = until
        self.ended = self._is_enough()
        self._breaks = 0
        self._taken_since_open = 0

    def _is_enough(self) -> bool:
        return self._until is not None and self.after >= self._until

    @property
    def path(self) -> str:
        """What to GET: events in their envelope, because a stream's own fields lack the time."""
        return f"/events/harmonia/executions/{path_segment(self.execution_id)}?envelope=true"

    def headers(self) -> dict[str, str]:
        """What to send with it: from where on."""
        self._taken_since_open = 0
        resume = {"Last-Event-ID": str(self.after)} if self.after else {}
        return {"Accept": "text/event-stream", **resume}

    def take(self, event_id: str, event_type: str, text: str) -> Event | None:
        """The next event, or None if this one was seen already or is no event of the execution.

        Raises ServiceUnreachable on a gap, so that the subscriber asks again.
        """
        if not event_id.isdecimal() or event_type in ("", "message"):
            return None
        seq = int(event_id)
        if seq <= self.after:
            return None
        if seq > self.after + 1 and self._taken_since_open:
            raise ServiceUnreachable(
                self.path, f"event {seq} came after event {self.after}", sent=True
            )
        self.after = seq
        self._breaks = 0
        self._taken_since_open += 1
        self.ended = event_type in _LAST_TYPES or self._is_enough()
        envelope = json.loads(text)
        return Event(
            seq=seq,
            type=event_type,
            timestamp=envelope["timestamp"],
            execution_id=self.execution_id,
            data=envelope["data"],
        )

    def pause_after_break(
        self, error: ServiceUnreachable | ApiError | None, lasted_s: float
    ) -> float:
        """Seconds until asking again, after the stream broke (or closed early: None).

        Raises the error if it will not go away, or after too many breaks in a row. A stream that
        lasted for a while was a good one: the service ends each at its greatest age.
        """
        lasting = isinstance(error, ApiError) and error.status not in (429, 500, 502, 503, 504)
        self._breaks = 1 if lasted_s > _GOOD_STREAM_S else self._breaks + 1
        if error is not None and (lasting or self._breaks > _BREAKS_MAX):
            raise error
        if self._breaks > _BREAKS_MAX:
            raise ServiceUnreachable(self.path, "the stream closes again and again", sent=True)
        return float(min(_FIRST_PAUSE_S * 2 ** (self._breaks - 1), _PAUSE_S_MAX))

    def note_nothing_more(self) -> None:
        """Take in that the service has no event after the last one (204)."""
        self.ended = True
