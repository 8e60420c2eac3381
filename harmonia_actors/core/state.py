"""What an execution consists of, and the small steps by which it changes.

`Execution` decides; every change it makes goes through the steps here, which keep rows, counters,
the draft of the decision and the transition tables in agreement. Nobody else may call them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from harmonia_actors.core import events as ev
from harmonia_actors.core import stimuli as st
from harmonia_actors.core.commands import Command, StartAttempt, StopAttempt, StopReason
from harmonia_actors.core.log_lines import EVENT_COST, cost_of
from harmonia_actors.core.options import CheckpointPolicy
from harmonia_actors.core.outputs import composing_tasks
from harmonia_actors.core.records import Head, TaskRow
from harmonia_actors.core.retry import NO_RETRY, RetryPolicy
from harmonia_actors.core.statuses import (
    ExecutionStatus,
    TaskStatus,
    check_execution,
    check_task,
)
from harmonia_actors.core.timers import Timers
from harmonia_actors.core.workflow import Workflow

__all__ = [
    "CANCELLED_REASON",
    "TIMED_OUT",
    "CoreLimits",
    "Decision",
    "ExecutionState",
    "NumberedEvent",
    "error_of",
    "timeout_error",
    "why_ending",
]

#: The code of the error of an execution whose time has run out.
TIMED_OUT = "timeout"
#: Why a task does not run, or not to its end, in an execution that is being cancelled.
CANCELLED_REASON = "the execution was cancelled"
_RUNNING_SHOWN_MAX = 20


@dataclass(frozen=True, slots=True)
class CoreLimits:
    """Bounds on what one execution may do."""

    lost_attempts_max: int = 5
    progress_events_max: int = 200_000
    inline_output_bytes_max: int = 65_536
    #: What all log lines of the execution may count for.
    log_bytes_max: int = 16_000_000
    #: Automatic checkpoints that stay, if the policy does not say how many.
    checkpoints_kept: int = 5
    #: Tasks handed out behind the first of a stretch.
    stretch_tasks_max: int = 128


@dataclass(frozen=True, slots=True)
class NumberedEvent:
    """An event with its place in the log and its time.

    `index` counts all events of the log. Log lines have the seq of the event before, and a part.
    """

    seq: int
    at_ms: int
    event: ev.Event
    part: int = 0
    index: int = 0

    def encoded(self, execution_id: str) -> bytes:
        """As it is stored and sent."""
        place = {"seq": self.seq, "part": self.part}
        return ev.encode_event(self.event, at_ms=self.at_ms, execution_id=execution_id, **place)


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


class ExecutionState:
    """The state of one execution."""

    def __init__(
        self,
        *,
        workflow: Workflow,
        head: Head,
        rows: Mapping[int, TaskRow] | None = None,
        seq: int = 0,
        limits: CoreLimits | None = None,
        joined: Collection[int] = (),
    ) -> None:
        """`joined`: tasks that whoever has run the one they wait for last can run as well."""
        self.workflow = workflow
        self.head = head
        #: How many events the log has, log lines included.
        self.seq = seq
        self.limits = limits or CoreLimits()
        self._joined = joined
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
        #: Tasks handed out behind the first of a stretch: not many more than have gone on lately.
        self._reach = float(self.limits.stretch_tasks_max)
        self._timers = Timers()
        #: When the timer of the next automatic checkpoint is due; None if there is none.
        self._checkpoint_due_ms: int | None = None
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

    def may_lead_on(self, task: int) -> bool:
        """Whether whoever runs a task may go on with the next one by himself."""
        children = self.workflow.graph.children[task]
        return len(children) == 1 and children[0] in self._joined

    @property
    def told_seq(self) -> int:
        """The seq of the last event, as clients see it: log lines have none of their own."""
        return self.seq - self.head.log_events

    def retry_policy(self, task: int) -> RetryPolicy:
        """The task's own policy, else the execution's, else the workflow's, else none."""
        return (
            self.workflow.tasks[task].retry
            or self.head.options.retry
            or self.workflow.retry
            or NO_RETRY
        )

    @property
    def checkpoint_policy(self) -> CheckpointPolicy | None:
        """The execution's own policy, else the workflow's, else none."""
        return self.head.options.checkpoint or self.workflow.checkpoint

    def head_record(self) -> Head:
        """The head as it is to be stored now."""
        shown: list[str] = []
        for index in self._running:
            if len(shown) == _RUNNING_SHOWN_MAX:
                break
            shown.append(self.workflow.tasks[index].name)
        self.head.running = tuple(shown)
        self.head.running_count = len(self._running)
        return self.head

    # Small steps -------------------------------------------------------------------------------

    def _hand_out(self, task: int) -> None:
        self.handed_out.add(task)
        attempt = self.rows[task].attempt
        self._draft.commands.append(StartAttempt(task, attempt, self._stretch_behind(task)))

    def _stretch_behind(self, task: int) -> tuple[tuple[int, int], ...]:
        """What can be handed out along with a task: it ends at a fork, and where others wait.

        Nothing, if checkpoints follow completions: after each of them all must be known here.
        """
        found: list[tuple[int, int]] = []
        policy = self.checkpoint_policy
        if policy is not None and policy.every_completions is not None:
            return ()
        children = self.workflow.graph.children
        most = min(self.limits.stretch_tasks_max, int(self._reach))
        while len(children[task]) == 1 and len(found) < most:
            (task,) = children[task]
            row = self.rows[task]
            is_next = task in self._joined and self.waiting_on[task] == 1
            if not is_next or row.status is not TaskStatus.PENDING or task in self.handed_out:
                break
            self.handed_out.add(task)
            found.append((task, row.attempt))
        return tuple(found)

    def _learn_reach(self, *, went_on: bool) -> None:
        """Whoever had a stretch went on to one more of it, or gives one back.

        What comes back was made and sent in vain. With these steps half as much does, in the long
        run, as goes on, and one is always tried.
        """
        if went_on:
            self._reach = min(self.limits.stretch_tasks_max, self._reach + 0.25)
        else:
            self._reach = max(1.0, self._reach - 0.5)

    def _withdraw_starts(self) -> None:
        """What was to be started by the same decision has not been handed out after all."""
        kept: list[Command] = []
        for command in self._draft.commands:
            if isinstance(command, StartAttempt):
                self.handed_out.difference_update(
                    [command.task, *(task for task, _ in command.then)]
                )
            else:
                kept.append(command)
        self._draft.commands = kept

    def _stop(self, task: int, reason: StopReason) -> None:
        known = self._stopping.get(task)
        if known is not None and not _outranks(reason, known):
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
            reason = CANCELLED_REASON if cancelling else why_ending(self.head.error)
            self._emit(ev.TaskCancelled(definition.name, task, len(self.rows), reason), at_ms)
        else:
            self._end(task, TaskStatus.SKIPPED)
            reason = why_ending(self.head.error)
            self._emit(ev.TaskSkipped(definition.name, task, len(self.rows), reason), at_ms)

    def _next_attempt(self, task: int, status: TaskStatus) -> None:
        self._move(task, status)
        self.handed_out.discard(task)
        self._stopping.pop(task, None)
        row = self.rows[task]
        row.attempt += 1
        row.progress, row.message, row.lines = None, "", 0
        if status is TaskStatus.PENDING:
            # As if it had never begun. While a retry waits, it is still of use when the attempt
            # that failed had begun.
            row.started_ms = None

    def _end(self, task: int, status: TaskStatus) -> None:
        self._move(task, status)
        self.rows[task].retry_at_ms = None
        self.rows[task].lines = 0
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
        head = self.head
        self.seq += 1
        is_log = isinstance(event, ev.TaskLog)
        head.log_events += is_log
        head.log_part = head.log_part + 1 if is_log else 0
        head.updated_ms = max(head.updated_ms, at_ms)
        told = NumberedEvent(self.told_seq, at_ms, event, head.log_part, self.seq)
        self._draft.events.append(told)

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

    def _tell_lines(self, report: st.LinesReported) -> None:
        """Tell lines that are new, and how many are missing before them.

        Where there is no room for lines any more, only the end of the attempt says how many.
        """
        row, head = self.rows[report.task], self.head
        lines = report.lines[max(0, row.lines - report.first) :]
        dropped = max(0, report.first - row.lines)
        cost = cost_of(lines)
        has_room = self.seq < self.limits.progress_events_max
        if lines and not (has_room and head.log_bytes + cost <= self.limits.log_bytes_max):
            if not report.last:
                return
            lines, dropped, cost = (), report.end - row.lines, EVENT_COST
        if not (lines or dropped):
            return
        row.lines += dropped + len(lines)
        head.log_bytes += cost
        self._draft.changed[report.task] = None
        name = self.workflow.tasks[report.task].name
        self._emit(ev.TaskLog(name, row.attempt, lines, dropped), report.at_ms)

    def _error_of_task(self, task: int, failure: st.Failure) -> dict[str, Any]:
        code = "component_error" if failure.origin == "component" else "execution_error"
        name = self.workflow.tasks[task].name
        return {**error_of(code, failure, f"task '{name}' failed: "), "task": name}


def why_ending(error: Mapping[str, Any] | None) -> str:
    """Why a task does not run, or not to its end, in an execution that is bound to fail."""
    error = error or {}
    if error.get("code") == TIMED_OUT:
        return "the execution timed out"
    if error.get("code") == "quarantined":
        return "the execution was quarantined"
    return f"task '{error.get('task', '')}' failed"


def _outranks(reason: StopReason, known: StopReason) -> bool:
    """Whether an attempt that is being stopped already is to be stopped for another reason."""
    order = (StopReason.TAKEN_BACK, StopReason.TIMEOUT, StopReason.CANCELLED)
    return order.index(reason) > order.index(known)


def error_of(code: str, failure: st.Failure, prefix: str = "") -> dict[str, Any]:
    return {
        "code": code,
        "message": prefix + failure.message,
        "details": failure.shown_details(),
    }


def timeout_error(timeout_ms: int) -> dict[str, Any]:
    """The error of an execution whose time has run out."""
    timeout_s = timeout_ms / 1000
    return {
        "code": TIMED_OUT,
        "message": f"the execution ran longer than its timeout of {timeout_s:g} s",
        "details": {"timeout_seconds": timeout_s},
    }
