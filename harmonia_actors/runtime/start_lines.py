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
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

from harmonia_actors.runtime.background import BackgroundTasks
from harmonia_actors.runtime.ending import Ending

__all__ = ["Ended", "Exchange", "LineCut", "News", "Start", "StartLine", "StartLines"]

_log = logging.getLogger(__name__)

#: A call that waits for an end, and knows none, returns after so long all the same.
_WAIT_S = 20.0
#: An owner that has not even answered after so long may be hung, and others have what it had.
_SILENT_S = 2 * _WAIT_S
#: A line on which nothing was said for so long, and nobody waits, is forgotten.
_IDLE_S = 60.0
#: Calls under way on one line: one that waits, and one that ends its wait.
_CALLS_MAX = 2
#: Starts that go by one call, and bytes of their fields but for the first one's.
_STARTS_MAX = 1_000
_START_BYTES_MAX = 8_000_000
#: Nudges that are remembered, in case that the start comes after them.
_NUDGED_KEPT = 1_000


class LineCut(Exception):
    """The owner cannot be reached: it may have heard what it was told last, or not."""


@dataclass(frozen=True, slots=True)
class Start:
    """An execution for its owner: as it was created, or without fields one to be claimed."""

    execution_id: str
    definition: str
    fields: Mapping[str, bytes]

    @property
    def size(self) -> int:
        """Bytes of its fields."""
        return sum(map(len, self.fields.values()))


@dataclass(frozen=True, slots=True)
class News:
    """What a replica has to tell an owner, of whatever came up since it told him last."""

    starts: Sequence[Start] = ()
    #: Executions whose end it awaits; one that is told again is awaited once.
    awaited: Sequence[str] = ()
    #: Executions in whose inbox something lies.
    nudges: Sequence[str] = ()


#: An awaited execution that has ended, or is not there; how, if the owner still knows.
Ended = tuple[str, Ending | None]
#: Tells news; returns those awaited executions that have ended, empty if none has before another
#: call came, or for long. Raises LineCut.
Exchange = Callable[[News], Awaitable[Sequence[Ended]]]


@dataclass(eq=False, slots=True)
class _End:
    """What all wait for who wait for an execution's end, and how many they are."""

    heard: asyncio.Future[Ending | None]
    waiters: int = 0


