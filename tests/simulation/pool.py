"""The task pool: the real SlotPool decides; here its effects are performed on simulated actors."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence

from harmonia_actors.core.resources import Capacity
from harmonia_actors.runtime.orders import QueueKey
from harmonia_actors.runtime.ports import TaskActorDied
from harmonia_actors.runtime.slots import (
    CreateActor,
    Effect,
    Grant,
    KillActor,
    PoolLimits,
    Recall,
    Refuse,
    SlotPool,
)
from tests.simulation.machine import CPUS
from tests.simulation.network import Network
from tests.simulation.task_actors import SimulatedTaskActor
from tests.simulation.virtual_loop import Process, pass_time

__all__ = ["SimulatedPool"]

_TICK_S = 0.5
_READY_S = 5.0
_NOTICED_S = 0.05
_UNKNOWN_HOLDER = "?"


class SimulatedPool:
    """All task actors, and who holds which. Its methods are called in its process."""

    def __init__(
        self,
        process: Process,
        network: Network,
        start: Callable[[str, QueueKey], Process],
        recall: Callable[[str, QueueKey, int], None],
        now_ms: Callable[[], int],
    ) -> None:
        self.process = process
        self._network = network
        self._start = start
        self._recall = recall
        self._now_ms = now_ms
        self.capacity = Capacity(nodes={"node": {"CPU": float(CPUS), "memory": 8e9}})
        limits = PoolLimits(warm_min=2, actors_max=CPUS + 2, idle_ms=5_000)
        self.slots = SlotPool(limits, "sim", self.capacity)
        self._begun = asyncio.Event()
        self.actors: dict[str, Process] = {}
        self._ready: set[str] = set()
        self._answers: dict[int, asyncio.Future[list[Process]]] = {}
        self._holders: set[str] = set()

    async def begin(self, living: Mapping[str, Process]) -> None:
        """Find the actors that an earlier pool has left, then keep the pool going, for ever."""
        there = [process for process in living.values() if process.alive]
        self.slots.names_taken(process.name for process in there)
        await asyncio.gather(*map(self._adopt, there))
        self._begun.set()
        while True:
            self._perform(self.slots.tick(self._now_ms()))
            await pass_time(_TICK_S)

    async def acquire(self, holder: Process, key: QueueKey, want: int) -> Sequence[Process]:
        """Wait for task actors."""
        await self._begun.wait()
        self._watch_holder(holder)
        ticket, effects = self.slots.ask(holder.name, key, want, self._now_ms())
        answer = self._answers[ticket] = asyncio.get_running_loop().create_future()
        self._perform(effects)
        try:
            return await answer
        finally:
            self._answers.pop(ticket, None)
            self.slots.withdraw(ticket)

    async def release(self, holder: str, names: Sequence[str]) -> None:
        """A holder gives actors back."""
        await self._begun.wait()
        self._perform(self.slots.give_back(holder, list(names), self._now_ms()))

    def lost(self, name: str) -> None:
        """Somebody could not reach an actor: should it live on unseen, it is ended."""
        process = self.actors.get(name)
        if process is not None:
            process.kill()

    async def ready_actors(self) -> list[Process]:
        """All that can be asked."""
        await self._begun.wait()
        return [process for name, process in self.actors.items() if name in self._ready]

    # -------------------------------------------------------------------------------------------

    async def _adopt(self, process: Process) -> None:
        """It counts as busy until it has finished what it runs: who holds it is not known."""
        actor: SimulatedTaskActor = process.inhabitant
        try:
            async with asyncio.timeout(_READY_S):
                await self._network.call(self.process, process, "ready", actor.ready)
        except TaskActorDied:
            return
        except TimeoutError:
            process.kill()
            return
        name, key = actor.name, actor.key
        self.actors[name] = process
        self._ready.add(name)
        process.when_dead(lambda: self._mourn(name))
        self.slots.adopt(name, key, "node", _UNKNOWN_HOLDER, self._now_ms())
        self.process.spawn(self._free_when_settled(_UNKNOWN_HOLDER, name))

    def _watch_holder(self, holder: Process) -> None:
        if holder.name in self._holders:
            return
        self._holders.add(holder.name)

        def mourn() -> None:
            loop = asyncio.get_running_loop()
            context = self.process.context()
            loop.call_later(_NOTICED_S, self._holder_died, holder.name, context=context)

        holder.when_dead(mourn)

    def _holder_died(self, holder: str) -> None:
        """What it held finishes what it runs, then is free."""
        self._holders.discard(holder)
        for name in self.slots.held_by(holder):
            self.process.spawn(self._free_when_settled(holder, name))
        self._perform(self.slots.forget_requests(holder, self._now_ms()))

    async def _free_when_settled(self, holder: str, name: str) -> None:
        process = self.actors.get(name)
        if process is not None:
            actor: SimulatedTaskActor = process.inhabitant
            with contextlib.suppress(TaskActorDied):
                await self._network.call(self.process, process, "run", actor.settled, [])
            self._perform(self.slots.give_back(holder, [name], self._now_ms()))

    def _perform(self, effects: Sequence[Effect]) -> None:
        for effect in effects:
            match effect:
                case CreateActor(name, key):
                    process = self.actors[name] = self._start(name, key)
                    process.when_dead(lambda name=name: self._mourn(name))
                    self.process.spawn(self._follow(name, process))
                case KillActor(name):
                    self._kill(name)
                case Grant(ticket, names):
                    self._answer(ticket, names)
                case Refuse(ticket, reason):
                    raise AssertionError(f"request {ticket} was refused: {reason}")
                case Recall(holder, key, count):
                    self._recall(holder, key, count)

    async def _follow(self, name: str, process: Process) -> None:
        actor: SimulatedTaskActor = process.inhabitant
        with contextlib.suppress(TaskActorDied):
            await self._network.call(self.process, process, "ready", actor.ready)
            if name in self.actors:
                self._ready.add(name)
                self._perform(self.slots.actor_ready(name, "node", self._now_ms()))

    def _kill(self, name: str) -> None:
        process = self.actors.pop(name, None)
        self._ready.discard(name)
        if process is not None:
            process.kill()

    def _mourn(self, name: str) -> None:
        loop = asyncio.get_running_loop()
        loop.call_later(_NOTICED_S, self._died, name, context=self.process.context())

    def _died(self, name: str) -> None:
        if self.actors.pop(name, None) is not None:
            self._ready.discard(name)
            self._perform(self.slots.actor_died(name, self._now_ms()))

    def _answer(self, ticket: int, names: tuple[str, ...]) -> None:
        answer = self._answers.get(ticket)
        if answer is not None and not answer.done():
            answer.set_result([self.actors[name] for name in names])
