"""Makes drivers of executions as the store gives them: reads their records and their workflow.

This module must not know Ray.
"""

from __future__ import annotations

import contextlib
from collections import OrderedDict
from dataclasses import dataclass, field

from harmonia_actors.components.registry import Registry
from harmonia_actors.core import jsontext
from harmonia_actors.core.definition import build_workflow
from harmonia_actors.core.execution import CoreLimits, Execution
from harmonia_actors.core.records import decode_head, decode_row
from harmonia_actors.core.resources import ResourceRequest
from harmonia_actors.runtime.driver import ExecutionDriver, Surroundings
from harmonia_actors.runtime.ending import Written
from harmonia_actors.runtime.inputs import PlannedWorkflow
from harmonia_actors.runtime.node_wait import NodeNeed
from harmonia_actors.runtime.ordering import BlobReader, Ordering, OrderingLimits
from harmonia_actors.runtime.output_cache import OutputCache
from persistence.errors import Missing
from persistence.store import Loaded

__all__ = ["DriverMaker"]

_WORKFLOWS_KEPT = 200


@dataclass
class DriverMaker:
    """What the drivers of one host are made of."""

    owner: str
    surroundings: Surroundings
    blobs: BlobReader
    registry: Registry
    cache: OutputCache
    core_limits: CoreLimits
    ordering_limits: OrderingLimits
    _planned: OrderedDict[str, PlannedWorkflow] = field(default_factory=OrderedDict)

    async def make(self, loaded: Loaded) -> ExecutionDriver:
        """A driver that does not run yet. Raises Missing, UnknownSchema or ValueError."""
        planned = await self._planned_workflow(loaded.definition)
        head = decode_head(loaded.fields["head"])
        need = self._node_need(planned)
        if need is not None and not head.node:
            place = self.surroundings.nodes.choose(loaded.execution_id, need.request)
            if place:
                head.labels["node"] = place
            elif place is not None:
                need = None
        execution = Execution(
            workflow=planned.workflow,
            head=head,
            rows={int(name): decode_row(body) for name, body in loaded.rows.items()},
            seq=loaded.seq,
            limits=self.core_limits,
            joined=planned.joined,
        )
        ordering = Ordering(
            execution=execution,
            planned=planned,
            execution_input=loaded.fields["input"],
            cache=self.cache,
            store=self.surroundings.store,
            blobs=self.blobs,
            nodes=self.surroundings.nodes,
            limits=self.ordering_limits,
        )
        return ExecutionDriver(
            execution=execution,
            ordering=ordering,
            owner=self.owner,
            epoch=loaded.epoch,
            version=loaded.version,
            surroundings=self.surroundings,
            node_need=need,
            written=Written(is_all=(loaded.epoch, loaded.version) == (1, 1) and not loaded.rows),
        )

    def _node_need(self, planned: PlannedWorkflow) -> NodeNeed | None:
        """What uses files, and what the node for all of it must have; None if nothing does."""
        asked: dict[int, ResourceRequest] = {}
        for task in planned.workflow.tasks:
            # One that is not installed any more fails when its turn comes.
            with contextlib.suppress(ValueError):
                if self.registry.action(task.component, task.action).uses_files:
                    asked[task.index] = task.resources
        if not asked:
            return None
        # As the pool will ask for it, so that it finds room on the node that is chosen here.
        request = ResourceRequest.covering(asked.values()).quantised()
        return NodeNeed(frozenset(asked), request)

    async def _planned_workflow(self, digest: str) -> PlannedWorkflow:
        known = self._planned.get(digest)
        if known is not None:
            self._planned.move_to_end(digest)
            return known
        body = await self.surroundings.store.get_definition(digest)
        if body is None:
            raise Missing(f"definition {digest}")
        planned = PlannedWorkflow(build_workflow(jsontext.decode(body)), self.registry)
        self._planned[digest] = planned
        while len(self._planned) > _WORKFLOWS_KEPT:
            self._planned.popitem(last=False)
        return planned
