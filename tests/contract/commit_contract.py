"""The contract of commits and the inbox."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from persistence.errors import (
    Missing,
    StaleOwner,
    VersionConflict,
)
from persistence.store import (
    Commit,
    InboxEntry,
    IndexEntry,
    Store,
    StoredEvent,
)
from tests.contract.builders import (
    ALL_BYTES,
    LEASE_MS,
    claimed,
    ids,
    loads,
    new,
    next_commit,
)
from tests.support.owning import claim


class CommitContract:
    async def test_a_commit_writes_all_its_parts(self, store: Store):
        loaded = await claimed(store)
        await store.append_inbox("e", InboxEntry("i", b"cancel"))
        await store.commit(
            next_commit(
                loaded,
                fields={"head": b"running", "more": ALL_BYTES},
                rows={"task-1": ALL_BYTES, "task-3": b"new"},
                outputs={"task-1/1": ALL_BYTES},
                events=(b"2", ALL_BYTES),
                inbox_done=("i",),
                indexes=(IndexEntry("running", 7),),
            )
        )
        snapshot = await store.read_execution("e")
        assert snapshot is not None
        assert (snapshot.version, snapshot.seq, snapshot.epoch) == (2, 3, 1)
        assert snapshot.fields == {"input": b"{}", "head": b"running", "more": ALL_BYTES}
        assert snapshot.rows == {"task-1": ALL_BYTES, "task-2": b"pending", "task-3": b"new"}
        assert await store.read_outputs([("e", "task-1/1")]) == [ALL_BYTES]
        events = await store.read_events("e", after=1, limit=10)
        assert events == [StoredEvent(2, b"2"), StoredEvent(3, ALL_BYTES)]
        assert await store.read_inbox("e") == []
        assert await ids(store, "running") == ("e",)

    async def test_another_owner_is_refused_whatever_its_epoch(self, store: Store):
        """A server that has lost its last second gives the same one twice."""
        loaded = await claimed(store, owner="o")
        for version in (loaded.version, loaded.version + 1):
            with pytest.raises(StaleOwner, match="'o'"):
                await store.commit(next_commit(loaded, "other", version=version))
        await store.commit(next_commit(loaded, release=True))
        await store.commit(next_commit(loaded, release=True))

    async def test_a_stale_epoch_is_refused_and_nothing_moves(self, store: Store):
        old = await claimed(store, owner="old")
        await claim(store, "e", "next")
        before = await store.read_execution("e")
        with pytest.raises(StaleOwner, match="epoch 1"):
            await store.commit(
                next_commit(
                    old,
                    "old",
                    fields={"head": b"x"},
                    rows={"task-1": b"x"},
                    outputs={"o": b"x"},
                    events=(b"x",),
                    indexes=(IndexEntry("x", 1),),
                    release=True,
                )
            )
        assert await store.read_execution("e") == before
        assert await store.read_outputs([("e", "o")]) == [None]
        assert await ids(store, "x") == ()

    async def test_an_epoch_from_the_future_is_refused_too(self, store: Store):
        loaded = await claimed(store)
        with pytest.raises(StaleOwner):
            await store.commit(next_commit(replace(loaded, epoch=loaded.epoch + 1)))

    async def test_a_stale_epoch_is_refused_even_for_a_repeat(self, store: Store):
        loaded = await claimed(store)
        commit = next_commit(loaded)
        await store.commit(commit)
        await claim(store, "e", "other")
        with pytest.raises(StaleOwner):
            await store.commit(commit)

    async def test_a_repeat_of_the_last_commit_succeeds_and_changes_nothing(self, store: Store):
        loaded = await claimed(store)
        commit = next_commit(loaded, events=(b"2",), rows={"task-1": b"running"})
        await store.commit(commit)
        before = await store.read_execution("e")
        await store.commit(commit)
        assert await store.read_execution("e") == before
        assert len(await store.read_events("e", after=0, limit=10)) == 2

    @pytest.mark.parametrize("gap", [2, 5])
    async def test_a_gap_in_versions_is_refused(self, store: Store, gap: int):
        loaded = await claimed(store)
        with pytest.raises(VersionConflict):
            await store.commit(next_commit(replace(loaded, version=gap)))
        snapshot = await store.read_execution("e")
        assert snapshot is not None
        assert snapshot.version == 1

    async def test_a_version_long_passed_is_refused(self, store: Store):
        loaded = await claimed(store)
        for version in (1, 2, 3):
            await store.commit(next_commit(replace(loaded, version=version)))
        with pytest.raises(VersionConflict):
            await store.commit(next_commit(replace(loaded, version=1)))

    @pytest.mark.parametrize("seq", [0, 1, 3])
    async def test_events_must_follow_the_last_one(self, store: Store, seq: int):
        loaded = await claimed(store)
        with pytest.raises(VersionConflict, match="first event"):
            await store.commit(next_commit(loaded, first_seq=seq, events=(b"x",)))
        assert len(await store.read_events("e", after=0, limit=10)) == 1

    async def test_a_commit_to_nothing_is_an_error(self, store: Store):
        with pytest.raises(Missing, match="'none'"):
            await store.commit(Commit("none", "o", 1, 2, 1))

    async def test_an_output_is_written_once(self, store: Store):
        loaded = await claimed(store)
        await store.commit(next_commit(loaded, outputs={"o": b"first"}))
        later = replace(loaded, version=2)
        await store.commit(next_commit(later, outputs={"o": b"second", "p": b"1"}))
        assert await store.read_outputs([("e", "o"), ("e", "p")]) == [b"first", b"1"]

    async def test_indexes_are_left_or_replaced_as_the_commit_says(self, store: Store):
        loaded = await claimed(store)
        await store.commit(next_commit(loaded, indexes=(IndexEntry("a", 1), IndexEntry("b", 1))))
        await store.commit(next_commit(replace(loaded, version=2)))
        assert await ids(store, "a") == ("e",)
        await store.commit(next_commit(replace(loaded, version=3), indexes=(IndexEntry("b", 2),)))
        assert await ids(store, "a") == ()
        assert await ids(store, "b") == ("e",)
        await store.commit(next_commit(replace(loaded, version=4), indexes=()))
        assert await ids(store, "b") == ()

    async def test_a_released_execution_has_no_owner_and_no_load(self, store: Store):
        await store.renew_owner("o", lease_ms=LEASE_MS)
        loaded = await claimed(store)
        await store.append_inbox("e", InboxEntry("i", b""))
        commit = next_commit(loaded, release=True, fields={"head": b"completed"})
        await store.commit(commit)
        snapshot = await store.read_execution("e")
        assert snapshot is not None
        assert (snapshot.owner, snapshot.fields["head"]) == ("", b"completed")
        assert await loads(store) == {"o": 0}
        assert await store.owned_executions("o", limit=1) == []
        assert await store.inboxes_waiting("o") == []
        await store.commit(commit)
        with pytest.raises(StaleOwner, match="ended"):
            await store.commit(next_commit(replace(loaded, version=2)))

    async def test_many_commits_are_each_for_themselves(self, store: Store):
        loaded = [await claimed(store, f"e{at}") for at in range(5)]
        await claim(store, "e1", "other")
        commits = [next_commit(one, events=(b"2",)) for one in loaded]
        commits[2] = replace(commits[2], version=9)
        commits[3] = replace(commits[3], execution_id="none")
        outcomes = await store.commit_many(commits)
        assert [type(one) for one in outcomes] == [
            type(None),
            StaleOwner,
            VersionConflict,
            Missing,
            type(None),
        ]
        seqs = [await store.read_execution(f"e{at}") for at in range(5)]
        assert [one and one.seq for one in seqs] == [2, 1, 1, 1, 2]
        assert await store.commit_many([]) == []

    async def test_commits_at_the_same_time_do_not_mix(self, store: Store):
        loaded = [await claimed(store, f"e{at}") for at in range(40)]
        await claim(store, "e7", "other")
        outcomes = await asyncio.gather(
            *(
                store.commit(next_commit(one, rows={"task-1": one.execution_id.encode()}))
                for one in loaded
            ),
            return_exceptions=True,
        )
        assert [type(one) for at, one in enumerate(outcomes) if one is not None] == [StaleOwner]
        for at in range(40):
            rows = await store.read_rows(f"e{at}", ["task-1"])
            assert rows == {"task-1": b"pending" if at == 7 else f"e{at}".encode()}

    async def test_a_large_commit_is_whole(self, store: Store):
        loaded = await claimed(store)
        rows = {f"task-{at}": str(at).encode() for at in range(10_001)}
        await store.commit(
            next_commit(
                loaded,
                rows=rows,
                fields={f"f{at}": b"x" for at in range(3_000)},
                outputs=rows,
                events=[str(at).encode() for at in range(2, 10_002)],
            )
        )
        snapshot = await store.read_execution("e")
        assert snapshot is not None
        assert snapshot.rows == {**new().rows, **rows}
        assert len(snapshot.fields) == 3_002
        assert snapshot.seq == 10_001
        tail = await store.read_events("e", after=10_000, limit=5)
        assert tail == [StoredEvent(10_001, b"10001")]
        assert await store.read_outputs([("e", "task-10000")]) == [b"10000"]


class InboxContract:
    async def test_entries_are_kept_in_order_of_arrival(self, store: Store):
        await claimed(store)
        entries = [InboxEntry(name, name.encode()) for name in ("z", "a", "m")]
        for entry in entries:
            assert await store.append_inbox("e", entry) == "o"
        assert await store.read_inbox("e") == entries

    async def test_the_same_id_again_keeps_the_first_body(self, store: Store):
        await claimed(store)
        await store.append_inbox("e", InboxEntry("i", b"first"))
        assert await store.append_inbox("e", InboxEntry("i", b"second")) == "o"
        assert await store.read_inbox("e") == [InboxEntry("i", b"first")]

    async def test_the_same_id_again_is_known_after_it_was_acknowledged(self, store: Store):
        loaded = await claimed(store)
        await store.append_inbox("e", InboxEntry("i", b"first"))
        await store.commit(next_commit(loaded, inbox_done=("i", "never-there")))
        await store.append_inbox("e", InboxEntry("i", b"second"))
        assert await store.read_inbox("e") == []
        assert await store.inboxes_waiting("o") == []

    async def test_of_what_was_acknowledged_the_last_thousand_are_known(self, store: Store):
        loaded = await claimed(store)
        names = [f"{at:04}" for at in range(1_001)]
        await asyncio.gather(*(store.append_inbox("e", InboxEntry(one, b"")) for one in names))
        await store.commit(next_commit(loaded, inbox_done=names[:1]))
        await store.commit(next_commit(replace(loaded, version=2), inbox_done=names[1:]))
        for name in names[1], names[-1], names[0]:
            await store.append_inbox("e", InboxEntry(name, b"again"))
        assert await store.read_inbox("e") == [InboxEntry(names[0], b"again")]

    async def test_a_commit_removes_only_what_it_names(self, store: Store):
        loaded = await claimed(store)
        for name in ("a", "b", "c"):
            await store.append_inbox("e", InboxEntry(name, b""))
        await store.commit(next_commit(loaded, inbox_done=("b",)))
        assert [one.entry_id for one in await store.read_inbox("e")] == ["a", "c"]
        assert await store.inboxes_waiting("o") == ["e"]
        await store.commit(next_commit(replace(loaded, version=2), inbox_done=("a", "c")))
        assert await store.inboxes_waiting("o") == []

    async def test_nothing_can_be_left_for_what_does_not_exist(self, store: Store):
        with pytest.raises(Missing):
            await store.append_inbox("e", InboxEntry("i", b""))

    async def test_what_has_ended_takes_nothing_in_but_knows_what_it_took(self, store: Store):
        loaded = await claimed(store)
        await store.append_inbox("e", InboxEntry("before", b""))
        await store.commit(next_commit(loaded, inbox_done=("before",), release=True))
        with pytest.raises(VersionConflict, match="ended"):
            await store.append_inbox("e", InboxEntry("after", b""))
        assert await store.append_inbox("e", InboxEntry("before", b"")) == ""

    async def test_an_entry_for_one_epoch_is_refused_under_the_next(self, store: Store):
        loaded = await claimed(store)
        entry = InboxEntry("i", b"outcome")
        for _ in range(2):
            assert await store.append_inbox("e", entry, epoch=loaded.epoch) == "o"
        successor = await claim(store, "e", "p")
        assert successor is not None
        assert successor.inbox == [entry]
        for each in entry, InboxEntry("later", b""):
            with pytest.raises(StaleOwner):
                await store.append_inbox("e", each, epoch=loaded.epoch)
        assert await store.append_inbox("e", InboxEntry("j", b""), epoch=successor.epoch) == "p"
        assert [each.entry_id for each in await store.read_inbox("e")] == ["i", "j"]

    async def test_an_entry_for_one_epoch_is_never_behind_what_a_claim_gives(self, store: Store):
        loaded = await claimed(store)
        names = [f"{at:04}" for at in range(1_000)]
        await asyncio.gather(*(store.append_inbox("e", InboxEntry(one, b"")) for one in names))
        with pytest.raises(VersionConflict, match="unread"):
            await store.append_inbox("e", InboxEntry("outcome", b""), epoch=loaded.epoch)
        await store.append_inbox("e", InboxEntry("note", b""))
        await store.commit(next_commit(loaded, inbox_done=names[:102]))
        await store.append_inbox("e", InboxEntry("outcome", b""), epoch=loaded.epoch)
        assert [each.entry_id for each in await store.read_inbox("e")][-2:] == ["note", "outcome"]

    async def test_a_request_is_read_however_many_outcomes_wait(self, store: Store):
        loaded = await claimed(store)
        entries = [InboxEntry(f"{at:04}", b"") for at in range(1_000)]
        left = [store.append_inbox("e", one, epoch=loaded.epoch) for one in entries]
        refused = await asyncio.gather(*left, return_exceptions=True)
        assert refused.count("o") >= 500
        await store.append_inbox("e", InboxEntry("cancel", b""))
        assert (await store.read_inbox("e"))[-1].entry_id == "cancel"

    async def test_an_entry_for_one_epoch_is_forgotten_once_acknowledged(self, store: Store):
        loaded = await claimed(store)
        for _ in range(2):
            await store.append_inbox("e", InboxEntry("i", b"outcome"), epoch=loaded.epoch)
        await store.commit(next_commit(loaded, inbox_done=("i",)))
        assert await store.read_inbox("e") == []
        await store.append_inbox("e", InboxEntry("i", b"again"), epoch=loaded.epoch)
        assert await store.read_inbox("e") == [InboxEntry("i", b"again")]

    async def test_waiting_inboxes_follow_the_owner(self, store: Store):
        for name in ("a", "b", "c"):
            await claimed(store, name)
        await store.append_inbox("a", InboxEntry("i", b""))
        await store.append_inbox("c", InboxEntry("i", b""))
        assert sorted(await store.inboxes_waiting("o")) == ["a", "c"]
        await claim(store, "c", "p")
        assert await store.inboxes_waiting("o") == ["a"]
        assert await store.inboxes_waiting("p") == ["c"]

    async def test_an_inbox_is_read_in_parts_of_a_thousand(self, store: Store):
        loaded = await claimed(store)
        names = [f"{at:04}" for at in range(1_003)]
        await asyncio.gather(*(store.append_inbox("e", InboxEntry(one, b"")) for one in names))
        first = [one.entry_id for one in await store.read_inbox("e")]
        assert len(first) == 1_000
        await store.commit(next_commit(loaded, inbox_done=first))
        rest = [one.entry_id for one in await store.read_inbox("e")]
        assert sorted(first + rest) == names
        assert await store.inboxes_waiting("o") == ["e"]
