"""Faults that come at any time, to whomever they may hit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from tests.simulation.faults import Faults
from tests.simulation.network import Network
from tests.simulation.owners import SimulatedOwner
from tests.simulation.store import StoreServer
from tests.simulation.virtual_loop import Process, pass_time

__all__ = ["Chaos", "Victims"]

_AWAY_S = 5.0
_SLOW_S = 4.0
_CUT_OFF_S = 8.0
_STOPPED_S = 12.0
#: Clocks jump as far as one that was a little off and is set, and as one in a wrong zone.
_JUMPS_MS = (60_000, 3_600_000)


class Victims(Protocol):
    """Who can be hit, as of now."""

    owners: dict[str, SimulatedOwner]
    server: StoreServer
    machine_process: Process

    def task_actors(self) -> list[Process]: ...

    def broadcaster_processes(self) -> list[Process]: ...

    def single(self, kind: str) -> Process:
        """The one process of this kind: pool, supervisor, service or streams."""
        ...


class Chaos:
    """Strikes, and sees to it that what was stopped goes on again."""

    def __init__(
        self, world: Victims, faults: Faults, network: Network, note: Callable[[str], None]
    ) -> None:
        self._world = world
        self._faults = faults
        self._network = network
        self._note = note
        self._simple: dict[str, Callable[[], bool]] = {
            "store is away": self._take_store_away,
            "store is slow": self._slow_store_down,
            "clock jumps": self._let_clock_jump,
            "owner dies": lambda: self._kill(self._an_owner()),
            "owner stops": lambda: self._stop(self._an_owner()),
            "owner is thought dead": lambda: self._think_dead(self._an_owner()),
            "owner is cut off from the store": self._cut_off,
            "task actor dies": lambda: self._kill(self._a_task_actor()),
            "task actor stops": lambda: self._stop(self._a_task_actor()),
            "task pool dies": lambda: self._kill(world.single("pool")),
            "supervisor dies": lambda: self._kill(world.single("supervisor")),
            "broadcaster dies": lambda: self._kill(self._one_of(world.broadcaster_processes())),
            "service dies": lambda: self._kill(world.single("service")),
            "streams die": lambda: self._kill(world.single("streams")),
            "half of all dies": lambda: self._kill_many(0.5),
            "everything dies": lambda: self._kill_many(1.0),
        }

    async def strike(self, kind: str) -> None:
        """One kind of fault, again and again until faults are over."""
        while True:
            await pass_time(self._faults.gap_s(kind))
            if self._faults.over:
                return
            if self._simple[kind]():
                self._faults.landed[kind] += 1
                self._note(f"fault: {kind}")

    def stopped(self, process: Process) -> None:
        """A stopped process is often believed to be dead, and always wakes again."""
        self._network.later(self._faults.between(0, _STOPPED_S), process.resume)
        if process.name in self._world.owners and self._faults.whether(0.7):
            self._think_dead(process)

    # -------------------------------------------------------------------------------------------

    def _living_owners(self) -> list[Process]:
        owners = self._world.owners.values()
        return [owner.process for owner in owners if owner.process.alive]

    def _one_of(self, victims: Sequence[Process]) -> Process | None:
        return self._faults.one_of(victims) if victims else None

    def _an_owner(self) -> Process | None:
        return self._one_of(self._living_owners())

    def _a_task_actor(self) -> Process | None:
        return self._one_of(self._world.task_actors())

    def _kill(self, victim: Process | None) -> bool:
        if victim is None or not victim.alive:
            return False
        victim.kill()
        return True

    def _stop(self, victim: Process | None) -> bool:
        if victim is None or not victim.runs:
            return False
        victim.stop()
        self.stopped(victim)
        return True

    def _think_dead(self, victim: Process | None) -> bool:
        if victim is None:
            return False
        self._network.strike_off(victim)
        return True

    def _cut_off(self) -> bool:
        victim = self._an_owner()
        cut_off = self._world.server.cut_off
        if victim is None or victim.name in cut_off:
            return False
        cut_off.add(victim.name)
        self._network.later(self._faults.between(0, _CUT_OFF_S), cut_off.discard, victim.name)
        if self._faults.whether(0.5):
            self._think_dead(victim)
        return True

    def _kill_many(self, share: float) -> bool:
        world = self._world
        kinds = ("pool", "supervisor", "service", "streams")
        everybody = [
            *self._living_owners(),
            *world.task_actors(),
            *(world.single(kind) for kind in kinds),
            *world.broadcaster_processes(),
        ]
        hit = [process for process in everybody if self._faults.whether(share)]
        for process in hit:
            process.died_with_others = True
        return sum(self._kill(process) for process in hit) > 0

    def _let_clock_jump(self) -> bool:
        world = self._world
        victims = [
            *self._living_owners(),
            *world.task_actors(),
            world.single("service"),
            world.single("pool"),
            world.single("supervisor"),
            world.machine_process,
        ]
        victim = self._one_of(victims)
        if victim is None:
            return False
        jump_ms = self._faults.one_of(_JUMPS_MS)
        victim.set_clock(int(self._faults.between(-jump_ms, jump_ms)))
        return True

    def _take_store_away(self) -> bool:
        server = self._world.server
        if server.away:
            return False
        server.away = True
        self._network.later(self._faults.between(0, _AWAY_S), self._bring_store_back)
        return True

    def _bring_store_back(self) -> None:
        self._world.server.away = False

    def _slow_store_down(self) -> bool:
        server = self._world.server
        server.slow_until_s = server.loop.time() + self._faults.between(0, _SLOW_S)
        return True
