"""Task actors: the real task hosts, whose attempts take virtual time, and actions that obey a plan.

An action's plan says how long it takes, on which attempts it fails, and whether it stops when told.
What it returns follows from what it was given and from its attempt, so that an outcome that was
credited to another attempt, or made from wrong inputs, gives itself away.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from harmonia_actors.components.contract import ActionError, Component, TaskContext
from harmonia_actors.components.registry import Registry
from harmonia_actors.core import jsontext
from harmonia_actors.runtime.attempt_context import LiveAttempt
from harmonia_actors.runtime.attempt_log import LogLimits
from harmonia_actors.runtime.attempt_runner import AttemptRunner
from harmonia_actors.runtime.orders import AttemptId, AttemptOrder, QueueKey, Report
from harmonia_actors.runtime.ports import Clock
from harmonia_actors.runtime.shared_task_host import SharedTaskHost
from harmonia_actors.runtime.task_host import TaskHost, TaskHostLimits
from persistence.store import InboxEntry
from tests.simulation.faults import Faults
from tests.simulation.network import Network
from tests.simulation.virtual_loop import Process, current_process, pass_time

__all__ = ["REGISTRY", "SimulatedLease", "SimulatedPort", "SimulatedTaskActor", "value_of"]

_component = Component("simulated")
#: Pieces of a few lines, and less room than some attempts want.
_LOG = LogLimits(interval_ms=0, piece_bytes_max=300, bytes_max=1_500)
_LIMITS = TaskHostLimits(progress_interval_ms=0, log=_LOG)


def value_of(plan: dict[str, Any], given: Sequence[Any]) -> int:
    """What a task with this plan returns as its value."""
    return int(plan["n"]) + sum(given)


@_component.action
def work(plan: dict[str, Any], given: list[Any], *, context: TaskContext) -> dict[str, Any]:
    """Called when the attempt's time has passed."""
    if context.cancelled:
        raise ActionError("told to stop", code="STOPPED")
    return _outcome(plan, given, context)


@_component.action
async def work_async(
    plan: dict[str, Any], given: list[Any], *, context: TaskContext
) -> dict[str, Any]:
    """Takes its time itself."""
    actor: SimulatedTaskActor = current_process().inhabitant
    assert isinstance(context, LiveAttempt)
    _write(context, plan, first_half=True)
    await actor.spend(context.order, plan)
    return _outcome(plan, given, context)


#: The same, with files: all of one execution have to run on one node.
_component.action(name="work_with_files", uses_files=True)(work)
_component.action(name="work_async_with_files", uses_files=True)(work_async)


def _write(context: TaskContext, plan: dict[str, Any], *, first_half: bool) -> None:
    """Lines that say which they are: some at the beginning, the others at the end."""
    half = plan["lines"] // 2
    for number in range(half) if first_half else range(half, plan["lines"]):
        context.log(str(number))


def _outcome(plan: dict[str, Any], given: list[Any], context: TaskContext) -> dict[str, Any]:
    _write(context, plan, first_half=False)
    if plan["progress"]:
        context.progress(0.5, "half way")
    if context.attempt <= plan["fails"]:
        raise ActionError("as planned", code="PLANNED", retriable=not plan["fatal"])
    padding = "x" * plan["bytes"]
    return {"value": value_of(plan, given), "attempt": context.attempt, "padding": padding}


REGISTRY = Registry([_component])


@dataclass
class Surroundings:
    """What task actors need of the world."""

    network: Network
    faults: Faults
    make_runner: Callable[[Clock], AttemptRunner]
    #: Tells reports to an owner by name.
    tell: Callable[[Process, str, Sequence[Report]], None]
    #: An attempt begins to run on an actor.
    begun: Callable[[SimulatedTaskActor, AttemptOrder], None]
    #: It does not run any more; never told of what dies with its process.
    ended: Callable[[AttemptOrder], None]
    #: A new owner has asked an actor.
    asked: Callable[[SimulatedTaskActor, str, int], None]
    #: Leaves an outcome in its execution's inbox; False if that could not be done.
    keep: Callable[[SimulatedTaskActor, AttemptOrder, InboxEntry], Awaitable[bool]]


