"""Follows executions for the clients of one replica: each event is fetched once and shared.

A client's position is the number of an event in the log, log lines included; what it names is a
place, which says the same in the numbers that clients see. What it needs next is taken from the
recent events in memory if they hold it, else from the log in the store. Up to where the log is
known is kept once for all clients of an execution: they wait, and one task looks into the log after
a sign that something was missed, and after a long silence. So joining at any moment, a lost
broadcaster and a dropped batch all end in the same place: every event once, in order.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field

from harmonia_actors.core.cursors import Place
from harmonia_actors.core.errors import ExecutionNotFound, ServiceUnavailable
from harmonia_actors.core.event_batches import EventBatch
from harmonia_actors.core.events import FINAL_EVENT_TYPES
from harmonia_actors.core.records import UnknownSchema, decode_head
from harmonia_actors.core.requests import StreamEvent
from harmonia_actors.runtime.feeds import EventFeed, FeedReader
from harmonia_actors.runtime.pages import Pages
from harmonia_actors.runtime.shards import shard_of
from persistence.errors import Missing, StoreError, StoreUnavailable
from persistence.store import Store

__all__ = ["EventHub", "parse_event"]

_log = logging.getLogger(__name__)

_RECENT_MAX = 2_000
_PAGE = 500
#: While nothing comes, the log is looked at this often: it is the truth, the feed only a hint.
_LOOK_S = 10.0
#: Looks again after a sign that something was missed, or when the store did not answer.
_SOON_S = 0.5
#: To no client.
_NONE_GIVEN: tuple[int | None, int, Sequence[StreamEvent]] = (None, -1, ())
#: How a stored event begins.
_PLACE = re.compile(rb'\{"seq":(\d+),(?:"part":(\d+),)?')


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

    execution_id: str
    clients: int = 0
    #: How many events the log is known to have; None until that has been asked.
    known: int | None = None
    #: The last events, in order without a gap, up to `known`; none if they are too large to keep.
    recent: deque[StreamEvent] = field(default_factory=deque)
    #: No event will ever follow `known`.
    is_over: bool = False
    #: It has expired: what a client here has not been given yet it will not get.
    is_gone: bool = False
    #: Replaced whenever something has come, so that each client waits for the next change.
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    #: Set when the log is to be looked at.
    suspicion: asyncio.Event = field(default_factory=asyncio.Event)
    #: When something has last come.
    heard_s: float = 0.0
    watching: asyncio.Task[None] | None = None
    #: What was last given out: up to which `known`, after which position, and the events.
    given: tuple[int | None, int, Sequence[StreamEvent]] = _NONE_GIVEN

    def wake(self) -> None:
        """Let all clients look."""
        self.changed.set()
        self.changed = asyncio.Event()

    def has_nothing_after(self, position: int) -> bool:
        """Whether a client there has all that is known."""
        return self.known is not None and position >= self.known

    def following(self, position: int, bytes_max: int) -> Sequence[StreamEvent]:
        """Recent events right after `position`; empty if memory does not hold the very next one.

        So many bytes at most, unless one event is larger. Clients at the same position are given
        the same object.
        """
        recent = self.recent
        if not recent or position >= recent[-1].index or position + 1 < recent[0].index:
            return ()
        if self.given[:2] == (self.known, position):
            return self.given[2]
        start = position + 1 - recent[0].index
        end = min(len(recent), start + _PAGE)
        batch = EventBatch(Pages(bytes_max).cut([recent[at] for at in range(start, end)]))
        if self.clients > 1:
            self.given = (self.known, position, batch)
        return batch


class EventHub:
    """All executions that clients of this replica follow."""

    def __init__(
        self,
        store: Store,
        feeds: Sequence[EventFeed],
        *,
        recent_bytes_max: int = 64_000_000,
        batch_bytes_max: int = 256_000,
    ) -> None:
        """`feeds`: one of each broadcaster, in their order.

        `recent_bytes_max`: of all events that are kept, so that the log need not be read.
        `batch_bytes_max`: of what one client is handed at a time, unless one event is larger.
        """
        self._store = store
        self._batch_bytes_max = batch_bytes_max
        self._readers = [FeedReader(feed, self._heard, self._suspect) for feed in feeds]
        self._recent_bytes_max = recent_bytes_max
        #: Bytes of all recent events.
        self.recent_bytes = 0
        self._topics: dict[str, _Topic] = {}
        #: Those that have recent events; the one whose last event is oldest comes first.
        self._by_age: dict[_Topic, None] = {}

    async def events(
        self, execution_id: str, *, after: int, part: int = 0
    ) -> AsyncIterator[Sequence[StreamEvent]]:
        """Events with seq > `after`, in batches, until the last.

        Log lines that follow event `after` are among them, those behind the first `part` events of
        lines.

        The first batch comes at once, others when there is something. An execution that has ended,
        and has no event after that seq, gives no batch at all. Raises ExecutionNotFound if there is
        none, and if it expires before the last event has been given: an end is one of all events.
        """
        place = Place(after, part)
        position = await self._index_of(execution_id, place)
        pages = Pages(self._batch_bytes_max)
        first = await self._open(execution_id, position, pages.count)
        if first is None:
            return
        topic = self._join(execution_id)
        try:
            batch = pages.cut(first)
            # Nothing of what was sent is held while the client waits.
            del first
            yield _behind(place, batch or ())
            while True:
                if batch:
                    position = batch[-1].index
                    if batch[-1].last:
                        return
                changed = topic.changed
                batch = topic.following(position, self._batch_bytes_max)
                if not batch and topic.has_nothing_after(position):
                    if topic.is_gone:
                        raise ExecutionNotFound(execution_id)
                    if topic.is_over:
                        return
                    await changed.wait()
                    continue
                batch = batch or await self._read(execution_id, position, pages)
                if not batch:
                    await _wait(changed, _SOON_S)
                elif shown := _behind(place, batch):
                    yield shown
                    shown = ()
        finally:
            self._leave(topic)

    async def close(self) -> None:
        """Stop following."""
        watching = [topic.watching for topic in self._topics.values() if topic.watching]
        for task in watching:
            task.cancel()
        await asyncio.gather(*watching, return_exceptions=True)
        for reader in self._readers:
            await reader.close()

    # One client --------------------------------------------------------------------------------

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

    async def _open(
        self, execution_id: str, position: int, limit: int
    ) -> Sequence[StreamEvent] | None:
        """What the log has for a client that comes; None if nothing will ever follow."""
        first = await self._first(execution_id, position, limit)
        if first or not await self._has_ended(execution_id):
            return first
        # It may have ended after the log was read.
        return await self._first(execution_id, position, limit) or None

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
        return fields is not None and _is_final(fields)

    async def _read(self, execution_id: str, position: int, pages: Pages) -> Sequence[StreamEvent]:
        """What the log has next. Raises ExecutionNotFound if it is not there any more."""
        limit = pages.count
        try:
            stored = await self._store.read_events(execution_id, after=position, limit=limit)
        except StoreUnavailable:
            return ()
        except Missing:
            raise ExecutionNotFound(execution_id) from None
        return pages.cut([parse_event(event.seq, event.body) for event in stored])

    def _join(self, execution_id: str) -> _Topic:
        topic = self._topics.get(execution_id)
        if topic is None:
            topic = self._topics[execution_id] = _Topic(execution_id)
            topic.watching = asyncio.get_running_loop().create_task(self._watch(topic))
        topic.clients += 1
        return topic

    def _leave(self, topic: _Topic) -> None:
        topic.clients -= 1
        if topic.clients == 0 and self._topics.get(topic.execution_id) is topic:
            del self._topics[topic.execution_id]
            self._drop(topic, len(topic.recent))
            if topic.watching is not None:
                topic.watching.cancel()
            self._reader_of(topic).unfollow(topic.execution_id)

    def _reader_of(self, topic: _Topic) -> FeedReader:
        return self._readers[shard_of(topic.execution_id, len(self._readers))]

    # All clients of an execution ---------------------------------------------------------------

    async def _watch(self, topic: _Topic) -> None:
        """Follow, and look into the log whenever something may have been missed."""
        clock = asyncio.get_running_loop().time
        # A broadcaster that does not answer must not keep anybody from the log.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LOOK_S):
                await self._reader_of(topic).follow(topic.execution_id)
        while not topic.is_over:
            topic.suspicion.clear()
            if not await self._look(topic):
                await _wait(topic.suspicion, _SOON_S)
                continue
            left_s = _LOOK_S
            while left_s > 0 and not await _wait(topic.suspicion, left_s):
                # Events that came meanwhile are as good as a look.
                left_s = topic.heard_s + _LOOK_S - clock()

    async def _look(self, topic: _Topic) -> bool:
        """Take what the log has after what is known. False if it has to be looked at again soon."""
        try:
            if topic.known is None:
                return await self._look_first(topic)
            stored = await self._store.read_events(
                topic.execution_id, after=topic.known, limit=_PAGE
            )
            if stored:
                self._take(topic, stored[0].seq, [event.body for event in stored])
                if len(stored) == _PAGE:
                    topic.suspicion.set()
                return True
            found = await self._store.read_executions([topic.execution_id], ["head"])
            fields = found[0]
            if fields is None or _is_final(fields):
                return await self._look_last(topic)
        except Missing:
            topic.is_gone = True
            self._end(topic)
        except StoreError:
            return False
        except Exception:
            # All clients of the execution depend on it: it must not end by what can be tried again.
            _log.exception("the log of %s cannot be looked into", topic.execution_id)
            return False
        return True

    async def _look_first(self, topic: _Topic) -> bool:
        """From here on events are heard of; those before are read by the clients that need them."""
        topic.known = await self._store.read_seq(topic.execution_id)
        if topic.known is None:
            raise Missing(topic.execution_id)
        topic.wake()
        return False

    async def _look_last(self, topic: _Topic) -> bool:
        """It has ended, perhaps after the log was read."""
        known = topic.known or 0
        stored = await self._store.read_events(topic.execution_id, after=known, limit=_PAGE)
        if stored:
            self._take(topic, stored[0].seq, [event.body for event in stored])
            return False
        self._end(topic)
        return True

    def _end(self, topic: _Topic) -> None:
        topic.is_over = True
        topic.known = topic.known or 0
        topic.wake()

    def _heard(self, execution_id: str, first_index: int, bodies: Sequence[bytes]) -> None:
        """A broadcaster has told of events."""
        topic = self._topics.get(execution_id)
        if topic is not None and not self._take(topic, first_index, bodies):
            topic.suspicion.set()

    def _suspect(self, execution_id: str) -> None:
        topic = self._topics.get(execution_id)
        if topic is not None:
            topic.suspicion.set()

    def _take(self, topic: _Topic, first_index: int, bodies: Sequence[bytes]) -> bool:
        """Keep what is new of these. False if it cannot be known what comes before them."""
        if topic.known is None or first_index > topic.known + 1:
            return False
        for index in range(topic.known + 1, first_index + len(bodies)):
            event = parse_event(index, bodies[index - first_index])
            self._keep(topic, event)
            topic.is_over = event.last
        topic.heard_s = asyncio.get_running_loop().time()
        topic.wake()
        return True

    # Memory ------------------------------------------------------------------------------------

    def _keep(self, topic: _Topic, event: StreamEvent) -> None:
        """Keep one more recent event; the oldest go where there are too many."""
        topic.known = event.index
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
            # It has events that are to be forgotten, and what was made of them.
            topic.given = _NONE_GIVEN
        if not topic.recent:
            self._by_age.pop(topic, None)


def _is_final(fields: Mapping[str, bytes]) -> bool:
    """Whether an execution has ended; of one of another version that cannot be said."""
    try:
        return decode_head(fields["head"]).status.is_final
    except UnknownSchema:
        return False


def _behind(place: Place, batch: Sequence[StreamEvent]) -> Sequence[StreamEvent]:
    """What comes after a place, of a batch that may begin before it."""
    if not batch or batch[0].place > place:
        return batch
    return [event for event in batch if event.place > place]


async def _wait(event: asyncio.Event, wait_s: float) -> bool:
    """Whether it was set in time."""
    try:
        async with asyncio.timeout(wait_s):
            await event.wait()
    except TimeoutError:
        return False
    return True
