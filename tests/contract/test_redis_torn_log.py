"""A server that dies in the midst of writing a commit: afterwards all of it is there, or nothing.

Its append-only file is cut at many places within one commit, as a power cut may leave it, and read
again by a real server each time.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from persistence.embedded import EmbeddedServer
from persistence.log import LogId
from persistence.redis_store import RedisStore
from persistence.store import Commit, InboxEntry, IndexEntry
from tests.contract.builders import ALL_BYTES, LEASE_MS, claimed, ids, loads, next_commit

#: Cuts within the commit, besides those at its ends.
CUTS = 25


@asynccontextmanager
async def running(server: EmbeddedServer) -> AsyncIterator[RedisStore]:
    await asyncio.to_thread(server.start)
    store = RedisStore.connect(server.url, "torn")
    try:
        yield store
    finally:
        await store.close()
        await asyncio.to_thread(server.stop)


def log_of(data_dir: Path) -> Path:
    (log,) = (data_dir / "store" / "appendonlydir").glob("*.incr.aof")
    return log


async def all_of_it(store: RedisStore) -> dict[str, Any]:
    """Everything that a commit may change, as its readers see it."""
    return {
        "state": await store.read_execution("e"),
        "outputs": await store.read_outputs([("e", "task-1/1")]),
        "events": await store.read_events("e", after=0, limit=10),
        "inbox": await store.read_inbox("e"),
        "mail": await store.inboxes_waiting("o"),
        "lists": [await ids(store, name) for name in ("pending", "completed")],
        "log": await store.read_log(after=LogId(0, 0), limit=10),
        "loads": await loads(store),
    }


def last_commit(version: int, seq: int, epoch: int) -> Commit:
    """One with all parts, which ends the execution."""
    return Commit(
        execution_id="e",
        owner="o",
        epoch=epoch,
        version=version + 1,
        first_seq=seq + 1,
        fields={"head": b"completed"},
        rows={"task-1": b"completed", "task-2": ALL_BYTES},
        outputs={"task-1/1": ALL_BYTES},
        events=(b"task", ALL_BYTES, b"ended"),
        inbox_done=("i",),
        indexes=(IndexEntry("completed", 7),),
        release=True,
    )


async def test_of_a_torn_commit_nothing_is_there_and_it_can_be_made_again(tmp_path: Path) -> None:
    server = EmbeddedServer(tmp_path)
    async with running(server) as store:
        await store.renew_owner("o", lease_ms=LEASE_MS)
        loaded = await claimed(store)
        await store.append_inbox("e", InboxEntry("i", b"cancel"))
        await store.commit(next_commit(loaded, indexes=(IndexEntry("pending", 7),)))
        commit = last_commit(loaded.version + 1, loaded.seq, loaded.epoch)
        before, begins = await all_of_it(store), log_of(tmp_path).stat().st_size
        await store.commit(commit)
        after, ends = await all_of_it(store), log_of(tmp_path).stat().st_size
    assert {part for part in before if before[part] != after[part]} == before.keys()
    whole = log_of(tmp_path).read_bytes()[:ends]
    within = range(begins, ends, max(1, (ends - begins) // CUTS))
    for cut in [*within, ends - 1, ends]:
        log_of(tmp_path).write_bytes(whole[:cut])
        async with running(server) as store:
            found = await all_of_it(store)
            assert found == (after if cut == ends else before), f"cut {ends - cut} bytes short"
            await store.commit(commit)
            again = await all_of_it(store)
        # The log's own numbers tell the time, which is another one now.
        assert {**again, "log": 0} == {**after, "log": 0}
