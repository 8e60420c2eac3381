"""What a replica does that Serve has no setting for, as far as it can be seen without Serve."""

from __future__ import annotations

import asyncio
import json

import pytest
import uvicorn
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from harmonia_actors.settings import Settings
from harmonia_serve.app import build_app
from harmonia_serve.ingress import _PINGED_S
from harmonia_serve.replicas import bound_websocket_messages
from tests.unit.serve.conftest import Serve, eventually
from tests.unit.serve.gateway import MemoryGateway
from tests.unit.serve.test_slow_readers import stalled


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


async def test_who_answers_no_ping_is_gone_and_who_does_stays(
    gateway: MemoryGateway, serve: Serve, execution_id: str, key: str
) -> None:
    app = build_app(gateway, Settings())
    slots = app.state.context.slots
    url = f"/ws/harmonia/executions/{execution_id}"
    async with (
        serve(app, ws_ping_interval=0.2, ws_ping_timeout=0.5) as served,
        stalled(served, "ws", execution_id, key),
        connect(served.ws + url, additional_headers={"X-API-Key": key}, proxy=None) as socket,
    ):
        await eventually(lambda: slots.open == 2)
        await eventually(lambda: slots.open == 1)
        async with asyncio.timeout(10):
            await (await socket.ping())
        await gateway.append(execution_id, "execution_completed", {})
        assert json.loads(await socket.recv())["seq"] == 1


def test_a_replica_pings_as_often_as_the_front_waits_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody sets it: this is the default of the server, which Serve leaves as it is."""
    monkeypatch.setattr(uvicorn, "Config", uvicorn.Config)  # To be put back at the end.
    bound_websocket_messages()
    config = uvicorn.Config(lambda: None)  # type: ignore[arg-type]
    assert config.ws_ping_interval is not None
    assert config.ws_ping_timeout is not None
    # One ping may get lost.
    assert 2 * config.ws_ping_interval + config.ws_ping_timeout <= _PINGED_S
