"""Readers that are slow, or never read, cost only themselves, and lose nothing (S22)."""

from __future__ import annotations

import asyncio
import json
import resource
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import httpx
import psutil
import pytest
from httpx_sse import EventSource
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from harmonia_actors.core.event_batches import EventBatch
from harmonia_actors.runtime.event_hub import parse_event
from harmonia_actors.settings import Settings
from harmonia_serve.app import build_app
from harmonia_serve.auth import Caller
from harmonia_serve.event_filters import Filter
from harmonia_serve.gateway import Principal, StreamEvent
from harmonia_serve.observation import Observation
from harmonia_serve.streams import Ending, Subscription
from tests.unit.serve.conftest import Serve, Served, eventually
from tests.unit.serve.gateway import MemoryGateway

EVENTS = 150
#: All of them together are more than the kernel takes for one connection.
SIZE = 100_000
#: More than the kernel takes for one connection, in one event.
MORE_THAN_FITS = 12_000_000
IDLE = 2_000
UPGRADE = (
    "Upgrade: websocket",
    "Connection: Upgrade",
    "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
    "Sec-WebSocket-Version: 13",
)


@asynccontextmanager
async def stalled(served: Served, kind: str, execution_id: str, key: str) -> AsyncIterator[None]:
    """A client that opens a stream and never reads of it."""
    host, port = served.host.split(":")
    reader, writer = await asyncio.open_connection(host, int(port), limit=1_000)
    head = f"GET /{kind}/harmonia/executions/{execution_id} HTTP/1.1"
    more = UPGRADE if kind == "ws" else ()
    writer.write("\r\n".join((head, "Host: x", f"X-API-Key: {key}", *more, "", "")).encode())
    await reader.readuntil(b"\r\n\r\n")
    try:
        yield
    finally:
        writer.transport.abort()


async def emit_all(gateway: MemoryGateway, execution_id: str) -> None:
    for number in range(EVENTS - 1):
        await gateway.append(execution_id, "task_progress", {"n": number, "x": "y" * SIZE})
        await asyncio.sleep(0)
    await gateway.append(execution_id, "execution_completed", {"output": {}})


async def read_socket(served: Served, path: str, key: str) -> tuple[list[int], int, str]:
    """The seqs of all messages, and the close."""
    url = f"{served.ws}/ws/harmonia/executions/{path}"
    seqs: list[int] = []
    async with connect(url, additional_headers={"X-API-Key": key}, proxy=None) as socket:
        return await drain(socket, seqs)


async def drain(socket: Any, seqs: list[int]) -> tuple[list[int], int, str]:
    try:
        while True:
            seqs.append(json.loads(await socket.recv())["seq"])
    except ConnectionClosed as closed:
        assert closed.rcvd is not None
        return seqs, closed.rcvd.code, closed.rcvd.reason


async def read_events(served: Served, path: str, key: str) -> list[int]:
    url = f"{served.http}/events/harmonia/executions/{path}"
    async with (
        httpx.AsyncClient(headers={"X-API-Key": key}, timeout=60) as client,
        client.stream("GET", url) as answer,
    ):
        return [int(event.id) async for event in EventSource(answer).aiter_sse()]


async def test_readers_that_never_read_do_not_hold_up_the_others(
    gateway: MemoryGateway, serve: Serve, execution_id: str, key: str
) -> None:
    """None of them is ever cut off here: the others do not wait for that either."""
    app = build_app(gateway, Settings(stream_send_timeout_s=3_600))
    slots = app.state.context.slots
    async with serve(app) as served:
        async with asyncio.timeout(60), asyncio.TaskGroup() as readers:
            stuck = [stalled(served, kind, execution_id, key) for kind in ("ws", "events") * 10]
            for reader in stuck:
                await reader.__aenter__()
            await eventually(lambda: slots.open == 20)
            sockets = [readers.create_task(read_socket(served, execution_id, key)) for _ in "123"]
            sources = [readers.create_task(read_events(served, execution_id, key)) for _ in "123"]
            await eventually(lambda: slots.open == 26)
            await emit_all(gateway, execution_id)
        everything = list(range(1, EVENTS + 1))
        assert [task.result()[:2] for task in sockets] == [(everything, 1000)] * 3
        assert [task.result() for task in sources] == [everything] * 3
        await eventually(lambda: slots.open == 20)
        for reader in stuck:
            await reader.__aexit__(None, None, None)
        await eventually(lambda: slots.open == gateway.subscribers == 0)


