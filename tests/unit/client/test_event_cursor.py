"""A subscriber's place in a stream: once, in order, and not for ever."""

from __future__ import annotations

import json

import pytest

from harmonia_serve.client import ServiceUnreachable
from harmonia_serve.client.errors import api_error
from harmonia_serve.client.events import EventCursor, Selection


def envelope(**data: object) -> str:
    return json.dumps({"timestamp": "2025-01-15T12:00:00Z", "data": data})


def test_events_are_handed_on_with_all_their_fields() -> None:
    cursor = EventCursor("exec-1", 0)
    event = cursor.take("1", "task_started", envelope(task_name="a"))
    assert event == {
        "seq": 1,
        "type": "task_started",
        "timestamp": "2025-01-15T12:00:00Z",
        "execution_id": "exec-1",
        "data": {"task_name": "a"},
    }


def test_repeats_and_comments_are_dropped() -> None:
    cursor = EventCursor("exec-1", 2)
    assert cursor.take("2", "task_started", envelope()) is None
    assert cursor.take("", "message", "hello") is None
    assert cursor.take("3", "task_started", envelope()) is not None
    assert cursor.take("3", "task_started", envelope()) is None


def test_a_gap_makes_the_subscriber_ask_again_after_the_last_event() -> None:
    cursor = EventCursor("exec-1", 0, selection=Selection(logs=True))
    cursor.headers()
    cursor.take("1", "execution_started", envelope())
    with pytest.raises(ServiceUnreachable):
        cursor.take("3", "task_started", envelope())
    assert cursor.headers()["Last-Event-ID"] == "1"


@pytest.mark.parametrize("outcome", ["completed", "failed", "cancelled"])
def test_the_last_event_ends_the_stream(outcome: str) -> None:
    cursor = EventCursor("exec-1", 0)
    cursor.take("1", f"execution_{outcome}", envelope())
    assert cursor.ended


def test_breaks_are_bounded_and_wait_ever_longer() -> None:
    cursor = EventCursor("exec-1", 0)
    broken = ServiceUnreachable("http://x", "reset", sent=True)
    pauses = [cursor.pause_after_break(broken, 0.1) for _ in range(8)]
    assert pauses == sorted(pauses)
    assert max(pauses) <= 10
    with pytest.raises(ServiceUnreachable):
        cursor.pause_after_break(broken, 0.1)


def test_an_event_forgives_earlier_breaks() -> None:
    cursor = EventCursor("exec-1", 0)
    for seq in range(1, 50):
        cursor.pause_after_break(None, 0.1)
        cursor.take(str(seq), "task_progress", envelope())


def test_a_stream_that_lasted_forgives_earlier_breaks() -> None:
    cursor = EventCursor("exec-1", 0)
    assert {cursor.pause_after_break(None, 3600.0) for _ in range(50)} == {0.1}


def test_an_error_that_will_not_go_away_is_raised_at_once() -> None:
    cursor = EventCursor("exec-1", 0)
    error = api_error(
        404, b'{"error": {"code": "execution_not_found", "message": "no", "details": {}}}'
    )
    with pytest.raises(type(error)):
        cursor.pause_after_break(error, 0.1)
