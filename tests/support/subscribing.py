"""Subscribers of an execution's events as any client may write them: WebSocket and SSE."""

from __future__ import annotations

import contextlib
import json
import re
import socket
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

import httpx
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from tests.support.running import RunningService, parse_sse

__all__ = ["EventsByWebSocket", "by_sse", "by_websocket", "raw_sse", "refusal", "until_found"]

_WAIT_S = 60


class EventsByWebSocket:
    """Messages of one connection, parsed; `code` and `reason` once it was closed."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection
        self.code: int | None = None
        self.reason = ""

    def __iter__(self) -> Iterator[dict[str, Any]]:
        while True:
            try:
                text = self._connection.recv(timeout=_WAIT_S)
            except ConnectionClosed as closed:
                assert closed.rcvd is not None, "the connection broke"
                self.code, self.reason = closed.rcvd.code, closed.rcvd.reason
                return
            assert isinstance(text, str), "a binary message"
            message: dict[str, Any] = json.loads(text)
            yield message


@contextlib.contextmanager
def by_websocket(
    service: RunningService, path: str, *, key: str | None = None, query: str = ""
) -> Iterator[EventsByWebSocket]:
    """A connection to a path below `/ws/harmonia`; a key of "" sends none."""
    where = urlsplit(service.url)
    assert where.hostname
    secret = service.key if key is None else key
    # A socket of one's own, so that no proxy of the environment comes in between.
    link = socket.create_connection((where.hostname, where.port or 80), timeout=30)
    with connect(
        f"ws://{where.netloc}/ws/harmonia{path}{query}",
        sock=link,
        additional_headers={"X-API-Key": secret} if secret else {},
        max_size=None,
    ) as connection:
        yield EventsByWebSocket(connection)


def refusal(
    service: RunningService, path: str, *, key: str | None = None, query: str = ""
) -> tuple[int | None, str]:
    """The code and reason of a connection that is closed before anything was sent."""
    with by_websocket(service, path, key=key, query=query) as refused:
        assert list(refused) == []
        return refused.code, refused.reason


@contextlib.contextmanager
def by_sse(
    service: RunningService, execution_id: str, query: str = "", **headers: str
) -> Iterator[Iterator[dict[str, Any]]]:
    """Events of an open stream as {id, event, data}; it ends when the stream does.

    Without an execution it is the stream of all of them.
    """
    where = f"/{execution_id}" if execution_id else ""
    url = f"{service.url}/events/harmonia/executions{where}{query}"
    sent = {"X-API-Key": service.key, **headers}
    with httpx.stream("GET", url, headers=sent, timeout=_WAIT_S, trust_env=False) as answer:
        assert answer.status_code == 200, answer.read()
        assert answer.headers["content-type"].partition(";")[0] == "text/event-stream"
        yield parse_sse(answer.iter_lines())


def raw_sse(service: RunningService, execution_id: str) -> list[dict[str, str]]:
    """The blocks of a whole stream, field by field, as they were sent; comments left out.

    Raises AssertionError for a line that is neither a field nor a comment.
    """
    url = f"{service.url}/events/harmonia/executions/{execution_id}"
    answer = httpx.get(url, headers={"X-API-Key": service.key}, timeout=_WAIT_S, trust_env=False)
    assert answer.status_code == 200
    assert answer.text.endswith("\n\n")
    blocks = []
    for block in answer.text.split("\n\n"):
        lines = [line for line in block.split("\n") if line and not line.startswith(":")]
        for line in lines:
            assert re.match(r"(id|event|data|retry): ", line), line
        if lines:
            blocks.append(dict(line.split(": ", 1) for line in lines))
    return blocks


def until_found(
    events: Iterator[dict[str, Any]], matches: Callable[[dict[str, Any]], bool]
) -> list[dict[str, Any]]:
    """Events up to the first that matches, with it."""
    found = []
    for event in events:
        found.append(event)
        if matches(event):
            return found
    raise AssertionError(f"the stream ended without it, after {len(found)} events")
