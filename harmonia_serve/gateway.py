"""All that the routes need of the engine, as one protocol.

Methods take values that are already parsed and return JSON objects in the API reference's shapes,
ready to be sent. They raise the errors of `harmonia_actors.core.errors` and nothing else on
purpose. Routes translate HTTP to these calls and back; they know no store, no Ray, no actor.

Methods that make something take `once`, if the request carries an idempotency key: the same call
with the same key makes it once, whoever else makes the call at the same time, and is answered
again like the first time, with what has been made as it is now. Another call with the same key
raises Conflict. A key lives as long as what was made with it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Protocol

from harmonia_actors.core.cursors import Cursor
from harmonia_actors.core.requests import (
    SCOPES,
    AnyEvent,
    Edits,
    ExecutionReply,
    FileContent,
    JsonObject,
    LoggedEvent,
    Once,
    PageRequest,
    Principal,
    StreamEvent,
)

__all__ = [
    "SCOPES",
    "AnyEvent",
    "Cursor",
    "Edits",
    "ExecutionReply",
    "FileContent",
    "Gateway",
    "JsonObject",
    "LoggedEvent",
    "Once",
    "PageRequest",
    "Principal",
    "StreamEvent",
]


class Gateway(Protocol):
    """The engine, as the routes see it."""

    # Keys and limits ---------------------------------------------------------------------------

    async def authenticate(self, secret: str) -> Principal:
        """Who has this key. Raises AuthenticationFailed (unknown, malformed or revoked)."""
        ...

    async def admit(self, principal: Principal) -> None:
        """Count one request against the key's rate limit. Raises RateLimitExceeded."""
        ...

    async def admit_anonymous(self, address: str) -> None:
        """Count one failed authentication from an address. Raises RateLimitExceeded."""
        ...

    async def create_key(
        self, *, name: str, scopes: Sequence[str], rate_limit_per_s: float | None
    ) -> JsonObject:
        """Make a key: {key_id, name, scopes, rate_limit_per_s, created_at, api_key}.

        `api_key` is the secret, shown this once.
        """
        ...

    async def list_keys(self, page: PageRequest) -> JsonObject:
        """Keys without their secrets: {items, total, page, limit}."""
        ...

    async def revoke_key(self, key_id: str) -> JsonObject:
        """End a key at once. Raises ResourceNotFound."""
        ...

    # Workflows ---------------------------------------------------------------------------------

    async def create_workflow(
        self, definition: JsonObject, *, once: Once | None = None
    ) -> JsonObject:
        """Validate and store a definition. Raises ValidationFailed."""
        ...

    async def get_workflow(self, workflow_id: str) -> JsonObject: ...

    async def replace_workflow(self, workflow_id: str, definition: JsonObject) -> JsonObject: ...

    async def delete_workflow(self, workflow_id: str) -> None: ...

    async def list_workflows(self, page: PageRequest) -> JsonObject:
        """`sort_by`: created_at, updated_at, name or version."""
        ...

    # Executions --------------------------------------------------------------------------------

    async def execute(
        self,
        workflow_id: str,
        input_values: JsonObject,
        options: JsonObject,
        *,
        once: Once | None = None,
    ) -> ExecutionReply:
        """Start an execution. `options` is the request's `execution_options`, unchecked.

        With `async: false` it waits (bounded) and, if the execution failed, raises
        ComponentFailed or ExecutionFailed; sent again, it waits for the same execution.
        """
        ...

    async def get_execution(self, execution_id: str, *, outputs: bool) -> JsonObject: ...

    async def list_executions(
        self, page: PageRequest, *, workflow_id: str | None, status: str | None
    ) -> JsonObject: ...

    async def cancel_execution(self, execution_id: str) -> JsonObject:
        """Ask for a cancel. Raises Conflict if the execution has ended."""
        ...

    async def list_tasks(self, execution_id: str, page: PageRequest) -> JsonObject:
        """Tasks in the order of definition: {items: [{task_name, status, ...}], total, ...}."""
        ...

    async def get_task_output(self, execution_id: str, task_name: str) -> bytes:
        """The whole output of a task, as UTF-8 JSON. Raises ResourceNotFound."""
        ...

    async def get_execution_output(self, execution_id: str) -> bytes:
        """The whole output of an execution, as UTF-8 JSON. Raises ResourceNotFound."""
        ...

    async def audit_execution(self, execution_id: str) -> JsonObject:
        """Hold the history against the rules: {status, complete, events, violations, ...}."""
        ...

    async def list_files(self, execution_id: str) -> JsonObject:
        """Files of the workspace: {items: [{path, size, modified_at}], total}."""
        ...

    async def open_file(self, execution_id: str, path: str) -> FileContent:
        """A file of the workspace. Raises ResourceNotFound; never leaves the workspace."""
        ...

    def events(
        self, execution_id: str, *, after: int, part: int = 0
    ) -> AsyncIterator[Sequence[StreamEvent]]:
        """Events with seq > `after`: first the history, then live, in batches, until the last.

        Log lines that follow event `after` are among them, behind the first `part` events of lines.
        Raises ExecutionNotFound before the first batch. The first batch comes as soon as the
        execution is known to exist, empty if it has no events yet, so that an answer can begin;
        there is none at all if the execution has ended and nothing follows `after`. Any other
        empty batch is a sign of life that may come when nothing happens; it carries no meaning.
        It is closed with `aclose` when the subscriber leaves, also while it waits.
        """
        ...

    def installation_events(
        self, *, after: Cursor | None, follow: bool, workflow_id: str | None
    ) -> AsyncIterator[Sequence[LoggedEvent]]:
        """Events of all executions after a cursor (None: from now on), in batches without end.

        The first batch comes at once and begins with a mark; empty ones may come as above. Where
        events are missing, there is a gap. Without `follow` it ends, with an event `end`, where the
        log ends now, and gives no batch at all if nothing follows `after`. `workflow_id` does not
        filter: raises WorkflowNotFound if there neither is such a workflow nor an execution of it.
        """
        ...

    # Templates ---------------------------------------------------------------------------------

    async def create_template(self, request: JsonObject, *, once: Once | None = None) -> JsonObject:
        """From `workflow_id` or from a `definition`; `name`, `description`, `parameters`."""
        ...

    async def get_template(self, template_id: str) -> JsonObject: ...

    async def list_templates(self, page: PageRequest) -> JsonObject: ...

    async def delete_template(self, template_id: str) -> None: ...

    async def instantiate_template(
        self, template_id: str, request: JsonObject, *, once: Once | None = None
    ) -> JsonObject:
        """Make a workflow that has `parameter_values` as defaults of its input."""
        ...

    # State -------------------------------------------------------------------------------------

    async def create_checkpoint(
        self, execution_id: str, *, name: str, description: str, once: Once | None = None
    ) -> JsonObject: ...

    async def get_checkpoint(self, checkpoint_id: str) -> JsonObject: ...

    async def list_checkpoints(
        self, page: PageRequest, *, execution_id: str | None
    ) -> JsonObject: ...

    async def delete_checkpoint(self, checkpoint_id: str) -> None: ...

    async def restore(
        self,
        checkpoint_id: str,
        options: JsonObject,
        *,
        edits: Edits | None = None,
        once: Once | None = None,
    ) -> ExecutionReply:
        """Make a new execution from a checkpoint and start it.

        Raises Conflict for edits of what a completed task was given, ValidationFailed.
        """
        ...

    # Components and service --------------------------------------------------------------------

    async def list_components(self) -> JsonObject:
        """{items: [{name, description, url, actions: [{name, description, input_schema}]}]}."""
        ...

    async def get_component(self, name: str) -> JsonObject:
        """One of them. Raises ResourceNotFound."""
        ...

    async def health(self, *, detailed: bool) -> JsonObject:
        """{status: "ok"}; detailed adds version, durability, pools and counts."""
        ...

    async def durability(self) -> JsonObject:
        """What the store's own configuration allows to promise now: {promise, meaning, detail}.

        `promise`: always, everysec, none or unknown. Also while the store does not answer.
        """
        ...

    async def ready(self) -> bool:
        """Whether requests can be served now: the store answers and can write."""
        ...

    async def metrics(self) -> Mapping[str, float]:
        """Gauges by Prometheus name (`harmonia_executions_running`), read at bounded cost."""
        ...
