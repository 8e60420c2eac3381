"""One execution: its state, and the one door through which it changes.

    handle(*stimuli) -> Decision        what was asked or reported, in; what to do and tell, out
    resume(at_ms, adopted) -> Decision  after a new owner has loaded it: what is outstanding
    quarantine(at_ms, error)            it ends its owners: it fails, with all that is left of it

Rules. A task starts only when all it depends on has completed; along with it tasks may be handed
out that can follow it one by one, each in its turn. Final is final. At most one attempt of a task
lives at a time, and attempt numbers only grow. When a task has failed for good, no task starts any
more; those that run may end, then the execution has failed. An automatic checkpoint is decided on
when it is due and a task has completed since the last one, and when that one is there.
Work per stimulus depends on what it changes, never on the size of the graph, except when everything
that is left is skipped or cancelled at once.

This module must not know clocks, stores, actors or logs.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

from harmonia_actors.core import events as ev
from harmonia_actors.core import stimuli as st
from harmonia_actors.core.attempts import AttemptRules
from harmonia_actors.core.commands import ArmTimer, ComposeOutput, StopReason, TakeCheckpoint
from harmonia_actors.core.options import CheckpointPolicy
from harmonia_actors.core.outputs import compose_inline
from harmonia_actors.core.records import (
    AutomaticCheckpoint,
    OutputReference,
    TaskRow,
    automatic_name,
)
from harmonia_actors.core.state import (
    CoreLimits,
    Decision,
    NumberedEvent,
    error_of,
    timeout_error,
)
from harmonia_actors.core.statuses import ExecutionStatus, TaskStatus
from harmonia_actors.core.timers import TimerKind

__all__ = ["CoreLimits", "Decision", "Execution", "NumberedEvent"]


class Execution(AttemptRules):
    """The state of one execution. Change it only through `handle` and `resume`."""

    # The one door ------------------------------------------------------------------------------

    def handle(self, *stimuli: st.Stimulus) -> Decision:
        """Take in what happened and decide what follows."""
        for stimulus in stimuli:
            self._take(stimulus)
        if stimuli:
            self._settle(stimuli[-1].at_ms)
        return self._finish_draft()

    def resume(
        self,
        at_ms: int,
        adopted: Collection[tuple[int, int]],
        *,
        untouched: bool = False,
        settled: Sequence[st.AttemptStimulus] = (),
    ) -> Decision:
        """Derive what is outstanding after a change of owner.

        `adopted` holds (task, attempt) of attempts that task actors have confirmed to have, run
        or finished without having been acknowledged; all others that ran are lost. `untouched`
        means that nobody has driven the execution yet, so that nothing can have been handed out.
        `settled` is what was reported of attempts whose outcome was made durable, in order: what
        comes next in their stretch may have started because of it.
        """
        if self.is_final:
            return self._finish_draft()
        # The next owner must be able to see that this one was there.
        self._draft.head_changed = True
        self._resume_deadline(at_ms, untouched=untouched)
        if self.head.status is not ExecutionStatus.PENDING:
            self._resume_settled(settled)
            self._resume_attempts(adopted, at_ms)
            for index, row in enumerate(self.rows):
                if not row.status.is_final and index not in self.handed_out:
                    self._resume_task(index, row, at_ms, untouched=untouched)
        policy, decided = self.checkpoint_policy, self.head.automatic
        self._settle(at_ms)
        if policy and decided and not decided.taken and not self.is_final:
            self._take_checkpoint(policy, decided)
        return self._finish_draft()

    def quarantine(self, at_ms: int, error: dict[str, Any]) -> Decision:
        """Fail, whatever runs: nothing of it is waited for, and no outcome is taken in any more."""
        if self.head.status is ExecutionStatus.PENDING:
            self._begin_execution(at_ms)
        if self.head.status is ExecutionStatus.RUNNING and self.head.error is None:
            self.head.error = error
        open_tasks = [index for index, row in enumerate(self.rows) if not row.status.is_final]
        # As at every other end: first what waits, then what runs.
        for index in sorted(open_tasks, key=lambda index: index in self._running):
            self._drop(index, at_ms)
        self._settle(at_ms)
        return self._finish_draft()

    def _finish_draft(self) -> Decision:
        draft, self._draft = self._draft, Decision()
        if draft.events or draft.changed:
            draft.head_changed = True
        return draft

    def _take(self, stimulus: st.Stimulus) -> None:
        match stimulus:
            case st.StartRequested(at_ms):
                self._start_requested(at_ms)
            case st.CancelRequested(at_ms):
                self._cancel_requested(at_ms)
            case st.TimerFired(at_ms):
                self._timer_fired(at_ms)
            case st.CheckpointTaken(at_ms, checkpoint_id, name):
                if not self.is_final:
                    self._emit(ev.CheckpointCreated(checkpoint_id, name), at_ms)
            case st.AutomaticCheckpointTaken():
                self._automatic_taken(stimulus)
            case st.NodeChosen():
                self._node_chosen(stimulus)
            case st.OutputComposed() | st.OutputRefused():
                self._output_ready(stimulus)
            case _:
                if self._is_current(stimulus.task, stimulus.attempt):
                    self._take_report(stimulus)

    def _node_chosen(self, chosen: st.NodeChosen) -> None:
        """Never beside another one: files that are on one node are not on another."""
        if not self.is_final and self.head.node == chosen.instead_of:
            self.head.labels["node"] = chosen.place
            self._draft.head_changed = True

    def _output_ready(self, stimulus: st.OutputComposed | st.OutputRefused) -> None:
        if not (self._composing and self.accepts_starts):
            return
        if isinstance(stimulus, st.OutputComposed):
            self._complete(stimulus.output, stimulus.at_ms)
        else:
            error = error_of("execution_error", stimulus.failure)
            self._bind_to_fail(error, stimulus.at_ms)

    # The whole execution -----------------------------------------------------------------------

    def _start_requested(self, at_ms: int) -> None:
        if self.head.status is not ExecutionStatus.PENDING:
            return
        self._begin_execution(at_ms)
        if self._timeout_ms is not None:
            self.head.deadline_ms = at_ms + self._timeout_ms
            self._timers.push(self.head.deadline_ms, TimerKind.DEADLINE)
        for index, row in enumerate(self.rows):
            if self.waiting_on[index] == 0 and row.status is TaskStatus.PENDING:
                self._hand_out(index)

    @property
    def _timeout_ms(self) -> int | None:
        return self.head.options.timeout_ms or self.workflow.timeout_ms

    def _begin_execution(self, at_ms: int) -> None:
        self._become(ExecutionStatus.RUNNING, at_ms)
        self.head.started_ms = at_ms
        if self.checkpoint_policy is not None:
            completed = self.head.completed_tasks
            self.head.automatic = AutomaticCheckpoint(0, completed, at_ms, taken=True)
        self._emit(ev.ExecutionStarted(self.head.workflow_id, self.workflow.name), at_ms)

    def _cancel_requested(self, at_ms: int) -> None:
        if self.is_final or self.head.status is ExecutionStatus.CANCELLING:
            return
        self._become(ExecutionStatus.CANCELLING, at_ms)
        self._stop_everything(StopReason.CANCELLED, at_ms)

    def _timer_fired(self, at_ms: int) -> None:
        for _, kind, task, attempt in self._timers.pop_due(at_ms):
            if kind is TimerKind.DEADLINE:
                self._deadline_passed(at_ms)
                continue
            if kind is TimerKind.CHECKPOINT:
                self._checkpoint_due_ms = None  # Whether one is due, settling says.
                continue
            row = self.rows[task]
            if row.attempt != attempt or row.status.is_final:
                continue
            if kind is TimerKind.RETRY:
                if row.status is TaskStatus.RETRYING and self.accepts_starts:
                    row.retry_at_ms = None
                    self._draft.changed[task] = None
                    self._hand_out(task)
            elif task in self._running:
                self._stop(task, StopReason.TIMEOUT)

    def _deadline_passed(self, at_ms: int) -> None:
        if self.is_final or self.head.status is ExecutionStatus.CANCELLING:
            return
        if self.head.error is None:
            self.head.error = timeout_error(self._timeout_ms or 0)
        self._draft.head_changed = True
        self._stop_everything(StopReason.CANCELLED, at_ms)

    def _settle(self, at_ms: int) -> None:
        """What follows from the state as a whole: the end, or the next time to wake up."""
        head = self.head
        if self.open_count == 0 and not self.is_final:
            if head.status is ExecutionStatus.CANCELLING:
                self._become(ExecutionStatus.CANCELLED, at_ms)
                cancelled = ev.ExecutionCancelled(*self._ended(at_ms))
                self._emit(cancelled, at_ms)
            elif head.error is not None:
                self._become(ExecutionStatus.FAILED, at_ms)
                self._emit(ev.ExecutionFailed(*self._ended(at_ms), head.error), at_ms)
            elif head.status is ExecutionStatus.RUNNING and not self._composing:
                self._compose(at_ms)
        if not self.is_final:
            self._settle_checkpoint(at_ms)
            due_ms = self._timers.to_arm()
            if due_ms is not None:
                self._draft.commands.append(ArmTimer(due_ms))

    # Automatic checkpoints ---------------------------------------------------------------------

    def _settle_checkpoint(self, at_ms: int) -> None:
        """Decide on a checkpoint, or wait for its time.

        Only completed tasks are worth one: a restore takes over nothing else. With none open, the
        end is all that is left.
        """
        policy, last = self.checkpoint_policy, self.head.automatic
        if policy is None or last is None or not last.taken or self.open_count == 0:
            return
        completed = self.head.completed_tasks - last.completed_tasks
        if completed == 0:
            return
        # Should the last one bear a time to come: no longer than the interval from here.
        due_ms = None if policy.every_ms is None else min(last.at_ms, at_ms) + policy.every_ms
        is_due = policy.every_completions is not None and completed >= policy.every_completions
        if is_due or (due_ms is not None and due_ms <= at_ms):
            total = self.head.completed_tasks
            self.head.automatic = AutomaticCheckpoint(self.told_seq, total, at_ms, taken=False)
            self._draft.head_changed = True
            self._take_checkpoint(policy, self.head.automatic)
        elif due_ms is not None and self._checkpoint_due_ms is None:
            self._checkpoint_due_ms = due_ms
            self._timers.push(due_ms, TimerKind.CHECKPOINT)

    def _take_checkpoint(self, policy: CheckpointPolicy, decided: AutomaticCheckpoint) -> None:
        kept = policy.keep or self.limits.checkpoints_kept
        self._draft.commands.append(TakeCheckpoint(decided.seq, kept))

    def _automatic_taken(self, stimulus: st.AutomaticCheckpointTaken) -> None:
        decided = self.head.automatic
        if self.is_final or decided is None or decided.taken or decided.seq != stimulus.seq:
            return
        self.head.automatic = replace(decided, taken=True)
        name = automatic_name(decided.seq)
        self._emit(ev.CheckpointCreated(stimulus.checkpoint_id, name), stimulus.at_ms)

    # The end -----------------------------------------------------------------------------------

    def _compose(self, at_ms: int) -> None:
        limit = self.limits.inline_output_bytes_max
        inline = compose_inline(self.workflow, self._composed_of, self._kept, limit)
        if inline is not None:
            self._complete(st.Output(len(inline), inline), at_ms)
        else:
            self._composing = True
            self._draft.commands.append(ComposeOutput())

    def _complete(self, output: st.Output, at_ms: int) -> None:
        head = self.head
        head.output = OutputReference(
            head.execution_id, "execution", output.size, output.url, output.preview
        )
        if output.inline is not None:
            self._draft.outputs["execution"] = output.inline
        self._become(ExecutionStatus.COMPLETED, at_ms)
        self._emit(ev.ExecutionCompleted(*self._ended(at_ms), output), at_ms)

    def _ended(self, at_ms: int) -> tuple[str, str, int]:
        self.head.completed_ms = at_ms
        duration_ms = max(0, at_ms - (self.head.started_ms or at_ms))
        return self.head.workflow_id, self.workflow.name, duration_ms

    # Another owner -----------------------------------------------------------------------------
    #
    # The clock that times were taken from may have been put back since: nothing is waited for
    # longer than if the wait began here.

    def _resume_deadline(self, at_ms: int, *, untouched: bool) -> None:
        if self.head.deadline_ms is not None:
            longest = at_ms + (self._timeout_ms or 0)
            # Whoever created it as one that runs has another clock, and has not begun it.
            self.head.deadline_ms = longest if untouched else min(self.head.deadline_ms, longest)
            self._timers.push(self.head.deadline_ms, TimerKind.DEADLINE)

    def _resume_settled(self, reports: Sequence[st.AttemptStimulus]) -> None:
        for report in reports:
            row = self.rows[report.task]
            if row.status.is_final or row.attempt != report.attempt:
                self.stale_reports += 1
                continue
            self.handed_out.add(report.task)
            self._take_report(report)
        # What is free now may have been handed out before: that is for the census to say.
        self._withdraw_starts()

    def _resume_attempts(self, adopted: Collection[tuple[int, int]], at_ms: int) -> None:
        """Take over what lives; only then say what is lost, because that may end everything."""
        lost = []
        for index, row in enumerate(self.rows):
            if row.status.is_final:
                continue
            if (index, row.attempt) in adopted:
                self._adopt(index, row, at_ms)
            elif row.status is TaskStatus.RUNNING:
                self.handed_out.add(index)
                lost.append(index)
        for index in lost:
            self._attempt_lost(index, at_ms, "the process that ran the task has died")

    def _adopt(self, index: int, row: TaskRow, at_ms: int) -> None:
        self.handed_out.add(index)
        timeout_ms = self.workflow.tasks[index].timeout_ms
        if row.status is not TaskStatus.RUNNING:
            # It was handed out, but the report of its start went to the former owner.
            self._begin(index, at_ms)
        elif timeout_ms and row.started_ms is not None:
            due = min(row.started_ms, at_ms) + timeout_ms
            self._timers.push(due, TimerKind.TASK_TIMEOUT, index, row.attempt)
        if self.head.status is ExecutionStatus.CANCELLING:
            self._stop(index, StopReason.CANCELLED)

    def _resume_task(self, index: int, row: TaskRow, at_ms: int, *, untouched: bool) -> None:
        if not self.accepts_starts:
            self._drop(index, at_ms)
        elif row.status is TaskStatus.RETRYING and row.retry_at_ms is not None:
            longest = at_ms + self._retry_delay_ms(index, row.attempt - 1)
            if row.retry_at_ms > longest:
                row.retry_at_ms = longest
                self._draft.changed[index] = None
            self._timers.push(row.retry_at_ms, TimerKind.RETRY, index, row.attempt)
        elif self.waiting_on[index] == 0:
            if not untouched:
                # It was handed out and may have run: its number is not given out again.
                self._next_attempt(index, row.status)
            self._hand_out(index)
