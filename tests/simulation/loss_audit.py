"""Judges that an attempt is given up only together with who had it, and that no two run at a time.

What is told as lost is run again, so it must not run any more, or its task actor must be on the way
to its end: dead, or named to the task pool as lost by somebody who did not reach it.

This module must not know how the engine finds out what is lost.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from harmonia_actors.core import events as ev
from harmonia_actors.core.stimuli import WORKER_LOST
from harmonia_actors.runtime.orders import AttemptId, AttemptOrder
from tests.simulation.task_actors import SimulatedTaskActor

__all__ = ["LossAuditor"]

TaskId = tuple[str, int]


class LossAuditor:
    """Knows what has run where."""

    def __init__(self, given_up: Collection[str]) -> None:
        """`given_up`: names of task actors that are to die, whether they are dead or not."""
        self._given_up = given_up
        self._begun_on: dict[AttemptId, SimulatedTaskActor] = {}
        #: What runs of each task, as far as its process lives.
        self._running: dict[TaskId, dict[AttemptId, SimulatedTaskActor]] = {}

    def begun(self, actor: SimulatedTaskActor, order: AttemptOrder, epoch: int) -> Iterator[str]:
        """An attempt begins, while this is its execution's epoch. Yields what is wrong.

        An owner that is only thought dead may still give out what it had decided, to a task actor
        that has come since its successor asked: nobody can know better there. That whoever was
        asked refuses it, is judged elsewhere.
        """
        self._begun_on[order.id] = actor
        if order.epoch < epoch:
            return
        running = self._running.setdefault((order.execution_id, order.task), {})
        for other, where in running.items():
            if self._is_there(where):
                yield f"{order.id} begins while {other} runs on {where.name}"
        running[order.id] = actor

    def ended(self, order: AttemptOrder) -> None:
        """An attempt has ended in a process that lives."""
        self._running.get((order.execution_id, order.task), {}).pop(order.id, None)

    def told(self, execution_id: str, raw: Mapping[str, Any]) -> Iterator[str]:
        """An event is stored. Yields what is wrong."""
        data = raw["data"]
        if raw["type"] != ev.TaskFailed.type or data["error_details"]["code"] != WORKER_LOST:
            return
        attempt = (execution_id, int(data["task_index"]), int(data["attempt"]))
        actor = self._begun_on.get(attempt)
        if actor is None:
            # Of one that never ran only the last loss is told.
            if data["will_retry"]:
                yield f"{attempt} is told as lost, and has never begun"
        elif self._is_there(actor):
            yield f"{attempt} is told as lost ({data['error']}), but {actor.name} lives"

    def _is_there(self, actor: SimulatedTaskActor) -> bool:
        return actor.process.alive and actor.name not in self._given_up
