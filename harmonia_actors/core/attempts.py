"""What becomes of attempts, as they are reported, and of all others when one has failed for good.

The part of `Execution` that follows single attempts; what follows from the state as a whole is
decided there. This module must not know clocks, stores, actors or logs.
"""

from __future__ import annotations

from typing import Any, assert_never

from harmonia_actors.core import events as ev
from harmonia_actors.core import stimuli as st
from harmonia_actors.core.commands import StopReason
from harmonia_actors.core.records import OutputReference
from harmonia_actors.core.retry import delay_ms
from harmonia_actors.core.state import TIMED_OUT, ExecutionState
from harmonia_actors.core.statuses import ExecutionStatus, IllegalTransition, TaskStatus
from harmonia_actors.core.timers import TimerKind

__all__ = ["AttemptRules"]

#: What can be reported of an attempt before its turn in a stretch has come.
_OF_UNSTARTED = (st.AttemptLost, st.AttemptStopped, st.AttemptReturned, st.AttemptWaiting)


class AttemptRules(ExecutionState):
    """How the state follows what is reported of attempts."""

    def _take_report(self, report: st.AttemptStimulus) -> None:
        task = report.task
        self._check_turn(report)
        match report:
            case st.AttemptStarted():
                self._attempt_started(task, report.at_ms)
            case st.AttemptSucceeded():
                self._attempt_succeeded(task, report.at_ms, report.output)
            case st.AttemptFailed():
                self._attempt_failed(task, report.at_ms, report.failure)
            case st.AttemptLost():
                self._attempt_lost(task, report.at_ms, report.reason)
            case st.AttemptStopped():
                self._attempt_stopped(task, report.at_ms)
            case st.AttemptReturned():
                self._attempt_returned(task, report.at_ms)
            case st.AttemptWaiting():
                self._attempt_waiting(task, report.reason)
            case st.ProgressReported() | st.LinesReported():
                if task in self._running:
                    self._tell_midway(report)
            case _:
                assert_never(report)

    def _check_turn(self, report: st.AttemptStimulus) -> None:
        """In a stretch, nothing begins before what it waits for has completed."""
        if self.waiting_on[report.task] and not isinstance(report, _OF_UNSTARTED):
            name = self.workflow.tasks[report.task].name
            raise IllegalTransition(f"task '{name}'", "waiting for others", type(report).__name__)

    def _attempt_returned(self, task: int, at_ms: int) -> None:
        if not self.accepts_starts:
            self._drop(task, at_ms)
            return
        self.handed_out.discard(task)
        self._stopping.pop(task, None)
        self._learn_reach(went_on=False)
        if self.waiting_on[task] == 0:
            self._hand_out(task)

    def _attempt_waiting(self, task: int, reason: str) -> None:
        if task not in self._running:
            self.rows[task].waiting = reason
            self._draft.changed[task] = None

    def _is_current(self, task: int, attempt: int) -> bool:
        if task in self.handed_out and self.rows[task].attempt == attempt:
            return True
        self.stale_reports += 1
        return False

    def _attempt_started(self, task: int, at_ms: int) -> None:
        if task not in self._running:
            self._begin(task, at_ms)

    def _begin(self, task: int, at_ms: int) -> None:
        row = self.rows[task]
        self._move(task, TaskStatus.RUNNING)
        row.started_ms = at_ms
        row.retry_at_ms = None
        row.waiting = ""
        row.progress = None
        row.message = ""
        definition = self.workflow.tasks[task]
        self._emit(ev.TaskStarted(definition.name, task, len(self.rows), row.attempt), at_ms)
        if definition.timeout_ms is not None:
            due = at_ms + definition.timeout_ms
            self._timers.push(due, TimerKind.TASK_TIMEOUT, task, row.attempt)

    def _attempt_succeeded(self, task: int, at_ms: int, output: st.Output) -> None:
        self._attempt_started(task, at_ms)
        row = self.rows[task]
        key = f"{task}:{row.attempt}"
        row.output = OutputReference(
            self.head.execution_id, key, output.size, output.url, output.preview
        )
        if output.inline is not None:
            self._draft.outputs[key] = output.inline
            if task in self._composed_of:
                self._kept[task] = output.inline
        row.completed_ms = at_ms
        row.failure = None
        self._end(task, TaskStatus.COMPLETED)
        self.head.completed_tasks += 1
        name = self.workflow.tasks[task].name
        self._emit(ev.TaskCompleted(name, task, len(self.rows), row.attempt, output), at_ms)
        for child in self.workflow.graph.children[task]:
            self.waiting_on[child] -= 1
            if self.waiting_on[child] == 0 and child in self.handed_out:
                self._learn_reach(went_on=True)
            elif self.waiting_on[child] == 0 and self.accepts_starts:
                self._hand_out(child)

    def _attempt_failed(self, task: int, at_ms: int, failure: st.Failure) -> None:
        row = self.rows[task]
        if self.head.status is ExecutionStatus.CANCELLING:
            self._drop(task, at_ms)
            return
        policy = self.retry_policy(task)
        row.failures += 1
        row.failure = failure
        will_retry = (
            self.accepts_starts and failure.retriable and row.failures <= policy.max_retries
        )
        self._emit_failed(task, at_ms, failure, will_retry=will_retry)
        if not will_retry:
            row.completed_ms = at_ms
            self._end(task, TaskStatus.FAILED)
            self._bind_to_fail(self._error_of_task(task, failure), at_ms)
            return
        row.retry_at_ms = at_ms + self._retry_delay_ms(task, row.attempt)
        self._next_attempt(task, TaskStatus.RETRYING)
        self._timers.push(row.retry_at_ms, TimerKind.RETRY, task, row.attempt)

    def _retry_delay_ms(self, task: int, failed: int) -> int:
        """How long the next attempt has to wait after the one that failed."""
        luck = f"{self.head.execution_id}/{task}/{failed}"
        failures = self.rows[task].failures
        return delay_ms(self.retry_policy(task), failures=failures, luck=luck)

    def _attempt_lost(self, task: int, at_ms: int, reason: str) -> None:
        row = self.rows[task]
        was_running = task in self._running
        if not self.accepts_starts and not was_running:
            self._drop(task, at_ms)
            return
        if self.head.status is ExecutionStatus.CANCELLING:
            self._drop(task, at_ms)
            return
        if self.waiting_on[task]:
            # Its turn in the stretch had not come, as far as is known: nothing has failed.
            self._next_attempt(task, TaskStatus.PENDING)
            return
        row.losses += 1
        again = self.accepts_starts and row.losses <= self.limits.lost_attempts_max
        failure = st.Failure(reason, st.WORKER_LOST, {"lost_attempts": row.losses}, "engine")
        if again:
            if was_running:
                self._emit_failed(task, at_ms, failure, will_retry=True)
            self._next_attempt(task, TaskStatus.PENDING)
            self._hand_out(task)
            return
        if not was_running:
            # Whether an attempt before it had begun, another loss may have wiped out by now.
            row.started_ms = None
        row.failure = failure
        row.completed_ms = at_ms
        self._emit_failed(task, at_ms, failure, will_retry=False)
        self._end(task, TaskStatus.FAILED)
        self._bind_to_fail(self._error_of_task(task, failure), at_ms)

    def _attempt_stopped(self, task: int, at_ms: int) -> None:
        reason = self._stopping.get(task)
        if reason is None:
            # Another owner may have stopped it, and been succeeded before it could write that down.
            reason = self._why_stopped(task, at_ms)
        if reason is StopReason.TIMEOUT and task in self._running:
            timeout_s = (self.workflow.tasks[task].timeout_ms or 0) / 1000
            failure = st.Failure(
                f"the task ran longer than its timeout of {timeout_s:g} s",
                "TIMEOUT",
                {"timeout_seconds": timeout_s},
                "engine",
            )
            self._attempt_failed(task, at_ms, failure)
        elif reason is None:
            self._attempt_lost(task, at_ms, "the attempt was stopped by its task actor")
        else:
            self._drop(task, at_ms)

    def _why_stopped(self, task: int, at_ms: int) -> StopReason | None:
        """What runs is stopped for a cancel, which is known, or because time has run out."""
        head = self.head
        if task not in self._running or head.status is ExecutionStatus.CANCELLING:
            return None
        error, deadline_ms = head.error, head.deadline_ms
        is_over = (
            error is not None
            and deadline_ms is not None
            and (error["code"] == TIMED_OUT or deadline_ms <= at_ms)
        )
        if is_over:
            return StopReason.CANCELLED
        return StopReason.TIMEOUT if self.workflow.tasks[task].timeout_ms else None

    def _tell_midway(self, stimulus: st.ProgressReported | st.LinesReported) -> None:
        if isinstance(stimulus, st.LinesReported):
            self._tell_lines(stimulus)
            return
        task = stimulus.task
        row = self.rows[task]
        if (row.progress, row.message) == (stimulus.fraction, stimulus.message):
            return  # Told before: the last progress comes once more with the outcome.
        row.progress = stimulus.fraction
        row.message = stimulus.message
        self._draft.changed[task] = None
        if self.seq < self.limits.progress_events_max:
            name = self.workflow.tasks[task].name
            progress = ev.TaskProgress(name, stimulus.fraction, stimulus.message)
            self._emit(progress, stimulus.at_ms)

    def _bind_to_fail(self, error: dict[str, Any], at_ms: int) -> None:
        """From here on nothing starts; what has not been handed out is skipped at once."""
        if self.head.error is None:
            self.head.error = error
            self._draft.head_changed = True
            self._stop_everything(StopReason.TAKEN_BACK, at_ms)

    def _stop_everything(self, reason: StopReason, at_ms: int) -> None:
        self._withdraw_starts()
        for index, row in enumerate(self.rows):
            if row.status.is_final:
                continue
            if index not in self.handed_out:
                self._drop(index, at_ms)
            elif reason is not StopReason.TAKEN_BACK or index not in self._running:
                self._stop(index, reason)
