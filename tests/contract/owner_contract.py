"""The contract of owners and of checkpoints."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from persistence.errors import (
    AlreadyExists,
    Missing,
    StaleOwner,
)
from persistence.store import (
    InboxEntry,
    IndexEntry,
    OwnerLoad,
    Store,
)
from tests.contract.builders import (
    ALL_BYTES,
    DEADLINE_S,
    LEASE_MS,
    claimed,
    create,
    ids,
    loads,
    new,
    next_commit,
)


class OwnerContract:
    async def test_owners_are_listed_with_load_and_lease(self, store: Store):
        await store.renew_owner("b", lease_ms=LEASE_MS)
        await store.renew_owner("a", lease_ms=LEASE_MS)
        await create(store)
        assert await store.owners() == [
            OwnerLoad("a", 1, expired=False),
            OwnerLoad("b", 0, expired=False),
        ]

    async def test_a_lease_that_is_longer_than_any_that_is_given_has_run_out(self, store: Store):
        """It was given before the server's clock was put back."""
        await store.renew_owner("before", lease_ms=LEASE_MS + 3_600_000)
        await store.renew_owner("since", lease_ms=LEASE_MS)
        assert await store.owners(lease_ms=LEASE_MS) == [
            OwnerLoad("before", 0, expired=True),
            OwnerLoad("since", 0, expired=False),
        ]
        assert not any(one.expired for one in await store.owners())

    async def test_only_an_idle_owner_retires(self, store: Store):
        await store.renew_owner("o", lease_ms=LEASE_MS)
        loaded = await claimed(store)
        assert await store.retire_owner("o") is False
        assert await loads(store) == {"o": 1}
        await store.commit(next_commit(loaded, release=True))
        assert await store.retire_owner("o") is True
        assert await store.retire_owner("o") is True
        assert await store.owners() == []

    async def test_what_a_dead_owner_had_waits_for_another_in_order(self, store: Store):
        await store.renew_owner("dead", lease_ms=LEASE_MS)
        for at in range(5):
            await create(store, f"e{at}")
        await store.append_inbox("e1", InboxEntry("i", b""))
        assert await store.orphan("dead", limit=2) == 2
        assert await loads(store) == {"dead": 3}
        assert await store.waiting_executions() == 2
        assert await create(store, "later") == "", "a dead owner gets nothing new"
        assert await store.orphan("dead", limit=10) == 3
        assert await store.owners() == []
        assert await store.orphan("dead", limit=10) == 0
        await store.renew_owner("o", lease_ms=LEASE_MS)
        taken = [await store.claim_next("o", owners_max=1) for _ in range(7)]
        assert [one and one.execution_id for one in taken] == [
            "e0", "e1", "e2", "e3", "e4", "later", None
        ]  # fmt: skip
        assert [one and one.epoch for one in taken[:6]] == [2, 2, 2, 2, 2, 1]
        assert await store.inboxes_waiting("dead") == []
        assert await store.inboxes_waiting("o") == ["e1"]

    async def test_an_owner_that_is_being_emptied_cannot_renew_itself_into_new_work(
        self, store: Store
    ):
        await store.renew_owner("dead", lease_ms=LEASE_MS)
        await create(store, "e0")
        await create(store, "e1")
        await store.orphan("dead", limit=1)
        assert await store.renew_owner("dead", lease_ms=LEASE_MS) is False
        assert await store.owners() == [OwnerLoad("dead", 1, expired=True)]
        assert await create(store, "e2") == ""
        assert await store.claim_next("dead", owners_max=0) is None
        await store.orphan("dead", limit=1)
        assert await store.renew_owner("dead", lease_ms=LEASE_MS) is True
        assert await store.owners() == [OwnerLoad("dead", 0, expired=False)], "it starts anew"

    async def test_an_orphan_without_owner_is_still_fenced(self, store: Store):
        await store.renew_owner("dead", lease_ms=LEASE_MS)
        loaded = await claimed(store, owner="dead")
        await store.orphan("dead", limit=10)
        snapshot = await store.read_execution("e")
        assert snapshot is not None
        assert snapshot.owner == ""
        assert await store.claim_next("o", owners_max=1) is None, "it is not registered"
        await store.renew_owner("o", lease_ms=LEASE_MS)
        taken = await store.claim_next("o", owners_max=1)
        assert taken is not None
        with pytest.raises(StaleOwner):
            await store.commit(next_commit(loaded, "dead"))
        await store.commit(next_commit(taken))

    async def test_the_end_of_a_waiting_execution_takes_it_from_the_list(self, store: Store):
        loaded = await claimed(store, owner="dead")
        await store.orphan("dead", limit=10)
        await store.commit(next_commit(loaded, "dead", release=True))
        assert await store.waiting_executions() == 0
        assert await store.claim_next("o", owners_max=1) is None

    async def test_orphaning_an_unknown_owner_moves_nothing(self, store: Store):
        assert await store.orphan("none", limit=10) == 0
        assert await store.owners() == []


