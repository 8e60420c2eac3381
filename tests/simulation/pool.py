"""The task pool: the real SlotPool decides; here its effects are performed on simulated actors."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence

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
from tests.simulation.network import Network
from tests.simulation.task_actors import SimulatedTaskActor
from tests.simulation.virtual_loop import Process, pass_time

__all__ = ["SimulatedPool"]

_TICK_S = 0.5
_NOTICED_S = 0.05
CPUS = 3


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
        capacity = Capacity(nodes={"node": {"CPU": float(CPUS), "memory": 8e9}})
        limits = PoolLimits(warm_min=2, actors_max=CPUS + 2, idle_ms=5_000)
        self.slots = SlotPool(limits, "sim", capacity)
        self.actors: dict[str, Process] = {}
        self._ready: set[str] = set()
        self._answers: dict[int, asyncio.Future[list[Process]]] = {}
        self._holders: set[str] = set()

    async def tick(self) -> None:
        """Keep the pool going, for ever."""
        while True:
            self._perform(self.slots.tick(self._now_ms()))
            await pass_time(_TICK_S)

    async def acquire(self, holder: Process, key: QueueKey, want: int) -> Sequence[Process]:
        """Wait for task actors."""
        self._watch_holder(holder)
        ticket, effects = self.slots.ask(holder.name, key, want, self._now_ms())
        answer = self._answers[ticket] = asyncio.get_running_loop().create_future()
        self._perform(effects)
        try:
            return await answer
        finally:
            self._answers.pop(ticket, None)
            self.slots.withdraw(ticket)

    def release(self, holder: str, names: Sequence[str]) -> None:
        """A holder gives actors back."""
        self._perform(self.slots.give_back(holder, list(names), self._now_ms()))

    def lost(self, name: str) -> None:
        """Somebody could not reach an actor: should it live on unseen, it is ended."""
        process = self.actors.get(name)
        if process is not None:
            process.kill()

    def ready_actors(self) -> list[Process]:
        """All that can be asked."""
        return [process for name, process in self.actors.items() if name in self._ready]

    def became_ready(self, name: str) -> None:
        """An actor that was created can be used."""
        if name in self.actors:
            self._ready.add(name)
            self._perform(self.slots.actor_ready(name, "node", self._now_ms()))

    # -------------------------------------------------------------------------------------------

    def _watch_holder(self, holder: Process) -> None:
        if holder.name in self._holders:
            return
        self._holders.add(holder.name)

        def mourn() -> None:
            loop = asyncio.get_running_loop()
            context = self.process.context()
            loop.call_later(_NOTICED_S, self._holder_died, holder.name, context=context)

        holder.when_dead(mourn) if holder.alive else mourn()

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
                case KillActor(name):
                    self.actors[name].kill()
                case Grant(ticket, names):
                    self._answer(ticket, names)
                case Refuse(ticket, reason):
                    raise AssertionError(f"request {ticket} was refused: {reason}")
                case Recall(holder, key, count):
                    self._recall(holder, key, count)

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
