"""What a server knows of a client's connection and ASGI has no word for.

ASGI cannot cut off a client that takes nothing in: a server that is told to close waits until all
that was sent has left, for ever if need be. Nor does it say that a server is about to stop, and
uvicorn then closes WebSockets itself, with nothing to resume after, and waits for event streams.
So uvicorn's own protocol classes are extended by a little: they put a `Connection` into the `state`
of each request, by which a stream can end it and learns that it is to end.

It needs uvicorn in this very process. Behind Ray Serve's proxy in Python that is the proxy's, where
`bound_proxy` lets the kernel end connections. This module must not know streams, settings or Ray.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from starlette.types import Scope

__all__ = [
    "UNREAD_VARIABLE",
    "Connection",
    "bound_proxy",
    "connection_of",
    "extend_uvicorn",
    "impatient",
    "protocols",
]

#: Milliseconds for which a client of Serve's proxy in Python may take nothing in.
UNREAD_VARIABLE: Final = "HARMONIA_PROXY_UNREAD_MS"

_KEY: Final = "harmonia.connection"
#: How often it is looked whether all that was sent has left. uvicorn alone is told of it.
_LOOK_S: Final = 0.05
#: Linger for no time: what is unsent is thrown away, and the other side is told at once.
_NO_LINGER: Final = struct.pack("ii", 1, 0)


class Connection:
    """One client's connection. Its methods may be called in any thread's loop."""

    def __init__(self, transport: asyncio.Transport) -> None:
        """To be made in the server's loop."""
        self._transport = transport
        self._loop = asyncio.get_running_loop()
        self._leave: Callable[[], object] | None = None

    def on_stop(self, leave: Callable[[], object]) -> None:
        """Call this, in this loop, when the server stops, which then leaves a WebSocket open."""
        self._leave = partial(asyncio.get_running_loop().call_soon_threadsafe, leave)

    def stop(self) -> bool:
        """The server stops; whether anybody is told, who then closes the connection."""
        if self._leave is None:
            return False
        self._leave()
        return True

    async def let_go(self, wait_s: float) -> None:
        """Wait until all that was sent has left, and end the connection if that takes longer."""
        clock = asyncio.get_running_loop().time
        ends = clock() + wait_s
        while self._transport.get_write_buffer_size():
            if clock() >= ends:
                self.abort()
                return
            await asyncio.sleep(_LOOK_S)

    def abort(self) -> None:
        """End the connection, whatever was not sent."""
        if asyncio.get_running_loop() is self._loop:
            self._abort()
        else:
            self._loop.call_soon_threadsafe(self._abort)

    def _abort(self) -> None:
        found = self._transport.get_extra_info("socket")
        if found is not None and found.fileno() >= 0:
            found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
        self._transport.abort()


def connection_of(scope: Scope) -> Connection | None:
    """The connection that a request came by, if the server tells."""
    found = scope.get("state", {}).get(_KEY)
    return found if isinstance(found, Connection) else None


def protocols() -> dict[str, type[asyncio.Protocol]]:
    """Options `http` and `ws` for uvicorn: its own classes, which tell of their connections."""
    from uvicorn.protocols.http.auto import AutoHTTPProtocol
    from uvicorn.protocols.websockets.auto import AutoWebSocketsProtocol

    http: Any = AutoHTTPProtocol
    websocket: Any = AutoWebSocketsProtocol
    if not issubclass(http, _TellingHttp):
        http = type("HttpConnection", (_TellingHttp, http), {})
        websocket = type("WebSocketConnection", (_TellingWebSocket, websocket), {})
    return {"http": http, "ws": websocket}


def extend_uvicorn() -> None:
    """Let every uvicorn that this process starts from now on use these classes.

    For who has no say in how uvicorn is started, like a replica of Ray Serve.
    """
    from uvicorn.protocols.http import auto as http
    from uvicorn.protocols.websockets import auto as websocket

    found = protocols()
    http.AutoHTTPProtocol = found["http"]
    websocket.AutoWebSocketsProtocol = found["ws"]


def impatient(protocol: type[Any], unread_ms: int) -> type[asyncio.Protocol]:
    """A protocol's class whose connections end once nothing that was sent is taken in for so long.

    The kernel does it, where it can (Linux); a WebSocket has the connection of its request.
    """

    class Impatient(protocol):  # type: ignore[misc]
        def connection_made(self, transport: asyncio.Transport) -> None:
            found = transport.get_extra_info("socket")
            if found is not None and hasattr(socket, "TCP_USER_TIMEOUT"):
                found.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, unread_ms)
            super().connection_made(transport)

    return Impatient


def bound_proxy() -> list[Any]:
    """Called by Serve before its proxy in Python listens; gives middlewares, of which it has none.

    A client that reads nothing would have its connection for ever: the proxy waits for it, and no
    replica can reach it.
    """
    from uvicorn.protocols.http import auto

    unread_ms = int(os.environ.get(UNREAD_VARIABLE, "0"))
    if unread_ms:
        auto.AutoHTTPProtocol = impatient(auto.AutoHTTPProtocol, unread_ms)
    return []


class _TellingHttp:
    """A connection for HTTP, which may become one for a WebSocket."""

    app_state: dict[str, Any]

    def connection_made(self, transport: asyncio.Transport) -> None:
        # Each request gets a copy of what lies there, and a WebSocket takes it over.
        self.app_state = {**self.app_state, _KEY: Connection(transport)}
        super().connection_made(transport)  # type: ignore[misc]

    def shutdown(self) -> None:
        super().shutdown()  # type: ignore[misc]
        self.app_state[_KEY].stop()


class _TellingWebSocket:
    """A connection for a WebSocket."""

    app_state: dict[str, Any]

    def shutdown(self) -> None:
        if not self.app_state[_KEY].stop():
            super().shutdown()  # type: ignore[misc]
