"""The auditor: reads the event log of an execution and says which rules the history breaks.

    auditor = Auditor(workflow, head)
    auditor.feed(seq, body)                     each event, as the store has it
    disagreements(auditor, head, rows, seq)     whether what is stored besides says the same
                                                (`audit_state`)

It judges from the log and the definition alone and shares no decision with the engine: what it
knows of a task is what the log has told so far (`audit_tasks`, `audit_ending`). Each event costs
the same, however long the log is; a task that completes costs as much as it has children. The rules
are in `audit_findings`. What a log does not tell (when a cancel was asked for, when time ran out,
what had been handed to a worker) may have been whatever would explain it. Times of different events
are not compared: they come from the clocks of several machines.
This module must not know stores, clocks or logs.
"""

from __future__ import annotations

from collections.abc import Collection

from harmonia_actors.core.audit_ending import QUARANTINED_REASON, Ending
from harmonia_actors.core.audit_findings import Findings, Violation
from harmonia_actors.core.audit_forms import (
    StoredForm,
    UnreadableEvent,
    read_event,
    timestamp_problem,
)
from harmonia_actors.core.audit_outputs import ToldOutput
from harmonia_actors.core.audit_tasks import ToldTasks, listed
from harmonia_actors.core.cursors import Place
from harmonia_actors.core.events import FINAL_EVENT_TYPES, TaskLog
from harmonia_actors.core.quarantine import QUARANTINED
from harmonia_actors.core.records import Head
from harmonia_actors.core.state import CANCELLED_REASON
from harmonia_actors.core.workflow import Workflow

