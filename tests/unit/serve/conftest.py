"""The surfaces with a gateway in memory: in the process, or behind a real server on a free port."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
import uvicorn
from fastapi import FastAPI
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from harmonia_actors.settings import Settings
from harmonia_serve.app import build_app
from harmonia_serve.connections import protocols
from tests.unit.serve.gateway import MemoryGateway

API = "/api/harmonia"


@pytest.fixture
def settings() -> Settings:
    return Settings()


@pytest.fixture
async def gateway() -> MemoryGateway:
    return MemoryGateway()


@pytest.fixture
def app(gateway: MemoryGateway, settings: Settings) -> FastAPI:
    return build_app(gateway, settings)


@pytest.fixture
def key(gateway: MemoryGateway) -> str:
    """A key that may do everything but manage keys."""
    return gateway.add_key("read", "execute", "write")


@pytest.fixture
async def client(app: FastAPI, key: str) -> AsyncIterator[httpx.AsyncClient]:
    """A client with a key, in the same process."""
    async with connect(app, key) as found:
        yield found


@asynccontextmanager
async def connect(app: FastAPI, key: str | None = None) -> AsyncIterator[httpx.AsyncClient]:
    """A client of an application in this process."""
    headers = {"X-API-Key": key} if key else {}
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(
        transport=transport, base_url="http://harmonia.test", headers=headers
    ) as found:
        yield found


@dataclass(frozen=True)
class Served:
    """An application behind uvicorn on a free port of loopback."""

    host: str
    server: uvicorn.Server

    @property
    def http(self) -> str:
        return f"http://{self.host}"

    @property
    def ws(self) -> str:
        return f"ws://{self.host}"


Serve = Callable[..., AbstractAsyncContextManager[Served]]


@pytest.fixture
def serve() -> Serve:
    return serve_app


@asynccontextmanager
async def serve_app(app: object, **options: object) -> AsyncIterator[Served]:
    """Run uvicorn in this loop, as a Ray Serve replica does, and stop it at the end."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    config = uvicorn.Config(
        app,  # type: ignore[arg-type]
        lifespan="off",
        log_config=None,
        timeout_graceful_shutdown=1,
        **{**protocols(), **options},  # type: ignore[arg-type]
    )
    server = uvicorn.Server(config)
    server.capture_signals = _no_signals  # type: ignore[method-assign,assignment]
    running = asyncio.ensure_future(server.serve(sockets=[listener]))
    try:
        async with asyncio.timeout(10):
            while not server.started:  # noqa: ASYNC110 - uvicorn has no event for it
                await asyncio.sleep(0.005)
        host, port = listener.getsockname()
        yield Served(f"{host}:{port}", server)
    finally:
        server.should_exit = True
        await running
        listener.close()


class _no_signals:  # noqa: N801 - stands in for a method
    """The server shares this process with the tests: signals are not its business."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, *_: object) -> None:
        return None


@pytest.fixture
async def workflow_id(gateway: MemoryGateway) -> str:
    workflow = await gateway.create_workflow(
        {"name": "small", "tasks": {"a": {"component": "ergon", "action": "execute_command"}}}
    )
    return str(workflow["workflow_id"])


@pytest.fixture
async def execution_id(gateway: MemoryGateway, workflow_id: str) -> str:
    reply = await gateway.execute(workflow_id, {}, {})
    return str(reply.document["execution_id"])


async def eventually(condition: Callable[[], bool]) -> None:
    """Wait until a condition holds, within a deadline."""
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - any condition, seen from outside
            await asyncio.sleep(0.005)


async def messages_of(socket: ClientConnection) -> tuple[list[dict[str, Any]], int, str]:
    """All messages until the close, its code and its reason."""
    messages = []
    try:
        async with asyncio.timeout(10):
            while True:
                messages.append(json.loads(await socket.recv()))
    except ConnectionClosed as closed:
        assert closed.rcvd is not None
        return messages, closed.rcvd.code, closed.rcvd.reason
