"""The supervisor: the real one, over simulated owners, some of which are only thought dead."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from harmonia_actors.runtime.silence import Patience
from harmonia_actors.runtime.sizing import SizingLimits
from harmonia_actors.runtime.supervision import Supervision, SupervisionTimes
from persistence.store import Store
from tests.simulation.network import Network, asking, for_ever
from tests.simulation.owners import SimulatedOwner
from tests.simulation.store import DistantStore
from tests.simulation.virtual_loop import Process, pass_time

__all__ = ["SimulatedSupervisor", "SupervisorWorld"]

_SILENT_S = 8.0
_START_S = 0.3


@dataclass(frozen=True)
class SupervisorWorld:
    """What there is besides the supervisor, before it and after it."""

    network: Network
    start: Callable[[], SimulatedOwner]
    #: All owners there ever were.
    owners: Mapping[str, SimulatedOwner]
    limits: SizingLimits
    lease_ms: int


class SimulatedSupervisor:
    """One incarnation of the supervisor; `supervision` is called in its process."""

    def __init__(self, process: Process, store: DistantStore, world: SupervisorWorld) -> None:
        self.process = process
        times = SupervisionTimes(Patience(silent_s_max=_SILENT_S), world.lease_ms)
        self.supervision = Supervision(
            _Cluster(process, world), cast(Store, store), world.limits, times
        )

    async def begin(self) -> None:
        """Watch, for ever."""
        await self.supervision.begin()
        await for_ever()

    def wanted(self) -> None:
        """An execution waits for an owner."""
        asyncio.get_running_loop().create_task(self.supervision.wanted())


@dataclass(frozen=True)
class _Actor:
    """An owner, as the supervisor sees it."""

    supervisor: Process
    network: Network
    owner: SimulatedOwner

    async def ready(self) -> None:
        await pass_time(_START_S)
        with asking():
            await self._call("ready", self.owner.ready)

    async def watch(self) -> None:
        with asking():
            await self._call("watch", for_ever)

    def pick_up(self) -> None:
        self.network.send(self.supervisor, self.owner.process, self.owner.pick_up, kind="message")

    async def kill(self) -> None:
        await pass_time(self.network.delay_s())
        self.owner.process.kill()

    async def has_lost_its_node(self) -> bool:
        return self.owner.process.died_with_others

    async def _call(self, lane: str, method: Callable[..., object]) -> None:
        await self.network.call(self.supervisor, self.owner.process, lane, method)


class _Cluster:
    """The port OwnerCluster."""

    def __init__(self, process: Process, world: SupervisorWorld) -> None:
        self._process = process
        self._world = world

    async def left(self) -> Sequence[tuple[str, _Actor]]:
        world = self._world
        await pass_time(world.network.delay_s())
        return [
            (name, self._actor(owner))
            for name, owner in world.owners.items()
            if owner.process.alive and name not in world.network.struck_off
        ]

    def create(self) -> tuple[str, _Actor]:
        owner = self._world.start()
        return owner.name, self._actor(owner)

    def _actor(self, owner: SimulatedOwner) -> _Actor:
        return _Actor(self._process, self._world.network, owner)
