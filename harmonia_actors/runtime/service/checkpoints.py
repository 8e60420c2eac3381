"""Checkpoints: copies of an execution's state at one seq, and new executions made from them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harmonia_actors.core import jsontext
from harmonia_actors.core.errors import CheckpointNotFound, ExecutionNotFound
from harmonia_actors.core.execution import CoreLimits, Execution
from harmonia_actors.core.options import ExecutionOptions
from harmonia_actors.core.records import (
    Head,
    TaskRow,
    decode_head,
    decode_row,
    encode_head,
    encode_row,
)
from harmonia_actors.core.requests import Edits, ExecutionReply, JsonObject, Once, PageRequest
from harmonia_actors.core.statuses import TaskStatus
from harmonia_actors.core.stimuli import StartRequested
from harmonia_actors.core.timestamps import timestamp
from harmonia_actors.core.workflow import Task
from harmonia_actors.runtime.automatic import checkpoint_record
from harmonia_actors.runtime.indexing import checkpoint_indexes, checkpoints_index
from harmonia_actors.runtime.notes import encode_note
from harmonia_actors.runtime.service import views
from harmonia_actors.runtime.service.edits import EditService
from harmonia_actors.runtime.service.once import Creation, creation_of
from harmonia_actors.runtime.service.parts import answered
from harmonia_actors.runtime.service.texts import check_texts
from harmonia_actors.runtime.service.workflows import KnownWorkflow
from persistence.errors import Missing
from persistence.store import InboxEntry, Snapshot

__all__ = ["CheckpointService"]

#: Executions that are looked at for the files of one that was restored, at most.
_FILES_FROM_MAX = 16


class CheckpointService(EditService):
    """Operations on checkpoints."""

    async def create_checkpoint(
        self, execution_id: str, *, name: str, description: str, once: Once | None = None
    ) -> JsonObject:
        """Copy the state of an execution as of now. Raises ExecutionNotFound, Conflict.

        Raises ValidationFailed for a name or a description that is not good.
        """
        texts = {"name": name, "description": description}
        check_texts(texts, "checkpoint", self.settings)
        creation = creation_of(once, "create_checkpoint", execution_id, name, description)
        if made := (await self.made_before(creation)).get("checkpoint"):
            return await self.get_checkpoint(made)
        checkpoint_id = creation.id("cp")
        now_ms = self.clock.now_ms()
        head = await self._head(execution_id)
        record = {
            **checkpoint_record(
                execution_id,
                head.workflow_id,
                name=name,
                description=description,
                created_ms=now_ms,
            ),
            **creation.record_fields(),
        }
        indexes = checkpoint_indexes(execution_id, now_ms)
        body = encode_note("checkpoint", now_ms, checkpoint_id=checkpoint_id, name=name)
        note = InboxEntry(checkpoint_id, body)
        try:
            snapshot = await answered(
                lambda: self.store.create_checkpoint(
                    checkpoint_id, execution_id, jsontext.encode(record), indexes, note
                )
            )
        except Missing:
            raise ExecutionNotFound(execution_id) from None
        if snapshot.owner:
            await self.parts.launcher.nudge(snapshot.owner, execution_id)
        if once is not None:
            # What was written may be that of another send, which was faster.
            return await self.get_checkpoint(await self.made_meanwhile(creation, "checkpoint"))
        return await self._document(checkpoint_id, record, snapshot)

    async def get_checkpoint(self, checkpoint_id: str) -> JsonObject:
        """The checkpoint with its tasks' states. Raises CheckpointNotFound."""
        record, snapshot = await self._find_checkpoint(checkpoint_id)
        return await self._document(checkpoint_id, record, snapshot)

    async def list_checkpoints(self, page: PageRequest, *, execution_id: str | None) -> JsonObject:
        """One page of checkpoints, without their tasks' states."""
        index = checkpoints_index(execution_id)
        return await self.page_of_documents("checkpoint", index, page, _summary)

    async def delete_checkpoint(self, checkpoint_id: str) -> None:
        """Remove a checkpoint; executions restored from it stay."""
        if not await answered(lambda: self.store.delete_document("checkpoint", checkpoint_id)):
            raise CheckpointNotFound(checkpoint_id)

    async def restore(
        self,
        checkpoint_id: str,
        options: JsonObject,
        *,
        edits: Edits | None = None,
        once: Once | None = None,
    ) -> ExecutionReply:
        """Make a new execution: completed tasks keep their outputs, all others run (again).

        With `edits`, it begins with another input, or others of its tasks than the completed ones.
        """
        # What a request said before there were edits, it says still.
        said = [edits.to_json()] if edits else []
        creation = creation_of(once, "restore", checkpoint_id, options, *said)
        if made := (await self.made_before(creation)).get("execution"):
            return await self.answer_again(made)
        parsed = self.parse_options(options)
        _, snapshot = await self._find_checkpoint(checkpoint_id)
        known = await self.known(snapshot.definition)
        rows = _completed_rows(snapshot)
        fields = {"input": snapshot.fields["input"], "options": jsontext.encode(options)}
        values = jsontext.decode(snapshot.fields["input"])
        if edits:
            known, values = await self.edited(known, values, rows, edits)
            names = {"input": list(edits.input), "task_inputs": list(edits.task_inputs)}
            fields |= {"input": jsontext.encode(values), "edits": jsontext.encode(names)}
        await self.check_resources(known.workflow)
        head = await self._restored_head(checkpoint_id, creation, snapshot, known, parsed)
        head.completed_tasks = len(rows)
        owner = await self._launch_restored(creation, known, head, rows, fields)
        if owner is None:
            return await self.answer_again(await self.made_meanwhile(creation, "execution"))
        restored = views.started(head, values, options)
        if parsed.wait:
            return await self.wait_for(owner, restored, known.digest, fields)
        return ExecutionReply(await self.shown_or(restored), ended=False)

    async def _restored_head(
        self,
        checkpoint_id: str,
        creation: Creation,
        snapshot: Snapshot,
        known: KnownWorkflow,
        options: ExecutionOptions,
    ) -> Head:
        former = decode_head(snapshot.fields["head"])
        now_ms = self.clock.now_ms()
        labels = {**former.labels, "files_from": self._files_from(snapshot, former, known)}
        if not former.files_from and not self._has_used_files(snapshot, former, known):
            # Nothing is on that node: any other is as good, should it be gone.
            labels.pop("node", None)
        return Head(
            execution_id=await self.new_execution_id(),
            workflow_id=former.workflow_id,
            workflow_name=former.workflow_name,
            total=former.total,
            options=self.within_ceiling(options, known.workflow),
            created_ms=now_ms,
            updated_ms=now_ms,
            checkpoint_id=checkpoint_id,
            labels=labels,
            once=creation.index,
        )

    async def _launch_restored(
        self,
        creation: Creation,
        known: KnownWorkflow,
        head: Head,
        rows: Mapping[int, TaskRow],
        fields: Mapping[str, bytes],
    ) -> str | None:
        """Begin the execution and write it, as `create_and_launch`; the head is as it began."""
        execution = Execution(
            workflow=known.workflow, head=head, rows=dict(rows), limits=CoreLimits()
        )
        decision = execution.handle(StartRequested(head.created_ms))
        events = [numbered.encoded(head.execution_id) for numbered in decision.events]
        outputs_of = {row.output.execution_id for row in rows.values() if row.output}
        try:
            return await self.create_and_launch(
                creation,
                known,
                head,
                {"head": encode_head(execution.head_record()), **fields},
                rows={str(index): encode_row(row) for index, row in rows.items()},
                events=events,
                holds=sorted({*outputs_of, *head.files_from}),
            )
        except Missing:
            # It was deleted a moment ago, and nobody else held what it did.
            raise CheckpointNotFound(head.checkpoint_id or "") from None

    def _files_from(
        self, snapshot: Snapshot, former: Head, known: KnownWorkflow
    ) -> tuple[str, ...]:
        """Executions whose files a restored one may begin with, on the node where they are.

        That of the checkpoint; if it was itself restored, it may have no directory yet, so those
        before it follow. If none of its tasks has used files, it certainly has none.
        """
        inherited = former.files_from
        if inherited and not self._has_used_files(snapshot, former, known):
            return inherited
        return (former.execution_id, *inherited)[:_FILES_FROM_MAX]

    def _has_used_files(self, snapshot: Snapshot, former: Head, known: KnownWorkflow) -> bool:
        for name, body in snapshot.rows.items():
            row, task = decode_row(body), known.workflow.tasks[int(name)]
            taken_over = row.output is not None and row.output.execution_id != former.execution_id
            has_run = row.started_ms is not None or row.attempt > 1
            if has_run and not taken_over and self._uses_files(task):
                return True
        return False

    def _uses_files(self, task: Task) -> bool:
        try:
            return self.registry.action(task.component, task.action).uses_files
        except ValueError:
            # Its component is not installed any more: it may have.
            return True

    async def _find_checkpoint(self, checkpoint_id: str) -> tuple[dict[str, Any], Snapshot]:
        document = await answered(lambda: self.store.get_document("checkpoint", checkpoint_id))
        snapshot = await answered(lambda: self.store.read_checkpoint(checkpoint_id))
        if document is None or snapshot is None:
            raise CheckpointNotFound(checkpoint_id)
        return jsontext.decode(document.body), snapshot

    async def _document(
        self, checkpoint_id: str, record: Mapping[str, Any], snapshot: Snapshot
    ) -> JsonObject:
        workflow = (await self.known(snapshot.definition)).workflow
        completed = _completed_rows(snapshot)
        shown_tasks = workflow.tasks[: self.settings.status_tasks_max]
        rows = [(task.name, completed.get(task.index)) for task in shown_tasks]
        shown = await self._task_views(record["execution_id"], rows, outputs=True)
        states = {}
        for name, view in shown.items():
            state = {"status": view["status"]}
            if "output" in view:
                state["output"] = view["output"]
            states[name] = state
        document = {
            **_summary(checkpoint_id, record),
            "seq": snapshot.seq - decode_head(snapshot.fields["head"]).log_events,
            "task_states": states,
        }
        if len(workflow.tasks) > len(shown_tasks):
            document["task_states_truncated"] = True
        return document


def _completed_rows(snapshot: Snapshot) -> dict[int, TaskRow]:
    """Rows of tasks that had completed: all that a restore takes over."""
    rows = {int(name): decode_row(body) for name, body in snapshot.rows.items()}
    return {i: row for i, row in sorted(rows.items()) if row.status is TaskStatus.COMPLETED}


def _summary(checkpoint_id: str, record: Mapping[str, Any]) -> JsonObject:
    return {
        "checkpoint_id": checkpoint_id,
        "execution_id": record["execution_id"],
        "workflow_id": record["workflow_id"],
        "name": record["name"],
        "description": record["description"],
        "created_at": timestamp(record["created_ms"]),
        "automatic": record.get("automatic", False),
    }
