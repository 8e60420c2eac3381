"""What a filter gives subscribers of the same batch: where it can, one object for all of them."""

from __future__ import annotations

import pytest

from harmonia_actors.core.event_batches import EventBatch
from harmonia_serve.event_filters import Filter, execution_filter
from harmonia_serve.gateway import StreamEvent
from harmonia_serve.queries import ExecutionStreamQuery
from tests.unit.serve.event_log import next_event

STARTED, LOG = "task_started", "task_log"


def batch_of(*kinds: str) -> EventBatch[StreamEvent]:
    log: list[StreamEvent] = []
    for kind in kinds:
        log.append(next_event(log, "exec-1", kind, {"task_name": "a", "task_index": 0}))
    return EventBatch(log)


def wanted(**query: object) -> Filter:
    return execution_filter(ExecutionStreamQuery.model_validate(query))


@pytest.mark.parametrize(
    ("query", "kinds"),
    [
        ({}, [STARTED, STARTED]),
        ({"logs": True}, [STARTED, LOG]),
        ({"type": STARTED}, [STARTED, STARTED]),
        ({"task": "a", "logs": True}, [STARTED, LOG]),
    ],
)
def test_a_batch_that_is_wanted_whole_is_given_as_it_is(
    query: dict[str, object], kinds: list[str]
) -> None:
    """So that what is sent of it is made only once."""
    batch = batch_of(*kinds)
    assert wanted(**query).of(batch) is batch


def test_lines_are_left_out_once_for_all_who_have_not_asked_for_them() -> None:
    batch = batch_of(STARTED, LOG, STARTED)
    plain = [wanted().of(batch) for _ in range(2)]
    assert isinstance(plain[0], EventBatch)
    assert plain[0] is plain[1]
    assert [event.cursor for event in plain[0]] == ["1", "2"]
    assert wanted(logs=True).of(batch) is batch
    assert wanted().of(batch) is plain[0]


def test_a_batch_of_nothing_but_lines_is_nothing() -> None:
    batch = batch_of(LOG, LOG)
    assert not wanted().of(batch)
    assert wanted(type=LOG).of(batch) is batch
