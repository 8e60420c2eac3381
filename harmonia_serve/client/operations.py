"""Every operation of the API, written once for the sync and the async client.

`Operations` is generic in what its methods give back: `JsonObject` and `bytes` in the sync client,
awaitables of them in the async one. What a method says to the service is in `flows`.
"""

from __future__ import annotations

import json
import os
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar

from harmonia_serve.client.flows import (
    Call,
    Flow,
    JsonObject,
    api_path,
    content,
    document,
    execution_flow,
    once_key,
    wait_timeout_s,
)

__all__ = ["BytesT", "DocumentT", "Operations", "definition_of"]

DocumentT = TypeVar("DocumentT")
BytesT = TypeVar("BytesT")

_Query = dict[str, str | int]

#: An audit reads the whole log, and may have to wait for its turn.
_AUDIT_S = 330.0


def definition_of(workflow: str | os.PathLike[str] | Mapping[str, Any]) -> str | JsonObject:
    """What is to be run: a workflow id as it is; a definition, or the path of one, as JSON.

    Raises OSError or ValueError (with the file's name) for a file that is no JSON object.
    """
    if isinstance(workflow, Mapping):
        return dict(workflow)
    if isinstance(workflow, str) and workflow.startswith("wf-") and not workflow.endswith(".json"):
        return workflow
    path = Path(workflow)
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise ValueError(f"{path} holds no JSON object, but a {type(found).__name__}")  # noqa: TRY004
    return found


def _described(body: JsonObject, description: str) -> JsonObject:
    """A body with its description, if there is one: an empty one would be refused."""
    return {**body, "description": description} if description else body


def _page(page: int, limit: int, **filters: str | None) -> _Query:
    query: _Query = {"page": page, "limit": limit}
    query.update({name: value for name, value in filters.items() if value is not None})
    return query


