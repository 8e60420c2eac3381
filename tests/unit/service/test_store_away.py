"""Once an execution is made, its maker learns its id, although the store is away."""

from __future__ import annotations

import asyncio

import pytest

from harmonia_actors.core.requests import PageRequest
from harmonia_actors.runtime.service import executions
from persistence.errors import StoreUnavailable
from persistence.memory_store import MemoryStore
from persistence.store import Snapshot
from tests.support.scripted_actors import until
from tests.unit.service.conftest import MakeWorld

ALL = PageRequest(page=1, limit=100)


class Away(MemoryStore):
    """A store that cannot be read for the next so many times."""

    reads_left_out = 0

    async def read_execution(self, execution_id: str, *, rows: bool = True) -> Snapshot | None:
        if self.reads_left_out:
            self.reads_left_out -= 1
            raise StoreUnavailable("away")
        return await super().read_execution(execution_id, rows=rows)


async def test_whoever_waits_waits_on_while_the_store_is_away(
    make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(executions, "_AWAY_S", 0.001)
    store = Away()
    world = await make_world(store)
    # One of which its owner tells all would need no store.
    large = {"action": "hold", "input": {"value": "x" * 10_000}}
    workflow_id = await world.workflow({"a": large})
    waiting = asyncio.ensure_future(world.gateway.execute(workflow_id, {}, {"async": False}))
    await until(lambda: world.gates.began)
    store.reads_left_out = 5
    world.gates.open("a")
    reply = await waiting
    assert store.reads_left_out == 0
    assert (reply.ended, reply.document["status"]) == (True, "completed")
    assert (await world.gateway.list_executions(ALL, workflow_id=None, status=None))["total"] == 1


async def test_an_execution_that_was_made_is_named_although_the_store_is_away(
    make_world: MakeWorld,
) -> None:
    store = Away()
    world = await make_world(store, sync_wait_s_max=0)
    workflow_id = await world.workflow({"a": {"action": "hold"}})
    store.reads_left_out = 10**9
    reply = await world.gateway.execute(workflow_id, {"x": 1}, {"async": False})
    assert not reply.ended
    assert reply.document["status"] == "pending"
    assert reply.document["input"] == {"x": 1}
    store.reads_left_out = 0
    execution_id = reply.document["execution_id"]
    assert (await world.gateway.get_execution(execution_id, outputs=True))["input"] == {"x": 1}
    checkpoint = await world.gateway.create_checkpoint(execution_id, name="c", description="")
    for options in ({}, {"async": False}):
        store.reads_left_out = 10**9
        reply = await world.gateway.restore(checkpoint["checkpoint_id"], options)
        assert not reply.ended
        store.reads_left_out = 0
        assert reply.document["checkpoint_id"] == checkpoint["checkpoint_id"]
        restored = await world.gateway.get_execution(reply.document["execution_id"], outputs=True)
        for field in ("workflow_id", "checkpoint_id", "created_at", "started_at", "input"):
            assert reply.document[field] == restored[field]
