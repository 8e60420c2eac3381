"""How processes speak with each other: with delays, and as unreliably as the faults have it.

A message is sent and forgotten; it may be lost, doubled or overtaken. A call is answered, unless
the process that was called dies: then it fails, as with Ray. Calls of one caller to one lane of an
actor keep their order.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import inspect
import random
from collections.abc import Callable, Iterator
from typing import Any

from harmonia_actors.runtime.ports import TaskActorDied, TaskActorUnreachable
from harmonia_actors.runtime.silence import Failed, Gone, Silent
from persistence.errors import StoreError
from tests.simulation.faults import Faults
from tests.simulation.virtual_loop import Process, VirtualLoop

__all__ = ["Network", "Unreachable", "asking", "for_ever"]

_NOTICED_S = 0.02
_LATE_S = 3.0
_TICK_S = 1e-6


class Unreachable(TaskActorUnreachable):
    """A call has failed; whoever was called may live, and may have heard."""


@contextlib.contextmanager
def asking() -> Iterator[None]:
    """Failures of calls, as the engine's own `ask` knows them."""
    try:
        yield
    except Unreachable as error:
        raise Silent(str(error)) from error
    except TaskActorDied as error:
        raise Gone(str(error)) from error
    except StoreError as error:
        raise Failed(str(error)) from error


async def for_ever() -> None:
    """A method that never returns: whoever calls it learns of the death of its process."""
    await asyncio.Event().wait()


class Network:
    """All wires."""

    def __init__(self, loop: VirtualLoop, faults: Faults, seed: str) -> None:
        self._loop = loop
        self._faults = faults
        self._luck = random.Random(f"{seed}/network")
        #: When the last call of a lane arrives.
        self._lanes: dict[tuple[str, str, str], float] = {}
        #: A context that belongs to no process: the wires themselves never stop.
        self.wires = contextvars.Context()
        #: Set when the run has ended: nobody answers any more.
        self.closed = False
        #: Processes that count as dead, though they may live.
        self.struck_off: set[str] = set()
        #: Task actors that somebody has given up: their end is under way.
        self.given_up: set[str] = set()
        #: Of each process, how those who watch it are told of its death.
        self._watchers: dict[str, list[Callable[[str], None]]] = {}

    def delay_s(self) -> float:
        """How long something is on its way."""
        delay_s = 0.0002 + self._luck.expovariate(1000)
        return delay_s + self._luck.uniform(0, 0.1) if self._luck.random() < 0.05 else delay_s

    def later(self, delay_s: float, do: Callable[..., Any], *arguments: Any) -> None:
        """Something that no process does."""
        self._loop.call_later(delay_s, do, *arguments, context=self.wires)

    def check_open(self) -> None:
        """Nothing is sent once the run has ended."""
        if self.closed:
            raise asyncio.CancelledError

    def send(
        self, sender: Process, to: Process, deliver: Callable[..., Any], *arguments: Any, kind: str
    ) -> None:
        """A message; `kind` is "report" or "message". A dead process hears nothing."""
        if self.closed or not sender.alive:
            return
        faults = self._faults
        if faults.strikes(f"{kind} is lost"):
            return
        delay_s = self.delay_s()
        if faults.strikes(f"{kind} comes late"):
            delay_s += faults.between(0, _LATE_S)
        self._loop.call_later(delay_s, deliver, *arguments, context=to.context())
        if faults.strikes(f"{kind} comes twice"):
            delay_s += faults.between(0, _LATE_S)
            self._loop.call_later(delay_s, deliver, *arguments, context=to.context())

    def strike_off(self, process: Process) -> None:
        """Whoever watches this process is told that it is dead, and so is who asks from now on."""
        self.struck_off.add(process.name)
        for fail in self._watchers.pop(process.name, []):
            fail(f"{process.name} counts as dead")

    async def call(
        self, caller: Process, to: Process, lane: str, method: Callable[..., Any], *arguments: Any
    ) -> Any:
        """Call a method in another process. Raises TaskActorDied if that dies, or Unreachable."""
        self.check_open()
        answer: asyncio.Future[Any] = self._loop.create_future()
        if not caller.alive:
            return await answer

        def fail(why: str, kind: type[TaskActorDied] = TaskActorDied) -> None:
            if not answer.done():
                self._loop.call_later(
                    _NOTICED_S, _settle, answer, kind(why), context=caller.context()
                )

        if not to.alive or (lane == "watch" and to.name in self.struck_off):
            fail(f"{to.name} is dead")
            return await answer
        to.when_dead(lambda: fail(f"{to.name} has died"))
        if lane == "watch":
            self._watchers.setdefault(to.name, []).append(fail)
        if self._faults.strikes("call fails though its actor lives"):
            fail(f"{to.name} cannot be reached", Unreachable)
            if self._faults.whether(0.5):
                return await answer
        self._loop.call_at(
            self._arrival_s(caller, to, lane),
            self._arrive,
            caller,
            to,
            answer,
            method,
            arguments,
            context=to.context(),
        )
        return await answer

    def _arrival_s(self, caller: Process, to: Process, lane: str) -> float:
        wire = (caller.name, to.name, lane)
        earliest_s = self._loop.time() + self.delay_s()
        # Timers of one moment have no order among each other.
        arrival_s = max(earliest_s, self._lanes.get(wire, 0.0) + _TICK_S)
        self._lanes[wire] = arrival_s
        return arrival_s

    def _arrive(
        self,
        caller: Process,
        to: Process,
        answer: asyncio.Future[Any],
        method: Callable[..., Any],
        arguments: tuple[Any, ...],
    ) -> None:
        def reply(result: Any) -> None:
            if to.alive and not self.closed:
                self._loop.call_later(
                    self.delay_s(), _settle, answer, result, context=caller.context()
                )

        result = method(*arguments)
        if not inspect.isawaitable(result):
            reply(result)
            return
        task = to.spawn(result)
        task.add_done_callback(lambda done: reply(_outcome(done)))


def _outcome(task: asyncio.Task[Any]) -> Any:
    if task.cancelled():
        return TaskActorDied("the call was cancelled")
    return task.exception() or task.result()


def _settle(answer: asyncio.Future[Any], result: Any) -> None:
    if answer.done():
        return
    if isinstance(result, BaseException):
        answer.set_exception(result)
    else:
        answer.set_result(result)
