"""What WebSocket and SSE have in common: one subscriber's way through an execution's events.

A subscription reads batches from the gateway and hands them to a `Sink`, piece by piece, so that no
more than one batch waits in memory for a slow reader, and no more than a piece of it in the
connection: the rest waits in the log. Each send has a deadline of its own, which does not depend on
anything being read. This module must not know either wire format.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Iterator, Sequence
from contextlib import contextmanager
from enum import Enum
from typing import Any, Final, Protocol

from starlette.datastructures import Headers

from harmonia_actors.core.errors import (
    HarmoniaError,
    NotFound,
    Problem,
    RateLimitExceeded,
    ServiceUnavailable,
    ValidationFailed,
)
from harmonia_actors.settings import Settings
from harmonia_serve.auth import Caller
from harmonia_serve.gateway import Gateway, StreamEvent
from harmonia_serve.observation import StreamNotes
from harmonia_serve.queries import ExecutionStreamQuery
from harmonia_serve.summaries import summarised

__all__ = [
    "SCOPE",
    "Ending",
    "Sink",
    "SlowReader",
    "StreamSlots",
    "Subscription",
    "batches_of",
    "in_time",
    "start_after",
]

#: The scope that a stream needs, when it opens and as long as it is open.
SCOPE: Final = "read"
_SEQ_DIGITS_MAX: Final = 16
#: When to ask again, if there is no room for a stream.
_RETRY_S: Final = 5


class Ending(Enum):
    """Why a stream came to its end, when nothing went wrong."""

    LAST_EVENT = "the execution has ended"
    EXPIRED = "the stream has reached its greatest age"
    GONE = "the client has left"


class SlowReader(Exception):
    """A send took longer than `stream_send_timeout_s`."""

    #: What clients and metrics are told.
    code = "slow_consumer"


class Sink(Protocol):
    """Where events go: one client's connection."""

    async def send_events(self, events: Sequence[StreamEvent]) -> None:
        """Send events in order."""
        ...

    async def send_sign_of_life(self) -> None:
        """Send something that means nothing, if the protocol needs it."""
        ...


class StreamSlots:
    """Counts the open streams of one replica and refuses more than there is room for."""

    def __init__(self, most: int, most_per_key: int) -> None:
        self._most = most
        self._most_per_key = most_per_key
        self._open = 0
        self._by_key: Counter[str] = Counter()

    @property
    def open(self) -> int:
        """Streams that are open now."""
        return self._open

    @contextmanager
    def take(self, key_id: str) -> Iterator[None]:
        """Hold a key's slot for as long as the context lasts. Raises RateLimitExceeded."""
        if self._open >= self._most:
            raise RateLimitExceeded(
                f"This replica holds {self._open} streams, the most it may; try again", _RETRY_S
            )
        if self._by_key[key_id] >= self._most_per_key:
            raise RateLimitExceeded(
                f"Your key has {self._most_per_key} streams open here, the most it may; "
                "close one, or try again",
                _RETRY_S,
            )
        self._open += 1
        self._by_key[key_id] += 1
        try:
            yield
        finally:
            self._open -= 1
            self._by_key[key_id] -= 1
            if not self._by_key[key_id]:
                del self._by_key[key_id]


def start_after(after: str | int | None, headers: Headers) -> int:
    """The seq after which a stream starts. Raises ValidationFailed.

    A browser that reconnects keeps the query of its first request and adds Last-Event-ID, so the
    header wins.
    """
    last = headers.get("last-event-id")
    if last is None or last == "":
        return int(after or 0)
    if not (last.isascii() and last.isdecimal()) or len(last) > _SEQ_DIGITS_MAX:
        message = f"must be the id of an event, a whole number, not '{last[:100]}'"
        raise ValidationFailed("request", [Problem("Last-Event-ID", message)])
    return int(last)


def batches_of(
    gateway: Gateway,
    settings: Settings,
    execution_id: str,
    query: ExecutionStreamQuery,
    after: int,
) -> AsyncIterator[Sequence[StreamEvent]]:
    """What a client has asked for of an execution."""
    if query.detail == "summary":
        return summarised(gateway, settings, execution_id, after=after)
    return gateway.events(execution_id, after=after)


