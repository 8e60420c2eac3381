"""Whoever follows an execution gets every event once and in order, whatever gets lost."""

from __future__ import annotations

import asyncio
import dataclasses
import random
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from typing import cast

import pytest

from harmonia_actors.core import events as ev
from harmonia_actors.core import jsontext
from harmonia_actors.core.errors import ExecutionNotFound, ServiceUnavailable
from harmonia_actors.core.events import encode_event
from harmonia_actors.core.options import ExecutionOptions
from harmonia_actors.core.records import Head, encode_head
from harmonia_actors.core.requests import StreamEvent
from harmonia_actors.core.statuses import ExecutionStatus
from harmonia_actors.runtime import event_hub
from harmonia_actors.runtime.broadcast import Batch, Broadcast, BroadcastLimits, UnknownReader
from harmonia_actors.runtime.event_hub import EventHub, FeedGone
from persistence.errors import StoreUnavailable
from persistence.memory_store import MemoryStore
from persistence.store import Commit, NewExecution, StoredEvent
from tests.support.scripted_actors import settle, until


class Log:
    """One execution in a store, to which events are committed, and told to a broadcaster."""

    def __init__(self, store: MemoryStore, broadcast: Broadcast, name: str = "exec-1") -> None:
        self.store = store
        self.broadcast = broadcast
        self.name = name
        self.bodies: list[bytes] = []
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
        self, count: int, *, last: bool = False, tell: bool = True, size: int = 0
    ) -> None:
        """Some progress, and if `last` the end; the broadcaster hears of it or does not."""
        first = len(self.bodies) + 1
        told: list[ev.Event] = [
            ev.TaskProgress("t", 0.5, f"{first + i}".ljust(size, ".")) for i in range(count)
        ]
        if last:
            told.append(ev.ExecutionCancelled("wf-1", "n", 5))
        bodies = [
            encode_event(event, seq=first + i, at_ms=5, execution_id=self.name)
            for i, event in enumerate(told)
        ]
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
            self.broadcast.publish([(self.name, first, bodies)])


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

    def restart(self) -> None:
        """Another process takes its place: it knows no readers."""
        self.broadcast = Broadcast()

    def _check(self) -> None:
        if self.gone:
            raise FeedGone("away")


class World:
    def __init__(self) -> None:
        self.store = MemoryStore()
        self.broadcast = Broadcast()
        self.feed = Feed(self.broadcast)
        self.hub = EventHub(self.store, self.feed, recent_bytes_max=1_000_000)
        self.log = Log(self.store, self.broadcast)

    def restart_feed(self) -> None:
        self.feed.restart()
        self.log.broadcast = self.feed.broadcast

    async def receive(
        self, after: int = 0, most: int = 10**9, name: str = "exec-1"
    ) -> list[StreamEvent]:
        """All events of a client, until the last or until it has had enough."""
        found: list[StreamEvent] = []
        stream = cast(
            "AsyncGenerator[Sequence[StreamEvent], None]", self.hub.events(name, after=after)
        )
        async with aclosing(stream) as batches:
            async for batch in batches:
                found += batch
                if len(found) >= most:
                    break
        return found


