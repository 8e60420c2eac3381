"""Back-pressure for a replica behind Serve's proxy in Python, where `send` never waits.

Whatever a replica sends is put into a queue, without a bound, from which the proxy fetches. So a
client that reads slowly would never be noticed: all of a long history would wait in that queue.
Here the queue counts what has not been fetched, and `send` waits while that is too much.

It ends there: with Serve's defaults its proxy fetches without end, whatever its clients read, and
this changes nothing. On clusters that Harmonia starts, proxy and replica talk by gRPC, which has
its own flow control. This module must not import Ray: it changes what a replica has loaded already.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterable
from contextvars import ContextVar
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["BackPressure", "Unfetched", "count_unfetched"]


class Unfetched:
    """Bytes of one answer that were sent and not fetched. A thread of its own may do either."""

    def __init__(self) -> None:
        self._sent = 0
        self._fetched = 0
        self._waiting: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []

    def note_sent(self, message: Message) -> None:
        """Count what the application has sent."""
        self._sent += _size(message)

    def note_fetched(self, messages: Iterable[Message]) -> None:
        """Count what the proxy has fetched."""
        self._fetched += sum(map(_size, messages))
        waiting, self._waiting = self._waiting, []
        for loop, fetched in waiting:
            loop.call_soon_threadsafe(fetched.set)

    async def room(self, bytes_max: int) -> None:
        """Wait until no more than that is left."""
        while self._sent - self._fetched > bytes_max:
            fetched = asyncio.Event()
            self._waiting.append((asyncio.get_running_loop(), fetched))
            # It may have been fetched in this moment, and nobody was told.
            if self._sent - self._fetched > bytes_max:
                await fetched.wait()


#: Of the request that is being served here, if the proxy fetches what is sent.
_UNFETCHED: ContextVar[Unfetched | None] = ContextVar("unfetched", default=None)


class BackPressure:
    """ASGI middleware: `send` waits while more than this is waiting to be fetched."""

    def __init__(self, app: ASGIApp, bytes_max: int) -> None:
        self._app = app
        self._bytes_max = bytes_max

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request or connection."""
        unfetched = _UNFETCHED.get()
        if unfetched is None:
            await self._app(scope, receive, send)
            return

        async def send_if_there_is_room(message: Message) -> None:
            await unfetched.room(self._bytes_max)
            unfetched.note_sent(message)
            await send(message)

        await self._app(scope, receive, send_if_there_is_room)


def count_unfetched() -> None:
    """Let the queues of this replica count. To be called in its constructor."""
    replica: Any = sys.modules["ray.serve._private.replica"]

    class CountingQueue(replica.MessageQueue):  # type: ignore[misc]
        """Made in the task that begins the one in which the application serves the request."""

        def __init__(self) -> None:
            super().__init__()
            self._unfetched = Unfetched()
            _UNFETCHED.set(self._unfetched)

        def get_messages_nowait(self) -> Any:
            messages = super().get_messages_nowait()
            self._unfetched.note_fetched(messages)
            return messages

    replica.MessageQueue = CountingQueue


def _size(message: Message) -> int:
    """Bytes of a body, or of a WebSocket's message, near enough."""
    if not isinstance(message, dict):
        return 0
    return len(message.get("body") or message.get("bytes") or message.get("text") or b"")
