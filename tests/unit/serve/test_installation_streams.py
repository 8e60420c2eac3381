"""The streams of the whole installation, and filters, over a real server and the real service."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from httpx_sse import ServerSentEvent, aconnect_sse
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from harmonia_actors.runtime.service.keys import make_first_key
from harmonia_actors.settings import Settings
from harmonia_serve.app import build_app
from persistence.memory_store import MemoryStore
from tests.support.local import LocalInstallation
from tests.support.many_logs import ManyLogs
from tests.unit.serve.conftest import eventually, serve_app

WF_1 = "wf-123e4567-e89b-12d3-a456-426614174001"
WF_2 = "wf-123e4567-e89b-12d3-a456-426614174002"
EXEC_1 = "exec-123e4567-e89b-12d3-a456-426614174001"
EXEC_2 = "exec-123e4567-e89b-12d3-a456-426614174002"
QUICK = Settings(
    stream_heartbeat_s=0.05,
    stream_key_check_s=0.05,
    stream_send_timeout_s=0.3,
    streams_per_replica_max=3,
)


@dataclass
class World:
    """The service behind a server; `logs` commits what the test wants to have happened."""

    host: str
    key: str
    logs: ManyLogs
    installation: LocalInstallation
    app: Any

    @asynccontextmanager
    async def sse(
        self, path: str = "", **headers: str
    ) -> AsyncIterator[tuple[httpx.Response, AsyncIterator[ServerSentEvent]]]:
        url = f"http://{self.host}/events/harmonia/executions{path}"
        async with (
            httpx.AsyncClient(headers={"X-API-Key": self.key, **headers}, timeout=10) as client,
            aconnect_sse(client, "GET", url) as source,
        ):
            yield source.response, source.aiter_sse()

    async def get(self, path: str = "", **headers: str) -> httpx.Response:
        url = f"http://{self.host}/events/harmonia/executions{path}"
        async with httpx.AsyncClient(
            headers={"X-API-Key": self.key, **headers}, timeout=10
        ) as client:
            return await client.get(url)

    @asynccontextmanager
    async def websocket(self, path: str = "", **options: Any) -> AsyncIterator[ClientConnection]:
        url = f"ws://{self.host}/ws/harmonia/executions{path}"
        async with connect(
            url, additional_headers={"X-API-Key": self.key}, proxy=None, **options
        ) as connection:
            yield connection

    @property
    def open(self) -> int:
        return int(self.app.state.context.slots.open)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with serving(tmp_path, QUICK) as found:
        yield found


@asynccontextmanager
async def serving(
    tmp_path: Path, settings: Settings, *, log_entries_max: int = 1_000
) -> AsyncIterator[World]:
    store = MemoryStore(log_entries_max=log_entries_max)
    key = await make_first_key(store, 1)
    assert key is not None
    async with LocalInstallation(store, tmp_path, owners=0) as installation:
        app = build_app(installation.gateway, settings)
        async with serve_app(app) as served:
            logs = ManyLogs(store)
            await logs.create(EXEC_1, WF_1)
            await logs.create(EXEC_2, WF_2)
            yield World(served.host, key, logs, installation, app)


async def take(events: AsyncIterator[ServerSentEvent], count: int) -> list[ServerSentEvent]:
    """The next real events: ids alone are no events."""
    found: list[ServerSentEvent] = []
    async with asyncio.timeout(10):
        while len(found) < count:
            event = await anext(events)
            if event.data:
                found.append(event)
    return found


def parsed(answer: httpx.Response) -> list[dict[str, Any]]:
    """Envelopes of an answer that has ended."""
    return [
        json.loads(line.removeprefix("data: "))
        for line in answer.text.splitlines()
        if line.startswith("data: ")
    ]


def ids(envelopes: Sequence[dict[str, Any]]) -> list[tuple[str, int]]:
    return [(one["execution_id"], one["seq"]) for one in envelopes if one["seq"]]


async def messages(socket: ClientConnection, count: int) -> list[dict[str, Any]]:
    found = []
    async with asyncio.timeout(10):
        while len(found) < count:
            message = json.loads(await socket.recv())
            if message["type"] != "cursor":
                found.append(message)
    return found


# Server-Sent Events ------------------------------------------------------------------------------


async def test_history_then_live_events_of_all_in_the_order_of_commits(world: World) -> None:
    await world.logs.commit(EXEC_1, 2)
    await world.logs.commit(EXEC_2)
    async with world.sse("?after=0") as (response, events):
        found = await take(events, 3)
        await world.logs.commit(EXEC_1)
        found += await take(events, 1)
    assert response.headers["content-type"].startswith("text/event-stream")
    envelopes = [event.json() for event in found]
    assert ids(envelopes) == [(EXEC_1, 1), (EXEC_1, 2), (EXEC_2, 1), (EXEC_1, 3)]
    assert [event.id for event in found] == [one["cursor"] for one in envelopes]
    assert [event.event for event in found] == [one["type"] for one in envelopes]
    assert list(envelopes[0]) == [
        *("cursor", "seq", "type", "timestamp", "timestamp_ms", "execution_id", "data"),
    ]
    await eventually(lambda: world.open == 0)


async def test_without_a_cursor_it_begins_now_and_says_where_that_is(world: World) -> None:
    await world.logs.commit(EXEC_1, 2)
    async with world.sse() as (_, events):
        first = await anext(events)
        await world.logs.commit(EXEC_2)
        (event,) = await take(events, 1)
    assert (first.data, first.id.endswith("-1")) == ("", True)
    assert ids([event.json()]) == [(EXEC_2, 1)]


async def test_it_resumes_after_any_event_also_within_a_commit(world: World) -> None:
    await world.logs.commit(EXEC_1, 3)
    await world.logs.commit(EXEC_2, 2)
    whole = parsed(await world.get("?after=0&follow=false"))[:-1]
    assert len(whole) == 5
    for at, envelope in enumerate(whole):
        answer = await world.get(f"?after={envelope['cursor']}&follow=false")
        assert ids(parsed(answer)) == ids(whole[at + 1 :])
    answer = await world.get("?after=0&follow=false", **{"Last-Event-ID": whole[3]["cursor"]})
    assert ids(parsed(answer)) == ids(whole[4:]), "the header wins"


async def test_without_follow_it_ends_and_says_so_and_there_is_nothing_after_that(
    world: World,
) -> None:
    await world.logs.commit(EXEC_1, 2)
    found = parsed(await world.get("?after=0&follow=false"))
    assert [one["type"] for one in found][-1] == "end"
    assert len(found) == 3
    answer = await world.get(f"?follow=false&after={found[-1]['cursor']}")
    assert answer.status_code == 204
    assert (await world.get("?follow=false")).status_code == 204


@pytest.mark.parametrize(
    ("query", "seqs"),
    [
        ("type=task_started", [(EXEC_1, 1), (EXEC_2, 1), (EXEC_1, 4)]),
        ("type=task_started,task_failed&task=b", [(EXEC_1, 2), (EXEC_1, 4)]),
        (f"workflow_id={WF_2}", [(EXEC_2, 1)]),
        ("status=failed", [(EXEC_1, 2)]),
        ("status=retrying", [(EXEC_1, 5)]),
        ("status=cancelled,retrying", [(EXEC_1, 5), (EXEC_1, 6)]),
        ("task=no such task", []),
    ],
)
async def test_filters(world: World, query: str, seqs: list[tuple[str, int]]) -> None:
    await world.logs.commit(EXEC_1, 2)
    await world.logs.commit(EXEC_2, 1)
    await world.logs.commit(EXEC_1, 3, last=True)
    answer = await world.get(f"?after=0&follow=false&{query}")
    assert ids(parsed(answer)) == seqs


async def test_the_cursor_goes_on_while_all_events_are_filtered_out(world: World) -> None:
    async with world.sse("?type=execution_failed") as (_, events):
        first = await anext(events)
        assert first.retry is not None, "it may be cut before any event"
        await world.logs.commit(EXEC_1, 5)
        later = await anext(events)
    assert (first.data, later.data) == ("", "")
    assert later.id == (await last_cursor(world))
    assert first.id != later.id


async def last_cursor(world: World) -> str:
    return str(parsed(await world.get("?after=0&follow=false"))[-1]["cursor"])


@pytest.mark.parametrize(
    ("query", "field", "says"),
    [
        ("type=task_complete", "type", "did you mean 'task_completed'"),
        ("type=task_started,zzz", "type", "there are: execution_started, "),
        ("type=", "type", "there are: "),
        ("status=complete", "status", "did you mean 'completed'"),
        ("status=pending", "status", "there is no status 'pending'"),
        ("workflow_id=wf-1", "workflow_id", "must be an ID like wf-"),
        ("after=yesterday", "after", "a cursor that this stream has sent"),
        ("after=12", "after", "a cursor that this stream has sent"),
        ("after=1-1.0", "after", "a cursor that this stream has sent"),
        ("tpye=task_started", "tpye", "did you mean 'type'"),
        ("type=task_started&type=task_failed", "type", "more than once"),
        (f"task={'x' * 1_001}", "task", "1000"),
        ("follow=perhaps", "follow", "boolean"),
    ],
)
async def test_a_bad_filter_is_a_clear_422(world: World, query: str, field: str, says: str) -> None:
    answer = await world.get(f"?{query}")
    assert answer.status_code == 422
    (problem,) = answer.json()["error"]["details"]["errors"]
    assert problem["field"] == field
    assert says in problem["message"]


async def test_a_bad_last_event_id_names_the_header(world: World) -> None:
    answer = await world.get(**{"Last-Event-ID": "x" * 300})
    assert (answer.status_code, "Last-Event-ID" in answer.text) == (422, True)


async def test_an_unknown_workflow_is_a_404_but_not_one_that_only_has_executions(
    world: World,
) -> None:
    unknown = "wf-123e4567-e89b-12d3-a456-426614174999"
    answer = await world.get(f"?workflow_id={unknown}")
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "workflow_not_found"
    # No workflow was ever stored here under the id that the execution has.
    await world.logs.commit(EXEC_1)
    answer = await world.get(f"?workflow_id={WF_1}&after=0&follow=false")
    assert ids(parsed(answer)) == [(EXEC_1, 1)]


async def test_trimmed_history_is_a_gap_whatever_is_filtered(tmp_path: Path) -> None:
    async with serving(tmp_path, QUICK, log_entries_max=2) as world:
        for _ in range(5):
            await world.logs.commit(EXEC_1)
        gap, *rest = parsed(await world.get("?after=0&follow=false&task=a"))
        assert (gap["type"], gap["data"]) == ("gap", {"reason": "trimmed", "commits": 3})
        assert (gap["seq"], gap["execution_id"]) == (0, "")
        assert ids(rest) == [(EXEC_1, 5)]
        again = parsed(await world.get(f"?after={gap['cursor']}&follow=false"))
        assert ids(again) == [(EXEC_1, 4), (EXEC_1, 5)]
        assert all(one["type"] != "gap" for one in again), "it is said once"


async def test_what_has_expired_is_a_gap_that_names_it(world: World) -> None:
    await world.logs.commit(EXEC_1)
    await world.logs.commit(EXEC_2, 2)
    await world.logs.commit(EXEC_1, last=True)
    await world.logs.expire()
    found = parsed(await world.get("?after=0&follow=false"))
    assert [one["type"] for one in found] == ["gap", *["task_started", "task_failed"], "gap", "end"]
    expired = {"reason": "expired", "executions": [EXEC_1], "executions_total": 1}
    assert found[0]["data"] == {**expired, "events": 1}
    assert found[3]["data"] == {**expired, "events": 2}


async def test_a_cursor_that_the_log_never_had_is_a_gap_and_it_goes_on_from_now(
    world: World,
) -> None:
    await world.logs.commit(EXEC_1)
    async with world.sse("?after=999999999999999-7") as (_, events):
        (gap,) = await take(events, 1)
        await world.logs.commit(EXEC_2)
        (event,) = await take(events, 1)
    assert gap.json()["data"]["reason"] == "unknown_cursor"
    assert ids([event.json()]) == [(EXEC_2, 1)]


async def test_the_execution_stream_is_filtered_and_still_ends_for_good(world: World) -> None:
    await world.logs.commit(EXEC_1, 6, last=True)
    answer = await world.get(f"/{EXEC_1}?type=task_failed&envelope=true")
    assert ids(parsed(answer)) == [(EXEC_1, 2), (EXEC_1, 5)]
    assert "\nid: 7\n\n" in answer.text, "an EventSource comes again after the last event"
    answer = await world.get(f"/{EXEC_1}?type=task_failed", **{"Last-Event-ID": "7"})
    assert answer.status_code == 204
    assert (await world.get(f"/{EXEC_1}?type=task_fail")).status_code == 422


@pytest.mark.parametrize("name", ["after", "until"])
async def test_a_number_that_the_store_cannot_count_to_is_no_event(world: World, name: str) -> None:
    await world.logs.commit(EXEC_1, 3, last=True)
    largest = await world.get(f"/{EXEC_1}?{name}={2**53 - 1}")
    assert largest.status_code == (204 if name == "after" else 200)
    for number in (2**53, 10**16 - 1):
        answer = await world.get(f"/{EXEC_1}?{name}={number}")
        assert answer.status_code == 422
        (problem,) = answer.json()["error"]["details"]["errors"]
        assert problem["field"] == name
        async with world.websocket(f"/{EXEC_1}?{name}={number}") as socket:
            with pytest.raises(ConnectionClosed) as closed:
                await messages(socket, 1)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 4400
    answer = await world.get(f"/{EXEC_1}", **{"Last-Event-ID": str(2**53)})
    assert (answer.status_code, "Last-Event-ID" in answer.text) == (422, True)


async def test_the_execution_stream_is_filtered_by_status_as_that_of_all(world: World) -> None:
    await world.logs.commit(EXEC_1, 6, last=True)
    answer = await world.get(f"/{EXEC_1}?status=retrying,cancelled&envelope=true")
    assert ids(parsed(answer)) == [(EXEC_1, 5), (EXEC_1, 7)]
    answer = await world.get(f"/{EXEC_1}?status=retrying&after=2&envelope=true")
    assert ids(parsed(answer)) == [(EXEC_1, 5)]
    async with world.websocket(f"/{EXEC_1}?status=failed") as socket:
        assert ids(await messages(socket, 1)) == [(EXEC_1, 2)]
    answer = await world.get(f"/{EXEC_1}?status=complete")
    (problem,) = answer.json()["error"]["details"]["errors"]
    assert (answer.status_code, problem["field"]) == (422, "status")
    assert "did you mean 'completed'" in problem["message"]
    assert (await world.get(f"/{EXEC_1}?status=failed&detail=summary")).status_code == 422


async def test_an_execution_that_expires_while_it_is_read_does_not_end_in_good_order(
    tmp_path: Path,
) -> None:
    """A history longer than what a connection holds: the client must not take it for whole."""
    async with serving(tmp_path, Settings()) as world:
        await world.logs.commit(EXEC_1, 99, last=True, size=300_000)
        async with (
            world.websocket(f"/{EXEC_1}", max_queue=1, compression=None) as socket,
            world.sse(f"/{EXEC_1}") as (_, events),
        ):
            await eventually(lambda: "websocket" in counted(world) and "sse" in counted(world))
            await world.logs.expire()
            seqs: list[int] = []
            with pytest.raises(ConnectionClosed) as closed:
                while True:
                    seqs += [one["seq"] for one in await messages(socket, 1)]
            ids = [event.id async for event in events if event.data]
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 4404
        for found in (seqs, [int(one) for one in ids]):
            assert found == list(range(1, len(found) + 1))
            assert len(found) < 100
        assert (await world.get(f"/{EXEC_1}?after={ids[-1]}")).status_code == 404
        text = world.app.state.context.observation.render({}).decode()
    for surface in ("websocket", "sse"):
        labels = f'reason="execution_not_found",surface="{surface}"'
        assert f"harmonia_streams_dropped_total{{{labels}}} 1.0" in text


def counted(world: World) -> set[str]:
    """The kinds of stream that have delivered something."""
    text = world.app.state.context.observation.render({}).decode()
    return set(
        re.findall(r'^harmonia_events_delivered_total\{surface="(\w+)"\} [1-9]', text, re.MULTILINE)
    )


# WebSocket ---------------------------------------------------------------------------------------


async def test_a_websocket_brings_the_same_and_is_resumed_by_the_cursor(world: World) -> None:
    await world.logs.commit(EXEC_1, 2)
    async with world.websocket("?after=0") as socket:
        found = await messages(socket, 2)
        await world.logs.commit(EXEC_2)
        found += await messages(socket, 1)
    assert ids(found) == [(EXEC_1, 1), (EXEC_1, 2), (EXEC_2, 1)]
    assert found == parsed(await world.get("?after=0&follow=false"))[:-1]
    async with world.websocket(f"?after={found[0]['cursor']}&task=b") as socket:
        assert ids(await messages(socket, 1)) == [(EXEC_1, 2)]


async def test_a_websocket_says_where_it_is_at_once_and_when_nothing_is_wanted(
    world: World,
) -> None:
    async with world.websocket("?type=execution_failed") as socket:
        first = json.loads(await socket.recv())
        await world.logs.commit(EXEC_1)
        second = json.loads(await socket.recv())
    assert first == {"cursor": "0", "type": "cursor"}
    assert second == {"cursor": await last_cursor(world), "type": "cursor"}


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("?follow=false&after=0", 1000),
        ("?type=nonsense", 4400),
        ("?after=nonsense", 4400),
        ("?workflow_id=wf-123e4567-e89b-12d3-a456-426614174999", 4404),
        (f"/{EXEC_1}?type=nonsense", 4400),
    ],
)
async def test_close_codes(world: World, query: str, code: int) -> None:
    await world.logs.commit(EXEC_1)
    async with world.websocket(query) as socket:
        assert await closed(socket) == code
    await eventually(lambda: world.open == 0)


async def closed(socket: ClientConnection) -> int:
    try:
        async with asyncio.timeout(10):
            while True:
                await socket.recv()
    except ConnectionClosed as end:
        assert end.rcvd is not None
        return end.rcvd.code


async def test_it_needs_a_key_with_the_scope_and_ends_with_it(world: World) -> None:
    gateway = world.installation.gateway
    made = await gateway.create_key(name="w", scopes=["write"], rate_limit_per_s=None)
    assert (await world.get(**{"X-API-Key": made["api_key"]})).status_code == 403
    assert (await world.get(**{"X-API-Key": "none"})).status_code == 401
    reader = await gateway.create_key(name="r", scopes=["read"], rate_limit_per_s=None)
    async with world.sse(**{"X-API-Key": reader["api_key"]}) as (_, events):
        await anext(events)
        await gateway.revoke_key(reader["key_id"])
        async with asyncio.timeout(30):
            assert [event async for event in events if event.data] == []


async def test_it_takes_a_slot_and_lives_no_longer_than_any_stream(tmp_path: Path) -> None:
    short = QUICK.model_copy(update={"stream_age_s_max": 3.0, "streams_per_replica_max": 1})
    async with serving(tmp_path, short) as world, world.websocket() as socket:
        await socket.recv()
        assert (await world.get()).status_code == 429
        assert await closed(socket) == 1001


async def test_a_hundred_clients_cost_no_more_readings_than_one(tmp_path: Path) -> None:
    roomy = QUICK.model_copy(update={"streams_per_replica_max": 200, "stream_heartbeat_s": 60.0})
    async with serving(tmp_path, roomy) as world:
        store = world.logs.store
        readings = 0
        inner = store.read_event_ranges

        async def counted(ranges: Any) -> Any:
            nonlocal readings
            readings += 1
            return await inner(ranges)

        store.read_event_ranges = counted  # type: ignore[method-assign]
        gateway = world.installation.gateway

        async def follow() -> list[str]:
            found: list[str] = []
            batches = gateway.installation_events(after=None, follow=True, workflow_id=None)
            async for batch in batches:
                ready.append(1)
                found += [event.cursor for event in batch if event.type != "cursor"]
                if len(found) >= 10:
                    break
            await batches.aclose()  # type: ignore[attr-defined]
            return found

        ready: list[int] = []
        clients = [asyncio.ensure_future(follow()) for _ in range(100)]
        await eventually(lambda: len(ready) == 100)
        for _ in range(10):
            await world.logs.commit(EXEC_1)
        lists = await asyncio.gather(*clients)
        assert all(one == lists[0] for one in lists)
        assert readings <= 10
