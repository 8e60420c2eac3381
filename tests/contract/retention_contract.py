"""The contract of expiry, of who holds what, of garbage and of admission."""

from __future__ import annotations

import re

import pytest

from persistence.errors import LimitReached, Missing, StaleOwner
from persistence.retention import Tally
from persistence.store import InboxEntry, IndexEntry, Store
from tests.contract.builders import (
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

HOUR_MS = 3_600_000


async def ended(store: Store, execution_id: str = "e", *, holds: tuple[str, ...] = ()) -> None:
    """An execution that has something of everything and has ended."""
    await store.put_definition("digest", b"definition")
    await store.create_execution(
        new(execution_id, holds=holds, indexes=(IndexEntry("all", 1),)), owners_max=1
    )
    loaded = await claim(store, execution_id, "o")
    assert loaded is not None
    await store.append_inbox(execution_id, InboxEntry("read", b""))
    await store.append_inbox(execution_id, InboxEntry("unread", b""))
    await store.commit(
        next_commit(
            loaded,
            outputs={"out": execution_id.encode()},
            events=(b"2",),
            inbox_done=("read",),
            release=True,
        )
    )
    await store.retire_owner("o")


async def expire_all(store: Store) -> int:
    return await store.expire(age_ms=0, limit=1_000)


async def output(store: Store, execution_id: str = "e") -> bytes | None:
    return (await store.read_outputs([(execution_id, "out")]))[0]


class ExpiryContract:
    async def test_what_has_ended_expires_with_all_that_is_stored_of_it(self, store: Store):
        await ended(store)
        assert await expire_all(store) == 1
        assert await store.read_execution("e") is None
        assert await store.read_executions(["e"], ["head"]) == [None]
        assert await store.read_rows("e", ["task-1"]) == {}
        assert await store.read_inbox("e") == []
        assert await output(store) is None
        assert await ids(store, "all") == ()
        assert await store.get_definition("digest") is None
        for call in (
            store.read_events("e", after=0, limit=1),
            claim(store, "e", "o"),
            store.append_inbox("e", InboxEntry("read", b"")),
            store.create_checkpoint("c", "e", b"", [], None),
        ):
            with pytest.raises(Missing, match="'e'"):
                await call

    async def test_what_lives_never_expires(self, store: Store):
        loaded = await claimed(store)
        await create(store, "waiting")
        assert await expire_all(store) == 0
        assert await store.read_execution("waiting") is not None
        await store.commit(next_commit(loaded, events=(b"2",)))

    async def test_what_has_ended_stays_for_its_time(self, store: Store):
        await ended(store)
        assert await store.expire(age_ms=HOUR_MS, limit=10) == 0
        assert await output(store) == b"e"

    async def test_the_oldest_go_first_and_no_more_than_asked(self, store: Store):
        for name in ("a", "b", "c"):
            await ended(store, name)
        assert await store.expire(age_ms=0, limit=2) == 2
        assert await ids(store, "all") == ("c",)
        assert await store.expire(age_ms=0, limit=2) == 1
        assert await store.expire(age_ms=0, limit=2) == 0

    async def test_a_definition_stays_for_others_that_refer_to_it(self, store: Store):
        await ended(store)
        await create(store, "other")
        await expire_all(store)
        assert await store.get_definition("digest") == b"definition"

    async def test_a_late_commit_of_what_has_expired_is_refused(self, store: Store):
        loaded = await claimed(store)
        last = next_commit(loaded, release=True)
        await store.commit(last)
        await expire_all(store)
        with pytest.raises(Missing):
            await store.commit(last)

    async def test_the_tally_follows_each_life(self, store: Store):
        assert await store.tally() == Tally(0, 0, 0, 0)
        await store.renew_owner("o", lease_ms=LEASE_MS)
        await create(store, "lives")
        await ended(store, "a")
        await ended(store, "b")
        assert await store.tally() == Tally(live=1, ended=2, expired=0, garbage=0)
        await store.expire(age_ms=0, limit=1)
        assert await store.tally() == Tally(live=1, ended=1, expired=1, garbage=1)
        assert await loads(store) == {"o": 1}

    async def test_repeated_writes_are_counted_once(self, store: Store):
        loaded = await claimed(store)
        await create(store)
        last = next_commit(loaded, release=True)
        await store.commit(last)
        await store.commit(last)
        with pytest.raises(StaleOwner):
            await store.commit(next_commit(loaded, version=3, release=True))
        assert await store.tally() == Tally(live=0, ended=1, expired=0, garbage=0)

    async def test_what_has_expired_never_takes_another_place_in_the_order(self, store: Store):
        await create(store, "first", owners_max=9)
        await ended(store, "second")
        await expire_all(store)
        await create(store, "third", owners_max=9)
        await store.renew_owner("p", lease_ms=100_000)
        taken = [await store.claim_next("p", owners_max=1) for _ in range(3)]
        assert [one and one.execution_id for one in taken] == ["first", "third", None]

    async def test_odd_ids_expire_like_any_other(self, store: Store):
        for name in ODD_NAMES:
            await ended(store, name)
        assert await expire_all(store) == len(ODD_NAMES)
        assert sorted(await store.garbage(limit=100)) == sorted(ODD_NAMES)
        await store.clear_garbage(ODD_NAMES)
        assert await store.garbage(limit=100) == []

    @pytest.mark.parametrize(("age_ms", "limit"), [(-1, 1), (0, 0)])
    async def test_an_impossible_expiry_is_refused(self, store: Store, age_ms: int, limit: int):
        with pytest.raises(ValueError, match=r"age_ms|limit"):
            await store.expire(age_ms=age_ms, limit=limit)


class HoldingContract:
    async def test_a_checkpoint_holds_the_outputs_of_its_execution(self, store: Store):
        await ended(store)
        copy = await store.create_checkpoint("c", "e", b"", [], None)
        await expire_all(store)
        assert await store.garbage(limit=10) == []
        assert await output(store) == b"e"
        assert await store.read_checkpoint("c") == copy
        assert await store.get_definition("digest") == b"definition"
        await store.delete_document("checkpoint", "c")
        assert await store.garbage(limit=10) == ["e"]
        assert await output(store) is None
        assert await store.get_definition("digest") is None

    async def test_the_last_of_several_holders_takes_the_outputs_along(self, store: Store):
        await ended(store)
        for name in ("c1", "c2"):
            await store.create_checkpoint(name, "e", b"", [], None)
        await store.delete_document("checkpoint", "c1")
        await expire_all(store)
        assert await output(store) == b"e"
        await store.delete_document("checkpoint", "c2")
        assert await output(store) is None

    async def test_a_checkpoint_that_goes_first_leaves_the_execution_its_own(self, store: Store):
        await ended(store)
        await store.create_checkpoint("c", "e", b"", [], None)
        await store.delete_document("checkpoint", "c")
        assert await store.garbage(limit=10) == []
        assert await output(store) == b"e"

    async def test_a_checkpoint_repeated_holds_once(self, store: Store):
        await ended(store)
        for _ in range(3):
            await store.create_checkpoint("c", "e", b"", [], None)
        await expire_all(store)
        await store.delete_document("checkpoint", "c")
        assert await store.garbage(limit=10) == ["e"]

    async def test_an_execution_may_hold_what_others_left(self, store: Store):
        await ended(store, "e")
        await ended(store, "f", holds=("e",))
        await store.expire(age_ms=0, limit=1)
        assert await store.read_execution("e") is None
        assert await output(store, "e") == b"e"
        assert await expire_all(store) == 1
        assert sorted(await store.garbage(limit=10)) == ["e", "f"]
        assert await output(store, "e") is None

    async def test_a_create_repeated_holds_once(self, store: Store):
        await ended(store)
        for _ in range(3):
            await store.create_execution(new("f", holds=("e",)), owners_max=1)
        loaded = await claim(store, "f", "o")
        assert loaded is not None
        await store.commit(next_commit(loaded, release=True))
        await expire_all(store)
        assert sorted(await store.garbage(limit=10)) == ["e", "f"]

    async def test_a_checkpoint_holds_what_its_execution_holds(self, store: Store):
        await ended(store, "e")
        await ended(store, "f", holds=("e",))
        await store.create_checkpoint("c", "f", b"", [], None)
        await expire_all(store)
        assert [await output(store, one) for one in ("e", "f")] == [b"e", b"f"]
        await ended(store, "g", holds=("e", "f"))
        await store.delete_document("checkpoint", "c")
        assert [await output(store, one) for one in ("e", "f")] == [b"e", b"f"]
        await expire_all(store)
        assert sorted(await store.garbage(limit=10)) == ["e", "f", "g"]

    async def test_a_checkpoint_shares_the_constants_and_outlives_their_execution(
        self, store: Store
    ):
        await ended(store)
        first = await store.create_checkpoint("c1", "e", b"", [], None)
        await store.create_checkpoint("c2", "e", b"", [], None)
        await expire_all(store)
        await store.delete_document("checkpoint", "c2")
        assert first.fields == FIELDS
        assert await store.read_checkpoint("c1") == first
        assert await store.create_checkpoint("c1", "e", b"", [], None) == first

    async def test_what_nobody_holds_any_more_cannot_be_held_again(self, store: Store):
        await ended(store)
        await expire_all(store)
        await store.put_definition("digest", b"definition")
        with pytest.raises(Missing, match="'e'"):
            await store.create_execution(new("f", holds=("e",)), owners_max=1)
        assert await store.read_execution("f") is None
        assert (await store.tally()).live == 0

    async def test_a_refused_create_holds_nothing(self, store: Store):
        await ended(store, "a")
        with pytest.raises(Missing, match="'b'"):
            await store.create_execution(new("f", holds=("a", "b")), owners_max=1)
        await expire_all(store)
        assert await store.garbage(limit=10) == ["a"]

    @pytest.mark.parametrize("holds", [("f",), ("e", "e"), ("",)])
    async def test_odd_holds_are_refused(self, store: Store, holds: tuple[str, ...]):
        await ended(store)
        with pytest.raises(ValueError, match="holds"):
            await store.create_execution(new("f", holds=holds), owners_max=1)

    async def test_known_is_what_is_there_or_held(self, store: Store):
        for name in ("held", "gone"):
            await ended(store, name)
        await store.create_checkpoint("c", "held", b"", [], None)
        await expire_all(store)
        await create(store, "live")
        asked = ["live", "held", "gone", "never", "c"]
        assert await store.known(asked) == {"live", "held"}
        assert await store.known([]) == set()


class GarbageContract:
    async def test_garbage_stays_until_it_is_acknowledged(self, store: Store):
        for name in ("a", "b", "c"):
            await ended(store, name)
        await expire_all(store)
        assert await store.garbage(limit=2) == ["a", "b"]
        assert await store.garbage(limit=2) == ["a", "b"], "asking does not take it"
        await store.clear_garbage(["a", "never"])
        assert await store.garbage(limit=9) == ["b", "c"]
        await store.clear_garbage(["a"])
        assert await store.garbage(limit=9) == ["b", "c"]

    async def test_what_cannot_be_removed_goes_behind_the_others(self, store: Store):
        await ended(store, "b")
        await expire_all(store)
        await ended(store, "a")
        await expire_all(store)
        before = await store.time_ms()
        while await store.time_ms() == before:
            pass
        await store.clear_garbage([], later=["b", "never"])
        assert await store.garbage(limit=9) == ["a", "b"]

    @pytest.mark.parametrize("bytes_min", [0, 10**15])
    async def test_compacting_changes_nothing_that_is_stored(self, store: Store, bytes_min: int):
        await ended(store, "gone")
        await expire_all(store)
        loaded = await claimed(store)
        await store.commit(next_commit(loaded, outputs={"o": b"kept"}))
        before = await store.read_execution("e")
        begun = await store.compact(bytes_min=bytes_min)
        assert begun is False or bytes_min == 0
        assert await store.read_execution("e") == before
        assert await store.read_outputs([("e", "o")]) == [b"kept"]
        assert await store.garbage(limit=9) == ["gone"]
        with pytest.raises(ValueError, match="bytes_min"):
            await store.compact(bytes_min=-1)

    async def test_the_installation_has_one_name_for_ever(self, store: Store):
        first = await store.installation()
        assert re.fullmatch("[0-9a-f]{12}", first)
        assert await store.installation() == first


class AdmissionContract:
    async def test_beyond_the_limit_nothing_is_created(self, store: Store):
        await store.put_definition("digest", b"definition")
        for name in ("a", "b"):
            await store.create_execution(new(name), owners_max=1, live_max=2)
        with pytest.raises(LimitReached, match=r"'c'.* 2 "):
            await store.create_execution(new("c"), owners_max=1, live_max=2)
        assert await store.read_execution("c") is None
        assert await store.waiting_executions() == 2
        assert await store.create_execution(new("c"), owners_max=1, live_max=3) == ""

    async def test_a_repeat_is_answered_as_before_beyond_the_limit(self, store: Store):
        await store.put_definition("digest", b"definition")
        await store.renew_owner("o", lease_ms=LEASE_MS)
        for _ in range(3):
            assert await store.create_execution(new("a"), owners_max=1, live_max=1) == "o"

    async def test_what_ends_makes_room(self, store: Store):
        loaded = await claimed(store, "a")
        with pytest.raises(LimitReached):
            await store.create_execution(new("b"), owners_max=1, live_max=1)
        await store.commit(next_commit(loaded, release=True))
        await store.create_execution(new("b"), owners_max=1, live_max=1)
