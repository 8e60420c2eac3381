"""The contract of the log: every commit's events once, in the order of commits, written with it."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from persistence.errors import StaleOwner, VersionConflict
from persistence.log import LOG_START, LogId
from persistence.store import Loaded, Store, StoredEvent
from tests.contract.builders import new, next_commit
from tests.support.owning import claim


async def begun(store: Store, execution_id: str = "e") -> Loaded:
    """An execution that has no events yet."""
    await store.put_definition("digest", b"definition")
    await store.create_execution(new(execution_id, events=()), owners_max=1)
    loaded = await claim(store, execution_id, "o")
    assert loaded is not None
    return loaded


async def said(store: Store, after: LogId = LOG_START) -> list[tuple[str, int, int]]:
    """What the log says, and that its ids are as they must be."""
    entries = await store.read_log(after=after, limit=10_000)
    ids = [entry.log_id for entry in entries]
    assert ids == sorted(ids)
    assert [one.number for one in ids] == [after.number + n + 1 for n in range(len(ids))]
    return [(entry.execution_id, entry.first_seq, entry.count) for entry in entries]


class LogContract:
    async def test_a_log_without_commits_is_empty(self, store: Store):
        assert await store.log_end() == LOG_START
        assert await store.read_log(after=LOG_START, limit=5) == []

    async def test_each_commit_is_an_entry_in_the_order_of_commits(self, store: Store):
        one, other = await begun(store, "one"), await begun(store, "other")
        await store.commit(next_commit(one, events=(b"1", b"2")))
        await store.commit(next_commit(other, events=(b"a",)))
        await store.commit(next_commit(replace(one, version=2, seq=2), events=(b"3",)))
        assert await said(store) == [("one", 1, 2), ("other", 1, 1), ("one", 3, 1)]
        assert (await store.log_end()).number == 3

    async def test_events_of_a_creation_are_an_entry_too(self, store: Store):
        await store.put_definition("digest", b"definition")
        for _ in range(2):
            await store.create_execution(new(events=(b"1", b"2")), owners_max=1)
        assert await said(store) == [("e", 1, 2)]

    async def test_a_commit_without_events_is_none(self, store: Store):
        await store.commit(next_commit(await begun(store), rows={"r": b"x"}))
        assert await store.log_end() == LOG_START

    async def test_a_repeated_or_refused_commit_adds_nothing(self, store: Store):
        loaded = await begun(store)
        commit = next_commit(loaded, events=(b"1",))
        await store.commit(commit)
        await store.commit(commit)
        stale = replace(commit, epoch=loaded.epoch - 1, version=loaded.version + 2, first_seq=2)
        with pytest.raises(StaleOwner):
            await store.commit(stale)
        with pytest.raises(VersionConflict):
            await store.commit(replace(commit, version=loaded.version + 5))
        assert await said(store) == [("e", 1, 1)]

    async def test_many_commits_at_once_are_an_entry_each(self, store: Store):
        loaded = [await begun(store, f"e{n}") for n in range(5)]
        await store.commit_many([next_commit(one, events=(b"x",)) for one in loaded])
        assert await said(store) == [(f"e{n}", 1, 1) for n in range(5)]

    async def test_it_is_read_from_any_entry_on_and_in_parts(self, store: Store):
        loaded = await begun(store)
        for n in range(6):
            at = replace(loaded, version=loaded.version + n, seq=n)
            await store.commit(next_commit(at, events=(b"x",)))
        first = await store.read_log(after=LOG_START, limit=4)
        assert len(first) == 4
        rest = await store.read_log(after=first[-1].log_id, limit=4)
        assert [entry.first_seq for entry in (*first, *rest)] == [1, 2, 3, 4, 5, 6]
        assert await store.log_end() == rest[-1].log_id
        assert await said(store, first[1].log_id) == [("e", seq, 1) for seq in (3, 4, 5, 6)]

    async def test_a_reader_can_wait_for_the_next_entry(self, store: Store):
        loaded = await begun(store)
        assert await store.read_log(after=LOG_START, limit=5, wait_ms=1) == []
        waiting = asyncio.ensure_future(store.read_log(after=LOG_START, limit=5, wait_ms=60_000))
        await asyncio.sleep(0)
        await store.commit(next_commit(loaded, events=(b"1",)))
        async with asyncio.timeout(10):
            assert [entry.count for entry in await waiting] == [1]

    async def test_what_is_there_is_not_waited_for(self, store: Store):
        await store.commit(next_commit(await begun(store), events=(b"1",)))
        async with asyncio.timeout(10):
            assert len(await store.read_log(after=LOG_START, limit=5, wait_ms=60_000)) == 1

    async def test_the_oldest_entries_are_trimmed_and_numbers_go_on(self, small_log: Store):
        """Redis trims in whole blocks, of 100 entries by default."""
        loaded = await begun(small_log)
        for n in range(350):
            at = replace(loaded, version=loaded.version + n, seq=n)
            await small_log.commit(next_commit(at, events=(b"x",)))
        kept = await small_log.read_log(after=LOG_START, limit=1_000)
        assert 10 <= len(kept) <= 210
        assert kept[-1].log_id.number == 350
        assert kept[0].log_id.number == 351 - len(kept)

    async def test_events_of_several_executions_are_read_at_once(self, store: Store):
        one, other = await begun(store, "one"), await begun(store, "other")
        await store.commit(next_commit(one, events=(b"1", b"2", b"3")))
        await store.commit(next_commit(other, events=(b"a",)))
        ranges = [("one", 2, 2), ("none", 1, 5), ("other", 1, 1), ("one", 1, 1)]
        assert await store.read_event_ranges(ranges) == [
            [StoredEvent(2, b"2"), StoredEvent(3, b"3")],
            [],
            [StoredEvent(1, b"a")],
            [StoredEvent(1, b"1")],
        ]

    async def test_what_has_expired_stays_in_the_log_without_its_events(self, store: Store):
        loaded = await begun(store)
        await store.commit(next_commit(loaded, events=(b"1",), release=True))
        assert await store.expire(age_ms=0, limit=10) == 1
        assert await said(store) == [("e", 1, 1)]
        assert await store.read_event_ranges([("e", 1, 1)]) == [[]]
