"""Hands attempts to task actors: queues by class, batches by duration, stops in steps.

One dispatcher serves all executions of an execution actor. It leases task actors, gives each a
batch that should take some milliseconds (by how long its actions took before), takes back what
waits behind an attempt that turns out to be long, and ends the process of one that does not stop.
Every start and every stop is answered by exactly one final report or by its loss.
This module must not know Ray.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from harmonia_actors.core import stimuli as st
from harmonia_actors.core.commands import StopReason
from harmonia_actors.runtime.background import BackgroundTasks
from harmonia_actors.runtime.batching import next_batch
from harmonia_actors.runtime.dispatch_queues import AttemptQueue, DispatchLimits, Held, why_dead
from harmonia_actors.runtime.durations import Durations
from harmonia_actors.runtime.orders import AttemptId, AttemptOrder, QueueKey, Report
from harmonia_actors.runtime.ports import (
    Clock,
    Lease,
    LeaseSource,
    TaskActorDied,
    TaskActorUnreachable,
    Unplaceable,
)
from harmonia_actors.runtime.silence import unless_silent
from harmonia_actors.runtime.stale import NoteStale, unnoted
from harmonia_actors.runtime.turns import Turns, members_of, ran_of

__all__ = ["DispatchLimits", "Dispatcher"]

_log = logging.getLogger(__name__)

#: Leases asked for at once, at most.
_WANT_MAX = 256
#: Attempts told to be waiting, at most, per queue.
_TOLD_WAITING_MAX = 100
#: Pause after a request for task actors that failed, and until what may not be given out is tried.
_AGAIN_S = 0.2


class Dispatcher:
    """Implements the port Attempts over leased task actors."""

    def __init__(
        self,
        *,
        leases: LeaseSource[Any],
        tell: Callable[[Sequence[Report]], None],
        clock: Clock,
        limits: DispatchLimits,
        note_stale: NoteStale = unnoted,
        may_give: Callable[[], bool] = lambda: True,
    ) -> None:
        """`may_give`: whether the owner is certain to be one still."""
        self._leases = leases
        self._tell = tell
        self._clock = clock
        self._limits = limits
        self._note_stale = note_stale
        self._may_give = may_give
        self._queues: dict[QueueKey, AttemptQueue] = {}
        #: Queues that have got something since they were last looked at, soon to be.
        self._touched: dict[QueueKey, None] = {}
        self._is_due = False
        self._at: dict[AttemptId, Held] = {}
        self._ended: dict[AttemptId, asyncio.Event] = {}
        self._turns = Turns()
        self._durations = Durations()
        self._background = BackgroundTasks(_log_unexpected)
        self._closed = False

    # The port ----------------------------------------------------------------------------------

    def start(self, orders: Sequence[AttemptOrder]) -> None:
        """Queue attempts; they are given out together with those of others that start just now."""
        for order in orders:
            queue = self._queues.get(order.key)
            if queue is None:
                queue = self._queues[order.key] = AttemptQueue(order.key)
            if order.id not in queue.waiting and order.id not in self._at:
                queue.waiting[order.id] = order
                queue.order.append(order.id)
            self._touched[order.key] = None
        if not self._is_due:
            self._is_due = True
            asyncio.get_running_loop().call_soon(self._pump_touched)

    def stop(self, attempt: AttemptId, reason: StopReason) -> None:
        """Take an attempt back, or stop it where it runs."""
        for queue in self._queues.values():
            if queue.drop(attempt):
                self._report_stopped(attempt)
                return
        held = self._at.get(attempt)
        if held is None:
            self._report_stopped(attempt)
        else:
            held.stopping.add(attempt)
            self._spawn(self._stop_at(held, attempt, reason))

    def forget(self, execution_id: str) -> None:
        """Drop what has not been given out of an execution that has another owner."""
        for queue in self._queues.values():
            for attempt in [a for a in queue.waiting if a[0] == execution_id]:
                queue.drop(attempt)
        # What follows another one will not start either, nor elsewhere what comes back: it would be
        # under the former epoch.
        mine = [(a, held) for a, held in self._at.items() if a[0] == execution_id]
        for attempt, held in mine:
            held.stopping.add(attempt)
        for attempt, held in [each for each in mine if self._turns.follows(each[0])]:
            self._forget_given(held, attempt)

    # What others tell --------------------------------------------------------------------------

    def reported(self, reports: Sequence[Report]) -> None:
        """A task actor tells of attempts while their batch still runs."""
        # In the order of the reports: what follows must not depend on where objects lie in memory.
        touched: dict[Held, None] = {}
        known = []
        for report in list(self._turns.in_order(reports)):
            attempt = report.attempt_id
            held = self._at.get(attempt)
            if held is None or not held.expects(report):
                # Late, doubled or forged: nothing runs here under its name, or has not told that.
                self._note_stale("reports_ignored", 1)
                continue
            known.append(report)
            touched[held] = None
            if isinstance(report.stimulus, st.AttemptStarted):
                held.started.add(attempt)
            elif not isinstance(report.stimulus, st.MIDWAY):
                self._forget_given(held, attempt)
        if known:
            self._tell(known)
        for held in touched:
            if held.key.shared:
                # Others of the same batch may go on for long; the room is free now.
                queue = self._queues.get(held.key)
                if queue is not None:
                    self._pump(queue)
            elif held.started and held.waits(self._turns.follows):
                held.asking_back += 1
                self._spawn(self._take_back(held))

    def recall(self, key: QueueKey, count: int) -> None:
        """Others need task actors of this class: give back `count` as soon as they are idle."""
        for queue in [q for q in self._queues.values() if q.key.same_class(key)]:
            wanted = min(len(queue.held) - queue.recalled, count)
            queue.recalled += wanted
            count -= wanted
            for held in list(queue.held):
                if queue.recalled and held.is_idle:
                    self._give_back(queue, held)

    def adopt(self, lease: Lease, attempts: Sequence[AttemptId]) -> None:
        """Attempts of a former owner that run on an actor which this dispatcher did not lease.

        They can be stopped from here on, and their loss is noticed; the actor itself is not ours.
        """
        held = Held(lease, QueueKey(shared=True))
        orders = []
        for execution_id, task, number in attempts:
            order = AttemptOrder(
                execution_id, "", 0, task, "", number, "", "", b"", QueueKey(shared=True)
            )
            former = self._at.get(order.id)
            if former is not None:
                # Given out by this very dispatcher, for a driver that is no more.
                self._forget_given(former, order.id)
            held.given[order.id] = order
            held.started.add(order.id)
            self._at[order.id] = held
            orders.append(order)
        self._spawn(self._await_adopted(held, orders))

    async def _await_adopted(self, held: Held, orders: list[AttemptOrder]) -> None:
        try:
            reports = await held.settled(orders, self._limits.patience)
            self._take_outcomes(held, reports)
            await self._ask_for_missing(held, orders)
        except Exception as error:
            # It may live, and what counts as lost run on there: whoever has it ends it.
            self._leases.lost(held.lease)
            self._report_dead(held, why_dead(error))

    async def close(self) -> None:
        """Hand out nothing more, and wait for nothing more."""
        self._closed = True
        await self._background.close()

    def idle(self) -> bool:
        """True if nothing waits and nothing runs."""
        return not self._at and not any(queue.waiting for queue in self._queues.values())

    # Giving out --------------------------------------------------------------------------------

    def _pump_touched(self) -> None:
        # Executions whose commits land together start what follows in one turn of the loop, and
        # each call to a task actor costs more than what it carries.
        self._is_due = False
        touched, self._touched = self._touched, {}
        for key in touched:
            queue = self._queues.get(key)
            if queue is not None and not self._closed:
                self._pump(queue)

    def _pump(self, queue: AttemptQueue) -> None:
        if queue.waiting and not self._may_give():
            # A successor may have counted it as lost; the store says so or not, before long.
            self._touched[queue.key] = None
            if not self._is_due:
                self._is_due = True
                asyncio.get_running_loop().call_later(_AGAIN_S, self._pump_touched)
            return
        for held in list(queue.held):
            if not queue.waiting:
                break
            while chunk := next_batch(queue, held, self._limits, self._durations):
                self._give(queue, held, chunk)
        if queue.waiting and not queue.acquiring and not (queue.key.shared and queue.held):
            queue.acquiring = True
            self._spawn(self._acquire(queue))

    def _give(self, queue: AttemptQueue, held: Held, chunk: list[AttemptOrder]) -> None:
        if held.linger is not None:
            held.linger.cancel()
            held.linger = None
        held.batches += 1
        for order in chunk:
            self._turns.given(order)
            queue.told_waiting.discard(order.id)
        for order in members_of(chunk):
            held.given[order.id] = order
            self._at[order.id] = held
        self._spawn(self._run(queue, held, chunk))

    async def _run(self, queue: AttemptQueue, held: Held, chunk: list[AttemptOrder]) -> None:
        try:
            # A call that fails says nothing: what became of the batch is asked for.
            with contextlib.suppress(TaskActorUnreachable):
                reports, seconds = await held.lease.actor.run(chunk)
                self._durations.learn(ran_of(chunk, reports), seconds)
                self._take_outcomes(held, reports)
            await self._ask_for_missing(held, members_of(chunk))
        except Exception as error:
            self._actor_died(queue, held, why_dead(error))
        finally:
            held.batches -= 1
            self._after_batch(queue, held)

    def _take_outcomes(self, held: Held, reports: Sequence[Report]) -> None:
        ordered = list(self._turns.in_order(reports))
        told = [r for r in ordered if self._at.get(r.attempt_id) is held and held.expects(r)]
        for report in told:
            if not isinstance(report.stimulus, st.MIDWAY):
                self._forget_given(held, report.attempt_id)
        if told:
            self._tell(told)

    async def _ask_for_missing(self, held: Held, chunk: list[AttemptOrder]) -> None:
        """A batch has ended; outcomes told before its end may still be on their way: ask again.

        Only what the task actor then knows nothing of is lost, so that nothing can hang.
        """
        missing = [order for order in chunk if self._at.get(order.id) is held]
        if not missing:
            return
        reports = await held.settled(missing, self._limits.patience)
        self._take_outcomes(held, reports)
        async with held.taking_back:
            pass
        now_ms = self._clock.now_ms()
        told = []
        # Of a stretch the last one first: what follows another one has not begun.
        for order in reversed(missing):
            if self._at.get(order.id) is held:
                self._forget_given(held, order.id)
                lost = st.AttemptLost(
                    order.task, order.attempt, now_ms, "the task actor gave no outcome"
                )
                told.append(Report(order.execution_id, lost))
        if told:
            self._tell(told)

    def _actor_died(self, queue: AttemptQueue, held: Held, why: str) -> None:
        if held.dead:
            return
        with contextlib.suppress(ValueError):
            queue.held.remove(held)
        self._leases.lost(held.lease)
        self._report_dead(held, why)

    def _report_dead(self, held: Held, why: str) -> None:
        held.dead = True
        now_ms = self._clock.now_ms()
        told = []
        for attempt, order in reversed(list(held.given.items())):
            self._forget_given(held, attempt)
            stimulus: st.Stimulus
            if attempt in held.killed_for:
                stimulus = st.AttemptStopped(order.task, order.attempt, now_ms)
            else:
                stimulus = st.AttemptLost(order.task, order.attempt, now_ms, why)
            told.append(Report(order.execution_id, stimulus))
        if told:
            self._tell(told)

    def _after_batch(self, queue: AttemptQueue, held: Held) -> None:
        if held.dead:
            self._pump(queue)
        elif queue.recalled and held.is_idle and self._had_turn(queue, held):
            self._give_back(queue, held)
            self._pump(queue)
        else:
            self._pump(queue)
            if held.is_idle and held.linger is None:
                loop = asyncio.get_running_loop()
                linger_s = self._limits.linger_ms / 1000
                held.linger = loop.call_later(linger_s, self._lingered, queue, held)

    def _had_turn(self, queue: AttemptQueue, held: Held) -> bool:
        # A clock that was set back must not make a turn last until it is there again.
        held_ms = self._clock.now_ms() - held.since_ms
        return not queue.waiting or not 0 <= held_ms < self._limits.turn_ms

    def _lingered(self, queue: AttemptQueue, held: Held) -> None:
        held.linger = None
        if held.is_idle and held in queue.held:
            self._give_back(queue, held)

    def _give_back(self, queue: AttemptQueue, held: Held) -> None:
        if held.linger is not None:
            held.linger.cancel()
        queue.held.remove(held)
        queue.recalled = max(0, queue.recalled - 1)
        self._leases.release([held.lease])
        if not queue.held and not queue.waiting and not queue.acquiring:
            self._queues.pop(queue.key, None)

    # Getting leases ----------------------------------------------------------------------------

    async def _acquire(self, queue: AttemptQueue) -> None:
        notice = asyncio.get_running_loop().create_task(self._say_who_waits(queue))
        leases: Sequence[Lease] = ()
        try:
            if want := min(len(queue.waiting), _WANT_MAX):
                queue.asking = asyncio.ensure_future(self._leases.acquire(queue.key, want))
                leases = await queue.asking
        except asyncio.CancelledError:
            if self._closed:
                raise
        except Unplaceable as error:
            self._refuse_all(queue, str(error))
            return
        except Exception:
            # Without another try, what waits here would wait until something else comes.
            _log.exception("task actors could not be asked for")
            await asyncio.sleep(_AGAIN_S)
        finally:
            notice.cancel()
            queue.acquiring, queue.asking = False, None
        now_ms = self._clock.now_ms()
        held = [Held(lease, queue.key, now_ms) for lease in leases]
        queue.held.extend(held)
        self._queues.setdefault(queue.key, queue)
        self._pump(queue)
        for one in held:
            if not one.given and not one.batches and one in queue.held:
                self._give_back(queue, one)

    async def _say_who_waits(self, queue: AttemptQueue) -> None:
        """Again and again, because more can come while the first ones wait."""
        while True:
            await asyncio.sleep(self._limits.waiting_after_ms / 1000)
            self._say_waiting(queue)

    def _say_waiting(self, queue: AttemptQueue) -> None:
        asked = queue.key.resources.describe()
        reason = f"no task actor is free that has {asked}"
        now_ms = self._clock.now_ms()
        told = []
        for attempt, order in queue.waiting.items():
            if len(queue.told_waiting) >= _TOLD_WAITING_MAX:
                break
            if attempt not in queue.told_waiting:
                queue.told_waiting.add(attempt)
                waiting = st.AttemptWaiting(order.task, order.attempt, now_ms, reason)
                told.append(Report(order.execution_id, waiting))
        if told:
            self._tell(told)

    def _refuse_all(self, queue: AttemptQueue, why: str) -> None:
        now_ms = self._clock.now_ms()
        told = []
        for order in queue.waiting.values():
            failure = st.Failure(why, "UNPLACEABLE", {}, "engine", retriable=False)
            failed = st.AttemptFailed(order.task, order.attempt, now_ms, failure)
            told.append(Report(order.execution_id, failed))
        queue.waiting.clear()
        queue.order.clear()
        queue.told_waiting.clear()
        if told:
            self._tell(told)

    # Stopping ----------------------------------------------------------------------------------

    async def _stop_at(self, held: Held, attempt: AttemptId, reason: StopReason) -> None:
        only_waiting = reason is StopReason.TAKEN_BACK
        ended = self._ended.setdefault(attempt, asyncio.Event())

        async def stopped() -> None:
            never_started = await held.stop(attempt, only_waiting=only_waiting)
            if never_started and self._at.get(attempt) is held:
                self._forget_given(held, attempt)
                self._report_stopped(attempt)
            if not (never_started or only_waiting):
                await ended.wait()

        grace_s = self._limits.cancel_grace_ms / 1000
        try:
            await unless_silent(stopped(), grace_s, self._may_give)
        except TimeoutError:
            if self._at.get(attempt) is held and not only_waiting:
                held.killed_for.add(attempt)
                _log.warning(
                    "attempt %s does not stop: ending its process", "/".join(map(str, attempt))
                )
                with contextlib.suppress(TaskActorDied):
                    await held.lease.actor.kill()
        finally:
            self._ended.pop(attempt, None)

    async def _take_back(self, held: Held) -> None:
        async with held.taking_back:
            attempts: Sequence[AttemptId] = ()
            try:
                attempts = await held.take_back(self._limits.patience)
            finally:
                held.asking_back -= 1
                self._took_back(held, attempts)

    def _took_back(self, held: Held, attempts: Sequence[AttemptId]) -> None:
        queue = self._queues.get(held.key)
        for attempt in reversed(attempts):
            order = held.given.get(attempt)
            if order is None or self._at.get(attempt) is not held:
                continue
            is_stopping = attempt in held.stopping
            for each in members_of([order]):
                if each.id in held.stopping:
                    self._report_stopped(each.id)
                self._forget_given(held, each.id)
            if is_stopping:
                continue
            if queue is None:
                queue = self._queues[held.key] = AttemptQueue(held.key, held=[held])
            queue.waiting[attempt] = order
            queue.order.appendleft(attempt)
        if queue is not None:
            self._after_batch(queue, held)

    # Small steps -------------------------------------------------------------------------------

    def _forget_given(self, held: Held, attempt: AttemptId) -> None:
        self._turns.ended(attempt)
        held.given.pop(attempt, None)
        held.started.discard(attempt)
        held.stopping.discard(attempt)
        self._at.pop(attempt, None)
        ended = self._ended.get(attempt)
        if ended is not None:
            ended.set()

    def _report_stopped(self, attempt: AttemptId) -> None:
        execution_id, task, number = attempt
        stopped = st.AttemptStopped(task, number, self._clock.now_ms())
        self._tell([Report(execution_id, stopped)])

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        if self._closed:
            coroutine.close()
            return
        self._background.spawn(coroutine)


def _log_unexpected(error: BaseException) -> None:
    _log.error("dispatcher: %r", error, exc_info=error)
