"""The contract of creating, claiming and reading executions."""

from __future__ import annotations

import asyncio

import pytest

from persistence.errors import (
    AlreadyExists,
    DefinitionMissing,
    Missing,
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
    FIELDS,
    LEASE_MS,
    ODD_NAMES,
    claimed,
    create,
    ids,
    loads,
    new,
    next_commit,
)
from tests.support.owning import claim


class CreateContract:
    async def test_without_its_definition_nothing_is_created(self, store: Store):
        with pytest.raises(DefinitionMissing, match="digest"):
            await store.create_execution(new(), owners_max=1)
        assert await store.read_execution("e") is None
        assert await store.waiting_executions() == 0

    async def test_creation_is_the_first_commit(self, store: Store):
        await store.put_definition("digest", b"definition")
        execution = new(events=(b"1", b"2"), indexes=(IndexEntry("all", 5),))
        assert await store.create_execution(execution, owners_max=1) == ""
        snapshot = await store.read_execution("e")
        assert snapshot is not None
        assert (snapshot.version, snapshot.epoch, snapshot.seq) == (1, 0, 2)
        assert (snapshot.owner, snapshot.definition) == ("", "digest")
        assert snapshot.fields == FIELDS
        assert snapshot.rows == execution.rows
        assert await ids(store, "all") == ("e",)
        events = await store.read_events("e", after=0, limit=10)
        assert events == [StoredEvent(1, b"1"), StoredEvent(2, b"2")]

    async def test_a_constant_is_one_field_of_whoever_reads_or_claims_all(self, store: Store):
        await store.put_definition("digest", b"definition")
        given = {"input": ALL_BYTES, "übergrößenträger": b""}
        await store.create_execution(new(constants=given), owners_max=1)
        loaded = await claim(store, "e", "o")
        assert loaded is not None
        assert loaded.fields == {"head": b"pending", **given}
        await store.commit(next_commit(loaded, fields={"head": b"running", "late": b"1"}))
        snapshot = await store.read_execution("e", rows=False)
        assert snapshot is not None
        assert snapshot.fields == {"head": b"running", "late": b"1", **given}
        assert await store.read_executions(["e"], ["head", "input"]) == [{"head": b"running"}]

    async def test_a_name_is_that_of_a_field_or_of_a_constant(self, store: Store):
        await store.put_definition("digest", b"definition")
        with pytest.raises(ValueError, match="constants: 'head'"):
            await store.create_execution(new(constants={"head": b""}), owners_max=1)
        with pytest.raises(TypeError, match="constants"):
            await store.create_execution(new(constants={"input": "text"}), owners_max=1)

    async def test_an_assigned_execution_starts_under_epoch_1(self, store: Store):
        await store.renew_owner("o", lease_ms=LEASE_MS)
        assert await create(store) == "o"
        snapshot = await store.read_execution("e")
        assert snapshot is not None
        assert (snapshot.epoch, snapshot.version, snapshot.owner) == (1, 1, "o")
        commit = Commit("e", "o", 1, 2, 2, fields={"head": b"running"})
        await store.commit(commit)
        assert await store.read_executions(["e"], ["head"]) == [{"head": b"running"}]

    async def test_repeating_a_create_gives_the_first_owner_and_changes_nothing(self, store: Store):
        await store.renew_owner("o", lease_ms=LEASE_MS)
        assert await create(store) == "o"
        loaded = await claim(store, "e", "other")
        assert loaded is not None
        await store.commit(next_commit(loaded, "other", fields={"head": b"running"}))
        assert await create(store) == "o"
        snapshot = await store.read_execution("e")
        assert snapshot is not None
        assert (snapshot.version, snapshot.owner) == (2, "other")
        assert snapshot.fields["head"] == b"running"

    async def test_in_its_sole_list_an_execution_is_alone(self, store: Store):
        alone = {"indexes": (IndexEntry("all", 1), IndexEntry("key", 1)), "sole": "key"}
        await store.put_definition("digest", b"definition")
        await store.renew_owner("o", lease_ms=LEASE_MS)
        assert await store.create_execution(new("e1", **alone), owners_max=1) == "o"
        with pytest.raises(AlreadyExists, match="'key'"):
            await store.create_execution(new("e2", **alone), owners_max=1)
        assert await store.create_execution(new("e1", **alone), owners_max=1) == "o", "a repeat"
        assert await store.read_execution("e2") is None
        assert (await ids(store, "all"), await ids(store, "key")) == (("e1",), ("e1",))
        assert await loads(store) == {"o": 1}
        commit = Commit("e1", "o", 1, 2, 2, indexes=(IndexEntry("all", 1),))
        await store.commit(commit)
        assert await store.create_execution(new("e2", **alone), owners_max=1) == "o"
        assert await ids(store, "key") == ("e2",)

    async def test_an_execution_cannot_be_alone_where_it_is_not(self, store: Store):
        await store.put_definition("digest", b"definition")
        with pytest.raises(ValueError, match="sole"):
            await store.create_execution(new(sole="key"), owners_max=1)

    async def test_of_many_creates_at_once_one_is_alone(self, store: Store):
        await store.put_definition("digest", b"definition")
        alone = {"indexes": (IndexEntry("key", 1),), "sole": "key"}
        answers = await asyncio.gather(
            *(store.create_execution(new(f"e{at}", **alone), owners_max=1) for at in range(20)),
            return_exceptions=True,
        )
        assert sum(answer == "" for answer in answers) == 1
        assert sum(isinstance(answer, AlreadyExists) for answer in answers) == 19
        assert await store.waiting_executions() == 1

    async def test_idle_owners_come_first_then_the_least_loaded_beyond_the_ceiling(
        self, store: Store
    ):
        await store.renew_owner("a", lease_ms=LEASE_MS)
        await store.renew_owner("b", lease_ms=LEASE_MS)
        given = [await create(store, f"e{at}", owners_max=2) for at in range(5)]
        assert given == ["a", "b", "a", "b", "a"]
        await store.renew_owner("c", lease_ms=LEASE_MS)
        assert await create(store, "e5", owners_max=3) == "c"
        assert await loads(store) == {"a": 3, "b": 2, "c": 1}

    async def test_no_owner_is_given_more_than_it_may_have(self, store: Store):
        await store.put_definition("digest", b"definition")
        for owner in ("a", "b"):
            await store.renew_owner(owner, lease_ms=LEASE_MS)
        given = [
            await store.create_execution(new(f"e{at}"), owners_max=2, load_max=2) for at in range(6)
        ]
        assert given == ["a", "b", "a", "b", "", ""]
        assert await store.waiting_executions() == 2
        assert await store.create_execution(new("e6"), owners_max=2, load_max=3) == "a"
        await store.renew_owner("c", lease_ms=LEASE_MS)
        assert await store.create_execution(new("e7"), owners_max=3, load_max=0) == "c", "the first"

    async def test_below_the_ceiling_an_execution_waits_for_an_owner_of_its_own(self, store: Store):
        await store.renew_owner("a", lease_ms=LEASE_MS)
        assert await create(store, "e0", owners_max=2) == "a"
        assert await create(store, "e1", owners_max=2) == ""
        assert await store.waiting_executions() == 1

    async def test_waiting_executions_go_to_new_owners_in_order_of_creation(self, store: Store):
        for at in range(3):
            await create(store, f"e{at}", owners_max=2)
        await store.renew_owner("a", lease_ms=LEASE_MS)
        first = await store.claim_next("a", owners_max=2)
        assert first is not None
        assert (first.execution_id, first.epoch, first.version, first.seq) == ("e0", 1, 1, 1)
        assert await store.claim_next("a", owners_max=2) is None, "it has one, the ceiling is 2"
        await store.renew_owner("b", lease_ms=LEASE_MS)
        second = await store.claim_next("b", owners_max=2)
        assert second is not None
        assert second.execution_id == "e1"
        third = await store.claim_next("a", owners_max=2)
        assert third is not None
        assert third.execution_id == "e2"
        assert await store.claim_next("b", owners_max=2) is None
        assert await store.waiting_executions() == 0

    async def test_an_owner_can_list_what_it_was_given(self, store: Store):
        await store.renew_owner("o", lease_ms=LEASE_MS)
        await create(store, "z")
        await create(store, "a")
        await create(store, "m")
        assert await store.owned_executions("o", limit=10) == ["z", "a", "m"]
        assert await store.owned_executions("o", limit=2) == ["z", "a"]
        assert await store.owned_executions("o", offset=1, limit=10) == ["a", "m"]
        assert await store.owned_executions("o", offset=3, limit=10) == []
        assert await store.owned_executions("other", limit=10) == []

    async def test_odd_ids_and_names_do_not_meet(self, store: Store):
        await store.put_definition("digest", b"definition")
        for name in ODD_NAMES:
            execution = new(
                name,
                fields={one: one.encode() for one in ODD_NAMES},
                constants={f"{one}:": ALL_BYTES for one in ODD_NAMES},
                rows=dict.fromkeys(ODD_NAMES, ALL_BYTES),
                events=(ALL_BYTES,),
            )
            await store.create_execution(execution, owners_max=1)
        for name in ODD_NAMES:
            loaded = await claim(store, name, name)
            assert loaded is not None
            await store.append_inbox(name, InboxEntry(name, ALL_BYTES))
            await store.commit(next_commit(loaded, name, outputs={name: name.encode()}))
        for name in ODD_NAMES:
            snapshot = await store.read_execution(name)
            assert snapshot is not None
            assert snapshot.fields == {one: one.encode() for one in ODD_NAMES} | {
                f"{one}:": ALL_BYTES for one in ODD_NAMES
            }
            assert snapshot.rows == dict.fromkeys(ODD_NAMES, ALL_BYTES)
            assert (snapshot.owner, snapshot.version) == (name, 2)
            assert await store.read_events(name, after=0, limit=9) == [StoredEvent(1, ALL_BYTES)]
            assert await store.read_inbox(name) == [InboxEntry(name, ALL_BYTES)]
            assert await store.read_outputs([(name, name)]) == [name.encode()]
            assert await store.inboxes_waiting(name) == [name]

    @pytest.mark.parametrize(
        ("changes", "field"),
        [
            ({"execution_id": ""}, "execution_id"),
            ({"definition": ""}, "definition"),
            ({"rows": {"\ud800": b""}}, "Unicode"),
            ({"indexes": (IndexEntry("a", float("nan")),)}, "finite"),
        ],
    )
    async def test_what_cannot_be_stored_is_refused_by_name(
        self, store: Store, changes: dict[str, object], field: str
    ):
        await store.put_definition("digest", b"definition")
        with pytest.raises(ValueError, match=field):
            await store.create_execution(new(**changes), owners_max=1)

    async def test_bodies_are_bytes(self, store: Store):
        with pytest.raises(TypeError, match="events"):
            await store.create_execution(new(events=("text",)), owners_max=1)


