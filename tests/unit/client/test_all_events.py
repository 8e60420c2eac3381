"""Both clients and the command line follow all executions of the real service."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from harmonia_actors.settings import Settings
from harmonia_serve.client import (
    AsyncHarmoniaClient,
    Event,
    HarmoniaClient,
    ValidationFailed,
    WorkflowNotFound,
)
from harmonia_serve.client.events import EventCursor, InstallationCursor, Selection
from tests.support.local_service import LocalService, local_service
from tests.unit.cli.conftest import Harmonia, harmonia
from tests.unit.client.test_client import cutting_proxy

__all__ = ["harmonia"]

TASKS = {
    name: {"component": "harmonia", "action": "echo", "input": {"value": name}} for name in "ab"
}
FAILS = {"f": {"component": "harmonia", "action": "fail", "input": {"message": "no"}}}
WRITES = {
    "w": {
        "component": "ergon",
        "action": "execute_command",
        "input": {"command": "echo [red]hello"},
    }
}


def ran(client: HarmoniaClient, tasks: Any = TASKS) -> tuple[str, str]:
    """The ids of an execution that has ended, and of its workflow."""
    execution = client.run({"name": "n", "tasks": tasks})
    document = execution.wait(timeout=30)
    return execution.id, document["workflow_id"]


def ids(events: list[Event]) -> list[tuple[str, int]]:
    return [(event["execution_id"], event["seq"]) for event in events]


def test_all_that_is_kept_is_what_each_execution_has(client: HarmoniaClient) -> None:
    mine = [ran(client)[0], ran(client, FAILS)[0]]
    found = list(client.events(after="0", follow=False))
    for execution_id in mine:
        own = [event for event in found if event["execution_id"] == execution_id]
        its = list(client.events(execution_id))
        assert [{**event, "cursor": own[n]["cursor"]} for n, event in enumerate(its)] == own
    cursors = [event["cursor"] for event in found]
    assert len(set(cursors)) == len(cursors)
    middle = len(found) // 2
    assert list(client.events(after=cursors[middle], follow=False)) == found[middle + 1 :]
    assert list(client.events(after=cursors[-1], follow=False)) == []


def test_filters_of_all_kinds(client: HarmoniaClient) -> None:
    execution_id, workflow_id = ran(client)
    failed, its_workflow = ran(client, FAILS)
    only: Any = {"after": "0", "follow": False, "workflow_id": workflow_id}
    ended = list(client.events(**only, types=["task_started", "execution_completed"], task=None))
    assert {event["type"] for event in ended} == {"task_started", "execution_completed"}
    assert {event["execution_id"] for event in ended} == {execution_id}
    tasks = {event["data"]["task_name"] for event in client.events(**only, task="a")}
    assert tasks == {"a"}
    found = client.events(after="0", follow=False, statuses=["failed"], workflow_id=its_workflow)
    assert {(event["execution_id"], event["type"]) for event in found} == {
        (failed, "task_failed"),
        (failed, "execution_failed"),
    }
    with pytest.raises(ValidationFailed, match="did you mean 'task_failed'"):
        next(client.events(types=["task_fail"]))
    with pytest.raises(WorkflowNotFound):
        next(client.events(workflow_id="wf-123e4567-e89b-12d3-a456-426614174999"))


def test_one_execution_filtered_comes_to_its_end(client: HarmoniaClient) -> None:
    execution_id, _ = ran(client)
    execution = client.execution(execution_id)
    assert {event["type"] for event in execution.events(types=["task_started"])} == {"task_started"}
    assert {event["data"]["task_name"] for event in execution.events(task="b")} == {"b"}
    assert list(execution.events(task="none")) == []
    ended = [event["type"] for event in execution.events(statuses=["completed"], task="b")]
    assert ended == ["task_completed"]


def test_what_does_not_fit_together_is_refused(client: HarmoniaClient) -> None:
    with pytest.raises(TypeError, match="leave out the execution"):
        next(client.events("exec-1", workflow_id="wf-1"))
    with pytest.raises(TypeError, match="until"):
        next(client.events(until=3))


def test_a_stream_that_breaks_is_resumed_after_the_last_event(
    service: LocalService, client: HarmoniaClient
) -> None:
    ran(client)
    whole = list(client.events(after="0", follow=False))
    with (
        cutting_proxy(service.url, bytes_each=[900, 1_200, 1_500]) as (url, connections),
        HarmoniaClient(url, service.api_key) as cut,
    ):
        assert list(cut.events(after="0", follow=False)) == whole
    assert len(connections) >= 4


async def test_the_async_client_follows_live(service: LocalService) -> None:
    async with AsyncHarmoniaClient(service.url, service.api_key) as client:
        before = [event async for event in client.events(after="0", follow=False)]
        execution = await client.run({"name": "n", "tasks": TASKS})
        seen: list[Event] = []
        async for event in client.events(after=before[-1]["cursor"]):
            seen.append(event)
            if event["type"] == "execution_completed":
                break
        own = [event async for event in execution.events(types=["execution_completed"])]
        assert [event["seq"] for event in own] == [seen[-1]["seq"]]
        assert ids(seen) == [(execution.id, seq) for seq in range(1, len(seen) + 1)]


def test_the_command_prints_what_is_kept(
    service: LocalService,
    client: HarmoniaClient,
    harmonia: Harmonia,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HARMONIA_URL", service.url)
    monkeypatch.setenv("HARMONIA_API_KEY", service.api_key)
    execution_id, workflow_id = ran(client)
    shown = harmonia("events", "--workflow", workflow_id, "--json")
    events = [json.loads(line) for line in shown.out.splitlines()]
    assert ids(events) == [(execution_id, seq) for seq in range(1, len(events) + 1)]
    some = harmonia(
        *("events", "--after", events[0]["cursor"], "--task", "a", "--workflow", workflow_id),
        *("--type", "task_started", "--type", "task_completed", "--status", "completed"),
    )
    assert some.code == 0
    (line,) = some.out.splitlines()
    assert execution_id in line
    assert "task_completed" in line


def test_log_lines_come_besides_what_a_status_stands_for(
    client: HarmoniaClient,
    service: LocalService,
    harmonia: Harmonia,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    execution_id, workflow_id = ran(client, WRITES)
    only: Any = {"after": "0", "follow": False, "workflow_id": workflow_id, "task": "w"}
    found = list(client.events(**only, statuses=["completed"], logs=True))
    assert [(event["type"], event["seq"], event.get("part")) for event in found] == [
        ("task_log", 2, 1),
        ("task_completed", 3, None),
    ]
    assert list(client.events(**only, statuses=["failed"], types=["task_log"])) == []
    monkeypatch.setenv("HARMONIA_URL", service.url)
    monkeypatch.setenv("HARMONIA_API_KEY", service.api_key)
    (line,) = harmonia("events", "--workflow", workflow_id, "--type", "task_log").out.splitlines()
    assert execution_id in line
    assert line.endswith("w | [red]hello")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--type", "task_complete"], "did you mean 'task_completed'"),
        (["--status", "nope"], "there is no status 'nope'"),
        (["--after", "xyz"], "after: must be a cursor"),
        (["--after", ""], "after: must be a cursor"),
        (["--after", "xyz", "--follow"], "after: must be a cursor"),
        (["--workflow", "wf-x"], "must be an ID like wf-"),
    ],
)
def test_unusable_arguments_of_the_command_are_said_to_be_that(
    service: LocalService,
    harmonia: Harmonia,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    says: str,
) -> None:
    monkeypatch.setenv("HARMONIA_URL", service.url)
    monkeypatch.setenv("HARMONIA_API_KEY", service.api_key)
    wrong = harmonia("events", *arguments)
    assert (wrong.code, wrong.out) == (2, "")
    assert says in wrong.err
    assert "Last-Event-ID" not in wrong.err


def test_what_is_not_there_is_no_unusable_argument(
    service: LocalService, harmonia: Harmonia, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HARMONIA_URL", service.url)
    monkeypatch.setenv("HARMONIA_API_KEY", service.api_key)
    missing = "wf-00000000-0000-4000-8000-000000000000"
    assert harmonia("events", "--workflow", missing).code == 1


async def test_where_to_begin_is_refused_by_the_name_that_it_has_here(
    service: LocalService, client: HarmoniaClient
) -> None:
    execution_id, _ = ran(client)
    for of, after in ((None, "xyz"), (execution_id, -1)):
        with pytest.raises(ValidationFailed, match="after") as caught:
            next(client.events(of, after=after))
        assert "Last-Event-ID" not in str(caught.value)
        async with AsyncHarmoniaClient(service.url, service.api_key) as asynchronous:
            with pytest.raises(ValidationFailed, match="after"):
                await anext(aiter(asynchronous.events(of, after=after)))


# A follower that is slow ------------------------------------------------------------------------

#: All of them together are more than the kernel takes for one connection.
WIDE = {
    f"t{number}": {
        "component": "harmonia",
        "action": "echo",
        "input": {"value": "${workflow.input.v}"},
    }
    for number in range(220)
}


@pytest.fixture(scope="module")
def impatient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[LocalService, str]]:
    """A service that soon cuts off who does not read, and an execution with large events."""
    settings = Settings(stream_send_timeout_s=1.0)
    with (
        local_service(tmp_path_factory.mktemp("impatient"), settings=settings) as found,
        HarmoniaClient(found.url, found.api_key) as client,
    ):
        execution = client.run({"name": "wide", "tasks": WIDE}, {"v": "x" * 60_000})
        assert execution.wait(timeout=60)["status"] == "completed"
        yield found, execution.id


def cut_off(service: LocalService) -> int:
    """How many followers of everything were cut off for being slow."""
    url = f"{service.url}/events/harmonia/metrics"
    text = httpx.get(url, headers={"X-API-Key": service.api_key}).text
    counted = 'dropped_total{reason="slow_consumer",surface="sse_installation"} '
    return sum(int(float(line.rpartition(" ")[2])) for line in text.splitlines() if counted in line)


def let_be_cut_off(service: LocalService, times: int) -> None:
    """Do something else than read, for as long as the service bears it."""
    deadline = time.monotonic() + 30
    while cut_off(service) < times:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_slow_follower_of_everything_is_cut_off_and_goes_on(
    impatient: tuple[LocalService, str],
) -> None:
    service, execution_id = impatient
    before, seen = cut_off(service), []
    with HarmoniaClient(service.url, service.api_key) as client:
        for event in client.events(after="0", follow=False):
            if not seen:
                let_be_cut_off(service, before + 1)
            seen.append((event["execution_id"], event["seq"]))
    assert seen == [(execution_id, seq) for seq in range(1, len(seen) + 1)]
    assert len(seen) == 2 * len(WIDE) + 2


async def test_so_does_a_slow_follower_of_the_async_client(
    impatient: tuple[LocalService, str],
) -> None:
    service, execution_id = impatient
    before, seen = cut_off(service), []
    async with AsyncHarmoniaClient(service.url, service.api_key) as client:
        async for event in client.events(after="0", follow=False):
            if not seen:
                await asyncio.to_thread(let_be_cut_off, service, before + 1)
            seen.append((event["execution_id"], event["seq"]))
    assert seen == [(execution_id, seq) for seq in range(1, len(seen) + 1)]
    assert len(seen) == 2 * len(WIDE) + 2


# The cursors alone -------------------------------------------------------------------------------


def test_a_cursor_of_all_asks_from_where_it_is_and_moves_without_events() -> None:
    cursor = InstallationCursor(None, Selection(types=["a", "b"], task="x y"), follow=True)
    assert cursor.path == "/events/harmonia/executions?type=a%2Cb&task=x+y"
    assert cursor.take("5-1", "message", "") is None
    assert cursor.path == "/events/harmonia/executions?type=a%2Cb&task=x+y&after=5-1"
    assert list(cursor.headers()) == ["Accept"], "a header would win over what the user wrote"
    assert cursor.take("", "message", "") is None
    body = json.dumps(
        {"seq": 0, "timestamp": "t", "execution_id": "", "data": {"reason": "trimmed"}}
    )
    gap = cursor.take("6-2", "gap", body)
    assert gap is not None
    assert (gap["type"], gap["seq"], gap.get("cursor")) == ("gap", 0, "6-2")
    assert cursor.take("6-2", "slow_consumer", '{"after":"6-2"}') is None
    assert (cursor.after, cursor.ended) == ("6-2", False)
    assert cursor.take("7-3", "end", "{}") is None
    assert cursor.ended


def test_a_farewell_to_a_slow_reader_is_no_event_of_an_execution() -> None:
    cursor = EventCursor("exec-1", 0)
    assert cursor.take("", "slow_consumer", '{"after":"0"}') is None
    assert cursor.take("1", "task_started", json.dumps({"timestamp": "t", "data": {}})) is not None
    assert cursor.take("1", "slow_consumer", '{"after":"1"}') is None
    assert (cursor.after, cursor.ended) == ("1", False)


def test_a_filtered_cursor_of_one_takes_jumps_and_positions() -> None:
    cursor = EventCursor("exec-1", 0, selection=Selection(task="a"))
    body = json.dumps({"timestamp": "t", "data": {}})
    for seq in (2, 9):
        event = cursor.take(str(seq), "task_started", body)
        assert event is not None
        assert event["seq"] == seq
    assert cursor.take("12", "message", "") is None
    assert cursor.after == "12"
