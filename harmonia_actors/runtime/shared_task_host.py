"""Runs async attempts side by side on one loop: what the shared task actor is inside.

All owners share it, so it is here that the number of attempts that run at a time is bounded; what
is beyond waits its turn, and can be stopped and taken back like what waits in a `TaskHost`.

A thread watches the loop: an action that blocks it holds up all others, so it is named in the log,
and if one of those attempts is to stop, the dispatcher ends the whole process after the grace.
This module must not know Ray.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

from harmonia_actors.core import stimuli as st
from harmonia_actors.runtime.attempt_context import LiveAttempt
from harmonia_actors.runtime.attempt_runner import AttemptRunner
from harmonia_actors.runtime.orders import AttemptId, AttemptOrder, Found, Report
from harmonia_actors.runtime.stale import NoteStale, unnoted
from harmonia_actors.runtime.stopped_early import StoppedEarly
from harmonia_actors.runtime.task_host import Epochs, HeldOutcomes, Send, TaskHostLimits

__all__ = ["WATCHING", "SharedTaskHost", "told_after_s"]

_log = logging.getLogger(__name__)

_BLOCKED_S = 1.0
#: Executions that are here no more, and whose owner is remembered: they are sorted out seldom.
_OWNERS_KEPT = 1_000
#: Reports wait so long to be told, at least and at most; between, so long for each live attempt.
_FLUSH_LEAST_S = 0.002
_FLUSH_PER_LIVE_S = 0.000_02
_FLUSH_MOST_S = 0.02

#: The name of the thread that tells when an action blocks the loop.
WATCHING = "harmonia-watching"

_T = TypeVar("_T")


def told_after_s(live: int, limits: TaskHostLimits) -> float:
    """How long reports wait for others: the more attempts live, the more are told by one call."""
    least_s = min(_FLUSH_LEAST_S, limits.start_report_ms / 1000)
    return max(least_s, min(live * _FLUSH_PER_LIVE_S, _FLUSH_MOST_S))


class SharedTaskHost:
    """Runs many attempts at a time. All methods but `asked` are called on the loop.

    `watched` is False where time does not pass by itself, so that a thread has nothing to watch.
    """

    def __init__(
        self,
        runner: AttemptRunner,
        limits: TaskHostLimits,
        send: Send,
        *,
        watched: bool = True,
        note_stale: NoteStale = unnoted,
    ) -> None:
        self._runner = runner
        self._limits = limits
        self._send = send
        self._note_stale = note_stale
        self._live: dict[AttemptId, tuple[LiveAttempt, asyncio.Task[st.AttemptStimulus]]] = {}
        #: Attempts that have not begun, in the order in which they will.
        self._waiting: dict[AttemptId, AttemptOrder] = {}
        #: Of all attempts that are here, live or waiting: done when they have ended or are gone.
        self._ends: dict[AttemptId, asyncio.Future[None]] = {}
        #: Attempts that were stopped before they came.
        self._stopped_early = StoppedEarly()
        self._owner_of: dict[str, str] = {}
        #: What is to be told, by owner and attempt.
        self._unsent: dict[str, dict[AttemptId, list[Report]]] = {}
        self._flush: asyncio.TimerHandle | None = None
        self._held = HeldOutcomes(limits.held_outcomes_max, limits.held_bytes_max)
        self._epochs = Epochs()
        self._beat_s = time.monotonic()
        self._loop = asyncio.get_running_loop()
        self._beating = self._loop.create_task(self._beat())
        if watched:
            threading.Thread(target=self._watch, name=WATCHING, daemon=True).start()

    async def run(self, owner: str, orders: Sequence[AttemptOrder]) -> tuple[list[Report], float]:
        """Run a batch; returns what of it has not been told yet, and the seconds it took.

        Nothing of others: if the answer is lost, only what was to be in it is asked for.
        """
        started_s = time.perf_counter()
        ends = []
        for order in orders:
            if not self._epochs.admits(order.execution_id, order.epoch):
                _log.warning("refused %s: its owner has been superseded", order.id)
                self._note_stale("orders_refused", 1)
            elif self._stopped_early.take(order.id):
                continue
            elif order.id not in self._ends:
                self._owner_of[order.execution_id] = owner
                self._waiting[order.id] = order
                ends.append(self._ends.setdefault(order.id, self._loop.create_future()))
        self._begin_next()
        if ends:
            await asyncio.wait(ends)
        unsent = self._unsent.get(owner, {})
        mine = [report for order in orders for report in unsent.pop(order.id, ())]
        return mine, time.perf_counter() - started_s

    async def settled(self, attempts: Sequence[AttemptId]) -> list[Report]:
        """Wait until these have ended, or all that are here if none are named; their outcomes."""
        wanted = attempts or list(self._ends)
        ends = [self._ends[attempt] for attempt in wanted if attempt in self._ends]
        if ends:
            await asyncio.wait(ends)
        return self._held.of_attempts(attempts)

    def stop(self, attempt: AttemptId, *, only_waiting: bool) -> bool:
        """Stop an attempt. True if it had not started: it never will."""
        if attempt in self._waiting:
            self._drop(attempt)
            return True
        known = self._live.get(attempt)
        if known is None and not self._held.of_attempts([attempt]):
            # This call has overtaken the one that brings the attempt.
            self._stopped_early.add(attempt)
            return True
        if known is not None and not only_waiting:
            live, task = known
            live.cancel()
            # Not at once: a task that is cancelled before its first step leaves no outcome.
            self._loop.call_soon(task.cancel)
        return False

    def take_back(self) -> list[AttemptId]:
        """Give back all that has not started."""
        attempts = list(self._waiting)
        for attempt in attempts:
            self._drop(attempt)
        return attempts

    def census(
        self, execution_id: str, epoch: int, owner: str
    ) -> tuple[list[AttemptId], list[Report]]:
        """As `census_of_all`, of one execution."""
        return self.census_of_all([(execution_id, epoch)], owner).get(execution_id, ([], []))

    def census_of_all(self, asked: Sequence[tuple[str, int]], owner: str) -> Found:
        """The new owner of executions, with their epochs, asks: what runs and what has ended."""
        mine = dict.fromkeys(one for one, epoch in asked if self._epochs.admits(one, epoch))
        self._stopped_early.forget(mine)
        for attempt in [each for each in self._waiting if each[0] in mine]:
            self._drop(attempt)
        found: Found = {each: ([], held) for each in mine if (held := self._held.of(each))}
        for attempt, (live, _) in self._live.items():
            if attempt[0] in mine:
                self._owner_of[attempt[0]] = owner
                running, told = found.setdefault(attempt[0], ([], []))
                running.append(attempt)
                told += live.lines_again()
        return found

    def cancel_all(self) -> None:
        """The process is about to end."""
        self.take_back()
        for live, task in list(self._live.values()):
            live.end()
            task.cancel()

    async def asked(self, question: Callable[[SharedTaskHost], _T]) -> _T:
        """What a call on the loop answers, for whoever is on another loop in another thread."""

        async def answer() -> _T:
            return question(self)

        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(answer(), self._loop))

    # -------------------------------------------------------------------------------------------

    def _begin_next(self) -> None:
        """Begin what waits, as far as there is room."""
        while self._waiting and len(self._live) < self._limits.live_attempts_max:
            self._begin(self._waiting.pop(next(iter(self._waiting))))

    def _drop(self, attempt: AttemptId) -> None:
        """What waits will never begin."""
        del self._waiting[attempt]
        self._ends.pop(attempt).set_result(None)

    def _ended(self, attempt: AttemptId) -> None:
        self._live.pop(attempt, None)
        self._ends.pop(attempt).set_result(None)
        self._begin_next()

    def _begin(self, order: AttemptOrder) -> None:
        live = LiveAttempt(
            order,
            workspace=self._runner.workspace_of,
            allowed_commands=self._limits.allowed_commands,
            report=self._queue_from_anywhere,
            progress_interval_ms=self._limits.progress_interval_ms,
            log_limits=self._limits.log,
            flush_later=self._flush_from_anywhere,
            clock=self._runner.clock,
        )
        now_ms = self._runner.clock.now_ms()
        stimulus = st.AttemptStarted(order.task, order.attempt, now_ms)
        started = Report(order.execution_id, stimulus)
        self._queue(started)
        task = self._loop.create_task(self._run_one(order, live, started))
        self._live[order.id] = (live, task)
        task.add_done_callback(lambda _: self._ended(order.id))

    async def _run_one(
        self, order: AttemptOrder, live: LiveAttempt, started: Report
    ) -> st.AttemptStimulus:
        try:
            outcome = await self._runner.run_async(order, live)
        except asyncio.CancelledError:
            outcome = self._runner.stopped(order, live)
        ended = Report(order.execution_id, outcome)
        self._live.pop(order.id, None)
        closing = [started, *live.last_reports(), ended]
        self._held.keep(order.id, closing)
        unsent = self._unsent_of(order.id)
        # What was told before may be behind what comes now: the start is told with it once more.
        for report in closing[1:] if unsent and unsent[0] is started else closing:
            self._queue(report)
        return outcome

    def _queue_from_anywhere(self, report: Report) -> None:
        self._loop.call_soon_threadsafe(self._queue, report)

    def _flush_from_anywhere(self, live: LiveAttempt, after_s: float) -> None:
        self._loop.call_soon_threadsafe(self._loop.call_later, after_s, self._flush_live, live)

    def _flush_live(self, live: LiveAttempt) -> None:
        left_s = live.flush()
        if left_s is not None:
            self._loop.call_later(left_s, self._flush_live, live)

    def _queue(self, report: Report) -> None:
        self._unsent_of(report.attempt_id).append(report)
        if self._flush is None:
            self._flush = self._loop.call_later(
                told_after_s(len(self._live), self._limits), self._send_all
            )

    def _unsent_of(self, attempt: AttemptId) -> list[Report]:
        owner = self._owner_of.get(attempt[0], "")
        return self._unsent.setdefault(owner, {}).setdefault(attempt, [])

    def _send_all(self) -> None:
        self._flush = None
        unsent, self._unsent = self._unsent, {}
        for owner, by_attempt in unsent.items():
            reports = [report for each in by_attempt.values() for report in each]
            if not reports:
                continue
            try:
                self._send(owner, reports)
            except Exception:
                # The owner is gone; its successor asks by census.
                _log.exception("reports could not be told to %s", owner)
        if len(self._owner_of) > 2 * len(self._ends) + _OWNERS_KEPT:
            here = {attempt[0] for attempt in self._ends}
            self._owner_of = {each: own for each, own in self._owner_of.items() if each in here}

    async def _beat(self) -> None:
        while True:
            self._beat_s = time.monotonic()
            await asyncio.sleep(_BLOCKED_S / 4)

    def _watch(self) -> None:
        # A loop that is over is blocked by nobody, and a thread that outlived it would wake for
        # nothing for ever.
        while not self._loop.is_closed():
            time.sleep(_BLOCKED_S / 2)
            blocked_s = time.monotonic() - self._beat_s
            if blocked_s > _BLOCKED_S and self._live:
                names = {
                    f"{v[0].order.component}.{v[0].order.action}" for v in list(self._live.values())
                }
                _log.warning(
                    "an async action blocks all others for %.1f s; running: %s. "
                    "Make it a plain `def`, or let it await.",
                    blocked_s,
                    ", ".join(sorted(names)[:10]),
                )
