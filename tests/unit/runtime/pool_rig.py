"""One pool of task actors after the other, over a cluster that does what a test tells it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from harmonia_actors.core.resources import Capacity
from harmonia_actors.runtime.orders import QueueKey
from harmonia_actors.runtime.pool_host import Granted, PoolHost, PoolTimes
from harmonia_actors.runtime.pool_sizes import PoolSizes
from harmonia_actors.runtime.silence import Patience
from tests.support.scripted_actors import ManualClock
from tests.support.scripted_cluster import ScriptedCluster, ScriptedPooledActor

DEFAULT = QueueKey()
TWO_CPUS = Capacity({"a": {"CPU": 2.0}})
QUICK = Patience(again_s=0, again_s_max=0)


class World:
    """One pool after the other on one cluster."""

    def __init__(self) -> None:
        self.cluster = ScriptedCluster(TWO_CPUS)
        self.clock = ManualClock()
        self.pools: list[PoolHost] = []
        for name in ("x", "y"):
            self.cluster.add_holder(name)

    def pool(self, *, patience: Patience = QUICK, adopt_s: float = 0.0) -> PoolHost:
        times = PoolTimes(tick_s=0.001, adopt_s=adopt_s, patience=patience)
        made = PoolHost(self.cluster, PoolSizes(), self.clock, times)
        self.pools.append(made)
        return made

    async def warm_pool(self) -> PoolHost:
        """A pool whose two default actors and the one for async actions have started."""
        made = self.pool()
        await made.begin()
        for actor in list(self.cluster.created.values()):
            await actor.start()
        await made.ready()
        return made

    def actor(self, granted: Granted) -> ScriptedPooledActor:
        return self.cluster.created[granted[0][0][0]]


def given(granted: Granted, request: str = "") -> list[tuple[str, str]]:
    return [(name, request) for name, _, _ in granted[0]]


async def counts(pool: PoolHost) -> dict[str, int]:
    return {name: n for name, n in (await pool.counts()).items() if n}


async def until_answered(ask: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(10):
        # The pool tells nobody when something changes: it must be asked.
        while not await ask():  # noqa: ASYNC110
            await asyncio.sleep(0.001)


async def until_counts(pool: PoolHost, **expected: int) -> None:
    async def as_expected() -> bool:
        return await counts(pool) == expected

    await until_answered(as_expected)
