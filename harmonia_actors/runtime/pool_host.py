"""Performs what the slot pool decides: what the pool actor is inside.

It follows every task actor from its start to its death, and every holder: what a dead holder has
finishes what it runs and is free again. A pool that comes after another one adopts what it finds;
who holds that is not known, so it counts as busy until it has settled.
This module must not know Ray.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar

from harmonia_actors.core.resources import Capacity
from harmonia_actors.runtime.background import BackgroundTasks
from harmonia_actors.runtime.orders import QueueKey
from harmonia_actors.runtime.pool_effects import (
    CreateActor,
    Effect,
    Grant,
    KillActor,
    Recall,
    Refuse,
)
from harmonia_actors.runtime.pool_loans import Granted, Loans, Questions
from harmonia_actors.runtime.pool_sizes import PoolSizes
from harmonia_actors.runtime.ports import Clock
from harmonia_actors.runtime.silence import Gone, Patience, Silent, ask, foreseen
from harmonia_actors.runtime.slots import SlotPool

__all__ = ["Granted", "HolderLost", "PoolCluster", "PoolHost", "PoolTimes", "PooledActor"]

_log = logging.getLogger(__name__)

_UNKNOWN_HOLDER = "?"

_T = TypeVar("_T")

_WITHDRAWN: Granted = ((), "it is not wanted any more")


class HolderLost(Exception):
    """Whoever asked counts as dead. Should he live after all, he asks again."""


class PooledActor(Protocol):
    """One task actor, as the pool sees it. Calls raise what `silence` knows."""

    @property
    def handle(self) -> Any:
        """What holders call it by."""
        ...

    async def ready(self) -> tuple[str, QueueKey]:
        """The node it runs on and the class it serves, once it has started."""
        ...

    async def watch(self) -> None:
        """Never returns."""
        ...

    async def settled(self) -> None:
        """Return when all that it was given has ended."""
        ...

    async def kill(self) -> None:
        """End it, whatever it does; one that is dead already is no error."""
        ...


class PoolCluster(Protocol):
    """The cluster, as the pool sees it."""

    def new_name(self) -> str:
        """A name that no task actor has had."""
        ...

    def create(self, name: str, key: QueueKey) -> PooledActor:
        """Begin to start a task actor."""
        ...

    async def left(self) -> Sequence[tuple[str, PooledActor, bool]]:
        """Task actors that there are already, and whether each has started."""
        ...

    async def capacity(self) -> Capacity:
        """What the cluster has and may add."""
        ...

    async def watch_holder(self, holder: str) -> None:
        """Never returns; raises what `silence` knows."""
        ...

    async def recall(self, holder: str, key: QueueKey, count: int) -> None:
        """Ask a holder for actors."""
        ...


@dataclass(frozen=True, slots=True)
class PoolTimes:
    """How often the pool looks, and how long it waits."""

    patience: Patience
    tick_s: float = 0.5
    capacity_every_ticks: int = 4
    #: What an earlier pool has left is asked for so long before this one begins without answers.
    adopt_s: float = 5.0


@dataclass(slots=True)
class _Known:
    actor: PooledActor
    #: Empty until it has answered.
    node_id: str = ""
    #: Left by an earlier pool: it may run something although it has not answered here.
    is_left: bool = False


class PoolHost:
    """All task actors of an installation."""

    def __init__(
        self, cluster: PoolCluster, sizes: PoolSizes, clock: Clock, times: PoolTimes
    ) -> None:
        self._cluster = cluster
        self._sizes = sizes
        self._clock = clock
        self._times = times
        self._for_ever = replace(times.patience, silent_s_max=float("inf"))
        self._made: SlotPool | None = None
        self._starting = asyncio.Lock()
        #: Set as soon as no actor of the floor is still starting.
        self._warm = asyncio.Event()
        self._known: dict[str, _Known] = {}
        self._answers: dict[int, tuple[str, str, asyncio.Future[Granted]]] = {}
        #: By holder, the questions that he may ask again.
        self._asked: dict[str, Questions] = {}
        self._loans = Loans()
        self._watched: set[str] = set()
        self._background = BackgroundTasks(_log_unexpected)

    async def begin(self) -> None:
        """Find the task actors that there are and start what is missing of the floor."""
        await self._pool()

    async def ready(self) -> None:
        """Return when the warm floor has been started."""
        await self._pool()
        await self._warm.wait()

    async def acquire(self, holder: str, key: QueueKey, want: int, request: str = "") -> Granted:
        """Wait for task actors. Raises HolderLost.

        `request` names the question, so that one whose answer was lost can be asked again: the
        same actors are the answer. Without a name each call is a question of its own.
        """
        pool = await self._pool()
        self._watch_holder(holder)
        if not request:
            return await self._ask_for(pool, holder, key, want)
        asked = self._asked.setdefault(holder, Questions())
        answer = asked.find(request)
        if answer is None and (had := self._loans.granted_to(holder, request)):
            # It is remembered no more, but nobody else may have them.
            return self._shown(had), ""
        if answer is None:
            answer = self._ask_for(pool, holder, key, want, request)
            asked.add(request, answer)
        return await asyncio.shield(answer)

    def _shown(self, names: Sequence[str]) -> list[tuple[str, str, Any]]:
        known = [(name, self._known[name]) for name in names]
        return [(name, each.node_id, each.actor.handle) for name, each in known]

    def _ask_for(
        self, pool: SlotPool, holder: str, key: QueueKey, want: int, request: str = ""
    ) -> asyncio.Future[Granted]:
        ticket, effects = pool.ask(holder, key, want, self._clock.now_ms())
        answer: asyncio.Future[Granted] = asyncio.get_running_loop().create_future()
        self._answers[ticket] = (holder, request, answer)

        def forget(_: asyncio.Future[Granted]) -> None:
            self._answers.pop(ticket, None)
            pool.withdraw(ticket)

        answer.add_done_callback(forget)
        self._perform(effects)
        return answer

    async def release(self, holder: str, given: Sequence[tuple[str, str]]) -> None:
        """A holder gives actors back, each named with the question that it was granted to.

        So it can be repeated for as long as it is not known to have been heard, and to whatever
        pool there is then: by that time an actor may be his again, by another question.
        """
        pool = await self._pool()
        names = [name for name, request in given if self._loans.end(name, holder, request)]
        if names:
            self._perform(pool.give_back(holder, names, self._clock.now_ms()))

    async def withdraw(self, holder: str, request: str) -> None:
        """A holder does not want any more what he has asked for, whether it was granted or not.

        The question is remembered as one that has its answer, should it come later than this.
        """
        pool = await self._pool()
        self._watch_holder(holder)
        asked = self._asked.setdefault(holder, Questions())
        answer = asked.find(request)
        if answer is None:
            answer = asyncio.get_running_loop().create_future()
            answer.set_result(_WITHDRAWN)
            asked.add(request, answer)
            had = self._loans.granted_to(holder, request)
            await self.release(holder, [(name, request) for name in had])
        elif not answer.done():
            for ticket in [t for t, (_, _, each) in self._answers.items() if each is answer]:
                pool.withdraw(ticket)
                self._answer(ticket, _WITHDRAWN)
        elif answer.exception() is None:
            await self.release(holder, [(name, request) for name, _, _ in answer.result()[0]])

    async def lost(self, name: str) -> None:
        """Somebody could not reach an actor: should it live on unseen, it is ended.

        Returns once its end is under way, raises Silent if it could not be brought about. One that
        is not known here has been ended before: no other one ever bears its name.
        """
        await self._pool()
        known = self._known.get(name)
        if known is not None:
            with contextlib.suppress(Gone):
                await self._ask(known.actor.kill, f"the end of {name}")
            self._died(name)

    async def actors(self) -> list[tuple[str, str, Any]]:
        """All task actors that may run something: name, node id (if known), handle."""
        await self._pool()
        return [
            (name, known.node_id, known.actor.handle)
            for name, known in self._known.items()
            if known.node_id or known.is_left
        ]

    async def capacity(self) -> Capacity:
        """What the cluster has and may add, as last read."""
        return (await self._pool()).capacity

    async def counts(self) -> dict[str, int]:
        """How many actors there are by state."""
        return (await self._pool()).counts()

    async def close(self) -> None:
        """Follow nobody any more."""
        await self._background.close()

    # -------------------------------------------------------------------------------------------

    async def _pool(self) -> SlotPool:
        async with self._starting:
            if self._made is None:
                capacity = await self._cluster.capacity()
                left = await self._adoptable()
                # Nothing waits or fails from here on: a start that failed has left nothing.
                limits = self._sizes.limits(capacity)
                pool = SlotPool(limits, capacity, self._cluster.new_name)
                for name, actor, answer in left:
                    self._adopt(pool, name, actor, answer)
                self._made = pool
                self._background.spawn(self._tick_for_ever(pool))
                self._perform(pool.tick(self._clock.now_ms()))
            return self._made

    async def _adoptable(self) -> list[tuple[str, PooledActor, tuple[str, QueueKey] | None]]:
        """What an earlier pool has left, with its answer if it has given one in time."""
        asked = []
        for name, actor, has_started in await self._cluster.left():
            if has_started:
                question = asyncio.ensure_future(self._ask(actor.ready, f"task actor {name}"))
                asked.append((name, actor, question))
            else:
                # Nobody waits for it any more, and it has run nothing.
                self._background.spawn(self._end(actor, name))
        if asked:
            await asyncio.wait([q for _, _, q in asked], timeout=self._times.adopt_s)
        found = []
        for name, actor, question in asked:
            answered = question.done() and not question.exception()
            found.append((name, actor, question.result() if answered else None))
            question.cancel()
        return found

    def _adopt(
        self, pool: SlotPool, name: str, actor: PooledActor, answer: tuple[str, QueueKey] | None
    ) -> None:
        """Until it has said what it is, it counts as a busy one of the default class."""
        self._known[name] = _Known(actor, is_left=True)
        if answer is None:
            now_ms = self._clock.now_ms()
            pool.adopt(name, QueueKey(), "", _UNKNOWN_HOLDER, now_ms)
        else:
            self._has_answered(pool, name, *answer)
        self._background.spawn(self._live(name, actor))

    def _has_answered(self, pool: SlotPool, name: str, node_id: str, key: QueueKey) -> None:
        known = self._known[name]
        if known.is_left and not known.node_id:
            pool.adopt(name, key, node_id, _UNKNOWN_HOLDER, self._clock.now_ms())
            self._background.spawn(self._free_when_settled(_UNKNOWN_HOLDER, name))
        known.node_id = node_id

    async def _tick_for_ever(self, pool: SlotPool) -> None:
        ticks = 0
        while True:
            await asyncio.sleep(self._times.tick_s)
            ticks += 1
            try:
                capacity = limits = None
                if ticks % self._times.capacity_every_ticks == 0:
                    capacity = await self._read_capacity()
                    limits = None if capacity is None else self._sizes.limits(capacity)
                self._perform(pool.tick(self._clock.now_ms(), capacity, limits))
            except Exception:
                # Without this loop nothing is ever created, refused or ended any more.
                _log.exception("a look at the task actors failed")

    async def _read_capacity(self) -> Capacity | None:
        try:
            return await self._cluster.capacity()
        except Exception as error:
            _log.warning("the cluster's capacity cannot be read: %r", error)
            return None

    # Effects -----------------------------------------------------------------------------------

    def _perform(self, effects: Sequence[Effect]) -> None:
        to_do = deque(effects)
        while to_do:
            match to_do.popleft():
                case CreateActor(name, key):
                    to_do.extend(self._create(name, key))
                case KillActor(name):
                    self._loans.forget_actor(name)
                    known = self._known.pop(name, None)
                    if known is not None:
                        self._background.spawn(self._end(known.actor, name))
                case Grant(ticket, names):
                    holder, request, _ = self._answers.get(ticket, ("", "", None))
                    self._loans.begin(names, holder, request)
                    self._answer(ticket, (self._shown(names), ""))
                case Refuse(ticket, reason):
                    self._answer(ticket, ((), reason))
                case Recall(holder, key, count):
                    self._background.spawn(self._recall(holder, key, count))

    def _create(self, name: str, key: QueueKey) -> Sequence[Effect]:
        try:
            actor = self._cluster.create(name, key)
        except Exception as error:
            _log.warning("task actor %s could not be created: %s", name, error)
            return [] if self._made is None else self._made.actor_died(name, self._clock.now_ms())
        self._known[name] = _Known(actor)
        self._background.spawn(self._live(name, actor))
        return []

    async def _live(self, name: str, actor: PooledActor) -> None:
        """Follow an actor from its start to its death."""
        what = f"task actor {name}"
        try:
            node_id, key = await self._ask(actor.ready, what)
            if self._made is not None and name in self._known:
                self._has_answered(self._made, name, node_id, key)
                self._perform(self._made.actor_ready(name, node_id, self._clock.now_ms()))
                if not self._made.counts()["starting"]:
                    self._warm.set()
            await self._ask(actor.watch, what)
        except Gone as error:
            if name in self._known:
                _log.warning("task actor %s has died: %s", name, error)
        except Silent as error:
            if name in self._known:
                _log.warning("task actor %s cannot be reached and is ended: %s", name, error)
            await self._end(actor, name)
        except Exception:
            # Of an actor that nobody follows nobody would hear that it has died.
            _log.exception("task actor %s cannot be followed and is ended", name)
            await self._end(actor, name)
        self._died(name)

    def _died(self, name: str) -> None:
        self._loans.forget_actor(name)
        known = self._known.pop(name, None)
        if known is not None and self._made is not None:
            self._perform(self._made.actor_died(name, self._clock.now_ms()))

    async def _end(self, actor: PooledActor, name: str) -> None:
        with contextlib.suppress(Gone):
            try:
                await self._ask(actor.kill, f"the end of {name}")
            except Silent as error:
                _log.error("task actor %s cannot be ended: %s", name, error)

    def _answer(self, ticket: int, granted: Granted) -> None:
        _, _, answer = self._answers.get(ticket, ("", "", None))
        if answer is not None and not answer.done():
            answer.set_result(granted)

    async def _recall(self, holder: str, key: QueueKey, count: int) -> None:
        if holder != _UNKNOWN_HOLDER:
            with contextlib.suppress(Gone, Silent):
                await self._ask(
                    lambda: self._cluster.recall(holder, key, count), f"holder {holder}"
                )

    # Holders -----------------------------------------------------------------------------------

    def _watch_holder(self, holder: str) -> None:
        if holder not in self._watched:
            self._watched.add(holder)
            self._background.spawn(self._holder_life(holder))

    async def _holder_life(self, holder: str) -> None:
        """When a holder dies, its actors first finish what they run, then are free."""
        with contextlib.suppress(Gone):
            await ask(
                foreseen(lambda: self._cluster.watch_holder(holder)),
                self._for_ever,
                f"holder {holder}",
            )
        self._watched.discard(holder)
        if self._made is None:
            return
        for name in self._made.held_by(holder):
            self._background.spawn(self._free_when_settled(holder, name))
        self._asked.pop(holder, None)
        self._loans.forget_holder(holder)
        for asked_by, _, answer in list(self._answers.values()):
            if asked_by == holder and not answer.done():
                answer.set_exception(HolderLost(f"{holder} counts as dead"))
        self._perform(self._made.forget_requests(holder, self._clock.now_ms()))

    async def _free_when_settled(self, holder: str, name: str) -> None:
        known = self._known.get(name)
        if known is None or self._made is None:
            return
        try:
            # For as long as it lives: nobody else frees what a dead holder had.
            await ask(foreseen(known.actor.settled), self._for_ever, f"task actor {name}")
        except Gone:
            return  # Whoever follows it to its death notices, too.
        self._perform(self._made.give_back(holder, [name], self._clock.now_ms()))

    # -------------------------------------------------------------------------------------------

    async def _ask(self, call: Callable[[], Awaitable[_T]], what: str) -> _T:
        return await ask(foreseen(call), self._times.patience, what)


def _log_unexpected(error: BaseException) -> None:
    _log.error("task pool: %r", error, exc_info=error)
