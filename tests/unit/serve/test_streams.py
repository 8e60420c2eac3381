"""Both streams over a real server: history first, then live, ended with a reason, cleaned up."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from httpx_sse import aconnect_sse
from websockets.asyncio.client import ClientConnection, connect

from harmonia_actors.core.errors import ServiceUnavailable
from harmonia_actors.runtime.event_hub import parse_event
from harmonia_actors.settings import Settings
from harmonia_serve import sse
from harmonia_serve.app import build_app
from harmonia_serve.starts import age_s
from harmonia_serve.streams import StreamSlots
from tests.unit.serve.conftest import Serve, Served, eventually, messages_of
from tests.unit.serve.gateway import MemoryGateway

UNKNOWN = "exec-123e4567-e89b-12d3-a456-426614174000"
QUICK = Settings(
    stream_heartbeat_s=0.05,
    stream_key_check_s=0.05,
    stream_send_timeout_s=0.3,
    streams_per_replica_max=3,
    stream_messages_max=5,
)


@pytest.fixture
def app(gateway: MemoryGateway) -> FastAPI:
    return build_app(gateway, QUICK)


@pytest.fixture
async def served(app: FastAPI, serve: Serve) -> AsyncIterator[Served]:
    async with serve(app) as found:
        yield found


@pytest.fixture
def slots(app: FastAPI) -> StreamSlots:
    found: StreamSlots = app.state.context.slots
    return found


@asynccontextmanager
async def web_socket(
    served: Served, path: str, key: str, **options: Any
) -> AsyncIterator[ClientConnection]:
    url = f"{served.ws}/ws/harmonia/executions/{path}"
    headers = {"X-API-Key": key}
    async with connect(url, additional_headers=headers, proxy=None, **options) as socket:
        yield socket


def sse_client(key: str) -> httpx.AsyncClient:
    return httpx.AsyncClient(headers={"X-API-Key": key}, timeout=10)


def sse_url(served: Served, path: str) -> str:
    return f"{served.http}/events/harmonia/executions/{path}"


async def test_a_websocket_brings_history_then_live_events_and_closes_with_1000(
    served: Served, gateway: MemoryGateway, execution_id: str, key: str
) -> None:
    await gateway.append(execution_id, "execution_started", {"workflow_name": "ü"})
    async with web_socket(served, execution_id, key) as socket:
        first = json.loads(await socket.recv())
        await gateway.append(execution_id, "task_progress", {"progress": 0.5})
        await gateway.append(execution_id, "execution_completed", {"output": {}})
        rest, code, _ = await messages_of(socket)
    assert first["data"] == {"workflow_name": "ü"}
    assert [event["seq"] for event in (first, *rest)] == [1, 2, 3]
    assert rest[-1]["type"] == "execution_completed"
    assert code == 1000


async def test_sse_brings_history_then_live_events_and_ends(
    served: Served, gateway: MemoryGateway, execution_id: str, key: str
) -> None:
    await gateway.append(execution_id, "execution_started", {"workflow_name": "ü"})
    async with (
        sse_client(key) as client,
        aconnect_sse(client, "GET", sse_url(served, execution_id)) as source,
    ):
        headers = source.response.headers
        events = source.aiter_sse()
        first = await anext(events)
        await gateway.append(execution_id, "task_progress", {"progress": 0.5})
        await gateway.append(execution_id, "execution_completed", {"output": {}})
        rest = [event async for event in events]
    assert headers["content-type"].startswith("text/event-stream")
    assert headers["cache-control"] == "no-cache"
    assert headers["x-accel-buffering"] == "no"
    assert (first.event, first.id, first.json()) == (
        "execution_started",
        "1",
        {"workflow_name": "ü"},
    )
    assert first.retry is not None
    assert [event.id for event in rest] == ["2", "3"]
    assert rest[-1].event == "execution_completed"


async def test_sse_sends_each_event_as_it_was_encoded(
    served: Served, gateway: MemoryGateway, execution_id: str, key: str
) -> None:
    event = await gateway.append(execution_id, "execution_completed", {"n": 1.50, "s": "a\nb"})
    async with sse_client(key) as client:
        answer = await client.get(sse_url(served, execution_id))
    head = b": open\n\nretry: 2000\nid: 1\nevent: execution_completed\ndata: "
    assert answer.content == head + event.data + b"\n\n"


async def test_a_stream_resumes_after_the_event_it_is_told(
    served: Served, gateway: MemoryGateway, execution_id: str, key: str
) -> None:
    for number in range(4):
        await gateway.append(execution_id, "task_progress", {"n": number})
    await gateway.append(execution_id, "execution_completed", {})
    async with web_socket(served, f"{execution_id}?after=3", key) as socket:
        messages, _, _ = await messages_of(socket)
    assert [message["seq"] for message in messages] == [4, 5]
    async with sse_client(key) as client:
        url = sse_url(served, f"{execution_id}?after=1")
        by_query = await client.get(url)
        by_header = await client.get(url, headers={"Last-Event-ID": "4"})
        at_the_end = await client.get(url, headers={"Last-Event-ID": "5"})
    assert by_query.text.count("event: ") == 4
    assert by_header.text.count("event: ") == 1
    # An EventSource takes any other end for a broken connection, and asks again for ever.
    assert (at_the_end.status_code, at_the_end.content) == (204, b"")
    async with web_socket(served, f"{execution_id}?after=5", key) as socket:
        assert (await messages_of(socket))[:2] == ([], 1000)


@pytest.mark.parametrize(
    ("path", "code", "status"),
    [
        (UNKNOWN, 4404, 404),
        ("exec-x", 4404, 404),
        ("{execution_id}?after=-1", 4400, 422),
        ("{execution_id}?after=x", 4400, 422),
        ("{execution_id}?after=1&after=2", 4400, 422),
        ("{execution_id}?since=1", 4400, 422),
        ("{execution_id}/more", 4404, 404),
    ],
)
async def test_what_is_wrong_before_the_start_is_a_close_code_or_the_envelope(
    served: Served, execution_id: str, key: str, path: str, code: int, status: int
) -> None:
    path = path.format(execution_id=execution_id)
    async with web_socket(served, path, key) as socket:
        messages, got, reason = await messages_of(socket)
    assert (messages, got) == ([], code)
    assert reason
    async with sse_client(key) as client:
        answer = await client.get(sse_url(served, path))
    assert answer.status_code == status
    assert set(answer.json()["error"]) == {"code", "message", "details"}


@pytest.mark.parametrize("last", ["x", "-1", "1.5", "9" * 17, "²"])
async def test_a_bad_last_event_id_is_named(
    served: Served, execution_id: str, key: str, last: str
) -> None:
    async with sse_client(key) as client:
        headers = {b"Last-Event-ID": last.encode()}
        answer = await client.get(sse_url(served, execution_id), headers=headers)
    assert answer.status_code == 422
    assert answer.json()["error"]["details"]["errors"][0]["field"] == "Last-Event-ID"


async def test_a_quiet_stream_shows_signs_of_life_and_is_cleaned_up_when_the_client_leaves(
    served: Served, gateway: MemoryGateway, execution_id: str, key: str, slots: StreamSlots
) -> None:
    async with sse_client(key) as client:
        async with client.stream("GET", sse_url(served, execution_id)) as answer:
            seen = b""
            async for chunk in answer.aiter_bytes():
                seen += chunk
                if seen.count(b": alive\n\n") == 2:
                    break
            assert gateway.subscribers == slots.open == 1
        await eventually(lambda: gateway.subscribers == slots.open == 0)
    async with web_socket(served, execution_id, key):
        await eventually(lambda: gateway.subscribers == slots.open == 1)
    await eventually(lambda: gateway.subscribers == slots.open == 0)


async def test_a_client_that_is_killed_is_cleaned_up(
    served: Served, gateway: MemoryGateway, execution_id: str, key: str, slots: StreamSlots
) -> None:
    async with web_socket(served, execution_id, key) as socket:
        await eventually(lambda: gateway.subscribers == slots.open == 1)
        socket.transport.abort()
        await eventually(lambda: gateway.subscribers == slots.open == 0)


async def test_no_more_streams_than_a_replica_may_hold(
    served: Served, gateway: MemoryGateway, execution_id: str, key: str, slots: StreamSlots
) -> None:
    async with (
        web_socket(served, execution_id, key),
        web_socket(served, execution_id, key),
        web_socket(served, execution_id, key),
    ):
        await eventually(lambda: slots.open == 3)
        async with web_socket(served, execution_id, key) as fourth:
            assert (await messages_of(fourth))[:2] == ([], 4429)
        async with sse_client(key) as client:
            answer = await client.get(sse_url(served, execution_id))
        assert (answer.status_code, answer.headers["retry-after"]) == (429, "5")
    await eventually(lambda: slots.open == 0)


async def test_a_stream_of_great_age_ends_cleanly_and_can_be_resumed(
    gateway: MemoryGateway, serve: Serve, execution_id: str, key: str
) -> None:
    app = build_app(gateway, Settings(stream_age_s_max=0.2))
    await gateway.append(execution_id, "execution_started", {})
    async with serve(app) as served:
        async with web_socket(served, execution_id, key) as socket:
            messages, code, reason = await messages_of(socket)
        assert ([message["seq"] for message in messages], code) == ([1], 1001)
        assert "?after=1" in reason
        async with sse_client(key) as client:
            answer = await client.get(sse_url(served, execution_id))
        assert answer.text.endswith("data: {}\n\n")


async def test_a_revoked_key_ends_its_open_streams(
    served: Served, gateway: MemoryGateway, execution_id: str
) -> None:
    key = gateway.add_key("read")
    async with web_socket(served, execution_id, key) as socket, sse_client(key) as client:
        async with client.stream("GET", sse_url(served, execution_id)) as answer:
            gateway.revoke(key)
            text = b"".join([chunk async for chunk in answer.aiter_bytes()])
        assert text.endswith(b": authentication_failed\n\n")
        assert (await messages_of(socket))[1] == 4401


async def test_a_busy_stream_is_asked_for_its_key_too(
    served: Served, gateway: MemoryGateway, execution_id: str
) -> None:
    key = gateway.add_key("read")
    async with web_socket(served, execution_id, key) as socket:
        ended = asyncio.ensure_future(messages_of(socket))
        gateway.revoke(key)
        async with asyncio.timeout(10):
            while not ended.done():
                await gateway.append(execution_id, "task_progress", {})
                await asyncio.sleep(0)
        assert (await ended)[1] == 4401


async def test_a_stream_outlives_an_outage_of_what_knows_its_key(
    served: Served, gateway: MemoryGateway, execution_id: str
) -> None:
    key = gateway.add_key("read")
    async with (
        web_socket(served, execution_id, key) as socket,
        sse_client(key) as client,
        client.stream("GET", sse_url(served, execution_id)) as answer,
    ):
        chunks = answer.aiter_bytes()
        gateway.keys_away = True
        seen = b""
        while seen.count(b": alive\n\n") < 4:
            seen += await anext(chunks)
        await gateway.append(execution_id, "task_progress", {})
        assert json.loads(await socket.recv())["type"] == "task_progress"
        gateway.revoke(key)
        gateway.keys_away = False
        text = b"".join([chunk async for chunk in chunks])
        assert text.endswith(b": authentication_failed\n\n")
        assert (await messages_of(socket))[1] == 4401


async def test_a_stream_whose_key_cannot_be_confirmed_for_long_ends(
    gateway: MemoryGateway, serve: Serve, execution_id: str, key: str
) -> None:
    short = Settings(stream_heartbeat_s=0.05, stream_key_check_s=0.05, stream_unconfirmed_s_max=0.2)
    async with (
        serve(build_app(gateway, short)) as served,
        sse_client(key) as client,
        web_socket(served, execution_id, key) as socket,
        client.stream("GET", sse_url(served, execution_id)) as answer,
    ):
        gateway.keys_away = True
        text = b"".join([chunk async for chunk in answer.aiter_bytes()])
        assert text.endswith(b": service_unavailable\n\n")
        assert (await messages_of(socket))[1] == 1013


async def test_a_head_of_a_stream_is_answered_at_once_and_opens_none(
    served: Served, gateway: MemoryGateway, execution_id: str, key: str, slots: StreamSlots
) -> None:
    async with sse_client(key) as client:
        answer = await client.head(sse_url(served, execution_id))
        assert (answer.status_code, answer.content) == (200, b"")
        assert answer.headers["content-type"].startswith("text/event-stream")
        await eventually(lambda: gateway.subscribers == slots.open == 0)
        await gateway.append(execution_id, "execution_completed", {})
        ended = await client.head(sse_url(served, execution_id), params={"after": 1})
        assert ended.status_code == 204


async def test_websockets_are_counted_by_how_they_were_closed(
    app: FastAPI, served: Served, gateway: MemoryGateway, execution_id: str, key: str
) -> None:
    def counted(code: int) -> bool:
        text = app.state.context.observation.render({}).decode()
        return f'{{execution_id}}",status="{code}"' in text

    async with web_socket(served, execution_id, key) as socket:
        await socket.close(3_000)
    await eventually(lambda: counted(3_000))
    async with web_socket(served, execution_id, key) as socket:
        await socket.send("x" * 5_000)
        await messages_of(socket)
    await eventually(lambda: counted(1009))
    async with web_socket(served, UNKNOWN, key) as socket:
        await messages_of(socket)
    await eventually(lambda: counted(4404))
    assert not counted(1000)
    await gateway.append(execution_id, "execution_completed", {})
    async with web_socket(served, execution_id, key) as socket:
        await messages_of(socket)
    await eventually(lambda: counted(1000))


async def test_what_a_websocket_client_sends_is_ignored_within_bounds(
    served: Served, gateway: MemoryGateway, execution_id: str, key: str
) -> None:
    async with web_socket(served, execution_id, key) as socket:
        for text in ("hello", b"\x00", ""):
            await socket.send(text)
        await gateway.append(execution_id, "execution_completed", {})
        assert (await messages_of(socket))[1] == 1000


@pytest.mark.parametrize(("size", "count", "code"), [(5_000, 1, 1009), (10, 6, 1008)])
async def test_a_websocket_client_that_talks_too_much_is_cut_off(
    served: Served, execution_id: str, key: str, size: int, count: int, code: int
) -> None:
    async with web_socket(served, execution_id, key) as socket:
        for _ in range(count):
            await socket.send("x" * size)
        assert (await messages_of(socket))[1] == code


async def test_a_reader_that_stops_reading_is_cut_off_and_holds_nothing(
    served: Served, gateway: MemoryGateway, execution_id: str, key: str, slots: StreamSlots
) -> None:
    host, port = served.host.split(":")
    heads = (
        f"GET /events/harmonia/executions/{execution_id} HTTP/1.1",
        f"GET /ws/harmonia/executions/{execution_id} HTTP/1.1",
    )
    upgrade = (
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
        "Sec-WebSocket-Version: 13",
    )
    readers, writers = [], []
    for head, extra in zip(heads, ((), upgrade), strict=True):
        reader, writer = await asyncio.open_connection(host, int(port), limit=1_000)
        lines = (head, "Host: x", f"X-API-Key: {key}", *extra, "", "")
        writer.write("\r\n".join(lines).encode())
        await reader.readuntil(b"\r\n\r\n")
        readers.append(reader)
        writers.append(writer)
    await eventually(lambda: slots.open == 2)
    for _ in range(100):
        # More than the kernel's buffers take: 20 MB for each of the two.
        await gateway.append(execution_id, "task_progress", {"x": "y" * 200_000})
        await asyncio.sleep(0)
    await eventually(lambda: gateway.subscribers == slots.open == 0)
    for writer in writers:
        writer.close()


async def test_an_engine_that_fails_in_mid_stream_says_so_and_no_more(
    served: Served,
    gateway: MemoryGateway,
    execution_id: str,
    key: str,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fault: Exception = ValueError("the secret cause")

    async def events(execution_id: str, *, after: int, part: int = 0) -> AsyncIterator[Any]:
        yield ()
        raise fault

    monkeypatch.setattr(gateway, "events", events)
    async with web_socket(served, execution_id, key) as socket:
        _, code, reason = await messages_of(socket)
    assert code == 1011
    assert "secret" not in reason
    async with sse_client(key) as client:
        text = (await client.get(sse_url(served, execution_id))).text
    error_id = text.rpartition("internal_error ")[2].strip()
    assert error_id in caplog.text
    assert "secret" not in text
    fault = ServiceUnavailable("the store is away")
    async with web_socket(served, execution_id, key) as socket:
        assert (await messages_of(socket))[1] == 1013
    async with sse_client(key) as client:
        text = (await client.get(sse_url(served, execution_id))).text
    assert text.endswith(": service_unavailable\n\n")


async def test_an_answer_begins_even_if_the_first_batch_is_late(
    gateway: MemoryGateway,
    serve: Serve,
    execution_id: str,
    key: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    released = asyncio.Event()

    async def events(execution_id: str, *, after: int, part: int = 0) -> AsyncIterator[Any]:
        await released.wait()
        yield ()

    monkeypatch.setattr(gateway, "events", events)
    monkeypatch.setattr(sse, "_OPEN_WAIT_S", 0.05)
    async with (
        serve(build_app(gateway, QUICK)) as served,
        sse_client(key) as client,
        client.stream("GET", sse_url(served, execution_id)) as answer,
    ):
        assert answer.status_code == 200
        released.set()
        await answer.aread()


def test_streams_that_were_opened_together_do_not_end_together() -> None:
    ages = [age_s(3_600.0) for _ in range(1_000)]
    assert all(3_240 <= age <= 3_600 for age in ages)
    tenths = Counter(int(age - 3_240) // 36 for age in ages)
    assert len(tenths) >= 10
    assert max(tenths.values()) < 200


@pytest.mark.parametrize("envelope", [True, False])
def test_white_space_in_an_event_cannot_break_its_frame(envelope: bool) -> None:
    event = parse_event(7, b'{"seq":7,"type":"task_started"\n\n,"data":{"a":\r\n\r\n[1,\n2]}}')
    lines = sse.frame(event, envelope=envelope).decode().split("\n")
    assert (lines[:2], lines[3:]) == (["id: 7", "event: task_started"], ["", ""])
    data = {"a": [1, 2]}
    whole = {"seq": 7, "type": "task_started", "data": data} if envelope else data
    assert json.loads(lines[2].removeprefix("data: ")) == whole
