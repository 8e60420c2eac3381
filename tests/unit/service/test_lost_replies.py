"""Owners at a real server whose replies get lost: what was written is known again as one's own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from persistence.embedded import EmbeddedServer
from persistence.errors import StoreUnavailable
from persistence.redis_client import RedisClient
from persistence.redis_store import RedisStore
from persistence.store import Commit
from tests.contract.wire import Wire, wired
from tests.support.gates import Gates
from tests.support.local import LocalInstallation
from tests.unit.service.conftest import World

EXECUTIONS = 12


class RepeatingStore(RedisStore):
    """Notes which commits were stored although nobody answered: they are sent again."""

    direct: RedisStore

    def __init__(self, client: RedisClient, namespace: str, *lengths: int) -> None:
        super().__init__(client, namespace, *lengths)
        self.unheard: list[tuple[str, int]] = []

    async def commit(self, commit: Commit) -> None:
        try:
            await super().commit(commit)
        except StoreUnavailable:
            stored = await self.direct.read_execution(commit.execution_id, rows=False)
            if stored is not None and stored.version == commit.version:
                self.unheard.append((commit.execution_id, commit.version))
            raise

    @property
    def commit_sha(self) -> bytes:
        """What is in every request that brings commits."""
        return self._scripts.get("commit").sha.encode()


@pytest.fixture
async def direct(redis_server: EmbeddedServer, redis_namespace: str) -> AsyncIterator[RedisStore]:
    opened = RedisStore.connect(redis_server.url, redis_namespace)
    yield opened
    await opened.close()


@pytest.fixture
async def on_wire(
    redis_server: EmbeddedServer, redis_namespace: str, direct: RedisStore
) -> AsyncIterator[tuple[RepeatingStore, Wire]]:
    async with wired(redis_server.url) as (wire, url):
        opened = RepeatingStore.connect(url, redis_namespace)
        assert isinstance(opened, RepeatingStore)
        opened.direct = direct
        yield opened, wire
        await opened.close()


async def ended(world: World, execution_id: str) -> dict[str, Any]:
    """Without the streams, which read through the owners' wire."""
    while not (found := await world.gateway.get_execution(execution_id, outputs=True))["output"]:
        assert found["status"] in ("pending", "running")
        await asyncio.sleep(0.01)
    audit = await world.gateway.audit_execution(execution_id)
    assert (found["status"], audit["violations"]) == ("completed", [])
    return found


async def test_every_execution_is_right_whatever_replies_are_lost(
    on_wire: tuple[RepeatingStore, Wire], direct: RedisStore, tmp_path: Path
) -> None:
    """Of every other request that brings commits the answer is lost, and the connection with it."""
    store, wire = on_wire
    gates = Gates()
    installation = LocalInstallation(store, tmp_path, components=[gates.component])
    async with installation, asyncio.timeout(60):
        world = World(installation, gates)
        world.gateway = installation.another_gateway(store=direct)
        world.store = direct  # type: ignore[assignment]
        wire.lose_to = store.commit_sha
        chain = {
            "a": {"input": {"value": 1}},
            "b": {"depends_on": ["a"], "input": {"value": "${tasks.a.output}"}},
            "c": {"depends_on": ["b"], "input": {"value": "${tasks.b.output}"}},
        }
        started = [await world.start(chain) for _ in range(EXECUTIONS)]
        for execution_id in started:
            found = await ended(world, execution_id)
            assert found["task_status"]["c"]["output"] == 1
            attempts = [view["attempt"] for view in found["task_status"].values()]
            assert attempts == [1, 1, 1], "nothing is run again for a reply"
        wire.lose_to = b""
    assert gates.running_twice() == []
    assert len({execution_id for execution_id, _ in store.unheard}) >= EXECUTIONS / 4
