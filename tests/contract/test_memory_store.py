"""The contract over the memory store, and what only an injected clock can show."""

from __future__ import annotations

import pytest

from persistence.memory_store import MemoryStore
from persistence.store import Grant, NewExecution, OwnerLoad, Store
from tests.contract.store_contract import StoreContract


class Clock:
    def __init__(self) -> None:
        self.now_ms = 1_795_000_000_000

    def __call__(self) -> int:
        return self.now_ms


class TestMemoryStore(StoreContract):
    @pytest.fixture
    def store(self) -> Store:
        return MemoryStore()

    @pytest.fixture
    def small_log(self) -> Store:
        return MemoryStore(log_entries_max=10)

    @pytest.fixture
    def forgetful_store(self) -> Store:
        return MemoryStore(crashes_kept_ms=1)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(clock: Clock) -> MemoryStore:
    return MemoryStore(clock)


async def test_a_lease_runs_out_and_its_owner_gets_nothing_new(store: MemoryStore, clock: Clock):
    await store.put_definition("d", b"")
    await store.renew_owner("o", lease_ms=100)
    clock.now_ms += 99
    assert await store.owners() == [OwnerLoad("o", 0, expired=False)]
    clock.now_ms += 1
    assert await store.owners() == [OwnerLoad("o", 0, expired=True)]
    assert await store.create_execution(NewExecution("e", "d", {}), owners_max=1) == ""
    await store.renew_owner("o", lease_ms=100)
    assert await store.create_execution(NewExecution("f", "d", {}), owners_max=1) == "o"


async def test_a_bucket_fills_at_its_rate_up_to_its_burst(store: MemoryStore, clock: Clock):
    async def take(tokens: int) -> Grant:
        return await store.take_tokens("k", tokens=tokens, rate_per_s=10, burst=3)

    assert await take(3) == Grant(3, 0)
    assert await take(1) == Grant(0, 100)
    clock.now_ms += 99
    assert await take(1) == Grant(0, 1)
    clock.now_ms += 1
    assert await take(3) == Grant(1, 0)
    clock.now_ms += 1_000_000
    assert await take(9) == Grant(3, 0)


async def test_a_clock_set_back_does_not_close_a_bucket_for_long(store: MemoryStore, clock: Clock):
    await store.take_tokens("k", tokens=3, rate_per_s=10, burst=3)
    clock.now_ms -= 3_600_000
    grant = await store.take_tokens("k", tokens=1, rate_per_s=10, burst=3)
    assert grant == Grant(0, 100)


async def test_a_definition_to_which_nothing_refers_goes_after_a_day(
    store: MemoryStore, clock: Clock
):
    await store.put_definition("unused", b"")
    await store.put_definition("used", b"")
    await store.put_document("k", "a", b"", definition="used")
    clock.now_ms += 86_400_000 - 1
    assert await store.get_definition("unused") == b""
    clock.now_ms += 1
    assert await store.get_definition("unused") is None
    assert await store.get_definition("used") == b""


async def test_the_clock_is_the_stores_time(store: MemoryStore, clock: Clock):
    assert await store.time_ms() == clock.now_ms
