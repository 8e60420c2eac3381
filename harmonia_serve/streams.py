"""What WebSocket and SSE have in common: one subscriber's way through a stream of events.

A subscription reads batches from the gateway and hands them to a `Sink`, piece by piece, so that no
more than one batch waits in memory for a slow reader, and no more than a piece of it in the
connection: the rest waits in the log. Each send has a deadline of its own, which does not depend on
anything being read. This module must not know either wire format.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, Protocol

from starlette.requests import HTTPConnection
from starlette.types import Scope

from harmonia_actors.core.cursors import Place, parse_place
from harmonia_actors.core.errors import (
    HarmoniaError,
    NotFound,
    Problem,
    RateLimitExceeded,
    ServiceUnavailable,
    ValidationFailed,
)
from harmonia_actors.core.event_batches import EventBatch, made_once
from harmonia_actors.settings import Settings
from harmonia_serve import identifiers
from harmonia_serve.auth import Caller
from harmonia_serve.connections import connection_of
from harmonia_serve.event_filters import Filter, execution_filter, installation_filter
from harmonia_serve.gateway import AnyEvent, Gateway
from harmonia_serve.observation import StreamNotes
from harmonia_serve.queries import ExecutionStreamQuery, InstallationStreamQuery
from harmonia_serve.starts import age_s, close_batches, start_cursor, up_to
from harmonia_serve.summaries import summarised

__all__ = [
    "SCOPE",
    "Ending",
    "Sink",
    "Slot",
    "SlowReader",
    "Stream",
    "StreamSlots",
    "Subscription",
    "end_with_server",
    "execution_stream",
    "in_time",
    "installation_stream",
    "let_go",
]

#: The scope that a stream needs, when it opens and as long as it is open.
SCOPE: Final = "read"
#: When to ask again, if there is no room for a stream.
_RETRY_S: Final = 5


Batches = AsyncIterator[Sequence[AnyEvent]]


class Ending(Enum):
    """Why a stream came to its end, when nothing went wrong."""

    LAST_EVENT = "the execution has ended"
    NO_MORE = "there are no more events to send"
    EXPIRED = "the stream has reached its greatest age"
    GONE = "the client has left"
    LEAVING = "this replica of the service is going"


class SlowReader(Exception):
    """A send took longer than `stream_send_timeout_s`."""

    #: What clients and metrics are told.
    code = "slow_consumer"


class Sink(Protocol):
    """Where events go: one client's connection."""

    async def send_events(self, events: Sequence[AnyEvent]) -> None:
        """Send events in order."""
        ...

    async def send_position(self, cursor: str) -> None:
        """Say where the stream is, although there is no event to be seen."""
        ...

    async def send_sign_of_life(self) -> None:
        """Send something that means nothing, if the protocol needs it."""
        ...


class Slot:
    """The place of one open stream, which can be taken away."""

    def __init__(self) -> None:
        self._is_closed = False
        self._give_up: Callable[[], None] | None = None

    def on_close(self, give_up: Callable[[], None]) -> None:
        """Call this when the place is taken away; at once, if it has been."""
        self._give_up = give_up
        if self._is_closed:
            give_up()

    def close(self) -> None:
        """Take the place away."""
        self._is_closed = True
        if self._give_up is not None:
            self._give_up()


