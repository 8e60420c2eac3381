"""What waits for an owner is taken at once, whatever else its owners-to-be are about."""

from __future__ import annotations

import asyncio
from pathlib import Path

from persistence.memory_store import MemoryStore
from persistence.store import Loaded
from tests.support.gates import Gates
from tests.support.local import LocalInstallation
from tests.support.scripted_actors import until
from tests.unit.runtime.test_host import World


class LateReplies(MemoryStore):
    """That nothing waits is on its way for as long as `way` is not free."""

    def __init__(self) -> None:
        super().__init__()
        self.way = asyncio.Event()
        self.way.set()
        self.on_its_way = 0

    async def claim_next(self, owner: str, *, owners_max: int) -> Loaded | None:
        found = await super().claim_next(owner, owners_max=owners_max)
        if found is None:
            self.on_its_way += 1
            await self.way.wait()
        return found


async def test_what_comes_to_wait_while_an_owner_looks_is_not_missed(tmp_path: Path) -> None:
    gates, store = Gates(), LateReplies()
    async with LocalInstallation(store, tmp_path, components=[gates.component]) as installation:
        world = World(installation, gates)
        execution_id = await world.start({"x": {"action": "hold"}})
        await world.began(execution_id, "x")
        dead = await world.owner_of(execution_id)
        await installation.kill_owner(dead)
        (heir,) = installation.hosts.values()
        store.way.clear()
        before = store.on_its_way
        looking = asyncio.ensure_future(heir.pick_up())
        await until(lambda: store.on_its_way > before)
        assert await store.orphan(dead, limit=100) == 1
        assert await heir.pick_up() == 0, "it looks already"
        store.way.set()
        assert await looking == 1
        assert await world.owner_of(execution_id) == heir.owner
        gates.open("x")
        assert (await world.ended(execution_id))["status"] == "completed"