__all__ = ["Auditor"]


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
        self.ending = Ending(head.options.timeout_ms or workflow.timeout_ms)
        self.told = ToldTasks(workflow, head, self.inherited, self.ending, self.findings)
        #: Seq of the last event, and how many there were.
        self.seq = 0
        self.events = 0
        #: The first and the last event of the execution, once they have come.
        self.started: StoredForm | None = None
        self.final: StoredForm | None = None
        #: What the last event has told of the execution's output.
        self.output: ToldOutput | None = None
        self._checkpoints: set[str] = set()
        #: How many events were log lines, in all and since the last other one.
        self.log_events = 0
        self._part = 0
        self._begins_badly = False
        self._is_told_late = False

    def feed(self, seq: int, body: bytes) -> None:
        """Take in the next event as the store has it."""
        self.events += 1
        if seq != self.seq + 1:
            self._add("A1", seq, f"event {seq} stands where {self.seq + 1} belongs")
        self.seq = max(self.seq, seq)
        if self.final is not None:
            self._add("A4", seq, f"it follows {self.final.kind} at {self.final.seq}")
            return
        try:
            event = read_event(body)
        except UnreadableEvent as error:
            self._add("A2", seq, str(error))
            return
        self._check_envelope(seq, event)
        self._check_beginning(seq, event)
        self._check_dropping(seq, event)
        if event.kind in FINAL_EVENT_TYPES:
            self._take_end(seq, event)
        elif event.kind == "checkpoint_created":
            self._take_checkpoint(seq, event.data["checkpoint_id"])
        elif event.kind != "execution_started":
            self.told.take(seq, event)

    def _add(self, rule: str, seq: int, message: str) -> None:
        self.findings.add(Violation(rule, seq, None, message))

    def _check_envelope(self, seq: int, event: StoredForm) -> None:
        seq = self._place_of(seq, event)
        problem = timestamp_problem(event)
        if problem:
            self._add("A2", seq, problem)
        if event.execution_id != self.head.execution_id:
            self._add("A5", seq, f"it is of execution '{event.execution_id[:200]}'")
        expected = {"workflow_id": self.head.workflow_id, "workflow_name": self.workflow.name}
        for key, value in expected.items():
            if event.data.get(key, value) != value:
                self._add("A5", seq, f"{key} is '{event.data[key][:200]}', not '{value}'")

    def _place_of(self, index: int, event: StoredForm) -> int:
        """The seq that an event must have: log lines have none, and are parts of the one before."""
        is_log = event.kind == TaskLog.type
        self.log_events += is_log
        self._part = self._part + 1 if is_log else 0
        expected, told = Place(index - self.log_events, self._part), Place(event.seq, event.part)
        if told != expected:
            self._add("A1", expected.seq, f"the event says that it is {told.text}")
        return expected.seq

    def _check_beginning(self, seq: int, event: StoredForm) -> None:
        if event.kind == "execution_started":
            if self.started is not None or self.events > 1:
                self._add("A3", seq, "execution_started is not the first event")
            self.started = self.started or event
        elif self.started is None and not self._begins_badly:
            is_restored = self.head.checkpoint_id is not None
            is_cancel = event.kind == "execution_cancelled" or (
                event.kind == "task_cancelled" and event.data["reason"] == CANCELLED_REASON
            )
            # Its owners may have died before they began it; then its head alone was looked at.
            is_quarantine = self.events == 1 and _is_quarantine(event)
            if is_restored or not (is_cancel or is_quarantine):
                self._begins_badly = True
                self._add("A3", seq, f"{event.kind} comes before execution_started")

    def _check_dropping(self, seq: int, event: StoredForm) -> None:
        """What was not ready is dropped by the very decision that bound the execution to end.

        What runs, or may have been handed out, is told to stop by it, and dropped when it has
        stopped: later. A quarantine waits for nothing: one decision drops all and ends the
        execution.
        """
        is_drop = event.kind in ("task_skipped", "task_cancelled")
        if self.ending.is_quarantined or (is_drop and event.data["reason"] == QUARANTINED_REASON):
            if not (is_drop or event.kind == "execution_failed" or self._is_told_late):
                self._is_told_late = True
                self._add("A13", seq, f"{event.kind} comes in the midst of a quarantine")
            return
        is_bound = is_drop or self.ending.seq > 0
        if is_bound:
            self.told.excuse_followers()
        if not (is_bound and self.told.blocked) or self._is_told_late:
            return
        if is_drop and not self.told.is_running(event.data["task_name"]):
            return
        self._is_told_late = True
        left = [task.name for task in self.told.tasks if task.end is None and task.waiting_on]
        message = (
            f"{event.kind} comes before {listed(left)} is dropped, which was not ready when "
            f"event {self.ending.seq or seq} bound the execution to end"
        )
        self._add("A13", seq, message)

    def _take_checkpoint(self, seq: int, checkpoint_id: str) -> None:
        if checkpoint_id in self._checkpoints:
            self._add("A15", seq, f"checkpoint '{checkpoint_id[:200]}' was told before")
        self._checkpoints.add(checkpoint_id)

    def _take_end(self, seq: int, event: StoredForm) -> None:
        self.final, self.output = event, event.output
        tasks = self.told.tasks
        if self.told.open and not self._can_be_of_the_head(event):
            without = [task.name for task in tasks if task.end is None]
            self._add("A14", seq, f"{event.kind}, but there is no end of {listed(without)}")
        all_completed = self.told.completed == len(tasks)
        for message in self.ending.final_problems(
            event.kind,
            event.data,
            all_completed=all_completed,
            all_ended=self.told.open == 0,
        ):
            self._add("A14", seq, message)
        began_ms = event.at_ms if self.started is None else self.started.at_ms
        seconds = max(0, event.at_ms - began_ms) / 1000
        if event.data["duration_seconds"] != seconds and not self._begins_badly:
            message = f"duration_seconds is {event.data['duration_seconds']}, it took {seconds:g}"
            self._add("A14", seq, message)

    def _can_be_of_the_head(self, event: StoredForm) -> bool:
        """Whether this last event may leave tasks without an end.

        A quarantine may have looked at nothing but the head. If something had bound the execution
        to fail before, it keeps that error; what was not ready had been dropped by then.
        """
        if event.kind != "execution_failed" or self.ending.is_quarantined:
            return False
        self.told.excuse_followers()
        return _is_quarantine(event) or self.told.blocked == 0


def _is_quarantine(event: StoredForm) -> bool:
    """Whether the execution has failed by this event because of a quarantine."""
    return event.kind == "execution_failed" and event.data["error"]["code"] == QUARANTINED
