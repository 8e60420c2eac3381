"""Audits: the whole history of an execution, read page by page and held against the rules."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from harmonia_actors.core.audit import Auditor
from harmonia_actors.core.audit_findings import Violation
from harmonia_actors.core.audit_outputs import ToldOutput
from harmonia_actors.core.audit_state import (
    disagreements,
    inherited_tasks,
    missing_output,
    wrong_output,
)
from harmonia_actors.core.errors import ExecutionNotFound
from harmonia_actors.core.records import Head, OutputReference, TaskRow, decode_head, decode_row
from harmonia_actors.core.requests import JsonObject
from harmonia_actors.runtime.service.executions import ExecutionService
from harmonia_actors.runtime.service.parts import ServiceParts, answered
from persistence.errors import Missing
from persistence.store import StoredEvent

__all__ = ["AuditService"]


class AuditService(ExecutionService):
    """Operations on histories."""

    def __init__(self, parts: ServiceParts) -> None:
        super().__init__(parts)
        self._turns = asyncio.Semaphore(self.settings.audits_at_once_max)

    async def audit_execution(self, execution_id: str) -> JsonObject:
        """Which rules the history of an execution breaks. Raises ExecutionNotFound.

        State and log are those of one moment; of a log that goes on, what follows is not read.
        """
        async with self._turns:
            snapshot = await answered(lambda: self.store.read_execution(execution_id))
            if snapshot is None:
                raise ExecutionNotFound(execution_id)
            head = decode_head(snapshot.fields["head"])
            rows = {int(name): decode_row(body) for name, body in snapshot.rows.items()}
            auditor = Auditor(
                (await self.known(snapshot.definition)).workflow,
                head,
                inherited=inherited_tasks(head, rows),
                violations_max=self.settings.audit_violations_max,
            )
            await self._read_log(auditor, None if head.status.is_final else snapshot.seq)
            for violation in disagreements(auditor, head, rows, snapshot.seq):
                auditor.findings.add(violation)
            for violation in await self._wrong_outputs(auditor, head, rows):
                auditor.findings.add(violation)
        return _document(auditor, head)

    async def _read_log(self, auditor: Auditor, last_seq: int | None) -> None:
        """Feed the log up to `last_seq`, or to its very end if the execution has ended."""
        execution_id, after = auditor.head.execution_id, 0
        while last_seq is None or after < last_seq:
            page = self.settings.audit_page_max
            limit = page if last_seq is None else min(page, last_seq - after)
            events = await self._events_after(execution_id, after, limit)
            # A page of large outputs takes long to parse: the loop has others to serve.
            await asyncio.to_thread(_feed, auditor, events)
            if len(events) < limit:
                return
            after = events[-1].seq

    async def _events_after(
        self, execution_id: str, after: int, limit: int
    ) -> Sequence[StoredEvent]:
        try:
            return await answered(
                lambda: self.store.read_events(execution_id, after=after, limit=limit)
            )
        except Missing:
            raise ExecutionNotFound(execution_id) from None

    async def _wrong_outputs(
        self, auditor: Auditor, head: Head, rows: Mapping[int, TaskRow]
    ) -> list[Violation]:
        """Outputs that the store has not, or not as the log tells. Blobs are not looked for."""
        tasks = auditor.told.tasks
        references: list[tuple[str | None, ToldOutput | None, OutputReference | None]] = [
            (None, auditor.output, head.output),
            *((tasks[i].name, tasks[i].output, row.output) for i, row in rows.items()),
        ]
        inline = [
            (task, told, found)
            for task, told, found in references
            if found is not None and found.url is None
        ]
        wrong: list[Violation] = []
        for first in range(0, len(inline), self.settings.audit_page_max):
            page = inline[first : first + self.settings.audit_page_max]
            bodies = await self._outputs([(found.execution_id, found.key) for *_, found in page])
            told = [(task, told) for task, told, _ in page]
            # Large ones take long to read: the loop has others to serve.
            wrong += await asyncio.to_thread(_wrong, told, bodies)
        return wrong

    async def _outputs(self, keys: Sequence[tuple[str, str]]) -> Sequence[bytes | None]:
        return await answered(lambda: self.store.read_outputs(keys))


def _feed(auditor: Auditor, events: Sequence[StoredEvent]) -> None:
    for event in events:
        auditor.feed(event.seq, event.body)


def _wrong(
    told: Sequence[tuple[str | None, ToldOutput | None]], bodies: Sequence[bytes | None]
) -> list[Violation]:
    wrong = []
    for (task, output), body in zip(told, bodies, strict=True):
        if body is None:
            wrong.append(missing_output(task))
        elif output is not None and (problem := wrong_output(task, output, body)):
            wrong.append(problem)
    return wrong


def _document(auditor: Auditor, head: Head) -> JsonObject:
    return {
        "execution_id": head.execution_id,
        "workflow_id": head.workflow_id,
        "status": head.status.value,
        "complete": head.status.is_final,
        "events": auditor.events - auditor.log_events,
        "tasks": len(auditor.told.tasks),
        "attempts": auditor.told.attempts,
        "lost_attempts": auditor.told.lost_attempts,
        "violations": [violation.to_json() for violation in auditor.findings.violations],
        "violations_total": auditor.findings.total,
    }
