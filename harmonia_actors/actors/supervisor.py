"""The supervisor actor: keeps execution actors at the right number, and gives orphans an owner.

The janitor runs in it too, beside all else.

It is on no request's path, and everything it knows it can find out again: from Ray who lives, from
the store who owns what. It restarts itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Sequence
from typing import Any

import ray
from ray.exceptions import RayError

from harmonia_actors.actors import parts
from harmonia_actors.actors.execution_actor import ExecutionActor
from harmonia_actors.actors.names import (
    find_actor,
    is_execution_actor,
    list_actors,
    new_execution_actor_name,
)
from harmonia_actors.actors.node_files import ClusterPlaces
from harmonia_actors.actors.self_start import begin_by_itself
from harmonia_actors.runtime.janitor import Janitor
from harmonia_actors.runtime.sizing import OwnerView, SizingLimits, plan_owners
from harmonia_actors.settings import Settings
from persistence.errors import StoreError

__all__ = ["Supervisor"]

_log = logging.getLogger(__name__)

_LOOK_S = 1.0
_ORPHANS_AT_ONCE = 200


@ray.remote
class Supervisor:
    """Watches over execution actors."""

    def __init__(self, settings: Settings) -> None:
        parts.log_to_stderr()
        self._settings = settings
        self._store = parts.connect_store(settings)
        self._handles: dict[str, Any] = {}
        self._starting: set[str] = set()
        self._idle_since_s: dict[str, float] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._looking: asyncio.Task[None] | None = None
        self._cleaning: asyncio.Task[None] | None = None
        self._look_now = asyncio.Event()
        #: Set as soon as the floor serves.
        self._warm = asyncio.Event()
        begin_by_itself()

    async def ready(self) -> None:
        """Begin, and return when the warm execution actors serve."""
        await self.begin()
        await self._warm.wait()

    async def wanted(self) -> None:
        """An execution waits for an owner: look at once."""
        await self.begin()
        self._look_now.set()

    async def begin(self) -> None:
        """Start watching, if that has not been done since the last restart."""
        if self._looking is None or self._looking.done():
            self._looking = asyncio.get_running_loop().create_task(self._look_for_ever())
        if self._cleaning is None or self._cleaning.done():
            self._cleaning = asyncio.get_running_loop().create_task(self._keep_clean())

    async def counts(self) -> dict[str, int]:
        """How many execution actors serve and start."""
        return {"serving": self._serving(), "starting": len(self._starting)}

    def _serving(self) -> int:
        return len(self._handles) - len(self._starting)

    # -------------------------------------------------------------------------------------------

    async def _adopt(self) -> None:
        """Follow every execution actor that Ray knows: also those of an earlier supervisor."""
        namespace = self._settings.namespace
        for name in await asyncio.to_thread(list_actors, namespace):
            if is_execution_actor(name, namespace) and name not in self._handles:
                with contextlib.suppress(ValueError, RayError):
                    handle = await asyncio.to_thread(find_actor, name, namespace)
                    self._follow(name, handle)

    async def _keep_clean(self) -> None:
        # Nothing of this is urgent, and a start is busy enough.
        await self._warm.wait()
        settings = self._settings
        places = ClusterPlaces(settings)
        janitor = Janitor(self._store, places.find, parts.janitor_limits(settings))
        await janitor.keep_clean(settings.janitor_interval_s)

    async def _look_for_ever(self) -> None:
        adopted = False
        while True:
            try:
                if not adopted:
                    await self._adopt()
                    adopted = True
                await self._look()
            except StoreError as error:
                _log.warning("the store does not answer: %s", error)
            except RayError as error:
                _log.warning("Ray does not answer: %s", str(error).splitlines()[0])
            except Exception:
                # Without this loop nothing that is orphaned would ever run again.
                _log.exception("a look at the execution actors failed")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_S):
                    await self._look_now.wait()
            self._look_now.clear()

    async def _look(self) -> None:
        owners = await self._store.owners()
        waiting = await self._store.waiting_executions()
        now_s = asyncio.get_running_loop().time()
        known = {owner.owner: owner for owner in owners}
        for name in list(self._idle_since_s):
            if name not in known or known[name].load:
                del self._idle_since_s[name]
        for owner in owners:
            if owner.load == 0:
                self._idle_since_s.setdefault(owner.owner, now_s)
        gone = await self._gone([o.owner for o in owners if o.owner not in self._handles])
        view = [
            OwnerView(
                owner.owner,
                owner.load,
                alive=owner.owner in self._handles,
                expired=owner.expired or owner.owner in gone,
                idle_s=now_s - self._idle_since_s.get(owner.owner, now_s),
            )
            for owner in owners
        ]
        plan = plan_owners(
            view,
            waiting=waiting,
            starting=len(self._starting),
            serving=self._serving(),
            limits=SizingLimits(
                least=self._settings.execution_actors_min,
                most=self._settings.execution_actors_max,
            ),
        )
        for name in plan.orphan:
            await self._orphan(name)
        for name in plan.retire:
            await self._retire(name)
        for _ in range(plan.create):
            self._create()
        if plan.pick_up:
            await self._tell_all_to_pick_up()

    async def _gone(self, strangers: Sequence[str]) -> set[str]:
        """Owners that no actor of this cluster bears the name of: they need not be waited for.

        They died while no supervisor watched, or with an earlier cluster. One that lives after all
        loses nothing: whatever it still writes is refused, and its executions are taken over.
        """
        if not strangers:
            return set()
        await self._adopt()
        return set(strangers).difference(self._handles)

    def _create(self) -> None:
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
        self._follow(name, handle)

    def _follow(self, name: str, handle: Any) -> None:
        self._handles[name] = handle
        self._starting.add(name)
        task = asyncio.get_running_loop().create_task(self._live(name, handle))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _live(self, name: str, handle: Any) -> None:
        """Follow an execution actor from its start to its death, and then free what it owned."""
        try:
            await handle.ready.remote()
            self._starting.discard(name)
            if self._serving() >= self._settings.execution_actors_min:
                self._warm.set()
            await handle.pick_up.remote()
            await handle.watch.remote()
        except RayError as error:
            _log.warning("execution actor %s has died: %s", name, str(error).splitlines()[0])
        expected = self._handles.pop(name, None) is None
        started = name not in self._starting
        self._starting.discard(name)
        if not expected:
            await self._orphan_patiently(name)
        if started:
            # One that could not even start is tried again at the usual pace.
            self._look_now.set()

    async def _orphan_patiently(self, name: str) -> None:
        while True:
            try:
                await self._orphan(name)
            except StoreError:
                await asyncio.sleep(_LOOK_S)
            else:
                return

    async def _orphan(self, name: str) -> None:
        moved = 0
        while count := await self._store.orphan(name, limit=_ORPHANS_AT_ONCE):
            moved += count
        if moved:
            _log.warning("%d executions of %s wait for another owner", moved, name)
            await self._tell_all_to_pick_up()

    async def _tell_all_to_pick_up(self) -> None:
        for handle in list(self._handles.values()):
            # Not awaited: an actor that starts will look by itself, one that died is noticed.
            handle.pick_up.remote()

    async def _retire(self, name: str) -> None:
        if await self._store.retire_owner(name):
            handle = self._handles.pop(name, None)
            if handle is not None:
                ray.kill(handle)
