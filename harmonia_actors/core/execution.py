"""One execution: its state, and the one door through which it changes.

    handle(*stimuli) -> Decision        what was asked or reported, in; what to do and tell, out
    resume(at_ms, adopted) -> Decision  after a new owner has loaded it: what is outstanding

Rules. A task starts only when all it depends on has completed. Final is final. At most one attempt
of a task lives at a time, and attempt numbers only grow. When a task has failed for good, no task
starts any more; those that run may end, then the execution has failed. Work per stimulus depends on
what it changes, never on the size of the graph, except when everything that is left is skipped or
cancelled at once.

This module must not know clocks, stores, actors or logs.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import assert_never

from harmonia_actors.core import events as ev
from harmonia_actors.core import stimuli as st
from harmonia_actors.core.commands import (
    ArmTimer,
    Command,
    ComposeOutput,
    StartAttempt,
    StopAttempt,
    StopReason,
)
from harmonia_actors.core.outputs import compose_inline, composing_tasks
from harmonia_actors.core.records import Head, OutputReference, TaskRow
from harmonia_actors.core.retry import NO_RETRY, RetryPolicy, delay_ms
from harmonia_actors.core.statuses import (
    ExecutionStatus,
    TaskStatus,
    check_execution,
    check_task,
)
from harmonia_actors.core.timers import TimerKind, Timers
from harmonia_actors.core.workflow import Workflow

__all__ = ["CoreLimits", "Decision", "Execution", "NumberedEvent"]

_RUNNING_SHOWN_MAX = 20


@dataclass(frozen=True, slots=True)
class CoreLimits:
    """Bounds on what one execution may do."""

    lost_attempts_max: int = 5
    progress_events_max: int = 200_000
    inline_output_bytes_max: int = 65_536


@dataclass(frozen=True, slots=True)
class NumberedEvent:
    """An event with its place in the log and its time."""

    seq: int
    at_ms: int
    event: ev.Event


@dataclass(slots=True)
class Decision:
    """What follows from some stimuli. Nothing in it may be done before it is durable."""

    events: list[NumberedEvent] = field(default_factory=list)
    commands: list[Command] = field(default_factory=list)
    #: Indexes of tasks whose rows have changed, in the order of their first change.
    changed: dict[int, None] = field(default_factory=dict)
    head_changed: bool = False
    #: New outputs that are kept inline, by key.
    outputs: dict[str, bytes] = field(default_factory=dict)

    @property
    def is_empty(self) -> bool:
        """True if there is nothing to write and nothing to do."""
        return not (self.events or self.commands or self.changed or self.head_changed)


class Execution:
    """The state of one execution. Change it only through `handle` and `resume`."""

    def __init__(
        self,
        *,
        workflow: Workflow,
        head: Head,
        rows: Mapping[int, TaskRow] | None = None,
        seq: int = 0,
        limits: CoreLimits | None = None,
    ) -> None:
        self.workflow = workflow
        self.head = head
        self.seq = seq
        self.limits = limits or CoreLimits()
        #: Reports that were ignored because their attempt is not the current one.
        self.stale_reports = 0
        self.rows = [TaskRow() for _ in workflow.tasks]
        for index, row in (rows or {}).items():
            self.rows[index] = row
        completed = TaskStatus.COMPLETED
        #: Per task, how many of those it depends on have not completed.
        self.waiting_on = [
            sum(self.rows[parent].status is not completed for parent in parents)
            for parents in workflow.graph.parents
        ]
        #: Tasks that are not final yet.
        self.open_count = sum(not row.status.is_final for row in self.rows)
        #: Tasks whose attempt has been handed out and has not ended, running or not yet.
        self.handed_out: set[int] = set()
        self._running: dict[int, None] = {
            index: None for index, row in enumerate(self.rows) if row.status is TaskStatus.RUNNING
        }
        self._stopping: dict[int, StopReason] = {}
        self._timers = Timers()
        self._composing = False
        #: Outputs needed for the execution's own, as long as they are inline and small.
        self._kept: dict[int, bytes] = {}
        self._composed_of = composing_tasks(workflow)
        self._draft = Decision()

    # What others may ask ---------------------------------------------------------------------

    @property
    def is_final(self) -> bool:
        """True if the execution has ended."""
        return self.head.status.is_final

    @property
    def accepts_starts(self) -> bool:
        """True while tasks may be started: running, and nothing has failed for good."""
        return self.head.status is ExecutionStatus.RUNNING and self.head.error is None

    def retry_policy(self, task: int) -> RetryPolicy:
        """The task's own policy, else the execution's, else the workflow's, else none."""
        return (
            self.workflow.tasks[task].retry
            or self.head.options.retry
            or self.workflow.retry
            or NO_RETRY
        )

    # The one door ------------------------------------------------------------------------------

    def handle(self, *stimuli: st.Stimulus) -> Decision:
        """Take in what happened and decide what follows."""
        for stimulus in stimuli:
            self._take(stimulus)
        if stimuli:
            self._settle(stimuli[-1].at_ms)
        return self._finish_draft()

    def resume(self, at_ms: int, adopted: Collection[tuple[int, int]]) -> Decision:
        """Derive what is outstanding after a change of owner.

        `adopted` holds (task, attempt) of attempts that task actors have confirmed to have, run
        or finished without having been acknowledged; all others that ran are lost.
        """
        if self.is_final:
            return self._finish_draft()
        if self.head.deadline_ms is not None:
            self._timers.push(self.head.deadline_ms, TimerKind.DEADLINE)
        if self.head.status is not ExecutionStatus.PENDING:
            for index, row in enumerate(self.rows):
                if not row.status.is_final:
                    self._resume_task(index, row, (index, row.attempt) in adopted, at_ms)
        self._settle(at_ms)
        return self._finish_draft()

    def _finish_draft(self) -> Decision:
        draft, self._draft = self._draft, Decision()
        if draft.events or draft.changed:
            draft.head_changed = True
        return draft

    def _take(self, stimulus: st.Stimulus) -> None:
        match stimulus:
            case st.AttemptStarted():
                self._attempt_started(stimulus)
            case st.AttemptSucceeded():
                self._attempt_succeeded(stimulus)
            case st.AttemptFailed(task, attempt, at_ms, failure):
                if self._is_current(task, attempt):
                    self._attempt_failed(task, at_ms, failure)
            case st.AttemptLost(task, attempt, at_ms, reason):
                if self._is_current(task, attempt):
                    self._attempt_lost(task, at_ms, reason)
            case st.AttemptStopped(task, attempt, at_ms):
                if self._is_current(task, attempt):
                    self._attempt_stopped(task, at_ms)
            case st.AttemptWaiting(task, attempt, _, reason):
                if self._is_current(task, attempt) and task not in self._running:
                    self.rows[task].waiting = reason
                    self._draft.changed[task] = None
            case st.ProgressReported():
                self._progress_reported(stimulus)
            case st.StartRequested(at_ms):
                self._start_requested(at_ms)
            case st.CancelRequested(at_ms):
                self._cancel_requested(at_ms)
            case st.CheckpointTaken(at_ms, checkpoint_id, name):
                if not self.is_final:
                    self._emit(ev.CheckpointCreated(checkpoint_id, name), at_ms)
            case st.TimerFired(at_ms):
                self._timer_fired(at_ms)
            case st.OutputComposed(at_ms, output):
                if self._composing and self.accepts_starts:
                    self._complete(output, at_ms)
            case st.OutputRefused(at_ms, failure):
                if self._composing and self.accepts_starts:
                    self._bind_to_fail(_error_of("execution_error", failure), at_ms)
            case _:
                assert_never(stimulus)

    # Attempts ----------------------------------------------------------------------------------

    def _is_current(self, task: int, attempt: int) -> bool:
        row = self.rows[task]
        if row.attempt == attempt and not row.status.is_final and not self.is_final:
            return True
        self.stale_reports += 1
        return False

    def _attempt_started(self, stimulus: st.AttemptStarted) -> None:
        task = stimulus.task
        if self._is_current(task, stimulus.attempt) and task not in self._running:
            self._begin(task, stimulus.at_ms)

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

    def _attempt_succeeded(self, stimulus: st.AttemptSucceeded) -> None:
        task, at_ms, output = stimulus.task, stimulus.at_ms, stimulus.output
        if not self._is_current(task, stimulus.attempt):
            return
        if task not in self._running:
            self._begin(task, at_ms)
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
            if self.waiting_on[child] == 0 and self.accepts_starts:
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
        luck = f"{self.head.execution_id}/{task}/{row.attempt}"
        row.retry_at_ms = at_ms + delay_ms(policy, failures=row.failures, luck=luck)
        self._next_attempt(task, TaskStatus.RETRYING)
        self._timers.push(row.retry_at_ms, TimerKind.RETRY, task, row.attempt)

    def _attempt_lost(self, task: int, at_ms: int, reason: str) -> None:
        row = self.rows[task]
        was_running = task in self._running
        if not self.accepts_starts and not was_running:
            self._drop(task, at_ms)
            return
        if self.head.status is ExecutionStatus.CANCELLING:
            self._drop(task, at_ms)
            return
        row.losses += 1
        again = self.accepts_starts and row.losses <= self.limits.lost_attempts_max
        failure = st.Failure(reason, "WORKER_LOST", {"lost_attempts": row.losses}, "engine")
        if again:
            if was_running:
                self._emit_failed(task, at_ms, failure, will_retry=True)
            self._next_attempt(task, TaskStatus.PENDING)
            self._hand_out(task)
            return
        row.failure = failure
        row.completed_ms = at_ms
        self._emit_failed(task, at_ms, failure, will_retry=False)
        self._end(task, TaskStatus.FAILED)
        self._bind_to_fail(self._error_of_task(task, failure), at_ms)

    def _attempt_stopped(self, task: int, at_ms: int) -> None:
        reason = self._stopping.get(task)
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

    def _progress_reported(self, stimulus: st.ProgressReported) -> None:
        task = stimulus.task
        if task not in self._running or not self._is_current(task, stimulus.attempt):
            return
        row = self.rows[task]
        row.progress = stimulus.fraction
        row.message = stimulus.message
        self._draft.changed[task] = None
        if self.seq < self.limits.progress_events_max:
            name = self.workflow.tasks[task].name
            progress = ev.TaskProgress(name, stimulus.fraction, stimulus.message)
            self._emit(progress, stimulus.at_ms)

    # The whole execution -----------------------------------------------------------------------

    def _start_requested(self, at_ms: int) -> None:
        if self.head.status is not ExecutionStatus.PENDING:
            return
        self._become(ExecutionStatus.RUNNING, at_ms)
        self.head.started_ms = at_ms
        self._emit(ev.ExecutionStarted(self.head.workflow_id, self.workflow.name), at_ms)
        timeout_ms = self.head.options.timeout_ms or self.workflow.timeout_ms
        if timeout_ms is not None:
            self.head.deadline_ms = at_ms + timeout_ms
            self._timers.push(self.head.deadline_ms, TimerKind.DEADLINE)
        for index, row in enumerate(self.rows):
            if self.waiting_on[index] == 0 and row.status is TaskStatus.PENDING:
                self._hand_out(index)

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
            row = self.rows[task]
            if row.attempt != attempt or row.status.is_final:
                continue
            if kind is TimerKind.RETRY:
                if row.status is TaskStatus.RETRYING and self.accepts_starts:
                    self._hand_out(task)
            elif task in self._running and task not in self._stopping:
                self._stop(task, StopReason.TIMEOUT)

    def _deadline_passed(self, at_ms: int) -> None:
        if self.is_final or self.head.status is ExecutionStatus.CANCELLING:
            return
        if self.head.error is None:
            timeout_s = (self.head.options.timeout_ms or self.workflow.timeout_ms or 0) / 1000
            message = f"the execution ran longer than its timeout of {timeout_s:g} s"
            self.head.error = {
                "code": "timeout",
                "message": message,
                "details": {"timeout_seconds": timeout_s},
            }
        self._draft.head_changed = True
        self._stop_everything(StopReason.CANCELLED, at_ms)

    def _bind_to_fail(self, error: dict[str, object], at_ms: int) -> None:
        """From here on nothing starts; what has not been handed out is skipped at once."""
        if self.head.error is None:
            self.head.error = error
            self._draft.head_changed = True
            self._stop_everything(StopReason.TAKEN_BACK, at_ms)

    def _stop_everything(self, reason: StopReason, at_ms: int) -> None:
        for index, row in enumerate(self.rows):
            if row.status.is_final:
                continue
            if index not in self.handed_out:
                self._drop(index, at_ms)
            elif reason is not StopReason.TAKEN_BACK or index not in self._running:
                self._stop(index, reason)

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
            due_ms = self._timers.to_arm()
            if due_ms is not None:
                self._draft.commands.append(ArmTimer(due_ms))

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

    # Small steps -------------------------------------------------------------------------------

    def _resume_task(self, index: int, row: TaskRow, confirmed: bool, at_ms: int) -> None:
        ready = self.waiting_on[index] == 0
        if confirmed:
            self.handed_out.add(index)
            timeout_ms = self.workflow.tasks[index].timeout_ms
            if row.status is TaskStatus.RUNNING and timeout_ms and row.started_ms:
                due = row.started_ms + timeout_ms
                self._timers.push(due, TimerKind.TASK_TIMEOUT, index, row.attempt)
            if self.head.status is ExecutionStatus.CANCELLING:
                self._stop(index, StopReason.CANCELLED)
        elif row.status is TaskStatus.RUNNING:
            self.handed_out.add(index)
            self._attempt_lost(index, at_ms, "the process that ran the task has died")
        elif not self.accepts_starts:
            self._drop(index, at_ms)
        elif row.status is TaskStatus.RETRYING:
            due = row.retry_at_ms or at_ms
            self._timers.push(due, TimerKind.RETRY, index, row.attempt)
        elif ready:
            self._hand_out(index)

    def _hand_out(self, task: int) -> None:
        self.handed_out.add(task)
        self._draft.commands.append(StartAttempt(task, self.rows[task].attempt))

    def _stop(self, task: int, reason: StopReason) -> None:
        known = self._stopping.get(task)
        if known is reason or (known is not None and reason is StopReason.TAKEN_BACK):
            return
        self._stopping[task] = reason
        self._draft.commands.append(StopAttempt(task, self.rows[task].attempt, reason))

    def _drop(self, task: int, at_ms: int) -> None:
        """The task will not run any more: cancelled if somebody wanted that, else skipped."""
        was_running = task in self._running
        cancelling = self.head.status is ExecutionStatus.CANCELLING
        self.rows[task].completed_ms = at_ms
        self.rows[task].waiting = ""
        definition = self.workflow.tasks[task]
        if cancelling or was_running:
            self._end(task, TaskStatus.CANCELLED)
            reason = "the execution was cancelled" if cancelling else self._why_ending()
            self._emit(ev.TaskCancelled(definition.name, task, len(self.rows), reason), at_ms)
        else:
            self._end(task, TaskStatus.SKIPPED)
            reason = self._why_ending()
            self._emit(ev.TaskSkipped(definition.name, task, len(self.rows), reason), at_ms)

    def _why_ending(self) -> str:
        error = self.head.error or {}
        if error.get("code") == "timeout":
            return "the execution timed out"
        return f"task '{error.get('task', '')}' failed"

    def _next_attempt(self, task: int, status: TaskStatus) -> None:
        self._move(task, status)
        self.handed_out.discard(task)
        self._stopping.pop(task, None)
        self.rows[task].attempt += 1

    def _end(self, task: int, status: TaskStatus) -> None:
        self._move(task, status)
        self.rows[task].retry_at_ms = None
        self.handed_out.discard(task)
        self._stopping.pop(task, None)
        self.open_count -= 1

    def _move(self, task: int, status: TaskStatus) -> None:
        row = self.rows[task]
        check_task(self.workflow.tasks[task].name, row.status, status)
        row.status = status
        if status is TaskStatus.RUNNING:
            self._running[task] = None
        else:
            self._running.pop(task, None)
        self._draft.changed[task] = None

    def _become(self, status: ExecutionStatus, at_ms: int) -> None:
        check_execution(self.head.status, status)
        self.head.status = status
        self.head.updated_ms = at_ms
        self._draft.head_changed = True

    def _emit(self, event: ev.Event, at_ms: int) -> None:
        self.seq += 1
        self.head.updated_ms = max(self.head.updated_ms, at_ms)
        self._draft.events.append(NumberedEvent(self.seq, at_ms, event))

    def _emit_failed(self, task: int, at_ms: int, failure: st.Failure, *, will_retry: bool) -> None:
        row = self.rows[task]
        event = ev.TaskFailed(
            task_name=self.workflow.tasks[task].name,
            task_index=task,
            total_tasks=len(self.rows),
            attempt=row.attempt,
            failure=failure,
            retry_count=max(0, row.failures - 1),
            max_retries=self.retry_policy(task).max_retries,
            will_retry=will_retry,
        )
        self._emit(event, at_ms)

    def _error_of_task(self, task: int, failure: st.Failure) -> dict[str, object]:
        code = "component_error" if failure.origin == "component" else "execution_error"
        name = self.workflow.tasks[task].name
        return {**_error_of(code, failure, f"task '{name}' failed: "), "task": name}

    def head_record(self) -> Head:
        """The head as it is to be stored now."""
        shown = []
        for index in self._running:
            if len(shown) == _RUNNING_SHOWN_MAX:
                break
            shown.append(self.workflow.tasks[index].name)
        self.head.running = tuple(shown)
        self.head.running_count = len(self._running)
        return self.head


def _error_of(code: str, failure: st.Failure, prefix: str = "") -> dict[str, object]:
    return {
        "code": code,
        "message": prefix + failure.message,
        "details": {"code": failure.code, **failure.details},
    }
