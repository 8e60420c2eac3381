"""Executions: start, show, list, cancel, and what their tasks returned."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from harmonia_actors.core import jsontext
from harmonia_actors.core.errors import (
    ExecutionNotFound,
    InvalidRequest,
    Problem,
    RateLimitExceeded,
    ResourceNotFound,
    ServiceUnavailable,
    ValidationFailed,
)
from harmonia_actors.core.options import ExecutionOptions, parse_options
from harmonia_actors.core.records import (
    Head,
    TaskRow,
    decode_head,
    decode_row,
    encode_head,
)
from harmonia_actors.core.requests import ExecutionReply, JsonObject, Once, PageRequest
from harmonia_actors.core.statuses import ExecutionStatus
from harmonia_actors.core.workflow import Workflow
from harmonia_actors.runtime.ending import Ending
from harmonia_actors.runtime.indexing import execution_indexes, executions_index
from harmonia_actors.runtime.notes import encode_note
from harmonia_actors.runtime.service import views
from harmonia_actors.runtime.service.endings import ended_reply, has_ended
from harmonia_actors.runtime.service.once import Creation, creation_of
from harmonia_actors.runtime.service.parts import answered, new_id, paged
from harmonia_actors.runtime.service.statuses import NOTHING_READ, StatusService
from harmonia_actors.runtime.service.workflows import KnownWorkflow
from harmonia_actors.runtime.sizing import owners_max
from persistence.errors import (
    AlreadyExists,
    DefinitionMissing,
    LimitReached,
    Missing,
    VersionConflict,
)
from persistence.store import InboxEntry, NewExecution, Snapshot

__all__ = ["ExecutionService"]

#: Between looks at an execution whose owner is just changing: so long at first, and at most.
_OWNERLESS_S = 0.05
_OWNERLESS_S_MAX = 0.4
#: Between looks while the store is away.
_AWAY_S = 0.5
#: When a client may try again that was refused because too many executions are live.
_FULL_RETRY_S = 5


class ExecutionService(StatusService):
    """Operations on executions."""

    _installation = ""

    async def execute(
        self,
        workflow_id: str,
        input_values: JsonObject,
        options: JsonObject,
        *,
        once: Once | None = None,
    ) -> ExecutionReply:
        """Start an execution; see the gateway's contract."""
        creation = creation_of(once, "execute", workflow_id, input_values, options)
        if made := (await self.made_before(creation)).get("execution"):
            # Before all checks: the workflow may have been replaced since.
            return await self.answer_again(made)
        parsed = self.parse_options(options)
        record, known = await self.find_workflow(workflow_id)
        del record
        schema = known.definition.get("input_schema")
        values = await self.schemas.complete_input(input_values, schema, known.needed)
        body = jsontext.encode(values)
        self.check_input_size(body)
        await self.check_resources(known.workflow)
        now_ms = self.clock.now_ms()
        head = Head(
            execution_id=await self.new_execution_id(),
            workflow_id=workflow_id,
            workflow_name=known.workflow.name,
            total=len(known.workflow.tasks),
            options=self.within_ceiling(parsed, known.workflow),
            created_ms=now_ms,
            updated_ms=now_ms,
            once=creation.index,
        )
        fields = {
            "head": encode_head(head),
            "input": body,
            "options": jsontext.encode(options),
        }
        owner = await self.create_and_launch(creation, known, head, fields)
        if owner is None:
            return await self.answer_again(await self.made_meanwhile(creation, "execution"))
        document = views.started(head, values, options)
        if parsed.wait:
            return await self.wait_for(owner, document, known.digest, fields)
        return ExecutionReply(document, ended=False)

    async def get_execution(self, execution_id: str, *, outputs: bool) -> JsonObject:
        """The status document."""
        snapshot = await answered(lambda: self.store.read_execution(execution_id))
        if snapshot is None:
            raise ExecutionNotFound(execution_id)
        return await self.status_document(snapshot, outputs=outputs)

    async def list_executions(
        self, page: PageRequest, *, workflow_id: str | None, status: str | None
    ) -> JsonObject:
        """One page of executions, newest first unless asked otherwise."""
        if status is not None and status not in set(ExecutionStatus):
            known = ", ".join(ExecutionStatus)
            raise ValidationFailed("list", [Problem("status", f"must be one of: {known}")])

        async def read() -> JsonObject:
            found = await self.store.page(
                executions_index(workflow_id, status),
                offset=(page.page - 1) * page.limit,
                limit=page.limit,
                descending=page.descending,
            )
            heads = await self.store.read_executions(found.ids, ["head"])
            items = [views.list_item(decode_head(fields["head"])) for fields in heads if fields]
            return paged(items, found.total, page)

        return await answered(read)

    async def cancel_execution(self, execution_id: str) -> JsonObject:
        """Ask for a cancel. Raises Conflict if the execution has ended."""
        head = await self._head(execution_id)
        if head.status.is_final:
            raise has_ended(head)
        entry = InboxEntry("cancel", encode_note("cancel", self.clock.now_ms()))
        try:
            owner = await answered(lambda: self.store.append_inbox(execution_id, entry))
        except Missing:
            raise ExecutionNotFound(execution_id) from None
        except VersionConflict:
            raise has_ended(await self._head(execution_id)) from None
        if owner:
            await self.parts.launcher.nudge(owner, execution_id)
        return {
            "success": True,
            "message": "Execution cancellation requested",
            "execution_id": execution_id,
            "status": "cancelling",
        }

    async def list_tasks(self, execution_id: str, page: PageRequest) -> JsonObject:
        """One page of tasks, in the order of definition."""
        snapshot = await self._snapshot(execution_id)
        workflow = await self._workflow(execution_id, snapshot)
        first = (page.page - 1) * page.limit
        tasks = workflow.tasks[first : first + page.limit]
        names = [str(task.index) for task in tasks]
        bodies = await answered(lambda: self.store.read_rows(execution_id, names))
        rows = [
            (task.name, decode_row(bodies[str(task.index)]) if str(task.index) in bodies else None)
            for task in tasks
        ]
        shown = await self._task_views(execution_id, rows, outputs=True)
        items = [
            {
                "task_name": task.name,
                "task_index": task.index,
                "depends_on": list(task.depends_on),
                **shown[task.name],
            }
            for task in tasks
        ]
        return paged(items, len(workflow.tasks), page)

    async def get_task_output(self, execution_id: str, task_name: str) -> bytes:
        """The whole output of a task, as UTF-8 JSON."""
        snapshot = await self._snapshot(execution_id)
        workflow = await self._workflow(execution_id, snapshot)
        task = workflow.by_name.get(task_name)
        if task is None:
            raise ResourceNotFound(
                f"execution '{execution_id}' has no task '{task_name}'", {"task": task_name}
            )
        name = str(task.index)
        bodies = await answered(lambda: self.store.read_rows(execution_id, [name]))
        row = decode_row(bodies[name]) if name in bodies else TaskRow()
        if row.output is None:
            raise ResourceNotFound(
                f"task '{task_name}' has no output; it is {row.status.value}",
                {"task": task_name, "status": row.status.value},
            )
        return await self._output_body(row.output)

    async def get_execution_output(self, execution_id: str) -> bytes:
        """The whole output of an execution, as UTF-8 JSON."""
        head = await self._head(execution_id)
        if head.output is None:
            raise ResourceNotFound(
                f"execution '{execution_id}' has no output; it is {head.status.value}",
                {"execution_id": execution_id, "status": head.status.value},
            )
        return await self._output_body(head.output)

    # For this service and those built on it ----------------------------------------------------

    def parse_options(self, options: Mapping[str, Any]) -> ExecutionOptions:
        """Check `execution_options`. Raises ValidationFailed."""
        return parse_options(
            options,
            retries_max=self.settings.retries_max,
            timeout_s_max=self.settings.execution_timeout_s_max,
            checkpoints_kept_max=self.settings.automatic_checkpoints_kept_max,
        )

    def check_input_size(self, body: bytes) -> None:
        """Refuse an execution's input, as JSON, that is too large. Raises InvalidRequest."""
        most = self.settings.body_bytes_max
        if len(body) > most:
            raise InvalidRequest(
                f"the input has {len(body)} bytes; at most {most} are taken", too_large=True
            )

    async def new_execution_id(self) -> str:
        """A fresh id. It ends in the installation's digits.

        By them the janitor knows what lies under it as ours, also where others have things.
        """
        if not self._installation:
            self._installation = await answered(self.store.installation)
        return f"{new_id('exec')[: -len(self._installation)]}{self._installation}"

    def within_ceiling(self, options: ExecutionOptions, workflow: Workflow) -> ExecutionOptions:
        """The options with the ceiling as their timeout, if neither they nor the workflow say."""
        if options.timeout_ms or workflow.timeout_ms:
            return options
        return replace(options, timeout_ms=int(self.settings.execution_timeout_s_max * 1000))

    async def check_resources(self, workflow: Workflow) -> None:
        """Refuse at once what no node has and no autoscaler may add. Raises ValidationFailed."""
        asked = {
            task.resources: task for task in reversed(workflow.tasks) if task.resources.demand()
        }
        special = {r: t for r, t in asked.items() if r != type(r).DEFAULT}
        if not special:
            return
        capacity = await self.parts.launcher.capacity()
        problems = [
            Problem(f"tasks.{task.name}.resources", capacity.explain(request))
            for request, task in special.items()
            if not capacity.can_ever_meet(request)
        ]
        if problems:
            raise ValidationFailed("execution", problems)

    async def create_and_launch(
        self,
        creation: Creation,
        known: KnownWorkflow,
        head: Head,
        fields: Mapping[str, bytes],
        *,
        rows: Mapping[str, bytes] | None = None,
        events: Sequence[bytes] = (),
        holds: Sequence[str] = (),
    ) -> str | None:
        """Write a new execution and tell its owner. Returns the owner, or "".

        None if another send with the same idempotency key was faster: then nothing was written.
        Raises RateLimitExceeded if too many are live, and the store's Missing if what it `holds`
        is not kept any more.
        """
        new = NewExecution(
            execution_id=head.execution_id,
            definition=known.digest,
            fields={"head": fields["head"], **creation.execution_fields()},
            # Nothing but the head ever changes, so checkpoints need no copy of the rest.
            constants={name: body for name, body in fields.items() if name != "head"},
            rows=rows or {},
            events=events,
            indexes=execution_indexes(head),
            sole=creation.index,
            holds=holds,
        )
        settings = self.settings
        ceiling = owners_max(settings.execution_actors_max, settings.execution_actors_min)
        live_max, load_max = settings.executions_live_max, settings.executions_per_actor_max

        async def create() -> str:
            while True:
                try:
                    return await self.store.create_execution(
                        new, owners_max=ceiling, live_max=live_max, load_max=load_max
                    )
                except LimitReached:
                    raise RateLimitExceeded(
                        f"{live_max} executions are live, the most that "
                        "HARMONIA_EXECUTIONS_LIVE_MAX allows; try again when some have ended",
                        _FULL_RETRY_S,
                    ) from None
                except DefinitionMissing:
                    # The workflow was replaced or deleted since it was read: this execution was
                    # asked for before, and runs what was there then.
                    await self.keep_definition(known.definition)

        try:
            owner = await answered(create)
        except AlreadyExists:
            return None
        launcher = self.parts.launcher
        if not owner:
            await launcher.wanted()
        elif rows or events:
            await launcher.start(owner, head.execution_id, known.digest, {})
        else:
            await launcher.start(owner, head.execution_id, known.digest, fields)
        return owner

    async def answer_again(self, execution_id: str) -> ExecutionReply:
        """Answer a start whose execution is there already, as the first send was or would be."""
        snapshot = await self._snapshot(execution_id)
        launcher = self.parts.launcher
        if snapshot.version == 1 and snapshot.owner:
            # Nobody drives it yet: whoever made it may have had no time to tell the owner.
            await launcher.start(snapshot.owner, execution_id, snapshot.definition, {})
        elif snapshot.version == 1:
            await launcher.wanted()
        head = decode_head(snapshot.fields["head"])
        values, options = (jsontext.decode(snapshot.fields[name]) for name in ("input", "options"))
        known = views.started(head, values, options)
        if head.options.wait:
            return await self.wait_for(snapshot.owner, known, snapshot.definition, snapshot.fields)
        if head.checkpoint_id:
            known = await self.shown_or(known)
        return ExecutionReply(known, ended=False)

    async def wait_for(
        self, owner: str, known: JsonObject, definition: str, fields: Mapping[str, bytes]
    ) -> ExecutionReply:
        """Wait, bounded, until an execution has ended; its failure becomes the API's error.

        `definition` is its workflow's digest, and `fields` are those it was created with. Also
        while the store is away: whoever is told to try again starts another one. If it is away to
        the end, what is known of the execution is the answer.
        """
        ended: Snapshot | Ending | None = None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.settings.sync_wait_s_max):
                ended = await self._ended(known["execution_id"], owner)
        if isinstance(ended, Ending):
            snapshot = ended.snapshot(definition, fields)
            return ended_reply(await self.shown_or(known, snapshot, ended.outputs))
        return ended_reply(await self.shown_or(known, ended))

    async def shown_or(
        self,
        known: JsonObject,
        snapshot: Snapshot | None = None,
        bodies: Mapping[str, bytes] = NOTHING_READ,
    ) -> JsonObject:
        """An execution's status, by what was read if it was; what is known if the store is away.

        `bodies` are outputs of its own that need not be read.
        """
        try:
            if snapshot is not None:
                return await self.status_document(snapshot, outputs=True, bodies=bodies)
            return await self.get_execution(known["execution_id"], outputs=True)
        except ServiceUnavailable:
            return known

    async def _ended(self, execution_id: str, owner: str) -> Snapshot | Ending | None:
        """Wait until an execution has ended. All of it, if its first owner lived until then."""
        rows, wait_s = True, _OWNERLESS_S
        while True:
            if owner:
                ending = await self.parts.launcher.wait_ended(owner, execution_id)
                if ending is not None:
                    return ending
            try:
                snapshot = await self._snapshot(execution_id, rows=rows)
            except ServiceUnavailable:
                await asyncio.sleep(_AWAY_S)
                continue
            if decode_head(snapshot.fields["head"]).status.is_final:
                return snapshot if rows else None
            owner, rows = snapshot.owner, False
            await asyncio.sleep(wait_s)
            wait_s = min(wait_s * 2, _OWNERLESS_S_MAX)
