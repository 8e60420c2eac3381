"""The task pool: the real one, over simulated task actors and holders."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from harmonia_actors.core.resources import Capacity
from harmonia_actors.runtime.orders import QueueKey
from harmonia_actors.runtime.pool_host import PoolHost, PoolTimes
from harmonia_actors.runtime.pool_sizes import PoolSizes
from harmonia_actors.runtime.ports import Clock
from harmonia_actors.runtime.silence import NotFound, Patience
from tests.simulation.machine import CPUS
from tests.simulation.network import Network, asking, for_ever
from tests.simulation.task_actors import SimulatedTaskActor
from tests.simulation.virtual_loop import Process, pass_time

__all__ = ["PoolWorld", "SimulatedPool"]

_SILENT_S = 8.0


@dataclass(frozen=True)
class PoolWorld:
    """What there is besides the pool, before it and after it."""

    network: Network
    new_name: Callable[[], str]
    start: Callable[[str, QueueKey], Process]
    #: Task actors and owners that there ever were.
    task_actors: Mapping[str, Process]
    owners: Callable[[str], Process | None]
    recall: Callable[[Process], Callable[[QueueKey, int], None]]
    capacity: Callable[[], Capacity]


class SimulatedPool:
    """One incarnation of the pool actor; `host` is called in its process."""

    def __init__(self, process: Process, clock: Clock, world: PoolWorld) -> None:
        self.process = process
        sizes = PoolSizes(warm_min=2, actors_max=CPUS + 2, idle_ms=5_000)
        times = PoolTimes(Patience(silent_s_max=_SILENT_S), adopt_s=2.0)
        self.host = PoolHost(_Cluster(process, world), sizes, clock, times)


@dataclass(frozen=True)
class _Pooled:
    """A task actor, as the pool sees it."""

    pool: Process
    network: Network
    handle: Process

    async def ready(self) -> tuple[str, QueueKey]:
        with asking():
            answer: tuple[str, QueueKey] = await self._call("ready", self._actor.ready)
            return answer

    async def watch(self) -> None:
        with asking():
            await self._call("watch", for_ever)

    async def settled(self) -> None:
        with asking():
            await self._call("run", self._actor.settled, [])

    async def kill(self) -> None:
        self.network.given_up.add(self.handle.name)
        await pass_time(self.network.delay_s())
        self.handle.kill()

    @property
    def _actor(self) -> SimulatedTaskActor:
        actor: SimulatedTaskActor = self.handle.inhabitant
        return actor

    async def _call(self, lane: str, method: Callable[..., object], *arguments: object) -> object:
        return await self.network.call(self.pool, self.handle, lane, method, *arguments)


class _Cluster:
    """The port PoolCluster."""

    def __init__(self, process: Process, world: PoolWorld) -> None:
        self._process = process
        self._world = world

    def new_name(self) -> str:
        return self._world.new_name()

    def create(self, name: str, key: QueueKey) -> _Pooled:
        return self._pooled(self._world.start(name, key))

    async def left(self) -> Sequence[tuple[str, _Pooled, bool]]:
        await pass_time(self._world.network.delay_s())
        return [
            (name, self._pooled(process), process.inhabitant.has_started)
            for name, process in self._world.task_actors.items()
            if process.alive
        ]

    async def capacity(self) -> Capacity:
        return self._world.capacity()

    async def watch_holder(self, holder: str) -> None:
        process = self._holder(holder)
        with asking():
            await self._world.network.call(self._process, process, "watch", for_ever)

    async def recall(self, holder: str, key: QueueKey, count: int) -> None:
        process = self._holder(holder)
        give = self._world.recall(process)
        with asking():
            await self._world.network.call(self._process, process, "recall", give, key, count)

    def _holder(self, name: str) -> Process:
        process = self._world.owners(name)
        if process is None:
            raise NotFound(name)
        return process

    def _pooled(self, process: Process) -> _Pooled:
        return _Pooled(self._process, self._world.network, process)
