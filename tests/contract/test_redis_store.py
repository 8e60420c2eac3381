"""The contract over a real server."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from persistence.embedded import EmbeddedServer
from persistence.redis_store import RedisStore
from tests.contract.store_contract import StoreContract


@pytest.fixture
async def store(redis_server: EmbeddedServer, redis_namespace: str) -> AsyncIterator[RedisStore]:
    opened = RedisStore.connect(redis_server.url, redis_namespace)
    yield opened
    await opened.close()


class TestRedisStore(StoreContract):
    pass
