"""Executions for tests of the core: made in one line, driven step by step, checked at each step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from harmonia_actors.core import jsontext
from harmonia_actors.core import stimuli as st
from harmonia_actors.core.commands import ArmTimer, StartAttempt, StopAttempt, TakeCheckpoint
from harmonia_actors.core.definition import parse_definition
from harmonia_actors.core.execution import CoreLimits, Decision, Execution, NumberedEvent
from harmonia_actors.core.invariants import (
    picture,
    violations,
    violations_of,
    violations_since,
)
from harmonia_actors.core.options import ExecutionOptions
from harmonia_actors.core.quarantine import quarantine_error
from harmonia_actors.core.records import Head, decode_head, decode_row, encode_head, encode_row
from harmonia_actors.core.workflow import Workflow
from tests.support.auditing import AuditedLog, bodies_of

__all__ = ["EXECUTION_ID", "Story", "failed", "new_head", "output", "workflow_of"]

EXECUTION_ID = "exec-11111111-2222-3333-4444-555555555555"
START_MS = 1_000_000


def workflow_of(tasks: Mapping[str, Any], **fields: Any) -> Workflow:
    """A workflow from {name: dependencies} or {name: task fields}."""
    written = {}
    for name, given in tasks.items():
        more = {"depends_on": list(given)} if isinstance(given, (list, tuple, str)) else given
        written[name] = {"component": "harmonia", "action": "echo", **more}
    return parse_definition({"name": "wf", "tasks": written, **fields})


def new_head(workflow: Workflow, options: ExecutionOptions | None = None) -> Head:
    return Head(
        execution_id=EXECUTION_ID,
        workflow_id="wf-11111111-2222-3333-4444-555555555555",
        workflow_name=workflow.name,
        total=len(workflow.tasks),
        options=options or ExecutionOptions(),
        created_ms=START_MS,
        updated_ms=START_MS,
    )


def output(value: Any) -> st.Output:
    body = jsontext.encode(value)
    return st.Output(len(body), body)


def failed(message: str = "it broke", *, retriable: bool = True) -> st.Failure:
    return st.Failure(message, "BROKE", {}, "component", retriable)


class Story:
    """An execution and all that was decided about it. Tasks are named by their names."""

    def __init__(
        self,
        workflow: Workflow,
        *,
        options: ExecutionOptions | None = None,
        limits: CoreLimits | None = None,
        joined: Sequence[str] = (),
    ) -> None:
        self.workflow = workflow
        self.limits = limits or CoreLimits()
        self.joined = frozenset(self.index(name) for name in joined)
        self.execution = Execution(
            workflow=workflow,
            head=new_head(workflow, options),
            limits=self.limits,
            joined=self.joined,
        )
        self.audited = AuditedLog(workflow, self.execution.head)
        self.at_ms = START_MS
        self.events: list[NumberedEvent] = []
        self.last = Decision()

    # Steps -------------------------------------------------------------------------------------

    def start(self) -> Decision:
        return self.take(st.StartRequested(self.at_ms))

    def started(self, *names: str) -> Decision:
        return self.take(
            *(st.AttemptStarted(i, self.attempt(n), self.at_ms) for n, i in self.indexes(names))
        )

    def succeeded(self, name: str, value: Any = None) -> Decision:
        index = self.index(name)
        result = output({"of": name} if value is None else value)
        return self.take(st.AttemptSucceeded(index, self.attempt(name), self.at_ms, result))

    def failed(self, name: str, *, retriable: bool = True) -> Decision:
        failure = failed(f"{name} broke", retriable=retriable)
        index = self.index(name)
        return self.take(st.AttemptFailed(index, self.attempt(name), self.at_ms, failure))

    def lost(self, name: str) -> Decision:
        index = self.index(name)
        return self.take(st.AttemptLost(index, self.attempt(name), self.at_ms, "its node died"))

    def stopped(self, name: str) -> Decision:
        return self.take(st.AttemptStopped(self.index(name), self.attempt(name), self.at_ms))

    def cancel(self) -> Decision:
        return self.take(st.CancelRequested(self.at_ms))

    def wait(self, ms: int) -> Decision:
        """Time passes; whatever was armed fires."""
        self.at_ms += ms
        return self.take(st.TimerFired(self.at_ms))

    def take(self, *stimuli: st.Stimulus) -> Decision:
        before, seq = picture(self.execution), self.execution.seq
        return self._check(before, seq, self.execution.handle(*stimuli))

    def quarantine(self) -> Decision:
        """A new owner loads what is stored, and fails it at once."""
        before, seq = picture(self.execution), self.execution.seq
        self.load()
        return self._check(before, seq, self.execution.quarantine(self.at_ms, quarantine_error(3)))

    def restart(self, *adopted: str, untouched: bool = False) -> Decision:
        """Another owner loads what is stored and resumes; it finds the named tasks' attempts."""
        found = {(self.index(name), self.attempt(name)) for name in adopted}
        return self.resume(found, untouched=untouched)

    def resume(
        self,
        adopted: set[tuple[int, int]],
        settled: Sequence[st.AttemptStimulus] = (),
        *,
        untouched: bool = False,
    ) -> Decision:
        """As `restart`; `settled` was found in the inbox."""
        before, seq = picture(self.execution), self.execution.seq
        self.load()
        decision = self.execution.resume(self.at_ms, adopted, untouched=untouched, settled=settled)
        return self._check(before, seq, decision)

    def load(self) -> None:
        """Make the execution of what would be stored of it."""
        rows = {i: decode_row(encode_row(row)) for i, row in enumerate(self.execution.rows)}
        self.execution = Execution(
            workflow=self.workflow,
            head=decode_head(encode_head(self.execution.head_record())),
            rows=rows,
            seq=self.execution.seq,
            limits=self.limits,
            joined=self.joined,
        )

    def _check(self, before: Any, seq: int, decision: Decision) -> Decision:
        broken = [
            *violations(self.execution),
            *violations_since(before, self.execution),
            *violations_of(decision, seq_before=seq, seq_after=self.execution.seq),
            *self.audited.take(decision, self.execution),
        ]
        assert broken == []
        self.events += decision.events
        self.last = decision
        return decision

    # Views -------------------------------------------------------------------------------------

    def index(self, name: str) -> int:
        return self.workflow.by_name[name].index

    def indexes(self, names: Sequence[str]) -> list[tuple[str, int]]:
        return [(name, self.index(name)) for name in names]

    def attempt(self, name: str) -> int:
        return self.execution.rows[self.index(name)].attempt

    def status(self) -> str:
        return self.execution.head.status.value

    def statuses(self) -> dict[str, str]:
        rows = self.execution.rows
        return {task.name: rows[task.index].status.value for task in self.workflow.tasks}

    def told(self, decision: Decision | None = None) -> list[str]:
        """Events as `type` or `type task`; of all that happened, or of one decision."""
        numbered = self.events if decision is None else decision.events
        shown = []
        for each in numbered:
            name = getattr(each.event, "task_name", "")
            shown.append(f"{each.event.type} {name}".strip())
        return shown

    def ordered(self, decision: Decision | None = None) -> list[str]:
        """Commands: `start a 1, b 1` (a stretch), `stop a 1 timeout`, `timer +500`, `compose`."""
        shown = []
        for command in (decision or self.last).commands:
            match command:
                case StartAttempt(task, attempt, then):
                    names = [(self.workflow.tasks[i].name, n) for i, n in ((task, attempt), *then)]
                    shown.append("start " + ", ".join(f"{name} {n}" for name, n in names))
                case StopAttempt(task, attempt, reason):
                    name = self.workflow.tasks[task].name
                    shown.append(f"stop {name} {attempt} {reason}")
                case ArmTimer(due_ms):
                    shown.append(f"timer +{due_ms - self.at_ms}")
                case TakeCheckpoint(seq, kept):
                    shown.append(f"checkpoint {seq} keep {kept}")
                case _:
                    shown.append("compose")
        return shown

    def bodies(self) -> list[dict[str, Any]]:
        """All events as they are stored, decoded."""
        return [jsontext.decode(body) for body in bodies_of(self.events, EXECUTION_ID)]
