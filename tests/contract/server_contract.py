"""The contract of rate limits and of the server itself."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from persistence.log import LOG_START
from persistence.store import Store
from tests.contract.builders import DEADLINE_S, LEASE_MS, ODD_NAMES

#: Moments at which somebody is told to end: more than a command takes.
_TICKS = 120


class TokenContract:
    async def test_a_bucket_grants_its_burst_and_then_says_when(self, store: Store):
        async def take(tokens: int) -> tuple[int, bool]:
            grant = await store.take_tokens("k", tokens=tokens, rate_per_s=0.001, burst=5)
            return grant.tokens, grant.retry_after_ms > 0

        assert await take(2) == (2, False)
        assert await take(10) == (3, False)
        assert await take(1) == (0, True)

    async def test_two_clients_share_a_bucket(self, store: Store):
        grants = await asyncio.gather(
            *(store.take_tokens("k", tokens=1, rate_per_s=0.001, burst=7) for _ in range(20))
        )
        assert sum(one.tokens for one in grants) == 7

    async def test_buckets_are_apart(self, store: Store):
        for name in ODD_NAMES:
            grant = await store.take_tokens(name, tokens=3, rate_per_s=0.001, burst=2)
            assert grant.tokens == 2

    async def test_the_wait_is_at_most_the_time_of_one_token(self, store: Store):
        await store.take_tokens("k", tokens=1, rate_per_s=0.5, burst=1)
        grant = await store.take_tokens("k", tokens=1, rate_per_s=0.5, burst=1)
        assert grant.tokens == 0
        assert 0 < grant.retry_after_ms <= 2_000

    @pytest.mark.parametrize(
        ("tokens", "rate", "burst"), [(0, 1.0, 1), (1, 0.0, 1), (1, float("nan"), 1), (1, 1.0, 0)]
    )
    async def test_an_impossible_bucket_is_refused(
        self, store: Store, tokens: int, rate: float, burst: int
    ):
        with pytest.raises(ValueError, match=r"tokens|rate_per_s|burst"):
            await store.take_tokens("k", tokens=tokens, rate_per_s=rate, burst=burst)


class ServerContract:
    @pytest.mark.parametrize("way", ["script", "command", "commands", "atomic", "waiting"])
    async def test_whoever_is_told_to_end_ends_in_whatever_moment_that_is(
        self, store: Store, way: str
    ):
        ways: dict[str, Callable[[], Awaitable[object]]] = {
            "script": lambda: store.renew_owner("o", lease_ms=LEASE_MS),
            "command": store.time_ms,
            "commands": lambda: store.read_outputs([("e", "one"), ("e", "two")]),
            "atomic": lambda: store.page("nothing", offset=0, limit=1),
            "waiting": lambda: store.read_log(after=LOG_START, limit=1, wait_ms=1),
        }

        async def for_ever() -> None:
            while True:
                await asyncio.sleep(0)
                await ways[way]()

        went_on = []
        for ticks in range(_TICKS):
            task = asyncio.create_task(for_ever())
            for _ in range(ticks):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task], timeout=0 if went_on else DEADLINE_S / 4)
            if not task.done():
                went_on.append(ticks)
            while not task.done():
                task.cancel()
                await asyncio.sleep(0)
        assert not went_on

    async def test_a_store_that_works_answers_a_ping_and_tells_the_time(self, store: Store):
        await store.ping()
        first = await store.time_ms()
        assert first > 1_500_000_000_000
        assert await store.time_ms() >= first

    async def test_durability_names_a_promise_and_says_why(self, store: Store):
        durability = await store.durability()
        assert durability.promise in {"always", "everysec", "none", "unknown"}
        assert durability.detail
