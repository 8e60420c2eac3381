"""Leases over Ray: fake handles in front of the real pool, whose task actors are scripted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from ray.exceptions import ActorUnavailableError

from harmonia_actors.actors.ray_ports import RayLeases
from harmonia_actors.core.resources import Capacity, ResourceRequest
from harmonia_actors.runtime.nodes import WorkspaceNodes
from harmonia_actors.runtime.orders import QueueKey
from harmonia_actors.runtime.pool_host import PoolHost, PoolTimes
from harmonia_actors.runtime.pool_sizes import PoolSizes
from harmonia_actors.runtime.silence import Patience
from tests.support.scripted_actors import ManualClock, until
from tests.support.scripted_cluster import ScriptedCluster

GPU = QueueKey(ResourceRequest(num_gpus=1))
LARGE = {"CPU": 2.0, "GPU": 1.0}


class Method:
    """A method of an actor, called as Ray's are: the call is under way at once."""

    def __init__(self, pool: PoolRef, name: str) -> None:
        self._pool = pool
        self._name = name

    def remote(self, *arguments: Any) -> asyncio.Future[Any]:
        return asyncio.ensure_future(self._pool.called(self._name, *arguments))


class PoolRef:
    """The pool under its name. Whoever waits for an answer may go; the call goes on."""

    def __init__(self, host: PoolHost) -> None:
        self.host = host
        self.calls: list[str] = []
        self.errors: dict[str, list[Exception]] = {}
        #: As `errors`, but the calls never come to it.
        self.deaf: dict[str, list[Exception]] = {}

    async def get(self) -> PoolRef:
        return self

    def forget(self) -> None:
        """It is the same one afterwards."""

    def __getattr__(self, name: str) -> Method:
        return Method(self, name)

    async def called(self, name: str, *arguments: Any) -> Any:
        self.calls.append(name)
        if self.deaf.get(name):
            raise self.deaf[name].pop(0)
        answer = asyncio.ensure_future(getattr(self.host, name)(*arguments))
        if self.errors.get(name):
            raise self.errors[name].pop(0)
        return await asyncio.shield(answer)


class World:
    def __init__(self) -> None:
        self.cluster = ScriptedCluster(Capacity({"a": {"CPU": 2.0}}, (LARGE,)))
        self.cluster.add_holder("x")
        times = PoolTimes(patience=Patience(), tick_s=0.001, capacity_every_ticks=1)
        sizes = PoolSizes(warm_min=1)
        self.host = PoolHost(self.cluster, sizes, ManualClock(), times)
        self.pool = PoolRef(self.host)
        ref: Any = self.pool
        self.leases = RayLeases(ref, "x", again_s=0.001)

    async def counts(self, name: str) -> int:
        return (await self.host.counts())[name]

    async def until_counts(self, name: str, count: int) -> None:
        async def as_expected() -> bool:
            return await self.counts(name) == count

        await until_true(as_expected)

    def gpu_actors(self) -> list[str]:
        return [n for n, each in self.cluster.created.items() if each.key == GPU]


async def until_true(ask: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(10):
        # The pool tells nobody when something changes: it must be asked.
        while not await ask():  # noqa: ASYNC110
            await asyncio.sleep(0.001)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    made = World()
    yield made
    await made.host.close()


async def test_who_does_not_wait_any_more_leaves_no_question_behind(world: World) -> None:
    world.pool.errors["withdraw"] = [ActorUnavailableError("away", None)]
    waiting = asyncio.ensure_future(world.leases.acquire(GPU, 1))
    await world.until_counts("requests", 1)
    waiting.cancel()
    await asyncio.wait([waiting])
    assert waiting.cancelled()
    await world.until_counts("requests", 0)
    await until(lambda: world.pool.calls.count("withdraw") == 2)
    (name,) = world.gpu_actors()
    await world.cluster.created[name].start("late")
    await world.until_counts("idle", 1)
    assert await world.counts("leased") == 0


async def test_what_was_granted_to_who_has_left_is_given_back(world: World) -> None:
    """The grant is on its way when he goes."""
    world.pool.errors["acquire"] = [ActorUnavailableError("away", None)] * 2
    waiting = asyncio.ensure_future(world.leases.acquire(GPU, 1))
    await until(world.gpu_actors)
    (name,) = world.gpu_actors()
    await world.cluster.created[name].start("late")
    await world.until_counts("leased", 1)
    assert not waiting.done()
    waiting.cancel()
    await world.until_counts("leased", 0)
    assert world.pool.calls.count("acquire") <= 2


async def test_what_an_answer_grants_that_nobody_understands_is_given_back(world: World) -> None:
    """It is asked for anew, by another question: the pool believes that he has both."""
    world.pool.errors["acquire"] = [TypeError("unforeseen")]
    with pytest.raises(TypeError):
        await world.leases.acquire(GPU, 1)
    await world.until_counts("requests", 0)
    (name,) = world.gpu_actors()
    await world.cluster.created[name].start("late")
    await world.until_counts("idle", 1)
    assert await world.counts("leased") == 0


async def test_an_actor_is_given_back_however_long_the_pool_is_out_of_reach(world: World) -> None:
    """Nobody else would: its holder lives, and the pool believes that he still has it."""
    waiting = asyncio.ensure_future(world.leases.acquire(GPU, 1))
    await until(world.gpu_actors)
    (name,) = world.gpu_actors()
    await world.cluster.created[name].start("late")
    leases = await waiting
    away = [ActorUnavailableError("away", None), OSError("a broken line"), ValueError("no name")]
    world.pool.deaf["release"] = away * 40
    world.leases.release(leases)
    await world.until_counts("leased", 0)
    assert world.pool.calls.count("release") == 121


async def test_a_node_is_wanted_of_the_pool_as_long_as_somebody_waits(world: World) -> None:
    """The whole way: the pending actor is the demand, and its node the answer."""
    nodes = WorkspaceNodes(world.leases, world.host.capacity, again_s=0.001)
    await nodes.look()
    assert nodes.choose("exec-1", GPU.resources) is None
    waiting = [asyncio.ensure_future(nodes.wait_for(f"exec-{n}", GPU.resources)) for n in range(3)]
    await world.until_counts("requests", 3)
    waiting[0].cancel()
    await world.until_counts("requests", 2)
    assert world.gpu_actors() != []
    world.cluster.has = Capacity({"a": {"CPU": 2.0}, "late": LARGE}, (LARGE,))
    for name in world.gpu_actors():
        await world.cluster.created[name].start("late")
    assert [await each for each in waiting[1:]] == ["late", "late"]
    await world.until_counts("requests", 0)
    await world.until_counts("leased", 0)
