"""What waits for an owner is taken at once, whatever else its owners-to-be are about."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

from harmonia_actors.runtime.census import Census
from harmonia_actors.runtime.host import ExecutionHost
from persistence.memory_store import MemoryStore
from persistence.store import Loaded
from tests.support.gates import Gates
from tests.support.local import LocalInstallation
from tests.support.scripted_actors import settle, until
from tests.unit.runtime.test_host import World

#: Of one owner; whatever it is that its takeovers wait for.
TAKEN_AT_ONCE = 64


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


class Turns:
    """Takes the place of a host's census: each waits for its turn, and they are counted."""

    def __init__(self, host: ExecutionHost) -> None:
        self._real = host.take_census
        self._turns = asyncio.Semaphore(0)
        self.under_way = self.most_at_once = self.done = 0
        host.take_census = self._take

    def give(self, count: int) -> None:
        """Let so many go on."""
        for _ in range(count):
            self._turns.release()

    async def _take(self, execution_id: str, epoch: int) -> Census:
        self.under_way += 1
        self.most_at_once = max(self.most_at_once, self.under_way)
        await self._turns.acquire()
        self.under_way -= 1
        self.done += 1
        return await self._real(execution_id, epoch)


async def test_of_many_that_wait_only_some_are_taken_over_at_a_time(tmp_path: Path) -> None:
    """Each asks task actors what they run of it: all at once would be a stampede."""
    gates, many = Gates(), 200
    async with (
        LocalInstallation(
            MemoryStore(), tmp_path, workers=1, owners=1, components=[gates.component]
        ) as installation,
        asyncio.timeout(60),
    ):
        with contextlib.ExitStack() as at_the_end:
            at_the_end.callback(gates.open, "x")
            world = World(installation, gates)
            started = [await world.start({"x": {"action": "hold"}}) for _ in range(many)]
            for execution_id in started:
                while (await world.status(execution_id))["status"] != "running":
                    await settle()
            (dead,) = installation.hosts
            await installation.kill_owner(dead)
            while await world.store.orphan(dead, limit=100):
                pass
            # It has not looked around yet: it does when this test waits for the first time.
            turns = Turns(heir := await installation.add_owner("heir"))
            await until(lambda: turns.under_way >= TAKEN_AT_ONCE)
            for given in (1, 11, 75, many):
                await settle()
                assert turns.most_at_once == TAKEN_AT_ONCE
                turns.give(given - turns.done)
                await until(lambda given=given: turns.done == given)
            await until(lambda: heir.load == many)
            gates.open("x")
            for execution_id in started:
                assert (await world.ended(execution_id))["status"] == "completed"
            assert gates.running_twice() == []