class SuspectContract:
    """After a death that may have been an execution's doing."""

    async def test_each_suspect_gets_an_owner_of_its_own_until_it_is_calm(self, store: Store):
        await suspects(store, "e0", "e1")
        assert await store.waiting_executions() == 2
        await store.renew_owner("a", lease_ms=LEASE_MS)
        await store.renew_owner("b", lease_ms=LEASE_MS)
        first = await store.claim_next("a", owners_max=1)
        assert first is not None
        assert (first.execution_id, first.crashes, first.crashes_lately) == ("e0", 1, 1)
        assert await store.claim_next("a", owners_max=1) is None, "it has a suspect alone"
        second = await store.claim_next("b", owners_max=1)
        assert second is not None
        assert second.execution_id == "e1"
        assert await create(store, "new") == "", "nobody is free for it"
        assert await store.calm("e0", epoch=first.epoch) is False, "no other suspect waits"
        taken = await store.claim_next("a", owners_max=1)
        assert taken is not None
        assert (taken.execution_id, taken.crashes) == ("new", 0)
        again = await store.claim("e0", "a")
        assert again is not None
        assert (again.crashes, again.crashes_lately) == (0, 1)

    async def test_an_owner_beyond_the_ceiling_is_kept_for_suspects(self, store: Store):
        for owner in ("busy", "dead", "spare"):
            await store.renew_owner(owner, lease_ms=LEASE_MS)
        given = [await create(store, f"e{at}", owners_max=2) for at in range(4)]
        assert given == ["busy", "dead", "busy", "dead"]
        assert await store.claim_next("spare", owners_max=2) is None, "nothing waits"
        await store.orphan("dead", limit=10, blame=True)
        taken = await store.claim_next("spare", owners_max=2)
        assert taken is not None
        assert (taken.execution_id, taken.crashes) == ("e1", 1)

    async def test_what_waits_is_not_given_to_the_one_kept_for_suspects(self, store: Store):
        for owner in ("a", "b", "spare"):
            await store.renew_owner(owner, lease_ms=LEASE_MS)
        assert [await create(store, f"e{at}", owners_max=2) for at in range(2)] == ["a", "b"]
        assert await store.create_execution(new("waits"), owners_max=2, load_max=0) == ""
        assert await store.claim_next("spare", owners_max=2) is None
        taken = await store.claim_next("a", owners_max=2)
        assert taken is not None
        assert taken.execution_id == "waits"

    async def test_owners_that_isolate_do_not_count_to_the_ceiling(self, store: Store):
        await store.renew_owner("a", lease_ms=LEASE_MS)
        await create(store, "e0")
        await store.renew_owner("spare", lease_ms=LEASE_MS)
        await store.orphan("a", limit=10, blame=True)
        assert await store.claim_next("spare", owners_max=1) is not None
        await store.renew_owner("next", lease_ms=LEASE_MS)
        assert await create(store, "new") == "next", "nobody else could have it"

    async def test_an_owner_that_has_something_gets_no_suspect(self, store: Store):
        await store.renew_owner("busy", lease_ms=LEASE_MS)
        await create(store, "mine")
        await store.renew_owner("dead", lease_ms=LEASE_MS)
        await create(store, "e0", owners_max=2)
        await store.orphan("dead", limit=10, blame=True)
        assert await store.claim_next("busy", owners_max=1) is None
        await store.renew_owner("empty", lease_ms=LEASE_MS)
        assert await create(store, "new") == "busy", "who has nothing is kept for suspects"
        taken = await store.claim_next("empty", owners_max=9)
        assert taken is not None
        assert taken.execution_id == "e0"

    async def test_one_after_the_other_is_isolated_by_the_same_owner(self, store: Store):
        await suspects(store, "e0", "e1", "e2")
        await store.renew_owner("o", lease_ms=LEASE_MS)
        order = []
        while loaded := await store.claim_next("o", owners_max=1):
            order.append(loaded.execution_id)
            more = await store.calm(loaded.execution_id, epoch=loaded.epoch)
            assert more == (len(order) < 3)
            if not more:
                break
            await store.give_on(loaded.execution_id, epoch=loaded.epoch, blame=False)
            await store.give_on(loaded.execution_id, epoch=loaded.epoch, blame=False)
        assert order == ["e0", "e1", "e2"]
        others = [await store.claim_next("o", owners_max=1) for _ in range(3)]
        assert [one and one.execution_id for one in others] == ["e0", "e1", None]

    async def test_suspects_that_have_met_fewer_crashes_come_first(self, store: Store):
        """They are alone for less time: the others make nobody wait for them."""
        await suspects(store, "e0", "e1", "e2")
        for owner in ("o0", "o1"):
            await store.renew_owner(owner, lease_ms=LEASE_MS)
            assert await store.claim("e0", owner) is not None
            assert await store.orphan(owner, limit=10, blame=True) == 1
        order = []
        for number in range(3):
            owner = f"p{number}"
            await store.renew_owner(owner, lease_ms=LEASE_MS)
            loaded = await store.claim_next(owner, owners_max=1)
            assert loaded is not None
            order.append((loaded.execution_id, loaded.crashes_lately))
        assert order == [("e1", 1), ("e2", 1), ("e0", 3)]

    async def test_a_calm_whose_reply_was_lost_is_answered_again(self, store: Store):
        await suspects(store, "e0", "e1")
        await store.renew_owner("o", lease_ms=LEASE_MS)
        loaded = await store.claim_next("o", owners_max=1)
        assert loaded is not None
        for _ in range(2):
            assert await store.calm(loaded.execution_id, epoch=loaded.epoch) is True

    async def test_nothing_comes_between_a_calm_and_the_next_suspect(self, store: Store):
        """Or the owner is not without load any more, and who is always busy gets no suspect."""
        await suspects(store, "e0", "e1")
        await create(store, "new")
        await store.renew_owner("o", lease_ms=LEASE_MS)
        first = await store.claim_next("o", owners_max=1)
        assert first is not None
        assert await store.calm("e0", epoch=first.epoch) is True
        assert await store.claim_next("o", owners_max=1) is None
        assert await create(store, "newer") == ""
        await store.give_on("e0", epoch=first.epoch, blame=False)
        second = await store.claim_next("o", owners_max=1)
        assert second is not None
        assert second.execution_id == "e1"

    async def test_a_calm_one_that_its_owner_claims_once_more_is_not_alone(self, store: Store):
        """Nobody would say of it once more that it is calm."""
        await suspects(store, "e0", "e1")
        await create(store, "new")
        await store.renew_owner("o", lease_ms=LEASE_MS)
        first = await store.claim_next("o", owners_max=1)
        assert first is not None
        assert await store.calm("e0", epoch=first.epoch) is True
        assert await store.claim("e0", "o") is not None
        taken = await store.claim_next("o", owners_max=1)
        assert taken is not None
        assert taken.execution_id == "new"

    async def test_a_suspect_that_its_owner_claims_once_more_stays_alone(self, store: Store):
        """The reply that named it may have been lost."""
        await suspects(store, "e0", "e1")
        await create(store, "new")
        await store.renew_owner("o", lease_ms=LEASE_MS)
        lost = await store.claim_next("o", owners_max=1)
        assert lost is not None
        loaded = await store.claim(lost.execution_id, "o")
        assert loaded is not None
        assert await store.claim_next("o", owners_max=1) is None
        assert await store.calm(loaded.execution_id, epoch=loaded.epoch) is True

    async def test_nobody_calms_what_was_taken_from_him(self, store: Store):
        """Or its next owner would have it alone for ever, with nothing to clear it of."""
        await suspects(store, "e0")
        await store.renew_owner("o", lease_ms=LEASE_MS)
        loaded = await store.claim_next("o", owners_max=1)
        assert loaded is not None
        await store.orphan("o", limit=10, blame=True)
        assert await store.calm("e0", epoch=loaded.epoch) is False
        await store.renew_owner("heir", lease_ms=LEASE_MS)
        taken = await store.claim_next("heir", owners_max=1)
        assert taken is not None
        assert taken.crashes == 2

    async def test_crashes_add_up_and_a_calm_ends_the_row(self, store: Store):
        for number in (1, 2):
            await store.renew_owner("o", lease_ms=LEASE_MS)
            if number == 1:
                await create(store)
            else:
                assert await store.claim_next("o", owners_max=1) is not None
            await store.orphan("o", limit=10, blame=True)
        await store.renew_owner("o", lease_ms=LEASE_MS)
        loaded = await store.claim_next("o", owners_max=1)
        assert loaded is not None
        assert (loaded.crashes, loaded.crashes_lately) == (2, 2)
        await store.calm("e", epoch=loaded.epoch - 1)
        await store.orphan("o", limit=10)
        await store.renew_owner("o", lease_ms=LEASE_MS)
        loaded = await store.claim_next("o", owners_max=1)
        assert loaded is not None
        assert loaded.crashes == 2, "a former epoch says nothing, a death without blame neither"
        await store.calm("e", epoch=loaded.epoch)
        await store.give_on("e", epoch=loaded.epoch, blame=True)
        loaded = await store.claim_next("o", owners_max=1)
        assert loaded is not None
        assert (loaded.crashes, loaded.crashes_lately) == (1, 3)

    async def test_old_crashes_are_forgotten_at_the_next_one(self, forgetful_store: Store):
        store = forgetful_store
        await store.renew_owner("o", lease_ms=LEASE_MS)
        await create(store)
        await store.orphan("o", limit=10, blame=True)
        began_ms = await store.time_ms()
        deadline_s = time.monotonic() + DEADLINE_S
        while await store.time_ms() < began_ms + 5:
            assert time.monotonic() < deadline_s
        await store.renew_owner("o", lease_ms=LEASE_MS)
        loaded = await store.claim_next("o", owners_max=1)
        assert loaded is not None
        await store.orphan("o", limit=10, blame=True)
        await store.renew_owner("o", lease_ms=LEASE_MS)
        loaded = await store.claim_next("o", owners_max=1)
        assert loaded is not None
        assert (loaded.crashes, loaded.crashes_lately) == (2, 1), "in a row are counted for ever"

    async def test_the_end_of_a_suspect_ends_its_isolation(self, store: Store):
        await suspects(store, "e0")
        await create(store, "new")
        await store.renew_owner("o", lease_ms=LEASE_MS)
        loaded = await store.claim_next("o", owners_max=1)
        assert loaded is not None
        await store.commit(next_commit(loaded, release=True))
        assert await store.calm("e0", epoch=loaded.epoch) is False
        taken = await store.claim_next("o", owners_max=1)
        assert taken is not None
        assert taken.execution_id == "new"

    async def test_what_is_given_on_is_given_once_and_under_its_epoch_only(self, store: Store):
        await store.renew_owner("o", lease_ms=LEASE_MS)
        loaded = await claimed(store, owner="o")
        await store.give_on("e", epoch=loaded.epoch - 1, blame=True)
        await store.give_on("nobody", epoch=1, blame=True)
        assert await store.waiting_executions() == 0
        for _ in range(2):
            await store.give_on("e", epoch=loaded.epoch, blame=True)
        assert (await store.waiting_executions(), await loads(store)) == (1, {"o": 0})
        taken = await store.claim_next("o", owners_max=1)
        assert taken is not None
        assert taken.crashes == 1
        await store.commit(next_commit(taken, release=True))
        await store.give_on("e", epoch=taken.epoch, blame=True)
        assert await store.waiting_executions() == 0

    async def test_what_is_put_aside_waits_for_an_owner_that_is_not_there_yet(self, store: Store):
        await suspects(store, "e0")
        await store.renew_owner("o", lease_ms=LEASE_MS)
        await create(store, "e1")
        first = await store.claim("e1", "o")
        assert first is not None
        await store.give_on("e1", epoch=first.epoch, aside=True)
        second = await store.claim_next("o", owners_max=1)
        assert second is not None
        assert second.execution_id == "e0"
        await store.give_on("e0", epoch=second.epoch, aside=True)
        assert (await store.waiting_executions(), await loads(store)) == (0, {"o": 0})
        assert (await store.tally()).aside == 2
        assert await store.renew_owner("o", lease_ms=LEASE_MS)
        assert await store.claim_next("o", owners_max=1) is None
        assert await create(store, "e2") == "o", "nothing else stands behind it"
        assert await store.renew_owner("p", lease_ms=LEASE_MS)
        assert await store.waiting_executions() == 2
        taken = await store.claim_next("p", owners_max=9)
        assert taken is not None
        assert (taken.execution_id, taken.crashes) == ("e0", 1)
        assert await store.claim("e1", "o") is not None
        assert await store.waiting_executions() == 0

    @pytest.mark.parametrize("dies", [True, False])
    async def test_what_is_put_aside_waits_again_when_an_owner_goes(self, store: Store, dies: bool):
        """It may have been the one that could not read it."""
        for name in ("old", "new"):
            await store.renew_owner(name, lease_ms=LEASE_MS)
        loaded = await claimed(store, owner="old")
        await store.give_on("e", epoch=loaded.epoch, aside=True)
        assert await store.retire_owner("nobody")
        assert await store.waiting_executions() == 0
        await (store.orphan("old", limit=1) if dies else store.retire_owner("old"))
        assert await store.waiting_executions() == 1
        assert await store.claim_next("new", owners_max=1) is not None

    async def test_what_is_put_aside_can_be_claimed_by_its_name(self, store: Store):
        await store.renew_owner("o", lease_ms=LEASE_MS)
        loaded = await claimed(store, owner="o")
        await store.give_on("e", epoch=loaded.epoch, aside=True)
        assert await store.claim("e", "o") is not None
        await store.renew_owner("p", lease_ms=LEASE_MS)
        assert await store.waiting_executions() == 0

    async def test_a_registration_that_comes_too_late_makes_no_owner(self, store: Store):
        now_ms = await store.time_ms()
        assert not await store.renew_owner("o", lease_ms=LEASE_MS, by_ms=now_ms - 1)
        assert await store.owners() == []
        assert await store.renew_owner("o", lease_ms=LEASE_MS, by_ms=now_ms + LEASE_MS)
        assert await store.renew_owner("o", lease_ms=LEASE_MS, by_ms=now_ms - 1), "it is one"

    async def test_an_owner_that_was_emptied_learns_it_when_it_renews(self, store: Store):
        assert await store.renew_owner("o", lease_ms=LEASE_MS)
        assert await store.renew_owner("o", lease_ms=LEASE_MS, known=True)
        await create(store, "e0")
        await create(store, "e1")
        await store.orphan("o", limit=1)
        assert not await store.renew_owner("o", lease_ms=LEASE_MS, known=True)
        await store.orphan("o", limit=1)
        assert not await store.renew_owner("o", lease_ms=LEASE_MS, known=True)
        assert await store.owners() == []
        assert await store.renew_owner("o", lease_ms=LEASE_MS)


