"""The contract of checkpoints that an execution's owner takes by itself."""

from __future__ import annotations

import pytest

from persistence.errors import AlreadyExists, Missing, StaleOwner
from persistence.store import IndexEntry, Loaded, OwnCheckpoint, Store
from tests.contract.builders import ALL_BYTES, ODD_NAMES, claimed, create, ids, next_commit
from tests.support.owning import claim


def own(loaded: Loaded, number: int, *, kept: int = 9, name: str = "") -> OwnCheckpoint:
    return OwnCheckpoint(
        checkpoint_id=name or f"c{number}",
        execution_id=loaded.execution_id,
        epoch=loaded.epoch,
        number=number,
        kept=kept,
        body=f"about {number}".encode(),
        indexes=[IndexEntry("checkpoints", float(number))],
    )


async def taken(store: Store, loaded: Loaded, *numbers: int, kept: int = 9) -> None:
    for number in numbers:
        await store.take_checkpoint(own(loaded, number, kept=kept))


class OwnCheckpointContract:
    async def test_an_owners_checkpoint_is_read_listed_and_deleted_like_any_other(
        self, store: Store
    ):
        loaded = await claimed(store)
        await store.commit(next_commit(loaded, rows={"task-1": ALL_BYTES}, events=(b"2",)))
        now = await store.read_execution("e")
        await taken(store, loaded, 2)
        await store.commit(
            next_commit(loaded, version=3, first_seq=3, rows={"task-1": b""}, events=(b"3",))
        )
        assert await store.read_checkpoint("c2") == now
        document = await store.get_document("checkpoint", "c2")
        assert document is not None
        assert (document.body, document.version) == (b"about 2", 1)
        assert await ids(store, "checkpoints") == ("c2",)
        assert await store.read_inbox("e") == [], "its owner needs no note"
        assert await store.delete_document("checkpoint", "c2") is True
        assert await store.read_checkpoint("c2") is None
        assert await ids(store, "checkpoints") == ()

    async def test_taking_it_again_changes_nothing(self, store: Store):
        loaded = await claimed(store)
        await taken(store, loaded, 1)
        first = await store.read_checkpoint("c1")
        await store.commit(next_commit(loaded, rows={"task-1": b"x"}))
        await taken(store, loaded, 1)
        assert await store.read_checkpoint("c1") == first

    async def test_only_the_last_ones_stay(self, store: Store):
        loaded = await claimed(store)
        await store.create_checkpoint("by hand", "e", b"", [IndexEntry("checkpoints", 0)], None)
        await taken(store, loaded, 1, 2, 3, 4, kept=2)
        assert await ids(store, "checkpoints") == ("by hand", "c3", "c4")
        assert await store.read_checkpoint("c2") is None
        assert await store.get_document("checkpoint", "c2") is None
        assert await store.read_checkpoint("by hand") is not None

    async def test_a_late_repeat_of_one_that_has_gone_does_not_push_out_others(self, store: Store):
        loaded = await claimed(store)
        await taken(store, loaded, 1, 2, 3, 1, kept=2)
        assert await ids(store, "checkpoints") == ("c2", "c3")

    async def test_one_deleted_by_hand_makes_room(self, store: Store):
        loaded = await claimed(store)
        await taken(store, loaded, 1, 2, kept=2)
        await store.delete_document("checkpoint", "c1")
        await taken(store, loaded, 3, kept=2)
        assert await ids(store, "checkpoints") == ("c2", "c3")

    async def test_fewer_to_be_kept_trims_all_beyond(self, store: Store):
        loaded = await claimed(store)
        await taken(store, loaded, 1, 2, 3, 4)
        await taken(store, loaded, 5, kept=1)
        assert await ids(store, "checkpoints") == ("c5",)

    async def test_executions_are_trimmed_apart(self, store: Store):
        for name in ("a", "b"):
            loaded = await claimed(store, name)
            for number in (1, 2):
                await store.take_checkpoint(own(loaded, number, kept=1, name=f"{name}{number}"))
        assert await ids(store, "checkpoints") == ("a2", "b2")

    async def test_another_epoch_takes_none(self, store: Store):
        loaded = await claimed(store)
        await taken(store, loaded, 1)
        again = await claim(store, "e", "other")
        assert again is not None
        for number in (1, 2):
            with pytest.raises(StaleOwner, match="epoch"):
                await taken(store, loaded, number)
        await taken(store, again, 1, 2)
        assert await ids(store, "checkpoints") == ("c1", "c2")

    async def test_none_is_taken_after_the_end(self, store: Store):
        loaded = await claimed(store)
        await taken(store, loaded, 1)
        await store.commit(next_commit(loaded, release=True))
        await taken(store, loaded, 1)
        with pytest.raises(StaleOwner, match="ended"):
            await taken(store, loaded, 2)
        assert await ids(store, "checkpoints") == ("c1",)

    async def test_none_is_taken_of_nothing_or_over_a_document(self, store: Store):
        loaded = await claimed(store)
        with pytest.raises(Missing, match="'no'"):
            await store.take_checkpoint(OwnCheckpoint("c", "no", 1, 1, 1, b""))
        await store.put_document("checkpoint", "c1", b"by hand")
        with pytest.raises(AlreadyExists, match="'c1'"):
            await taken(store, loaded, 1)
        assert await store.read_checkpoint("c1") is None

    async def test_it_goes_with_its_execution_and_one_taken_by_hand_stays(self, store: Store):
        loaded = await claimed(store)
        await store.commit(next_commit(loaded, outputs={"out": b"1"}))
        await store.create_checkpoint("by hand", "e", b"", [IndexEntry("checkpoints", 9)], None)
        await taken(store, loaded, 1, 2)
        await store.commit(next_commit(loaded, version=3, release=True))
        assert await store.expire(age_ms=0, limit=10) == 1
        assert await ids(store, "checkpoints") == ("by hand",)
        assert await store.read_checkpoint("c2") is None
        assert await store.read_outputs([("e", "out")]) == [b"1"]
        await store.delete_document("checkpoint", "by hand")
        assert await store.garbage(limit=10) == ["e"]
        assert await store.get_definition("digest") is None

    async def test_alone_it_keeps_nothing_beyond_its_execution(self, store: Store):
        loaded = await claimed(store)
        await store.commit(next_commit(loaded, outputs={"out": b"1"}))
        await taken(store, loaded, 1, 2, 3, kept=2)
        await store.commit(next_commit(loaded, version=3, release=True))
        await store.expire(age_ms=0, limit=10)
        assert await store.garbage(limit=10) == ["e"]
        assert await store.read_outputs([("e", "out")]) == [None]
        assert await store.get_definition("digest") is None

    async def test_odd_ids_are_taken_and_trimmed_like_any_other(self, store: Store):
        for name in ODD_NAMES:
            loaded = await claimed(store, name)
            for number in (1, 2):
                await store.take_checkpoint(own(loaded, number, kept=1, name=f"{number}{name}"))
        assert sorted(await ids(store, "checkpoints")) == sorted(f"2{name}" for name in ODD_NAMES)

    @pytest.mark.parametrize(
        ("field", "value"), [("kept", 0), ("number", -1), ("epoch", -1), ("execution_id", "")]
    )
    async def test_an_impossible_one_is_refused(self, store: Store, field: str, value: object):
        await create(store)
        given = {
            "checkpoint_id": "c",
            "execution_id": "e",
            "epoch": 1,
            "number": 1,
            "kept": 1,
            field: value,
        }
        with pytest.raises(ValueError, match=field):
            await store.take_checkpoint(OwnCheckpoint(**given, body=b""))  # type: ignore[arg-type]
