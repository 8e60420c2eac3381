"""Calls that arrive while all lanes are busy go out together in the next round trip.

The server makes one fsync for all that one batch writes, so this is where group commit across
executions comes from; and a round trip costs a client more than most commands cost the server.
This module must not know what a call is.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from persistence.errors import StoreUnavailable

__all__ = ["Batches"]

Call = TypeVar("Call")


@dataclass(frozen=True, slots=True)
class _Waiting(Generic[Call]):
    call: Call
    size: int
    reply: asyncio.Future[Any]
    since_s: float


class Batches(Generic[Call]):
    """Sends calls in the order in which they came, up to `lanes` batches at a time.

    `send` makes one round trip with all calls it is given and returns a reply for each. Callers
    bound what waits here: each has one call under way. One that had no turn for `wait_ms` fails.
    """

    def __init__(
        self,
        send: Callable[[Sequence[Call]], Awaitable[list[Any]]],
        *,
        size_of: Callable[[Call], int],
        calls_max: int,
        bytes_max: int,
        lanes: int = 1,
        wait_ms: float = float("inf"),
    ) -> None:
        self._send = send
        self._size_of = size_of
        self._calls_max = calls_max
        self._bytes_max = bytes_max
        self._lanes = lanes
        self._wait_s = wait_ms / 1000
        self._waiting: deque[_Waiting[Call]] = deque()
        self._sending: set[asyncio.Task[None]] = set()
        #: Lanes that will look once more whether anything waits.
        self._open = 0
        #: A lane is about to take what waits: calls of the same moment go together.
        self._is_begun = False

    async def run(self, call: Call) -> Any:
        """Send a call with whatever else is waiting; its reply, which may be an error object."""
        loop = asyncio.get_running_loop()
        reply: asyncio.Future[Any] = loop.create_future()
        self._waiting.append(_Waiting(call, self._size_of(call), reply, loop.time()))
        self._begin_lane()
        return await reply

    async def close(self) -> None:
        """Wait until nothing is under way."""
        if self._sending:
            await asyncio.wait(self._sending)

    def _begin_lane(self) -> None:
        if self._open < self._lanes and not self._is_begun:
            self._is_begun = True
            self._open += 1
            lane = asyncio.get_running_loop().create_task(self._drain())
            self._sending.add(lane)
            lane.add_done_callback(self._sending.discard)

    async def _drain(self) -> None:
        self._is_begun = False
        batch: list[_Waiting[Call]] = []
        try:
            while self._waiting:
                batch = self._take()
                if not batch:
                    continue
                if self._waiting:
                    self._begin_lane()
                try:
                    replies = await self._send([each.call for each in batch])
                except Exception as error:  # each caller raises it again
                    replies = [_copy(error) for _ in batch]
                for each, value in zip(batch, replies, strict=True):
                    if not each.reply.done():  # its caller may have been cancelled
                        each.reply.set_result(value)
        finally:
            self._open -= 1
            for each in batch:
                each.reply.cancel()
            # Only if this task was cancelled, with its loop: nobody may wait for ever.
            for each in self._waiting:
                each.reply.cancel()
            self._waiting.clear()

    def _take(self) -> list[_Waiting[Call]]:
        batch: list[_Waiting[Call]] = []
        size = 0
        since_s = asyncio.get_running_loop().time() - self._wait_s
        while self._waiting and len(batch) < self._calls_max and size < self._bytes_max:
            each = self._waiting.popleft()
            if each.reply.done():
                continue
            if each.since_s < since_s:
                each.reply.set_result(StoreUnavailable("the Redis server has not answered others"))
                continue
            size += each.size
            batch.append(each)
        return batch


def _copy(error: Exception) -> Exception:
    # One exception object raised in several tasks would mix up their tracebacks.
    return StoreUnavailable(str(error)) if isinstance(error, StoreUnavailable) else error
