"""Follows executions for the clients of one replica: each event is fetched once and shared.

A client's position is a place in the log. What it needs next is taken from the recent events in
memory if they hold it, else from the log in the store; so joining at any moment, a lost broadcaster
and a dropped batch all end in the same place: every event once, in order.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
from collections import deque
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from harmonia_actors.core.cursors import Place
from harmonia_actors.core.errors import ExecutionNotFound, ServiceUnavailable
from harmonia_actors.core.events import FINAL_EVENT_TYPES
from harmonia_actors.core.records import decode_head
from harmonia_actors.core.requests import StreamEvent
from harmonia_actors.runtime.broadcast import Batch, UnknownReader
from harmonia_actors.runtime.pages import Pages
from persistence.errors import Missing, StoreUnavailable
from persistence.store import Store

__all__ = ["EventFeed", "EventHub", "FeedGone", "parse_event"]

_log = logging.getLogger(__name__)

_RECENT_MAX = 2_000
_PAGE = 500
_PULL_S = 20.0
#: While nothing comes, the log is looked at this often: it is the truth, the feed only a hint.
_LOOK_S = 10.0
#: Looks after a sign that something was missed.
_SOON_S = 0.5


_PLACE = re.compile(rb'\{"seq":(\d+),(?:"part":(\d+),)?')


class FeedGone(Exception):
    """The broadcaster cannot be reached at the moment."""


class EventFeed(Protocol):
    """A broadcaster, seen from a replica. Methods may raise FeedGone or UnknownReader."""

    async def follow(self, execution_ids: Sequence[str]) -> None:
        """Send these executions' events from now on."""
        ...

    async def unfollow(self, execution_ids: Sequence[str]) -> None:
        """Do not send these any more."""
        ...

    async def pull(self, wait_s: float) -> Sequence[Batch]:
        """What has come, or nothing after `wait_s` seconds."""
        ...


def parse_event(index: int, body: bytes) -> StreamEvent:
    """A stored event, taken apart without parsing its data (see `encode_event`)."""
    found = _PLACE.match(body)
    seq, part = (int(found[1]), int(found[2] or 0)) if found else (index, 0)
    type_at = body.index(b'"type":"') + 8
    kind = body[type_at : body.index(b'"', type_at)].decode()
    data_at = body.index(b',"data":') + 8
    return StreamEvent(seq, kind, body, data_at, kind in FINAL_EVENT_TYPES, part, index)


@dataclass(eq=False, slots=True)
class _Topic:
    """One execution, as long as a client here follows it."""

    clients: int = 0
    #: The last events, in order without a gap.
    recent: deque[StreamEvent] = field(default_factory=deque)
    #: Replaced whenever something has come, so that each client waits for the next change.
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    #: Something was missed: look into the log soon.
    missed: bool = False


