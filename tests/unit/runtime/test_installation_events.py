"""Followers of all executions: over both stores, while the store is away, and when nobody is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing

import pytest

from harmonia_actors.core import events as ev
from harmonia_actors.core import jsontext
from harmonia_actors.core.cursors import Cursor, parse_cursor
from harmonia_actors.core.errors import ServiceUnavailable
from harmonia_actors.core.events import encode_event
from harmonia_actors.core.requests import LoggedEvent
from harmonia_actors.runtime.installation_events import InstallationEvents
from persistence.embedded import EmbeddedServer
from persistence.errors import StoreUnavailable
from persistence.log import LogEntry, LogId
from persistence.memory_store import MemoryStore
from persistence.redis_store import RedisStore
from persistence.store import Commit, Store, StoredEvent
from tests.support.many_logs import ManyLogs, received
from tests.support.scripted_actors import settle, until


class FlakyStore(MemoryStore):
    """Its log can be away."""

    away = False
    readings = 0

    async def read_log(self, *, after: LogId, limit: int, wait_ms: int = 0) -> Sequence[LogEntry]:
        self.readings += 1
        if self.away:
            raise StoreUnavailable("away")
        return await super().read_log(after=after, limit=limit, wait_ms=wait_ms)

    async def log_end(self) -> LogId:
        if self.away:
            raise StoreUnavailable("away")
        return await super().log_end()


@pytest.fixture(params=["memory", "redis"])
async def store(
    request: pytest.FixtureRequest, redis_server: EmbeddedServer, redis_namespace: str
) -> AsyncIterator[Store]:
    if request.param == "memory":
        yield MemoryStore()
        return
    opened = RedisStore.connect(redis_server.url, redis_namespace)
    yield opened
    await opened.close()


async def follow(
    hub: InstallationEvents, found: list[LoggedEvent], after: Cursor | None = None
) -> None:
    async with aclosing(hub.events(after=after)) as batches:
        async for batch in batches:
            found += batch


def ids(events: Sequence[LoggedEvent]) -> list[tuple[str, int]]:
    bodies = [jsontext.decode(event.body) for event in events]
    return [(one["execution_id"], one["seq"]) for one in bodies if one["seq"]]


async def test_live_events_and_history_over_both_stores(store: Store) -> None:
    logs, hub = ManyLogs(store), InstallationEvents(store)
    await logs.create("exec-1", "wf-1")
    await logs.create("exec-2", "wf-2")
    await logs.commit("exec-1", 3)
    live: list[LoggedEvent] = []
    whole: list[LoggedEvent] = []
    clients = [
        asyncio.ensure_future(follow(hub, live)),
        asyncio.ensure_future(follow(hub, whole, Cursor())),
    ]
    await until(lambda: live and len(whole) == 4)
    await logs.commit("exec-2", 2)
    await until(lambda: len(live) == 3)
    await logs.commit("exec-1", 1)
    await until(lambda: len(live) == 4 and len(whole) == 7)
    assert ids(live) == [("exec-2", 1), ("exec-2", 2), ("exec-1", 4)]
    assert ids(whole) == [one.id for one in logs.said]
    assert [event.workflow_id for event in whole[1:]] == [one.workflow_id for one in logs.said]
    for client in clients:
        client.cancel()
    await asyncio.gather(*clients, return_exceptions=True)


async def test_a_commit_of_many_events_comes_in_parts_and_is_resumed_in_any(store: Store) -> None:
    logs, hub = ManyLogs(store), InstallationEvents(store)
    await logs.create("exec-1")
    await logs.commit("exec-1", 1_200)
    await logs.commit("exec-1", 1)
    sizes = [len(batch) async for batch in hub.events(after=Cursor(), follow=False)]
    assert (sizes[0], sum(sizes), max(sizes)) == (1, 1_203, 500)
    assert len(sizes) > 4
    whole = await received(hub)
    assert ids(whole) == [one.id for one in logs.said]
    for at in (0, 15, 16, 499, 500, 998, 1_198, 1_199):
        assert ids(await received(hub, whole[at].position)) == ids(whole[at + 1 :])


async def test_a_cursor_that_claims_more_of_a_commit_than_there_is_is_taken_as_all_of_it() -> None:
    store = MemoryStore()
    logs, hub = ManyLogs(store), InstallationEvents(store)
    await logs.create("exec-1")
    await logs.commit("exec-1", 2)
    (first, _) = await received(hub)
    beyond = first.position._replace(taken=7)
    assert ids(await received(hub, beyond)) == []
    await logs.commit("exec-1", 1)
    assert ids(await received(hub, beyond)) == [("exec-1", 3)]


@pytest.mark.parametrize(
    "text", ["0", "0-0", "5-0", "0-1.1", "5-1", "5-1.3", "999999999999999-1.1", "5-0.1", "0-0.1"]
)
async def test_whatever_is_a_cursor_can_be_begun_after(store: Store, text: str) -> None:
    logs, hub = ManyLogs(store), InstallationEvents(store)
    await logs.create("exec-1")
    await logs.commit("exec-1", 1)
    cursor = parse_cursor(text)
    if cursor is not None:
        assert {event.type for event in await received(hub, cursor)} <= {"task_started", "gap"}


async def test_a_log_that_lost_its_end_and_was_numbered_anew_is_a_gap() -> None:
    """As after a crash of a server that syncs once a second: the numbers are the same."""
    now = iter(range(1_000, 2_000))
    lost, kept = MemoryStore(lambda: 100), MemoryStore(lambda: next(now))
    before = ManyLogs(lost)
    await before.create("exec-1")
    await before.commit("exec-1", 1)
    (event,) = await received(InstallationEvents(lost))
    after = ManyLogs(kept)
    await after.create("exec-1")
    await after.commit("exec-1", 1)
    gap, *rest = await received(InstallationEvents(kept), event.position)
    assert jsontext.decode(gap.data) == {"reason": "unknown_cursor"}
    assert ids(rest) == [("exec-1", 1)]


async def test_an_execution_of_another_version_is_a_gap_and_the_others_go_on(store: Store) -> None:
    """It comes back to the version that wrote it; the stream of all must not end for anybody."""
    logs, hub = ManyLogs(store), InstallationEvents(store)
    for name in ("exec-1", "exec-2", "exec-3"):
        await logs.create(name)
    live: list[LoggedEvent] = []
    client = asyncio.ensure_future(follow(hub, live))
    await until(lambda: live)
    await logs.commit("exec-1", 1)
    event = encode_event(ev.TaskProgress("a", 0.5, ""), seq=1, at_ms=5, execution_id="exec-2")
    later = Commit("exec-2", "o", 1, 2, 1, fields={"head": b'{"v":1000}'}, events=[event])
    await store.commit(later)
    await logs.commit("exec-3", 1)
    await until(lambda: len(live) == 4)
    for first, gap, last in (live[1:], await received(hub)):
        assert ids([first, last]) == [("exec-1", 1), ("exec-3", 1)]
        told = {"reason": "unreadable", "events": 1}
        told |= {"executions": ["exec-2"], "executions_total": 1}
        assert jsontext.decode(gap.data) == told
    client.cancel()
    await asyncio.gather(client, return_exceptions=True)


async def test_what_is_missing_for_different_reasons_is_told_apart() -> None:
    store = MemoryStore()
    logs, hub = ManyLogs(store), InstallationEvents(store)
    for name in ("exec-1", "exec-2", "exec-3"):
        await logs.create(name)
        await logs.commit(name, 2, last=name != "exec-2")
    await store.commit(Commit("exec-2", "o", 1, 3, 3, fields={"head": b'{"v":1000}'}))
    await logs.expire()
    gaps = [jsontext.decode(event.data) for event in await received(hub)]
    assert [(gap["reason"], gap["events"], gap["executions"]) for gap in gaps] == [
        ("expired", 3, ["exec-1"]),
        ("unreadable", 2, ["exec-2"]),
        ("expired", 3, ["exec-3"]),
    ]


async def test_a_store_that_is_away_at_the_start_is_said_to_be() -> None:
    store = FlakyStore()
    store.away = True
    with pytest.raises(ServiceUnavailable):
        await received(InstallationEvents(store))
    with pytest.raises(ServiceUnavailable):
        await follow(InstallationEvents(store), [])


async def test_a_store_that_is_away_for_a_while_loses_nothing() -> None:
    store = FlakyStore()
    logs, hub = ManyLogs(store), InstallationEvents(store)
    await logs.create("exec-1")
    found: list[LoggedEvent] = []
    client = asyncio.ensure_future(follow(hub, found))
    await until(lambda: found)
    store.away = True
    await logs.commit("exec-1", 2)
    await logs.commit("exec-1", 1)
    await settle()
    store.away = False
    await until(lambda: len(found) == 4)
    assert ids(found) == [one.id for one in logs.said]
    client.cancel()
    await asyncio.gather(client, return_exceptions=True)


async def test_when_nobody_follows_nothing_is_read() -> None:
    store = FlakyStore()
    logs, hub = ManyLogs(store), InstallationEvents(store)
    await logs.create("exec-1")
    await logs.commit("exec-1", 1)
    assert len(await received(hub)) == 1
    found: list[LoggedEvent] = []
    client = asyncio.ensure_future(follow(hub, found))
    await until(lambda: found)
    client.cancel()
    await asyncio.gather(client, return_exceptions=True)
    await settle()
    before = store.readings
    for _ in range(5):
        await logs.commit("exec-1", 1)
        await settle()
    assert store.readings == before


async def test_what_a_client_is_handed_at_a_time_is_bounded_by_bytes() -> None:
    """From the store, and from what is kept in memory."""
    store = MemoryStore()
    logs, hub = ManyLogs(store), InstallationEvents(store, batch_bytes_max=100_000)
    read = 0
    reading = store.read_event_ranges

    async def counted(ranges: Sequence[tuple[str, int, int]]) -> list[Sequence[StoredEvent]]:
        nonlocal read
        found = await reading(ranges)
        read += sum(len(event.body) for events in found for event in events)
        return found

    store.read_event_ranges = counted  # type: ignore[method-assign]
    for name in "ab":
        await logs.create(name)

    async def commit() -> None:
        for size in (0, 30_000, 0, 150_000):
            for name in "ab":
                await logs.commit(name, 20, size=size)

    await commit()
    events: list[LoggedEvent] = []
    async with aclosing(hub.events(after=Cursor())) as batches:
        is_live = False
        async for batch in batches:
            size = sum(len(event.body) for event in batch)
            assert len(batch) == 1 or size <= 100_000
            events += batch
            if len(ids(events)) == 160 and not is_live:
                is_live = True
                assert read < 3 * sum(len(event.body) for event in events)
                await commit()
            if len(ids(events)) == 320:
                break
    assert ids(events) == [said.id for said in logs.said]
    await hub.close()


@pytest.mark.parametrize(("count", "size", "most"), [(40, 30_000, 200_000), (6_000, 1, 1_500_000)])
async def test_what_is_kept_of_recent_events_is_bounded_by_bytes_and_by_number(
    count: int, size: int, most: int
) -> None:
    """A client that has fallen behind what is kept reads for itself."""
    store = MemoryStore()
    logs, hub = ManyLogs(store), InstallationEvents(store, recent_bytes_max=most)
    await logs.create("a")
    kept: list[int] = []
    found: list[LoggedEvent] = []
    quick = asyncio.ensure_future(follow(hub, found))
    async with aclosing(hub.events(after=None)) as batches:
        slow = [*await anext(batches)]
        await settle()
        for done in range(1, 21):
            await logs.commit("a", count // 20, size=size)
            await until(lambda done=done: len(found) > done * (count // 20))  # type: ignore[misc]
            kept.append(hub.recent_bytes)
        while len(slow) <= count:
            slow += await anext(batches)
    assert ids(slow) == ids(found) == [said.id for said in logs.said]
    assert 0 < max(kept) <= most
    assert max(kept) < sum(len(event.body) for event in found) * 0.9
    quick.cancel()
    await asyncio.wait([quick])
    await hub.close()


async def test_clients_at_the_same_place_are_given_the_same_batch() -> None:
    """So that what is sent to all of them has to be made only once."""
    store = MemoryStore()
    logs, hub = ManyLogs(store), InstallationEvents(store)
    await logs.create("exec-1")
    given: list[list[Sequence[LoggedEvent]]] = [[], []]

    async def take(into: list[Sequence[LoggedEvent]]) -> None:
        async with aclosing(hub.events(after=None)) as batches:
            async for batch in batches:
                into.append(batch)  # noqa: PERF401 - it never ends

    clients = [asyncio.ensure_future(take(into)) for into in given]
    await until(lambda: all(given))
    for count in (3, 1):
        before = len(given[0])
        await logs.commit("exec-1", count)
        await until(lambda before=before: all(len(one) > before for one in given))
    for client in clients:
        client.cancel()
    await asyncio.gather(*clients, return_exceptions=True)
    assert [len(batch) for batch in given[0]] == [1, 3, 1]
    assert all(mine is yours for mine, yours in zip(given[0][1:], given[1][1:], strict=True))
