"""Drives one execution: decide, commit, perform, publish, in that order, always.

Stimuli that arrive while a commit is under way are decided and committed together afterwards: one
write for all that happened. While the store is away the driver waits and tries again; when its
commit is refused it has been succeeded by another owner and stops without a trace.
This module must not know Ray, Redis or HTTP.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from harmonia_actors.core import commands as cmd
from harmonia_actors.core import stimuli as st
from harmonia_actors.core.execution import Decision, Execution
from harmonia_actors.core.records import encode_head, encode_row
from harmonia_actors.runtime.automatic import automatic_checkpoint
from harmonia_actors.runtime.ending import Ending, Written
from harmonia_actors.runtime.in_flight import Backlog, InFlight
from harmonia_actors.runtime.indexing import execution_indexes
from harmonia_actors.runtime.mailbox import LinesRoom, Mailbox
from harmonia_actors.runtime.node_wait import NodeNeed, NodeWait
from harmonia_actors.runtime.nodes import AnyNode
from harmonia_actors.runtime.notes import decode_note
from harmonia_actors.runtime.ordering import Ordering
from harmonia_actors.runtime.orders import AttemptOrder, Report
from harmonia_actors.runtime.patience import patiently
from harmonia_actors.runtime.ports import Attempts, Clock, EventSink, Nodes
from harmonia_actors.runtime.stale import NoteStale, unnoted
from persistence.errors import StaleOwner, StoreUnavailable, VersionConflict
from persistence.store import Commit, InboxEntry, Store

__all__ = ["ExecutionDriver", "Surroundings"]

_log = logging.getLogger(__name__)

_S = TypeVar("_S", bound=st.Stimulus)

#: Stimuli decided and written together, at most; and their outputs, which one script writes.
_BATCH_MAX = 2_000
_BATCH_BYTES_MAX = 8_000_000
#: Stimuli after which an attempt holds nothing any more.
_OUTCOMES = (
    *(st.AttemptSucceeded, st.AttemptFailed, st.AttemptLost),
    *(st.AttemptStopped, st.AttemptReturned),
)
#: A report is hardly longer under way, and clocks that are kept right differ by less.
_BELIEVED_MS = 1_000
#: Waits between tries while the store is away.
_RETRY_FIRST_S = 0.05
_RETRY_MOST_S = 2.0


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the drivers of one host share."""

    store: Store
    attempts: Attempts
    sink: EventSink
    clock: Clock
    room: InFlight
    nodes: Nodes = field(default_factory=AnyNode)
    #: Log lines wait so long for something else to be committed with.
    lines_wait_s: float = 0.25
    lines_room: LinesRoom = field(default_factory=LinesRoom)
    note_stale: NoteStale = unnoted


