"""Expiry at a real server: nothing is left, nothing is lost with a reply, and it makes room."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import redis.asyncio as redis

from persistence.embedded import EmbeddedServer
from persistence.errors import StoreUnavailable
from persistence.redis_store import RedisStore
from persistence.store import InboxEntry, IndexEntry, OwnCheckpoint
from tests.contract.builders import claimed, create, ids, new, next_commit
from tests.contract.own_checkpoint_contract import own
from tests.contract.retention_contract import ended, expire_all, output
from tests.contract.wire import Wire, wired
from tests.support.owning import claim
from tests.support.scripted_actors import until

#: Keys that an installation keeps once it has had an execution and an owner.
PERMANENT = {b"owners", b"leases", b"created", b"live", b"expired", b"log"}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[EmbeddedServer]:
    """A server of this test's own, to be mistreated and to be counted."""
    one = EmbeddedServer(tmp_path)
    one.start()
    yield one
    one.stop()


@pytest.fixture
async def store(server: EmbeddedServer) -> AsyncIterator[RedisStore]:
    opened = RedisStore.connect(server.url, "test", timeout_ms=2_000)
    yield opened
    await opened.close()


@pytest.fixture
async def admin(server: EmbeddedServer) -> AsyncIterator[redis.Redis]:
    async with redis.Redis.from_url(server.url) as client:
        yield client


@pytest.fixture
async def on_wire(server: EmbeddedServer) -> AsyncIterator[tuple[RedisStore, Wire]]:
    """A store on a wire of its own, with one connection."""
    async with wired(server.url) as (wire, url):
        opened = RedisStore.connect(url, "test", connections_max=1, timeout_ms=2_000)
        yield opened, wire
        await opened.close()


async def test_no_key_is_left_of_what_has_expired_and_is_held_by_nobody(
    store: RedisStore, admin: redis.Redis
):
    for at in range(30):
        await ended(store, f"e{at}")
        await ended(store, f"f{at}", holds=(f"e{at}",))
        await store.create_checkpoint(f"c{at}", f"f{at}", b"", [], InboxEntry("c", b""))
        loaded = await claimed(store, f"g{at}")
        for number in (1, 2, 3):
            index = [IndexEntry("checkpoints", number)]
            name = f"g{at}/{number}"
            await store.take_checkpoint(
                OwnCheckpoint(name, f"g{at}", loaded.epoch, number, 2, b"", index)
            )
        await store.commit(next_commit(loaded, release=True))
    while await store.expire(age_ms=0, limit=7):
        pass
    for at in range(30):
        await store.delete_document("checkpoint", f"c{at}")
    await store.clear_garbage(await store.garbage(limit=100))
    left = {key.partition(b":")[2] for key in await admin.keys("*")}
    assert left == PERMANENT


async def test_an_expiry_whose_reply_was_lost_took_place_and_the_next_goes_on(
    on_wire: tuple[RedisStore, Wire],
):
    store, wire = on_wire
    for name in ("a", "b", "c"):
        await ended(store, name)
    await store.expire(age_ms=10**9, limit=1)
    wire.lose_replies = True
    with pytest.raises(StoreUnavailable):
        await store.expire(age_ms=0, limit=2)
    wire.lose_replies = False
    assert await store.garbage(limit=9) == ["a", "b"], "they are found again"
    assert await store.expire(age_ms=0, limit=2) == 1
    assert (await store.tally()).expired == 3


async def test_what_a_crash_left_between_expiry_and_removal_is_found_by_the_next(
    server: EmbeddedServer, store: RedisStore
):
    await ended(store)
    await expire_all(store)
    assert server.pid is not None
    os.kill(server.pid, signal.SIGKILL)
    await until(lambda: not server.alive())
    await asyncio.to_thread(server.start)
    successor = RedisStore.connect(server.url, "test")
    try:
        assert await successor.garbage(limit=9) == ["e"]
        await successor.clear_garbage(["e"])
        assert await successor.garbage(limit=9) == []
    finally:
        await successor.close()


async def test_clearing_garbage_again_after_a_lost_reply_changes_nothing(
    on_wire: tuple[RedisStore, Wire],
):
    store, wire = on_wire
    for name in ("a", "b", "c"):
        await ended(store, name)
    await expire_all(store)
    await store.clear_garbage([])
    wire.lose_replies = True
    with pytest.raises(StoreUnavailable):
        await store.clear_garbage(["a"], ["b"])
    wire.lose_replies = False
    await store.clear_garbage(["a"], ["b"])
    assert sorted(await store.garbage(limit=9)) == ["b", "c"]


async def test_a_create_that_holds_and_lost_its_reply_holds_and_counts_once(
    on_wire: tuple[RedisStore, Wire],
):
    store, wire = on_wire
    await ended(store)
    execution = new("f", holds=("e",))
    wire.lose_replies = True
    with pytest.raises(StoreUnavailable):
        await store.create_execution(execution, owners_max=1, live_max=1)
    wire.lose_replies = False
    assert await store.create_execution(execution, owners_max=1, live_max=1) == ""
    assert (await store.tally()).live == 1
    loaded = await claim(store, "f", "o")
    assert loaded is not None
    await store.commit(next_commit(loaded, release=True))
    await expire_all(store)
    assert sorted(await store.garbage(limit=9)) == ["e", "f"]


