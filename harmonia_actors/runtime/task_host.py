"""Runs batches of attempts in one process, and tells how they fare: what a task actor is inside.

`TaskHost` runs `def` actions one after the other in the calling thread; `SharedTaskHost` runs
`async def` actions side by side on one loop. Both report starts at once if an attempt takes longer
than a few milliseconds, hold outcomes for a while in case the owner dies before it took them in,
and refuse orders of owners that have been superseded. What is told while a batch runs may arrive
behind what the batch returns, so an outcome comes with its start, its last lines and its last
progress, even if those were told before.
This module must not know Ray.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

from harmonia_actors.core import stimuli as st
from harmonia_actors.runtime.attempt_context import LiveAttempt
from harmonia_actors.runtime.attempt_log import LogLimits
from harmonia_actors.runtime.attempt_runner import AttemptRunner
from harmonia_actors.runtime.notes import encode_outcome
from harmonia_actors.runtime.orders import AttemptId, AttemptOrder, Found, Report
from harmonia_actors.runtime.stale import NoteStale, unnoted
from harmonia_actors.runtime.stopped_early import StoppedEarly
from harmonia_actors.runtime.stretch import Stretch
from persistence.store import InboxEntry

__all__ = ["Epochs", "HeldOutcomes", "Keep", "Send", "TaskHost", "TaskHostLimits"]

_log = logging.getLogger(__name__)

_EPOCHS_KEPT = 20_000
#: What the lines that are held with one outcome, or left in the inbox, count for, at most.
_HELD_LINES_BYTES_MAX = 16_384

#: Tells reports to the execution actor of this name.
Send = Callable[[str, Sequence[Report]], None]
#: Leaves an outcome in its execution's inbox, durably; False if that could not be done.
Keep = Callable[[AttemptOrder, InboxEntry], bool]


@dataclass(frozen=True, slots=True)
class TaskHostLimits:
    """Times and sizes of a task actor."""

    start_report_ms: int = 20
    #: Outcomes are told before the batch has ended if they are older than this.
    outcome_report_ms: int = 50
    progress_interval_ms: int = 200
    log: LogLimits = field(default_factory=LogLimits)
    held_outcomes_max: int = 10_000
    held_bytes_max: int = 32_000_000
    #: A stretch that has run for so long goes no further, so that others get their turn.
    stretch_ms: int = 50
    allowed_commands: frozenset[str] | None = None
    #: Async attempts that run at a time; others wait their turn.
    live_attempts_max: int = 1_000


@dataclass(slots=True)
class HeldOutcomes:
    """The latest outcomes, for an owner that takes over from one that died.

    Each is held with what belongs before it: the attempt's start, and its last lines and progress
    if any.
    """

    count_max: int
    bytes_max: int
    _reports: OrderedDict[AttemptId, tuple[Sequence[Report], int]] = field(
        default_factory=OrderedDict
    )
    _by_execution: dict[str, dict[AttemptId, None]] = field(default_factory=dict)
    _bytes: int = 0

    def keep(self, attempt: AttemptId, closing: Sequence[Report]) -> None:
        """Hold one more, the outcome last; the oldest go when there are too many."""
        stimulus = closing[-1].stimulus
        inline = stimulus.output.inline if isinstance(stimulus, st.AttemptSucceeded) else None
        closing = _with_few_lines(closing)
        size = sum(100 + _lines_cost(report) for report in closing) + len(inline or b"")
        if attempt in self._reports:
            self._drop(attempt)
        self._reports[attempt] = (closing, size)
        self._by_execution.setdefault(attempt[0], {})[attempt] = None
        self._bytes += size
        while len(self._reports) > self.count_max or self._bytes > self.bytes_max:
            self._drop(next(iter(self._reports)))

    def _drop(self, attempt: AttemptId) -> None:
        self._bytes -= self._reports.pop(attempt)[1]
        of_execution = self._by_execution[attempt[0]]
        del of_execution[attempt]
        if not of_execution:
            del self._by_execution[attempt[0]]

    def of(self, execution_id: str) -> list[Report]:
        """What is held of one execution."""
        return self.of_attempts(list(self._by_execution.get(execution_id, ())))

    def of_attempts(self, attempts: Sequence[AttemptId]) -> list[Report]:
        """What is held of these attempts."""
        return [report for each in attempts for report in self._reports.get(each, ((), 0))[0]]


def _lines_cost(report: Report) -> int:
    return report.stimulus.cost if isinstance(report.stimulus, st.LinesReported) else 0


def _with_few_lines(closing: Sequence[Report]) -> list[Report]:
    """What belongs to an outcome, without the older ones of very many lines."""
    kept, room = [], _HELD_LINES_BYTES_MAX
    for report in reversed(closing):
        stimulus = report.stimulus
        if isinstance(stimulus, st.LinesReported) and stimulus.lines:
            count = 0
            while count < len(stimulus.lines) and stimulus.lines[-1 - count].cost <= room:
                room -= stimulus.lines[-1 - count].cost
                count += 1
            if count < len(stimulus.lines):
                # Nor any that came before.
                room = 0
            if not count and not stimulus.last:
                # The next one says as well how many are missing.
                continue
            stimulus = stimulus.without(len(stimulus.lines) - count)
            report = replace(report, stimulus=stimulus)  # noqa: PLW2901
        kept.append(report)
    return kept[::-1]


class Epochs:
    """The highest epoch seen of each execution: orders of an earlier owner are refused."""

    def __init__(self) -> None:
        self._highest: OrderedDict[str, int] = OrderedDict()

    def is_current(self, execution_id: str, epoch: int) -> bool:
        """Whether no higher epoch was seen."""
        return epoch >= self._highest.get(execution_id, 0)

    def admits(self, execution_id: str, epoch: int) -> bool:
        """True, and remembered, unless a higher epoch was seen."""
        highest = self._highest.get(execution_id, 0)
        if epoch < highest:
            return False
        self._highest[execution_id] = epoch
        self._highest.move_to_end(execution_id)
        while len(self._highest) > _EPOCHS_KEPT:
            self._highest.popitem(last=False)
        return True


class TaskHost:
    """Runs one attempt at a time. `run` blocks; all other methods come from other threads.

    What `run` does is made of steps (`take_in`, `begin_next`, `finish`, `take_unsent`), and what
    its reporter thread does again and again is `tell_due`: whoever brings a time of his own, as
    the simulation does, takes these steps himself, and no thread is started.
    """

    def __init__(
        self,
        runner: AttemptRunner,
        limits: TaskHostLimits,
        send: Send,
        now_s: Callable[[], float] = time.monotonic,
        keep: Keep | None = None,
        note_stale: NoteStale = unnoted,
    ) -> None:
        """Without `keep`, a stretch ends with its first task."""
        self._runner = runner
        self._limits = limits
        self._send = send
        self._keep = keep
        self._note_stale = note_stale
        self._stretch = Stretch()
        self._now_s = now_s
        self._lock = threading.Lock()
        self._waiting: deque[tuple[AttemptOrder, str]] = deque()
        self._live: LiveAttempt | None = None
        self._live_since_s = 0.0
        #: The start of the live attempt, and whether it has left the unsent reports.
        self._start: Report | None = None
        self._start_left = False
        #: What the live attempt has told last, once it has ended.
        self._last: list[Report] | None = None
        self._owner = ""
        #: Executions whose owner changed while their attempts were here.
        self._redirected: dict[str, str] = {}
        self._unsent: list[Report] = []
        self._unsent_since_s = 0.0
        self._held = HeldOutcomes(limits.held_outcomes_max, limits.held_bytes_max)
        #: Of the last batch, what was stopped before it began and what was taken back: whoever did
        #: not hear the answer asks again.
        self._never: set[AttemptId] = set()
        self._taken_back: list[AttemptId] = []
        #: Of the last batch, what has come back.
        self._returned: dict[AttemptId, Report] = {}
        self._stopped_early = StoppedEarly()
        self._epochs = Epochs()
        self._busy = threading.Event()
        self._reporter: threading.Thread | None = None
        self._is_closed = False

    def run(self, owner: str, orders: Sequence[AttemptOrder]) -> tuple[list[Report], float]:
        """Run a batch for an owner; returns what was not told before, and the seconds it took."""
        started_s = time.perf_counter()
        self.take_in(owner, orders)
        if self._reporter is None:
            self._reporter = threading.Thread(target=self._report_for_ever, daemon=True)
            self._reporter.start()
        self._busy.set()
        try:
            while (live := self.begin_next()) is not None:
                outcome = self._runner.run_sync(live.order, live)
                entry = self.entry_before_next(live, outcome)
                is_kept = entry is not None and self._leave(live.order, entry)
                self.finish(live, outcome, entry if is_kept else None)
        finally:
            self._busy.clear()
        return self.take_unsent(), time.perf_counter() - started_s

    def take_in(self, owner: str, orders: Sequence[AttemptOrder]) -> None:
        """Let a batch wait for its turn, except what a superseded owner has sent."""
        with self._lock:
            self._owner = owner
            self._never.clear()
            self._taken_back.clear()
            self._returned.clear()
            for order in orders:
                if self._epochs.admits(order.execution_id, order.epoch):
                    self._waiting.append((order, owner))
                    for each in (order, *order.then):
                        if self._stopped_early.take(each.id):
                            self._stop_waiting(each.id)
                else:
                    _log.warning("refused %s: its owner has been superseded", order.id)
                    self._note_stale("orders_refused", 1)

    def begin_next(self) -> LiveAttempt | None:
        """The next attempt, which counts as started; None if nothing waits."""
        with self._lock:
            order = self._stretch.next_order()
            if order is None:
                if not self._waiting:
                    return None
                first, _ = self._waiting.popleft()
                order = self._stretch.begin(first, self._now_s())
            return self._begin(order)

    def entry_before_next(
        self, live: LiveAttempt, outcome: st.AttemptStimulus
    ) -> InboxEntry | None:
        """What must be in the inbox before the next of a stretch starts; None if none will."""
        with self._lock:
            order = live.order
            until_s = self._stretch.since_s + self._limits.stretch_ms / 1000
            goes_on = self._stretch.rest and not live.cancelled and self._now_s() < until_s
            if not goes_on or not isinstance(outcome, st.AttemptSucceeded):
                return None
            if not self._epochs.is_current(order.execution_id, order.epoch):
                return None
            # It has run: how long the store takes now does not make it one to be told of at once.
            self._live_since_s = math.inf
            closing = self._closing_of(live, Report(order.execution_id, outcome))
            if sum(map(_lines_cost, closing)) > _HELD_LINES_BYTES_MAX:
                # The entry may be read before what is told, and lines that it lacks be given up.
                return None
            body = encode_outcome([report.stimulus for report in closing])
            return InboxEntry(f"outcome:{order.task}:{order.attempt}", body)

    def finish(
        self, live: LiveAttempt, outcome: st.AttemptStimulus, kept: InboxEntry | None = None
    ) -> None:
        """The attempt that was begun has ended so; `kept` is its entry in the inbox."""
        with self._lock:
            self._finish(live, outcome, "" if kept is None else kept.entry_id)
            if kept is not None and isinstance(outcome, st.AttemptSucceeded):
                self._stretch.made(live.order, outcome.output)
            else:
                self._return_rest()

    def take_unsent(self) -> list[Report]:
        """What has not been told yet; it counts as told."""
        with self._lock:
            return self._take_unsent()

    def settled(self, attempts: Sequence[AttemptId]) -> list[Report]:
        """Called where `run` is called, so behind all earlier batches: their outcomes."""
        with self._lock:
            asked = reversed(attempts)
            returned = [self._returned[each] for each in asked if each in self._returned]
            return [*self._held.of_attempts(attempts), *returned]

    def stop(self, attempt: AttemptId, *, only_waiting: bool) -> bool:
        """Stop an attempt. True if it had not started: it never will.

        A stretch goes no further when any attempt of its execution is to stop: which of them runs,
        whoever stops one may not know yet.
        """
        with self._lock:
            if attempt in self._never or self._stop_waiting(attempt):
                return True
            live = self._live if self._live and self._live.order.id == attempt else None
            is_unstarted = any(order.id == attempt for order in self._stretch.rest)
            if is_unstarted:
                self._never.add(attempt)
            elif live is None and not self._held.of_attempts([attempt]):
                # This call has overtaken the one that brings the attempt, perhaps once more.
                self._stopped_early.add(attempt)
                return True
            if attempt[0] == self._stretch.execution_id:
                self._return_rest(but=attempt)
        if live is not None and not only_waiting:
            live.cancel()
        return is_unstarted

    def take_back(self) -> list[AttemptId]:
        """Give back all that has not started, and once more what was given back of this batch."""
        with self._lock:
            self._taken_back += [order.id for order, _ in self._waiting]
            self._waiting.clear()
            return list(self._taken_back)

    def census(
        self, execution_id: str, epoch: int, owner: str
    ) -> tuple[list[AttemptId], list[Report]]:
        """As `census_of_all`, of one execution."""
        return self.census_of_all([(execution_id, epoch)], owner).get(execution_id, ([], []))

    def census_of_all(self, asked: Sequence[tuple[str, int]], owner: str) -> Found:
        """The new owner of executions, with their epochs, asks: what runs and what has ended.

        What waits is dropped: it will not start.
        """
        with self._lock:
            mine = dict.fromkeys(one for one, epoch in asked if self._epochs.admits(one, epoch))
            self._stopped_early.forget(mine)
            self._waiting = deque(e for e in self._waiting if e[0].execution_id not in mine)
            found: Found = {each: ([], held) for each in mine if (held := self._held.of(each))}
            live = self._live
            if self._stretch.execution_id in mine:
                self._stretch.rest.clear()
            if live is not None and live.order.execution_id in mine:
                execution_id = live.order.execution_id
                self._redirected[execution_id] = owner
                running, told = found.setdefault(execution_id, ([], []))
                running.append(live.order.id)
                told += live.lines_again()
            return found

    def cancel_all(self) -> None:
        """The process is about to end: give actions a chance to end their child processes."""
        with self._lock:
            self._waiting.clear()
            self._stretch.rest.clear()
            live = self._live
        if live is not None:
            live.end()

    def close(self) -> None:
        """End the reporter thread: nothing is run here any more."""
        self._is_closed = True
        self._busy.set()

    # -------------------------------------------------------------------------------------------

    def _stop_waiting(self, attempt: AttemptId) -> bool:
        """Drop what waits; what would have followed it goes back. False if it does not wait."""
        for at, (order, owner) in enumerate(self._waiting):
            if attempt in (order.id, *(follower.id for follower in order.then)):
                self._waiting[at] = (replace(order, then=()), owner)
                self._return(follower for follower in order.then if follower.id != attempt)
                if order.id == attempt:
                    del self._waiting[at]
                self._never.add(attempt)
                return True
        return False

    def _leave(self, order: AttemptOrder, entry: InboxEntry) -> bool:
        try:
            return self._keep is not None and self._keep(order, entry)
        except Exception:
            # What has been made is told all the same; an error here would lose it with its process.
            _log.exception("the outcome of %s could not be left in the inbox", order.id)
            return False

    def _begin(self, order: AttemptOrder) -> LiveAttempt:
        live = LiveAttempt(
            order,
            workspace=self._runner.workspace_of,
            allowed_commands=self._limits.allowed_commands,
            report=self._tell_at_once,
            progress_interval_ms=self._limits.progress_interval_ms,
            log_limits=self._limits.log,
            clock=self._runner.clock,
        )
        self._live = live
        self._live_since_s = self._now_s()
        now_ms = self._runner.clock.now_ms()
        stimulus = st.AttemptStarted(order.task, order.attempt, now_ms)
        self._start = Report(order.execution_id, stimulus)
        self._start_left = False
        self._queue(self._start)
        return live

    def _return_rest(self, but: AttemptId | None = None) -> None:
        """The stretch goes no further; `but` is answered otherwise."""
        rest = self._stretch.take_rest()
        self._return(order for order in rest if order.id != but)

    def _return(self, orders: Iterable[AttemptOrder]) -> None:
        """The last one first: the one whose turn comes is then handed out with those behind it."""
        now_ms = self._runner.clock.now_ms()
        for order in reversed(list(orders)):
            returned = st.AttemptReturned(order.task, order.attempt, now_ms)
            origin = (order.epoch, order.number)
            self._returned[order.id] = Report(order.execution_id, returned, returned_from=origin)
            self._queue(self._returned[order.id])

    def _finish(self, live: LiveAttempt, outcome: st.AttemptStimulus, entry_id: str) -> None:
        order = live.order
        closing = self._closing_of(live, Report(order.execution_id, outcome, entry_id))
        self._live, self._last = None, None
        self._held.keep(order.id, closing)
        for report in closing if self._start_left else closing[1:]:
            self._queue(report)
        owner = self._redirected.pop(order.execution_id, None)
        if owner is not None:
            self._send_safely(owner, closing)

    def _closing_of(self, live: LiveAttempt, ended: Report) -> list[Report]:
        """All that belongs to an outcome; what the attempt has last told is asked for once."""
        assert self._start is not None  # noqa: S101 - set by _begin
        if self._last is None:
            self._last = live.last_reports()
        return [self._start, *self._last, ended]

    def _take_unsent(self) -> list[Report]:
        unsent, self._unsent = self._unsent, []
        self._start_left = True
        return unsent

    def _queue(self, report: Report) -> None:
        if not self._unsent:
            self._unsent_since_s = self._now_s()
        self._unsent.append(report)

    def _tell_at_once(self, report: Report) -> None:
        with self._lock:
            self._queue(report)
            # Progress and lines are only told at a bounded rate, so it may be told at once, and the
            # start must not be told after it.
            unsent = self._take_unsent()
            owner = self._redirected.get(report.execution_id, self._owner)
        self._send_safely(owner, unsent)

    def tell_due(self) -> None:
        """Tell starts of long attempts, outcomes behind them, and what the live one held back."""
        with self._lock:
            live = self._live
            now_s = self._now_s()
            long_s = self._limits.start_report_ms / 1000
            is_long = live is not None and now_s - self._live_since_s >= long_s
            is_old = now_s - self._unsent_since_s >= self._limits.outcome_report_ms / 1000
            unsent: list[Report] = []
            if self._unsent and (is_long or is_old):
                unsent = self._take_unsent()
            owner = self._owner
        if unsent:
            self._send_safely(owner, unsent)
        if live is not None:
            live.flush()

    def _report_for_ever(self) -> None:
        while self._busy.wait() and not self._is_closed:
            time.sleep(self._limits.start_report_ms / 1000)
            self.tell_due()

    def _send_safely(self, owner: str, reports: Sequence[Report]) -> None:
        try:
            self._send(owner, reports)
        except Exception:
            # The owner is gone; its successor asks by census.
            _log.exception("reports could not be told to %s", owner)
