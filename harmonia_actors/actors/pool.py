"""The pool actor: a pool host with Ray around it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import ray

from harmonia_actors.actors import pool_limits
from harmonia_actors.actors.asking import asking
from harmonia_actors.actors.capacity import CapacityReader
from harmonia_actors.actors.names import (
    find_actor,
    has_started,
    is_task_actor,
    list_actors,
    new_task_actor_name,
)
from harmonia_actors.actors.self_start import begin_by_itself
from harmonia_actors.actors.task_actor import create_task_actor
from harmonia_actors.core.resources import Capacity
from harmonia_actors.runtime.clock import SystemClock
from harmonia_actors.runtime.logs import log_to_stderr
from harmonia_actors.runtime.orders import QueueKey
from harmonia_actors.runtime.pool_host import Granted, PoolHost
from harmonia_actors.settings import Settings

__all__ = ["RayPooledActor", "TaskPool"]


@dataclass(frozen=True)
class RayPooledActor:
    """A task actor, as the pool sees it."""

    handle: Any

    async def ready(self) -> tuple[str, QueueKey]:
        with asking():
            answer: tuple[str, QueueKey] = await self.handle.ready.remote()
            return answer

    async def watch(self) -> None:
        with asking():
            await self.handle.watch.remote()

    async def settled(self) -> None:
        with asking():
            await self.handle.settled.remote([])

    async def kill(self) -> None:
        with asking():
            ray.kill(self.handle)


class _RayPoolCluster:
    """The Ray cluster, as the pool sees it."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._namespace = settings.namespace
        self._reader = CapacityReader(settings.node_types)

    def new_name(self) -> str:
        return new_task_actor_name(self._namespace)

    def create(self, name: str, key: QueueKey) -> RayPooledActor:
        return RayPooledActor(create_task_actor(name, key, self._settings))

    async def left(self) -> Sequence[tuple[str, RayPooledActor, bool]]:
        return await asyncio.to_thread(self._left)

    def _left(self) -> list[tuple[str, RayPooledActor, bool]]:
        found = []
        for name in list_actors(self._namespace):
            if is_task_actor(name, self._namespace):
                try:
                    handle = find_actor(name, self._namespace)
                except ValueError:
                    continue  # It has died since the names were listed.
                found.append((name, RayPooledActor(handle), has_started(handle)))
        return found

    async def capacity(self) -> Capacity:
        return await asyncio.to_thread(self._reader.read)

    async def watch_holder(self, holder: str) -> None:
        with asking():
            handle = await asyncio.to_thread(find_actor, holder, self._namespace)
            await handle.watch.remote()

    async def recall(self, holder: str, key: QueueKey, count: int) -> None:
        with asking():
            handle = await asyncio.to_thread(find_actor, holder, self._namespace)
            await handle.recall.remote(key, count)


@ray.remote
class TaskPool:
    """All task actors of the installation."""

    def __init__(self, settings: Settings) -> None:
        log_to_stderr(settings.log_level)
        self._host = PoolHost(
            _RayPoolCluster(settings),
            pool_limits.pool_sizes(settings),
            SystemClock().steady(),
            pool_limits.pool_times(settings),
        )
        begin_by_itself()

    async def begin(self) -> None:
        """Find the task actors that there are and start what is missing of the floor."""
        await self._host.begin()

    async def ready(self) -> None:
        """Return when the warm floor has been started."""
        await self._host.ready()

    async def acquire(self, holder: str, key: QueueKey, want: int, request: str) -> Granted:
        """Wait for task actors: (name, node id, handle) of each, or the reason why never."""
        return await self._host.acquire(holder, key, want, request)

    async def withdraw(self, holder: str, request: str) -> None:
        """A holder does not want any more what he has asked for."""
        await self._host.withdraw(holder, request)

    async def release(self, holder: str, given: Sequence[tuple[str, str]]) -> None:
        """A holder gives actors back, each named with the question that it was granted to."""
        await self._host.release(holder, given)

    async def lost(self, name: str) -> None:
        """Somebody could not reach an actor: should it live on unseen, it is ended."""
        await self._host.lost(name)

    async def actors(self) -> list[tuple[str, str, Any]]:
        """All task actors that may run something: name, node id (if known), handle."""
        return await self._host.actors()

    async def capacity(self) -> Capacity:
        """What the cluster has and may add, as last read."""
        return await self._host.capacity()

    async def counts(self) -> dict[str, int]:
        """How many actors there are by state."""
        return await self._host.counts()
