"""`?detail=summary` on both streams: what happens to the tasks, told by counts, not by events."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from httpx_sse import aconnect_sse
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from harmonia_actors.settings import Settings
from harmonia_serve.app import build_app
from harmonia_serve.summaries import summarised
from tests.support.scripted_actors import settle
from tests.unit.serve.conftest import Serve, Served
from tests.unit.serve.gateway import MemoryGateway

TASKS = 10_000
#: No summary comes because of the time that goes by: a test counts messages.
RARELY = Settings(stream_summary_interval_ms=3_600_000)
AT_ONCE = Settings(stream_summary_interval_ms=0)


@pytest.fixture
async def execution_id(gateway: MemoryGateway, execution_id: str) -> str:
    gateway.executions[execution_id]["progress"]["total_tasks"] = TASKS
    return execution_id


@pytest.fixture
async def served(gateway: MemoryGateway, serve: Serve) -> AsyncIterator[Served]:
    async with serve(build_app(gateway, RARELY)) as found:
        yield found


async def task(gateway: MemoryGateway, execution_id: str, kind: str, index: int) -> None:
    data: dict[str, Any] = {"task_name": f"t{index}", "task_index": index, "total_tasks": TASKS}
    if kind == "task_completed":
        # With what a summary must not trip over.
        data["output"] = {'"output":': "}", "x": 'y"output":'}
    await gateway.append(execution_id, kind, data)


async def half_of_it(gateway: MemoryGateway, execution_id: str) -> None:
    await gateway.append(execution_id, "execution_started", {})
    for index in range(TASKS // 2):
        await task(gateway, execution_id, "task_started", index)
        await task(gateway, execution_id, "task_completed", index)
    await task(gateway, execution_id, "task_started", TASKS - 1)


async def the_rest(gateway: MemoryGateway, execution_id: str) -> None:
    for index in range(TASKS // 2, TASKS - 1):
        await task(gateway, execution_id, "task_started", index)
        await task(gateway, execution_id, "task_completed", index)
    await task(gateway, execution_id, "task_completed", TASKS - 1)
    await gateway.append(execution_id, "execution_completed", {"output": {}})


def check_all(told: list[tuple[int, str, dict[str, Any]]]) -> None:
    """Those of a client that came in the middle, of 20,002 events."""
    assert [(seq, kind) for seq, kind, _ in told] == [
        (1, "execution_started"),
        (TASKS + 2, "execution_progress"),
        (2 * TASKS + 1, "execution_progress"),
        (2 * TASKS + 2, "execution_completed"),
    ]
    assert told[1][2] == {
        "status": "running",
        "progress": 0.5,
        "total_tasks": TASKS,
        "tasks": {
            "pending": TASKS // 2 - 1,
            "running": 1,
            "retrying": 0,
            "completed": TASKS // 2,
            "failed": 0,
            "skipped": 0,
            "cancelled": 0,
        },
        "running_tasks": [f"t{TASKS - 1}"],
        "failed_tasks": [],
    }
    assert told[2][2]["progress"] == 1.0
    assert told[2][2]["tasks"]["completed"] == TASKS


async def test_ten_thousand_tasks_cost_a_websocket_four_messages(
    served: Served, gateway: MemoryGateway, execution_id: str, key: str
) -> None:
    await half_of_it(gateway, execution_id)
    url = f"{served.ws}/ws/harmonia/executions/{execution_id}?detail=summary"
    messages = []
    async with connect(url, additional_headers={"X-API-Key": key}, proxy=None) as socket:
        messages += [json.loads(await socket.recv()) for _ in range(2)]
        await the_rest(gateway, execution_id)
        with pytest.raises(ConnectionClosed) as closed:
            while True:
                messages.append(json.loads(await socket.recv()))
    check_all([(m["seq"], m["type"], m["data"]) for m in messages])
    assert {m["execution_id"] for m in messages} == {execution_id}
    assert all(set(m) == set(messages[0]) for m in messages)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1000


async def test_ten_thousand_tasks_cost_an_event_source_four_messages(
    served: Served, gateway: MemoryGateway, execution_id: str, key: str
) -> None:
    await half_of_it(gateway, execution_id)
    url = f"{served.http}/events/harmonia/executions/{execution_id}?detail=summary"
    async with (
        httpx.AsyncClient(headers={"X-API-Key": key}, timeout=30) as client,
        aconnect_sse(client, "GET", url) as source,
    ):
        events = source.aiter_sse()
        told = [await anext(events), await anext(events)]
        await the_rest(gateway, execution_id)
        told += [event async for event in events]
    check_all([(int(event.id), event.event, event.json()) for event in told])


async def test_a_summary_resumes_and_says_when_nothing_is_left(
    served: Served, gateway: MemoryGateway, execution_id: str, key: str
) -> None:
    await half_of_it(gateway, execution_id)
    await the_rest(gateway, execution_id)
    url = f"{served.http}/events/harmonia/executions/{execution_id}?detail=summary"
    last = 2 * TASKS + 2
    async with httpx.AsyncClient(headers={"X-API-Key": key}, timeout=30) as client:
        told = {
            after: await client.get(url, headers={"Last-Event-ID": str(after)})
            for after in (1, last - 1, last, last + 5)
        }
    assert told[1].text.count("event: ") == 2
    assert told[last - 1].text.count("event: ") == 1
    assert [told[after].status_code for after in (last, last + 5)] == [204, 204]


async def test_each_change_is_told_if_the_time_allows_and_checkpoints_come_as_they_are(
    gateway: MemoryGateway, execution_id: str
) -> None:
    told = summarised(gateway, AT_ONCE, execution_id, after=0)
    await gateway.append(execution_id, "execution_started", {})
    assert [event.type for event in await next_told(told)] == ["execution_started"]
    for index in range(3):
        await task(gateway, execution_id, "task_started", index)
        (message,) = await next_told(told)
        assert json.loads(message.data)["tasks"]["running"] == index + 1
    await task(gateway, execution_id, "task_completed", 0)
    await gateway.append(execution_id, "checkpoint_created", {"name": "c"})
    got = [*await next_told(told)]
    while got[-1].type != "checkpoint_created":
        got += await next_told(told)
    assert [event.seq for event in got] == [5, 6]
    assert gateway.subscribers == 1
    await told.aclose()  # type: ignore[attr-defined]
    assert gateway.subscribers == 0


async def test_changes_that_come_one_by_one_are_told_no_more_often_than_is_set(
    gateway: MemoryGateway, execution_id: str
) -> None:
    told: list[Any] = []

    async def follow() -> None:
        async for batch in summarised(gateway, RARELY, execution_id, after=0):
            told.extend(batch)

    await gateway.append(execution_id, "execution_started", {})
    following = asyncio.ensure_future(follow())
    for index in range(30):
        await task(gateway, execution_id, "task_started", index)
        await settle(20)
    assert [event.type for event in told] == ["execution_started", "execution_progress"]
    await gateway.append(execution_id, "execution_failed", {"error": {"message": "no"}})
    async with asyncio.timeout(10):
        await following
    assert [event.type for event in told[2:]] == ["execution_progress", "execution_failed"]
    assert json.loads(told[2].data)["tasks"]["running"] == 30


async def next_told(told: AsyncIterator[Any]) -> Any:
    """The next batch that is not empty."""
    async with asyncio.timeout(10):
        while not (batch := await anext(told)):
            pass
        return batch


async def test_what_a_restored_execution_had_before_counts_as_completed(
    gateway: MemoryGateway, execution_id: str
) -> None:
    progress = gateway.executions[execution_id]["progress"]
    progress["completed_tasks"] = 4_000
    await gateway.append(execution_id, "execution_started", {})
    await task(gateway, execution_id, "task_started", 5_000)
    told = summarised(gateway, AT_ONCE, execution_id, after=0)
    got = [*await next_told(told)]
    while len(got) < 2:
        got += await next_told(told)
    counts = json.loads(got[1].data)["tasks"]
    assert (counts["completed"], counts["running"], counts["pending"]) == (4_000, 1, 5_999)
    await told.aclose()  # type: ignore[attr-defined]


@pytest.mark.parametrize("query", ["type=task_failed", "task=t1"])
async def test_a_summary_is_one_of_all_events(
    served: Served, execution_id: str, key: str, query: str
) -> None:
    path = f"/events/harmonia/executions/{execution_id}?detail=summary&{query}"
    async with httpx.AsyncClient(headers={"X-API-Key": key}) as client:
        answer = await client.get(served.http + path)
    assert answer.status_code == 422
    (error,) = answer.json()["error"]["details"]["errors"]
    assert error["field"] == "detail"
    assert "filter" in error["message"]


@pytest.mark.parametrize("surface", ["events", "ws"])
async def test_another_detail_is_refused_by_name(
    served: Served, execution_id: str, key: str, surface: str
) -> None:
    path = f"/{surface}/harmonia/executions/{execution_id}?detail=less"
    if surface == "events":
        async with httpx.AsyncClient(headers={"X-API-Key": key}) as client:
            answer = await client.get(served.http + path)
        assert answer.status_code == 422
        assert answer.json()["error"]["details"]["errors"][0]["field"] == "detail"
        return
    async with connect(
        served.ws + path, additional_headers={"X-API-Key": key}, proxy=None
    ) as socket:
        with pytest.raises(ConnectionClosed) as closed:
            await socket.recv()
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 4400
