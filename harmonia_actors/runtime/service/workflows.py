"""Workflows: create, read, replace, delete, list; and the parsed workflows that others need."""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from harmonia_actors.components.argv import CommandTemplateError, check_template, split_command
from harmonia_actors.core import jsontext
from harmonia_actors.core.definition import READ_ONLY_FIELDS, build_workflow, parse_definition
from harmonia_actors.core.errors import Problem, ValidationFailed, WorkflowNotFound
from harmonia_actors.core.requests import JsonObject, Once, PageRequest
from harmonia_actors.core.timestamps import timestamp
from harmonia_actors.core.workflow import Task, Workflow
from harmonia_actors.runtime.service.once import Creation, creation_of
from harmonia_actors.runtime.service.parts import Service, ServiceParts, answered, apart
from harmonia_actors.runtime.service.schema import inputs_of, required_inputs
from harmonia_actors.runtime.service.schema_checks import ActionInput, SchemaChecks
from harmonia_actors.runtime.service.schema_process import CheckLimits
from persistence.errors import AlreadyExists, DefinitionMissing, Missing, VersionConflict
from persistence.store import IndexEntry

__all__ = ["KnownWorkflow", "WorkflowService"]

_KNOWN_MAX = 100
#: Larger definitions are parsed in a thread, so that other requests go on meanwhile.
_AT_ONCE_BYTES = 64 * 1024
_SORTS = ("created_at", "updated_at", "name", "version")


@dataclass(frozen=True)
class KnownWorkflow:
    """A stored definition, parsed."""

    digest: str
    definition: Mapping[str, Any]
    workflow: Workflow
    #: Inputs that an execution must be given, with the reference that needs each.
    needed: Mapping[str, str]


