"""A server that stops lets its streams go in good order: it says so itself, and cuts none off."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import pytest
from httpx_sse import EventSource
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from harmonia_actors.settings import Settings
from harmonia_serve.app import build_app
from tests.unit.serve.conftest import Serve, eventually
from tests.unit.serve.gateway import MemoryGateway

CLIENTS = 30


@pytest.mark.parametrize("query", ["", "?type=task_failed"])
async def test_a_websocket_is_told_where_to_resume(
    gateway: MemoryGateway, serve: Serve, execution_id: str, key: str, query: str
) -> None:
    app = build_app(gateway, Settings())
    url = f"/ws/harmonia/executions/{execution_id}{query}"
    options: Any = {"additional_headers": {"X-API-Key": key}, "proxy": None}

    told = 0

    async def follow(address: str) -> tuple[str, int, str]:
        nonlocal told
        async with connect(address + url, **options) as socket:
            try:
                last = ""
                while True:
                    message = json.loads(await socket.recv())
                    told += not last
                    last = str(message.get("seq") or message["cursor"])
            except ConnectionClosed as closed:
                assert closed.rcvd is not None
                return last, closed.rcvd.code, closed.rcvd.reason

    await gateway.append(execution_id, "execution_started", {})
    async with serve(app) as served:
        clients = [asyncio.ensure_future(follow(served.ws)) for _ in range(CLIENTS)]
        await eventually(lambda: told == CLIENTS)
        await gateway.append(execution_id, "task_progress", {})
        served.server.should_exit = True
        async with asyncio.timeout(5):
            for last, code, reason in await asyncio.gather(*clients):
                assert code == 1012
                assert reason.endswith(f"is going: resume with ?after={last}")
        await eventually(lambda: app.state.context.slots.open == gateway.subscribers == 0)


async def test_an_event_source_gets_a_whole_answer_and_resumes_elsewhere(
    gateway: MemoryGateway, serve: Serve, execution_id: str, key: str
) -> None:
    url = f"/events/harmonia/executions/{execution_id}"
    headers = {"X-API-Key": key}
    seqs: list[int] = []
    async with httpx.AsyncClient(headers=headers, timeout=10) as client:
        for kind in ("execution_started", "task_progress", "execution_completed"):
            await gateway.append(execution_id, kind, {})
            resume = {"Last-Event-ID": str(seqs[-1])} if seqs else {}
            async with (
                serve(build_app(gateway, Settings())) as served,
                client.stream("GET", served.http + url, headers=resume) as answer,
            ):
                # An answer that is not whole raises.
                async for event in EventSource(answer).aiter_sse():
                    seqs.append(int(event.id))
                    served.server.should_exit = True
    assert seqs == [1, 2, 3]


async def test_what_is_no_stream_ends_as_ever(gateway: MemoryGateway, serve: Serve) -> None:
    async with serve(build_app(gateway, Settings())) as served, httpx.AsyncClient() as client:
        assert (await client.get(f"{served.http}/health")).status_code == 200
        served.server.should_exit = True
        await eventually(lambda: not served.server.server_state.connections)
