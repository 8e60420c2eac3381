"""The execution actor: a host of executions with Ray around it.

The supervisor imports this too, to start them, so what they are made of is loaded in the
constructor: see `owner_parts`.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NoReturn

import ray
from ray.exceptions import RayError

from harmonia_actors.actors.names import pool_name, supervisor_name
from harmonia_actors.actors.ray_ports import ActorRef, RayLeases
from harmonia_actors.actors.stale import StaleTeller
from harmonia_actors.core.resources import Capacity
from harmonia_actors.runtime.collection import collect_rarely
from harmonia_actors.runtime.ending import Ending
from harmonia_actors.runtime.logs import log_to_stderr
from harmonia_actors.runtime.nodes import WorkspaceNodes
from harmonia_actors.runtime.orders import QueueKey, Report
from harmonia_actors.runtime.start_lines import Ended, News, Start, StartLines
from harmonia_actors.runtime.tenure import NotOwner
from harmonia_actors.settings import Settings

if TYPE_CHECKING:
    from harmonia_actors.runtime.host import ExecutionHost

__all__ = ["ExecutionActor"]

#: An actor that ends gets so long to tell what of it was refused.
_LAST_WORDS_S = 1.0


@ray.remote
class ExecutionActor:
    """Owns executions: one each up to the pool's ceiling, beyond it several."""

    def __init__(self, name: str, settings: Settings) -> None:
        from harmonia_actors.actors.owner_parts import OwnerParts

        log_to_stderr(settings.log_level)
        self._name = name
        self._pool = ActorRef(pool_name(settings.namespace), settings.namespace)
        self._supervisor = ActorRef(supervisor_name(settings.namespace), settings.namespace)
        self._stale = StaleTeller(settings.namespace)
        self._leases = RayLeases(self._pool, name)
        self._nodes = WorkspaceNodes(
            self._leases,
            self._read_capacity,
            shared=settings.workspace_shared,
            per_node=settings.workspace_per_node,
        )
        self._owner_parts = OwnerParts(
            name, settings, self._pool, self._leases, self._nodes, self._stale
        )
        # All that is loaded and made by now is never looked through for garbage.
        collect_rarely()
        self._made: ExecutionHost | None = None
        self._lines = StartLines(self._begin, self._wait_ended, self._nudge)
        self._keeping: asyncio.Task[None] | None = None
        self._background: list[asyncio.Task[Any]] = []

    async def ready(self) -> str:
        """Begin to serve: register as an owner and take what waits. Returns the node's id."""
        host = self._host
        await self._nodes.known()
        loop = asyncio.get_running_loop()
        if self._keeping is None:
            # Before it registers: the answer may be lost for ever, and it be given executions.
            self._keeping = loop.create_task(self._serve_as_owner())
        try:
            await host.register()
        except NotOwner:
            await self._end()
        if not self._background:
            self._background = [
                loop.create_task(host.look_around()),
                loop.create_task(self._nodes.watch()),
            ]
        node_id: str = ray.get_runtime_context().get_node_id()
        return node_id

    async def _serve_as_owner(self) -> None:
        """Keep the lease; an actor that has lost it ends, with all that it still had in mind."""
        await self._host.keep_lease()
        await self._end()

    async def _end(self) -> NoReturn:
        try:
            await self._stale.last_words(_LAST_WORDS_S)
        finally:
            os._exit(1)

    async def watch(self) -> None:
        """Never returns: whoever waits for it learns of this actor's death at once."""
        await asyncio.Event().wait()

    async def exchange(self, replica: str, news: News) -> Sequence[Ended]:
        """A replica tells its news, and hears which executions that it awaits have ended."""
        await self._nodes.known()
        return await self._lines.exchange(replica, news)

    async def pick_up(self) -> int:
        """Take executions that wait for an owner."""
        await self._nodes.known()
        return await self._host.pick_up()

    @ray.method(max_task_retries=-1)
    async def reported(self, reports: Sequence[Report]) -> None:
        """A task actor tells of attempts.

        It waits for no answer, so it is Ray that calls again while this actor lives: the timeout of
        an attempt begins with its start, and what follows it may have to wait for a whole batch.
        """
        self._dispatcher.reported(reports)

    async def recall(self, key: QueueKey, count: int) -> None:
        """The pool wants task actors back when they are idle."""
        self._dispatcher.recall(key, count)

    async def load(self) -> int:
        """How many executions live here."""
        return self._host.load

    # -------------------------------------------------------------------------------------------

    async def _begin(self, start: Start) -> None:
        if start.fields:
            await self._host.start(start.execution_id, start.definition, start.fields)
        else:
            await self._host.claim(start.execution_id)

    async def _nudge(self, execution_id: str) -> None:
        await self._host.nudge(execution_id)

    async def _wait_ended(self, execution_id: str) -> Ending | None:
        return await self._host.wait_ended(execution_id)

    @property
    def _host(self) -> ExecutionHost:
        # Made on the first call: only then is there a running loop.
        if self._made is None:
            self._made = self._make_host()
        return self._made

    def _make_host(self) -> ExecutionHost:
        self._dispatcher, host = self._owner_parts.make(self._tell, self._call_others)
        return host

    async def _call_others(self) -> None:
        # The supervisor knows who they are.
        try:
            (await self._supervisor.get()).wanted.remote()
        except (RayError, ValueError):
            self._supervisor.forget()

    def _tell(self, reports: Sequence[Report]) -> None:
        self._host.tell(reports)

    async def _read_capacity(self) -> Capacity | None:
        try:
            capacity: Capacity = await (await self._pool.get()).capacity.remote()
        except (RayError, ValueError):
            self._pool.forget()
            return None
        return capacity