class ExecutionDriver:
    """Owns one execution under one epoch until it ends or another owner takes it."""

    def __init__(
        self,
        *,
        execution: Execution,
        ordering: Ordering,
        owner: str,
        epoch: int,
        version: int,
        surroundings: Surroundings,
        node_need: NodeNeed | None = None,
        written: Written | None = None,
    ) -> None:
        """`node_need`: what uses files has to wait until there is a node that has this.

        `written` remembers what is committed, for those who wait for the end.
        """
        self.execution = execution
        self.execution_id = execution.head.execution_id
        self._ordering = ordering
        self._owner = owner
        self.epoch = epoch
        self._version = version
        self._written = written or Written(is_all=False)
        self._store = surroundings.store
        self._attempts = surroundings.attempts
        self._backlog = Backlog(surroundings.room, self._make, surroundings.attempts.start)
        self._nodes = surroundings.nodes
        self._node_wait = NodeWait(execution, surroundings.nodes, node_need)
        self._node_search: asyncio.Task[None] | None = None
        self._sink = surroundings.sink
        # Whatever clocks are set while it lives, what it waits for comes in its time.
        self._clock = surroundings.clock.steady()
        #: When what was told of attempts that run was last dated anew.
        self._dated_ms: dict[tuple[int, int], int] = {}
        self._note_stale = surroundings.note_stale
        #: The status that the store's lists show; they are written when it changes.
        self._listed_status = execution.head.status
        self._mail = Mailbox(surroundings.lines_room)
        #: Inbox entries that were ever taken in: an entry may be read again before it is removed.
        self._inbox_taken: set[str] = set()
        self._inbox_done: list[str] = []
        #: Reports that are taken in once the inbox has been read, and whoever reads it.
        self._behind_inbox: list[Report] = []
        self._inbox_reader: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._lines_wait_s = surroundings.lines_wait_s
        #: When log lines that wait are committed, if nothing else is before.
        self._lines_due: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        #: Attempts whose input is being read; True once they are to be stopped.
        self._preparing: dict[tuple[int, int], bool] = {}
        #: What went wrong beside the loop: nothing is left half done, the driver ends by it.
        self._broken: BaseException | None = None
        #: Set when the execution has ended or has another owner.
        self.ended = asyncio.Event()
        self.superseded = False

    @property
    def ending(self) -> Ending | None:
        """How it has ended; None if it has not, or if that has to be read from the store."""
        return self._written.ending

    def deliver(self, *stimuli: st.Stimulus, inbox_ids: Sequence[str] = ()) -> None:
        """Take stimuli in; `inbox_ids` are acknowledged by the commit that holds their effect."""
        if inbox_ids and self._inbox_taken.issuperset(inbox_ids):
            return
        self._inbox_taken.update(inbox_ids)
        self._mail.put(map(self._by_our_clock, stimuli), inbox_ids)
        if inbox_ids or not all(isinstance(each, st.LinesReported) for each in stimuli):
            self._wake.set()
        elif self._lines_due is None:
            loop = asyncio.get_running_loop()
            self._lines_due = loop.call_later(self._lines_wait_s, self._wake.set)

    def take_in(self, entries: Sequence[InboxEntry]) -> None:
        """Take in what lies in the inbox."""
        for entry in entries:
            stimuli = decode_note(entry.body)
            if not stimuli:
                _log.warning("execution %s: a note was dropped unread", self.execution_id)
            self.deliver(*stimuli, inbox_ids=[entry.entry_id])

    def deliver_reports(self, reports: Sequence[Report]) -> None:
        """Take in what task actors tell; what they have left in the inbox is acknowledged, too.

        An end without an outcome comes behind what lies there: whoever had the attempt may have
        left one, and have gone on because of it.
        """
        if not any(self._may_have_left(each) for each in reports):
            self._put_reports(reports)
            return
        self._behind_inbox += reports
        if self._inbox_reader is None:
            self._inbox_reader = self._spawn(self._read_inbox_first())

    def _may_have_left(self, report: Report) -> bool:
        match report.stimulus:
            case st.AttemptLost():
                return True
            case st.AttemptStopped(task=task):
                return self.execution.may_lead_on(task)
        return False

    async def _read_inbox_first(self) -> None:
        while reports := self._behind_inbox:
            self._behind_inbox = []
            self.take_in(await patiently(lambda: self._store.read_inbox(self.execution_id)))
            self._put_reports(reports)
        self._inbox_reader = None

    def _put_reports(self, reports: Sequence[Report]) -> None:
        entry_ids = [report.entry_id for report in reports if report.entry_id]
        self._inbox_taken.update(entry_ids)
        self._mail.put([self._by_our_clock(each.stimulus) for each in reports], entry_ids)
        self._wake.set()

    def resume(
        self,
        adopted: Collection[tuple[int, int]],
        settled: Mapping[str, Sequence[st.AttemptStimulus]],
        *,
        untouched: bool,
    ) -> Decision:
        """What is outstanding after another owner; `settled` are outcomes by inbox entry."""
        self._inbox_taken.update(settled)
        self._inbox_done += settled
        reports = [self._by_our_clock(each) for of in settled.values() for each in of]
        now_ms = self._clock.now_ms()
        return self.execution.resume(now_ms, adopted, untouched=untouched, settled=reports)

    def _by_our_clock(self, stimulus: _S) -> _S:
        """Reports bear the time of another machine, whose clock may be anywhere.

        A timeout counts from there, and would come at once, or hours late: only what can hardly be
        wrong is believed, and all else has happened now. A retry always counts from now.
        """
        now_ms = self._clock.now_ms()
        is_likely = self._believed_from(stimulus, now_ms) <= stimulus.at_ms <= now_ms
        if isinstance(stimulus, st.TimerFired) or (
            is_likely and not isinstance(stimulus, st.AttemptFailed)
        ):
            return stimulus
        if isinstance(stimulus, st.MIDWAY):
            self._dated_ms[(stimulus.task, stimulus.attempt)] = now_ms
        return replace(stimulus, at_ms=now_ms)

    def _believed_from(self, stimulus: st.Stimulus, now_ms: int) -> int:
        """Nothing of an attempt is older than what came before it: it begins before it ends."""
        since_ms = now_ms - _BELIEVED_MS
        if isinstance(stimulus, st.MIDWAY):
            return max(since_ms, self._dated_ms.get((stimulus.task, stimulus.attempt), 0))
        if isinstance(stimulus, _OUTCOMES):
            return max(since_ms, self._dated_ms.pop((stimulus.task, stimulus.attempt), 0))
        return since_ms

    async def run(self, first: Decision | None = None) -> None:
        """Work until the execution ends. `first` is what `resume` decided, if it was resumed."""
        try:
            if first is not None:
                await self._carry_out(first)
            while not self.execution.is_final:
                await self._wake.wait()
                self._wake.clear()
                if self._broken is not None:
                    raise self._broken
                await self._step()
        except StaleOwner:
            self.superseded = True
            self._note_stale("commits_refused", 1)
            _log.info("execution %s has another owner now", self.execution_id)
        finally:
            for timer in (self._timer, self._lines_due):
                if timer is not None:
                    timer.cancel()
            if count := self.execution.stale_reports:
                # Late, doubled or forged: of attempts that are not, or not any more, the current.
                _log.info("execution %s: %d reports did not count", self.execution_id, count)
                self._note_stale("reports_ignored", count)
            self.close()

    def close(self) -> None:
        """Hold nothing any more: it has ended, or never begins."""
        for task in self._tasks:
            task.cancel()
        self._backlog.close()
        self._mail.close()
        self.ended.set()

    async def conclude(self, decision: Decision) -> None:
        """Write and publish a decision after which nothing is performed: the last one."""
        bodies = await self._commit(decision)
        if bodies:
            self._sink.publish(self.execution_id, decision.events[0].index, bodies)
        self.ended.set()

    async def _step(self) -> None:
        if self._lines_due is not None:
            self._lines_due.cancel()
            self._lines_due = None
        letters = self._mail.take(_BATCH_MAX, _BATCH_BYTES_MAX)
        self._inbox_done += letters.inbox_ids
        for stimulus in letters.stimuli:
            if isinstance(stimulus, _OUTCOMES):
                self._backlog.ended(stimulus.task, stimulus.attempt)
        if self._mail:
            self._wake.set()
        decision = self.execution.handle(*letters.stimuli)
        if not decision.is_empty or self._inbox_done:
            await self._carry_out(decision)
        self._backlog.pump()

    async def _carry_out(self, decision: Decision) -> None:
        bodies = await self._commit(decision)
        for command in decision.commands:
            self._perform_small(command)
        starts = self._node_wait.let_through(
            [c for c in decision.commands if isinstance(c, cmd.StartAttempt)]
        )
        if starts:
            self._backlog.add(starts)
        self._await_node()
        if bodies:
            self._sink.publish(self.execution_id, decision.events[0].index, bodies)

    async def _commit(self, decision: Decision) -> list[bytes]:
        execution = self.execution
        bodies = [numbered.encoded(self.execution_id) for numbered in decision.events]
        if not (bodies or decision.changed or decision.head_changed or self._inbox_done):
            return bodies
        head = execution.head_record()
        rows = execution.rows
        done, self._inbox_done = self._inbox_done, []
        self._version += 1
        commit = Commit(
            execution_id=self.execution_id,
            owner=self._owner,
            epoch=self.epoch,
            version=self._version,
            first_seq=execution.seq - len(bodies) + 1,
            fields={"head": encode_head(head)},
            rows={str(index): encode_row(rows[index]) for index in decision.changed},
            outputs=decision.outputs,
            events=bodies,
            inbox_done=done,
            indexes=execution_indexes(head) if head.status is not self._listed_status else None,
            release=execution.is_final,
        )
        await self._write(commit)
        self._written.add(commit)
        _log.debug(
            "execution %s: commit %d of epoch %d, %d events up to %d, %d tasks changed",
            *(self.execution_id, self._version, self.epoch),
            *(len(bodies), execution.seq, len(decision.changed)),
        )
        self._listed_status = head.status
        self._ordering.remember(decision.outputs)
        return bodies

    async def _write(self, commit: Commit) -> None:
        wait_s = _RETRY_FIRST_S
        while True:
            try:
                await self._store.commit(commit)
            except StoreUnavailable as error:
                if wait_s == _RETRY_FIRST_S:
                    _log.warning("execution %s waits for the store: %s", self.execution_id, error)
                await asyncio.sleep(wait_s)
                wait_s = min(wait_s * 2, _RETRY_MOST_S)
            except VersionConflict as error:
                # Nobody else writes under this epoch, so our own count is off: a defect. Another
                # owner starts from what is stored; going on here could contradict it.
                _log.exception("execution %s lost count of its commits", self.execution_id)
                raise StaleOwner(str(error)) from error
            else:
                return

    # Performing --------------------------------------------------------------------------------

    def _perform_small(self, command: cmd.Command) -> None:
        match command:
            case cmd.StopAttempt(task, attempt, reason):
                if (task, attempt) in self._preparing:
                    self._preparing[(task, attempt)] = True
                elif self._node_wait.withdraw(task, attempt) or self._backlog.withdraw(
                    task, attempt
                ):
                    self.deliver(st.AttemptStopped(task, attempt, self._clock.now_ms()))
                else:
                    self._attempts.stop((self.execution_id, task, attempt), reason)
            case cmd.ArmTimer(due_ms):
                self._arm(due_ms)
            case cmd.ComposeOutput():
                self._spawn(self._compose())
            case cmd.TakeCheckpoint():
                self._spawn(self._checkpoint(command))
            case cmd.StartAttempt():
                pass

    def _await_node(self) -> None:
        """Have a node looked for exactly as long as something waits for it, and show what does."""
        need = self._node_wait.need
        if need is None or not self._node_wait:
            if self._node_search is not None:
                self._node_search.cancel()
                self._node_search = None
            return
        if self._node_search is None:
            self._node_search = self._spawn(self._find_node(need))
        now_ms = self._clock.now_ms()
        for start in self._node_wait.take_unshown():
            self.deliver(st.AttemptWaiting(start.task, start.attempt, now_ms, need.reason))

    async def _find_node(self, need: NodeNeed) -> None:
        former = self.execution.head.node
        place = await self._nodes.wait_for(self.execution_id, need.request)
        self.deliver(st.NodeChosen(self._clock.now_ms(), place, instead_of=former))

    def _arm(self, due_ms: int) -> None:
        if self._timer is not None:
            self._timer.cancel()
        delay_s = max(0.0, (due_ms - self._clock.now_ms()) / 1000)
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(delay_s, self._fire, due_ms)

    def _fire(self, due_ms: int) -> None:
        # The loop's clock and the time of day may disagree by a little: never fire early.
        self.deliver(st.TimerFired(max(due_ms, self._clock.now_ms())))

    def _make(self, starts: Sequence[cmd.StartAttempt]) -> Sequence[AttemptOrder]:
        """Orders that can be made from memory; what is missing is read beside the loop."""
        ready, missing, failed = self._ordering.prepare(starts, self.epoch, None)
        self._report_unresolved(failed)
        self._return_rests([start for start in starts if start not in missing], ready)
        if missing:
            for command in missing:
                self._preparing[(command.task, command.attempt)] = False
            self._spawn(self._start_later(missing))
        return ready

    async def _start_later(self, starts: Sequence[cmd.StartAttempt]) -> None:
        values = await patiently(lambda: self._ordering.fetch(starts))
        ready, _, failed = self._ordering.prepare(starts, self.epoch, values)
        self._return_rests(starts, ready)
        kept = []
        for order in ready:
            if self._preparing.pop((order.task, order.attempt), False):
                self.deliver(st.AttemptStopped(order.task, order.attempt, self._clock.now_ms()))
            else:
                self._backlog.took(order)
                kept.append(order)
        for command, _ in failed:
            self._preparing.pop((command.task, command.attempt), None)
        if kept:
            self._attempts.start(kept)
        self._report_unresolved(failed)

    def _return_rests(
        self, starts: Sequence[cmd.StartAttempt], orders: Sequence[AttemptOrder]
    ) -> None:
        """Of each stretch, what could not be handed over waits for its turn again."""
        if not any(start.then for start in starts):
            return
        handed = {order.task: len(order.then) for order in orders}
        now_ms = self._clock.now_ms()
        for start in starts:
            for task, attempt in start.then[handed.get(start.task, 0) :]:
                self.deliver(st.AttemptReturned(task, attempt, now_ms))

    def _report_unresolved(self, failed: Sequence[tuple[cmd.StartAttempt, st.Failure]]) -> None:
        for command, failure in failed:
            now_ms = self._clock.now_ms()
            self.deliver(st.AttemptFailed(command.task, command.attempt, now_ms, failure))

    async def _compose(self) -> None:
        result = await patiently(self._ordering.compose_output)
        now_ms = self._clock.now_ms()
        if isinstance(result, st.Failure):
            self.deliver(st.OutputRefused(now_ms, result))
        else:
            self.deliver(st.OutputComposed(now_ms, result))

    async def _checkpoint(self, command: cmd.TakeCheckpoint) -> None:
        """Beside the loop: the execution goes on, whatever the store makes of it.

        What is copied is one commit, the one that decided on it or a later one.
        """
        head, now_ms = self.execution.head, self._clock.now_ms()
        wanted = automatic_checkpoint(head, command, epoch=self.epoch, now_ms=now_ms)
        try:
            await patiently(lambda: self._store.take_checkpoint(wanted))
        except StaleOwner:
            raise
        except Exception:
            # Let out of here it would count as a crash, of which a few end the execution.
            _log.exception(
                "execution %s takes no more checkpoints by itself under this owner: %s was refused",
                *(self.execution_id, wanted.checkpoint_id),
            )
            return
        taken_ms = self._clock.now_ms()
        self.deliver(st.AutomaticCheckpointTaken(taken_ms, command.seq, wanted.checkpoint_id))

    def _spawn(self, coroutine: Any) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._spawned_ended)
        return task

    def _spawned_ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self._broken = task.exception()
            self._wake.set()
