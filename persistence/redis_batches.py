"""Commits that arrive while one round trip is under way go out together in the next.

The server makes one fsync for all that one batch writes, so this is where group commit across
executions comes from. This module must not know what a commit is.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from persistence.errors import StoreUnavailable
from persistence.redis_client import Argument

__all__ = ["Batches"]

Call = Sequence[Argument]


class Batches:
    """Sends calls in order, one batch at a time.

    `send` makes one round trip with all calls it is given and returns a reply for each. Callers
    bound what waits here: each has one call under way.
    """

    def __init__(
        self,
        send: Callable[[Sequence[Call]], Awaitable[list[Any]]],
        *,
        calls_max: int,
        bytes_max: int,
    ) -> None:
        self._send = send
        self._calls_max = calls_max
        self._bytes_max = bytes_max
        self._waiting: deque[tuple[Call, asyncio.Future[Any]]] = deque()
        self._sending: asyncio.Task[None] | None = None

    async def run(self, call: Call) -> Any:
        """Send a call with whatever else is waiting; its reply, which may be an error object."""
        reply: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting.append((call, reply))
        if self._sending is None:
            self._sending = asyncio.create_task(self._drain())
        return await reply

    async def close(self) -> None:
        """Wait until nothing is under way."""
        if self._sending is not None:
            await self._sending

    async def _drain(self) -> None:
        batch: list[tuple[Call, asyncio.Future[Any]]] = []
        try:
            while self._waiting:
                batch = self._take()
                try:
                    replies = await self._send([call for call, _ in batch])
                except Exception as error:  # each caller raises it again
                    replies = [_copy(error) for _ in batch]
                for (_, reply), value in zip(batch, replies, strict=True):
                    if not reply.done():  # its caller may have been cancelled
                        reply.set_result(value)
        finally:
            self._sending = None
            # Only if this task was cancelled, with its loop: nobody may wait for ever.
            for _, reply in [*batch, *self._waiting]:
                reply.cancel()
            self._waiting.clear()

    def _take(self) -> list[tuple[Call, asyncio.Future[Any]]]:
        batch: list[tuple[Call, asyncio.Future[Any]]] = []
        size = 0
        while self._waiting and len(batch) < self._calls_max and size < self._bytes_max:
            call, reply = self._waiting.popleft()
            size += sum(len(part) for part in call if isinstance(part, bytes))
            batch.append((call, reply))
        return batch


def _copy(error: Exception) -> Exception:
    # One exception object raised in several tasks would mix up their tracebacks.
    return StoreUnavailable(str(error)) if isinstance(error, StoreUnavailable) else error
