"""The contract over a real server, and what only a server has: round trips and lost replies."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
import redis.asyncio as redis

from persistence.embedded import EmbeddedServer
from persistence.errors import StoreUnavailable
from persistence.redis_keys import KINDS
from persistence.redis_scripts import SCRIPTS
from persistence.redis_store import RedisStore
from persistence.store import InboxEntry, IndexEntry, OwnCheckpoint, StoredEvent
from tests.contract.builders import ALL_BYTES, ODD_NAMES, claimed, create, new, next_commit
from tests.contract.store_contract import StoreContract
from tests.contract.wire import Wire, wired
from tests.support.owning import claim


@asynccontextmanager
async def opened(
    server: EmbeddedServer, namespace: str, **limits: int
) -> AsyncIterator[RedisStore]:
    found = RedisStore.connect(server.url, namespace, **limits)
    try:
        yield found
    finally:
        await found.close()


@pytest.fixture
async def store(redis_server: EmbeddedServer, redis_namespace: str) -> AsyncIterator[RedisStore]:
    async with opened(redis_server, redis_namespace) as found:
        yield found


@pytest.fixture
async def on_wire(
    redis_server: EmbeddedServer, redis_namespace: str
) -> AsyncIterator[tuple[RedisStore, Wire]]:
    """A store on a wire of its own, with one connection."""
    async with wired(redis_server.url) as (wire, url):
        opened = RedisStore.connect(url, redis_namespace, connections_max=1, timeout_ms=2_000)
        yield opened, wire
        await opened.close()


class TestRedisStore(StoreContract):
    @pytest.fixture
    async def small_log(
        self, redis_server: EmbeddedServer, redis_namespace: str
    ) -> AsyncIterator[RedisStore]:
        async with opened(redis_server, redis_namespace, log_entries_max=10) as found:
            yield found

    @pytest.fixture
    async def forgetful_store(
        self, redis_server: EmbeddedServer, redis_namespace: str
    ) -> AsyncIterator[RedisStore]:
        async with opened(redis_server, redis_namespace, crashes_kept_ms=1) as found:
            yield found


async def counted(wire: Wire, *calls: object) -> list[int]:
    counts = []
    for call in calls:
        before = wire.round_trips
        await call  # type: ignore[misc]
        counts.append(wire.round_trips - before)
    return counts


async def test_a_commit_is_one_round_trip_whatever_its_size(on_wire: tuple[RedisStore, Wire]):
    store, wire = on_wire
    loaded = await claimed(store)
    await store.commit(next_commit(loaded))  # the server knows the script from here on
    rows = {f"task-{at}": b"x" * 50 for at in range(5_000)}
    large = next_commit(
        replace(loaded, version=2),
        rows=rows,
        outputs=rows,
        events=[b"event"] * 5_000,
        indexes=[IndexEntry("a", 1), IndexEntry("b", 2)],
    )
    small = next_commit(replace(loaded, version=3))
    assert await counted(wire, store.commit(large), store.commit(small)) == [1, 1]


async def test_every_call_is_one_round_trip(on_wire: tuple[RedisStore, Wire]):
    store, wire = on_wire

    def calls() -> list[object]:
        return [
            store.ping(),
            store.renew_owner("o", lease_ms=60_000),
            store.put_definition("digest", b""),
            store.put_document("k", "d", b"", [IndexEntry("list")]),
            store.get_documents("k", ["d", "e", "f"]),
            store.page("list", offset=0, limit=10, descending=True),
            store.create_execution(new(), owners_max=1),
            store.create_execution(new("f"), owners_max=1),
            store.claim("e", "o"),
            store.read_execution("e"),
            store.read_executions(["e", "f", "g"], ["head", "input"]),
            store.read_seq("e"),
            store.read_rows("e", ["a", "b"]),
            store.read_outputs([("e", "a"), ("e", "b"), ("f", "a")]),
            store.read_events("e", after=0, limit=100),
            store.append_inbox("e", InboxEntry("i", b"")),
            store.read_inbox("e"),
            store.inboxes_waiting("o"),
            store.owned_executions("o", limit=10),
            store.owners(),
            store.create_checkpoint("c", "e", b"", [], None),
            store.take_checkpoint(OwnCheckpoint("o", "f", 1, 1, 1, b"")),
            store.read_checkpoint("c"),
            store.take_tokens("b", tokens=1, rate_per_s=1, burst=1),
            store.claim_next("o", owners_max=1),
            store.orphan("p", limit=1),
            store.retire_owner("p"),
            store.waiting_executions(),
            store.expire(age_ms=0, limit=1),
            store.garbage(limit=10),
            store.clear_garbage(["a"], ["b"]),
            store.known(["e", "f", "g"]),
            store.tally(),
            store.installation(),
            store.delete_document("k", "d"),
        ]

    await counted(wire, *calls())  # loads the scripts
    counts = await counted(wire, *calls())
    assert counts == [1] * len(counts)


async def test_many_commits_are_one_round_trip(on_wire: tuple[RedisStore, Wire]):
    store, wire = on_wire
    loaded = [await claimed(store, f"e{at}") for at in range(50)]
    await store.commit_many([next_commit(one) for one in loaded])
    again = [next_commit(replace(one, version=2)) for one in loaded]
    assert await counted(wire, store.commit_many(again)) == [1]


async def test_commits_that_come_together_travel_together(on_wire: tuple[RedisStore, Wire]):
    store, wire = on_wire
    loaded = [await claimed(store, f"e{at}") for at in range(50)]
    await store.commit(next_commit(loaded[0]))
    before = wire.round_trips
    await asyncio.gather(*(store.commit(next_commit(one)) for one in loaded))
    assert wire.round_trips - before == 1


async def test_a_commit_that_cannot_be_stored_does_not_harm_its_companions(store: RedisStore):
    loaded = [await claimed(store, f"e{at}") for at in range(3)]
    bad = next_commit(loaded[1], rows={"task": "text"})
    outcomes = await asyncio.gather(
        store.commit(next_commit(loaded[0])),
        store.commit(bad),
        store.commit(next_commit(loaded[2])),
        return_exceptions=True,
    )
    assert [type(one) for one in outcomes] == [type(None), TypeError, type(None)]


async def test_a_cancelled_commit_does_not_harm_its_companions(store: RedisStore):
    loaded = [await claimed(store, f"e{at}") for at in range(3)]
    tasks = [asyncio.ensure_future(store.commit(next_commit(one))) for one in loaded]
    await asyncio.sleep(0)
    tasks[1].cancel()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(one) for one in outcomes] == [type(None), asyncio.CancelledError, type(None)]
    await store.commit(next_commit(replace(loaded[0], version=2)))


async def test_a_repeat_after_a_lost_reply_is_recognised(on_wire: tuple[RedisStore, Wire]):
    store, wire = on_wire
    loaded = await claimed(store)
    await store.commit(next_commit(loaded))
    commit = next_commit(replace(loaded, version=2), events=(b"2",), outputs={"o": b"1"})
    wire.lose_replies = True
    with pytest.raises(StoreUnavailable):
        await store.commit(commit)
    wire.lose_replies = False
    snapshot = await store.read_execution("e")
    assert snapshot is not None
    assert snapshot.version == 3, "it had been written"
    await store.commit(commit)
    events = await store.read_events("e", after=1, limit=10)
    assert events == [StoredEvent(2, b"2")]


async def test_creating_again_after_a_lost_reply_is_recognised(on_wire: tuple[RedisStore, Wire]):
    store, wire = on_wire
    await store.renew_owner("o", lease_ms=60_000)
    await create(store, "warm")
    wire.lose_replies = True
    with pytest.raises(StoreUnavailable):
        await store.create_execution(new(), owners_max=1)
    wire.lose_replies = False
    assert await store.create_execution(new(), owners_max=1) == "o"
    assert [one.load for one in await store.owners()] == [2]


async def test_an_owner_finds_what_a_lost_claim_reply_gave_it(on_wire: tuple[RedisStore, Wire]):
    store, wire = on_wire
    await create(store, "a")
    await create(store, "b")
    await store.renew_owner("o", lease_ms=100_000)
    assert await store.claim_next("o", owners_max=1)
    wire.lose_replies = True
    with pytest.raises(StoreUnavailable):
        await store.claim_next("o", owners_max=1)
    wire.lose_replies = False
    assert await store.owned_executions("o", limit=10) == ["a", "b"]


async def test_a_server_that_says_nothing_is_unavailable(on_wire: tuple[RedisStore, Wire]):
    store, wire = on_wire
    await store.ping()
    wire.silent = True
    with pytest.raises(StoreUnavailable):
        await store.read_execution("e")
    wire.silent = False
    assert await store.read_execution("e") is None, "a late reply must not be taken for this one"


async def test_scripts_that_the_server_forgot_are_given_again(
    store: RedisStore, redis_server: EmbeddedServer
):
    loaded = [await claimed(store, f"e{at}") for at in range(3)]
    async with redis.Redis.from_url(redis_server.url) as client:
        await client.script_flush()
        await store.commit_many([next_commit(one) for one in loaded])
        await client.script_flush()
        assert await claim(store, "e0", "o")


async def test_only_keys_of_the_namespace_are_touched(
    store: RedisStore, redis_server: EmbeddedServer, redis_namespace: str
):
    async with redis.Redis.from_url(redis_server.url) as client:
        before = set(await client.keys("*"))
        await store.ping()
        for name in ODD_NAMES:
            loaded = await claimed(store, name, name)
            await store.append_inbox(name, InboxEntry(name, ALL_BYTES))
            await store.commit(
                next_commit(
                    loaded,
                    name,
                    indexes=[IndexEntry(name, 1, name)],
                    outputs={name: b""},
                    inbox_done=(name,),
                )
            )
            await store.append_inbox(name, InboxEntry("another", ALL_BYTES))
            await store.create_checkpoint(name, name, b"", [], None)
            own = OwnCheckpoint(f"{name} own", name, loaded.epoch, 1, 1, b"")
            await store.take_checkpoint(own)
            await store.take_tokens(name, tokens=1, rate_per_s=0.01, burst=2)
        for name in ("expires", "stays"):
            loaded = await claimed(store, name)
            await store.commit(next_commit(loaded, release=True))
        await store.expire(age_ms=0, limit=1)
        for name in ("one", "two"):
            await claimed(store, name, "dead")
        await store.orphan("dead", limit=2, blame=True)
        await store.renew_owner("alone", lease_ms=100_000)
        assert await store.claim_next("alone", owners_max=1)
        odd = await claimed(store, "odd")
        await store.give_on("odd", epoch=odd.epoch, aside=True)
        await store.installation()
        made = set(await client.keys("*")) - before
    assert all(key.startswith(f"{redis_namespace}:".encode()) for key in made)
    words = {key.split(b":")[1].decode() for key in made}
    assert words == {kind.word for kind in KINDS} - {"waiting"}


async def test_two_namespaces_do_not_see_each_other(
    store: RedisStore, redis_server: EmbeddedServer
):
    other = RedisStore.connect(redis_server.url, "test")
    await create(store)
    assert await other.read_execution("e") is None
    assert await other.waiting_executions() == 0
    await other.close()


@pytest.mark.parametrize("namespace", ["", "a:b", "A", "1a", "a b", "a'", "ä", "x" * 65, "a\n"])
def test_a_namespace_that_could_meet_another_is_refused(namespace: str):
    with pytest.raises(ValueError, match="namespace"):
        RedisStore.connect("redis://127.0.0.1", namespace)


def test_every_script_on_disk_is_used():
    from importlib import resources

    files = {
        one.name.removesuffix(".lua") for one in (resources.files("persistence") / "lua").iterdir()
    }
    parts = {f"part_{part}" for parts in SCRIPTS.values() for part in parts}
    assert files == set(SCRIPTS) | parts
