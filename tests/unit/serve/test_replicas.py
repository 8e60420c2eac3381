"""What a replica does that Serve has no setting for, as far as it can be seen without Serve."""

from __future__ import annotations

import asyncio

import pytest
import uvicorn
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from harmonia_actors.settings import Settings
from harmonia_serve.app import build_app
from harmonia_serve.replicas import bound_websocket_messages
from tests.unit.serve.conftest import Serve, eventually
from tests.unit.serve.gateway import MemoryGateway


async def test_a_large_message_is_refused_before_it_is_here(
    gateway: MemoryGateway,
    serve: Serve,
    execution_id: str,
    key: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(uvicorn, "Config", uvicorn.Config)  # To be put back at the end.
    bound_websocket_messages()
    app = build_app(gateway, Settings())
    async with serve(app) as served:
        url = f"{served.ws}/ws/harmonia/executions/{execution_id}"
        async with connect(url, additional_headers={"X-API-Key": key}, proxy=None) as socket:
            assert socket.protocol.extensions == []
            with pytest.raises(ConnectionClosed):
                # The end of it never comes.
                await socket.send(["x" * 10_000, "x" * 10_000], text=True)
                async with asyncio.timeout(10):
                    await socket.recv()
            assert socket.close_code == 1009
        await eventually(lambda: gateway.subscribers == app.state.context.slots.open == 0)