async def test_deleting_a_checkpoint_again_after_a_lost_reply_lets_go_once(
    on_wire: tuple[RedisStore, Wire],
):
    store, wire = on_wire
    await ended(store)
    for name in ("c1", "c2"):
        await store.create_checkpoint(name, "e", b"", [], None)
    await expire_all(store)
    await store.delete_document("checkpoint", "none")
    wire.lose_replies = True
    with pytest.raises(StoreUnavailable):
        await store.delete_document("checkpoint", "c1")
    wire.lose_replies = False
    assert await store.delete_document("checkpoint", "c1") is False
    assert await output(store) == b"e", "c2 holds it"


async def test_a_checkpoint_whose_reply_was_lost_is_taken_and_trimmed_once(
    on_wire: tuple[RedisStore, Wire],
):
    store, wire = on_wire
    loaded = await claimed(store)
    for number in (1, 2):
        await store.take_checkpoint(own(loaded, number, kept=2))
    wire.lose_replies = True
    with pytest.raises(StoreUnavailable):
        await store.take_checkpoint(own(loaded, 3, kept=2))
    wire.lose_replies = False
    await store.take_checkpoint(own(loaded, 3, kept=2))
    assert await ids(store, "checkpoints") == ("c2", "c3")


async def test_a_checkpoint_costs_the_same_whatever_the_size_of_input_and_outputs(
    store: RedisStore, admin: redis.Redis
):
    """The server's memory grows by the copy of the rows, not by what these refer to."""
    await store.put_definition("digest", b"definition")
    large = new(constants={"input": b"x" * 4_000_000})
    await store.create_execution(large, owners_max=1)
    loaded = await claim(store, "e", "o")
    assert loaded is not None
    await store.commit(next_commit(loaded, outputs={"out": b"x" * 4_000_000}))
    await store.take_checkpoint(own(loaded, 1))
    sizes = [await admin.memory_usage(key) for key in await admin.keys("test:checkpoint*")]
    assert len(sizes) == 2
    assert sum(sizes) < 4_000


async def test_a_server_without_memory_still_expires_and_so_makes_room(
    store: RedisStore, admin: redis.Redis
):
    await ended(store)
    await store.create_checkpoint("c", "e", b"", [], None)
    await expire_all(store)
    loaded = await claimed(store, "f")
    await store.take_checkpoint(own(loaded, 1))
    await store.commit(next_commit(loaded, release=True))
    await admin.config_set("maxmemory", 1)
    with pytest.raises(StoreUnavailable, match="maxmemory"):
        await create(store, "g")
    assert await expire_all(store) == 1
    assert await store.delete_document("checkpoint", "c") is True
    assert sorted(await store.garbage(limit=9)) == ["e", "f"]
    await store.clear_garbage(["e", "f"])
    assert (await store.tally()).garbage == 0


def size_of(directory: Path) -> int:
    """The bytes of its files; those that go while it looks have none."""
    total = 0
    for file in directory.glob("*"):
        with contextlib.suppress(FileNotFoundError):
            total += file.stat().st_size
    return total


async def test_a_file_of_which_most_is_of_no_use_is_written_anew_and_all_is_still_there(
    server: EmbeddedServer, store: RedisStore, admin: redis.Redis, tmp_path: Path
):
    loaded = await claimed(store)
    for at in range(400):
        await store.put_document("kind", "d", bytes([at % 256]) * 20_000)
    assert await store.compact(bytes_min=100_000_000) is False
    assert await store.compact(bytes_min=1_000_000) is True
    await until(lambda: size_of(tmp_path / "store" / "appendonlydir") < 100_000)
    assert server.pid is not None
    os.kill(server.pid, signal.SIGKILL)
    await until(lambda: not server.alive())
    await asyncio.to_thread(server.start)
    successor = RedisStore.connect(server.url, "test")
    found = await successor.get_document("kind", "d")
    assert found is not None
    assert (found.version, found.body) == (400, bytes([399 % 256]) * 20_000)
    await successor.commit(next_commit(loaded))
    await successor.close()


async def test_a_server_that_forbids_it_is_left_alone(
    server: EmbeddedServer, store: RedisStore, admin: redis.Redis
):
    for at in range(400):
        await store.put_document("kind", "d", bytes([at % 256]) * 20_000)
    rules = ("on", ">secret", "~*", "+@all", "-bgrewriteaof")
    await admin.execute_command("ACL", "SETUSER", "app", *rules)
    other = RedisStore.connect(f"redis://app:secret@127.0.0.1:{server.port}/0", "test")
    assert await other.compact(bytes_min=0) is False
    await other.close()
    assert await store.compact(bytes_min=0) is True


async def test_what_is_held_is_one_field_however_often(store: RedisStore, admin: redis.Redis):
    loaded = await claimed(store)
    for name in ("c1", "c2", "c3"):
        await store.create_checkpoint(name, "e", b"", [], None)
    assert await admin.hgetall("test:held") == {b"e": b"3"}
    for name in ("c1", "c2", "c3"):
        await store.delete_document("checkpoint", name)
    assert await admin.exists("test:held") == 0
    await store.commit(next_commit(loaded))
