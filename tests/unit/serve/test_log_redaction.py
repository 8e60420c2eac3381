"""A key in a query string reaches no log, whatever the server writes and how much of it (S5)."""

from __future__ import annotations

import asyncio
import logging

import httpx
import pytest
from fastapi import FastAPI
from starlette.types import Receive, Scope, Send
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from harmonia_actors.settings import Settings
from harmonia_serve.app import build_app
from harmonia_serve.log_redaction import logging_filter, silence_query_strings
from tests.unit.serve.conftest import Serve
from tests.unit.serve.gateway import MemoryGateway

TRACE = 5


class Sieve(logging.Handler):
    """Keeps every record of the process as the text that would be written."""

    def __init__(self) -> None:
        super().__init__(TRACE)
        self.lines: list[str] = []
        self.setFormatter(logging.Formatter("%(name)s %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))


@pytest.fixture
def sieve(monkeypatch: pytest.MonkeyPatch) -> Sieve:
    """Everything the process logs, at the finest level."""
    found = Sieve()
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [*root.handlers, found])
    for name in (None, "uvicorn", "uvicorn.error", "uvicorn.access", "uvicorn.asgi", "websockets"):
        logger = logging.getLogger(name)
        monkeypatch.setattr(logger, "level", TRACE)
        monkeypatch.setattr(logger, "filters", list(logger.filters))
        logger.manager._clear_cache()  # type: ignore[attr-defined]
    return found


class InAnotherProcess:
    """A proxy: the server logs its own scope, the application is given a copy of it."""

    def __init__(self, app: FastAPI) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(dict(scope), receive, send)


@pytest.mark.parametrize("apart", [False, True], ids=["one process", "behind a proxy"])
@pytest.mark.parametrize("name", ["api_key", "API_KEY", "api%5Fkey", "%61pi_key"])
async def test_a_canary_key_is_in_no_line_of_the_log(
    gateway: MemoryGateway,
    execution_id: str,
    serve: Serve,
    sieve: Sieve,
    *,
    apart: bool,
    name: str,
) -> None:
    silence_query_strings()
    canary = gateway.add_key("read")
    await gateway.append(execution_id, "execution_completed", {})
    app = build_app(gateway, Settings())
    shown = InAnotherProcess(app) if apart else app
    async with serve(shown, log_level=TRACE) as served, httpx.AsyncClient() as client:
        for key in (canary, canary + "x"):
            query = f"after=0&{name}={key}&x=%20"
            for path in ("/events/harmonia/executions/", "/api/harmonia/executions/", "/"):
                await client.get(f"{served.http}{path}{execution_id}?{query}")
            url = f"{served.ws}/ws/harmonia/executions/{execution_id}?{query}"
            async with connect(url, proxy=None) as socket, asyncio.timeout(10):
                with pytest.raises(ConnectionClosed):
                    while True:
                        await socket.recv()
    from_server = [line for line in sieve.lines if line.startswith("uvicorn")]
    assert any("WebSocket /ws/harmonia/" in line for line in from_server)
    assert any("GET /events/harmonia/" in line for line in from_server)
    # The trace of the scope as it came shows that there was something to take out.
    assert any("=***" in line for line in from_server)
    # The client of the test is in the same process, and logs what it sends.
    mine = ("httpx", "httpcore", "websockets.client")
    leaks = [line for line in sieve.lines if canary in line and not line.startswith(mine)]
    assert leaks == []


@pytest.mark.parametrize(
    ("message", "arguments", "expected"),
    [
        ("GET /x?api_key=s3cret HTTP/1.1", (), "GET /x?api_key=*** HTTP/1.1"),
        ("%s", ("/x?a=1&api_key=s3cret&b=2",), "/x?a=1&api_key=***&b=2"),
        ("%s", (b"api_key=s3cret",), "b'api_key=***'"),
        ("%s", ({"query_string": b"api_key=s3cret"},), """{'query_string': "b'api_key=***'"}"""),
        ("%(path)s", ({"path": "/x?Api_Key=s3cret"},), "/x?Api_Key=***"),
        ("%d of %s", (3, None), "3 of None"),
        ("/x?monkey=1&key=2", (), "/x?monkey=1&key=2"),
    ],
)
def test_the_filter_takes_out_the_value_and_nothing_else(
    message: str, arguments: tuple[object, ...], expected: str
) -> None:
    record = logging.LogRecord("x", logging.INFO, "x", 1, message, arguments, None)
    assert logging_filter().filter(record)
    assert record.getMessage() == expected


def test_silencing_twice_adds_one_filter() -> None:
    silence_query_strings()
    silence_query_strings()
    assert logging.getLogger("uvicorn.error").filters.count(logging_filter()) == 1
