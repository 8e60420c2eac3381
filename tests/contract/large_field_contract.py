"""The contract of large fields: those that an execution is created with may be kept apart."""

from __future__ import annotations

from persistence.store import Store
from tests.contract.builders import ALL_BYTES, ODD_NAMES, new, next_commit
from tests.contract.own_checkpoint_contract import own

LARGE = ALL_BYTES * 400
FIELDS = {"input": LARGE, "options": b"{}", "head": b"pending"}


async def created(store: Store, execution_id: str = "e", **fields: bytes) -> None:
    await store.put_definition("digest", b"definition")
    await store.create_execution(new(execution_id, fields={**FIELDS, **fields}), owners_max=1)


class LargeFieldContract:
    async def test_a_large_field_is_read_like_any_other(self, store: Store):
        await created(store)
        for rows in (True, False):
            snapshot = await store.read_execution("e", rows=rows)
            assert snapshot is not None
            assert snapshot.fields == FIELDS
        loaded = await store.claim("e", "o")
        assert loaded is not None
        assert loaded.fields == FIELDS
        await created(store, "small", input=b"{}")
        found = await store.read_executions(["e", "none", "small"], ["head", "input", "edits"])
        assert found == [
            {"head": b"pending", "input": LARGE},
            None,
            {"head": b"pending", "input": b"{}"},
        ]
        assert await store.read_executions(["e"], ["head"]) == [{"head": b"pending"}]

    async def test_whoever_takes_the_next_one_gets_it(self, store: Store):
        await created(store)
        await store.renew_owner("o", lease_ms=10**6)
        loaded = await store.claim_next("o", owners_max=1)
        assert loaded is not None
        assert loaded.fields == FIELDS

    async def test_names_and_bodies_of_all_kinds(self, store: Store):
        fields = {name: LARGE + name.encode() for name in ODD_NAMES}
        await created(store, **fields)
        snapshot = await store.read_execution("e")
        assert snapshot is not None
        assert snapshot.fields == {**FIELDS, **fields}

    async def test_checkpoints_show_it_also_once_their_execution_has_expired(self, store: Store):
        await created(store)
        loaded = await store.claim("e", "o")
        assert loaded is not None
        await store.take_checkpoint(own(loaded, 1))
        taken = await store.read_checkpoint("c1")
        assert taken is not None
        assert taken.fields == FIELDS
        copy = await store.create_checkpoint("by hand", "e", b"", [], None)
        assert copy == taken
        await store.commit(next_commit(loaded, release=True))
        assert await store.expire(age_ms=0, limit=9) == 1
        assert await store.read_execution("e") is None
        assert await store.read_executions(["e"], ["input"]) == [None]
        assert await store.read_checkpoint("c1") is None
        assert await store.read_checkpoint("by hand") == copy
        assert await store.create_checkpoint("by hand", "e", b"", [], None) == copy
        assert await store.delete_document("checkpoint", "by hand")
        assert await store.read_checkpoint("by hand") is None

    async def test_one_that_is_written_is_what_was_written_but_in_earlier_checkpoints(
        self, store: Store
    ):
        await created(store)
        loaded = await store.claim("e", "o")
        assert loaded is not None
        await store.take_checkpoint(own(loaded, 1))
        await store.commit(next_commit(loaded, fields={"input": b"small"}))
        await store.take_checkpoint(own(loaded, 2))
        for number, expected in ((1, LARGE), (2, b"small")):
            copy = await store.read_checkpoint(f"c{number}")
            assert copy is not None
            assert copy.fields == {**FIELDS, "input": expected}
        snapshot = await store.read_execution("e")
        assert snapshot is not None
        assert snapshot.fields["input"] == b"small"
        assert await store.read_executions(["e"], ["input"]) == [{"input": b"small"}]

    async def test_an_id_that_is_used_again_leaves_the_checkpoints_of_the_former_one(
        self, store: Store
    ):
        await created(store)
        copy = await store.create_checkpoint("c", "e", b"", [], None)
        loaded = await store.claim("e", "o")
        assert loaded is not None
        await store.commit(next_commit(loaded, release=True))
        await store.expire(age_ms=0, limit=9)
        await created(store, input=b"new" + LARGE)
        assert await store.read_checkpoint("c") == copy
        snapshot = await store.read_execution("e")
        assert snapshot is not None
        assert snapshot.fields["input"] == b"new" + LARGE
