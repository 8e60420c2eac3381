"""The supervisor actor: supervision with Ray around it. The janitor runs in it too.

It is on no request's path, and restarts itself.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import RayError

from harmonia_actors.actors import supervisor_limits
from harmonia_actors.actors.asking import asking
from harmonia_actors.actors.execution_actor import ExecutionActor
from harmonia_actors.actors.names import (
    find_actor,
    is_execution_actor,
    list_actors,
    new_execution_actor_name,
)
from harmonia_actors.actors.node_files import ClusterPlaces
from harmonia_actors.actors.self_start import begin_by_itself
from harmonia_actors.actors.store_parts import connect_store
from harmonia_actors.runtime.janitor import Janitor
from harmonia_actors.runtime.logs import log_to_stderr
from harmonia_actors.runtime.silence import NotFound
from harmonia_actors.runtime.stale import STALE, Stale
from harmonia_actors.runtime.supervision import Supervision
from harmonia_actors.settings import Settings

__all__ = ["Supervisor"]


@dataclass
class _RayOwnerActor:
    """An execution actor, as its supervisor sees it."""

    handle: Any
    node_id: str = ""

    async def ready(self) -> None:
        with asking():
            self.node_id = await self.handle.ready.remote()

    async def watch(self) -> None:
        with asking():
            await self.handle.watch.remote()

    def pick_up(self) -> None:
        with contextlib.suppress(RayError):
            self.handle.pick_up.remote()

    async def kill(self) -> None:
        with asking():
            ray.kill(self.handle)

    async def has_lost_its_node(self) -> bool:
        with asking():
            nodes = await asyncio.to_thread(ray.nodes)
        alive = {node["NodeID"] for node in nodes if node["Alive"]}
        return bool(self.node_id) and self.node_id not in alive


class _RayOwnerCluster:
    """The Ray cluster, as the supervisor sees it."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    async def left(self) -> Sequence[tuple[str, _RayOwnerActor]]:
        return await asyncio.to_thread(self._left)

    def _left(self) -> list[tuple[str, _RayOwnerActor]]:
        namespace = self._settings.namespace
        found = []
        with asking():
            names = list_actors(namespace)
        for name in names:
            if is_execution_actor(name, namespace):
                # One may have died since the names were listed.
                with contextlib.suppress(NotFound), asking():
                    found.append((name, _RayOwnerActor(find_actor(name, namespace))))
        return found

    def create(self) -> tuple[str, _RayOwnerActor]:
        settings = self._settings
        name = new_execution_actor_name(settings.namespace)
        handle = ExecutionActor.options(  # type: ignore[attr-defined]
            name=name,
            namespace=settings.namespace,
            lifetime="detached",
            num_cpus=0,
            max_restarts=0,
            max_concurrency=10_000,
            enable_task_events=False,
        ).remote(name, settings)
        return name, _RayOwnerActor(handle)


@ray.remote
class Supervisor:
    """Watches over execution actors."""

    def __init__(self, settings: Settings) -> None:
        log_to_stderr(settings.log_level)
        self._settings = settings
        self._store = connect_store(settings)
        self._stale: Counter[Stale] = Counter(dict.fromkeys(STALE, 0))
        self._cleaning: asyncio.Task[None] | None = None
        self._supervision = Supervision(
            _RayOwnerCluster(settings),
            self._store,
            supervisor_limits.sizing_limits(settings),
            supervisor_limits.supervision_times(settings),
        )
        begin_by_itself()

    async def ready(self) -> None:
        """Begin, and return when the warm execution actors serve."""
        await self.begin()
        await self._supervision.ready()

    async def wanted(self) -> None:
        """An execution waits for an owner: look at once."""
        await self.begin()
        await self._supervision.wanted()

    async def begin(self) -> None:
        """Start watching, if that has not been done since the last restart."""
        await self._supervision.begin()
        if self._cleaning is None or self._cleaning.done():
            self._cleaning = asyncio.get_running_loop().create_task(self._keep_clean())

    async def counts(self) -> dict[str, int]:
        """How many execution actors serve, start, and are hung; and what did not count."""
        stale = {f"stale_{what}": count for what, count in self._stale.items()}
        return {**await self._supervision.counts(), **stale}

    async def note_stale(self, counts: Mapping[Stale, int]) -> None:
        """So much came from those who were succeeded, or too late."""
        self._stale.update(counts)

    async def _keep_clean(self) -> None:
        # Nothing of this is urgent, and a start is busy enough.
        await self._supervision.ready()
        settings = self._settings
        places = ClusterPlaces(settings)
        janitor = Janitor(self._store, places.find, supervisor_limits.janitor_limits(settings))
        await janitor.keep_clean(settings.janitor_interval_s)
