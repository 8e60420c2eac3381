"""Every event example of the API reference, and the events besides, as both streams send them.

WebSocket and SSE are read side by side, from before the end of the execution to their own end:
the same events with the same numbers, the history first and then what happens meanwhile.
"""

from __future__ import annotations

import contextlib
import copy
import re
from collections.abc import Iterator
from typing import Any

import pytest

from tests.acceptance.reference import ELIDED, assert_same_shape, load
from tests.support.data_server import DataServer, data_server
from tests.support.exercised import Exercised, counts, expected, whole_module_runs
from tests.support.running import RunningService
from tests.support.subscribing import by_sse, by_websocket, raw_sse, until_found

SEEN = Exercised()
WEBSOCKET, SSE = load("websocket"), load("sse")
DEFINITION = SEEN.operation("Create Workflow").request
ECHO = {"component": "harmonia", "action": "echo", "input": {"value": 1}}


@pytest.fixture
def data() -> Iterator[DataServer]:
    """At its end every gate opens, so that a test that fails holds no task for the next one."""
    with data_server() as server:
        yield server


class Watched:
    """Both streams of one execution, opened at once and read to their end."""

    def __init__(self, service: RunningService, execution_id: str) -> None:
        self._open = contextlib.ExitStack()
        path = f"/executions/{execution_id}"
        self._socket = self._open.enter_context(by_websocket(service, path))
        self._messages = iter(self._socket)
        self._blocks = self._open.enter_context(by_sse(service, execution_id))
        self.messages: list[dict[str, Any]] = []
        self.blocks: list[dict[str, Any]] = []

    def read_until(self, event_type: str, task_name: str | None = None) -> None:
        """Read both up to an event of this type, of this task if one is named."""

        def fits(kind: str, content: dict[str, Any]) -> bool:
            return kind == event_type and task_name in (None, content.get("task_name"))

        self.messages += until_found(self._messages, lambda m: fits(m["type"], m["data"]))
        self.blocks += until_found(self._blocks, lambda b: fits(b["event"], b["data"]))

    def read_to_the_end(self) -> list[dict[str, Any]]:
        """Read both until the service ends them; the messages, which both have sent."""
        with self._open:
            self.messages += self._messages
            self.blocks += self._blocks
        assert self._socket.code == 1000, self._socket.reason
        assert_numbered(self.messages, self.blocks)
        return self.messages


def assert_numbered(messages: list[dict[str, Any]], blocks: list[dict[str, Any]]) -> None:
    """Both streams have the same events, numbered from 1 without gap or repeat."""
    assert [message["seq"] for message in messages] == list(range(1, len(messages) + 1))
    assert [
        {"id": str(message["seq"]), "event": message["type"], "data": message["data"]}
        for message in messages
    ] == [{key: block[key] for key in ("id", "event", "data")} for block in blocks]


def watched_again(service: RunningService, execution_id: str) -> list[dict[str, Any]]:
    """What both streams send once all is history."""
    return Watched(service, execution_id).read_to_the_end()


def hold_against_examples(messages: list[dict[str, Any]], blocks: list[dict[str, Any]]) -> None:
    """Each event whose type the reference prints has the printed shape, on both streams."""
    for event in WEBSOCKET["events"]:
        for message in messages:
            assert_same_shape(WEBSOCKET["message_format"], message, "the envelope")
            if message["type"] == event["message"]["type"]:
                printed = meant_for(event["message"], message["data"])
                SEEN.event(WEBSOCKET["section"], printed, message, event["name"])
    for event in SSE["events"]:
        for block in blocks:
            if block["event"] == event["event"]:
                SEEN.event(SSE["section"], event["data"], block["data"], event["event"])


def meant_for(printed: dict[str, Any], content: dict[str, Any]) -> dict[str, Any]:
    """The printed message; its output is only that of the task that it names."""
    named = printed["data"].get("task_name")
    if "output" not in printed["data"] or content.get("task_name") == named:
        return printed
    return {**printed, "data": {**printed["data"], "output": ELIDED}}


def types(messages: list[dict[str, Any]], task: str | None = None) -> list[str]:
    """The types in order, of one task's events if it is named; progress left out."""
    return [
        message["type"]
        for message in messages
        if message["type"] != "task_progress"
        and (task is None or message["data"].get("task_name") == task)
    ]


def of_type(messages: list[dict[str, Any]], event_type: str) -> list[dict[str, Any]]:
    return [message["data"] for message in messages if message["type"] == event_type]


