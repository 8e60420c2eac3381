"""Nodes for the files of executions, where nodes share no directory.

A node is chosen among those that are there. If none of them has what the tasks with files ask for,
but one of a type that the autoscaler may add would, it is waited for: a task actor of that class
is asked of the pool, because actors that cannot start are the demand that an autoscaler sees. The
answer is any node that the pool knows and that has it, whoever has brought it.
This module must not know Ray.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import zlib
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from harmonia_actors.core.resources import Capacity, ResourceRequest
from harmonia_actors.runtime.orders import QueueKey
from harmonia_actors.runtime.ports import Lease, LeaseSource, Unplaceable

__all__ = ["AnyNode", "WorkspaceNodes"]

_log = logging.getLogger(__name__)

_EVERY_S = 5.0
#: Looks for the node of an actor that has started. Should it be gone by then, another is asked for.
_LOOKS_MAX = 20
#: A node that runs tasks has a CPU; the head of a cluster may have none.
_ANY_CPU = ResourceRequest(num_cpus=0.0001)


class AnyNode:
    """All nodes share the directory, or there is only one."""

    def choose(self, execution_id: str, request: ResourceRequest) -> str | None:  # noqa: ARG002 - the port's
        """Any will do."""
        return ""

    async def wait_for(self, execution_id: str, request: ResourceRequest) -> str:  # noqa: ARG002 - the port's
        """Nobody waits."""
        return ""

    def now(self, place: str) -> str:  # noqa: ARG002 - the port's
        """Any will do."""
        return ""

    def is_gone(self, place: str) -> bool:  # noqa: ARG002 - the port's
        """Another will do."""
        return False


class WorkspaceNodes:
    """Chooses by what the cluster has and may get, as the pool last read it."""

    def __init__(
        self,
        leases: LeaseSource[Any],
        read: Callable[[], Awaitable[Capacity | None]],
        *,
        shared: bool = False,
        per_node: bool = False,
        again_s: float = 0.5,
        every_s: float = _EVERY_S,
    ) -> None:
        """`read` gives the capacity, or None if it cannot be had now; `shared`: as AnyNode.

        `per_node`: nodes with one address have directories of their own, so that none can stand in
        for another. `again_s` is the time between two looks while something waits, `every_s` that
        at all times.
        """
        self._leases = leases
        self._read = read
        self._shared = shared
        self._per_node = per_node
        self._again_s = again_s
        self._every_s = every_s
        self._capacity = Capacity(complete=False)
        self._changed = asyncio.Condition()

    def choose(self, execution_id: str, request: ResourceRequest) -> str | None:
        """A node that is there, "" if any will do, or None if one that fits may come."""
        if self._shared:
            return ""
        nodes = self._capacity.nodes_for([request])
        if not nodes and self._capacity.can_ever_meet(request):
            return None
        # Where no node can ever have it all, whatever a task then lacks is said at its turn.
        nodes = nodes or self._capacity.nodes_for([_ANY_CPU])
        if not nodes:
            return ""
        chosen = nodes[zlib.crc32(execution_id.encode()) % len(nodes)]
        return chosen if self._per_node else self._capacity.place_of(chosen)

    def now(self, place: str) -> str:
        """The node at a place; one that is gone keeps its id, and whoever asks for it is told."""
        if self._shared or not place:
            return ""
        return self._capacity.node_at(place) or place.partition("@")[0]

    def is_gone(self, place: str) -> bool:
        """By what was last read; before that, nothing is."""
        known = not self._shared and bool(self._capacity.nodes)
        return known and bool(place) and self._capacity.node_at(place) is None

    async def wait_for(self, execution_id: str, request: ResourceRequest) -> str:
        """Wait for a node that fits, and want it until it is there."""
        async with asyncio.TaskGroup() as group:
            wanting = group.create_task(self._want(QueueKey(request)))
            async with self._changed:
                while not (found := self.choose(execution_id, request)):
                    await self._changed.wait()
            wanting.cancel()
        return found

    async def known(self) -> None:
        """Wait for the first node. No execution begins before: it could not be said what fits."""
        while not self._shared and not self._capacity.nodes_for([_ANY_CPU]):
            await self.look()
            if not self._capacity.nodes_for([_ANY_CPU]):
                await asyncio.sleep(self._again_s)

    async def watch(self) -> None:
        """Look again and again, for ever."""
        while True:
            await asyncio.sleep(self._every_s)
            try:
                await self.look()
            except Exception:
                # Without this loop whatever is chosen from here on may be gone.
                _log.exception("a look at the nodes failed")

    async def look(self) -> None:
        """Read what the cluster has now; while that cannot be had, what was known counts."""
        capacity = await self._read()
        if capacity is not None and capacity != self._capacity:
            self._capacity = capacity
            async with self._changed:
                self._changed.notify_all()

    async def _want(self, key: QueueKey) -> None:
        while True:
            leases: Sequence[Lease] = ()
            # If there can never be one, what may come has changed: the next look says so.
            with contextlib.suppress(Unplaceable):
                leases = await self._leases.acquire(key, 1)
            try:
                # The pool knows an actor before its node. It is held until then, because an
                # autoscaler may take away a node that nobody uses.
                for _ in range(_LOOKS_MAX):
                    await asyncio.sleep(self._again_s)
                    await self.look()
            finally:
                if leases:
                    self._leases.release(leases)
