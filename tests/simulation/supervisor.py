"""The supervisor: the real sizing decides; it hears of deaths, also of some that are none."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence

from harmonia_actors.runtime.ports import TaskActorDied
from harmonia_actors.runtime.sizing import OwnerView, SizingLimits, plan_owners
from persistence.errors import StoreError
from tests.simulation.network import Network
from tests.simulation.owners import SimulatedOwner
from tests.simulation.store import DistantStore
from tests.simulation.virtual_loop import Process, pass_time

__all__ = ["SimulatedSupervisor"]

LOOK_S = 1.0
_NOTICED_S = 0.05
_START_S = 0.3
_ORPHANS_AT_ONCE = 3


class SimulatedSupervisor:
    """Keeps owners at the right number, and gives orphans an owner. Runs in its process.

    `struck_off` are owners that Ray does not know any more, whether they are dead or not.
    """

    def __init__(
        self,
        process: Process,
        network: Network,
        store: DistantStore,
        start: Callable[[], SimulatedOwner],
        owners: Mapping[str, SimulatedOwner],
        struck_off: set[str],
        limits: SizingLimits,
    ) -> None:
        self.process = process
        self._network = network
        self._store = store
        self._start = start
        #: All there ever were.
        self._owners = owners
        self._struck_off = struck_off
        self._limits = limits
        self._known: dict[str, SimulatedOwner] = {}
        self._starting: set[str] = set()
        self._idle_since_s: dict[str, float] = {}
        self._look_now = asyncio.Event()

    def wanted(self) -> None:
        """An execution waits for an owner: look at once."""
        self._look_now.set()

    async def watch(self) -> None:
        """Look again and again, for ever."""
        self._gone(list(self._owners))
        while True:
            with contextlib.suppress(StoreError):
                await self._look()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_S):
                    await self._look_now.wait()
            self._look_now.clear()

    def declared_dead(self, name: str) -> None:
        """An owner has died, or it is believed to have."""
        self._struck_off.add(name)
        if self._known.pop(name, None) is not None:
            self._starting.discard(name)
            self._spawn(self._orphan_patiently(name))
            self._look_now.set()

    # -------------------------------------------------------------------------------------------

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
        gone = self._gone([o.owner for o in owners if o.owner not in self._known])
        view = [
            OwnerView(
                owner.owner,
                owner.load,
                alive=owner.owner in self._known,
                expired=owner.expired or owner.owner in gone,
                idle_s=now_s - self._idle_since_s.get(owner.owner, now_s),
            )
            for owner in owners
        ]
        plan = plan_owners(
            view,
            waiting=waiting,
            starting=len(self._starting),
            serving=len(self._known) - len(self._starting),
            limits=self._limits,
        )
        for name in plan.orphan:
            await self._orphan(name)
        for name in plan.retire:
            if await self._store.retire_owner(name) and name in self._known:
                self._known.pop(name).process.kill()
        for _ in range(plan.create):
            self._create()
        if plan.pick_up:
            self._tell_all_to_pick_up()

    def _gone(self, strangers: Sequence[str]) -> set[str]:
        """Owners that Ray does not know; those that it knows after all are followed again."""
        for name in strangers:
            owner = self._owners[name]
            if owner.process.alive and name not in self._struck_off:
                self._adopt(owner)
        return set(strangers).difference(self._known)

    def _create(self) -> None:
        self._adopt(self._start())

    def _adopt(self, owner: SimulatedOwner) -> None:
        self._known[owner.name] = owner
        self._starting.add(owner.name)
        context = self.process.context()
        loop = asyncio.get_running_loop()
        owner.process.when_dead(
            lambda: loop.call_later(_NOTICED_S, self.declared_dead, owner.name, context=context)
        )
        self._spawn(self._follow(owner))

    async def _follow(self, owner: SimulatedOwner) -> None:
        await pass_time(_START_S)
        while True:
            try:
                await self._network.call(self.process, owner.process, "ready", owner.ready)
            except StoreError:
                await pass_time(LOOK_S)
            except TaskActorDied:
                return
            else:
                break
        self._starting.discard(owner.name)
        self._network.send(self.process, owner.process, owner.pick_up, kind="message")

    async def _orphan_patiently(self, name: str) -> None:
        while True:
            try:
                await self._orphan(name, blame=True)
            except StoreError:
                await pass_time(LOOK_S)
            else:
                return

    async def _orphan(self, name: str, *, blame: bool = False) -> None:
        moved = 0
        while count := await self._store.orphan(name, limit=_ORPHANS_AT_ONCE, blame=blame):
            moved += count
        if moved:
            self._tell_all_to_pick_up()

    def _tell_all_to_pick_up(self) -> None:
        for owner in list(self._known.values()):
            self._network.send(self.process, owner.process, owner.pick_up, kind="message")

    def _spawn(self, coroutine: object) -> None:
        asyncio.get_running_loop().create_task(coroutine)  # type: ignore[arg-type]
