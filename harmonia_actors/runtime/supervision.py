"""Keeps owners at the right number, and gives orphans an owner: what the supervisor is inside.

Everything it knows it can find out again: from the cluster who lives, from the store who owns
what. An owner is succeeded once it is dead, or once it lives and does nothing any more; one that
only cannot be reached is asked again, and ended before it is succeeded.
This module must not know Ray.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from harmonia_actors.runtime.background import BackgroundTasks
from harmonia_actors.runtime.silence import Gone, Patience, Silent, ask, foreseen
from harmonia_actors.runtime.sizing import LeaseWatch, OwnerView, SizingLimits, plan_owners
from persistence.errors import StoreError
from persistence.store import OwnerLoad, Store

__all__ = ["OwnerActor", "OwnerCluster", "Supervision", "SupervisionTimes"]

_log = logging.getLogger(__name__)

_ORPHANS_AT_ONCE = 200


class OwnerActor(Protocol):
    """One execution actor, as its supervisor sees it. Calls raise what `silence` knows."""

    async def ready(self) -> None:
        """Return once it serves, registered with the store."""
        ...

    async def watch(self) -> None:
        """Never returns."""
        ...

    def pick_up(self) -> None:
        """Tell it that executions wait; nobody waits for it."""
        ...

    async def kill(self) -> None:
        """End it; one that is dead already is no error."""
        ...

    async def has_lost_its_node(self) -> bool:
        """Of one that died: whether the machine below it did. Raises Silent."""
        ...


class OwnerCluster(Protocol):
    """The cluster, as the supervisor sees it."""

    async def left(self) -> Sequence[tuple[str, OwnerActor]]:
        """All execution actors that live. Raises Silent."""
        ...

    def create(self) -> tuple[str, OwnerActor]:
        """Begin to start one, under a name that none has had."""
        ...


@dataclass(frozen=True, slots=True)
class SupervisionTimes:
    """How often the supervisor looks, and how patient it is."""

    patience: Patience
    lease_ms: int
    look_s: float = 1.0
    #: Looks further apart say nothing of the time between.
    gap_s_max: float = 5.0


class Supervision:
    """Watches over the owners of an installation."""

    def __init__(
        self, cluster: OwnerCluster, store: Store, limits: SizingLimits, times: SupervisionTimes
    ) -> None:
        self._cluster = cluster
        self._store = store
        self._limits = limits
        self._times = times
        self._leases = LeaseWatch(times.lease_ms / 2000, times.gap_s_max)
        self._actors: dict[str, OwnerActor] = {}
        self._starting: set[str] = set()
        #: Those of an earlier supervisor that have not answered this one.
        self._unheard: set[str] = set()
        #: Those that have died and are just being succeeded, by whoever knows what they died of.
        self._succeeded: set[str] = set()
        self._idle_since_s: dict[str, float] = {}
        self._has_adopted = False
        self._background = BackgroundTasks(_log_unexpected)
        self._looking: asyncio.Task[None] | None = None
        self._look_now = asyncio.Event()
        #: Set as soon as the floor serves.
        self._warm = asyncio.Event()

    async def begin(self) -> None:
        """Start watching, if that has not been done."""
        if self._looking is None or self._looking.done():
            self._looking = asyncio.get_running_loop().create_task(self._look_for_ever())

    async def ready(self) -> None:
        """Begin, and return when the warm owners serve."""
        await self.begin()
        await self._warm.wait()

    async def wanted(self) -> None:
        """An execution waits for an owner: look at once."""
        await self.begin()
        self._look_now.set()

    async def counts(self) -> dict[str, int]:
        """How many owners serve, start, and are hung."""
        hung = self._leases.hung & self._actors.keys()
        return {
            "serving": len(self._actors.keys() - self._starting - hung),
            "starting": len(self._starting - hung),
            "hung": len(hung),
        }

    async def close(self) -> None:
        """Watch nobody any more."""
        looking = [self._looking] if self._looking else []
        for task in looking:
            task.cancel()
        await asyncio.gather(*looking, self._background.close(), return_exceptions=True)

    # -------------------------------------------------------------------------------------------

    async def _look_for_ever(self) -> None:
        while True:
            try:
                if not self._has_adopted:
                    await self._adopt()
                await self._look()
            except (StoreError, Silent) as error:
                self._leases.failed()
                _log.warning("a look at the execution actors failed: %s", error)
            except Exception:
                # Without this loop nothing that is orphaned would ever run again.
                self._leases.failed()
                _log.exception("a look at the execution actors failed")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._times.look_s):
                    await self._look_now.wait()
            self._look_now.clear()

    async def _adopt(self) -> None:
        """Follow every execution actor that lives: also those of an earlier supervisor."""
        for name, actor in await self._cluster.left():
            if name not in self._actors:
                self._unheard.add(name)
                self._follow(name, actor)
        self._has_adopted = True

    async def _look(self) -> None:
        owners = await self._store.owners(lease_ms=self._times.lease_ms)
        waiting = await self._store.waiting_executions()
        now_s = asyncio.get_running_loop().time()
        self._note_idle(owners, now_s)
        gone = await self._gone([o.owner for o in owners if o.owner not in self._actors])
        # A look knows less of their deaths, and must not be first.
        owners = [owner for owner in owners if owner.owner not in self._succeeded]
        # One that hung under an earlier supervisor has no lease that could run out any more.
        leases = dict.fromkeys(self._unheard, True)
        leases |= {o.owner: o.expired for o in owners if o.owner in self._actors}
        hung = self._leases.looked(leases, now_s)
        view = [
            OwnerView(
                owner.owner,
                owner.load,
                alive=owner.owner in self._actors,
                expired=owner.expired or owner.owner in gone,
                idle_s=now_s - self._idle_since_s.get(owner.owner, now_s),
                hung=owner.owner in hung,
            )
            for owner in owners
        ]
        counts = await self.counts()
        plan = plan_owners(
            view,
            waiting=waiting,
            starting=counts["starting"],
            serving=counts["serving"],
            limits=self._limits,
        )
        for name in plan.orphan:
            if name in hung:
                _log.warning("execution actor %s lives, but does nothing: it is succeeded", name)
            # What makes an owner stand still would do so to the next one, too.
            await self._orphan(name, blame=name in hung)
        for name in plan.retire:
            await self._retire(name)
        for _ in range(plan.create):
            self._follow(*self._cluster.create())
        if plan.pick_up:
            self._tell_all_to_pick_up()

    def _note_idle(self, owners: Sequence[OwnerLoad], now_s: float) -> None:
        idle = {owner.owner for owner in owners if owner.load == 0}
        self._idle_since_s = {name: self._idle_since_s.get(name, now_s) for name in idle}

    async def _gone(self, strangers: Sequence[str]) -> set[str]:
        """Owners that no actor of this cluster bears the name of: they need not be waited for.

        They died while no supervisor watched, or with an earlier cluster. One that lives after all
        loses nothing: whatever it still writes is refused, and its executions are taken over.
        """
        if not strangers:
            return set()
        await self._adopt()
        return set(strangers).difference(self._actors)

    def _follow(self, name: str, actor: OwnerActor) -> None:
        self._actors[name] = actor
        self._starting.add(name)
        self._background.spawn(self._live(name, actor))

    async def _live(self, name: str, actor: OwnerActor) -> None:
        """Follow an execution actor from its start to its death, and then free what it owned."""
        what = f"execution actor {name}"
        blame = False
        try:
            # Also while the store is away: it serves as soon as it can be registered.
            await ask(foreseen(actor.ready), self._times.patience, what)
            _log.info("%s serves", what)
            self._starting.discard(name)
            self._unheard.discard(name)
            if (await self.counts())["serving"] >= self._limits.least:
                self._warm.set()
            actor.pick_up()
            await ask(foreseen(actor.watch), self._times.patience, what)
        except Gone as error:
            _log.warning("%s has died: %s", what, error)
            try:
                # Whoever was aboard may have been its death, unless the whole machine went.
                blame = not await actor.has_lost_its_node()
            except Exception as why:
                # It is dead all the same, and nobody else frees what it had.
                _log.warning("whether %s has lost its node is not known: %r", what, why)
        except Silent as error:
            _log.warning("%s cannot be reached and is ended: %s", what, error)
            await self._end(actor, name)
        expected = self._actors.pop(name, None) is None
        started = name not in self._starting
        self._starting.discard(name)
        self._unheard.discard(name)
        self._leases.forget(name)
        if not expected:
            self._succeeded.add(name)
            try:
                await self._orphan_patiently(name, blame=blame)
            finally:
                self._succeeded.discard(name)
        if started:
            # One that could not even start is tried again at the usual pace.
            self._look_now.set()

    async def _end(self, actor: OwnerActor, name: str) -> None:
        with contextlib.suppress(Gone):
            try:
                await ask(actor.kill, self._times.patience, f"the end of {name}")
            except Silent as error:
                # Whatever it still writes is refused once it is succeeded.
                _log.error("execution actor %s cannot be ended: %s", name, error)

    async def _orphan_patiently(self, name: str, *, blame: bool) -> None:
        while True:
            try:
                await self._orphan(name, blame=blame)
            except StoreError:
                await asyncio.sleep(self._times.look_s)
            else:
                return

    async def _orphan(self, name: str, *, blame: bool = False) -> None:
        moved = 0
        while count := await self._store.orphan(name, limit=_ORPHANS_AT_ONCE, blame=blame):
            moved += count
        if moved:
            _log.warning("%d executions of %s wait for another owner", moved, name)
            self._tell_all_to_pick_up()

    def _tell_all_to_pick_up(self) -> None:
        for name, actor in self._actors.items():
            # One that starts will look by itself, one that died is noticed; one that is hung would
            # take what it can no longer drive.
            if name not in self._leases.hung:
                actor.pick_up()

    async def _retire(self, name: str) -> None:
        if await self._store.retire_owner(name):
            actor = self._actors.pop(name, None)
            if actor is not None:
                self._background.spawn(self._end(actor, name))


def _log_unexpected(error: BaseException) -> None:
    _log.error("supervisor: %r", error, exc_info=error)
