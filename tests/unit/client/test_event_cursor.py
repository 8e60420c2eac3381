"""A subscriber's place in a stream: once, in order, and not for ever."""

from __future__ import annotations

import json

import pytest

from harmonia_serve.client import ApiError, ServiceUnreachable
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
    cursor = EventCursor("exec-1", 0)
    cursor.headers()
    cursor.take("1", "execution_started", envelope())
    with pytest.raises(ServiceUnreachable):
        cursor.take("3", "task_started", envelope())
    assert "after=1" in cursor.path


def test_log_lines_leave_no_gap_and_one_of_their_own_is_found() -> None:
    cursor = EventCursor("exec-1", 0, selection=Selection(logs=True))
    cursor.headers()
    for place in ("1", "1-1", "1-2", "2", "2-1"):
        assert cursor.take(place, "task_log", envelope()) is not None
    assert cursor.take("2-1", "task_log", envelope()) is None
    for gap in ("2-3", "4", "3-1"):
        with pytest.raises(ServiceUnreachable):
            cursor.take(gap, "task_log", envelope())
    assert "after=2-1" in cursor.path


@pytest.mark.parametrize("outcome", ["completed", "failed", "cancelled"])
def test_the_last_event_ends_the_stream(outcome: str) -> None:
    cursor = EventCursor("exec-1", 0)
    cursor.take("1", f"execution_{outcome}", envelope())
    assert cursor.ended


REFUSED = ServiceUnreachable("http://x", "refused", sent=False)
HANGS = ServiceUnreachable("http://x", "timed out", sent=True)


def borne(cursor: EventCursor, error: ServiceUnreachable | None, lasted_s: float) -> list[float]:
    """The pauses after tries that all fail alike, until the follower gives up."""
    pauses: list[float] = []
    while len(pauses) < 1_000:
        try:
            pauses.append(cursor.pause_after_break(error, lasted_s))
        except ServiceUnreachable:
            return pauses
    raise AssertionError("it never gives up")


def opened() -> EventCursor:
    """A follower whose stream has broken once."""
    cursor = EventCursor("exec-1", 0)
    cursor.note_open()
    cursor.take("1", "execution_started", envelope())
    cursor.pause_after_break(None, 0.1)
    return cursor


def test_a_follower_outlasts_a_restart_of_everything_with_growing_pauses() -> None:
    pauses = borne(opened(), REFUSED, 0.0)
    assert pauses == sorted(pauses)
    assert max(pauses) <= 5
    assert 120 <= sum(pauses) <= 130


def test_time_that_tries_take_counts_too() -> None:
    assert len(borne(opened(), HANGS, 5.0)) < 30
    assert len(borne(opened(), HANGS, 60.0)) == 1, "an answer that never comes is no good stream"


def test_a_place_where_nothing_ever_was_is_given_up_sooner() -> None:
    pauses = borne(EventCursor("exec-1", 0), REFUSED, 0.0)
    assert 30 <= sum(pauses) <= 40


def test_streams_that_close_at_once_are_given_up() -> None:
    cursor = opened()
    pauses = 0.0
    with pytest.raises(ServiceUnreachable, match="closes again and again"):
        for _ in range(1_000):
            cursor.note_open()
            pauses += cursor.pause_after_break(None, 0.1)
    assert pauses >= 120


def test_an_event_forgives_earlier_breaks() -> None:
    cursor = EventCursor("exec-1", 0)
    for seq in range(1, 50):
        cursor.pause_after_break(None, 0.1)
        cursor.take(str(seq), "task_progress", envelope())


def test_a_stream_that_lasted_forgives_earlier_breaks() -> None:
    cursor = opened()
    for error in [None, HANGS] * 50:
        cursor.note_open()
        assert cursor.pause_after_break(error, 3600.0) == 0.1


def test_an_error_that_will_not_go_away_is_raised_at_once() -> None:
    cursor = EventCursor("exec-1", 0)
    error = api_error(
        404, b'{"error": {"code": "execution_not_found", "message": "no", "details": {}}}'
    )
    with pytest.raises(type(error)):
        cursor.pause_after_break(error, 0.1)


@pytest.mark.parametrize("status", [404, 500, 502, 504])
def test_what_a_proxy_says_that_lost_the_service_does_not_end_the_stream(status: int) -> None:
    cursor = EventCursor("exec-1", 0)
    foreign = api_error(status, b"Path '/events/harmonia' not found. Ping http://x/-/routes")
    assert cursor.pause_after_break(foreign, 0.1) == 0.1


@pytest.mark.parametrize("status", [301, 400, 403, 413])
def test_other_answers_without_our_envelope_are_raised_at_once(status: int) -> None:
    with pytest.raises(ApiError):
        EventCursor("exec-1", 0).pause_after_break(api_error(status, b"<html>"), 0.1)
