"""The auditor: reads the event log of an execution and says which rules the history breaks.

    auditor = Auditor(workflow, head)
    auditor.feed(seq, body)                 each event, as the store has it
    disagreements(auditor, head, rows, seq) whether what is stored besides says the same
                                            (`audit_state`)

It judges from the log and the definition alone and shares no decision with the engine: what it
knows of a task is what the log has told so far. Each event costs the same, however long the log is;
a task that completes costs as much as it has children. The rules are in `audit_findings`. What it
cannot see is what the log does not tell: when a cancel was asked for, when time ran out, and which
tasks had been handed to a worker; it takes whatever would explain the log. Times are not compared
between events: they come from the clocks of several machines.
This module must not know stores, clocks or logs.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from harmonia_actors.core.audit_ending import Ending
from harmonia_actors.core.audit_findings import Findings, Violation
from harmonia_actors.core.audit_forms import (
    StoredForm,
    UnreadableEvent,
    read_event,
    timestamp_problem,
)
from harmonia_actors.core.events import FINAL_EVENT_TYPES
from harmonia_actors.core.records import Head
from harmonia_actors.core.retry import NO_RETRY
from harmonia_actors.core.state import CANCELLED_REASON
from harmonia_actors.core.statuses import TaskStatus
from harmonia_actors.core.stimuli import WORKER_LOST
from harmonia_actors.core.workflow import Workflow

__all__ = ["Auditor", "ToldTask"]

_NAMED_MAX = 5


@dataclass(slots=True)
class ToldTask:
    """What the log has told of one task so far."""

    name: str
    #: How many of those it depends on have not completed.
    waiting_on: int
    max_retries: int
    #: The highest attempt that was told of; 0 if none.
    attempt: int = 0
    is_running: bool = False
    failures: int = 0
    #: As its last lost attempt says, which counts those that nothing was told of.
    losses: int = 0
    started_ms: int | None = None
    ended_ms: int | None = None
    end: TaskStatus | None = None


class Auditor:
    """The history of one execution, fed event by event.

    `head` is that of the execution, for what never changes in it; `inherited` are the tasks that
    had completed before the checkpoint that it was restored from, of which its log tells nothing.
    """

    def __init__(
        self,
        workflow: Workflow,
        head: Head,
        *,
        inherited: Collection[int] = (),
        violations_max: int = 100,
    ) -> None:
        self.workflow = workflow
        self.head = head
        self.inherited = frozenset(inherited)
        self.findings = Findings(violations_max)
        #: Seq of the last event, and how many there were.
        self.seq = 0
        self.events = 0
        #: Attempts that the log tells of, and those among them whose process died.
        self.attempts = 0
        self.lost_attempts = 0
        self.completed = len(self.inherited)
        #: The first and the last event of the execution, once they have come.
        self.started: StoredForm | None = None
        self.final: StoredForm | None = None
        self.tasks = [
            ToldTask(
                task.name,
                sum(parent not in self.inherited for parent in workflow.graph.parents[task.index]),
                (task.retry or head.options.retry or workflow.retry or NO_RETRY).max_retries,
                end=TaskStatus.COMPLETED if task.index in self.inherited else None,
            )
            for task in workflow.tasks
        ]
        #: Tasks without an end, and those among them that are not ready.
        self.open = sum(task.end is None for task in self.tasks)
        self.blocked = sum(task.end is None and task.waiting_on > 0 for task in self.tasks)
        self.ending = Ending(head.options.timeout_ms or workflow.timeout_ms)
        self._checkpoints: set[str] = set()
        self._begins_badly = False
        self._is_told_late = False

    def feed(self, seq: int, body: bytes) -> None:
        """Take in the next event as the store has it."""
        self.events += 1
        if seq != self.seq + 1:
            self._add("A1", seq, None, f"event {seq} stands where {self.seq + 1} belongs")
        self.seq = max(self.seq, seq)
        if self.final is not None:
            self._add("A4", seq, None, f"it follows {self.final.kind} at {self.final.seq}")
            return
        try:
            event = read_event(body)
        except UnreadableEvent as error:
            self._add("A2", seq, None, str(error))
            return
        self._check_envelope(seq, event)
        self._check_beginning(seq, event)
        self._check_dropping(seq, event)
        self._take(seq, event)

    def _add(self, rule: str, seq: int, task: ToldTask | None, message: str) -> None:
        self.findings.add(Violation(rule, seq, None if task is None else task.name, message))

    # Every event -------------------------------------------------------------------------------

    def _check_envelope(self, seq: int, event: StoredForm) -> None:
        if event.seq != seq:
            self._add("A1", seq, None, f"the event says that it is {event.seq}")
        problem = timestamp_problem(event)
        if problem:
            self._add("A2", seq, None, problem)
        if event.execution_id != self.head.execution_id:
            self._add("A5", seq, None, f"it is of execution '{event.execution_id}'")
        expected = {"workflow_id": self.head.workflow_id, "workflow_name": self.workflow.name}
        for key, value in expected.items():
            if event.data.get(key, value) != value:
                self._add("A5", seq, None, f"{key} is {event.data[key]!r}, not {value!r}")

    def _check_beginning(self, seq: int, event: StoredForm) -> None:
        if event.kind == "execution_started":
            if self.started is not None or self.events > 1:
                self._add("A3", seq, None, "execution_started is not the first event")
            self.started = self.started or event
        elif self.started is None and not self._begins_badly:
            is_restored = self.head.checkpoint_id is not None
            is_cancel = event.kind == "execution_cancelled" or (
                event.kind == "task_cancelled" and event.data["reason"] == CANCELLED_REASON
            )
            if is_restored or not is_cancel:
                self._begins_badly = True
                self._add("A3", seq, None, f"{event.kind} comes before execution_started")

    def _check_dropping(self, seq: int, event: StoredForm) -> None:
        """What was not ready is dropped by the very decision that bound the execution to end."""
        is_late = self.blocked and self.ending.seq and not self._is_told_late
        if is_late and event.kind not in ("task_skipped", "task_cancelled"):
            self._is_told_late = True
            left = [task.name for task in self.tasks if task.end is None and task.waiting_on]
            message = (
                f"{event.kind} comes before {_listed(left)} is dropped, which was not ready when "
                f"event {self.ending.seq} bound the execution to end"
            )
            self._add("A13", seq, None, message)

    def _take(self, seq: int, event: StoredForm) -> None:
        if event.kind in FINAL_EVENT_TYPES:
            self._check_end(seq, event)
        elif event.kind == "checkpoint_created":
            checkpoint_id = event.data["checkpoint_id"]
            if checkpoint_id in self._checkpoints:
                self._add("A15", seq, None, f"checkpoint '{checkpoint_id}' was told before")
            self._checkpoints.add(checkpoint_id)
        elif event.kind != "execution_started":
            index = self._index_of(seq, event.data)
            if index is not None:
                self._take_of_task(seq, event, index)

    # Tasks -------------------------------------------------------------------------------------

    def _index_of(self, seq: int, data: dict[str, Any]) -> int | None:
        """The task that an event is about; None if there is no such task."""
        known = self.workflow.by_name.get(data["task_name"])
        if known is None:
            name = data["task_name"][:200]
            self._add("A5", seq, None, f"the workflow has no task '{name}'")
            return None
        task = self.tasks[known.index]
        expected = {
            "task_index": known.index,
            "total_tasks": len(self.tasks),
            "max_retries": task.max_retries,
        }
        for key, value in expected.items():
            if data.get(key, value) != value:
                self._add("A5", seq, task, f"{key} is {data[key]}, not {value}")
        return known.index

    def _take_of_task(self, seq: int, event: StoredForm, index: int) -> None:
        task, data = self.tasks[index], event.data
        if task.end is not None:
            since = "before the checkpoint" if index in self.inherited else "already"
            self._add("A10", seq, task, f"{event.kind}, but the task is {task.end} {since}")
            return
        match event.kind:
            case "task_started":
                self._check_ready(seq, index)
                self._check_fresh(seq, task, data["attempt"])
                task.attempt = max(task.attempt, data["attempt"])
                task.is_running = True
                task.started_ms = event.at_ms
                self.attempts += 1
            case "task_progress":
                if not task.is_running:
                    self._add("A9", seq, task, "progress, but no attempt of the task runs")
            case "task_completed":
                if not task.is_running or task.attempt != data["attempt"]:
                    self._add("A9", seq, task, _not_running(task, data["attempt"], "completes"))
                self._end(index, TaskStatus.COMPLETED, event.at_ms)
                self._unblock_children(index)
            case "task_failed":
                self._take_failure(seq, event, index)
            case _:
                self._take_drop(seq, event, index)

    def _check_ready(self, seq: int, index: int) -> None:
        task = self.tasks[index]
        if task.waiting_on:
            missing = [
                self.tasks[parent].name
                for parent in self.workflow.graph.parents[index]
                if self.tasks[parent].end is not TaskStatus.COMPLETED
            ]
            self._add("A6", seq, task, f"it depends on {_listed(missing)}, not completed by then")

    def _check_fresh(self, seq: int, task: ToldTask, attempt: int) -> None:
        if task.is_running:
            message = f"attempt {attempt} starts while attempt {task.attempt} runs"
            self._add("A8", seq, task, message)
        if attempt <= task.attempt:
            message = f"attempt {attempt} starts after attempt {task.attempt}"
            self._add("A7", seq, task, message)

    def _take_failure(self, seq: int, event: StoredForm, index: int) -> None:
        task, data = self.tasks[index], event.data
        attempt: int = data["attempt"]
        if task.is_running:
            if attempt != task.attempt:
                self._add("A9", seq, task, _not_running(task, attempt, "fails"))
        else:
            self._check_ready(seq, index)
            if attempt <= task.attempt:
                self._add("A9", seq, task, _not_running(task, attempt, "fails"))
            else:
                self.attempts += 1
        task.attempt = max(task.attempt, attempt)
        task.is_running = False
        self._count_failure(seq, task, data)
        for rule, message in self.ending.failure_problems(will_retry=data["will_retry"]):
            self._add(rule, seq, task, message)
        if not data["will_retry"]:
            self._end(index, TaskStatus.FAILED, event.at_ms)
            self.ending.failed(seq, index, task.name, data, anything_blocked=self.blocked > 0)

    def _count_failure(self, seq: int, task: ToldTask, data: dict[str, Any]) -> None:
        """Failures use up retries; the loss of a process does not, and is counted apart."""
        details = data["error_details"]
        if details["code"] == WORKER_LOST:
            self.lost_attempts += 1
            losses = details.get("lost_attempts")
            ended = task.attempt - task.failures
            if not isinstance(losses, int) or not task.losses < losses <= ended:
                message = f"lost_attempts is {losses}: above {task.losses}, at most {ended} can be"
                self._add("A11", seq, task, message)
            else:
                task.losses = losses
        else:
            task.failures += 1
            if data["will_retry"] and task.failures > task.max_retries:
                message = f"failure {task.failures} is retried; {task.max_retries} retries are due"
                self._add("A11", seq, task, message)
        retries = max(0, task.failures - 1)
        if data["retry_count"] != retries:
            message = f"retry_count is {data['retry_count']}, {retries} retries were told"
            self._add("A11", seq, task, message)

    def _take_drop(self, seq: int, event: StoredForm, index: int) -> None:
        task, is_skip = self.tasks[index], event.kind == "task_skipped"
        problem = self.ending.drop_problem(
            event.data["reason"], is_skip=is_skip, was_running=task.is_running
        )
        if problem:
            self._add("A12", seq, task, problem)
        self.ending.bind(seq)
        self._end(index, TaskStatus.SKIPPED if is_skip else TaskStatus.CANCELLED, event.at_ms)

    def _end(self, index: int, end: TaskStatus, at_ms: int) -> None:
        task = self.tasks[index]
        task.end = end
        task.is_running = False
        task.ended_ms = at_ms
        self.open -= 1
        self.blocked -= task.waiting_on > 0
        self.completed += end is TaskStatus.COMPLETED

    def _unblock_children(self, index: int) -> None:
        for child in self.workflow.graph.children[index]:
            task = self.tasks[child]
            task.waiting_on -= 1
            if task.waiting_on == 0:
                self.blocked -= task.end is None

    # The end -----------------------------------------------------------------------------------

    def _check_end(self, seq: int, event: StoredForm) -> None:
        self.final = event
        if self.open:
            without = [task.name for task in self.tasks if task.end is None]
            message = f"{event.kind}, but there is no end of {_listed(without)}"
            self._add("A14", seq, None, message)
        problems = self.ending.final_problems(
            event.kind, event.data, all_completed=self.completed == len(self.tasks)
        )
        for message in problems:
            self._add("A14", seq, None, message)
        began_ms = event.at_ms if self.started is None else self.started.at_ms
        seconds = max(0, event.at_ms - began_ms) / 1000
        if event.data["duration_seconds"] != seconds and not self._begins_badly:
            message = f"duration_seconds is {event.data['duration_seconds']}, it took {seconds:g}"
            self._add("A14", seq, None, message)


def _not_running(task: ToldTask, attempt: int, does: str) -> str:
    state = f"attempt {task.attempt} runs" if task.is_running else "no attempt runs"
    return f"attempt {attempt} {does}, but {state} (the last was {task.attempt})"


def _listed(names: list[str]) -> str:
    shown = ", ".join(f"'{name}'" for name in names[:_NAMED_MAX])
    more = len(names) - _NAMED_MAX
    return f"{shown} and {more} more" if more > 0 else shown
