"""The line on which a replica gives executions to their owner, and hears when they have ended.

A call between two processes costs more than most of what an execution needs, so as many starts and
ends as there are go with one. `StartLine` is the replica's end, `StartLines` holds the owner's ends
of all replicas. Nothing here is durable: who does not hear of an end looks into the store.
This module must not know Ray.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Exchange", "LineCut", "News", "Start", "StartLine", "StartLines"]

_log = logging.getLogger(__name__)

#: A call that waits for an end, and knows none, returns after so long all the same.
_WAIT_S = 20.0
#: A line on which nothing was said for so long, and nobody waits, is forgotten.
_IDLE_S = 60.0
#: Calls under way on one line: one that waits, and one that ends its wait.
_CALLS_MAX = 2


class LineCut(Exception):
    """The owner cannot be reached: it may have heard what it was told last, or not."""


@dataclass(frozen=True, slots=True)
class Start:
    """An execution for its owner: as it was created, or without fields one to be claimed."""

    execution_id: str
    definition: str
    fields: Mapping[str, bytes]


@dataclass(frozen=True, slots=True)
class News:
    """What a replica has to tell an owner, of whatever came up since it told him last."""

    starts: Sequence[Start] = ()
    #: Executions whose end it awaits.
    awaited: Sequence[str] = ()
    #: Executions in whose inbox something lies.
    nudges: Sequence[str] = ()


#: Tells news; returns those awaited executions that have ended, empty if none has before another
#: call came. Raises LineCut.
Exchange = Callable[[News], Awaitable[Sequence[str]]]


class StartLine:
    """The line to one owner."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._starts: list[Start] = []
        self._nudges: dict[str, None] = {}
        #: Executions whose end is awaited and of which the owner has not been told that.
        self._untold: dict[str, None] = {}
        #: By execution, what all wait for who wait for its end, and how many they are.
        self._awaited: dict[str, asyncio.Future[None]] = {}
        self._waiters: dict[str, int] = {}
        self._calls: set[asyncio.Task[None]] = set()
        self._is_due = False

    @property
    def is_idle(self) -> bool:
        """Whether nothing is under way and nobody waits."""
        return not (self._calls or self._starts or self._nudges or self._awaited)

    def start(self, start: Start) -> None:
        """Give the owner an execution; it goes with whatever else there is to tell."""
        self._starts.append(start)
        self._be_due()

    def nudge(self, execution_id: str) -> None:
        """Something lies in an execution's inbox. It is heard after the execution's start."""
        self._nudges[execution_id] = None
        self._be_due()

    async def wait_ended(self, execution_id: str) -> None:
        """Return when an execution has ended there, or is not there, or nobody can say."""
        ended = self._awaited.get(execution_id)
        if ended is None:
            ended = self._awaited[execution_id] = asyncio.get_running_loop().create_future()
            self._untold[execution_id] = None
            self._be_due()
        self._waiters[execution_id] = self._waiters.get(execution_id, 0) + 1
        try:
            await asyncio.shield(ended)
        finally:
            self._waits_no_more(execution_id, ended)

    def _waits_no_more(self, execution_id: str, ended: asyncio.Future[None]) -> None:
        left = self._waiters[execution_id] - 1
        if left:
            self._waiters[execution_id] = left
            return
        del self._waiters[execution_id]
        if self._awaited.get(execution_id) is ended:
            del self._awaited[execution_id]
            self._untold.pop(execution_id, None)

    def _be_due(self) -> None:
        # Whoever starts an execution and waits for it does so in one go: one call for both.
        if not self._is_due:
            self._is_due = True
            asyncio.get_running_loop().call_soon(self._go)

    def _go(self) -> None:
        self._is_due = False
        has_news = bool(self._starts or self._untold or self._nudges)
        if len(self._calls) >= _CALLS_MAX or not (has_news or (self._awaited and not self._calls)):
            return
        news = News(self._starts, list(self._untold), list(self._nudges))
        self._starts, self._untold, self._nudges = [], {}, {}
        # In a context of its own: what is submitted in a request's is cancelled with the request.
        call = asyncio.get_running_loop().create_task(
            self._call(news), context=contextvars.Context()
        )
        self._calls.add(call)
        call.add_done_callback(self._called)

    async def _call(self, news: News) -> None:
        try:
            ended = await self._exchange(news)
        except LineCut:
            ended = list(self._awaited)
            self._untold.clear()
        for execution_id in ended:
            waiting = self._awaited.pop(execution_id, None)
            if waiting is not None and not waiting.done():
                waiting.set_result(None)

    def _called(self, call: asyncio.Task[None]) -> None:
        self._calls.discard(call)
        if not call.cancelled():
            self._go()


