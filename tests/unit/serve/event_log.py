"""Events of the gateway for tests, encoded and numbered as the engine does it."""

from __future__ import annotations

import json
from collections.abc import Sequence

from harmonia_serve.gateway import JsonObject, StreamEvent

__all__ = ["NOW", "last_of", "next_event"]

NOW = "2025-01-15T12:00:00Z"


def next_event(
    log: Sequence[StreamEvent], execution_id: str, kind: str, data: JsonObject
) -> StreamEvent:
    """The event that comes next in a log."""
    seq, part = log[-1].place if log else (0, 0)
    seq, part = (seq, part + 1) if kind == "task_log" else (seq + 1, 0)
    head = {
        "seq": seq,
        **({"part": part} if part else {}),
        "type": kind,
        "timestamp": NOW,
        "timestamp_ms": 1_736_942_400_000,
        "execution_id": execution_id,
    }
    # Events of a task are known by how their data begins, so there must be no spaces in it.
    body = json.dumps(data, separators=(",", ":")).encode()
    before = json.dumps(head).encode()[:-1] + b',"data":'
    last = kind in ("execution_completed", "execution_failed", "execution_cancelled")
    return StreamEvent(seq, kind, before + body + b"}", len(before), last, part)


def last_of(log: Sequence[StreamEvent]) -> JsonObject:
    """What a status says of the last event."""
    if not log:
        return {"last_seq": 0, "last_id": "0"}
    return {"last_seq": log[-1].seq, "last_id": log[-1].cursor}
