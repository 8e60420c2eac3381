"""The rest of a request's body when its answer is ready: what nobody has read and nobody will.

A refusal comes before the body: a bad key, an unknown path, a wrong method. Servers then read on
and throw away what comes, for as long as the client likes to send, and anybody may be that client.
Closing at once is no way out either: whoever sends all he has before he reads would never see the
answer. So a short rest is read and the connection kept; otherwise the answer is sent with
`Connection: close`, the rest is read for a while, and then the connection ends.
This module must not know what is in a body.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import Message, Receive, Scope, Send

__all__ = ["UnreadBody"]

#: A rest that is here by now is read before the answer, so that the connection can be kept.
_AT_ONCE_BYTES: Final = 1_000_000
_AT_ONCE_S: Final = 0.05
#: What is read after an answer, at most: more than the largest body that is taken by default.
_LINGER_BYTES: Final = 16_000_000
_LINGER_S: Final = 2.0


class UnreadBody:
    """The two directions of one exchange, with an eye on how far the body has been read."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope)
        self._receive = receive
        self._send = send
        self._left = "transfer-encoding" in headers or headers.get("content-length", "0") != "0"
        # Reading would tell a client to send that still waits whether it should.
        self._waits = "expect" in headers
        self._closes = False

    async def receive(self) -> Message:
        """The next message from the client."""
        message = await self._receive()
        self._left = message["type"] == "http.request" and bool(message.get("more_body"))
        return message

    async def send(self, message: Message) -> None:
        """Send a message of the answer; see to the rest of the body before and after it."""
        if message["type"] == "http.response.start" and self._left:
            headers = MutableHeaders(raw=list(message.get("headers", [])))
            # Whoever closes by himself has seen to the rest.
            if "connection" not in headers:
                await self._settle(headers)
            message = {**message, "headers": headers.raw}
        elif self._closes and not message.get("more_body"):
            await self._send({**message, "more_body": True})
            await self._read_on(_LINGER_BYTES, _LINGER_S)
            message = {"type": "http.response.body", "body": b""}
        await self._send(message)

    async def _settle(self, headers: MutableHeaders) -> None:
        if not self._waits:
            await self._read_on(_AT_ONCE_BYTES, _AT_ONCE_S)
        if self._left:
            headers["Connection"] = "close"
            self._closes = True

    async def _read_on(self, bytes_max: int, seconds: float) -> None:
        """Read the rest and keep nothing, within these bounds."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self._left and bytes_max > 0:
                    message = await self.receive()
                    bytes_max -= len(message.get("body", b""))