def test_the_references_workflow_sends_the_printed_events(
    service: RunningService, data: DataServer
) -> None:
    definition = copy.deepcopy(DEFINITION)
    # The printed output of the execution, which the printed definition does not map.
    definition["output"] = {
        "report_file": "${tasks.generate_report.output.report_file}",
        "analysis_results": "${tasks.process_data.output.results}",
    }
    workflow_id = service.create(**definition)
    # The data comes when both streams are open: what they see from there on is live.
    values = {
        "data_url": data.held_url("report"),
        "output_file": "penguins.csv",
        "analysis_type": "comprehensive",
    }
    execution_id = service.start(workflow_id, values)
    watched = Watched(service, execution_id)
    watched.read_until("task_started", "fetch_data")
    data.open("report")
    messages = watched.read_to_the_end()
    hold_against_examples(messages, watched.blocks)
    assert watched_again(service, execution_id) == messages

    assert types(messages) == [
        "execution_started",
        *["task_started", "task_completed"] * 3,
        "execution_completed",
    ]
    assert {message["execution_id"] for message in messages} == {execution_id}
    ours = {"workflow_id": workflow_id, "workflow_name": definition["name"]}
    assert messages[0]["data"] == ours
    ended = messages[-1]["data"]
    assert ended == {**ended, **ours, "output": service.status(execution_id)["output"]}
    started = of_type(messages, "task_started")
    assert [(task["task_name"], task["task_index"]) for task in started] == [
        (name, index) for index, name in enumerate(DEFINITION["tasks"])
    ]
    progress = [
        each
        for each in of_type(messages, "task_progress")
        if each["task_name"] == "generate_report"
    ]
    assert progress
    assert all(0 <= each["progress"] <= 1 and each["message"] for each in progress)


def test_sse_blocks_have_the_printed_form(service: RunningService) -> None:
    task = {"component": "testing", "action": "progress_steps"}
    steps = {**task, "input": {"steps": 2, "pause_seconds": 0.3}}
    execution_id = str(
        service.run({"a": steps, "b": {**ECHO, "depends_on": ["a"]}})["execution_id"]
    )
    blocks = raw_sse(service, execution_id)
    assert blocks[0].pop("retry").isdecimal()
    assert all(list(block) == ["id", "event", "data"] for block in blocks)
    assert [block["id"] for block in blocks] == [str(seq) for seq in range(1, len(blocks) + 1)]
    assert {event["event"] for event in SSE["events"]} <= {block["event"] for block in blocks}
    # In the middle, after Last-Event-ID or `after`, both go on with the next one.
    third = [(block["id"], block["event"]) for block in blocks[2:]]
    for query, headers in (("?after=2", {}), ("", {"Last-Event-ID": "2"})):
        with by_sse(service, execution_id, query, **headers) as rest:
            assert [(block["id"], block["event"]) for block in rest] == third
    with by_websocket(service, f"/executions/{execution_id}", query="?after=2") as socket:
        assert [(str(each["seq"]), each["type"]) for each in socket] == third


def test_a_failure_is_told_for_each_attempt_and_for_what_can_no_longer_run(
    service: RunningService, data: DataServer
) -> None:
    tasks: dict[str, Any] = copy.deepcopy(DEFINITION["tasks"])
    tasks["fetch_data"] = data.held("failure")
    workflow_id = service.create(tasks, input_schema=DEFINITION["input_schema"])
    values = {"data_url": data.data_url, "output_file": "not-fetched.csv"}
    policy = {"max_retries": 1, "retry_interval": 0.1}
    execution_id = service.start(workflow_id, values, retry_policy=policy)
    watched = Watched(service, execution_id)
    watched.read_until("task_started", "fetch_data")
    data.open("failure")
    messages = watched.read_to_the_end()
    hold_against_examples(messages, watched.blocks)
    assert watched_again(service, execution_id) == messages

    assert types(messages, "process_data") == ["task_started", "task_failed"] * 2
    failed = of_type(messages, "task_failed")
    file = "not-fetched.csv"
    assert all(each["error_details"]["code"] == "FILE_NOT_FOUND" for each in failed)
    assert all(each["error_details"]["file"].endswith(file) for each in failed)
    assert [(each["retry_count"], each["max_retries"]) for each in failed] == [(0, 1), (1, 1)]
    assert [each["will_retry"] for each in failed] == [True, False]
    (skipped,) = of_type(messages, "task_skipped")
    assert skipped["reason"]
    assert skipped == {
        "task_name": "generate_report",
        "task_index": 2,
        "total_tasks": 3,
        "reason": skipped["reason"],
    }
    status = service.status(execution_id)
    assert status["task_status"]["generate_report"]["status"] == "skipped"
    assert messages[-1]["type"] == "execution_failed"
    ended = messages[-1]["data"]
    assert ended["workflow_id"] == workflow_id
    assert ended["error"] == status["error"]
    assert ended["error"]["task"] == "process_data"


