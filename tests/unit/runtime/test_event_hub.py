"""Whoever follows an execution gets every event once and in order, whatever gets lost."""

from __future__ import annotations

import asyncio
import dataclasses
import random
from collections.abc import AsyncIterator, Sequence

import pytest

from harmonia_actors.core import jsontext
from harmonia_actors.core.errors import ExecutionNotFound, ServiceUnavailable
from harmonia_actors.core.requests import StreamEvent
from harmonia_actors.runtime.broadcast import Batch
from harmonia_actors.runtime.event_hub import EventHub
from harmonia_actors.runtime.shards import shard_of
from persistence.errors import StoreUnavailable
from persistence.store import StoredEvent
from tests.support.scripted_actors import settle, until
from tests.unit.runtime.event_hub_rig import Log, World, count_reads, heal_soon, seqs


@pytest.fixture
async def world(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    heal_soon(monkeypatch)
    found = World()
    await found.log.create()
    yield found
    await found.hub.close()


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


async def test_a_client_that_names_a_place_beyond_the_log_gets_what_comes_after_it(
    world: World,
) -> None:
    """How many log lines come before it cannot be known yet; none of them is sent, nor no event."""
    await world.log.commit(1)
    await world.log.commit(0, lines=2)
    named = [(1, 1), (1, 4), (2, 0), (2, 1), (4, 0), (9, 0)]
    clients = [asyncio.ensure_future(world.receive(after=seq, part=part)) for seq, part in named]
    await until(lambda: world.feed.pulls)
    await settle(20)
    for _ in range(2):
        await world.log.commit(1, lines=3)
    await world.log.commit(0, lines=2, last=True)
    async with asyncio.timeout(10):
        found = [[event.place for event in await client] for client in clients]
    assert found == [[one for one in world.log.places if one > place] for place in named]


async def test_a_client_is_given_nothing_but_what_it_wants_or_waits(world: World) -> None:
    """What comes before the place that it has named is no reason to say anything."""
    await world.log.commit(1)
    batches = aiter(world.hub.events("exec-1", after=9))
    assert await anext(batches) == ()
    await until(lambda: world.feed.pulls)
    following = asyncio.ensure_future(anext(batches))
    for _ in range(8):
        await world.log.commit(1, lines=2)
        await settle()
    assert not following.done()
    await world.log.commit(1, last=True)
    assert [event.place for event in await following] == [(10, 0), (11, 0)]


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


async def test_an_execution_that_expires_while_it_is_read_is_gone_and_has_not_ended(
    world: World,
) -> None:
    """An end in good order would say that the client has all there was."""
    for _ in range(6):
        await world.log.commit(100, tell=False)
    await world.log.commit(1, last=True, tell=False)
    batches = aiter(world.hub.events("exec-1", after=0))
    first = await anext(batches)
    await world.store.expire(age_ms=0, limit=1)
    assert seqs(first) == list(range(1, len(first) + 1))
    assert len(first) < 500
    async with asyncio.timeout(10):
        with pytest.raises(ExecutionNotFound):
            await anext(batches)


async def test_an_execution_whose_end_nobody_was_told_is_gone_once_it_has_expired(
    world: World,
) -> None:
    await world.log.commit(1)
    clients = [asyncio.ensure_future(world.receive(after)) for after in (0, 1, 9)]
    await until(lambda: world.feed.pulls)
    await settle(20)
    await world.log.commit(2, last=True, tell=False)
    await world.store.expire(age_ms=0, limit=1)
    async with asyncio.timeout(10):
        for client in clients:
            with pytest.raises(ExecutionNotFound):
                await client


async def test_clients_of_one_execution_share_one_reading(world: World) -> None:
    await world.log.commit(1)
    clients = [asyncio.ensure_future(world.receive()) for _ in range(20)]
    await until(lambda: world.feed.pulls)
    await settle(20)
    reads = count_reads(world)
    await world.log.commit(50, last=True)
    found = await asyncio.gather(*clients)
    assert all(seqs(one) == list(range(1, 53)) for one in found)
    assert len(reads) <= 2, "each client reads the log by itself"


async def test_an_events_data_is_cut_out_of_its_body(world: World) -> None:
    await world.log.commit(1, last=True)
    for event in await world.receive():
        assert event.data == jsontext.encode(jsontext.decode(event.body)["data"])
        assert not hasattr(event, "__dict__")
        held = [getattr(event, field.name) for field in dataclasses.fields(event)]
        assert sum(isinstance(value, bytes) for value in held) == 1, "it holds the data twice"


async def test_what_is_kept_of_recent_events_is_bounded_by_bytes(world: World) -> None:
    logs = [Log(world.store, world.sink, name) for name in ("exec-2", "exec-3", "exec-4")]
    for log in logs:
        await log.create()
    clients = [asyncio.ensure_future(world.receive(name=log.name)) for log in logs]
    await until(lambda: world.feed.broadcast.counts()["followed"] == 3)
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


async def test_what_is_kept_of_recent_events_is_bounded_by_their_number(world: World) -> None:
    """Small ones take more memory than they have bytes."""
    client = asyncio.ensure_future(world.receive())
    await until(lambda: world.feed.pulls)
    kept = []
    for _ in range(30):
        await world.log.commit(100)
        await settle(20)
        kept.append(world.hub.recent_bytes)
    await world.log.commit(1, last=True)
    assert seqs(await client) == list(range(1, 3_003))
    assert 0 < max(kept) < 2_100 * max(map(len, world.log.bodies))


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
    world.hub = EventHub(world.store, world.feeds, batch_bytes_max=100_000)
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
    world.feed.restart()
    await world.log.commit(2)
    await until(lambda: world.feed.broadcast.counts()["followed"] == 1)
    await world.log.commit(1, last=True)
    assert seqs(await client) == list(range(1, 9))


async def test_when_nobody_follows_any_more_the_broadcaster_is_told(world: World) -> None:
    await world.log.commit(3)
    assert seqs(await world.receive(most=3)) == [1, 2, 3]
    await until(lambda: world.feed.broadcast.counts()["followed"] == 0)


async def test_a_store_that_is_away_at_the_start_is_said_to_be(world: World) -> None:
    async def away(*_: object, **__: object) -> list[StoredEvent]:
        raise StoreUnavailable("away")

    world.store.read_events = away  # type: ignore[method-assign]
    with pytest.raises(ServiceUnavailable):
        await world.receive()


async def in_pieces(world: World, log: Log, after: int, most: int) -> list[bytes]:
    """A client that is cut off after so many events, or a few more, and resumes: to the end."""
    found: list[bytes] = []
    place = log.places[after]
    while True:
        events = await world.receive(place.seq, most, log.name, place.part)
        found += [event.body for event in events]
        place = events[-1].place if events else place
        if not events or events[-1].last:
            return found


@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("seed", range(25))
async def test_whatever_is_lost_each_client_gets_the_suffix_it_asked_for(
    monkeypatch: pytest.MonkeyPatch, seed: int, shards: int
) -> None:
    """Clients join, are cut off and resume at any moment; any broadcaster drops, dies, is away."""
    heal_soon(monkeypatch)
    luck = random.Random(seed)
    world = World(shards)
    world.hub = EventHub(
        world.store, world.feeds, recent_bytes_max=luck.choice([0, 900, 3_000, 1_000_000])
    )
    logs = [Log(world.store, world.sink, f"exec-{number}") for number in range(2 * shards - 1)]
    for log in logs:
        await log.create()
    clients: list[tuple[Log, int, asyncio.Task[list[bytes]]]] = []
    for _ in range(40 * shards):
        log, feed = luck.choice(logs), luck.choice(world.feeds)
        match luck.randrange(8):
            case 0 | 1:
                lines = luck.choice([0, 0, 1, 4])
                await log.commit(luck.randrange(1, 9), lines=lines, tell=luck.random() < 0.7)
            case 2 | 3 as kind:
                after = luck.randrange(len(log.bodies) + 1)
                most = luck.randrange(1, 5) if kind == 3 else 10**9
                client = asyncio.ensure_future(in_pieces(world, log, after, most))
                clients.append((log, after, client))
            case 4:
                feed.restart()
            case 5:
                feed.gone = luck.random() < 0.5
            case _:
                await settle(luck.randrange(1, 6))
    for feed in world.feeds:
        feed.gone = False
    for log in logs:
        await log.commit(3, lines=2, last=True, tell=luck.random() < 0.5)
    for log, after, client in clients:
        async with asyncio.timeout(20):
            assert await client == log.bodies[after:]
    await world.hub.close()


async def test_a_dead_broadcaster_delays_no_events_of_another_ones_executions() -> None:
    """With the times as they are: it would be ten seconds until anybody looks by himself."""
    world = World(shards=2)
    names = [f"exec-{number}" for number in range(20)]
    served, orphaned = (
        next(name for name in names if shard_of(name, 2) == shard) for shard in (0, 1)
    )
    logs = [Log(world.store, world.sink, name) for name in (served, orphaned)]
    for log in logs:
        await log.create()
    world.feeds[1].gone = True
    clients = [asyncio.ensure_future(world.receive(name=log.name)) for log in logs]
    await until(lambda: world.feed.pulls)
    for log in logs:
        await log.commit(2, last=True)
    async with asyncio.timeout(5):
        assert seqs(await clients[0]) == [1, 2, 3]
    assert not clients[1].done()
    world.feeds[1].gone = False
    async with asyncio.timeout(5):
        assert seqs(await clients[1]) == [1, 2, 3]
    await world.hub.close()


async def test_a_replica_asks_only_those_broadcasters_that_have_something_for_it() -> None:
    world = World(shards=2)
    log = next(
        Log(world.store, world.sink, name)
        for name in (f"exec-{number}" for number in range(20))
        if shard_of(name, 2) == 0
    )
    await log.create()
    client = asyncio.ensure_future(world.receive(name=log.name))
    await until(lambda: world.feeds[0].pulls)
    await log.commit(1, last=True)
    assert seqs(await client) == [1, 2]
    assert world.feeds[1].pulls == 0
    await world.hub.close()


async def test_clients_that_wait_ask_the_store_for_nothing(world: World) -> None:
    """However many there are: what comes is told, and one looks into the log for all of them."""
    await world.log.commit(1)
    clients = [asyncio.ensure_future(world.receive()) for _ in range(20)]
    await until(lambda: world.feed.pulls)
    await settle(20)
    reads = count_reads(world)
    for _ in range(30):
        await world.log.commit(1)
        await settle()
    await world.log.commit(1, last=True)
    found = await asyncio.gather(*clients)
    assert all(seqs(one) == list(range(1, 34)) for one in found)
    assert len(reads) <= 10, "the log is read for each client or each event"


async def test_clients_at_the_same_place_are_given_the_same_batch(world: World) -> None:
    """So that what is sent to all of them has to be made only once."""
    await world.log.commit(1)
    given: list[list[Sequence[StreamEvent]]] = [[], []]

    async def follow(into: list[Sequence[StreamEvent]]) -> None:
        into.extend([batch async for batch in world.hub.events("exec-1", after=0)])

    clients = [asyncio.ensure_future(follow(into)) for into in given]
    await until(lambda: world.feed.pulls)
    await settle(20)
    await world.log.commit(5, lines=2)
    await settle(20)
    await world.log.commit(1, last=True)
    await asyncio.gather(*clients)
    assert [len(batch) for batch in given[0]] == [1, 7, 2]
    assert all(mine is yours for mine, yours in zip(given[0][1:], given[1][1:], strict=True))


async def test_a_broadcaster_that_does_not_answer_keeps_nobody_from_the_log(world: World) -> None:
    answers = asyncio.Event()
    follow = world.feed.follow

    async def hanging(execution_ids: Sequence[str]) -> None:
        await answers.wait()
        await follow(execution_ids)

    world.feed.follow = hanging  # type: ignore[method-assign]
    client = asyncio.ensure_future(world.receive(most=3))
    await world.log.commit(2, tell=False)
    await world.log.commit(1, tell=False)
    async with asyncio.timeout(10):
        assert seqs(await client) == [1, 2, 3]
    rest = asyncio.ensure_future(world.receive(after=3))
    answers.set()
    await until(lambda: world.feed.broadcast.counts()["followed"])
    await world.log.commit(1, last=True)
    async with asyncio.timeout(10):
        assert seqs(await rest) == [4, 5]


async def test_an_error_that_nobody_expects_ends_no_following(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    """Else all clients would ask the store again and again, until somebody else comes."""
    errors = {name: RuntimeError(f"odd {name}") for name in ("follow", "pull", "follow again")}
    follow, pull = world.feed.follow, world.feed.pull

    def fail_once(name: str) -> None:
        if name in errors:
            raise errors.pop(name)

    async def odd_follow(execution_ids: Sequence[str]) -> None:
        fail_once("follow" if "follow" in errors else "follow again")
        await follow(execution_ids)

    async def odd_pull(wait_s: float) -> Sequence[Batch]:
        fail_once("pull")
        return await pull(wait_s)

    world.feed.follow, world.feed.pull = odd_follow, odd_pull  # type: ignore[method-assign]
    client = asyncio.ensure_future(world.receive())
    await until(lambda: not errors and world.feed.broadcast.counts()["followed"])
    await until(lambda: world.hub._topics["exec-1"].known is not None)
    await world.log.commit(2, last=True)
    async with asyncio.timeout(10):
        assert seqs(await client) == [1, 2, 3]
    odd = [str(record.exc_info[1]) for record in caplog.records if record.exc_info]
    assert odd == ["odd follow", "odd pull", "odd follow again"]