class StartLine:
    """The line to one owner."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._starts: list[Start] = []
        self._nudges: dict[str, None] = {}
        #: Executions whose end is awaited and of which the owner has not been told that.
        self._untold: dict[str, None] = {}
        self._awaited: dict[str, _End] = {}
        self._calls: set[asyncio.Task[None]] = set()
        self._is_due = False
        #: The owner may know nothing (any more) of what is awaited: it answered, and named no end.
        self._is_in_doubt = False

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

    async def wait_ended(self, execution_id: str) -> Ending | None:
        """Return when an execution has ended there, or is not there, or nobody can say.

        How it has ended, if the owner has told.
        """
        end = self._awaited.get(execution_id)
        if end is None:
            end = _End(asyncio.get_running_loop().create_future())
            self._awaited[execution_id] = end
            self._untold[execution_id] = None
            self._be_due()
        end.waiters += 1
        try:
            return await asyncio.shield(end.heard)
        finally:
            end.waiters -= 1
            if not end.waiters and self._awaited.get(execution_id) is end:
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
        news = self._take_news() if has_news else self._ask_on()
        # In a context of its own: what is submitted in a request's is cancelled with the request.
        call = asyncio.get_running_loop().create_task(
            self._call(news), context=contextvars.Context()
        )
        self._calls.add(call)
        call.add_done_callback(self._called)

    def _take_news(self) -> News:
        """As much as may go by one call; nothing of an execution goes before its start."""
        count = self._starts_for_one_call()
        starts, self._starts = self._starts[:count], self._starts[count:]
        later = {start.execution_id for start in self._starts}
        awaited = [each for each in self._untold if each not in later]
        nudges = [each for each in self._nudges if each not in later]
        self._untold = {each: None for each in self._untold if each in later}
        self._nudges = {each: None for each in self._nudges if each in later}
        return News(starts, awaited, nudges)

    def _starts_for_one_call(self) -> int:
        size = 0
        for count, start in enumerate(self._starts[:_STARTS_MAX]):
            size += start.size
            if count and size > _START_BYTES_MAX:
                return count
        return _STARTS_MAX

    def _ask_on(self) -> News:
        # A replica that stood still for long has been forgotten: it must not wait for nothing.
        return News(awaited=list(self._awaited)) if self._is_in_doubt else News()

    async def _call(self, news: News) -> None:
        ended: Sequence[Ended] = ()
        try:
            async with asyncio.timeout(_SILENT_S):
                ended = await self._exchange(news)
            self._is_in_doubt = not ended
        except (LineCut, TimeoutError):
            self._let_all_go()
        except Exception:
            # By a defect of ours; who waits must not pay for it.
            _log.exception("an owner could not be told")
            self._let_all_go()
        for execution_id, ending in ended:
            self._heard_of(execution_id, ending)

    def _let_all_go(self) -> None:
        self._untold.clear()
        for execution_id in list(self._awaited):
            self._heard_of(execution_id)

    def _heard_of(self, execution_id: str, ending: Ending | None = None) -> None:
        end = self._awaited.pop(execution_id, None)
        if end is not None and not end.heard.done():
            end.heard.set_result(ending)

    def _called(self, call: asyncio.Task[None]) -> None:
        self._calls.discard(call)
        if not call.cancelled():
            self._go()


@dataclass(slots=True)
class _Replica:
    """What one replica waits for, and its call that waits."""

    awaited: dict[str, None] = field(default_factory=dict)
    ended: list[Ended] = field(default_factory=list)
    #: Replaced by each call, and set when its wait is over.
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    heard_s: float = 0.0


class StartLines:
    """The owner's end of the lines of all replicas."""

    def __init__(
        self,
        begin: Callable[[Start], Awaitable[None]],
        wait_ended: Callable[[str], Awaitable[Ending | None]],
        nudge: Callable[[str], Awaitable[None]],
    ) -> None:
        """What is done with what replicas tell.

        `begin` takes an execution on; `wait_ended` returns when one has ended or is not here,
        and how, if that is known;
        `nudge` looks into an inbox.
        """
        self._begin = begin
        self._wait_ended = wait_ended
        self._nudge = nudge
        #: Executions that are being begun: whatever else is told of them comes behind that.
        self._beginning: dict[str, asyncio.Event] = {}
        #: Executions that were nudged lately, and were not being begun then.
        self._nudged: OrderedDict[str, None] = OrderedDict()
        self._replicas: dict[str, _Replica] = {}
        self._background = BackgroundTasks(_could_not_follow)

    async def exchange(self, replica: str, news: News) -> Sequence[Ended]:
        """See `Exchange`. A call ends the wait of the one before on the same line."""
        known = self._known(replica)
        known.wake.set()
        wake = known.wake = asyncio.Event()
        for start in news.starts:
            former = self._beginning.get(start.execution_id)
            begun = self._beginning[start.execution_id] = asyncio.Event()
            self._background.spawn(self._run(start, former, begun))
        fresh = [each for each in news.awaited if each not in known.awaited]
        known.awaited |= dict.fromkeys(fresh)
        for execution_id in fresh:
            self._background.spawn(self._await(execution_id, known))
        for execution_id in news.nudges:
            self._background.spawn(self._look_into(execution_id))
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
        await self._background.close()

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

    async def _run(self, start: Start, former: asyncio.Event | None, begun: asyncio.Event) -> None:
        try:
            if former is not None:
                # Started again by who had no answer: the first one may be at it still, or fail.
                await former.wait()
            await self._begin(start)
            if start.execution_id in self._nudged:
                # The call with the nudge has overtaken the one with the start.
                del self._nudged[start.execution_id]
                await self._nudge(start.execution_id)
        finally:
            if self._beginning.get(start.execution_id) is begun:
                del self._beginning[start.execution_id]
            begun.set()

    async def _until_begun(self, execution_id: str) -> None:
        begun = self._beginning.get(execution_id)
        if begun is not None:
            await begun.wait()

    async def _await(self, execution_id: str, replica: _Replica) -> None:
        ending: Ending | None = None
        try:
            await self._until_begun(execution_id)
            ending = await self._wait_ended(execution_id)
        finally:
            replica.awaited.pop(execution_id, None)
            replica.ended.append((execution_id, ending))
            replica.wake.set()

    async def _look_into(self, execution_id: str) -> None:
        if execution_id not in self._beginning:
            self._nudged[execution_id] = None
            while len(self._nudged) > _NUDGED_KEPT:
                self._nudged.popitem(last=False)
        await self._until_begun(execution_id)
        await self._nudge(execution_id)


def _could_not_follow(error: BaseException) -> None:
    # Whoever looks around finds what is his and was never begun, and what lies in inboxes.
    _log.warning("what a replica told cannot be followed now: %r", error)
