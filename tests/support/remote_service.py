"""A service with remote components, as somebody else would write one: a real server, on loopback.

What an action does is a function of the request that a test registers; what was asked is kept.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import Future
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from tests.unit.serve.conftest import serve_app

__all__ = [
    "RemoteServer",
    "answering",
    "ndjson",
    "raw_server",
    "serve_remote",
    "served_in_a_thread",
]

Act = Callable[[Request], Awaitable[Response]]

#: Any object will do.
OPEN: dict[str, Any] = {"type": "object"}


@dataclass
class RemoteServer:
    """What it offers, what its actions do, and what it was asked."""

    url: str = ""
    name: str = "far"
    schemas: dict[str, dict[str, Any]] = field(default_factory=dict)
    acts: dict[str, Act] = field(default_factory=dict)
    #: Instead of the catalogue that follows from the above.
    catalogue: Act | None = None
    asked: list[tuple[str, dict[str, str], Any]] = field(default_factory=list)
    disconnected: asyncio.Event = field(default_factory=asyncio.Event)

    def action(self, name: str, act: Act, schema: dict[str, Any] | None = None) -> None:
        self.acts[name] = act
        self.schemas[name] = schema or OPEN

    def document(self) -> dict[str, Any]:
        actions = {
            name: {"description": f"Does {name}", "input_schema": schema}
            for name, schema in self.schemas.items()
        }
        component = {"description": "Far away", "actions": actions}
        return {"components": {self.name: component}}

    async def tell_catalogue(self, request: Request) -> Response:
        self.asked.append(("GET", dict(request.headers), None))
        if self.catalogue is not None:
            return await self.catalogue(request)
        return JSONResponse(self.document())

    async def act(self, request: Request) -> Response:
        body = json.loads(await request.body())
        self.asked.append((request.url.path, dict(request.headers), body))
        return await self.acts[request.path_params["action"]](request)

    def held(self, *first: Any) -> Act:
        """An action that streams these lines, then nothing until nobody listens any more."""

        async def lines() -> AsyncIterator[bytes]:
            try:
                for line in first:
                    yield _line(line)
                await asyncio.Event().wait()
            finally:
                self.disconnected.set()

        async def act(_: Request) -> Response:
            return StreamingResponse(lines(), media_type="application/x-ndjson")

        return act

    def app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/parts", self.tell_catalogue),
                Route("/parts/{component}/{action}", self.act, methods=["POST"]),
            ]
        )


@asynccontextmanager
async def serve_remote() -> AsyncIterator[RemoteServer]:
    """Run it on a free port, below a path of its own."""
    server = RemoteServer()
    async with serve_app(server.app()) as served:
        server.url = f"{served.http}/parts"
        yield server


@contextmanager
def served_in_a_thread(app: Any) -> Iterator[str]:
    """Run an application in a thread of its own, for callers that wait; its URL."""
    begun: Future[tuple[str, asyncio.AbstractEventLoop, asyncio.Event]] = Future()

    async def serve() -> None:
        end = asyncio.Event()
        async with serve_app(app) as served:
            begun.set_result((served.http, asyncio.get_running_loop(), end))
            await end.wait()

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    url, loop, end = begun.result(30)
    try:
        yield url
    finally:
        loop.call_soon_threadsafe(end.set)
        thread.join(30)


def answering(content: Any, status: int = 200, **headers: str) -> Act:
    """An action that answers this: JSON, or bytes as they are."""

    async def act(_: Request) -> Response:
        if isinstance(content, bytes):
            return Response(content, status, headers=headers)
        return JSONResponse(content, status, headers=headers)

    return act


def ndjson(*lines: Any) -> Act:
    """An action that streams these lines: JSON, or bytes as they are."""

    async def stream() -> AsyncIterator[bytes]:
        for line in lines:
            yield _line(line)

    async def act(_: Request) -> Response:
        return StreamingResponse(stream(), media_type="application/x-ndjson; charset=utf-8")

    return act


def _line(line: Any) -> bytes:
    return line if isinstance(line, bytes) else json.dumps(line).encode() + b"\n"


@asynccontextmanager
async def raw_server(*pieces: bytes, then_wait: bool = False) -> AsyncIterator[str]:
    """A server that says these bytes to whoever connects, and closes; its URL."""
    over = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
            if then_wait:
                await over.wait()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        host, port = server.sockets[0].getsockname()[:2]
        yield f"http://{host}:{port}"
    finally:
        over.set()
        server.close()
        await server.wait_closed()
