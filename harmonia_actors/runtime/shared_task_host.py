"""Runs async attempts side by side on one loop: what the shared task actor is inside.

A thread watches the loop: an action that blocks it holds up all others, so it is named in the log,
and if one of those attempts is to stop, the dispatcher ends the whole process after the grace.
This module must not know Ray.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Sequence

from harmonia_actors.core import stimuli as st
from harmonia_actors.runtime.attempt_context import LiveAttempt
from harmonia_actors.runtime.attempt_runner import AttemptRunner
from harmonia_actors.runtime.orders import AttemptId, AttemptOrder, Found, Report
from harmonia_actors.runtime.task_host import Epochs, HeldOutcomes, Send, TaskHostLimits

__all__ = ["SharedTaskHost"]

_log = logging.getLogger(__name__)

_BLOCKED_S = 1.0


class SharedTaskHost:
    """Runs many attempts at a time. All methods are called on the loop."""

    def __init__(self, runner: AttemptRunner, limits: TaskHostLimits, send: Send) -> None:
        self._runner = runner
        self._limits = limits
        self._send = send
        self._live: dict[AttemptId, tuple[LiveAttempt, asyncio.Task[st.AttemptStimulus]]] = {}
        self._owner_of: dict[str, str] = {}
        self._unsent: dict[str, list[Report]] = {}
        #: How often unsent reports have left; a start that was queued before has left with them.
        self._sendings = 0
        self._flush: asyncio.TimerHandle | None = None
        self._held = HeldOutcomes(limits.held_outcomes_max, limits.held_bytes_max)
        self._epochs = Epochs()
        self._beat_s = time.monotonic()
        self._loop = asyncio.get_running_loop()
        self._beating = self._loop.create_task(self._beat())
        threading.Thread(target=self._watch, daemon=True).start()

    async def run(self, owner: str, orders: Sequence[AttemptOrder]) -> tuple[list[Report], float]:
        """Run a batch; outcomes are told as they come, so that nothing is left to return."""
        started_s = time.perf_counter()
        tasks = []
        for order in orders:
            if not self._epochs.admits(order.execution_id, order.epoch):
                _log.warning("refused %s: its owner has been superseded", order.id)
            elif order.id not in self._live:
                self._owner_of[order.execution_id] = owner
                tasks.append(self._begin(order))
        if tasks:
            await asyncio.wait(tasks)
        self._sendings += 1
        unsent = self._unsent.pop(owner, [])
        return unsent, time.perf_counter() - started_s

    async def settled(self, attempts: Sequence[AttemptId]) -> list[Report]:
        """Wait until these have ended; their outcomes."""
        tasks = [self._live[attempt][1] for attempt in attempts if attempt in self._live]
        if tasks:
            await asyncio.wait(tasks)
        return self._held.of_attempts(attempts)

    def stop(self, attempt: AttemptId, *, only_waiting: bool) -> bool:
        """Stop an attempt. False: it has started, as all do at once here."""
        known = self._live.get(attempt)
        if known is not None and not only_waiting:
            live, task = known
            live.cancel()
            # Not at once: a task that is cancelled before its first step leaves no outcome.
            self._loop.call_soon(task.cancel)
        return False

    def take_back(self) -> list[AttemptId]:
        """Nothing waits here."""
        return []

    def census(
        self, execution_id: str, epoch: int, owner: str
    ) -> tuple[list[AttemptId], list[Report]]:
        """As `census_of_all`, of one execution."""
        return self.census_of_all([(execution_id, epoch)], owner).get(execution_id, ([], []))

    def census_of_all(self, asked: Sequence[tuple[str, int]], owner: str) -> Found:
        """The new owner of executions, with their epochs, asks: what runs and what has ended."""
        mine = {execution for execution, epoch in asked if self._epochs.admits(execution, epoch)}
        found: Found = {each: ([], held) for each in mine if (held := self._held.of(each))}
        for attempt in self._live:
            if attempt[0] in mine:
                self._owner_of[attempt[0]] = owner
                found.setdefault(attempt[0], ([], []))[0].append(attempt)
        return found

    def cancel_all(self) -> None:
        """The process is about to end."""
        for live, task in list(self._live.values()):
            live.cancel()
            task.cancel()

    # -------------------------------------------------------------------------------------------

    def _begin(self, order: AttemptOrder) -> asyncio.Task[st.AttemptStimulus]:
        live = LiveAttempt(
            order,
            workspace=self._runner.workspace_of,
            allowed_commands=self._limits.allowed_commands,
            report=self._queue_from_anywhere,
            progress_interval_ms=self._limits.progress_interval_ms,
        )
        now_ms = self._runner.clock.now_ms()
        stimulus = st.AttemptStarted(order.task, order.attempt, now_ms)
        started = Report(order.execution_id, stimulus)
        self._queue(started)
        task = self._loop.create_task(self._run_one(order, live, started, self._sendings))
        self._live[order.id] = (live, task)
        return task

    async def _run_one(
        self, order: AttemptOrder, live: LiveAttempt, started: Report, sendings: int
    ) -> st.AttemptStimulus:
        try:
            outcome = await self._runner.run_async(order, live)
        except asyncio.CancelledError:
            now_ms = self._runner.clock.now_ms()
            outcome = st.AttemptStopped(order.task, order.attempt, now_ms)
        ended = Report(order.execution_id, outcome)
        self._live.pop(order.id, None)
        self._held.keep(order.id, started, ended)
        if self._sendings != sendings:
            self._queue(started)
        progress = live.last_progress()
        if progress is not None:
            self._queue(progress)
        self._queue(ended)
        return outcome

    def _queue_from_anywhere(self, report: Report) -> None:
        self._loop.call_soon_threadsafe(self._queue, report)

    def _queue(self, report: Report) -> None:
        owner = self._owner_of.get(report.execution_id, "")
        self._unsent.setdefault(owner, []).append(report)
        if self._flush is None:
            delay_s = min(2, self._limits.start_report_ms) / 1000
            self._flush = self._loop.call_later(delay_s, self._send_all)

    def _send_all(self) -> None:
        self._flush = None
        self._sendings += 1
        unsent, self._unsent = self._unsent, {}
        for owner, reports in unsent.items():
            try:
                self._send(owner, reports)
            except Exception:
                # The owner is gone; its successor asks by census.
                _log.exception("reports could not be told to %s", owner)
        if not self._live:
            self._owner_of.clear()
        for live, _ in self._live.values():
            live.flush()

    async def _beat(self) -> None:
        while True:
            self._beat_s = time.monotonic()
            await asyncio.sleep(_BLOCKED_S / 4)

    def _watch(self) -> None:
        while True:
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