class Subscription:
    """Batches of events for one client. To be closed with `aclose` whatever happens."""

    def __init__(
        self,
        batches: AsyncIterator[Sequence[StreamEvent]],
        settings: Settings,
        notes: StreamNotes,
    ) -> None:
        self._settings = settings
        self._notes = notes
        self._batches = batches
        #: What is left to be sent of the batch that was read last.
        self._rest: Sequence[StreamEvent] = ()
        self._reading = asyncio.ensure_future(_next(self._batches))
        #: When the caller's key was last known to be good.
        self._confirmed = asyncio.get_running_loop().time()

    async def open(self, wait_s: float) -> bool:
        """Wait for the first batch, but not longer than `wait_s`.

        False if there is nothing to come: the execution has ended and all its events are known
        to the client. Raises what the gateway raises, like ExecutionNotFound.
        """
        done, _ = await asyncio.wait({self._reading}, timeout=wait_s)
        return not done or self._reading.result() is not None

    async def run(self, sink: Sink, gone: Awaitable[Any], caller: Caller) -> Ending:
        """Send events to the sink until the last one, the greatest age, or `gone` completes.

        Raises SlowReader, what `gone` raises, what the gateway raises, AuthenticationFailed or
        PermissionDenied once the caller's key is no longer good, and ServiceUnavailable if that
        cannot be known for long.
        """
        clock = asyncio.get_running_loop().time
        expires = clock() + self._settings.stream_age_s_max
        beat = clock() + self._settings.stream_heartbeat_s
        leaving = asyncio.ensure_future(gone)
        try:
            while True:
                wait_s = max(0.0, min(expires, beat) - clock())
                await asyncio.wait(
                    {self._reading, leaving},
                    timeout=wait_s,
                    return_when=asyncio.FIRST_COMPLETED,
                )
                if leaving.done():
                    leaving.result()
                    return Ending.GONE
                if self._reading.done() and await self._pass_on(sink):
                    return Ending.LAST_EVENT
                if clock() >= expires:
                    return Ending.EXPIRED
                if clock() >= beat:
                    await self._confirm(caller)
                    await self._in_time(sink.send_sign_of_life())
                    beat = clock() + self._settings.stream_heartbeat_s
        except (SlowReader, HarmoniaError) as error:
            if not isinstance(error, NotFound):
                self._notes.note_dropped(error.code)
            raise
        finally:
            await _cancel(leaving)

    async def _confirm(self, caller: Caller) -> None:
        """An outage of the store is not the end of all streams, if it is short."""
        now = asyncio.get_running_loop().time()
        try:
            await caller.confirm(SCOPE)
        except ServiceUnavailable:
            if now - self._confirmed > self._settings.stream_unconfirmed_s_max:
                raise
        else:
            self._confirmed = now

    async def _pass_on(self, sink: Sink) -> bool:
        """Send a piece of the batch that was read, then read on; True after the last event."""
        if not self._rest:
            batch = self._reading.result()
            if batch is None:
                return True
            self._rest = batch
        piece = self._cut()
        if piece:
            await self._in_time(sink.send_events(piece))
            self._notes.note_delivered(piece)
            if piece[-1].last:
                return True
        if not self._rest:
            self._reading = asyncio.ensure_future(_next(self._batches))
        return False

    def _cut(self) -> Sequence[StreamEvent]:
        """Take from the rest what one connection may hold at a time: one event at least."""
        rest, size, count = self._rest, 0, 0
        for event in rest[: self._settings.stream_buffer_events_max]:
            size += len(event.body)
            if count and size > self._settings.stream_buffer_bytes_max:
                break
            count += 1
        piece, self._rest = rest[:count], rest[count:]
        return piece

    async def _in_time(self, sending: Awaitable[None]) -> None:
        await in_time(sending, self._settings.stream_send_timeout_s)

    async def aclose(self) -> None:
        """Stop reading and let the gateway go."""
        await _cancel(self._reading)
        close = getattr(self._batches, "aclose", None)
        if close is not None:
            await close()


async def in_time(sending: Awaitable[None], seconds: float) -> None:
    """Wait for a send, but not longer. Raises SlowReader."""
    try:
        async with asyncio.timeout(seconds):
            await sending
    except TimeoutError:
        raise SlowReader from None


async def _next(batches: AsyncIterator[Sequence[StreamEvent]]) -> Sequence[StreamEvent] | None:
    """The next batch, or None after the end."""
    return await anext(batches, None)


async def _cancel(task: asyncio.Future[Any]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
