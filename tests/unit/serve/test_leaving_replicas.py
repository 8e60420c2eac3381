"""A replica that is taken away lets its streams go in good order: each is told where to resume."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence

import httpx
import pytest
from fastapi import FastAPI
from websockets.asyncio.client import connect

from harmonia_actors.core.cursors import Cursor
from harmonia_actors.core.requests import LoggedEvent
from harmonia_actors.settings import Settings
from harmonia_serve.app import build_app
from harmonia_serve.streams import StreamSlots
from tests.unit.serve.conftest import Serve, Served, eventually, messages_of
from tests.unit.serve.gateway import MemoryGateway

SLOW = Settings(stream_heartbeat_s=3_600)


def web_socket(served: Served, path: str, key: str) -> connect:
    url = f"{served.ws}/ws/harmonia/executions{path}"
    return connect(url, additional_headers={"X-API-Key": key}, proxy=None)


def slots_of(app: FastAPI) -> StreamSlots:
    found: StreamSlots = app.state.context.slots
    return found


@pytest.fixture
def leaving(gateway: MemoryGateway) -> FastAPI:
    return build_app(gateway, SLOW)


async def test_streams_end_at_once_and_go_on_elsewhere(
    gateway: MemoryGateway, leaving: FastAPI, serve: Serve, execution_id: str, key: str
) -> None:
    await gateway.append(execution_id, "execution_started", {})
    path = f"/{execution_id}"
    events_path = f"/events/harmonia/executions/{execution_id}"
    async with (
        serve(leaving) as served,
        serve(build_app(gateway, SLOW)) as other,
        httpx.AsyncClient(headers={"X-API-Key": key}, timeout=10) as client,
    ):
        async with (
            web_socket(served, path, key) as socket,
            client.stream("GET", served.http + events_path) as answer,
        ):
            assert json.loads(await socket.recv())["seq"] == 1
            chunks = answer.aiter_text()
            text = ""
            while "execution_started" not in text:
                text += await anext(chunks)
            slots_of(leaving).close()
            text += "".join([chunk async for chunk in chunks])
            messages, code, reason = await messages_of(socket)
        assert (messages, code) == ([], 1012)
        assert reason == "this replica of the service is going: resume with ?after=1"
        assert text.count("event: ") == 1
        await eventually(lambda: slots_of(leaving).open == gateway.subscribers == 0)
        await gateway.append(execution_id, "execution_completed", {})
        async with web_socket(other, f"{path}?after=1", key) as socket:
            messages, code, _ = await messages_of(socket)
        assert ([message["seq"] for message in messages], code) == ([2], 1000)
        rest = await client.get(other.http + events_path, headers={"Last-Event-ID": "1"})
        assert rest.text.count("event: ") == 1


async def test_whoever_comes_too_late_is_told_to_try_again(
    gateway: MemoryGateway, leaving: FastAPI, serve: Serve, execution_id: str, key: str
) -> None:
    slots_of(leaving).close()
    async with serve(leaving) as served, httpx.AsyncClient(headers={"X-API-Key": key}) as client:
        async with web_socket(served, f"/{execution_id}", key) as socket:
            messages, code, reason = await messages_of(socket)
        assert (messages, code) == ([], 1013)
        assert "is going" in reason
        answer = await client.get(f"{served.http}/events/harmonia/executions/{execution_id}")
        assert answer.status_code == 503
        assert answer.headers["retry-after"] == "1"
    assert gateway.subscribers == slots_of(leaving).open == 0


async def test_what_was_passed_over_is_not_gone_through_again(
    gateway: MemoryGateway, leaving: FastAPI, serve: Serve, execution_id: str, key: str
) -> None:
    """Nothing passes its filter, and yet it resumes from where the stream has come to."""
    await gateway.append(execution_id, "execution_started", {})
    async with (
        serve(leaving) as served,
        web_socket(served, f"/{execution_id}?type=task_failed", key) as socket,
    ):
        told = [json.loads(await socket.recv())]
        await gateway.append(execution_id, "task_started", {"task_name": "a"})
        slots_of(leaving).close()
        messages, code, reason = await messages_of(socket)
    told += messages
    assert {message["type"] for message in told} == {"cursor"}
    assert code == 1012
    assert reason.endswith(f"resume with ?after={told[-1]['cursor']}")


class Asleep(MemoryGateway):
    """Its store has not said yet where the log of all executions ends."""

    async def installation_events(
        self, *, after: Cursor | None, follow: bool, workflow_id: str | None
    ) -> AsyncIterator[Sequence[LoggedEvent]]:
        await asyncio.Event().wait()
        yield ()


@pytest.mark.parametrize(
    ("query", "says"),
    [("", ""), ("?after=0", ": resume with ?after=0"), ("?after=9-3", ": resume with ?after=9-3")],
)
async def test_whoever_wants_what_comes_is_not_sent_back_to_the_beginning(
    serve: Serve, query: str, says: str
) -> None:
    """It was told no cursor yet; 0 would be all that is kept."""
    gateway = Asleep()
    app = build_app(gateway, SLOW)
    async with (
        serve(app) as served,
        web_socket(served, query, gateway.add_key("read")) as socket,
    ):
        await eventually(lambda: slots_of(app).open == 1)
        slots_of(app).close()
        messages, code, reason = await messages_of(socket)
    assert (messages, code, reason) == ([], 1012, f"this replica of the service is going{says}")
