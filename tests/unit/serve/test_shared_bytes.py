"""What thousands are sent is made once: the server gets the very same object for each of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from harmonia_actors.settings import Settings
from harmonia_serve.app import build_app
from harmonia_serve.gateway import StreamEvent
from tests.support.scripted_actors import settle
from tests.unit.runtime.event_hub_rig import Log, World
from tests.unit.serve.conftest import eventually
from tests.unit.serve.gateway import MemoryGateway

EXECUTION = "exec-123e4567-e89b-12d3-a456-426614174001"


class Hubbed(MemoryGateway):
    """Its events come from the real hub."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self._world = world

    def events(
        self, execution_id: str, *, after: int, part: int = 0
    ) -> AsyncIterator[Sequence[StreamEvent]]:
        return self._world.hub.events(execution_id, after=after, part=part)


class Client:
    """One connection, as the application sees its server. `sent` has the objects themselves."""

    def __init__(self, app: Any, kind: str, query: str, key: str) -> None:
        surface = {"websocket": "ws", "http": "events"}[kind]
        path = f"/{surface}/harmonia/executions/{EXECUTION}"
        scope = {
            "type": kind,
            "method": "GET",
            "path": path,
            "raw_path": path.encode(),
            "query_string": query.encode(),
            "headers": [(b"x-api-key", key.encode())],
            "client": ("127.0.0.1", 1),
        }
        self.sent: list[Any] = []
        self._told = 0
        self.task = asyncio.ensure_future(app(scope, self._receive, self._send))

    async def _receive(self) -> dict[str, Any]:
        self._told += 1
        if self._told > 1:
            await asyncio.Event().wait()
        return {"type": "websocket.connect"}

    async def _send(self, message: dict[str, Any]) -> None:
        self.sent.append(message.get("text") or message.get("body"))


async def sent(clients: Sequence[Client]) -> None:
    """Wait until all have been sent what there is."""
    await eventually(lambda: all(client.sent for client in clients))
    await settle(20)


@pytest.mark.parametrize("kind", ["websocket", "http"])
@pytest.mark.parametrize("query", ["", "logs=true"])
async def test_the_bytes_of_an_event_are_made_once_for_all_clients(kind: str, query: str) -> None:
    world = World()
    log = Log(world.store, world.sink, EXECUTION)
    await log.create()
    gateway = Hubbed(world)
    app = build_app(gateway, Settings())
    key = gateway.add_key("read")
    clients = [Client(app, kind, query, key) for _ in range(5)]
    await eventually(lambda: bool(world.feed.pulls))
    await settle(20)
    for client in clients:
        client.sent.clear()
    # The first chunk of an event stream carries what only that needs.
    await log.commit(1, lines=1)
    await sent(clients)
    for client in clients:
        client.sent.clear()
    await log.commit(3, lines=1)
    await sent(clients)
    ids = [[id(one) for one in client.sent] for client in clients]
    assert all(found == ids[0] for found in ids)
    for client in clients:
        client.task.cancel()
    await asyncio.gather(*(client.task for client in clients), return_exceptions=True)
    await world.hub.close()