async def suspects(store: Store, *names: str) -> None:
    """Executions that were there when their owner died."""
    await store.renew_owner("dead", lease_ms=LEASE_MS)
    for name in names:
        assert await create(store, name) == "dead"
    assert await store.orphan("dead", limit=100, blame=True) == len(names)


class CheckpointContract:
    async def test_a_checkpoint_is_a_cut_at_one_seq(self, store: Store):
        loaded = await claimed(store)
        await store.commit(next_commit(loaded, rows={"task-1": ALL_BYTES}, events=(b"2",)))
        index = [IndexEntry("checkpoints", 1)]
        copy = await store.create_checkpoint("c", "e", b"about", index, None)
        assert copy == await store.read_execution("e")
        later = replace(loaded, version=2, seq=2)
        await store.commit(next_commit(later, rows={"task-2": b"x"}, events=(b"3",)))
        assert await store.read_checkpoint("c") == copy
        assert copy.rows == {"task-1": ALL_BYTES, "task-2": b"pending"}
        assert (copy.seq, copy.version) == (2, 2)
        document = await store.get_document("checkpoint", "c")
        assert document is not None
        assert (document.body, document.version) == (b"about", 1)
        assert await ids(store, "checkpoints") == ("c",)

    async def test_repeating_a_checkpoint_returns_the_first_copy(self, store: Store):
        loaded = await claimed(store)
        note = InboxEntry("note", b"")
        first = await store.create_checkpoint("c", "e", b"about", [], note)
        await store.commit(next_commit(loaded, rows={"task-1": b"x"}))
        assert await store.create_checkpoint("c", "e", b"other", [], note) == first
        document = await store.get_document("checkpoint", "c")
        assert document is not None
        assert (document.body, document.version) == (b"about", 1)
        assert await store.read_inbox("e") == [note]

    async def test_the_note_reaches_the_inbox_unless_the_execution_has_ended(self, store: Store):
        loaded = await claimed(store)
        await store.create_checkpoint("c1", "e", b"", [], InboxEntry("n1", ALL_BYTES))
        assert await store.read_inbox("e") == [InboxEntry("n1", ALL_BYTES)]
        assert await store.inboxes_waiting("o") == ["e"]
        await store.commit(next_commit(loaded, inbox_done=("n1",), release=True))
        copy = await store.create_checkpoint("c2", "e", b"", [], InboxEntry("n2", b""))
        assert copy.version == 2
        assert await store.read_inbox("e") == []

    async def test_deleting_the_document_drops_the_copy(self, store: Store):
        await create(store)
        await store.create_checkpoint("c", "e", b"", [IndexEntry("l", 1)], None)
        assert await store.delete_document("checkpoint", "c") is True
        assert await store.read_checkpoint("c") is None
        assert await ids(store, "l") == ()
        assert await store.delete_document("checkpoint", "c") is False
        assert await store.get_definition("digest") == b"definition", "the execution holds it"

    async def test_rewriting_its_document_keeps_the_copy(self, store: Store):
        await create(store)
        copy = await store.create_checkpoint("c", "e", b"1", [], None)
        assert await store.put_document("checkpoint", "c", b"2") == 2
        assert await store.read_checkpoint("c") == copy

    async def test_a_checkpoint_of_nothing_is_an_error(self, store: Store):
        with pytest.raises(Missing):
            await store.create_checkpoint("c", "e", b"", [], None)
        assert await store.get_document("checkpoint", "c") is None

    async def test_a_document_put_without_a_copy_is_not_overwritten(self, store: Store):
        await create(store)
        await store.put_document("checkpoint", "c", b"by hand")
        with pytest.raises(AlreadyExists):
            await store.create_checkpoint("c", "e", b"", [], None)

    async def test_an_execution_without_rows_has_a_checkpoint_too(self, store: Store):
        await store.put_definition("digest", b"definition")
        await store.create_execution(new(rows={}, events=()), owners_max=1)
        copy = await store.create_checkpoint("c", "e", b"", [], None)
        assert (copy.rows, copy.seq) == ({}, 0)
        assert await store.read_checkpoint("c") == copy
