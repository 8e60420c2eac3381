"""The pool actor: performs what the slot pool decides: creates, watches, grants and ends actors."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Sequence
from typing import Any

import ray
from ray.exceptions import RayError

from harmonia_actors.actors import parts
from harmonia_actors.actors.capacity import CapacityReader
from harmonia_actors.actors.names import (
    find_actor,
    is_task_actor,
    list_actors,
    new_task_actor_name,
)
from harmonia_actors.actors.self_start import begin_by_itself
from harmonia_actors.actors.task_actor import create_task_actor
from harmonia_actors.core.resources import Capacity
from harmonia_actors.runtime.clock import SystemClock
from harmonia_actors.runtime.orders import QueueKey
from harmonia_actors.runtime.slots import (
    CreateActor,
    Effect,
    Grant,
    KillActor,
    Recall,
    Refuse,
    SlotPool,
)
from harmonia_actors.settings import Settings

__all__ = ["TaskPool"]

_log = logging.getLogger(__name__)

_TICK_S = 0.5
_CAPACITY_EVERY_TICKS = 4
_READY_S = 5.0
_UNKNOWN_HOLDER = "?"

Granted = tuple[Sequence[tuple[str, str, Any]], str]


@ray.remote
class TaskPool:
    """All task actors of the installation."""

    def __init__(self, settings: Settings) -> None:
        parts.log_to_stderr()
        self._settings = settings
        self._clock = SystemClock()
        self._reader = CapacityReader(settings.node_types)
        self._sizes = parts.pool_sizes(settings)
        self._made: SlotPool | None = None
        self._starting = asyncio.Lock()
        #: Set as soon as no actor of the floor is still starting.
        self._warm = asyncio.Event()
        self._handles: dict[str, Any] = {}
        self._nodes: dict[str, str] = {}
        self._answers: dict[int, asyncio.Future[Granted]] = {}
        self._holders: dict[str, asyncio.Task[None]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        begin_by_itself()

    async def begin(self) -> None:
        """Find the task actors that there are and start what is missing of the floor."""
        await self._pool()

    async def ready(self) -> None:
        """Return when the warm floor has been started."""
        await self._pool()
        await self._warm.wait()

    async def acquire(self, holder: str, key: QueueKey, want: int) -> Granted:
        """Wait for task actors: (name, node id, handle) of each, or the reason why never."""
        pool = await self._pool()
        self._watch_holder(holder)
        ticket, effects = pool.ask(holder, key, want, self._now())
        answer: asyncio.Future[Granted] = asyncio.get_running_loop().create_future()
        self._answers[ticket] = answer
        self._perform(effects)
        try:
            return await answer
        finally:
            self._answers.pop(ticket, None)
            pool.withdraw(ticket)

    async def release(self, holder: str, names: Sequence[str]) -> None:
        """A holder gives actors back."""
        pool = await self._pool()
        self._perform(pool.give_back(holder, list(names), self._now()))

    async def lost(self, name: str) -> None:
        """Somebody could not reach an actor: should it live on unseen, it is ended."""
        handle = self._handles.get(name)
        if handle is not None:
            ray.kill(handle)
        await self._died(name)

    async def actors(self) -> list[tuple[str, str, Any]]:
        """All task actors that are ready: name, node id, handle."""
        await self._pool()
        return [(name, self._nodes[name], self._handles[name]) for name in self._nodes]

    async def capacity(self) -> Capacity:
        """What the cluster has and may add, as last read."""
        return (await self._pool()).capacity

    async def counts(self) -> dict[str, int]:
        """How many actors there are by state."""
        return (await self._pool()).counts()

    # -------------------------------------------------------------------------------------------

    def _now(self) -> int:
        return self._clock.now_ms()

    async def _pool(self) -> SlotPool:
        async with self._starting:
            if self._made is None:
                capacity = await self._read_capacity()
                limits = self._sizes.limits(capacity)
                self._made = SlotPool(limits, capacity, self._new_name)
                await self._adopt(self._made)
                self._perform(self._made.tick(self._now()))
                self._spawn(self._tick_for_ever())
            return self._made

    def _new_name(self) -> str:
        return new_task_actor_name(self._settings.namespace)

    async def _read_capacity(self) -> Capacity:
        return await asyncio.to_thread(self._reader.read)

    async def _adopt(self, pool: SlotPool) -> None:
        """Actors that an earlier incarnation of this one has left.

        Who holds them is not known. Each counts as busy until it has finished what it runs; a
        holder that is alive may send it more meanwhile, which then waits its turn.
        """
        namespace = self._settings.namespace
        for name in await asyncio.to_thread(list_actors, namespace):
            if not is_task_actor(name, namespace):
                continue
            try:
                handle = await asyncio.to_thread(find_actor, name, namespace)
                async with asyncio.timeout(_READY_S):
                    node_id, key = await handle.ready.remote()
            except (RayError, ValueError):
                continue
            except TimeoutError:
                ray.kill(handle)
                continue
            self._handles[name] = handle
            self._nodes[name] = node_id
            pool.adopt(name, key, node_id, "" if key.shared else _UNKNOWN_HOLDER, self._now())
            self._spawn(self._live(name, handle))
            self._spawn(self._free_when_settled(_UNKNOWN_HOLDER, name))

    async def _tick_for_ever(self) -> None:
        ticks = 0
        while True:
            await asyncio.sleep(_TICK_S)
            ticks += 1
            capacity = None
            if ticks % _CAPACITY_EVERY_TICKS == 0:
                with contextlib.suppress(RayError):
                    capacity = await self._read_capacity()
            assert self._made is not None  # noqa: S101 - this loop starts after it was made
            limits = None if capacity is None else self._sizes.limits(capacity)
            self._perform(self._made.tick(self._now(), capacity, limits))

    # Effects -----------------------------------------------------------------------------------

    def _perform(self, effects: Sequence[Effect]) -> None:
        for effect in effects:
            match effect:
                case CreateActor(name, key):
                    self._create(name, key)
                case KillActor(name):
                    self._kill(name)
                case Grant(ticket, names):
                    granted = [(n, self._nodes[n], self._handles[n]) for n in names]
                    self._answer(ticket, (granted, ""))
                case Refuse(ticket, reason):
                    self._spawn(self._refuse(ticket, reason))
                case Recall(holder, key, count):
                    self._spawn(self._recall(holder, key, count))

    def _create(self, name: str, key: QueueKey) -> None:
        handle = create_task_actor(name, key, self._settings)
        self._handles[name] = handle
        self._spawn(self._live(name, handle))

    async def _live(self, name: str, handle: Any) -> None:
        """Follow an actor from its start to its death."""
        try:
            node_id, _ = await handle.ready.remote()
            if self._made is not None and name in self._handles:
                self._nodes[name] = node_id
                self._perform(self._made.actor_ready(name, node_id, self._now()))
                if not self._made.counts()["starting"]:
                    self._warm.set()
            await handle.watch.remote()
        except RayError as error:
            if name in self._handles:
                _log.warning("task actor %s has died: %s", name, str(error).splitlines()[0])
        await self._died(name)

    async def _died(self, name: str) -> None:
        known = self._handles.pop(name, None)
        self._nodes.pop(name, None)
        if known is not None and self._made is not None:
            self._perform(self._made.actor_died(name, self._now()))

    def _kill(self, name: str) -> None:
        handle = self._handles.pop(name, None)
        self._nodes.pop(name, None)
        if handle is not None:
            ray.kill(handle)

    def _answer(self, ticket: int, granted: Granted) -> None:
        answer = self._answers.get(ticket)
        if answer is not None and not answer.done():
            answer.set_result(granted)

    async def _refuse(self, ticket: int, reason: str) -> None:
        self._answer(ticket, ((), reason))

    async def _recall(self, holder: str, key: QueueKey, count: int) -> None:
        with contextlib.suppress(RayError, ValueError):
            namespace = self._settings.namespace
            handle = await asyncio.to_thread(find_actor, holder, namespace)
            await handle.recall.remote(key, count)

    def _watch_holder(self, holder: str) -> None:
        if holder not in self._holders:
            task = asyncio.get_running_loop().create_task(self._holder_life(holder))
            self._holders[holder] = task
            task.add_done_callback(lambda _: self._holders.pop(holder, None) and None)

    async def _holder_life(self, holder: str) -> None:
        """When a holder dies, its actors first finish what they run, then are free."""
        with contextlib.suppress(RayError, ValueError):
            namespace = self._settings.namespace
            handle = await asyncio.to_thread(find_actor, holder, namespace)
            await handle.watch.remote()
        if self._made is None:
            return
        for name in self._made.held_by(holder):
            self._spawn(self._free_when_settled(holder, name))
        self._perform(self._made.forget_requests(holder, self._now()))

    async def _free_when_settled(self, holder: str, name: str) -> None:
        handle = self._handles.get(name)
        if handle is not None and self._made is not None:
            with contextlib.suppress(RayError):
                await handle.settled.remote([])
            self._perform(self._made.give_back(holder, [name], self._now()))

    def _spawn(self, coroutine: Any) -> None:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._spawned_ended)

    def _spawned_ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            _log.error("task pool: %r", task.exception(), exc_info=task.exception())
