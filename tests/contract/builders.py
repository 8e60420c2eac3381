"""What the contract tests build executions and commits from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from persistence.store import (
    Commit,
    Loaded,
    NewExecution,
    Store,
)
from tests.support.owning import claim

LEASE_MS = 60_000
DEADLINE_S = 20
ALL_BYTES = bytes(range(256))
ODD_NAMES = [
    "a:b",
    "a",
    "b",
    ":",
    "*",
    "?[x]",
    "line\r\nbreak",
    "{braces}",
    "nul\x00byte",
    "\x01\x00\x02",
    "übergrößenträger 日本 🎉",
    "rows:a",
    "'; return redis.call('FLUSHALL') --",
    " ",
    "x" * 500,
]


def new(execution_id: str = "e", **changes: object) -> NewExecution:
    return replace(
        NewExecution(
            execution_id=execution_id,
            definition="digest",
            fields={"head": b"pending"},
            constants={"input": b"{}"},
            rows={"task-1": b"pending", "task-2": b"pending"},
            events=(b"started",),
        ),
        **changes,  # type: ignore[arg-type]
    )


#: What is read of an execution that was created like this.
FIELDS = {"input": b"{}", "head": b"pending"}


def next_commit(loaded: Loaded, owner: str = "o", **changes: object) -> Commit:
    return replace(
        Commit(
            execution_id=loaded.execution_id,
            owner=owner,
            epoch=loaded.epoch,
            version=loaded.version + 1,
            first_seq=loaded.seq + 1,
        ),
        **changes,  # type: ignore[arg-type]
    )


async def create(store: Store, execution_id: str = "e", *, owners_max: int = 1) -> str:
    await store.put_definition("digest", b"definition")
    return await store.create_execution(new(execution_id), owners_max=owners_max)


async def claimed(store: Store, execution_id: str = "e", owner: str = "o") -> Loaded:
    await create(store, execution_id)
    loaded = await claim(store, execution_id, owner)
    assert loaded is not None
    return loaded


async def ids(store: Store, index: str, *, descending: bool = False) -> Sequence[str]:
    return (await store.page(index, offset=0, limit=100, descending=descending)).ids


async def loads(store: Store) -> dict[str, int]:
    return {one.owner: one.load for one in await store.owners()}