def connections(served: Served) -> int:
    """How many the server has, whether or not it still wants them."""
    port = int(served.host.split(":")[1])
    found = psutil.net_connections("tcp")
    return sum(one.laddr[1] == port and one.status != psutil.CONN_LISTEN for one in found)


@pytest.mark.parametrize("kind", ["ws", "events"])
async def test_who_is_cut_off_for_reading_nothing_is_disconnected(
    gateway: MemoryGateway, serve: Serve, execution_id: str, key: str, kind: str
) -> None:
    """It has a stream's place for as long as it has a connection: limits cannot be got round."""
    app = build_app(gateway, Settings(stream_send_timeout_s=0.3))
    slots = app.state.context.slots
    await emit_all(gateway, execution_id)
    async with serve(app) as served, AsyncExitStack() as stuck:
        for _ in range(3):
            for _ in range(4):
                await stuck.enter_async_context(stalled(served, kind, execution_id, key))
            await eventually(lambda: slots.open == 4)
            await eventually(lambda: slots.open == 0)
            await eventually(lambda: connections(served) == 0)


@pytest.mark.parametrize("kind", ["ws", "events"])
async def test_who_never_reads_the_end_is_disconnected(
    gateway: MemoryGateway, serve: Serve, execution_id: str, key: str, kind: str
) -> None:
    """All was sent in time, so nobody is slow; but some of it has not left yet."""
    app = build_app(gateway, Settings(stream_send_timeout_s=0.3))
    slots = app.state.context.slots
    async with serve(app) as served, stalled(served, kind, execution_id, key):
        await eventually(lambda: slots.open == 1)
        await gateway.append(execution_id, "task_progress", {"x": "y" * MORE_THAN_FITS})
        await gateway.append(execution_id, "execution_completed", {})
        await eventually(lambda: slots.open == 0)
        await eventually(lambda: connections(served) == 0)


def dropped(app: Any, surface: str) -> bool:
    text = app.state.context.observation.render({}).decode()
    return f'dropped_total{{reason="slow_consumer",surface="{surface}"}} 1.0' in text


async def test_a_slow_websocket_is_told_where_to_resume(
    gateway: MemoryGateway, serve: Serve, execution_id: str, key: str
) -> None:
    app = build_app(gateway, Settings(stream_send_timeout_s=2))
    url = f"/ws/harmonia/executions/{execution_id}"
    async with serve(app) as served:
        options: Any = {"additional_headers": {"X-API-Key": key}, "proxy": None}
        async with connect(served.ws + url, max_queue=1, compression=None, **options) as socket:
            await emit_all(gateway, execution_id)
            await eventually(lambda: dropped(app, "websocket"))
            await eventually(lambda: gateway.subscribers == 0)
            seqs, code, reason = await drain(socket, [])
        assert (code, reason) == (4408, f"slow_consumer: resume with ?after={seqs[-1]}")
        rest, code, _ = await read_socket(served, f"{execution_id}?after={seqs[-1]}", key)
    assert seqs + rest == list(range(1, EVENTS + 1))
    assert code == 1000


async def test_a_slow_event_source_is_told_where_to_resume(
    gateway: MemoryGateway, serve: Serve, execution_id: str, key: str
) -> None:
    app = build_app(gateway, Settings(stream_send_timeout_s=2))
    url = f"/events/harmonia/executions/{execution_id}"
    async with (
        serve(app) as served,
        httpx.AsyncClient(headers={"X-API-Key": key}, timeout=60) as client,
    ):
        async with client.stream("GET", served.http + url) as answer:
            await emit_all(gateway, execution_id)
            await eventually(lambda: dropped(app, "sse"))
            await eventually(lambda: gateway.subscribers == 0)
            events = [event async for event in EventSource(answer).aiter_sse()]
        last = events.pop()
        seqs = [int(event.id) for event in events]
        assert (last.event, last.json()) == ("slow_consumer", {"after": str(seqs[-1])})
        # A browser resumes after the last id, which the farewell leaves as it is.
        assert last.id == events[-1].id
        rest = await read_events(served, f"{execution_id}?after={last.id}", key)
    assert seqs + rest == list(range(1, EVENTS + 1))


