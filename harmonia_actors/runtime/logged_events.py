"""The installation's log as its subscribers see it: events in their envelope, gaps and marks.

An envelope is that of the execution's own stream with `cursor` before everything else, so that it
is made once for all subscribers. This module must not know the store.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from harmonia_actors.core import jsontext
from harmonia_actors.core.cursors import Cursor
from harmonia_actors.core.requests import LoggedEvent
from harmonia_actors.core.timestamps import timestamp
from harmonia_actors.runtime.event_hub import parse_event

__all__ = ["END", "GAP", "MARK", "end_mark", "gap", "logged", "mark"]

#: Events were missed, and cannot be had any more.
GAP: Final = "gap"
#: The stream was to end here, and does.
END: Final = "end"
#: Nothing has happened: the stream is at this cursor.
MARK: Final = "cursor"


def logged(position: Cursor, body: bytes, workflow_id: str) -> LoggedEvent:
    """An event that an execution's log holds."""
    cursor = position.text
    whole = b'{"cursor":"%s",%s' % (cursor.encode(), body[1:])
    event = parse_event(0, whole)
    return LoggedEvent(position, cursor, event.type, whole, event.data_at, workflow_id)


def gap(position: Cursor, reason: str, **more: Any) -> LoggedEvent:
    """Says that events before `position` are missing, and why."""
    return _own(position, GAP, {"reason": reason, **more})


def mark(position: Cursor) -> LoggedEvent:
    """Says where the stream is."""
    return _own(position, MARK, {})


def end_mark(position: Cursor) -> LoggedEvent:
    """Says that all has been sent that was asked for."""
    return _own(position, END, {})


def _own(position: Cursor, kind: str, data: Mapping[str, Any]) -> LoggedEvent:
    """A word of the log's own: it is about no execution, and its seq is none."""
    envelope = {
        "cursor": position.text,
        "seq": 0,
        "type": kind,
        "timestamp": timestamp(position.at_ms),
        "timestamp_ms": position.at_ms,
        "execution_id": "",
        "data": data,
    }
    body = jsontext.encode(envelope)
    return LoggedEvent(position, position.text, kind, body, body.index(b',"data":') + 8)
