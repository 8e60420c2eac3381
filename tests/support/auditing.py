"""Audits for tests of the core: the log that decisions make, and the state that they leave."""

from __future__ import annotations

from collections.abc import Sequence

from harmonia_actors.core.audit import Auditor
from harmonia_actors.core.audit_findings import Violation
from harmonia_actors.core.audit_state import disagreements
from harmonia_actors.core.execution import Decision, Execution, NumberedEvent
from harmonia_actors.core.records import Head
from harmonia_actors.core.workflow import Workflow

__all__ = ["AuditedLog", "bodies_of"]


def bodies_of(events: Sequence[NumberedEvent], execution_id: str) -> list[bytes]:
    """Events as they are stored."""
    return [numbered.encoded(execution_id) for numbered in events]


class AuditedLog:
    """The log of an execution that is audited as it grows, with the state after each decision."""

    def __init__(self, workflow: Workflow, head: Head) -> None:
        self.auditor = Auditor(workflow, head)

    def take(self, decision: Decision, execution: Execution) -> list[Violation]:
        """What a decision and the state after it break, and all that was broken before."""
        bodies = bodies_of(decision.events, execution.head.execution_id)
        for numbered, body in zip(decision.events, bodies, strict=True):
            self.auditor.feed(numbered.index, body)
        rows = dict(enumerate(execution.rows))
        found = disagreements(
            *(self.auditor, execution.head, rows, execution.seq),
            lost_attempts_max=execution.limits.lost_attempts_max,
        )
        return [*self.auditor.findings.violations, *found]