class SimulatedTaskActor:
    """One process that runs attempts. Its methods are called in the process."""

    def __init__(
        self, process: Process, key: QueueKey, clock: Clock, surroundings: Surroundings
    ) -> None:
        self.process = process
        self.name = process.name
        self.key = key
        self._around = surroundings
        self._runner = surroundings.make_runner(clock)
        self._turn = asyncio.Lock()
        self.node_id = ""
        self._placed = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._shared: SharedTaskHost | None = None
        self._desk: TaskHost | None = None
        if key.shared:
            self._shared = SharedTaskHost(self._runner, _LIMITS, self._send, watched=False)
        else:
            self._desk = TaskHost(self._runner, _LIMITS, self._send, self._loop.time)
        process.inhabitant = self

    async def ready(self) -> tuple[str, QueueKey]:
        """The node and the class, once it runs somewhere."""
        await self._placed.wait()
        return self.node_id, self.key

    @property
    def has_started(self) -> bool:
        """Whether it runs somewhere."""
        return self._placed.is_set()

    def place(self, node_id: str) -> None:
        """It runs from now on."""
        self.node_id = node_id
        self._placed.set()

    async def run(self, owner: str, orders: Sequence[AttemptOrder]) -> Any:
        """A batch; the reports that were not told before, and the seconds it took."""
        started_s = self._loop.time()
        if self._shared is not None:
            reports, _ = await self._shared.run(owner, orders)
            return reports, self._loop.time() - started_s
        assert self._desk is not None
        async with self._turn:
            self._desk.take_in(owner, orders)
            while (live := self._desk.begin_next()) is not None:
                await self._attend(live, self._desk)
                outcome = self._runner.run_sync(live.order, live)
                entry = self._desk.entry_before_next(live, outcome)
                if entry is not None and not await self._around.keep(self, live.order, entry):
                    entry = None
                self._perhaps_die()
                self._desk.finish(live, outcome, entry)
                self._perhaps_die()
            return self._desk.take_unsent(), self._loop.time() - started_s

    async def settled(self, attempts: Sequence[AttemptId]) -> Any:
        """Outcomes, behind all earlier batches."""
        if self._shared is not None:
            return await self._shared.settled(attempts)
        assert self._desk is not None
        async with self._turn:
            return self._desk.settled(attempts)

    def stop(self, attempt: AttemptId, only_waiting: bool) -> bool:
        """Stop an attempt."""
        return self._host.stop(attempt, only_waiting=only_waiting)

    def take_back(self) -> Any:
        """Give back what has not started."""
        return self._host.take_back()

    def census(self, asked: Sequence[tuple[str, int]], owner: str) -> Any:
        """What a new owner wants to know."""
        for execution_id, epoch in asked:
            self._around.asked(self, execution_id, epoch)
        return self._host.census_of_all(asked, owner)

    async def spend(self, order: AttemptOrder, plan: dict[str, Any]) -> None:
        """The time that an async action takes."""
        self._around.begun(self, order)
        until_s = self._loop.time() + plan["ms"] / 1000
        try:
            while (left_s := until_s - self._loop.time()) > 0:
                try:
                    await pass_time(left_s)
                except asyncio.CancelledError:
                    if not plan["stubborn"] or self._around.network.closed:
                        raise
        finally:
            self._around.ended(order)
        self._perhaps_die()

    # -------------------------------------------------------------------------------------------

    @property
    def _host(self) -> TaskHost | SharedTaskHost:
        host = self._shared or self._desk
        assert host is not None
        return host

    async def _attend(self, live: LiveAttempt, desk: TaskHost) -> None:
        """The time that a plain action takes; it ends early if it is told to stop and obeys.

        The reporter looks every few milliseconds; all that it can find comes up at two moments.
        """
        self._around.begun(self, live.order)
        plan = jsontext.decode(live.order.input)["plan"]
        _write(live, plan, first_half=True)
        over = self._loop.create_future()

        def end() -> None:
            if not over.done():
                over.set_result(None)

        timers = [
            self._loop.call_later(plan["ms"] / 1000, end),
            self._loop.call_later(_LIMITS.start_report_ms / 1000, desk.tell_due),
            self._loop.call_later(_LIMITS.outcome_report_ms / 1000, desk.tell_due),
        ]
        if not plan["stubborn"]:
            live.on_cancel(end)
        try:
            await over
        finally:
            for timer in timers:
                timer.cancel()
            self._around.ended(live.order)

    def _send(self, owner: str, reports: Sequence[Report]) -> None:
        self._around.tell(self.process, owner, reports)

    def _perhaps_die(self) -> None:
        if self._around.faults.strikes("task actor dies with its outcome"):
            self.process.kill()


@dataclass(frozen=True, eq=False)
class SimulatedPort:
    """A task actor as an owner's dispatcher sees it."""

    actor: SimulatedTaskActor
    network: Network
    caller: Process

    @property
    def name(self) -> str:
        return self.actor.name

    @property
    def node_id(self) -> str:
        return self.actor.node_id

    async def run(self, orders: Sequence[AttemptOrder]) -> Any:
        return await self._call("run", self.actor.run, self.caller.name, orders)

    async def settled(self, attempts: Sequence[AttemptId]) -> Any:
        return await self._call("run", self.actor.settled, attempts)

    async def stop(self, attempt: AttemptId, *, only_waiting: bool) -> bool:
        return bool(await self._call("control", self.actor.stop, attempt, only_waiting))

    async def take_back(self) -> Any:
        return await self._call("control", self.actor.take_back)

    async def kill(self) -> None:
        self.network.given_up.add(self.name)
        await pass_time(self.network.delay_s())
        self.actor.process.kill()

    async def _call(self, lane: str, method: Any, *arguments: Any) -> Any:
        return await self.network.call(self.caller, self.actor.process, lane, method, *arguments)


@dataclass(frozen=True, eq=False)
class SimulatedLease:
    actor: SimulatedPort
    granted_to: str = ""
