"""A hub over a store in memory and broadcasters that lose what they have, for tests of the hub."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import cast

import pytest

from harmonia_actors.core import events as ev
from harmonia_actors.core.cursors import Place
from harmonia_actors.core.events import encode_event
from harmonia_actors.core.log_lines import LogLine
from harmonia_actors.core.options import ExecutionOptions
from harmonia_actors.core.records import Head, encode_head
from harmonia_actors.core.requests import StreamEvent
from harmonia_actors.core.statuses import ExecutionStatus
from harmonia_actors.runtime import event_hub, feeds
from harmonia_actors.runtime.broadcast import Batch, Broadcast
from harmonia_actors.runtime.event_hub import EventHub
from harmonia_actors.runtime.feeds import FeedGone
from harmonia_actors.runtime.ports import EventSink
from harmonia_actors.runtime.shards import ShardedSink
from persistence.memory_store import MemoryStore
from persistence.store import Commit, NewExecution, StoredEvent

__all__ = ["Feed", "Log", "World", "count_reads", "heal_soon", "seqs"]


LINES = ev.TaskLog("t", 1, (LogLine("log", "x", 1, "info"),), 0)


class Log:
    """One execution in a store, to which events are committed, and told to a broadcaster."""

    def __init__(self, store: MemoryStore, sink: EventSink, name: str = "exec-1") -> None:
        self.store = store
        self.sink = sink
        self.name = name
        self.bodies: list[bytes] = []
        #: Where whoever has seen so many events stands.
        self.places = [Place()]
        self.version = 1

    async def create(self) -> None:
        await self.store.renew_owner("o", lease_ms=10**9)
        await self.store.put_definition("d", b"{}")
        new = NewExecution(self.name, "d", {"head": self.head(ExecutionStatus.RUNNING)})
        await self.store.create_execution(new, owners_max=1)

    def head(self, status: ExecutionStatus) -> bytes:
        return encode_head(
            Head(
                execution_id=self.name,
                workflow_id="wf-1",
                workflow_name="n",
                total=1,
                options=ExecutionOptions(),
                created_ms=1,
                updated_ms=1,
                status=status,
            )
        )

    async def commit(
        self, count: int, *, lines: int = 0, last: bool = False, tell: bool = True, size: int = 0
    ) -> None:
        """So many events of lines, some progress, and if `last` the end.

        The broadcaster hears of it or does not.
        """
        first = len(self.bodies) + 1
        told: list[ev.Event] = [LINES] * lines
        told += [ev.TaskProgress("t", 0.5, f"{first + i}".ljust(size, ".")) for i in range(count)]
        if last:
            told.append(ev.ExecutionCancelled("wf-1", "n", 5))
        bodies = [self._numbered(event) for event in told]
        self.bodies += bodies
        self.version += 1
        status = ExecutionStatus.CANCELLED if last else ExecutionStatus.RUNNING
        await self.store.commit(
            Commit(
                self.name,
                "o",
                1,
                self.version,
                first,
                fields={"head": self.head(status)},
                events=bodies,
                release=last,
            )
        )
        if tell:
            self.sink.publish(self.name, first, bodies)

    def _numbered(self, event: ev.Event) -> bytes:
        seq, part = self.places[-1]
        seq, part = (seq, part + 1) if event is LINES else (seq + 1, 0)
        self.places.append(Place(seq, part))
        return encode_event(event, seq=seq, part=part, at_ms=5, execution_id=self.name)


class Feed:
    """A broadcaster that can be away, lose what it has, and start again."""

    def __init__(self, broadcast: Broadcast) -> None:
        self.broadcast = broadcast
        self.gone = False
        self.pulls = 0

    async def follow(self, execution_ids: Sequence[str]) -> None:
        self._check()
        self.broadcast.follow("reader", execution_ids)

    async def unfollow(self, execution_ids: Sequence[str]) -> None:
        self._check()
        self.broadcast.unfollow("reader", execution_ids)

    async def pull(self, wait_s: float) -> Sequence[Batch]:
        self._check()
        self.pulls += 1
        batches = await self.broadcast.pull("reader", wait_s)
        self._check()
        return batches

    def publish(self, execution_id: str, first_seq: int, bodies: Sequence[bytes]) -> None:
        """As whoever commits sees it; what is away hears nothing."""
        if not self.gone:
            self.broadcast.publish([(execution_id, first_seq, bodies)])

    def restart(self) -> None:
        """Another process takes its place: it knows no readers."""
        self.broadcast = Broadcast()

    def _check(self) -> None:
        if self.gone:
            raise FeedGone("away")


class World:
    def __init__(self, shards: int = 1) -> None:
        self.store = MemoryStore()
        self.feeds = [Feed(Broadcast()) for _ in range(shards)]
        self.feed = self.feeds[0]
        self.sink = ShardedSink(self.feeds)
        self.hub = EventHub(self.store, self.feeds, recent_bytes_max=1_000_000)
        self.log = Log(self.store, self.sink)

    async def receive(
        self, after: int = 0, most: int = 10**9, name: str = "exec-1", part: int = 0
    ) -> list[StreamEvent]:
        """All events of a client, until the last or until it has had enough."""
        found: list[StreamEvent] = []
        events = self.hub.events(name, after=after, part=part)
        stream = cast("AsyncGenerator[Sequence[StreamEvent], None]", events)
        async with aclosing(stream) as batches:
            async for batch in batches:
                found += batch
                if len(found) >= most:
                    break
        return found


def heal_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is only there to heal losses comes sooner."""
    monkeypatch.setattr(event_hub, "_LOOK_S", 0.03)
    monkeypatch.setattr(event_hub, "_SOON_S", 0.01)
    monkeypatch.setattr(feeds, "_AGAIN_S", 0.01)


def count_reads(world: World) -> list[str]:
    """One entry for each reading of the log from now on."""
    reads: list[str] = []
    read = world.store.read_events

    async def counted(execution_id: str, *, after: int, limit: int) -> list[StoredEvent]:
        reads.append(execution_id)
        return await read(execution_id, after=after, limit=limit)

    world.store.read_events = counted  # type: ignore[method-assign]
    return reads


def seqs(events: Sequence[StreamEvent]) -> list[int]:
    return [event.seq for event in events]