class StreamSlots:
    """Counts the open streams of one replica and refuses more than there is room for."""

    def __init__(self, most: int, most_per_key: int) -> None:
        self._most = most
        self._most_per_key = most_per_key
        self._slots: set[Slot] = set()
        self._by_key: Counter[str] = Counter()
        self._is_closed = False

    @property
    def open(self) -> int:
        """Streams that are open now."""
        return len(self._slots)

    def close(self) -> None:
        """The replica is going: let all open streams end in good order, and take no more.

        Each connection of a server that stops says so.
        """
        if self._is_closed:
            return
        self._is_closed = True
        for slot in tuple(self._slots):
            slot.close()

    @contextmanager
    def take(self, key_id: str) -> Iterator[Slot]:
        """Hold a key's slot for as long as the context lasts.

        Raises RateLimitExceeded, or ServiceUnavailable once the replica is going.
        """
        if self._is_closed:
            raise ServiceUnavailable(f"{Ending.LEAVING.value.capitalize()}; try again")
        if self.open >= self._most:
            raise RateLimitExceeded(
                f"This replica holds {self.open} streams, the most it may; try again", _RETRY_S
            )
        if self._by_key[key_id] >= self._most_per_key:
            raise RateLimitExceeded(
                f"Your key has {self._most_per_key} streams open here, the most it may; "
                "close one, or try again",
                _RETRY_S,
            )
        slot = Slot()
        self._slots.add(slot)
        self._by_key[key_id] += 1
        try:
            yield slot
        finally:
            self._slots.discard(slot)
            self._by_key[key_id] -= 1
            if not self._by_key[key_id]:
                del self._by_key[key_id]