class Pieces:
    """A sink that notes what it is handed at a time."""

    def __init__(self) -> None:
        self.sizes: list[list[int]] = []
        self.may_go_on = asyncio.Event()

    async def send_events(self, events: Sequence[StreamEvent]) -> None:
        self.sizes.append([len(event.body) for event in events])
        await self.may_go_on.wait()

    async def send_position(self, cursor: str) -> None:
        pass

    async def send_sign_of_life(self) -> None:
        pass


async def test_what_waits_for_one_client_is_bounded(gateway: MemoryGateway) -> None:
    bodies = [b'{"type":"%s","timestamp_ms":1,"data":{"x":"%s"}}'] * 7
    sizes = [10, 10, 10, 500, 10, 150, 10]
    log = [
        parse_event(seq, body % (b"task_progress", b"y" * size))
        for seq, (body, size) in enumerate(zip(bodies, sizes, strict=True), 1)
    ]
    read = 0

    async def batches() -> AsyncIterator[Sequence[StreamEvent]]:
        nonlocal read
        for _ in range(3):
            read += 1
            yield log

    settings = Settings(stream_buffer_events_max=2, stream_buffer_bytes_max=300)
    sink = Pieces()
    with Observation().open_stream("sse") as notes:
        subscription = Subscription(settings, batches(), Filter(), notes)
        caller = Caller(gateway, Principal("key-1", "k", frozenset({"read"})), "secret")
        running = asyncio.ensure_future(subscription.run(sink, asyncio.Future(), caller))
        await eventually(lambda: len(sink.sizes) == 1)
        assert read == 1, "no more than one batch waits for a client that does not read"
        sink.may_go_on.set()
        assert await running is Ending.NO_MORE
        await subscription.aclose()
    assert read == 3
    assert sink.sizes[: len(sink.sizes) // 3] * 3 == sink.sizes
    assert [len(piece) for piece in sink.sizes[: len(sink.sizes) // 3]] == [2, 1, 1, 2, 1]
    assert all(sum(piece) <= 300 or len(piece) == 1 for piece in sink.sizes)


class Noted(EventBatch[StreamEvent]):
    """A batch that says when nobody holds it any more."""

    let_go = 0

    def __del__(self) -> None:
        Noted.let_go += 1


async def test_a_client_that_waits_holds_nothing_that_was_sent(gateway: MemoryGateway) -> None:
    body = b'{"type":"task_progress","timestamp_ms":1,"data":{}}'

    async def batches() -> AsyncIterator[Sequence[StreamEvent]]:
        for index in (1, 2):
            yield Noted([parse_event(index, body)])
        await asyncio.Event().wait()

    sink = Pieces()
    sink.may_go_on.set()
    before = Noted.let_go
    with Observation().open_stream("sse") as notes:
        subscription = Subscription(Settings(), batches(), Filter(), notes)
        assert await subscription.open(10)
        caller = Caller(gateway, Principal("key-1", "k", frozenset({"read"})), "secret")
        running = asyncio.ensure_future(subscription.run(sink, asyncio.Future(), caller))
        await eventually(lambda: len(sink.sizes) == 2)
        await eventually(lambda: Noted.let_go == before + 2)
        running.cancel()
        await asyncio.wait([running])
        await subscription.aclose()


async def test_no_more_streams_than_a_key_may_hold(
    gateway: MemoryGateway, serve: Serve, execution_id: str, key: str
) -> None:
    app = build_app(gateway, Settings(streams_per_key_max=2))
    slots = app.state.context.slots
    other = gateway.add_key("read")
    async with serve(app) as served:
        async with (
            stalled(served, "ws", execution_id, key),
            stalled(served, "events", execution_id, key),
        ):
            await eventually(lambda: slots.open == 2)
            _, code, reason = await read_socket(served, execution_id, key)
            assert code == 4429
            assert "Your key has 2 streams open" in reason
            async with httpx.AsyncClient(headers={"X-API-Key": key}) as client:
                answer = await client.get(
                    f"{served.http}/events/harmonia/executions/{execution_id}"
                )
            assert (answer.status_code, answer.headers["retry-after"]) == (429, "5")
            assert answer.json()["error"]["code"] == "rate_limit_exceeded"
            async with stalled(served, "ws", execution_id, other):
                await eventually(lambda: slots.open == 3)
        await eventually(lambda: slots.open == 0)
        await gateway.append(execution_id, "execution_completed", {})
        assert (await read_socket(served, execution_id, key))[1] == 1000


@pytest.mark.parametrize("surface", ["ws", "events"])
async def test_each_surface_shows_what_it_counts(
    gateway: MemoryGateway, serve: Serve, execution_id: str, key: str, surface: str
) -> None:
    await gateway.append(execution_id, "execution_started", {})
    await gateway.append(execution_id, "execution_completed", {})
    async with serve(build_app(gateway, Settings())) as served:
        await read_socket(served, execution_id, key)
        await read_events(served, execution_id, key)
        url = f"{served.http}/{surface}/harmonia/metrics"
        async with httpx.AsyncClient() as client:
            answer = await client.get(url, headers={"X-API-Key": key})
            assert (await client.get(url)).status_code == 401
    assert answer.headers["content-type"].startswith("text/plain")
    for kind in ("websocket", "sse"):
        assert f'harmonia_events_delivered_total{{surface="{kind}"}} 2.0' in answer.text
        assert f'harmonia_streams_open{{surface="{kind}"}} 0.0' in answer.text


@pytest.fixture
def files() -> Iterator[None]:
    """May open as many as both ends of all idle clients need."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = 2 * IDLE + 500
    if hard != resource.RLIM_INFINITY and hard < needed:
        pytest.skip(f"only {hard} files may be open here")
    if soft != resource.RLIM_INFINITY:
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, needed), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("files")
async def test_many_idle_clients_hold_up_nobody_and_leave_nothing(
    gateway: MemoryGateway, serve: Serve, execution_id: str, key: str
) -> None:
    app = build_app(gateway, Settings())
    slots = app.state.context.slots
    reply = await gateway.execute(next(iter(gateway.workflows)), {}, {})
    quiet = str(reply.document["execution_id"])
    async with serve(app) as served:
        async with AsyncExitStack() as idle:
            for _ in range(IDLE):
                await idle.enter_async_context(stalled(served, "ws", quiet, key))
            await eventually(lambda: slots.open == IDLE)
            other = gateway.add_key("read")
            reading = asyncio.ensure_future(read_socket(served, execution_id, other))
            await eventually(lambda: slots.open == IDLE + 1)
            await gateway.append(execution_id, "execution_completed", {})
            assert await reading == ([1], 1000, Ending.LAST_EVENT.value)
            assert slots.open == IDLE
        await eventually(lambda: gateway.subscribers == slots.open == 0)


class Places(Pieces):
    """A sink that notes what it is told, in order; its client takes a while for each piece."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[str] = []

    async def send_events(self, events: Sequence[Any]) -> None:
        clock = asyncio.get_running_loop().time
        beat = clock() + 0.002
        while clock() < beat:  # noqa: ASYNC110 - it is the time itself that counts
            await asyncio.sleep(0)
        self.told += [event.cursor for event in events]

    async def send_position(self, cursor: str) -> None:
        self.told.append(f"at {cursor}")


async def test_no_position_is_told_beyond_what_a_slow_client_has(gateway: MemoryGateway) -> None:
    """It would resume there after a cut, and never see what was still to come."""
    kinds = [b"task_progress"] * 5 + [b"task_started"]
    bodies = [b'{"type":"%s","timestamp_ms":1,"data":{}}' % kind for kind in kinds]
    log = [parse_event(seq, body) for seq, body in enumerate(bodies, 1)]

    async def batches() -> AsyncIterator[Sequence[StreamEvent]]:
        yield log

    secret = gateway.add_key("read")
    principal = await gateway.authenticate(secret)
    settings = Settings(stream_buffer_events_max=1, stream_heartbeat_s=0.001)
    sink = Places()
    with Observation().open_stream("sse") as notes:
        wanted = Filter(frozenset({"task_progress"}))
        subscription = Subscription(settings, batches(), wanted, notes)
        await subscription.run(sink, asyncio.Future(), Caller(gateway, principal, secret))
        await subscription.aclose()
    assert sink.told == ["1", "2", "3", "4", "5", "at 6"]