@pytest.fixture
async def world(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    # What is only there to heal losses, sooner.
    monkeypatch.setattr(event_hub, "_LOOK_S", 0.03)
    monkeypatch.setattr(event_hub, "_SOON_S", 0.01)
    found = World()
    await found.log.create()
    yield found
    await found.hub.close()


def seqs(events: Sequence[StreamEvent]) -> list[int]:
    return [event.seq for event in events]


async def test_history_first_then_live_until_the_last(world: World) -> None:
    await world.log.commit(3)
    client = asyncio.ensure_future(world.receive())
    await until(lambda: world.feed.pulls)
    await world.log.commit(2)
    await world.log.commit(1, last=True)
    found = await client
    assert [event.body for event in found] == world.log.bodies
    assert [event.last for event in found] == [False] * 6 + [True]


async def test_only_what_comes_after_a_seq_is_sent(world: World) -> None:
    await world.log.commit(5, last=True)
    assert seqs(await world.receive(after=4)) == [5, 6]
    assert seqs(await world.receive(after=6)) == []
    assert seqs(await world.receive(after=99)) == []


async def test_a_client_that_names_a_seq_beyond_the_log_ends_with_the_execution(
    world: World,
) -> None:
    await world.log.commit(2)
    clients = [asyncio.ensure_future(world.receive(after)) for after in (2, 3, 99)]
    await until(lambda: world.feed.pulls)
    await world.log.commit(2, last=True)
    async with asyncio.timeout(10):
        found = [seqs(await client) for client in clients]
    assert found == [[3, 4, 5], [4, 5], []]


async def test_a_log_that_cannot_be_read_for_a_moment_is_not_at_its_end(world: World) -> None:
    """The client would take what it has for all that there is."""
    await world.log.commit(2)
    client = asyncio.ensure_future(world.receive(2))
    await until(lambda: world.feed.pulls)
    read, tries = world.store.read_events, 0

    async def away_at_first(execution_id: str, *, after: int, limit: int) -> list[StoredEvent]:
        nonlocal tries
        tries += 1
        if tries <= 3:
            raise StoreUnavailable("away")
        return await read(execution_id, after=after, limit=limit)

    world.store.read_events = away_at_first  # type: ignore[method-assign]
    await world.log.commit(2, last=True, tell=False)
    async with asyncio.timeout(10):
        assert seqs(await client) == [3, 4, 5]


async def test_an_unknown_execution_is_said_to_be_unknown(world: World) -> None:
    with pytest.raises(ExecutionNotFound):
        await anext(aiter(world.hub.events("exec-2", after=0)))


async def test_a_long_history_comes_in_pages(world: World) -> None:
    for _ in range(13):
        await world.log.commit(100)
    await world.log.commit(1, last=True)
    batches = [len(batch) async for batch in world.hub.events("exec-1", after=0)]
    assert sum(batches) == 1_302
    assert max(batches) <= 500


async def test_an_execution_that_expires_while_it_is_read_ends_where_it_is(world: World) -> None:
    for _ in range(6):
        await world.log.commit(100, tell=False)
    await world.log.commit(1, last=True, tell=False)
    batches = aiter(world.hub.events("exec-1", after=0))
    first = await anext(batches)
    await world.store.expire(age_ms=0, limit=1)
    async with asyncio.timeout(10):
        rest = [batch async for batch in batches]
    assert seqs(first) == list(range(1, len(first) + 1))
    assert len(first) < 500
    assert rest == []


async def test_clients_of_one_execution_share_one_reading(world: World) -> None:
    reads = 0
    read = world.store.read_events

    async def counted(execution_id: str, *, after: int, limit: int) -> list[StoredEvent]:
        nonlocal reads
        reads += 1
        return await read(execution_id, after=after, limit=limit)

    await world.log.commit(1)
    clients = [asyncio.ensure_future(world.receive()) for _ in range(20)]
    await until(lambda: world.feed.pulls)
    await settle()
    world.store.read_events = counted  # type: ignore[method-assign]
    await world.log.commit(50, last=True)
    found = await asyncio.gather(*clients)
    assert all(seqs(one) == list(range(1, 53)) for one in found)
    assert reads <= 20, "each client reads the log again for each event"


async def test_an_events_data_is_cut_out_of_its_body(world: World) -> None:
    await world.log.commit(1, last=True)
    for event in await world.receive():
        assert event.data == jsontext.encode(jsontext.decode(event.body)["data"])
        assert not hasattr(event, "__dict__")
        held = [getattr(event, field.name) for field in dataclasses.fields(event)]
        assert sum(isinstance(value, bytes) for value in held) == 1, "it holds the data twice"


async def test_what_is_kept_of_recent_events_is_bounded_by_bytes(world: World) -> None:
    logs = [Log(world.store, world.broadcast, name) for name in ("exec-2", "exec-3", "exec-4")]
    for log in logs:
        await log.create()
    clients = [asyncio.ensure_future(world.receive(name=log.name)) for log in logs]
    await until(lambda: world.broadcast.counts()["followed"] == 3)
    kept = []
    for _ in range(30):
        for log in logs:
            await log.commit(1, size=50_000)
            await settle()
            kept.append(world.hub.recent_bytes)
    assert max(kept) <= 1_000_000
    assert kept[-1] > 900_000, "little is kept"
    for log in logs:
        await log.commit(1, last=True)
    for log, found in zip(logs, await asyncio.gather(*clients), strict=True):
        assert [event.body for event in found] == log.bodies
    assert world.hub.recent_bytes == 0


def bytes_of(events: Sequence[StreamEvent | StoredEvent]) -> int:
    return sum(len(event.body) for event in events)


async def test_what_a_client_is_handed_at_a_time_is_bounded_by_bytes(world: World) -> None:
    """All of it waits in memory for as long as the client does not read."""
    read = 0
    reading = world.store.read_events

    async def counted(execution_id: str, *, after: int, limit: int) -> list[StoredEvent]:
        nonlocal read
        found = await reading(execution_id, after=after, limit=limit)
        read += bytes_of(found)
        return found

    world.store.read_events = counted  # type: ignore[method-assign]
    world.hub = EventHub(world.store, world.feed, batch_bytes_max=100_000)
    for size in (20, 30_000, 20, 150_000, 20):
        await world.log.commit(100, size=size)
    events: list[StreamEvent] = []
    batches = aiter(world.hub.events("exec-1", after=0))
    while len(events) < 500:
        batch = await anext(batches)
        assert len(batch) == 1 or bytes_of(batch) <= 100_000
        events += batch
    assert read < 3 * bytes_of(events), "what does not fit is read again and again"
    # What comes live is taken from memory, where more may have come at once.
    await world.log.commit(100, size=30_000)
    await world.log.commit(1, last=True)
    async for batch in batches:
        assert len(batch) == 1 or bytes_of(batch) <= 100_000
        events += batch
    assert [event.body for event in events] == world.log.bodies


async def test_a_long_history_is_read_in_large_pages(world: World) -> None:
    await world.log.commit(3_000, last=True)
    batches = [batch async for batch in world.hub.events("exec-1", after=0)]
    assert len(batches) < 12


async def test_what_is_too_large_to_keep_is_read_from_the_log(world: World) -> None:
    client = asyncio.ensure_future(world.receive())
    await until(lambda: world.feed.pulls)
    await world.log.commit(3, size=2_000_000)
    await world.log.commit(1, last=True)
    assert seqs(await client) == [1, 2, 3, 4, 5]


async def test_an_event_that_the_broadcaster_never_heard_of_comes_all_the_same(
    world: World,
) -> None:
    client = asyncio.ensure_future(world.receive())
    await until(lambda: world.feed.pulls)
    await world.log.commit(2, tell=False)
    await world.log.commit(1, tell=True)
    await world.log.commit(1, last=True, tell=False)
    assert seqs(await client) == [1, 2, 3, 4, 5]


async def test_the_broadcaster_may_be_away_or_another_one(world: World) -> None:
    world.feed.gone = True
    client = asyncio.ensure_future(world.receive())
    await settle()
    await world.log.commit(2)
    world.feed.gone = False
    await world.log.commit(2)
    world.restart_feed()
    await world.log.commit(2)
    await until(lambda: world.feed.broadcast.counts()["followed"] == 1)
    await world.log.commit(1, last=True)
    assert seqs(await client) == list(range(1, 9))


async def test_when_nobody_follows_any_more_the_broadcaster_is_told(world: World) -> None:
    await world.log.commit(3)
    assert seqs(await world.receive(most=3)) == [1, 2, 3]
    await until(lambda: world.broadcast.counts()["followed"] == 0)


async def test_a_store_that_is_away_at_the_start_is_said_to_be(world: World) -> None:
    async def away(*_: object, **__: object) -> list[StoredEvent]:
        raise StoreUnavailable("away")

    world.store.read_events = away  # type: ignore[method-assign]
    with pytest.raises(ServiceUnavailable):
        await world.receive()


@pytest.mark.parametrize("seed", range(25))
async def test_whatever_is_lost_each_client_gets_the_suffix_it_asked_for(
    world: World, seed: int
) -> None:
    """Clients join and leave at any moment; the broadcaster drops, restarts, is away."""
    luck = random.Random(seed)
    world.hub = EventHub(
        world.store, world.feed, recent_bytes_max=luck.choice([0, 900, 3_000, 1_000_000])
    )
    cut: list[tuple[int, asyncio.Task[list[StreamEvent]], int]] = []
    whole: list[tuple[int, asyncio.Task[list[StreamEvent]]]] = []
    for _ in range(40):
        match luck.randrange(8):
            case 0 | 1:
                await world.log.commit(luck.randrange(1, 9), tell=luck.random() < 0.7)
            case 2:
                after = luck.randrange(len(world.log.bodies) + 1)
                whole.append((after, asyncio.ensure_future(world.receive(after))))
            case 3:
                after = luck.randrange(len(world.log.bodies) + 1)
                most = luck.randrange(1, 5)
                cut.append((after, asyncio.ensure_future(world.receive(after, most)), most))
            case 4:
                world.restart_feed()
            case 5:
                world.feed.gone = luck.random() < 0.5
            case _:
                await settle(luck.randrange(1, 6))
    world.feed.gone = False
    await world.log.commit(3, last=True, tell=luck.random() < 0.5)
    total = len(world.log.bodies)
    for after, client in whole:
        found = await client
        assert [event.body for event in found] == world.log.bodies[after:]
    for after, client, most in cut:
        found = await client
        assert [event.body for event in found] == world.log.bodies[after : after + len(found)]
        assert len(found) >= min(most, total - after)


# The broadcaster ---------------------------------------------------------------------------------


async def test_a_reader_gets_what_it_follows_once() -> None:
    broadcast = Broadcast()
    broadcast.follow("r", ["a"])
    broadcast.publish([("a", 1, [b"1"]), ("b", 1, [b"x"]), ("a", 2, [b"2"])])
    assert list(await broadcast.pull("r", 0)) == [("a", 1, [b"1"]), ("a", 2, [b"2"])]
    assert list(await broadcast.pull("r", 0)) == []
    broadcast.unfollow("r", ["a"])
    broadcast.publish([("a", 3, [b"3"])])
    assert list(await broadcast.pull("r", 0)) == []


async def test_a_pull_waits_for_what_comes() -> None:
    broadcast = Broadcast()
    broadcast.follow("r", ["a"])
    pull = asyncio.ensure_future(broadcast.pull("r", 60))
    await settle()
    assert not pull.done()
    broadcast.publish([("a", 1, [b"1"])])
    assert list(await pull) == [("a", 1, [b"1"])]


async def test_an_unknown_reader_is_told_so() -> None:
    with pytest.raises(UnknownReader):
        await Broadcast().pull("nobody", 0)


@pytest.mark.parametrize(
    "limits", [BroadcastLimits(buffered_events_max=3), BroadcastLimits(buffered_bytes_max=30)]
)
async def test_a_reader_that_does_not_fetch_loses_and_holds_up_nobody(
    limits: BroadcastLimits,
) -> None:
    broadcast = Broadcast(limits)
    broadcast.follow("slow", ["a"])
    for seq in range(1, 8):
        broadcast.publish([("a", seq, [b"0123456789"])])
    assert [seq for _, seq, _ in await broadcast.pull("slow", 0)] == [1, 2, 3]
    assert broadcast.counts()["dropped"] == 4
    broadcast.publish([("a", 8, [b"8"])])
    assert [seq for _, seq, _ in await broadcast.pull("slow", 0)] == [8]


async def test_a_reader_that_went_away_is_forgotten() -> None:
    broadcast = Broadcast(BroadcastLimits(reader_idle_s=0))
    broadcast.follow("r", ["a"])
    await settle()
    broadcast.forget_idle()
    assert broadcast.counts() == {"readers": 0, "followed": 0, "published": 0, "dropped": 0}