class Subscription:
    """Events for one client. To be closed with `aclose` whatever happens.

    One task reads and sends. It sets no timer and makes no other task for that: thousands of such
    streams may have to send the same event. Whatever is due by the clock is seen to by `run`.
    """

    def __init__(
        self,
        settings: Settings,
        batches: Batches,
        wanted: Filter,
        notes: StreamNotes,
        *,
        tells_position: bool = True,
    ) -> None:
        """`wanted`: which of the events the client is to see.

        `tells_position`: whether it is told where the stream is if there is nothing for it to see.
        """
        self._settings = settings
        self._batches = batches
        self._wanted = wanted
        self._notes = notes
        self._tells_position = tells_position
        #: What is left to be sent of the batch that was read last.
        self._rest: Sequence[AnyEvent] = ()
        #: Cursors of the last event that was looked at, and of the last that the client has heard
        #: of: they differ while nothing is wanted.
        self._passed = self._told = ""
        #: The reading of the first batch, until that is sent.
        self._first: asyncio.Future[Sequence[AnyEvent] | None] | None
        self._first = asyncio.ensure_future(_next(self._batches))
        self._clock = asyncio.get_running_loop().time
        #: Held while something is sent; and since when it is, if events are.
        self._turn = asyncio.Lock()
        self._sending_since: float | None = None
        #: When the caller's key was last known to be good.
        self._confirmed = self._clock()
        self._leaving: asyncio.Future[Any] | None = None
        self._is_given_up = False

    def give_up(self) -> None:
        """End the stream soon, in good order: the client is to go on elsewhere."""
        self._is_given_up = True
        if self._leaving is not None:
            self._leaving.cancel()

    async def open(self, wait_s: float) -> bool:
        """Wait for the first batch, but not longer than `wait_s`.

        False if there is nothing to come: the execution has ended and all its events are known
        to the client. Raises what the gateway raises, like ExecutionNotFound.
        """
        first = self._first
        if first is None:
            return True
        done, _ = await asyncio.wait({first}, timeout=wait_s)
        return not done or first.result() is not None

    async def run(self, sink: Sink, gone: Awaitable[Any], caller: Caller) -> Ending:
        """Send events to the sink until the last one, the greatest age, or `gone` completes.

        It also ends once it is given up.

        Raises SlowReader, what `gone` raises, what the gateway raises, AuthenticationFailed or
        PermissionDenied once the caller's key is no longer good, and ServiceUnavailable if that
        cannot be known for long.
        """
        leaving = self._leaving = asyncio.ensure_future(gone)
        if self._is_given_up:
            leaving.cancel()
        sending = asyncio.ensure_future(self._send_all(sink))
        try:
            return await self._accompany(sending, leaving, sink, caller)
        except (SlowReader, HarmoniaError) as error:
            if self._passed or not isinstance(error, NotFound):
                self._notes.note_dropped(error.code)
            raise
        finally:
            await _cancel(sending)
            await _cancel(leaving)

    async def _accompany(
        self,
        sending: asyncio.Future[Ending],
        leaving: asyncio.Future[Any],
        sink: Sink,
        caller: Caller,
    ) -> Ending:
        """See to all that is due by the clock while events are being sent."""
        settings, clock = self._settings, self._clock
        expires = clock() + age_s(settings.stream_age_s_max)
        beat = clock() + settings.stream_heartbeat_s
        check = clock() + settings.stream_key_check_s
        while True:
            wait_s = max(0.0, min(expires, beat, check, self._late_at()) - clock())
            await asyncio.wait(
                {sending, leaving}, timeout=wait_s, return_when=asyncio.FIRST_COMPLETED
            )
            if self._is_given_up and not sending.done():
                return await self._break_off(sending, sink, Ending.LEAVING)
            if leaving.done() and not self._is_given_up:
                leaving.result()
                return Ending.GONE
            if sending.done():
                ending = sending.result()
                await self._tell_position(sink)
                return ending
            if self._sending_since is not None and clock() >= self._late_at():
                raise SlowReader
            if clock() >= expires:
                return await self._break_off(sending, sink, Ending.EXPIRED)
            if clock() >= check:
                await self._confirm(caller)
                check = clock() + settings.stream_key_check_s
            if clock() >= beat:
                if not self._turn.locked():
                    async with self._turn:
                        await self._tell_position(sink)
                        await self._in_time(sink.send_sign_of_life())
                beat = clock() + settings.stream_heartbeat_s

    async def _break_off(
        self, sending: asyncio.Future[Ending], sink: Sink, ending: Ending
    ) -> Ending:
        """Stop between two pieces, where the client can resume. Raises SlowReader."""
        await in_time(self._turn.acquire(), max(0.0, self._late_at() - self._clock()))
        await _cancel(sending)
        await self._tell_position(sink)
        return ending

    def _late_at(self) -> float:
        """When what is being sent is late; or would be, if it were begun now."""
        since = self._clock() if self._sending_since is None else self._sending_since
        return since + self._settings.stream_send_timeout_s

    async def _confirm(self, caller: Caller) -> None:
        """An outage of the store is not the end of all streams, if it is short."""
        now = self._clock()
        try:
            await caller.confirm(SCOPE)
        except ServiceUnavailable:
            if now - self._confirmed > self._settings.stream_unconfirmed_s_max:
                raise
        else:
            self._confirmed = now

    async def _send_all(self, sink: Sink) -> Ending:
        """Read and send, piece by piece, until the last event or until there are no more."""
        batch = await self._first if self._first else None
        self._first = None
        while batch is not None:
            if batch:
                begins = not self._passed
                self._passed = batch[-1].cursor
                self._rest = self._wanted.of(batch)
                if begins and not self._rest:
                    # A client that loses the stream before any event must resume from here.
                    async with self._turn:
                        await self._tell_position(sink)
                while self._rest:
                    await self._send_piece(sink)
                if batch[-1].last:
                    return Ending.LAST_EVENT
            # Thousands may wait here: none of them holds what has been sent.
            batch = ()
            batch = await anext(self._batches, None)
        return Ending.NO_MORE

    async def _send_piece(self, sink: Sink) -> None:
        async with self._turn:
            piece = self._cut()
            self._sending_since = self._clock()
            try:
                await sink.send_events(piece)
            finally:
                self._sending_since = None
            self._notes.note_delivered(piece)
            self._told = piece[-1].cursor

    def _cut(self) -> Sequence[AnyEvent]:
        """Take from the rest what one connection may hold at a time: one event at least."""
        rest, settings = self._rest, self._settings
        if (
            isinstance(rest, EventBatch)
            and len(rest) <= settings.stream_buffer_events_max
            and made_once(rest, "size", _size) <= settings.stream_buffer_bytes_max
        ):
            # As it is: what is made of it for one client is good for all.
            self._rest = ()
            return rest
        size = count = 0
        for event in rest[: settings.stream_buffer_events_max]:
            size += len(event.body)
            if count and size > settings.stream_buffer_bytes_max:
                break
            count += 1
        piece, self._rest = rest[:count], rest[count:]
        return piece

    async def _tell_position(self, sink: Sink) -> None:
        """Unless some of what was looked at is still to be sent: none of it may be passed over."""
        cursor = self._passed
        if self._tells_position and self._told != cursor and not self._rest:
            await self._in_time(sink.send_position(cursor))
            self._told = cursor

    async def _in_time(self, sending: Awaitable[None]) -> None:
        await in_time(sending, self._settings.stream_send_timeout_s)

    async def aclose(self) -> None:
        """Stop reading and let the gateway go."""
        if self._first is not None:
            await _cancel(self._first)
        await close_batches(self._batches)


