"""What is said of the store's promise is what its server's configuration allows now."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import redis.asyncio as redis

from harmonia_actors.runtime.service.promise import PROMISES, StorePromise
from harmonia_actors.settings import Settings
from persistence.embedded import EmbeddedServer
from persistence.memory_store import MemoryStore
from persistence.redis_store import RedisStore
from persistence.store import Durability

AGE_S = 5.0


@pytest.fixture
def server(tmp_path: Path) -> Iterator[EmbeddedServer]:
    one = EmbeddedServer(tmp_path)
    one.start()
    yield one
    one.stop()


@pytest.fixture
async def store(server: EmbeddedServer) -> AsyncIterator[RedisStore]:
    opened = RedisStore.connect(server.url, "test", timeout_ms=2_000)
    yield opened
    await opened.close()


class Watch:
    """A clock that goes when it is told to."""

    def __init__(self) -> None:
        self.s = 100.0

    def __call__(self) -> float:
        return self.s


async def test_a_change_while_it_runs_shows_once_what_is_known_is_old(
    server: EmbeddedServer, store: RedisStore
) -> None:
    watch = Watch()
    promise = StorePromise(store, age_s_max=AGE_S, now_s=watch)
    assert await promise.document() == {
        "promise": "always",
        "meaning": PROMISES["always"],
        "detail": "every write is on disk before it is acknowledged",
    }
    async with redis.Redis.from_url(server.url) as admin:
        await admin.config_set("appendfsync", "everysec")
        watch.s += AGE_S - 0.1
        assert (await promise.now()).promise == "always"
        watch.s += 0.1
        assert (await promise.now()).promise == "everysec"
        await admin.config_set("maxmemory-policy", "allkeys-lru")
        watch.s += AGE_S
        found = await promise.now()
        assert found.promise == "none"
        assert "allkeys-lru" in found.detail
        await admin.config_set("maxmemory-policy", "noeviction")
    await asyncio.to_thread(server.stop)
    watch.s += AGE_S
    away = await promise.document()
    assert (away["promise"], away["meaning"]) == ("unknown", PROMISES["unknown"])
    assert "cannot be reached" in away["detail"]
    await asyncio.to_thread(server.start)
    watch.s += AGE_S
    assert (await promise.now()).promise == "always"


class CountingStore(MemoryStore):
    """Counts how often its configuration is read, and takes its time."""

    reads = 0

    async def durability(self) -> Durability:
        self.reads += 1
        await asyncio.sleep(0)
        return await super().durability()


async def test_requests_that_come_at_once_read_once() -> None:
    store = CountingStore()
    promise = StorePromise(store, age_s_max=Settings().durability_age_s_max)
    found = await asyncio.gather(*(promise.document() for _ in range(50)))
    assert store.reads == 1
    assert {item["promise"] for item in found} == {"none"}


async def test_every_promise_of_a_store_has_its_words() -> None:
    assert set(PROMISES) == {"always", "everysec", "none", "unknown"}