def test_a_cancel_is_told_for_each_task_and_for_the_execution(
    service: RunningService, data: DataServer
) -> None:
    tasks = {
        "done": ECHO,
        "held": {**data.held("cancel"), "depends_on": ["done"]},
        "after": {**ECHO, "depends_on": ["held"]},
    }
    workflow_id = service.create(tasks)
    execution_id = service.start(workflow_id)
    watched = Watched(service, execution_id)
    watched.read_until("task_started", "held")
    answer = service.api.post(f"/executions/{execution_id}/cancel")
    assert answer.status_code == 200
    messages = watched.read_to_the_end()
    assert watched_again(service, execution_id) == messages

    assert types(messages, "done") == ["task_started", "task_completed"]
    assert types(messages, "held") == ["task_started", "task_cancelled"]
    assert types(messages, "after") == ["task_cancelled"]
    cancelled = of_type(messages, "task_cancelled")
    assert {(each["task_name"], each["task_index"]) for each in cancelled} == {
        ("held", 1),
        ("after", 2),
    }
    assert all(each["total_tasks"] == 3 and each["reason"] for each in cancelled)
    assert messages[-1]["type"] == "execution_cancelled"
    ended = messages[-1]["data"]
    assert ended["workflow_id"] == workflow_id
    assert ended["duration_seconds"] >= 0
    status = service.status(execution_id)
    assert status["status"] == "cancelled"
    assert {name: task["status"] for name, task in status["task_status"].items()} == {
        "done": "completed",
        "held": "cancelled",
        "after": "cancelled",
    }


def test_a_checkpoint_is_told_while_the_execution_runs(
    service: RunningService, data: DataServer
) -> None:
    tasks = {"done": ECHO, "held": {**data.held("checkpoint"), "depends_on": ["done"]}}
    execution_id = service.start(service.create(tasks))
    watched = Watched(service, execution_id)
    watched.read_until("task_started", "held")
    body = SEEN.request("Create Checkpoint", execution_id=execution_id)
    checkpoint = service.api.post("/state/checkpoints", json=body).json()
    watched.read_until("checkpoint_created")
    restored = service.api.post(
        "/state/restore", json={"checkpoint_id": checkpoint["checkpoint_id"]}
    ).json()["execution_id"]
    data.open("checkpoint")
    messages = watched.read_to_the_end()
    assert watched_again(service, execution_id) == messages
    (told,) = of_type(messages, "checkpoint_created")
    assert told == {"checkpoint_id": checkpoint["checkpoint_id"], "name": body["name"]}
    assert types(messages)[-3:] == ["checkpoint_created", "task_completed", "execution_completed"]
    # A restored execution has a log of its own: what was reused does not run again.
    again = watched_again(service, restored)
    assert types(again, "done") == []
    assert types(again) == [
        *("execution_started", "task_started", "task_completed", "execution_completed")
    ]


def test_timestamps_are_those_of_the_status(service: RunningService) -> None:
    done = service.run({f"t{number}": ECHO for number in range(20)})
    messages = watched_again(service, str(done["execution_id"]))
    shown: dict[tuple[str, str], tuple[int, str]] = {}
    for message in messages:
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", message["timestamp"])
        place = (message["type"], message["data"].get("task_name", ""))
        shown[place] = (message["timestamp_ms"], message["timestamp"])
    for name, task in done["task_status"].items():
        assert shown["task_started", name] == (task["started_ms"], task["started_at"])
        assert shown["task_completed", name] == (task["completed_ms"], task["completed_at"])
    times = [time_ms for time_ms, _ in shown.values()]
    assert min(times) == shown["execution_started", ""][0] == done["started_ms"]
    assert shown["execution_completed", ""][0] == done["completed_ms"]
    # Each process sets its clock by the store's, to within a round trip.
    assert 0 <= max(times) - done["completed_ms"] <= 100


def test_no_event_of_the_reference_was_left_out(request: pytest.FixtureRequest) -> None:
    if not whole_module_runs(request):
        pytest.skip("only a part of this module runs")
    marks = {mark for mark in SEEN.marks if mark[1] == "event"}
    assert marks == expected("event")
    assert counts(marks) == {
        ("WebSocket API", "event"): 6,
        ("Server-Sent Events API", "event"): 3,
    }
