"""Keys are shown once, kept as digests, ended at once; limits hold across replicas."""

from __future__ import annotations

import asyncio
import hashlib
import random
import re
from typing import Any

import pytest

from harmonia_actors.components.registry import Registry
from harmonia_actors.core.errors import (
    AuthenticationFailed,
    Conflict,
    RateLimitExceeded,
    ResourceNotFound,
    ServiceUnavailable,
    ValidationFailed,
)
from harmonia_actors.core.requests import PageRequest
from harmonia_actors.runtime.service.keys import KeyService, make_first_key, new_key
from harmonia_actors.runtime.service.parts import ServiceParts
from harmonia_actors.settings import Settings
from persistence.errors import StoreUnavailable
from persistence.memory_store import MemoryStore
from tests.support.scripted_actors import ManualClock
from tests.unit.service.conftest import problems

ALL = PageRequest(page=1, limit=100)


class Shop:
    """A store and a clock, and as many replicas of the service as a test wants."""

    def __init__(self, **settings: Any) -> None:
        self.clock = ManualClock()
        self.store = MemoryStore(self.clock.now_ms)
        self.settings = Settings(**settings)

    def replica(self) -> KeyService:
        parts = ServiceParts(
            store=self.store,
            blobs=None,  # type: ignore[arg-type]
            registry=Registry([]),
            clock=self.clock,
            launcher=None,  # type: ignore[arg-type]
            settings=self.settings,
        )
        return KeyService(parts)


async def made(service: KeyService, rate: float | None = None, *scopes: str) -> dict[str, Any]:
    return await service.create_key(name="k", scopes=scopes or ("read",), rate_limit_per_s=rate)


async def admitted(service: KeyService, key: str, tries: int) -> int:
    """How many of so many requests pass."""
    passed = 0
    for _ in range(tries):
        principal = await service.authenticate(key)
        try:
            await service.admit(principal)
        except RateLimitExceeded:
            continue
        passed += 1
    return passed


async def test_a_key_opens_what_its_scopes_say() -> None:
    service = Shop().replica()
    key = await made(service, None, "write", "read")
    principal = await service.authenticate(key["api_key"])
    assert principal.key_id == key["key_id"]
    assert principal.scopes == {"read", "write"}
    assert key["scopes"] == ["read", "write"]


async def test_keys_are_long_random_and_kept_as_digests_only() -> None:
    shop = Shop()
    service = shop.replica()
    keys = [await made(service) for _ in range(50)]
    secrets = {key["api_key"] for key in keys}
    assert len(secrets) == 50
    stored = [await shop.store.get_document("key", key["key_id"]) for key in keys]
    for key, document in zip(keys, stored, strict=True):
        assert re.fullmatch(r"hk_[0-9a-f]{12}_[\w-]{43}", key["api_key"])
        assert document is not None
        assert key["api_key"].encode() not in document.body
        assert key["api_key"].split("_", 2)[2].encode() not in document.body
        assert hashlib.sha256(key["api_key"].encode()).hexdigest().encode() in document.body
    listed = await service.list_keys(ALL)
    assert listed["total"] == 50
    assert all(set(item) & {"api_key", "digest"} == set() for item in listed["items"])


async def test_what_is_not_a_key_opens_nothing() -> None:
    service = Shop().replica()
    key = (await made(service))["api_key"]
    unknown = new_key()[1]
    halves = f"{key[:16]}{unknown[16:]}"
    for wrong in ("", "nothing", key[:-1], key + "x", unknown, halves, key.upper(), f" {key}"):
        with pytest.raises(AuthenticationFailed, match="the API key is not valid"):
            await service.authenticate(wrong)


async def test_a_revoked_key_is_refused_everywhere_at_once() -> None:
    shop = Shop()
    here, there = shop.replica(), shop.replica()
    key = await made(here)
    await there.authenticate(key["api_key"])
    await here.revoke_key(key["key_id"])
    for service in (here, there):
        with pytest.raises(AuthenticationFailed):
            await service.authenticate(key["api_key"])
    with pytest.raises(ResourceNotFound):
        await here.revoke_key(key["key_id"])


@pytest.mark.parametrize(
    ("name", "scopes", "rate", "field"),
    [
        ("", ["read"], None, "name"),
        ("x" * 129, ["read"], None, "name"),
        ("k", [], None, "scopes"),
        ("k", ["read", "root"], None, "scopes[1]"),
        ("k", ["read"], 0, "rate_limit_per_s"),
        ("k", ["read"], -5, "rate_limit_per_s"),
        ("k", ["read"], float("inf"), "rate_limit_per_s"),
    ],
)
async def test_keys_that_cannot_be_made(
    name: str, scopes: list[str], rate: float | None, field: str
) -> None:
    service = Shop().replica()
    with pytest.raises(ValidationFailed) as caught:
        await service.create_key(name=name, scopes=scopes, rate_limit_per_s=rate)
    assert set(problems(caught)) == {field}


async def test_the_first_key_is_made_once() -> None:
    shop = Shop()
    key = await make_first_key(shop.store, 1)
    assert key is not None
    principal = await shop.replica().authenticate(key)
    assert principal.scopes == {"admin"}
    assert await make_first_key(shop.store, 2) is None


async def test_a_first_key_is_made_if_none_is_an_admin() -> None:
    shop = Shop()
    await made(shop.replica(), None, "read")
    assert await make_first_key(shop.store, 1) is not None
    assert await make_first_key(shop.store, 2) is None