@dataclass(frozen=True, slots=True)
class Stream:
    """What one client asks for: where the events come from, and which of them it wants."""

    #: What it is counted as.
    kind: str
    batches: Callable[[], Batches]
    wanted: Filter
    #: Where to begin again, if the client was told of nothing; empty: from then on.
    after: str
    #: Whether the client knows what a position is.
    tells_position: bool = True

    def subscribe(self, settings: Settings, notes: StreamNotes) -> Subscription:
        """Begin to read."""
        tells = self.tells_position
        return Subscription(settings, self.batches(), self.wanted, notes, tells_position=tells)


def execution_stream(
    kind: str,
    execution_id: str,
    query: ExecutionStreamQuery,
    after: Place,
    gateway: Gateway,
    settings: Settings,
) -> Stream:
    """The stream of one execution that a client asks for. Raises ValidationFailed."""
    wanted = execution_filter(query)
    is_summary = query.detail == "summary"
    until = None if query.until is None else parse_place(query.until)
    is_cut = until is not None
    if is_summary and (is_cut or query.logs or not wanted.is_plain):
        message = "cannot be 'summary' with a filter or an end: a summary is one of all events"
        raise ValidationFailed("query", [Problem("detail", message)])

    def batches() -> Batches:
        if is_summary:
            return summarised(gateway, settings, execution_id, after=after.seq)
        events = gateway.events(execution_id, after=after.seq, part=after.part)
        return events if until is None else up_to(until, after, events)

    # Whoever has asked for nothing but the events gets nothing but events.
    tells = is_cut or not wanted.is_plain
    return Stream(kind, batches, wanted, after.text, tells_position=tells)


def installation_stream(
    kind: str, query: InstallationStreamQuery, connection: HTTPConnection, gateway: Gateway
) -> Stream:
    """The stream of all executions that a client asks for. Raises ValidationFailed."""
    after = start_cursor(query.after, connection.headers)
    wanted = installation_filter(query)
    workflow_id = identifiers.filter_id("wf", "workflow_id", query.workflow_id)

    def batches() -> Batches:
        return gateway.installation_events(
            after=after, follow=query.follow, workflow_id=workflow_id
        )

    begin = connection.headers.get("last-event-id") or query.after or ""
    return Stream(kind, batches, wanted, begin)


def end_with_server(scope: Scope, slots: StreamSlots) -> None:
    """Let streams end in good order when the server of this connection stops, by itself or not."""
    connection = connection_of(scope)
    if connection is not None:
        connection.on_stop(slots.close)


async def let_go(scope: Scope, settings: Settings) -> None:
    """Wait until a client has taken in what its stream has sent, or end its connection.

    To be called while the stream's slot is held: a client that reads nothing must not have a
    connection for longer than it has a slot.
    """
    connection = connection_of(scope)
    if connection is not None:
        await connection.let_go(settings.stream_send_timeout_s)


def _size(events: Sequence[AnyEvent]) -> int:
    return sum(len(event.body) for event in events)


async def in_time(sending: Awaitable[Any], seconds: float) -> None:
    """Wait for a send, but not longer. Raises SlowReader."""
    try:
        async with asyncio.timeout(seconds):
            await sending
    except TimeoutError:
        raise SlowReader from None


async def _next(batches: Batches) -> Sequence[AnyEvent] | None:
    """The next batch, or None after the end."""
    return await anext(batches, None)


async def _cancel(task: asyncio.Future[Any]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