class Operations(ABC, Generic[DocumentT, BytesT]):
    """The REST API, one method per operation. All may raise the errors of `client.errors`.

    Every POST but `create_key` carries an idempotency key, by default one for each call, so that
    it can be sent again when no answer comes, and is still carried out once. With an
    `idempotency_key` of one's own that holds for calls, too: the same key with the same arguments
    gives the same thing, with other arguments it raises Conflict.
    """

    @abstractmethod
    def _document(self, flow: Flow[JsonObject]) -> DocumentT: ...

    @abstractmethod
    def _bytes(self, flow: Flow[bytes]) -> BytesT: ...

    def _send(
        self,
        method: str,
        *segments: str,
        query: _Query | None = None,
        body: JsonObject | None = None,
        timeout_s: float | None = None,
    ) -> DocumentT:
        call = Call(method, api_path(*segments), query or {}, body, timeout_s)
        return self._document(document(call))

    def _post_once(
        self,
        *segments: str,
        key: str | None,
        body: JsonObject | None = None,
        timeout_s: float | None = None,
    ) -> DocumentT:
        call = Call(
            "POST",
            api_path(*segments),
            body=body,
            timeout_s=timeout_s,
            idempotency_key=once_key(key),
        )
        return self._document(document(call))

    # Workflows

    def create_workflow(
        self, definition: Mapping[str, Any], *, idempotency_key: str | None = None
    ) -> DocumentT:
        """Store a definition; the answer has its `workflow_id`."""
        return self._post_once("workflows", key=idempotency_key, body=dict(definition))

    def get_workflow(self, workflow_id: str) -> DocumentT:
        """A definition."""
        return self._send("GET", "workflows", workflow_id)

    def replace_workflow(self, workflow_id: str, definition: Mapping[str, Any]) -> DocumentT:
        """Replace a definition; what runs is not touched."""
        return self._send("PUT", "workflows", workflow_id, body=dict(definition))

    def delete_workflow(self, workflow_id: str) -> DocumentT:
        """Delete a definition; what runs is not touched."""
        return self._send("DELETE", "workflows", workflow_id)

    def list_workflows(
        self,
        *,
        page: int = 1,
        limit: int = 20,
        sort_by: str = "created_at",
        sort_order: str = "desc",
    ) -> DocumentT:
        """{items, total, page, limit}; `sort_by`: created_at, updated_at, name or version."""
        query = _page(page, limit, sort_by=sort_by, sort_order=sort_order)
        return self._send("GET", "workflows", query=query)

    # Executions

    def execute(
        self,
        workflow_id: str,
        input_values: Mapping[str, Any] | None = None,
        options: Mapping[str, Any] | None = None,
        *,
        idempotency_key: str | None = None,
    ) -> DocumentT:
        """Start an execution. `options`: async, timeout (s), retry_policy, checkpoint."""
        body = {
            "workflow_id": workflow_id,
            "input": dict(input_values or {}),
            "execution_options": dict(options or {}),
        }
        timeout_s = wait_timeout_s(options or {})
        return self._post_once("executions", key=idempotency_key, body=body, timeout_s=timeout_s)

    def get_execution(self, execution_id: str, *, outputs: bool = True) -> DocumentT:
        """The state of an execution; `outputs=False` leaves the tasks' outputs out."""
        return self._document(execution_flow(execution_id, outputs=outputs))

    def list_executions(
        self,
        *,
        workflow_id: str | None = None,
        status: str | None = None,
        page: int = 1,
        limit: int = 20,
    ) -> DocumentT:
        """{items, total, page, limit}, newest first."""
        query = _page(page, limit, workflow_id=workflow_id, status=status)
        return self._send("GET", "executions", query=query)

    def cancel_execution(self, execution_id: str) -> DocumentT:
        """Ask for a cancel. Raises Conflict if the execution has ended."""
        return self._post_once("executions", execution_id, "cancel", key=None)

    def list_tasks(self, execution_id: str, *, page: int = 1, limit: int = 100) -> DocumentT:
        """The tasks of an execution in the order of definition, by page."""
        return self._send("GET", "executions", execution_id, "tasks", query=_page(page, limit))

    def audit_execution(self, execution_id: str) -> DocumentT:
        """Which rules the history of an execution breaks: {complete, events, violations, ...}."""
        return self._send("GET", "executions", execution_id, "audit", timeout_s=_AUDIT_S)

    def get_execution_output(self, execution_id: str) -> BytesT:
        """The whole output of an execution, as UTF-8 JSON."""
        return self._bytes(content(Call("GET", api_path("executions", execution_id, "output"))))

    def get_task_output(self, execution_id: str, task_name: str) -> BytesT:
        """The whole output of a task, as UTF-8 JSON."""
        path = api_path("executions", execution_id, "tasks", task_name, "output")
        return self._bytes(content(Call("GET", path)))

    def list_files(self, execution_id: str) -> DocumentT:
        """Files of an execution's workspace: {items: [{path, size, modified_at}], total}."""
        return self._send("GET", "executions", execution_id, "files")

    def read_file(self, execution_id: str, path: str) -> BytesT:
        """A file of the workspace, in memory; `download_file` streams it to disk."""
        return self._bytes(content(Call("GET", self.file_path(execution_id, path))))

    @staticmethod
    def file_path(execution_id: str, path: str) -> str:
        """Where a file of a workspace is served."""
        return api_path("executions", execution_id, "files", *path.split("/"))

    # Templates

    def create_template(
        self,
        name: str,
        *,
        parameters: Mapping[str, Any] | None = None,
        workflow_id: str | None = None,
        definition: Mapping[str, Any] | None = None,
        description: str = "",
        idempotency_key: str | None = None,
    ) -> DocumentT:
        """Make a template from a stored workflow or from a definition.

        Without `parameters` they are the inputs of the workflow.
        """
        body = _described({"name": name}, description)
        if parameters is not None:
            body["parameters"] = dict(parameters)
        if workflow_id is not None:
            body["workflow_id"] = workflow_id
        if definition is not None:
            body["definition"] = dict(definition)
        return self._post_once("templates", key=idempotency_key, body=body)

    def get_template(self, template_id: str) -> DocumentT:
        """A template."""
        return self._send("GET", "templates", template_id)

    def list_templates(self, *, page: int = 1, limit: int = 20) -> DocumentT:
        """{items, total, page, limit}, newest first."""
        return self._send("GET", "templates", query=_page(page, limit))

    def delete_template(self, template_id: str) -> DocumentT:
        """Delete a template; workflows made from it stay."""
        return self._send("DELETE", "templates", template_id)

    def instantiate_template(
        self,
        template_id: str,
        name: str,
        parameter_values: Mapping[str, Any],
        *,
        description: str = "",
        idempotency_key: str | None = None,
    ) -> DocumentT:
        """Make a workflow that has these values as defaults of its input."""
        body = _described({"name": name, "parameter_values": dict(parameter_values)}, description)
        return self._post_once(
            "templates", template_id, "instantiate", key=idempotency_key, body=body
        )

    # State

    def create_checkpoint(
        self,
        execution_id: str,
        name: str,
        *,
        description: str = "",
        idempotency_key: str | None = None,
    ) -> DocumentT:
        """Keep the present state of an execution."""
        body = _described({"execution_id": execution_id, "name": name}, description)
        return self._post_once("state", "checkpoints", key=idempotency_key, body=body)

    def get_checkpoint(self, checkpoint_id: str) -> DocumentT:
        """A checkpoint."""
        return self._send("GET", "state", "checkpoints", checkpoint_id)

    def list_checkpoints(
        self, *, execution_id: str | None = None, page: int = 1, limit: int = 20
    ) -> DocumentT:
        """{items, total, page, limit}, newest first."""
        query = _page(page, limit, execution_id=execution_id)
        return self._send("GET", "state", "checkpoints", query=query)

    def delete_checkpoint(self, checkpoint_id: str) -> DocumentT:
        """Delete a checkpoint; executions restored from it stay."""
        return self._send("DELETE", "state", "checkpoints", checkpoint_id)

    def restore(
        self,
        checkpoint_id: str,
        options: Mapping[str, Any] | None = None,
        *,
        input_values: Mapping[str, Any] | None = None,
        task_inputs: Mapping[str, Mapping[str, Any]] | None = None,
        idempotency_key: str | None = None,
    ) -> DocumentT:
        """Make a new execution from a checkpoint and start it.

        `input_values` take the place of those in the execution's input, `task_inputs` that of
        whole inputs of tasks, by name. Conflict if a completed task was given any of them.
        """
        body: JsonObject = {
            "checkpoint_id": checkpoint_id,
            "execution_options": dict(options or {}),
        }
        if input_values:
            body["input"] = dict(input_values)
        if task_inputs:
            body["task_inputs"] = {name: dict(given) for name, given in task_inputs.items()}
        timeout_s = wait_timeout_s(options or {})
        return self._post_once(
            "state", "restore", key=idempotency_key, body=body, timeout_s=timeout_s
        )

    # Components, keys, service

    def list_components(self) -> DocumentT:
        """The catalogue: {items: [{name, description, actions}]}."""
        return self._send("GET", "components")

    def get_component(self, name: str) -> DocumentT:
        """One component with its actions and their input schemas."""
        return self._send("GET", "components", name)

    def create_key(
        self, name: str, scopes: Sequence[str], *, rate_limit_per_s: float | None = None
    ) -> DocumentT:
        """Make a key; `api_key` in the answer is the secret, shown this once.

        It is never sent twice: if no answer comes, the key that was made may be in `list_keys`.
        """
        body: JsonObject = {"name": name, "scopes": list(scopes)}
        if rate_limit_per_s is not None:
            body["rate_limit_per_s"] = rate_limit_per_s
        return self._send("POST", "keys", body=body)

    def list_keys(self, *, page: int = 1, limit: int = 20) -> DocumentT:
        """Keys without their secrets."""
        return self._send("GET", "keys", query=_page(page, limit))

    def revoke_key(self, key_id: str) -> DocumentT:
        """End a key at once."""
        return self._send("DELETE", "keys", key_id)

    def health(self) -> DocumentT:
        """{status}: whether the service lives. Needs no key.

        With a key also `durability`: {promise, meaning, detail}, as the configuration of the
        service's store is now. `promise`: always, everysec, none or unknown.
        """
        return self._send("GET", "health")

    def ready(self) -> DocumentT:
        """{status}: whether requests can be served now; ServiceUnavailable if not."""
        return self._send("GET", "ready")

    def service(self) -> DocumentT:
        """Version, durability (as in `health`), pools and counts."""
        return self._send("GET", "service")