class WorkflowService(Service):
    """Operations on workflows."""

    def __init__(self, parts: ServiceParts) -> None:
        super().__init__(parts)
        self._known: OrderedDict[str, KnownWorkflow] = OrderedDict()
        self.schemas = SchemaChecks(
            CheckLimits(
                self.settings.schema_check_cpu_s_max, self.settings.schema_check_memory_bytes_max
            )
        )

    async def create_workflow(
        self, definition: JsonObject, *, once: Once | None = None
    ) -> JsonObject:
        """Validate and store a definition. Raises ValidationFailed, Conflict."""
        creation = creation_of(once, "create_workflow", definition)
        if made := (await self.made_before(creation)).get("workflow"):
            return await self.get_workflow(made)
        return await self.store_workflow(definition, creation)

    async def store_workflow(
        self,
        definition: Mapping[str, Any],
        creation: Creation,
        *,
        template_id: str | None = None,
    ) -> JsonObject:
        """As `create_workflow`; `template_id` says what it was made from."""
        kept = await self.checked(definition)
        now_ms = self.clock.now_ms()
        record = {
            "created_ms": now_ms,
            "updated_ms": now_ms,
            "template_id": template_id,
            **creation.record_fields(),
        }
        workflow_id = creation.id("wf")
        try:
            await answered(lambda: self._put(workflow_id, kept, record, expected_version=0))
        except AlreadyExists:
            # Another send with the same key was faster, or has come half as far before.
            return await self.get_workflow(await self.made_meanwhile(creation, "workflow"))
        return _document(workflow_id, kept, record)

    async def get_workflow(self, workflow_id: str) -> JsonObject:
        """The definition with its id and times. Raises WorkflowNotFound."""
        record, known = await self.find_workflow(workflow_id)
        return _document(workflow_id, known.definition, record)

    async def replace_workflow(self, workflow_id: str, definition: JsonObject) -> JsonObject:
        """Put another definition in its place; executions that exist keep theirs."""
        kept = await self.checked(definition)
        while True:
            stored = await answered(lambda: self.store.get_document("workflow", workflow_id))
            if stored is None:
                raise WorkflowNotFound(workflow_id)
            record = jsontext.decode(stored.body)
            record["updated_ms"] = max(self.clock.now_ms(), record["created_ms"])
            version = stored.version
            try:
                await answered(
                    lambda: self._put(workflow_id, kept, record, expected_version=version)  # noqa: B023
                )
            except VersionConflict:
                continue
            except Missing:
                raise WorkflowNotFound(workflow_id) from None
            return _document(workflow_id, kept, record)

    async def delete_workflow(self, workflow_id: str) -> None:
        """Remove it; executions, templates and checkpoints keep their own copies."""
        if not await answered(lambda: self.store.delete_document("workflow", workflow_id)):
            raise WorkflowNotFound(workflow_id)

    async def list_workflows(self, page: PageRequest) -> JsonObject:
        """One page of workflows, without their tasks."""
        if page.sort_by not in _SORTS:
            problem = Problem("sort_by", f"must be one of: {', '.join(_SORTS)}")
            raise ValidationFailed("list", [problem])
        return await self.page_of_documents(
            "workflow", f"workflows:{page.sort_by}", page, _list_item
        )

    # For the other services --------------------------------------------------------------------

    async def checked(
        self, definition: Mapping[str, Any], *, actions_of: Collection[str] | None = None
    ) -> dict[str, Any]:
        """The definition as it is kept. Raises ValidationFailed.

        `actions_of`: the tasks that are held against their actions, if not all are.
        """
        schema = definition.get("input_schema")
        of_schema = [] if schema is None else await self.schemas.of_schema(schema)
        tasks = definition.get("tasks")
        if actions_of is not None and isinstance(tasks, dict):
            tasks = {name: task for name, task in tasks.items() if name in actions_of}
        of_inputs = await self._problems_of_inputs(tasks)
        await apart(
            definition,
            lambda: parse_definition(
                definition,
                limits=self.definition_limits,
                check_action=lambda task: (
                    self._check_action(task, of_inputs.get(task.name, ()))
                    if actions_of is None or task.name in actions_of
                    else ()
                ),
                check_schema=lambda _: of_schema,
                inputs_of=inputs_of,
            ),
        )
        kept = {key: value for key, value in definition.items() if key not in READ_ONLY_FIELDS}
        kept["tasks"] = {name: {"name": name, **task} for name, task in definition["tasks"].items()}
        return kept

    async def find_workflow(self, workflow_id: str) -> tuple[dict[str, Any], KnownWorkflow]:
        """A workflow's record and its definition, parsed. Raises WorkflowNotFound."""
        stored = await answered(lambda: self.store.get_document("workflow", workflow_id))
        if stored is None:
            raise WorkflowNotFound(workflow_id)
        record = jsontext.decode(stored.body)
        return record, await self.known(record["definition"])

    async def known(self, digest: str) -> KnownWorkflow:
        """The parsed definition under a digest. Raises DefinitionMissing: nothing refers to it."""
        found = self._known.get(digest)
        if found is not None:
            self._known.move_to_end(digest)
            return found
        body = await answered(lambda: self.store.get_definition(digest))
        if body is None:
            raise DefinitionMissing(f"definition {digest} is not stored")
        if len(body) <= _AT_ONCE_BYTES:
            found = _parse(digest, body)
        else:
            found = await asyncio.to_thread(_parse, digest, body)
        self._known[digest] = found
        while len(self._known) > _KNOWN_MAX:
            self._known.popitem(last=False)
        return found

    async def keep_definition(self, definition: Mapping[str, Any]) -> str:
        """Store a definition under its digest and return that."""
        body = jsontext.encode(definition)
        digest = hashlib.sha256(body).hexdigest()
        await self.store.put_definition(digest, body)
        return digest

    async def _put(
        self,
        workflow_id: str,
        definition: Mapping[str, Any],
        record: dict[str, Any],
        *,
        expected_version: int,
    ) -> None:
        while True:
            digest = await self.keep_definition(definition)
            record["definition"] = digest
            record["name"] = definition["name"]
            record["description"] = definition.get("description")
            record["version"] = definition.get("version")
            try:
                await self.store.put_document(
                    "workflow",
                    workflow_id,
                    jsontext.encode(record),
                    _indexes(record),
                    definition=digest,
                    expected_version=expected_version,
                )
            except DefinitionMissing:
                # The last other reference to it went between the two calls: put it again.
                continue
            return

    async def _problems_of_inputs(self, tasks: Any) -> dict[str, list[tuple[str, str]]]:
        """What is wrong, by task, with inputs that have schemas from elsewhere.

        Nothing has been checked yet: what is no task is passed over.
        """
        judged: dict[str, ActionInput] = {}
        for name, task in tasks.items() if isinstance(tasks, dict) else ():
            given = task.get("input") or {} if isinstance(task, dict) else None
            if not isinstance(given, dict) or len(judged) >= self.definition_limits.tasks_max:
                continue
            action = self.registry.find(task.get("component"), task.get("action"))
            if action is not None and action.foreign_schema is not None:
                dynamic = [key for key, value in given.items() if _holds_reference(value)]
                judged[name] = ActionInput(action.foreign_schema, given, dynamic)
        found = await self.schemas.of_inputs([*judged.values()])
        return dict(zip(judged, found, strict=True))

    def _check_action(
        self, task: Task, of_input: Iterable[tuple[str, str]]
    ) -> Iterable[tuple[str, str]]:
        try:
            action = self.registry.action(task.component, task.action)
        except ValueError as error:
            known = task.component in {component.name for component in self.registry.components()}
            yield (".action" if known else ".component"), str(error)
            return
        for where, message in of_input:
            yield f".input{where}", message
        for problem in action.problems(task.input, _holds_reference):
            yield f".input.{problem['field']}", problem["message"]
        for name in action.argv_inputs:
            value = task.input.get(name)
            try:
                if isinstance(value, str):
                    split_command(value)
                elif isinstance(value, list):
                    check_template([word if isinstance(word, str) else "" for word in value])
            except CommandTemplateError as error:
                yield f".input.{name}", str(error)


