"""What is shown of an execution: its status, its tasks, and what they returned."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from harmonia_actors.core import jsontext
from harmonia_actors.core.cursors import Place
from harmonia_actors.core.errors import ExecutionNotFound, ResourceNotFound, ServiceUnavailable
from harmonia_actors.core.records import Head, OutputReference, TaskRow, decode_head, decode_row
from harmonia_actors.core.requests import JsonObject
from harmonia_actors.core.workflow import Workflow
from harmonia_actors.runtime.service import views
from harmonia_actors.runtime.service.parts import answered
from harmonia_actors.runtime.service.workflows import WorkflowService
from persistence.errors import DefinitionMissing, Missing, StoreUnavailable
from persistence.store import Snapshot

__all__ = ["NOTHING_READ", "StatusService"]

#: Outputs that need not be read, where there are none.
NOTHING_READ: Mapping[str, bytes] = MappingProxyType({})


class StatusService(WorkflowService):
    """Reads executions and puts together what is shown of them."""

    async def status_document(
        self, snapshot: Snapshot, *, outputs: bool, bodies: Mapping[str, bytes] = NOTHING_READ
    ) -> JsonObject:
        """The document of GET /executions/{id}.

        `bodies` are outputs of its own that need not be read.
        """
        head = decode_head(snapshot.fields["head"])
        workflow = await self._workflow(head.execution_id, snapshot)
        shown_tasks = workflow.tasks[: self.settings.status_tasks_max]
        rows = [(task.name, _row(snapshot, task.index)) for task in shown_tasks]
        # What is asked of the store at the same moment goes in one round trip.
        output, task_status = await asyncio.gather(
            self._execution_output(head, outputs=outputs, bodies=bodies),
            self._task_views(head.execution_id, rows, outputs=outputs, bodies=bodies),
        )
        document: JsonObject = {
            "execution_id": head.execution_id,
            "workflow_id": head.workflow_id,
            "workflow_name": head.workflow_name,
            "status": head.status.value,
            "progress": views.progress(head),
            **views.execution_times(head),
            "input": jsontext.decode(snapshot.fields["input"]),
            "execution_options": jsontext.decode(snapshot.fields["options"]),
            "error": head.error,
            "output": output,
            "task_status": task_status,
            # So that whoever wants the events so far knows when there are no more.
            "last_seq": snapshot.seq - head.log_events,
            "last_id": Place(snapshot.seq - head.log_events, head.log_part).text,
        }
        if head.checkpoint_id:
            document["checkpoint_id"] = head.checkpoint_id
        if "edits" in snapshot.fields:
            names = jsontext.decode(snapshot.fields["edits"])
            document["edits"] = views.edits(names, document["input"], workflow)
        if len(workflow.tasks) > len(shown_tasks):
            document["task_status_truncated"] = True
            document["tasks_url"] = f"/executions/{head.execution_id}/tasks"
        return document

    async def _workflow(self, execution_id: str, snapshot: Snapshot) -> Workflow:
        """What an execution runs. Raises ExecutionNotFound: it has expired since it was read."""
        try:
            return (await self.known(snapshot.definition)).workflow
        except DefinitionMissing:
            raise ExecutionNotFound(execution_id) from None

    async def _task_views(
        self,
        execution_id: str,
        rows: Sequence[tuple[str, TaskRow | None]],
        *,
        outputs: bool,
        bodies: Mapping[str, bytes] = NOTHING_READ,
    ) -> dict[str, JsonObject]:
        if not outputs:
            return {name: views.task_view(row) for name, row in rows}
        budget = self.settings.response_outputs_bytes_max
        whole, described = views.shown_outputs(rows, budget)
        values = views.decode_outputs(list(whole), await self._bodies(whole.values(), bodies))
        shown = {}
        for name, row in rows:
            output = None
            if name in values:
                output = [values[name]]
            elif name in described:
                output = [views.descriptor(execution_id, name, described[name])]
            shown[name] = views.task_view(row, output)
        return shown

    async def _bodies(
        self, references: Collection[OutputReference], known: Mapping[str, bytes]
    ) -> Sequence[bytes | None]:
        """Inline outputs, one by one; `known` are those of the execution itself, if any."""
        if all(reference.key in known for reference in references):
            return [known[reference.key] for reference in references]
        keys = [(reference.execution_id, reference.key) for reference in references]
        return await answered(lambda: self.store.read_outputs(keys))

    async def _execution_output(
        self, head: Head, *, outputs: bool, bodies: Mapping[str, bytes] = NOTHING_READ
    ) -> Any:
        reference = head.output
        if reference is None or not outputs:
            return None
        if reference.url or reference.size > self.settings.response_outputs_bytes_max:
            return views.descriptor(head.execution_id, None, reference)
        return jsontext.decode(await self._output_body(reference, bodies))

    async def _output_body(
        self, reference: OutputReference, known: Mapping[str, bytes] = NOTHING_READ
    ) -> bytes:
        url = reference.url
        body = None
        if url is not None:
            body = await self._blob(url)
        else:
            body = (await self._bodies([reference], known))[0]
        if body is None:
            raise ResourceNotFound("the output is no longer kept", {"key": reference.key})
        return body

    async def _blob(self, url: str) -> bytes | None:
        """A blob, or None if it is gone. Raises ServiceUnavailable, ResourceNotFound."""
        try:
            return await asyncio.to_thread(self.parts.blobs.get, url)
        except Missing:
            return None
        except StoreUnavailable as error:
            raise ServiceUnavailable(
                "the blob store, where large outputs are, cannot be used; try again"
            ) from error
        except ValueError as error:
            raise ResourceNotFound(
                "the output is in another blob store than the one that is configured now"
            ) from error

    async def _head(self, execution_id: str) -> Head:
        return decode_head((await self._snapshot(execution_id)).fields["head"])

    async def _snapshot(self, execution_id: str, *, rows: bool = False) -> Snapshot:
        """Fields only, unless rows are asked for. Raises ExecutionNotFound."""
        found = await answered(lambda: self.store.read_execution(execution_id, rows=rows))
        if found is None:
            raise ExecutionNotFound(execution_id)
        return found


def _row(snapshot: Snapshot, index: int) -> TaskRow | None:
    body = snapshot.rows.get(str(index))
    return None if body is None else decode_row(body)