class EventHub:
    """All executions that clients of this replica follow."""

    def __init__(
        self,
        store: Store,
        feed: EventFeed,
        *,
        recent_bytes_max: int = 64_000_000,
        batch_bytes_max: int = 256_000,
    ) -> None:
        """`recent_bytes_max`: of all events that are kept, so that the log need not be read.

        `batch_bytes_max`: of what one client is handed at a time, unless one event is larger.
        """
        self._store = store
        self._feed = feed
        self._batch_bytes_max = batch_bytes_max
        self._recent_bytes_max = recent_bytes_max
        #: Bytes of all recent events.
        self.recent_bytes = 0
        self._topics: dict[str, _Topic] = {}
        #: Those that have recent events; the one whose last event is oldest comes first.
        self._by_age: dict[_Topic, None] = {}
        self._pulling: asyncio.Task[None] | None = None

    async def events(
        self, execution_id: str, *, after: int, part: int = 0
    ) -> AsyncIterator[Sequence[StreamEvent]]:
        """Events with seq > `after`, in batches, until the last.

        Log lines that follow event `after` are among them, those behind the first `part` events of
        lines.

        The first batch comes at once, others when there is something, empty ones now and then. An
        execution that has ended, and has no event after that seq, gives no batch at all. One that
        expires while it is being read ends where it is.
        """
        place = Place(after, part)
        position = await self._index_of(execution_id, place)
        pages = Pages(self._batch_bytes_max)
        first = await self._first(execution_id, position, pages.count)
        if not first and await self._has_ended(execution_id):
            # It may have ended after the log was read.
            first = await self._first(execution_id, position, pages.count)
            if not first:
                return
        topic = await self._join(execution_id)
        try:
            batch = pages.cut(first)
            yield _behind(place, batch)
            while True:
                if batch:
                    position = batch[-1].index
                    if batch[-1].last:
                        return
                changed = topic.changed
                batch = _following(topic, position)
                if not batch:
                    read = await self._read(execution_id, position, pages.count)
                    if read is None:
                        return
                    batch = read
                batch = pages.cut(batch)
                if not batch and await self._wait(topic, changed):
                    continue
                if not batch and await self._is_beyond_the_end(execution_id, position):
                    return
                yield _behind(place, batch)
        finally:
            self._leave(execution_id, topic)

    async def close(self) -> None:
        """Stop pulling."""
        if self._pulling is not None:
            self._pulling.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._pulling

    # -------------------------------------------------------------------------------------------

    async def _index_of(self, execution_id: str, place: Place) -> int:
        """How many events of the log come no later than a place that a client has named.

        As many as the seq says, and what there is of log lines: few looks find them, none if there
        is no need. A place that the log has not reached yet is not found: it may be anywhere ahead.
        """
        low, step = place.seq, 1
        if not low or await self._place_at(execution_id, low) in (None, (place.seq, place.part)):
            return low
        while (found := await self._place_at(execution_id, low + step)) and found <= place:
            low, step = low + step, step * 2
        high = low + step
        while high - low > 1:
            middle = (low + high) // 2
            found = await self._place_at(execution_id, middle)
            low, high = (middle, high) if found and found <= place else (low, middle)
        return low

    async def _place_at(self, execution_id: str, index: int) -> Place | None:
        found = await self._first(execution_id, index - 1, 1)
        return found[0].place if found else None

    async def _first(self, execution_id: str, after: int, limit: int) -> Sequence[StreamEvent]:
        try:
            stored = await self._store.read_events(execution_id, after=after, limit=limit)
        except Missing:
            raise ExecutionNotFound(execution_id) from None
        except StoreUnavailable as error:
            raise ServiceUnavailable("the store cannot be reached; try again") from error
        return [parse_event(event.seq, event.body) for event in stored]

    async def _has_ended(self, execution_id: str) -> bool:
        """Whether the log holds its last event already."""
        try:
            found = await self._store.read_executions([execution_id], ["head"])
        except StoreUnavailable as error:
            raise ServiceUnavailable("the store cannot be reached; try again") from error
        fields = found[0]
        return fields is not None and decode_head(fields["head"]).status.is_final

    async def _is_beyond_the_end(self, execution_id: str, position: int) -> bool:
        """Whether no event will ever follow, although the client has not seen the last one.

        It may have named a seq that the log never reached.
        """
        try:
            # No answer is not an empty one: what follows may be there all the same.
            ended = await self._has_ended(execution_id)
            return ended and not await self._first(execution_id, position, 1)
        except ServiceUnavailable:
            return False
        except ExecutionNotFound:
            return True

    async def _read(
        self, execution_id: str, position: int, limit: int
    ) -> Sequence[StreamEvent] | None:
        """What the log has next; None if it is not there any more."""
        try:
            stored = await self._store.read_events(execution_id, after=position, limit=limit)
        except StoreUnavailable:
            return ()
        except Missing:
            return None
        return [parse_event(event.seq, event.body) for event in stored]

    async def _wait(self, topic: _Topic, changed: asyncio.Event) -> bool:
        wait_s = _SOON_S if topic.missed else _LOOK_S
        topic.missed = False
        try:
            async with asyncio.timeout(wait_s):
                await changed.wait()
        except TimeoutError:
            return False
        return True

    async def _join(self, execution_id: str) -> _Topic:
        topic = self._topics.get(execution_id)
        if topic is None:
            topic = self._topics[execution_id] = _Topic(missed=True)
            topic.clients += 1
            with contextlib.suppress(FeedGone, UnknownReader):
                await self._feed.follow([execution_id])
        else:
            topic.clients += 1
        if self._pulling is None or self._pulling.done():
            self._pulling = asyncio.get_running_loop().create_task(self._pull())
        return topic

    def _leave(self, execution_id: str, topic: _Topic) -> None:
        topic.clients -= 1
        if topic.clients == 0 and self._topics.get(execution_id) is topic:
            del self._topics[execution_id]
            self._drop(topic, len(topic.recent))
            leaving = asyncio.get_running_loop().create_task(self._unfollow(execution_id))
            leaving.add_done_callback(lambda done: done.cancelled() or done.exception())

    async def _unfollow(self, execution_id: str) -> None:
        if execution_id not in self._topics:
            with contextlib.suppress(FeedGone, UnknownReader):
                await self._feed.unfollow([execution_id])

    async def _pull(self) -> None:
        """Fetch batches as long as anybody follows anything."""
        while self._topics:
            try:
                batches = await self._feed.pull(_PULL_S)
            except UnknownReader:
                await self._follow_again()
                continue
            except FeedGone as error:
                _log.info("no broadcaster at the moment: %s", error)
                await asyncio.sleep(_SOON_S)
                await self._follow_again()
                continue
            for execution_id, first_seq, bodies in batches:
                self._take(execution_id, first_seq, bodies)

    async def _follow_again(self) -> None:
        """What came meanwhile was missed: clients look into the log."""
        with contextlib.suppress(FeedGone):
            await self._feed.follow(list(self._topics))
        for topic in self._topics.values():
            topic.missed = True
            _wake(topic)

    def _take(self, execution_id: str, first_seq: int, bodies: Sequence[bytes]) -> None:
        topic = self._topics.get(execution_id)
        if topic is None:
            return
        for offset, body in enumerate(bodies):
            event = parse_event(first_seq + offset, body)
            recent = topic.recent
            if recent and event.index <= recent[-1].index:
                continue
            if recent and event.index != recent[-1].index + 1:
                self._drop(topic, len(recent))
            self._keep(topic, event)
        _wake(topic)

    def _keep(self, topic: _Topic, event: StreamEvent) -> None:
        """Keep one more recent event; the oldest go where there are too many."""
        topic.recent.append(event)
        self.recent_bytes += len(event.body)
        self._by_age.pop(topic, None)
        self._by_age[topic] = None
        self._drop(topic, len(topic.recent) - _RECENT_MAX)
        while self.recent_bytes > self._recent_bytes_max:
            self._drop(next(iter(self._by_age)), 1)

    def _drop(self, topic: _Topic, count: int) -> None:
        """Forget so many of a topic's recent events: whoever still needs them reads the log."""
        for _ in range(count):
            self.recent_bytes -= len(topic.recent.popleft().body)
        if not topic.recent:
            self._by_age.pop(topic, None)


def _wake(topic: _Topic) -> None:
    topic.changed.set()
    topic.changed = asyncio.Event()


def _behind(place: Place, batch: Sequence[StreamEvent]) -> Sequence[StreamEvent]:
    """What comes after a place, of a batch that may begin before it."""
    if not batch or batch[0].place > place:
        return batch
    return [event for event in batch if event.place > place]


def _following(topic: _Topic, position: int) -> Sequence[StreamEvent]:
    """Recent events right after `position`; empty if memory does not hold the very next one."""
    recent = topic.recent
    if not recent or position >= recent[-1].index or position + 1 < recent[0].index:
        return ()
    start = position + 1 - recent[0].index
    return [recent[index] for index in range(start, min(len(recent), start + _PAGE))]