class ClaimContract:
    async def test_a_claim_raises_the_epoch_and_returns_the_state(self, store: Store):
        loaded = await claimed(store)
        assert (loaded.execution_id, loaded.epoch, loaded.version) == ("e", 1, 1)
        assert (loaded.seq, loaded.definition) == (1, "digest")
        assert loaded.fields == FIELDS
        assert loaded.rows == new().rows
        again = await claim(store, "e", "o")
        assert again is not None
        assert again.epoch == 2, "also for the same owner"

    async def test_a_claim_of_nothing_is_an_error(self, store: Store):
        with pytest.raises(Missing, match="'e'"):
            await claim(store, "e", "o")

    async def test_a_claim_of_what_has_ended_is_none(self, store: Store):
        loaded = await claimed(store)
        await store.commit(next_commit(loaded, release=True))
        assert await claim(store, "e", "o") is None
        assert await store.claim_next("o", owners_max=1) is None

    async def test_a_claim_moves_the_load(self, store: Store):
        await store.renew_owner("a", lease_ms=LEASE_MS)
        await store.renew_owner("b", lease_ms=LEASE_MS)
        await create(store)
        assert await loads(store) == {"a": 1, "b": 0}
        await claim(store, "e", "b")
        assert await loads(store) == {"a": 0, "b": 1}
        await claim(store, "e", "b")
        assert await loads(store) == {"a": 0, "b": 1}

    async def test_a_claim_takes_a_waiting_execution_from_the_list(self, store: Store):
        await create(store)
        await claim(store, "e", "o")
        assert await store.waiting_executions() == 0
        assert await store.claim_next("p", owners_max=1) is None

    async def test_who_is_no_owner_claims_nothing(self, store: Store):
        await create(store)
        assert await store.claim("e", "unknown") is None
        assert await store.owners() == []
        assert await store.waiting_executions() == 1

    async def test_who_was_succeeded_claims_nothing_and_is_no_owner_by_that(self, store: Store):
        await store.renew_owner("o", lease_ms=LEASE_MS)
        for name in ("a", "b"):
            await create(store, name)
        for left in (1, 0):
            await store.orphan("o", limit=1)
            assert await store.claim("a", "o") is None
            assert sum((await loads(store)).values()) == left
        assert not await store.renew_owner("o", lease_ms=LEASE_MS, known=True)
        snapshot = await store.read_execution("a")
        assert snapshot is not None
        assert (snapshot.epoch, snapshot.owner) == (1, "")

    async def test_whose_lease_has_run_out_claims_until_he_is_succeeded(self, store: Store):
        await store.renew_owner("o", lease_ms=1)
        await create(store)
        assert await store.claim("e", "o") is not None

    async def test_a_claim_brings_the_unread_inbox(self, store: Store):
        await create(store)
        entries = [InboxEntry("b", b"1"), InboxEntry("a", b"2")]
        for entry in entries:
            assert await store.append_inbox("e", entry) == ""
        loaded = await claim(store, "e", "o")
        assert loaded is not None
        assert list(loaded.inbox) == entries
        assert await store.inboxes_waiting("o") == ["e"]


