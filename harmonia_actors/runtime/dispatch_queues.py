"""What a dispatcher keeps: a queue for each class of attempts, and who was given what.

The dispatcher alone changes them; a held task actor is asked again here where a call to it fails.
This module must not know Ray.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from harmonia_actors.core.stimuli import AttemptReturned
from harmonia_actors.runtime.orders import AttemptId, AttemptOrder, QueueKey, Report
from harmonia_actors.runtime.ports import Lease, TaskActorDied
from harmonia_actors.runtime.silence import Patience, ask

__all__ = ["AttemptQueue", "DispatchLimits", "Held", "why_dead"]

_log = logging.getLogger(__name__)

#: Who was not heard is told again after this pause, as long as nothing else ends it.
_AGAIN_S = 0.2
#: Longest pause between two questions to a task actor that cannot be reached.
_ASK_AGAIN_S_MAX = 1.0


@dataclass(frozen=True, slots=True)
class DispatchLimits:
    """How attempts are batched and stopped."""

    batch_target_ms: int = 20
    batch_attempts_max: int = 256
    batch_bytes_max: int = 8_000_000
    shared_attempts_max: int = 1_000
    cancel_grace_ms: int = 3_000
    #: An idle lease is kept this long for the next attempt.
    linger_ms: int = 200
    #: A lease that others need is kept so long all the same while there is work for it: to hand it
    #: on costs more than a small task.
    turn_ms: int = 20
    #: Attempts are said to be waiting if there is no task actor for them after this time.
    waiting_after_ms: int = 1_000
    #: A task actor that lives and cannot be reached for so long, try after try, counts as dead.
    unreachable_s_max: float = 60.0

    @property
    def patience(self) -> Patience:
        """How a task actor is asked what must be known of it."""
        return Patience(again_s_max=_ASK_AGAIN_S_MAX, silent_s_max=self.unreachable_s_max)


@dataclass(eq=False, slots=True)
class Held:
    """A leased task actor and what it has been given."""

    lease: Lease
    key: QueueKey
    #: When it was had.
    since_ms: int = 0
    given: dict[AttemptId, AttemptOrder] = field(default_factory=dict)
    started: set[AttemptId] = field(default_factory=set)
    #: Attempts that are to stop: if they are taken back meanwhile, they do not start elsewhere.
    stopping: set[AttemptId] = field(default_factory=set)
    #: Held while attempts are on their way back: until then they are not lost.
    taking_back: asyncio.Lock = field(default_factory=asyncio.Lock)
    #: How often they are being asked for. Meanwhile nothing is given: an answer that was lost is
    #: given once more, and must not be taken for one about what came later.
    asking_back: int = 0
    #: Attempts for whose sake the process was ended.
    killed_for: set[AttemptId] = field(default_factory=set)
    batches: int = 0
    linger: asyncio.TimerHandle | None = None
    dead: bool = False

    @property
    def is_idle(self) -> bool:
        """Whether it may be given back: a question that is under way would go to another's work."""
        return not (self.given or self.batches or self.asking_back)

    def expects(self, report: Report) -> bool:
        """Whether a report is of what was given here: what comes back may be late, or twice."""
        if not isinstance(report.stimulus, AttemptReturned):
            return True
        order = self.given[report.attempt_id]
        return report.returned_from == (order.epoch, order.number)

    async def stop(self, attempt: AttemptId, *, only_waiting: bool) -> bool:
        """Tell the actor to stop an attempt until it has heard; True if it had not started.

        A call that fails says nothing: the actor may live, and what runs there may run for ever.
        """
        while attempt in self.given:
            try:
                return await self.lease.actor.stop(attempt, only_waiting=only_waiting)
            except TaskActorDied:
                await asyncio.sleep(_AGAIN_S)
        return False

    async def take_back(self, patience: Patience) -> Sequence[AttemptId]:
        """What the actor gives back, asked for until it answers; it may have given back before."""
        actor = self.lease.actor

        async def give_back() -> Sequence[AttemptId]:
            return () if self.dead or not self.given else await actor.take_back()

        try:
            return await ask(give_back, patience, f"task actor {actor.name}")
        except TaskActorDied:
            return ()

    async def settled(self, orders: Sequence[AttemptOrder], patience: Patience) -> Sequence[Report]:
        """Outcomes of attempts, once they have ended; asked for until there is an answer."""
        actor, attempts = self.lease.actor, [each.id for each in orders]
        return await ask(lambda: actor.settled(attempts), patience, f"task actor {actor.name}")

    def waits(self, follows: Callable[[AttemptId], bool]) -> bool:
        """Whether something waits here that could run elsewhere; what follows another cannot."""
        return any(each not in self.started and not follows(each) for each in self.given)


@dataclass(eq=False, slots=True)
class AttemptQueue:
    """Attempts of one class that wait, and the task actors that are leased for them."""

    key: QueueKey
    order: deque[AttemptId] = field(default_factory=deque)
    waiting: dict[AttemptId, AttemptOrder] = field(default_factory=dict)
    held: list[Held] = field(default_factory=list)
    acquiring: bool = False
    #: The question for more of them that is under way.
    asking: asyncio.Future[Sequence[Lease]] | None = None
    #: Leases that others need: given back as soon as they are idle.
    recalled: int = 0
    told_waiting: set[AttemptId] = field(default_factory=set)

    def drop(self, attempt: AttemptId) -> bool:
        """Nobody wants it started any more. False if it does not wait here."""
        if self.waiting.pop(attempt, None) is None:
            return False
        self.told_waiting.discard(attempt)
        if not self.waiting:
            self.order.clear()
            if self.asking is not None:
                # Where there is no task actor of the class, one would be wanted until there is.
                self.asking.cancel()
        return True


def why_dead(error: Exception) -> str:
    """Why nothing more is expected of a task actor.

    Any other error than its death means that its answer cannot be understood: what it was given
    counts as lost all the same, because attempts of which nobody ever hears would hang for ever.
    """
    if not isinstance(error, TaskActorDied):
        _log.error("a task actor's answer was lost: %r", error, exc_info=error)
    return str(error)