def _parse(digest: str, body: bytes) -> KnownWorkflow:
    definition = jsontext.decode(body)
    workflow = build_workflow(definition)
    return KnownWorkflow(digest, definition, workflow, required_inputs(workflow))


def _holds_reference(value: Any) -> bool:
    """True if a value cannot be judged before its references are filled in."""
    if isinstance(value, str):
        return "${" in value
    if isinstance(value, dict):
        return any(_holds_reference(item) for item in value.values())
    return isinstance(value, list) and any(_holds_reference(item) for item in value)


def _indexes(record: Mapping[str, Any]) -> list[IndexEntry]:
    return [
        IndexEntry("workflows:created_at", float(record["created_ms"])),
        IndexEntry("workflows:updated_at", float(record["updated_ms"])),
        IndexEntry("workflows:name", text=record["name"]),
        IndexEntry("workflows:version", text=record["version"] or ""),
    ]


def _list_item(workflow_id: str, record: Mapping[str, Any]) -> JsonObject:
    return {
        "workflow_id": workflow_id,
        "name": record["name"],
        "description": record["description"],
        "version": record["version"],
        "created_at": timestamp(record["created_ms"]),
        "updated_at": timestamp(record["updated_ms"]),
    }


def _document(
    workflow_id: str, definition: Mapping[str, Any], record: Mapping[str, Any]
) -> JsonObject:
    document = {
        "workflow_id": workflow_id,
        "name": definition["name"],
        "description": definition.get("description"),
        "version": definition.get("version"),
        "created_at": timestamp(record["created_ms"]),
        "updated_at": timestamp(record["updated_ms"]),
        "tasks": definition["tasks"],
        "input_schema": definition.get("input_schema"),
    }
    for key in ("output", "timeout", "retry_policy", "checkpoint", "metadata"):
        if key in definition:
            document[key] = definition[key]
    if record.get("template_id"):
        document["template_id"] = record["template_id"]
    return document
