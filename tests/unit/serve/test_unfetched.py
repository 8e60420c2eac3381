"""A replica behind Serve's Python proxy sends no more than that fetches: with Serve's own queue."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from ray.serve._private import replica

from harmonia_actors.settings import Settings
from harmonia_serve.app import build_event_stream_app
from harmonia_serve.unfetched import BackPressure, count_unfetched
from tests.support.scripted_actors import settle
from tests.unit.serve.conftest import eventually
from tests.unit.serve.gateway import MemoryGateway

BYTES_MAX = 100_000
EVENTS = 100
SIZE = 20_000


@pytest.fixture(autouse=True)
def _counting(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The class is put back afterwards."""
    monkeypatch.setattr(replica, "MessageQueue", replica.MessageQueue)
    count_unfetched()
    yield


async def served(app: Any, scope: Any, *, in_a_thread: bool = False) -> AsyncIterator[list[Any]]:
    """What a replica does for one request of the proxy: see `call_http_entrypoint`."""
    queue = replica.MessageQueue()
    loop = asyncio.get_running_loop()

    async def receive() -> Any:
        return await asyncio.Future()

    async def enqueue(message: Any) -> None:
        if in_a_thread:
            loop.call_soon_threadsafe(queue.put_nowait, message)
        else:
            queue.put_nowait(message)

    if not in_a_thread:
        serving: Any = asyncio.create_task(app(scope, receive, enqueue))
    else:
        other = asyncio.new_event_loop()
        threading.Thread(target=other.run_forever, daemon=True).start()
        serving = asyncio.wrap_future(
            asyncio.run_coroutine_threadsafe(app(scope, receive, enqueue), other)
        )
        serving.add_done_callback(lambda _: other.call_soon_threadsafe(other.stop))
    async for messages in queue.fetch_messages_from_queue(serving):
        yield messages


class Counting:
    """Sends a lot, and knows how much it has got rid of."""

    def __init__(self) -> None:
        self.sent = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(EVENTS):
            await send({"type": "http.response.body", "body": b"x" * SIZE, "more_body": True})
            self.sent += SIZE
        await send({"type": "http.response.body", "body": b""})


@pytest.mark.parametrize("in_a_thread", [False, True])
async def test_what_is_not_fetched_is_bounded(in_a_thread: bool) -> None:
    app = Counting()
    fetched = 0
    async with asyncio.timeout(10):
        bounded = BackPressure(app, BYTES_MAX)
        async for messages in served(bounded, {"type": "http"}, in_a_thread=in_a_thread):
            waited = sum(len(message.get("body", b"")) for message in messages)
            assert waited <= BYTES_MAX + SIZE
            fetched += waited
            await settle()
            assert app.sent - fetched <= BYTES_MAX + SIZE
    assert fetched == app.sent == EVENTS * SIZE


async def test_without_a_proxy_nothing_waits() -> None:
    app, sent = Counting(), 0

    async def send(_: Any) -> None:
        nonlocal sent
        sent += 1

    await BackPressure(app, BYTES_MAX)({"type": "http"}, asyncio.Future, send)
    assert sent == EVENTS + 2


async def test_a_reader_whose_events_are_not_fetched_is_noticed(
    gateway: MemoryGateway, execution_id: str, key: str
) -> None:
    for _ in range(EVENTS):
        await gateway.append(execution_id, "task_progress", {"x": "y" * SIZE})
    app = build_event_stream_app(gateway, Settings(stream_send_timeout_s=0.2))
    context = app.state.context
    app.add_middleware(BackPressure, bytes_max=BYTES_MAX)  # type: ignore[arg-type]
    path = f"/events/harmonia/executions/{execution_id}"
    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": "GET",
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": b"",
        "headers": [(b"x-api-key", key.encode())],
    }
    answer = served(app, scope)
    await anext(answer)
    await eventually(lambda: context.slots.open == 1)
    await eventually(lambda: context.slots.open == gateway.subscribers == 0)
    text = context.observation.render({}).decode()
    assert 'dropped_total{reason="slow_consumer",surface="sse"} 1.0' in text
    rest = [message async for messages in answer for message in messages]
    assert sum(len(message.get("body", b"")) for message in rest) < BYTES_MAX + 300_000
