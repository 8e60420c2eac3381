"""What is counted of streams: events that were sent, and how old they were."""

from __future__ import annotations

import time

from harmonia_actors.core.events import ExecutionStarted, encode_event
from harmonia_actors.core.requests import StreamEvent
from harmonia_actors.core.summary import SUMMARY_TYPE
from harmonia_actors.runtime.event_hub import parse_event
from harmonia_serve.observation import Observation

EXECUTION_ID = "exec-123e4567-e89b-12d3-a456-426614174000"


def event(seq: int, at_ms: int) -> StreamEvent:
    told = ExecutionStarted("wf", "timestamp_ms")
    return parse_event(seq, encode_event(told, seq=seq, at_ms=at_ms, execution_id=EXECUTION_ID))


def value(observation: Observation, series: str) -> float:
    lines = observation.render({}).decode().splitlines()
    (found,) = [line for line in lines if line.startswith(f"{series} ")]
    return float(found.split()[-1])


def test_only_events_that_happen_meanwhile_have_an_age() -> None:
    observation = Observation()
    before_ms = time.time_ns() // 1_000_000 - 60_000
    with observation.open_stream("sse") as notes:
        later_ms = time.time_ns() // 1_000_000 + 3_600_000
        notes.note_delivered([event(1, before_ms), event(2, before_ms)])
        # A clock that is ahead does not make ages negative.
        notes.note_delivered([event(3, before_ms), event(4, later_ms), event(5, later_ms)])
        told = StreamEvent(6, SUMMARY_TYPE, event(6, later_ms).body, 0, last=False)
        notes.note_delivered([told])
    assert value(observation, 'harmonia_events_delivered_total{surface="sse"}') == 6
    assert value(observation, 'harmonia_event_delivery_seconds_count{surface="sse"}') == 2
    assert value(observation, 'harmonia_event_delivery_seconds_sum{surface="sse"}') == 0


def test_the_age_is_in_seconds() -> None:
    observation = Observation()
    with observation.open_stream("sse") as notes:
        at_ms = time.time_ns() / 1e6
        notes.note_delivered([event(1, int(at_ms) + 1)])
        until_ms = time.time_ns() / 1e6
    age = value(observation, 'harmonia_event_delivery_seconds_sum{surface="sse"}')
    assert 0 <= age <= (until_ms - at_ms) / 1000


def test_dropped_streams_are_counted_by_reason() -> None:
    observation = Observation()
    for surface in ("sse", "websocket"):
        with observation.open_stream(surface) as notes:
            notes.note_dropped("slow_consumer")
    series = 'harmonia_streams_dropped_total{reason="slow_consumer",surface="%s"}'
    assert value(observation, series % "sse") == value(observation, series % "websocket") == 1
    assert value(observation, 'harmonia_streams_open{surface="sse"}') == 0
