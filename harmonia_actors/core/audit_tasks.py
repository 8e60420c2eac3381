"""What an event log has told of the tasks so far, and which rules each of their events breaks.

Part of the auditor (`audit`): rules A5 to A13. After a broken rule it takes the event at its word,
so that one mistake in a log is not found again and again.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from harmonia_actors.core.audit_ending import Ending
from harmonia_actors.core.audit_findings import Findings, Violation
from harmonia_actors.core.audit_forms import StoredForm
from harmonia_actors.core.audit_outputs import ToldOutput
from harmonia_actors.core.log_lines import EVENT_COST, LINE_COST
from harmonia_actors.core.records import Head
from harmonia_actors.core.retry import NO_RETRY
from harmonia_actors.core.statuses import TaskStatus
from harmonia_actors.core.stimuli import WORKER_LOST
from harmonia_actors.core.workflow import Workflow

__all__ = ["ToldTask", "ToldTasks", "listed"]

_NAMED_MAX = 5


@dataclass(slots=True)
class ToldTask:
    """What the log has told of one task so far."""

    name: str
    #: How many of those it depends on have not completed.
    waiting_on: int
    max_retries: int
    #: Seq of the event since which it waits for no more than one other; 0 if it always has.
    nearly_ready_seq: int = 0
    #: The highest attempt that was told of; 0 if none.
    attempt: int = 0
    is_running: bool = False
    #: Seq of the last start of an attempt.
    started_seq: int = 0
    failures: int = 0
    #: As its last lost attempt says, which counts those that nothing was told of.
    losses: int = 0
    #: Numbers that went to no attempt that failed or was lost, as of the last lost attempt: an
    #: owner died after it had given them out.
    passed_over: int = 0
    started_ms: int | None = None
    ended_ms: int | None = None
    end: TaskStatus | None = None
    #: Whether an attempt ran until then.
    ended_running: bool = False
    #: Whether it may have been handed out behind another one when the execution was bound to end.
    follows: bool = False
    #: The last failure that counts: its error and details, and whether it was to be tried again.
    failed_with: tuple[str, dict[str, Any]] | None = None
    will_retry: bool = False
    output: ToldOutput | None = None
    #: The last progress of the attempt that runs: how far, and its message.
    progress: tuple[float, str] | None = None
    #: Lines of it that were told or left out.
    lines: int = 0


class ToldTasks:
    """All tasks of an execution. `inherited` ones had completed before its log began."""

    def __init__(
        self,
        workflow: Workflow,
        head: Head,
        inherited: Collection[int],
        ending: Ending,
        findings: Findings,
    ) -> None:
        self._workflow = workflow
        self._inherited = inherited
        self._ending = ending
        self._findings = findings
        self.tasks = [
            ToldTask(
                task.name,
                sum(parent not in inherited for parent in workflow.graph.parents[task.index]),
                (task.retry or head.options.retry or workflow.retry or NO_RETRY).max_retries,
                end=TaskStatus.COMPLETED if task.index in inherited else None,
            )
            for task in workflow.tasks
        ]
        #: Tasks without an end, and those among them that are not ready. Once it is known which may
        #: have been handed out all the same, these do not count.
        self.open = sum(task.end is None for task in self.tasks)
        self.blocked = sum(task.end is None and task.waiting_on > 0 for task in self.tasks)
        self._know_followers = False
        self.completed = len(inherited)
        #: Attempts that the log tells of, and those among them whose process died.
        self.attempts = 0
        self.lost_attempts = 0
        #: What the log lines count for.
        self.log_bytes = 0

    def take(self, seq: int, event: StoredForm) -> None:
        """Take in an event of a task."""
        index = self._index_of(seq, event.data)
        if index is None:
            return
        task, data = self.tasks[index], event.data
        if task.end is not None:
            since = "before the checkpoint" if index in self._inherited else "already"
            self._add("A10", seq, task, f"{event.kind}, but the task is {task.end} {since}")
            return
        match event.kind:
            case "task_started":
                self._take_start(seq, event, index)
            case "task_progress":
                self._take_progress(seq, task, (data["progress"], data["message"]))
            case "task_log":
                self._take_lines(seq, task, data)
            case "task_completed":
                if not task.is_running or task.attempt != data["attempt"]:
                    self._add("A9", seq, task, _not_running(task, data["attempt"], "completes"))
                task.output, task.failed_with = event.output, None
                self._end(index, TaskStatus.COMPLETED, event.at_ms)
                self._unblock_children(seq, index)
            case "task_failed":
                self._take_failure(seq, event, index)
            case _:
                self._take_drop(seq, event, index)

    def excuse_followers(self) -> None:
        """Of what is not ready, find out what may have been handed out behind what is."""
        if self._know_followers:
            return
        self._know_followers = True
        for task in self._workflow.tasks:
            told = self.tasks[task.index]
            if told.end is None and told.waiting_on == 0:
                self._excuse_behind(task.index)

    def _excuse_behind(self, index: int) -> None:
        """What runs has nothing behind it but what could follow when it was handed out."""
        children, first = self._workflow.graph.children, self.tasks[index]
        while len(children[index]) == 1:
            (index,) = children[index]
            follower = self.tasks[index]
            is_next = follower.end is None and follower.waiting_on == 1
            is_late = first.is_running and follower.nearly_ready_seq > first.started_seq
            if not is_next or is_late or not self._can_be_joined(index):
                return
            follower.follows = True
            self.blocked -= 1

    def _can_be_joined(self, index: int) -> bool:
        """Whether it needs just what each task needs that only it waits for."""
        graph, tasks = self._workflow.graph, self._workflow.tasks
        return all(
            tasks[parent].resources == tasks[index].resources
            for parent in graph.parents[index]
            if len(graph.children[parent]) == 1
        )

    def is_running(self, name: str) -> bool:
        """Whether an attempt of the task of this name runs, as far as the log has told."""
        known = self._workflow.by_name.get(name)
        return known is not None and self.tasks[known.index].is_running

    def _add(self, rule: str, seq: int, task: ToldTask | None, message: str) -> None:
        self._findings.add(Violation(rule, seq, None if task is None else task.name, message))

    def _index_of(self, seq: int, data: dict[str, Any]) -> int | None:
        """The task that an event is about; None if there is no such task."""
        known = self._workflow.by_name.get(data["task_name"])
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

    def _take_start(self, seq: int, event: StoredForm, index: int) -> None:
        self._check_ready(seq, index)
        task, attempt = self.tasks[index], event.data["attempt"]
        if task.is_running:
            message = f"attempt {attempt} starts while attempt {task.attempt} runs"
            self._add("A8", seq, task, message)
        if attempt <= task.attempt:
            message = f"attempt {attempt} starts after attempt {task.attempt}"
            self._add("A7", seq, task, message)
        task.attempt = max(task.attempt, attempt)
        task.is_running = True
        task.started_seq = seq
        task.started_ms = event.at_ms
        task.progress, task.lines = None, 0
        self.attempts += 1

    def _take_progress(self, seq: int, task: ToldTask, progress: tuple[float, str]) -> None:
        if not task.is_running:
            self._add("A9", seq, task, "progress, but no attempt of the task runs")
        elif progress == task.progress:
            self._add("A9", seq, task, "progress, but the attempt was as far as that before")
        task.progress = progress

    def _take_lines(self, seq: int, task: ToldTask, data: dict[str, Any]) -> None:
        if not task.is_running or task.attempt != data["attempt"]:
            self._add("A9", seq, task, _not_running(task, data["attempt"], "writes"))
        if not (data["lines"] or data["dropped"]):
            self._add("A9", seq, task, "log lines are told, but there is none")
        task.lines += data["dropped"] + len(data["lines"])
        sizes = (LINE_COST + len(line["text"].encode()) for line in data["lines"])
        self.log_bytes += EVENT_COST + sum(sizes)

    def _check_ready(self, seq: int, index: int) -> None:
        task = self.tasks[index]
        if task.waiting_on:
            missing = [
                self.tasks[parent].name
                for parent in self._workflow.graph.parents[index]
                if self.tasks[parent].end is not TaskStatus.COMPLETED
            ]
            self._add("A6", seq, task, f"it depends on {listed(missing)}, not completed by then")

    def _take_failure(self, seq: int, event: StoredForm, index: int) -> None:
        task, data = self.tasks[index], event.data
        if not data["will_retry"]:
            self.excuse_followers()
        self._check_outcome(seq, index, data)
        is_loss = data["error_details"]["code"] == WORKER_LOST
        never_began = is_loss and not task.is_running
        for rule, message in self._ending.failure_problems(
            will_retry=data["will_retry"], never_began=never_began
        ):
            self._add(rule, seq, task, message)
        task.attempt = max(task.attempt, data["attempt"])
        task.is_running = False
        if is_loss:
            self._count_loss(seq, task, data["error_details"].get("lost_attempts"))
            if data["will_retry"] or never_began:
                # The next attempt begins as if there had been none.
                task.started_ms = None
        else:
            self._count_failure(seq, task, will_retry=data["will_retry"])
        if not (is_loss and data["will_retry"]):
            task.failed_with = (data["error"], data["error_details"])
            task.will_retry = data["will_retry"]
        retries = max(0, task.failures - 1)
        if data["retry_count"] != retries:
            message = f"retry_count is {data['retry_count']}, {retries} retries were told"
            self._add("A11", seq, task, message)
        if not data["will_retry"]:
            self._end(index, TaskStatus.FAILED, event.at_ms)
            # Had something bound the execution to end before, what waits for others would have
            # been dropped, and so would an attempt that was lost before it began.
            is_first = never_began or self.blocked > 0
            self._ending.failed(seq, task.name, data, is_cause=is_first)

    def _check_outcome(self, seq: int, index: int, data: dict[str, Any]) -> None:
        """Whether a failure is one of the attempt that runs, or of one that never began."""
        task, attempt = self.tasks[index], data["attempt"]
        if task.is_running:
            if attempt != task.attempt:
                self._add("A9", seq, task, _not_running(task, attempt, "fails"))
            return
        self._check_ready(seq, index)
        if attempt <= task.attempt:
            self._add("A9", seq, task, _not_running(task, attempt, "fails"))
        elif data["error_details"]["code"] == WORKER_LOST and data["will_retry"]:
            self._add("A9", seq, task, f"attempt {attempt} was lost and told of, but never began")
        else:
            self.attempts += 1

    def _count_failure(self, seq: int, task: ToldTask, *, will_retry: bool) -> None:
        task.failures += 1
        if will_retry and task.failures > task.max_retries:
            message = f"failure {task.failures} is retried; {task.max_retries} retries are due"
            self._add("A11", seq, task, message)

    def _count_loss(self, seq: int, task: ToldTask, losses: Any) -> None:
        """The loss of a process uses up no retry. Losses that are not told are counted too."""
        self.lost_attempts += 1
        most = task.attempt - task.failures - task.passed_over
        if isinstance(losses, int) and task.losses < losses <= most:
            task.losses = losses
            task.passed_over = task.attempt - task.failures - losses
        else:
            message = f"lost_attempts is {losses}, which should be {task.losses + 1} to {most}"
            self._add("A11", seq, task, message)

    def _take_drop(self, seq: int, event: StoredForm, index: int) -> None:
        self.excuse_followers()
        task, is_skip = self.tasks[index], event.kind == "task_skipped"
        problem = self._ending.drop_problem(
            event.data["reason"],
            is_skip=is_skip,
            was_running=task.is_running,
            was_blocked=task.waiting_on > 0 and not task.follows,
        )
        if problem:
            self._add("A12", seq, task, problem)
        self._ending.bind(seq)
        self._end(index, TaskStatus.SKIPPED if is_skip else TaskStatus.CANCELLED, event.at_ms)

    def _end(self, index: int, end: TaskStatus, at_ms: int) -> None:
        task = self.tasks[index]
        task.end = end
        task.ended_running = task.is_running
        task.is_running = False
        task.ended_ms = at_ms
        self.open -= 1
        self.blocked -= task.waiting_on > 0 and not task.follows
        self.completed += end is TaskStatus.COMPLETED

    def _unblock_children(self, seq: int, index: int) -> None:
        for child in self._workflow.graph.children[index]:
            task = self.tasks[child]
            task.waiting_on -= 1
            if task.waiting_on == 1:
                task.nearly_ready_seq = seq
            if task.waiting_on == 0:
                self.blocked -= task.end is None and not task.follows


def _not_running(task: ToldTask, attempt: int, does: str) -> str:
    state = f"attempt {task.attempt} runs" if task.is_running else "no attempt runs"
    return f"attempt {attempt} {does}, but {state} (the last was {task.attempt})"


def listed(names: list[str]) -> str:
    """The first names, and how many more there are."""
    shown = ", ".join(f"'{name}'" for name in names[:_NAMED_MAX])
    more = len(names) - _NAMED_MAX
    return f"{shown} and {more} more" if more > 0 else shown
