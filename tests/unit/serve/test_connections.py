"""A client's connection, as the server knows it, in the hands of an application."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from typing import Any

from starlette.types import Receive, Scope, Send

from harmonia_serve.connections import Connection, connection_of, impatient, protocols
from tests.unit.serve.conftest import Serve, eventually


class Flood:
    """Answers with more than the kernel takes for one connection, all at once."""

    def __init__(self) -> None:
        self.connection: Connection | None = None
        self.is_over = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"x" * 12_000_000, "more_body": True})
        self.connection = connection_of(scope)
        while (await receive())["type"] != "http.disconnect":
            pass
        self.is_over = True


async def test_a_connection_can_be_ended_from_the_loop_of_another_thread(serve: Serve) -> None:
    """A replica may run the application in a thread of its own."""
    app = Flood()
    async with serve(app) as served:
        host, port = served.host.split(":")
        _, writer = await asyncio.open_connection(host, int(port), limit=1_000)
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        await eventually(lambda: app.connection is not None)
        assert app.connection is not None
        await asyncio.to_thread(asyncio.run, app.connection.let_go(0.1))
        await eventually(lambda: app.is_over)
        writer.transport.abort()


async def test_the_kernel_ends_what_is_not_read_where_nobody_else_can(serve: Serve) -> None:
    """As in Serve's proxy in Python, which waits for its clients for ever."""
    app = Flood()
    async with serve(app, http=impatient(protocols()["http"], 300)) as served:
        host, port = served.host.split(":")
        _, writer = await asyncio.open_connection(host, int(port), limit=1_000)
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        await eventually(lambda: app.connection is not None)
        await eventually(lambda: app.is_over)
        writer.transport.abort()


def test_serves_proxy_is_bounded_by_a_variable() -> None:
    """In a process of its own, because it changes uvicorn for all of it."""
    program = (
        "from ray.serve._private.http_util import configure_http_middlewares;"
        "from ray.serve.config import HTTPOptions; from uvicorn.protocols.http import auto;"
        "configure_http_middlewares(HTTPOptions(middlewares=[]));"
        "print(auto.AutoHTTPProtocol.__name__)"
    )
    variables = {
        "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": "harmonia_serve.connections.bound_proxy",
        "HARMONIA_PROXY_UNREAD_MS": "40000",
    }
    done = subprocess.run(
        [sys.executable, "-c", program],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, **variables},
    )
    assert done.stdout.split()[-1] == "Impatient"


def test_without_such_a_server_there_is_no_connection() -> None:
    scope: Any = {"type": "http"}
    assert connection_of(scope) is None
    assert connection_of({**scope, "state": {"harmonia.connection": "of somebody else"}}) is None


def test_a_replica_has_no_say_in_how_its_server_is_made_but_gets_the_classes() -> None:
    """In a process of its own, because it changes uvicorn for all of it."""
    program = (
        "import uvicorn; from harmonia_serve.connections import extend_uvicorn, protocols;"
        "extend_uvicorn(); extend_uvicorn();"
        "config = uvicorn.Config('x:y'); config.load_app = lambda: None; config.load();"
        "found = config.http_protocol_class; assert found is protocols()['http'], found;"
        "assert found.__name__ == 'HttpConnection' and len(found.__mro__) < 8, found.__mro__"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
