"""Task actors that do what a test tells them, for tests of whoever hands attempts out.

They follow the protocol of the real ones (one attempt at a time, in order; outcomes at the end of
the batch, or told before), but an attempt ends when the test says so, and the process dies when
the test says so.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from harmonia_actors.core import stimuli as st
from harmonia_actors.runtime.orders import AttemptId, AttemptOrder, QueueKey, Report
from harmonia_actors.runtime.ports import TaskActorDied, TaskActorUnreachable, Unplaceable

__all__ = [
    "ManualClock",
    "ScriptedActor",
    "ScriptedLease",
    "ScriptedLeases",
    "order",
    "settle",
    "until",
]

NO_OUTPUT = st.Output(2, b"{}")


class ManualClock:
    """A clock that stands still until it is moved."""

    def __init__(self, at_ms: int = 1_000_000) -> None:
        self.at_ms = at_ms

    def now_ms(self) -> int:
        return self.at_ms

    def steady(self) -> ManualClock:
        return self


def order(
    name: str | int, key: QueueKey | None = None, *, execution: str = "exec-1", attempt: int = 1
) -> AttemptOrder:
    """An order for task `name`, whose index is that number."""
    index = int(str(name).lstrip("t"))
    return AttemptOrder(
        execution_id=execution,
        workflow_id="wf-1",
        epoch=1,
        task=index,
        task_name=f"t{index}",
        attempt=attempt,
        component="harmonia",
        action="echo",
        input=b"{}",
        key=key or QueueKey(),
    )


async def settle(rounds: int = 20) -> None:
    """Let everything run that can run now."""
    for _ in range(rounds):
        await asyncio.sleep(0)


async def until(condition: Callable[[], object], seconds: float = 10.0) -> None:
    """Wait until something holds."""
    async with asyncio.timeout(seconds):
        # Conditions are about plain objects: there is no event to wait for.
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.001)


class ScriptedActor:
    """A task actor. `end` and `die` are for the test, all else is the protocol."""

    def __init__(self, name: str, *, shared: bool = False) -> None:
        self.name = name
        self.node_id = "node"
        self.shared = shared
        #: Batches as they came, by the tasks' indexes.
        self.batches: list[list[int]] = []
        self.waiting: deque[AttemptOrder] = deque()
        self.live: dict[AttemptId, asyncio.Future[st.AttemptStimulus]] = {}
        self.ended: dict[AttemptId, Report] = {}
        self.stops: list[tuple[int, bool]] = []
        self.kills = 0
        self.seconds = 0.001
        #: Whether an attempt that is told to stop does so.
        self.obeys = True
        #: How many calls fail from here on, although it lives: unheard.
        self.deaf = 0
        #: The same for the answers: it has heard.
        self.dumb = 0
        #: If set, the answer to a take-back arrives only once this is set.
        self.hold_take_back: asyncio.Event | None = None
        #: If set, a take-back itself arrives only once this is set.
        self.late_take_back: asyncio.Event | None = None
        #: What take-backs end with, one after the other.
        self.take_back_errors: list[Exception] = []
        self.taken_back = 0
        self._dead = asyncio.Event()
        self._error: Exception | None = None
        self._told: set[AttemptId] = set()
        #: What was taken back of the last batch.
        self._gone: list[AttemptId] = []

    # For the test ------------------------------------------------------------------------------

    def end(self, task: int, outcome: str = "success") -> None:
        """The live attempt of this task ends."""
        for attempt, future in self.live.items():
            if attempt[1] == task and not future.done():
                future.set_result(_outcome(attempt, outcome))
                return
        raise AssertionError(f"task {task} does not run on {self.name}: {list(self.live)}")

    def running(self) -> list[int]:
        return [attempt[1] for attempt in self.live]

    def die(self) -> None:
        self._dead.set()

    def break_with(self, error: Exception) -> None:
        """Its answers cannot be had from here on."""
        self._error = error
        self._dead.set()

    def tell(self, task: int, kind: str = "start") -> Report:
        """What the actor would report about a live or ended attempt before its batch ends."""
        if kind == "start":
            attempt = next(a for a in self.live if a[1] == task)
            return Report(attempt[0], st.AttemptStarted(attempt[1], attempt[2], 1))
        attempt = next(a for a in self.ended if a[1] == task)
        self._told.add(attempt)
        return self.ended[attempt]

    # The protocol ------------------------------------------------------------------------------

    async def run(self, orders: Sequence[AttemptOrder]) -> tuple[Sequence[Report], float]:
        self._check()
        self._check_line("deaf")
        self.batches.append([each.task for each in orders])
        self._gone.clear()
        mine = {each.id for each in orders}
        self.waiting.extend(orders)
        if self.shared:
            await asyncio.gather(*(self._one() for _ in orders))
        else:
            while self.waiting:
                await self._one()
        self._check_line("dumb")
        found = [r for a, r in self.ended.items() if a in mine and a not in self._told]
        return found, self.seconds * len(orders)

    async def settled(self, attempts: Sequence[AttemptId]) -> Sequence[Report]:
        self._check()
        self._check_line("deaf")
        while any(attempt in self.live for attempt in attempts):
            futures = [self.live[a] for a in attempts if a in self.live]
            await self._unless_dead(futures)
            await settle(2)
        return [self.ended[attempt] for attempt in attempts if attempt in self.ended]

    async def stop(self, attempt: AttemptId, *, only_waiting: bool) -> bool:
        self._check()
        self._check_line("deaf")
        self.stops.append((attempt[1], only_waiting))
        for waiting in self.waiting:
            if waiting.id == attempt:
                self.waiting.remove(waiting)
                return True
        future = self.live.get(attempt)
        if future is not None and not future.done() and not only_waiting and self.obeys:
            future.set_result(_outcome(attempt, "stopped"))
        return False

    async def take_back(self) -> Sequence[AttemptId]:
        self._check()
        self._check_line("deaf")
        if self.late_take_back is not None:
            await self.late_take_back.wait()
        if self.take_back_errors:
            raise self.take_back_errors.pop(0)
        self.taken_back += 1
        self._gone += [each.id for each in self.waiting]
        attempts = list(self._gone)
        self.waiting.clear()
        self._check_line("dumb")
        if self.hold_take_back is not None:
            await self.hold_take_back.wait()
        return attempts

    async def kill(self) -> None:
        self.kills += 1
        self.die()

    # -------------------------------------------------------------------------------------------

    async def _one(self) -> None:
        each = self.waiting.popleft()
        future: asyncio.Future[st.AttemptStimulus] = asyncio.get_running_loop().create_future()
        self.live[each.id] = future
        await self._unless_dead([future])
        del self.live[each.id]
        self.ended[each.id] = Report(each.execution_id, future.result())

    async def _unless_dead(self, futures: Iterable[asyncio.Future[Any]]) -> None:
        """Wait until all of these are done, or this actor has died."""
        death = asyncio.ensure_future(self._dead.wait())
        left = {future for future in futures if not future.done()}
        try:
            while left and not death.done():
                await asyncio.wait([*left, death], return_when=asyncio.FIRST_COMPLETED)
                left = {future for future in left if not future.done()}
        finally:
            death.cancel()
        self._check()

    def _check_line(self, broken: str) -> None:
        if left := getattr(self, broken):
            setattr(self, broken, left - 1)
            raise TaskActorUnreachable(f"{self.name} cannot be reached")

    def _check(self) -> None:
        if self._error is not None:
            raise self._error
        if self._dead.is_set():
            raise TaskActorDied(f"{self.name} has died")


def _outcome(attempt: AttemptId, outcome: str) -> st.AttemptStimulus:
    _, task, number = attempt
    if outcome == "success":
        return st.AttemptSucceeded(task, number, 1, NO_OUTPUT)
    if outcome == "stopped":
        return st.AttemptStopped(task, number, 1)
    return st.AttemptFailed(task, number, 1, st.Failure(outcome, "BROKE", {}))


@dataclass(frozen=True, eq=False)
class ScriptedLease:
    actor: ScriptedActor


@dataclass
class ScriptedLeases:
    """Gives out actors that the test has added with `add`; requests wait until there are some."""

    asked: list[tuple[QueueKey, int]] = field(default_factory=list)
    released: list[str] = field(default_factory=list)
    dead: list[str] = field(default_factory=list)
    #: How many requests were given up by who waited.
    given_up: int = 0
    refusal: str = ""
    #: What the next requests end with.
    errors: list[Exception] = field(default_factory=list)
    _free: list[ScriptedLease] = field(default_factory=list)
    _changed: asyncio.Event = field(default_factory=asyncio.Event)
    _numbers: itertools.count[int] = field(default_factory=itertools.count)

    def add(self, *, shared: bool = False) -> ScriptedActor:
        actor = ScriptedActor(f"task-{next(self._numbers)}", shared=shared)
        self._free.append(ScriptedLease(actor))
        self._changed.set()
        return actor

    def refuse(self, reason: str) -> None:
        self.refusal = reason
        self._changed.set()

    async def acquire(self, key: QueueKey, want: int) -> Sequence[ScriptedLease]:
        self.asked.append((key, want))
        if self.errors:
            raise self.errors.pop(0)
        while not self._free:
            if self.refusal:
                raise Unplaceable(self.refusal)
            self._changed.clear()
            try:
                await self._changed.wait()
            except asyncio.CancelledError:
                self.given_up += 1
                raise
        given, self._free = self._free[:want], self._free[want:]
        return given

    def release(self, leases: Sequence[ScriptedLease]) -> None:
        for lease in leases:
            self.released.append(lease.actor.name)
            self._free.append(lease)
        self._changed.set()

    def lost(self, lease: ScriptedLease) -> None:
        self.dead.append(lease.actor.name)