async def test_the_last_admin_key_cannot_be_ended() -> None:
    service = Shop().replica()
    one, two = [(await made(service, None, "admin", "read"))["key_id"] for _ in range(2)]
    reader = (await made(service))["key_id"]
    await service.revoke_key(one)
    for _ in range(2):
        with pytest.raises(Conflict, match="last key with the scope admin"):
            await service.revoke_key(two)
    await service.revoke_key(reader)
    three = (await made(service, None, "admin"))["key_id"]
    await service.revoke_key(two)
    with pytest.raises(Conflict):
        await service.revoke_key(three)
    with pytest.raises(ResourceNotFound):
        await service.revoke_key(one)


@pytest.mark.parametrize("seed", range(20))
async def test_however_many_admin_keys_end_each_other_one_stays(seed: int) -> None:
    luck = random.Random(seed)
    shop = Shop()
    service = shop.replica()
    keys = [(await made(service, None, "admin"))["key_id"] for _ in range(5)]
    reading, writing = shop.store.get_document, shop.store.put_document

    async def get_document(*arguments: Any) -> Any:
        found = await reading(*arguments)
        for _ in range(luck.randrange(4)):
            await asyncio.sleep(0)
        return found

    async def put_document(*arguments: Any, **options: Any) -> Any:
        for _ in range(luck.randrange(4)):
            await asyncio.sleep(0)
        return await writing(*arguments, **options)

    shop.store.get_document = get_document  # type: ignore[method-assign]
    shop.store.put_document = put_document  # type: ignore[method-assign]
    ended = await asyncio.gather(
        *(shop.replica().revoke_key(key) for key in keys), return_exceptions=True
    )
    assert sum(isinstance(one, Conflict) for one in ended) == 1
    assert (await service.list_keys(ALL))["total"] == 1


# Limits ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("replicas", [1, 2, 5])
async def test_replicas_share_a_limit(replicas: int) -> None:
    shop = Shop(rate_limit_burst_s=2)
    services = [shop.replica() for _ in range(replicas)]
    key = (await made(services[0], 100))["api_key"]
    passed = 0
    for _ in range(60):
        for service in services:
            passed += await admitted(service, key, 10)
    assert passed <= 200, "two seconds' worth may come at once, over all replicas"
    assert passed >= 200 - 5 * replicas, "what one replica leased is not another's"


async def test_a_limit_fills_again_with_time() -> None:
    shop = Shop(rate_limit_burst_s=1)
    service = shop.replica()
    key = (await made(service, 10))["api_key"]
    assert await admitted(service, key, 100) == 10
    shop.clock.at_ms += 500
    assert await admitted(service, key, 100) == 5
    shop.clock.at_ms += 3_600_000
    assert await admitted(service, key, 100) == 10, "an hour does not save up more than a burst"


async def test_a_refusal_says_when_to_come_again() -> None:
    shop = Shop(rate_limit_burst_s=1)
    service = shop.replica()
    key = (await made(service, 0.1))["api_key"]
    principal = await service.authenticate(key)
    await service.admit(principal)
    with pytest.raises(RateLimitExceeded) as caught:
        await service.admit(principal)
    assert caught.value.retry_after_s == 10
    assert "at most 0.1 a second; try again in 10 s" in str(caught.value)
    shop.clock.at_ms += 10_000
    await service.admit(principal)


async def test_each_key_has_a_limit_of_its_own() -> None:
    shop = Shop(rate_limit_per_s=10, rate_limit_burst_s=1)
    service = shop.replica()
    greedy, modest = (await made(service))["api_key"], (await made(service))["api_key"]
    assert await admitted(service, greedy, 50) == 10
    assert await admitted(service, modest, 5) == 5


async def test_most_requests_write_nothing() -> None:
    shop = Shop()
    service = shop.replica()
    key = (await made(service, 1_000))["api_key"]
    takes = 0
    take = shop.store.take_tokens

    async def counted(*arguments: Any, **options: Any) -> Any:
        nonlocal takes
        takes += 1
        return await take(*arguments, **options)

    shop.store.take_tokens = counted  # type: ignore[method-assign]
    assert await admitted(service, key, 500) == 500
    assert takes <= 20


async def test_without_the_store_no_more_passes_than_was_leased_before() -> None:
    """A limit that cannot be kept is not given up."""
    shop = Shop()
    service = shop.replica()
    key = (await made(service, 100))["api_key"]
    assert await admitted(service, key, 1) == 1

    async def away(*_: Any, **__: Any) -> Any:
        raise StoreUnavailable("away")

    shop.store.take_tokens = away  # type: ignore[method-assign]
    principal = await service.authenticate(key)
    passed = 0
    with pytest.raises(ServiceUnavailable):
        for _ in range(200):
            await service.admit(principal)
            passed += 1
    assert passed < 100
    with pytest.raises(ServiceUnavailable):
        await service.admit_anonymous("10.0.0.1")


async def test_bad_keys_are_counted_by_address() -> None:
    shop = Shop(failed_auth_per_s=5, rate_limit_burst_s=1)
    here, there = shop.replica(), shop.replica()
    passed = 0
    for _ in range(20):
        for service in (here, there):
            try:
                await service.admit_anonymous("10.0.0.1")
            except RateLimitExceeded:
                continue
            passed += 1
    assert passed == 5
    await here.admit_anonymous("10.0.0.2")


async def test_unused_leases_lapse() -> None:
    """A replica that leased and slept does not spend long-gone tokens on top of new ones."""
    shop = Shop(rate_limit_burst_s=1)
    sleepy = shop.replica()
    key = (await made(sleepy, 100))["api_key"]
    assert await admitted(sleepy, key, 1) == 1
    shop.clock.at_ms += 60_000
    other = shop.replica()
    passed = await admitted(other, key, 500) + await admitted(sleepy, key, 500)
    assert passed <= 100


def test_a_key_names_itself() -> None:
    key_id, key, digest = new_key()
    assert key.startswith(f"hk_{key_id}_")
    assert digest == hashlib.sha256(key.encode()).hexdigest()
