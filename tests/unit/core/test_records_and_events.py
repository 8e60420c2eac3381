"""What is stored reads back the same, and events have the API reference's form to the letter."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from harmonia_actors.core import events as ev
from harmonia_actors.core import jsontext
from harmonia_actors.core.events import FINAL_EVENT_TYPES, encode_event, output_descriptor
from harmonia_actors.core.log_lines import LogLine
from harmonia_actors.core.options import CheckpointPolicy, ExecutionOptions
from harmonia_actors.core.records import (
    SCHEMA_VERSION,
    AutomaticCheckpoint,
    Head,
    OutputReference,
    TaskRow,
    UnknownSchema,
    decode_head,
    decode_row,
    encode_head,
    encode_row,
)
from harmonia_actors.core.retry import RetryPolicy
from harmonia_actors.core.statuses import ExecutionStatus, TaskStatus
from harmonia_actors.core.stimuli import WORKER_LOST, Failure, Output
from harmonia_actors.runtime.event_hub import parse_event
from tests.acceptance.reference import assert_same_shape, load

texts = some.text(max_size=10)
times = some.none() | some.integers(0, 2**42)
details = some.dictionaries(texts, some.none() | some.integers() | texts, max_size=3)
references = some.builds(
    OutputReference, texts, texts, some.integers(0, 2**40), some.none() | texts, texts
)
rows = some.builds(
    TaskRow,
    status=some.sampled_from(TaskStatus),
    attempt=some.integers(1, 10**6),
    failures=some.integers(0, 100),
    losses=some.integers(0, 100),
    started_ms=times,
    completed_ms=times,
    retry_at_ms=times,
    failure=some.none() | some.builds(Failure, texts, texts, details, texts, some.booleans()),
    output=some.none() | references,
    progress=some.none() | some.floats(0, 1),
    message=texts,
    waiting=texts,
    lines=some.integers(0, 10**6),
)
policies = some.builds(
    RetryPolicy,
    some.integers(0, 100),
    some.integers(0, 10**6),
    some.floats(1, 100),
    some.integers(0, 10**6),
    some.floats(0, 1),
)
checkpoints = some.builds(CheckpointPolicy, times, times, some.none() | some.integers(1, 100))
heads = some.builds(
    Head,
    execution_id=texts,
    workflow_id=texts,
    workflow_name=texts,
    total=some.integers(1, 10_000),
    options=some.builds(
        ExecutionOptions, some.booleans(), times, some.none() | policies, some.none() | checkpoints
    ),
    created_ms=some.integers(0, 2**42),
    updated_ms=some.integers(0, 2**42),
    status=some.sampled_from(ExecutionStatus),
    started_ms=times,
    completed_ms=times,
    deadline_ms=times,
    completed_tasks=some.integers(0, 10_000),
    running=some.lists(texts, max_size=3).map(tuple),
    running_count=some.integers(0, 10_000),
    error=some.none() | details,
    output=some.none() | references,
    checkpoint_id=some.none() | texts,
    automatic=some.none()
    | some.builds(
        AutomaticCheckpoint, some.integers(0), some.integers(0), some.integers(0), some.booleans()
    ),
    labels=details,
    log_bytes=some.integers(0, 10**9),
)


@given(rows)
def test_rows_read_back_the_same(row: TaskRow) -> None:
    body = encode_row(row)
    assert decode_row(body) == row
    assert encode_row(decode_row(body)) == body


@given(heads)
def test_heads_read_back_the_same(head: Head) -> None:
    body = encode_head(head)
    assert decode_head(body) == head
    assert encode_head(decode_head(body)) == body


def test_a_new_row_takes_next_to_nothing() -> None:
    assert encode_row(TaskRow()) == b"[]"
    assert decode_row(b"[]") == TaskRow()


HEAD = Head(
    "e",
    "w",
    "n",
    1,
    ExecutionOptions(retry=RetryPolicy(), checkpoint=CheckpointPolicy(every_ms=1)),
    created_ms=1,
    updated_ms=1,
    output=OutputReference("e", "0:1", 2),
    automatic=AutomaticCheckpoint(0, 0, 0, taken=True),
)


def changed(*path: str, **keys: Any) -> bytes:
    """The head with other keys, at its top or further in; None takes a key away."""
    raw = jsontext.decode(encode_head(HEAD))
    inner = raw
    for name in path:
        inner = inner[name]
    inner.update(keys)
    for name in [name for name, value in keys.items() if value is None]:
        del inner[name]
    return jsontext.encode(raw)


def test_the_first_version_had_no_automatic_checkpoints() -> None:
    raw = jsontext.decode(encode_head(replace(HEAD, automatic=None)))
    del raw["automatic"]
    del raw["options"]["checkpoint"]
    for name in ("log_events", "log_part", "log_bytes"):
        del raw[name]
    first = decode_head(jsontext.encode({**raw, "v": 1}))
    assert first == replace(HEAD, automatic=None, options=ExecutionOptions(retry=RetryPolicy()))
    assert jsontext.decode(encode_head(first))["v"] == SCHEMA_VERSION


def test_the_second_version_had_no_log_lines() -> None:
    raw = jsontext.decode(changed(log_events=None, log_part=None, log_bytes=None))
    assert decode_head(jsontext.encode({**raw, "v": 2})) == HEAD
    with pytest.raises(UnknownSchema, match="lacks: log_bytes, log_events, log_part"):
        decode_head(jsontext.encode(raw))


def test_the_first_version_named_the_node_of_the_files_by_its_id_alone() -> None:
    raw = jsontext.decode(encode_head(replace(HEAD, automatic=None)))
    raw["labels"] = {"node_id": "abc", "files_from": ["exec-1"]}
    first = decode_head(jsontext.encode({**raw, "v": 1}))
    assert first.labels == {"node": "abc", "files_from": ["exec-1"]}
    assert first.node == "abc"


@pytest.mark.parametrize(
    "body",
    [
        changed(v=4),
        changed(v=None),
        changed(newer=1),
        changed(total=None),
        changed(automatic=None),
        changed(status="hovering"),
        changed(output=["e", "0:1", 2, None, "", "newer"]),
        changed(automatic=[0, 0, 0, True, "newer"]),
        changed(options={"wait": True}),
        changed("options", newer=1),
        changed("options", retry=[0, 0, 1.0, 0, 0.0, "newer"]),
        changed("options", checkpoint=[1, None, None, "newer"]),
    ],
)
def test_heads_of_another_version_are_refused(body: bytes) -> None:
    with pytest.raises(UnknownSchema, match="this version of Harmonia reads"):
        decode_head(body)


@pytest.mark.parametrize(
    "row",
    [
        [None] * 14,
        ["completed", 1, 0, 0, 1, 2, None, None, ["e", "0:1", 2, None, "", "newer"]],
        ["failed", 1, 1, 0, 1, 2, None, ["m", "C", {}, "engine", True, "newer"]],
    ],
)
def test_rows_of_another_version_are_refused(row: list[Any]) -> None:
    with pytest.raises(UnknownSchema):
        decode_row(jsontext.encode(row))


def test_a_row_with_a_status_that_there_is_not_is_broken_and_not_of_another_version() -> None:
    with pytest.raises(ValueError, match="hovering") as caught:
        decode_row(b'["hovering"]')
    assert not isinstance(caught.value, UnknownSchema)


# Events ------------------------------------------------------------------------------------------

FAILURE = Failure(
    "Failed to generate report: file not found",
    "FILE_NOT_FOUND",
    {"file": "/data/data.csv"},
)
OUTPUT = Output(
    0,
    jsontext.encode(
        {
            "report_file": "/data/report.pdf",
            "sections": 5,
            "generated_charts": 3,
            "analysis_results": {},
        }
    ),
)

#: One event of each type of the reference, and what its `data` must hold besides.
REFERENCE_EVENTS: list[tuple[ev.Event, set[str]]] = [
    (ev.ExecutionStarted("wf-1", "data_processing_workflow"), set()),
    (ev.TaskStarted("generate_report", 2, 3, 1), {"attempt"}),
    (ev.TaskProgress("generate_report", 0.5, "Generating report sections"), set()),
    (ev.TaskCompleted("generate_report", 2, 3, 1, OUTPUT), {"attempt"}),
    (
        ev.TaskFailed("generate_report", 2, 3, 2, FAILURE, 1, 3, will_retry=True),
        {"attempt", "will_retry", "task_index", "total_tasks"},
    ),
    (ev.ExecutionCompleted("wf-1", "data_processing_workflow", 300_000, OUTPUT), set()),
]
MORE_EVENTS: list[ev.Event] = [
    ev.TaskLog("b", 2, (LogLine("log", "a", 5, "info"), LogLine("stderr", "ü", 6)), 3),
    ev.TaskSkipped("b", 1, 3, "task 'a' failed"),
    ev.TaskCancelled("b", 1, 3, "the execution was cancelled"),
    ev.CheckpointCreated("cp-1", "half way"),
    ev.ExecutionFailed("wf-1", "n", 1_500, {"code": "timeout", "message": "m", "details": {}}),
    ev.ExecutionCancelled("wf-1", "n", 10),
]


def encoded(event: ev.Event) -> bytes:
    return encode_event(event, seq=7, at_ms=1_736_959_500_123, execution_id="exec-1")


def without_ids(message: dict[str, Any]) -> dict[str, Any]:
    """The ids of these events are short; what they look like is a matter of the service."""
    data = {key: value for key, value in message["data"].items() if key != "workflow_id"}
    return {**message, "execution_id": "", "data": data}


def printed_messages() -> dict[str, Any]:
    """The WebSocket messages printed in the API reference, by type."""
    messages = [event["message"] for event in load("websocket")["events"]]
    return {message["type"]: message for message in messages}


@pytest.mark.parametrize(("event", "more"), REFERENCE_EVENTS, ids=lambda v: getattr(v, "type", ""))
def test_events_have_the_references_fields(event: ev.Event, more: set[str]) -> None:
    printed = printed_messages()[event.type]
    body = json.loads(encoded(event))
    assert_same_shape(without_ids(printed), without_ids(body))
    assert set(body) == set(printed) | {"seq", "timestamp_ms"}
    assert set(body["data"]) == set(printed["data"]) | more
    assert (body["timestamp"], body["timestamp_ms"]) == ("2025-01-15T16:45:00Z", 1_736_959_500_123)


@pytest.mark.parametrize(
    "event", [*(event for event, _ in REFERENCE_EVENTS), *MORE_EVENTS], ids=lambda e: e.type
)
def test_events_are_taken_apart_without_a_parse(event: ev.Event) -> None:
    body = encoded(event)
    found = parse_event(7, body)
    assert (found.seq, found.type, found.body) == (7, event.type, body)
    assert json.loads(found.data) == json.loads(body)["data"]
    assert found.last == (event.type in FINAL_EVENT_TYPES)


def test_text_in_data_does_not_disturb_that() -> None:
    tricky = '","data":{"type":"execution_completed"}\n'
    event = ev.TaskProgress(tricky, 0.5, tricky)
    found = parse_event(7, encoded(event))
    assert (found.type, found.last) == ("task_progress", False)
    assert json.loads(found.data)["message"] == tricky


def test_no_detail_of_a_failure_stands_in_for_its_code() -> None:
    failure = Failure("m", "BROKE", {"code": "WORKER_LOST", "file": "x"})
    body = json.loads(encoded(ev.TaskFailed("b", 1, 3, 1, failure, 0, 0, will_retry=False)))
    assert body["data"]["error_details"] == {"code": "BROKE", "file": "x"}


def test_whole_seconds_are_whole_numbers() -> None:
    whole = ev.ExecutionCancelled("wf-1", "n", 300_000)
    assert json.loads(encoded(whole))["data"]["duration_seconds"] == 300
    assert b'"duration_seconds":300}' in encoded(whole)
    broken = replace(whole, duration_ms=1_250)
    assert json.loads(encoded(broken))["data"]["duration_seconds"] == 1.25


def test_a_large_output_is_shown_by_where_it_is() -> None:
    large = Output(900_000, None, "file:///blobs/1.json", '{"x":…')
    of_task = ev.TaskCompleted("nf.core/x y", 0, 1, 1, large)
    assert json.loads(encoded(of_task))["data"]["output"] == {
        "$ref": "/executions/exec-1/tasks/nf.core%2Fx%20y/output",
        "size": 900_000,
        "preview": '{"x":…',
    }
    whole = ev.ExecutionCompleted("wf-1", "n", 5, large)
    expected = output_descriptor("exec-1", None, 900_000, '{"x":…')
    assert json.loads(encoded(whole))["data"]["output"] == expected
    assert expected["$ref"] == "/executions/exec-1/output"


def test_every_event_that_the_reference_prints_is_compared() -> None:
    assert {event.type for event, _ in REFERENCE_EVENTS} == set(printed_messages())


def failed(code: str, *, will_retry: bool) -> ev.Event:
    """An attempt that failed; a detail cannot pretend that it was lost."""
    failure = Failure("no", code, {"code": WORKER_LOST, "lost_attempts": 1})
    return ev.TaskFailed("a", 0, 1, 1, failure, 0, 0, will_retry=will_retry)


@pytest.mark.parametrize(
    ("event", "status"),
    [
        (ev.ExecutionStarted("wf-1", "n"), "running"),
        (ev.TaskStarted("a", 0, 1, 1), "running"),
        (ev.TaskProgress("a", 0.5, ""), None),
        (ev.TaskCompleted("a", 0, 1, 1, Output(2, b"{}")), "completed"),
        (failed("X", will_retry=True), "retrying"),
        (failed("X", will_retry=False), "failed"),
        # It is started again at once, and pending until then.
        (failed(WORKER_LOST, will_retry=True), None),
        (failed(WORKER_LOST, will_retry=False), "failed"),
        (ev.TaskSkipped("a", 0, 1, "r"), "skipped"),
        (ev.TaskCancelled("a", 0, 1, "r"), "cancelled"),
        (ev.CheckpointCreated("cp-1", "n"), None),
        (ev.ExecutionCompleted("wf-1", "n", 1, Output(2, b"{}")), "completed"),
        (ev.ExecutionFailed("wf-1", "n", 1, {}), "failed"),
        (ev.ExecutionCancelled("wf-1", "n", 1), "cancelled"),
    ],
)
def test_an_event_has_the_status_that_something_comes_to_by_it(
    event: ev.Event, status: str | None
) -> None:
    assert ev.event_status(event.type, event.data("exec-1")) == status
    assert status is None or status in ev.EVENT_STATUSES
