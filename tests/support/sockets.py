"""WebSockets as a plain client opens them: what came and how it ended."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from tests.support.running import RunningService

__all__ = ["ending", "open_socket", "until_closed"]

Headers = Mapping[str, str] | Sequence[tuple[str, str]]


@contextmanager
def open_socket(
    service: RunningService, execution_id: str, headers: Headers = (), query: str = ""
) -> Iterator[ClientConnection]:
    """A WebSocket on an execution's events."""
    url = f"ws{service.url.removeprefix('http')}/ws/harmonia/executions/{execution_id}{query}"
    with connect(url, additional_headers=headers, proxy=None, open_timeout=30) as socket:
        yield socket


def until_closed(socket: ClientConnection, timeout_s: float = 60) -> tuple[int, list[Any]]:
    """All messages until the service closes, and its close code."""
    messages = []
    try:
        while True:
            messages.append(json.loads(socket.recv(timeout=timeout_s)))
    except ConnectionClosed as closed:
        assert closed.rcvd is not None, "the connection broke off without a close"
        return closed.rcvd.code, messages


def ending(
    service: RunningService, execution_id: str, headers: Headers = (), query: str = ""
) -> tuple[int, list[Any]]:
    """Open a WebSocket and read it to its end."""
    with open_socket(service, execution_id, headers, query) as socket:
        return until_closed(socket)
