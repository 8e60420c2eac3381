"""Asks all task actors what they know of executions whose owner has changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from harmonia_actors.actors.asking import asking
from harmonia_actors.actors.ray_ports import ActorRef, RayLease, RayTaskActor
from harmonia_actors.core.stimuli import Stimulus
from harmonia_actors.runtime.census import Census, CensusTaker, CensusTimes
from harmonia_actors.runtime.dispatch import Dispatcher
from harmonia_actors.runtime.orders import Found
from harmonia_actors.runtime.silence import Gone, NotFound, Silent

__all__ = ["RayAskedActor", "RayCensus"]


@dataclass(frozen=True)
class RayAskedActor:
    """A task actor, as the census sees it."""

    name: str
    node_id: str
    handle: Any

    async def census(self, asked: Sequence[tuple[str, int]], owner: str) -> Found:
        with asking():
            found: Found = await self.handle.census.remote(list(asked), owner)
            return found


class _RayCensusCluster:
    """The pool, which knows all task actors. It comes back whenever it dies."""

    def __init__(self, pool: ActorRef) -> None:
        self._pool = pool

    async def actors(self) -> Sequence[RayAskedActor]:
        return [RayAskedActor(*each) for each in await self._call("actors")]

    async def lost(self, name: str) -> None:
        await self._call("lost", name)

    async def _call(self, method: str, *arguments: Any) -> Any:
        try:
            with asking():
                pool = await self._pool.get()
                return await getattr(pool, method).remote(*arguments)
        except (Gone, NotFound, Silent) as error:
            self._pool.forget()
            raise Silent(str(error)) from error


class RayCensus:
    """Takes the census, and hands attempts that run to the dispatcher."""

    def __init__(self, pool: ActorRef, owner: str, times: CensusTimes) -> None:
        self._owner = owner
        self._taker = CensusTaker(_RayCensusCluster(pool), owner, times)
        #: Set once the dispatcher exists: adopted attempts are handed to it.
        self.dispatcher: Dispatcher | None = None

    async def take(self, execution_id: str, epoch: int) -> Census:
        """Raise the epoch in every task actor and adopt what they run.

        Many may be taken at a time: each task actor is then asked in one call for all of them.
        """
        adopted: set[tuple[int, int]] = set()
        outcomes: list[Stimulus] = []
        for actor, running, ended in await self._taker.take(execution_id, epoch):
            for report in ended:
                adopted.add((report.stimulus.task, report.stimulus.attempt))
                outcomes.append(report.stimulus)
            if running and self.dispatcher is not None:
                adopted.update((task, attempt) for _, task, attempt in running)
                port = RayTaskActor(actor.name, actor.node_id, actor.handle, self._owner)
                self.dispatcher.adopt(RayLease(port), running)
        return Census(frozenset(adopted), outcomes)
