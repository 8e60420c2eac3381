"""The outermost layer of every surface: what holds for each request, whatever it asks for.

It takes query keys out of the scope before anything sees it, works out the path under any
mounting, turns every error into the one envelope or a close code, sets the security headers, ends
what nobody reads and counts. This module must not know routes, keys or the gateway.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from typing import Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocketDisconnect

from harmonia_actors.core.errors import HarmoniaError
from harmonia_serve.credentials import take_query_keys
from harmonia_serve.observation import Observation
from harmonia_serve.problems import (
    CLOSE_ENDED,
    CLOSE_INTERNAL,
    close_code,
    log_unexpected,
    problem_response,
    unexpected_response,
)
from harmonia_serve.unread_bodies import UnreadBody

__all__ = ["DIRECT", "QUERY_KEYS", "Boundary", "close_reason", "surface_path"]

_log = logging.getLogger(__name__)

#: Where the keys that were in the query string wait in the scope for authentication.
QUERY_KEYS: Final = "harmonia.query_keys"
#: Where the scope has the server's own send. Between it and a route's lie half a dozen calls, which
#: have nothing to say to the messages of a stream that has begun, and there may be thousands.
DIRECT: Final = "harmonia.direct_send"

#: What every answer carries unless the route says otherwise.
_HEADERS: Final = (
    ("X-Content-Type-Options", "nosniff"),
    ("Cache-Control", "no-store"),
    ("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'"),
    ("Referrer-Policy", "no-referrer"),
)
#: A client that reads nothing is not waited for longer when its connection is closed.
_CLOSE_S_MAX: Final = 5.0
_CLIENT_CLOSED: Final = 499
#: What RFC 6455 calls a connection that was closed without a code, or not closed at all.
_CLOSE_NO_CODE: Final = 1005
_CLOSE_ABNORMAL: Final = 1006
_UNMATCHED: Final = "unmatched"


def surface_path(path: str, root_path: str, prefix: str) -> str:
    """The full path of a request, as the routes have it, under whatever root it is mounted.

    Servers that follow Starlette's rule leave the mount point in `path` and name it in
    `root_path`; older ones take it out. `prefix` is the surface's own mount point, which may be
    the end of `root_path` (Ray Serve's route prefix) or not be in it at all.
    """
    root = root_path.rstrip("/")
    if not root:
        return path
    mounted = bool(prefix) and root.endswith(prefix)
    if path == root or path.startswith(root + "/"):
        rest = path[len(root) :]
        return prefix + rest if mounted else rest
    if mounted and not (path == prefix or path.startswith(prefix + "/")):
        return prefix + path
    return path


def close_reason(message: str) -> str:
    """A message cut to the 123 bytes that a close frame may carry."""
    return message.encode()[:123].decode("utf-8", "ignore")


class Boundary:
    """ASGI middleware; `prefix` is the path below which the surface's routes lie."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        prefix: str,
        observation: Observation,
        readable: Callable[[Headers], Mapping[str, str]],
    ) -> None:
        """`readable`: headers by which the page that a request is of may read why it is refused."""
        self._app = app
        self._prefix = prefix
        self._observation = observation
        self._readable = readable

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request or connection."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        keys = take_query_keys(scope)
        path = surface_path(scope["path"], scope.get("root_path", ""), self._prefix)
        inner = {**scope, "path": path, "root_path": "", QUERY_KEYS: keys}
        if scope["type"] == "http":
            await self._serve_http(inner, receive, send)
        else:
            await self._serve_websocket(inner, receive, send)

    async def _serve_http(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = time.perf_counter()
        status = 0
        method = scope["method"]
        if method == "HEAD":
            # As GET, for whatever route, but for the body.
            scope = {**scope, "method": "GET"}
            send = _without_body(send)
        scope[DIRECT] = send
        exchange = UnreadBody(scope, receive, send)

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(raw=list(message.get("headers", [])))
                for name, value in _HEADERS:
                    headers.setdefault(name, value)
                message = {**message, "headers": headers.raw}
            await exchange.send(message)

        try:
            try:
                await self._app(scope, exchange.receive, send_with_headers)
            except HarmoniaError as error:
                if status:
                    raise
                answer = self._refusal(problem_response(error), scope)
                await answer(scope, exchange.receive, send_with_headers)
        except (ClientDisconnect, _BodyLeftOut):
            status = status or _CLIENT_CLOSED
        except Exception as error:
            error_id = log_unexpected(error, f"{method} {_route(scope)}")
            if status:
                # The answer is under way: all that can be said now is that it is not whole.
                raise
            answer = self._refusal(unexpected_response(error_id), scope)
            await answer(scope, exchange.receive, send_with_headers)
        finally:
            self._note(method, scope, status, time.perf_counter() - started)

    def _refusal(self, answer: Response, scope: Scope) -> Response:
        answer.headers.update(self._readable(Headers(scope=scope)))
        return answer

    async def _serve_websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refusals are an accept and a close, so that browsers can see the code."""
        started = time.perf_counter()
        link = _Link(receive, send)
        scope[DIRECT] = send
        try:
            await self._app(scope, link.receive, link.send)
        except HarmoniaError as error:
            await link.close(close_code(error), error.message)
        except WebSocketDisconnect:
            pass
        except Exception as error:
            error_id = log_unexpected(error, f"WebSocket {_route(scope)}")
            await link.close(CLOSE_INTERNAL, f"unexpected error {error_id}")
        finally:
            self._note("WS", scope, link.code, time.perf_counter() - started)

    def _note(self, method: str, scope: Scope, status: int, seconds: float) -> None:
        self._observation.note_request(method, _route(scope), status, seconds)
        _log.debug("%s %r: %d in %.4f s", method, scope["path"], status, seconds)


class _BodyLeftOut(OSError):
    """The answer to a HEAD is whole; what makes its body need not go on."""


def _without_body(send: Send) -> Send:
    async def send_head(message: Message) -> None:
        if message["type"] == "http.response.start":
            await send(message)
            await send({"type": "http.response.body", "body": b""})
        elif message.get("more_body"):
            raise _BodyLeftOut

    return send_head


class _Link:
    """A WebSocket's two directions, with a note of how far it has come.

    `code` is the one that it was closed with, from whichever side came first.
    """

    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive = receive
        self._send = send
        self._asked = self._accepted = self._closed = False
        self.code = _CLOSE_ABNORMAL

    async def receive(self) -> Message:
        message = await self._receive()
        self._asked = True
        if message["type"] == "websocket.disconnect" and not self._closed:
            self.code = message.get("code") or _CLOSE_NO_CODE
        return message

    async def send(self, message: Message) -> None:
        self._accepted = self._accepted or message["type"] == "websocket.accept"
        if message["type"] == "websocket.close" and not self._closed:
            self._closed = True
            self.code = message.get("code", CLOSE_ENDED)
        await self._send(message)

    async def close(self, code: int, message: str) -> None:
        """Accept if that has not been done, and close, unless the client has gone."""
        if self._closed:
            return
        try:
            async with asyncio.timeout(_CLOSE_S_MAX):
                if not self._asked:
                    await self.receive()
                if not self._accepted:
                    await self.send({"type": "websocket.accept"})
                reason = close_reason(message)
                await self.send({"type": "websocket.close", "code": code, "reason": reason})
        except (OSError, RuntimeError):
            # The connection is no more (servers raise either), or it takes nothing in any more.
            return


def _route(scope: Scope) -> str:
    return str(getattr(scope.get("route"), "path", _UNMATCHED))