@dataclass(slots=True)
class _Replica:
    """What one replica waits for, and its call that waits."""

    awaited: dict[str, None] = field(default_factory=dict)
    ended: list[str] = field(default_factory=list)
    #: Replaced by each call, and set when its wait is over.
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    heard_s: float = 0.0


class StartLines:
    """The owner's end of the lines of all replicas."""

    def __init__(
        self,
        begin: Callable[[Start], Awaitable[None]],
        wait_ended: Callable[[str], Awaitable[None]],
        nudge: Callable[[str], Awaitable[None]],
    ) -> None:
        """What is done with what replicas tell.

        `begin` takes an execution on; `wait_ended` returns when one has ended or is not here;
        `nudge` looks into an inbox.
        """
        self._begin = begin
        self._wait_ended = wait_ended
        self._nudge = nudge
        #: Executions that are being begun: whatever else is told of them comes behind that.
        self._beginning: dict[str, asyncio.Event] = {}
        self._replicas: dict[str, _Replica] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def exchange(self, replica: str, news: News) -> Sequence[str]:
        """See `Exchange`. A call ends the wait of the one before on the same line."""
        known = self._known(replica)
        known.wake.set()
        wake = known.wake = asyncio.Event()
        for start in news.starts:
            self._beginning.setdefault(start.execution_id, asyncio.Event())
            self._spawn(self._run(start))
        fresh = [each for each in news.awaited if each not in known.awaited]
        known.awaited |= dict.fromkeys(fresh)
        for execution_id in fresh:
            self._spawn(self._await(execution_id, known))
        for execution_id in news.nudges:
            self._spawn(self._look_into(execution_id))
        if known.awaited and not known.ended:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_WAIT_S):
                    await wake.wait()
        known.heard_s = asyncio.get_running_loop().time()
        if known.wake is not wake:
            # Whatever has ended is for the call that came after this one.
            return []
        ended, known.ended = known.ended, []
        return ended

    async def close(self) -> None:
        """Take nothing on any more."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _known(self, name: str) -> _Replica:
        known = self._replicas.get(name)
        now_s = asyncio.get_running_loop().time()
        if known is None:
            idle = [each for each, one in self._replicas.items() if now_s - one.heard_s > _IDLE_S]
            for each in idle:
                del self._replicas[each]
            known = self._replicas[name] = _Replica()
        # Nobody is idle who waits here.
        known.heard_s = now_s + _WAIT_S
        return known

    async def _run(self, start: Start) -> None:
        try:
            await self._begin(start)
        finally:
            begun = self._beginning.pop(start.execution_id, None)
            if begun is not None:
                begun.set()

    async def _until_begun(self, execution_id: str) -> None:
        begun = self._beginning.get(execution_id)
        if begun is not None:
            await begun.wait()

    async def _await(self, execution_id: str, replica: _Replica) -> None:
        try:
            await self._until_begun(execution_id)
            await self._wait_ended(execution_id)
        finally:
            replica.awaited.pop(execution_id, None)
            replica.ended.append(execution_id)
            replica.wake.set()

    async def _look_into(self, execution_id: str) -> None:
        await self._until_begun(execution_id)
        await self._nudge(execution_id)

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            # Whoever looks around finds what is his and was never begun, and what lies in inboxes.
            _log.warning("what a replica told cannot be followed now: %r", task.exception())