class ReadContract:
    async def test_reading_without_rows_leaves_them_out(self, store: Store):
        await create(store)
        snapshot = await store.read_execution("e", rows=False)
        assert snapshot is not None
        assert snapshot.rows == {}
        assert snapshot.fields == FIELDS

    async def test_what_does_not_exist_reads_as_nothing(self, store: Store):
        assert await store.read_execution("e") is None
        assert await store.read_executions(["e"], ["head"]) == [None]
        assert await store.read_executions([], ["head"]) == []
        assert await store.read_seq("e") is None
        assert await store.read_rows("e", ["a"]) == {}
        assert await store.read_outputs([("e", "a")]) == [None]
        assert await store.read_outputs([]) == []
        assert await store.read_inbox("e") == []
        assert await store.read_checkpoint("c") is None
        with pytest.raises(Missing):
            await store.read_events("e", after=0, limit=1)

    async def test_how_many_events_there_are(self, store: Store):
        loaded = await claimed(store)
        assert await store.read_seq("e") == loaded.seq == 1
        await store.commit(next_commit(loaded, events=[b"two", b"three"]))
        assert await store.read_seq("e") == 3

    async def test_some_fields_of_several_executions(self, store: Store):
        await create(store, "a")
        await create(store, "b")
        found = await store.read_executions(["b", "none", "a"], ["head", "absent"])
        assert found == [{"head": b"pending"}, None, {"head": b"pending"}]
        assert await store.read_executions(["a"], []) == [{}]

    async def test_some_rows(self, store: Store):
        await create(store)
        assert await store.read_rows("e", ["task-2", "none"]) == {"task-2": b"pending"}
        assert await store.read_rows("e", []) == {}

    async def test_events_are_read_in_parts(self, store: Store):
        loaded = await claimed(store)
        bodies = [str(seq).encode() for seq in range(2, 11)]
        await store.commit(next_commit(loaded, events=bodies))
        found: list[StoredEvent] = []
        while part := await store.read_events("e", after=len(found), limit=4):
            found.extend(part)
        assert [one.seq for one in found] == list(range(1, 11))
        assert [one.body for one in found[1:]] == bodies

    async def test_what_was_read_can_be_changed_without_harm(self, store: Store):
        loaded = await claimed(store)
        loaded.fields["head"] = b"x"  # type: ignore[index]
        snapshot = await store.read_execution("e")
        assert snapshot is not None
        snapshot.rows["task-1"] = b"x"  # type: ignore[index]
        again = await store.read_execution("e")
        assert again is not None
        assert (again.fields, again.rows) == (FIELDS, new().rows)
