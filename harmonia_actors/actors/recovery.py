"""Asks all task actors what they know of an execution whose owner has changed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Any

from ray.exceptions import RayError

from harmonia_actors.actors.ray_ports import ActorRef, RayLease, RayTaskActor
from harmonia_actors.core.stimuli import Stimulus
from harmonia_actors.runtime.dispatch import Dispatcher
from harmonia_actors.runtime.host import Census
from harmonia_actors.runtime.orders import AttemptId, Report

__all__ = ["RayCensus"]

_log = logging.getLogger(__name__)

_ANSWER_S = 5.0
_AGAIN_S = 0.2
#: A pool that was killed has a new process and knows its actors again long before this.
_POOL_S_MAX = 60.0


class RayCensus:
    """Takes the census through the pool, which knows all task actors."""

    def __init__(self, pool: ActorRef, owner: str) -> None:
        self._pool = pool
        self._owner = owner
        #: Set once the dispatcher exists: adopted attempts are handed to it.
        self.dispatcher: Dispatcher | None = None

    async def take(self, execution_id: str, epoch: int) -> Census:
        """Raise the epoch in every task actor and adopt what they run."""
        adopted: set[tuple[int, int]] = set()
        outcomes: list[Stimulus] = []
        actors = await self._task_actors(execution_id)
        answers = await asyncio.gather(
            *(self._ask(handle, execution_id, epoch) for _, _, handle in actors)
        )
        for (name, node_id, handle), (running, ended) in zip(actors, answers, strict=True):
            for report in ended:
                adopted.add((report.stimulus.task, report.stimulus.attempt))
                outcomes.append(report.stimulus)
            if running and self.dispatcher is not None:
                adopted.update((task, attempt) for _, task, attempt in running)
                lease = RayLease(RayTaskActor(name, node_id, handle, self._owner))
                self.dispatcher.adopt(lease, running)
        return Census(frozenset(adopted), outcomes)

    async def _task_actors(self, execution_id: str) -> Sequence[tuple[str, str, Any]]:
        """Name, node and handle of each, from the pool; patient while it is being restarted.

        Not to ask would be to take all that runs for lost, and to run it twice.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + _POOL_S_MAX
        while True:
            try:
                async with asyncio.timeout_at(deadline):
                    pool = await self._pool.get()
                    actors: Sequence[tuple[str, str, Any]] = await pool.actors.remote()
                    return actors
            except (RayError, ValueError, TimeoutError) as error:
                self._pool.forget()
                if loop.time() + _AGAIN_S >= deadline:
                    _log.warning(
                        "census of %s: the task pool does not answer: %r", execution_id, error
                    )
                    return ()
            await asyncio.sleep(_AGAIN_S)

    async def _ask(
        self, handle: Any, execution_id: str, epoch: int
    ) -> tuple[list[AttemptId], list[Report]]:
        try:
            async with asyncio.timeout(_ANSWER_S):
                answer: tuple[list[AttemptId], list[Report]] = await handle.census.remote(
                    execution_id, epoch, self._owner
                )
                return answer
        except (RayError, TimeoutError):
            return [], []
