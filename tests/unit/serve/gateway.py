"""A gateway that keeps its documents in dicts: the protocol, honestly, without an engine.

Executions do not run by themselves: a test appends the events that it wants to be seen. Whatever
the protocol promises holds here too, so that the HTTP layer is tested against its contract.
"""

from __future__ import annotations

import asyncio
import copy
import json
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from harmonia_actors.core.errors import (
    AuthenticationFailed,
    CheckpointNotFound,
    ComponentFailed,
    Conflict,
    ExecutionNotFound,
    NotFound,
    Problem,
    RateLimitExceeded,
    ResourceNotFound,
    ServiceUnavailable,
    TemplateNotFound,
    ValidationFailed,
    WorkflowNotFound,
)
from harmonia_serve.gateway import (
    Edits,
    ExecutionReply,
    FileContent,
    JsonObject,
    PageRequest,
    Principal,
    StreamEvent,
)
from tests.unit.serve.event_log import NOW, last_of, next_event
from tests.unit.serve.remembered import Remembered, made_once

ENDED = ("completed", "failed", "cancelled")


class MemoryGateway:
    """Implements `harmonia_serve.gateway.Gateway`. `calls` lists what reached it, by method."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.remembered = Remembered()
        self.keys: dict[str, JsonObject] = {}
        self.anonymous: list[str] = []
        self.anonymous_max: int | None = None
        self.requests_max: int | None = None
        self.workflows: dict[str, JsonObject] = {}
        self.executions: dict[str, JsonObject] = {}
        self.templates: dict[str, JsonObject] = {}
        self.checkpoints: dict[str, JsonObject] = {}
        self.outputs: dict[tuple[str, str], bytes] = {}
        self.files: dict[tuple[str, str], bytes] = {}
        self.files_shown_max = 100
        self.logs: dict[str, list[StreamEvent]] = {}
        #: What an audit of an execution finds.
        self.violations: dict[str, list[JsonObject]] = {}
        self.changed = asyncio.Condition()
        self.subscribers = 0
        self.failure: Exception | None = None
        self.is_ready = True
        self.keys_away = False

    def add_key(self, *scopes: str, name: str = "test") -> str:
        """A key with these scopes; returns its secret."""
        secret = f"hk_{uuid.uuid4().hex}"
        self.keys[secret] = {
            "key_id": f"key-{uuid.uuid4().hex[:12]}",
            "name": name,
            "scopes": list(scopes),
            "rate_limit_per_s": None,
            "created_at": NOW,
        }
        return secret

    def revoke(self, secret: str) -> None:
        """End a key, as another replica would."""
        del self.keys[secret]

    async def append(self, execution_id: str, kind: str, data: JsonObject) -> StreamEvent:
        """Append an event to an execution's log and wake its subscribers."""
        async with self.changed:
            log = self.logs[execution_id]
            event = next_event(log, execution_id, kind, data)
            log.append(event)
            self.changed.notify_all()
            return event

    def _note(self, call: str) -> None:
        self.calls.append(call)
        if self.failure is not None:
            raise self.failure

    # Keys and limits

    async def authenticate(self, secret: str) -> Principal:
        if self.keys_away:
            raise ServiceUnavailable("the store is away")
        if secret not in self.keys:
            raise AuthenticationFailed("The API key is not known")
        key = self.keys[secret]
        return Principal(key["key_id"], key["name"], frozenset(key["scopes"]))

    async def admit(self, principal: Principal) -> None:
        if self.requests_max is not None:
            self.requests_max -= 1
            if self.requests_max < 0:
                raise RateLimitExceeded("Too many requests", 7)

    async def admit_anonymous(self, address: str) -> None:
        self.anonymous.append(address)
        if self.anonymous_max is not None and len(self.anonymous) > self.anonymous_max:
            raise RateLimitExceeded("Too many failed authentications", 9)

    async def create_key(
        self, *, name: str, scopes: Sequence[str], rate_limit_per_s: float | None
    ) -> JsonObject:
        self._note("create_key")
        secret = self.add_key(*scopes, name=name)
        self.keys[secret]["rate_limit_per_s"] = rate_limit_per_s
        return {**self.keys[secret], "api_key": secret}

    async def list_keys(self, page: PageRequest) -> JsonObject:
        self._note("list_keys")
        return _page(list(self.keys.values()), page)

    async def revoke_key(self, key_id: str) -> JsonObject:
        self._note("revoke_key")
        for secret, key in self.keys.items():
            if key["key_id"] == key_id:
                del self.keys[secret]
                return {"success": True, "message": "Key revoked", "key_id": key_id}
        raise ResourceNotFound(f"Key with ID '{key_id}' not found", {"requested_id": key_id})

    # Workflows

    @made_once
    async def create_workflow(self, definition: JsonObject) -> JsonObject:
        self._note("create_workflow")
        return self._store_workflow(_new_id("wf"), definition)

    def _store_workflow(self, workflow_id: str, definition: JsonObject) -> JsonObject:
        if not definition["tasks"]:
            raise ValidationFailed("workflow", [Problem("tasks", "must hold at least one task")])
        self.workflows[workflow_id] = {
            **copy.deepcopy(definition),
            "description": definition.get("description") or "",
            "version": definition.get("version") or "1.0.0",
            "input_schema": definition.get("input_schema") or {},
            "workflow_id": workflow_id,
            "created_at": NOW,
            "updated_at": NOW,
        }
        return self.workflows[workflow_id]

    async def get_workflow(self, workflow_id: str) -> JsonObject:
        self._note("get_workflow")
        return _found(self.workflows, workflow_id, WorkflowNotFound)

    async def replace_workflow(self, workflow_id: str, definition: JsonObject) -> JsonObject:
        self._note("replace_workflow")
        _found(self.workflows, workflow_id, WorkflowNotFound)
        return self._store_workflow(workflow_id, definition)

    async def delete_workflow(self, workflow_id: str) -> None:
        self._note("delete_workflow")
        _found(self.workflows, workflow_id, WorkflowNotFound)
        del self.workflows[workflow_id]

    async def list_workflows(self, page: PageRequest) -> JsonObject:
        self._note("list_workflows")
        return _page(_without(self.workflows.values(), "tasks", "input_schema"), page)

    # Executions

    @made_once
    async def execute(
        self, workflow_id: str, input_values: JsonObject, options: JsonObject
    ) -> ExecutionReply:
        self._note("execute")
        workflow = _found(self.workflows, workflow_id, WorkflowNotFound)
        return self._start(workflow_id, list(workflow["tasks"]), input_values, options)

    def _start(
        self, workflow_id: str, tasks: list[str], input_values: JsonObject, options: JsonObject
    ) -> ExecutionReply:
        execution_id = _new_id("exec")
        ended = options.get("async") is False
        status = "completed" if ended else "pending"
        done = NOW if ended else None
        self.executions[execution_id] = {
            "execution_id": execution_id,
            "workflow_id": workflow_id,
            "status": status,
            "progress": {"completed_tasks": 0, "total_tasks": len(tasks), "current_task": None},
            "created_at": NOW,
            "updated_at": NOW,
            "started_at": done,
            "completed_at": done,
            "input": input_values,
            "execution_options": options,
            "task_status": {
                name: {"status": status, "started_at": done, "completed_at": done} for name in tasks
            },
        }
        self.logs[execution_id] = []
        if input_values.get("fail"):
            raise ComponentFailed("A component failed", {"execution_id": execution_id})
        return ExecutionReply(self.executions[execution_id], ended)

    async def get_execution(self, execution_id: str, *, outputs: bool) -> JsonObject:
        self._note("get_execution")
        found = _found(self.executions, execution_id, ExecutionNotFound)
        return {**found, "outputs": outputs, **last_of(self.logs[execution_id])}

    async def list_executions(
        self, page: PageRequest, *, workflow_id: str | None, status: str | None
    ) -> JsonObject:
        self._note("list_executions")
        wanted = [
            execution
            for execution in self.executions.values()
            if workflow_id in (None, execution["workflow_id"])
            and status in (None, execution["status"])
        ]
        return _page(wanted, page)

    async def cancel_execution(self, execution_id: str) -> JsonObject:
        self._note("cancel_execution")
        execution = _found(self.executions, execution_id, ExecutionNotFound)
        if execution["status"] in ENDED:
            raise Conflict("The execution has ended", {"status": execution["status"]})
        execution["status"] = "cancelling"
        return {
            "success": True,
            "message": "Execution cancellation requested",
            "execution_id": execution_id,
            "status": "cancelling",
        }

    async def list_tasks(self, execution_id: str, page: PageRequest) -> JsonObject:
        self._note("list_tasks")
        execution = _found(self.executions, execution_id, ExecutionNotFound)
        tasks = [{"task_name": name, **task} for name, task in execution["task_status"].items()]
        return _page(tasks, page)

    async def get_task_output(self, execution_id: str, task_name: str) -> bytes:
        self._note("get_task_output")
        _found(self.executions, execution_id, ExecutionNotFound)
        if (execution_id, task_name) not in self.outputs:
            raise ResourceNotFound(f"Task '{task_name}' has no output", {"task_name": task_name})
        return self.outputs[execution_id, task_name]

    async def get_execution_output(self, execution_id: str) -> bytes:
        self._note("get_execution_output")
        execution = _found(self.executions, execution_id, ExecutionNotFound)
        return json.dumps(execution.get("output")).encode()

    async def audit_execution(self, execution_id: str) -> JsonObject:
        self._note("audit_execution")
        execution = _found(self.executions, execution_id, ExecutionNotFound)
        violations = self.violations.get(execution_id, [])
        return {
            "execution_id": execution_id,
            "workflow_id": execution["workflow_id"],
            "status": execution["status"],
            "complete": execution["status"] in ENDED,
            "events": len(self.logs[execution_id]),
            "tasks": len(execution["task_status"]),
            "attempts": 3,
            "lost_attempts": 1,
            "violations": violations,
            "violations_total": len(violations),
        }

    async def list_files(self, execution_id: str) -> JsonObject:
        self._note("list_files")
        _found(self.executions, execution_id, ExecutionNotFound)
        items = [
            {"path": path, "size": len(content), "modified_at": NOW}
            for (owner, path), content in self.files.items()
            if owner == execution_id
        ]
        shown = items[: self.files_shown_max]
        return {"items": shown, "total": len(shown), "truncated": len(items) > len(shown)}

    async def open_file(self, execution_id: str, path: str) -> FileContent:
        self._note("open_file")
        _found(self.executions, execution_id, ExecutionNotFound)
        content = self.files.get((execution_id, path))
        if content is None:
            raise ResourceNotFound(f"File '{path}' not found", {"path": path})

        async def chunks() -> AsyncIterator[bytes]:
            for start in range(0, len(content), 1000):
                yield content[start : start + 1000]

        return FileContent(path, len(content), chunks())

    async def events(
        self, execution_id: str, *, after: int, part: int = 0
    ) -> AsyncIterator[Sequence[StreamEvent]]:
        self._note("events")
        _found(self.executions, execution_id, ExecutionNotFound)
        log, place = self.logs[execution_id], (after, part)
        if log and log[-1].last and place >= log[-1].place:
            return
        self.subscribers += 1
        try:
            yield ()
            while True:
                async with self.changed:
                    while not log or log[-1].place <= place:
                        await self.changed.wait()
                    batch = [event for event in log if event.place > place]
                yield batch
                if batch[-1].last:
                    return
                place = batch[-1].place
        finally:
            self.subscribers -= 1

    # Templates

    @made_once
    async def create_template(self, request: JsonObject) -> JsonObject:
        self._note("create_template")
        if request.get("workflow_id"):
            workflow = _found(self.workflows, request["workflow_id"], WorkflowNotFound)
        else:
            workflow = self._store_workflow(_new_id("wf"), request["definition"])
        template_id = _new_id("tmpl")
        self.templates[template_id] = {
            "template_id": template_id,
            "name": request["name"],
            "description": request.get("description") or "",
            "workflow_id": workflow["workflow_id"],
            "created_at": NOW,
            "updated_at": NOW,
            "parameters": request.get("parameters") or {},
        }
        return self.templates[template_id]

    async def get_template(self, template_id: str) -> JsonObject:
        self._note("get_template")
        return _found(self.templates, template_id, TemplateNotFound)

    async def list_templates(self, page: PageRequest) -> JsonObject:
        self._note("list_templates")
        return _page(_without(self.templates.values(), "parameters"), page)

    async def delete_template(self, template_id: str) -> None:
        self._note("delete_template")
        _found(self.templates, template_id, TemplateNotFound)
        del self.templates[template_id]

    @made_once
    async def instantiate_template(self, template_id: str, request: JsonObject) -> JsonObject:
        self._note("instantiate_template")
        template = _found(self.templates, template_id, TemplateNotFound)
        workflow = _found(self.workflows, template["workflow_id"], WorkflowNotFound)
        definition = {name: workflow[name] for name in ("version", "tasks", "input_schema")}
        return self._store_workflow(
            _new_id("wf"),
            {
                **definition,
                "name": request["name"],
                "description": request.get("description"),
                "template_id": template_id,
            },
        )

    # State

    @made_once
    async def create_checkpoint(
        self, execution_id: str, *, name: str, description: str
    ) -> JsonObject:
        self._note("create_checkpoint")
        execution = _found(self.executions, execution_id, ExecutionNotFound)
        checkpoint_id = _new_id("cp")
        self.checkpoints[checkpoint_id] = {
            "checkpoint_id": checkpoint_id,
            "execution_id": execution_id,
            "workflow_id": execution["workflow_id"],
            "name": name,
            "description": description,
            "created_at": NOW,
            "task_states": {
                task: {"status": one["status"]} for task, one in execution["task_status"].items()
            },
        }
        return self.checkpoints[checkpoint_id]

    async def get_checkpoint(self, checkpoint_id: str) -> JsonObject:
        self._note("get_checkpoint")
        return _found(self.checkpoints, checkpoint_id, CheckpointNotFound)

    async def list_checkpoints(self, page: PageRequest, *, execution_id: str | None) -> JsonObject:
        self._note("list_checkpoints")
        wanted = [
            one for one in self.checkpoints.values() if execution_id in (None, one["execution_id"])
        ]
        return _page(_without(wanted, "task_states"), page)

    async def delete_checkpoint(self, checkpoint_id: str) -> None:
        self._note("delete_checkpoint")
        _found(self.checkpoints, checkpoint_id, CheckpointNotFound)
        del self.checkpoints[checkpoint_id]

    @made_once
    async def restore(
        self, checkpoint_id: str, options: JsonObject, *, edits: Edits | None = None
    ) -> ExecutionReply:
        self._note("restore")
        checkpoint = _found(self.checkpoints, checkpoint_id, CheckpointNotFound)
        reply = self._start(checkpoint["workflow_id"], [*checkpoint["task_states"]], {}, options)
        told = {"edits": edits.to_json()} if edits else {}
        reply.document.update(told, checkpoint_id=checkpoint_id)
        return reply

    # Components and service

    async def list_components(self) -> JsonObject:
        self._note("list_components")
        return {"items": [_COMPONENT]}

    async def get_component(self, name: str) -> JsonObject:
        self._note("get_component")
        if name != _COMPONENT["name"]:
            raise ResourceNotFound(f"Component '{name}' not found", {"name": name})
        return _COMPONENT

    async def health(self, *, detailed: bool) -> JsonObject:
        self._note("health")
        return {"status": "ok", "version": "0"} if detailed else {"status": "ok"}

    async def durability(self) -> JsonObject:
        self._note("durability")
        return {"promise": "none", "meaning": "It may be lost.", "detail": "in memory"}

    async def ready(self) -> bool:
        return self.is_ready

    async def metrics(self) -> Mapping[str, float]:
        self._note("metrics")
        return {"harmonia_executions_running": float(len(self.executions))}


_COMPONENT: JsonObject = {
    "name": "ergon",
    "description": "Commands",
    "url": None,
    "actions": [{"name": "execute_command", "description": "Run a command", "input_schema": {}}],
}


def _new_id(prefix: str) -> str:
    return f"{prefix}-{uuid.uuid4()}"


def _found(documents: dict[str, JsonObject], key: str, missing: type[NotFound]) -> JsonObject:
    if key not in documents:
        raise missing(key)
    return documents[key]


def _without(documents: Any, *fields: str) -> list[JsonObject]:
    return [{k: v for k, v in document.items() if k not in fields} for document in documents]


def _page(documents: Sequence[JsonObject], page: PageRequest) -> JsonObject:
    ordered = sorted(
        documents, key=lambda document: document.get(page.sort_by, ""), reverse=page.descending
    )
    start = (page.page - 1) * page.limit
    return {
        "items": ordered[start : start + page.limit],
        "total": len(documents),
        "page": page.page,
        "limit": page.limit,
    }
