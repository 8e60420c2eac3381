"""The documents that are answered, as pydantic models for OpenAPI and for the tests.

Answers are sent as they come from the gateway; tests hold them against these models.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from harmonia_serve.examples import RESPONSES

__all__ = [
    "Audit",
    "Cancellation",
    "Checkpoint",
    "CheckpointPage",
    "Component",
    "ComponentList",
    "CreatedKey",
    "Durability",
    "Execution",
    "ExecutionPage",
    "ExecutionState",
    "FileList",
    "Health",
    "Instantiated",
    "KeyPage",
    "Message",
    "ProblemDocument",
    "Restored",
    "RevokedKey",
    "StreamMessage",
    "TaskPage",
    "Template",
    "TemplatePage",
    "Workflow",
    "WorkflowPage",
]

_UUID = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
WorkflowId = Annotated[str, StringConstraints(pattern=rf"^wf-{_UUID}$")]
ExecutionId = Annotated[str, StringConstraints(pattern=rf"^exec-{_UUID}$")]
TemplateId = Annotated[str, StringConstraints(pattern=rf"^tmpl-{_UUID}$")]
CheckpointId = Annotated[str, StringConstraints(pattern=rf"^cp-{_UUID}$")]
Timestamp = Annotated[str, StringConstraints(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z$")]
Object = dict[str, Any]

ExecutionStatusName = Literal[
    "pending", "running", "completed", "failed", "cancelling", "cancelled"
]
TaskStatusName = Literal[
    "pending", "running", "retrying", "completed", "failed", "skipped", "cancelled"
]


def _example(name: str) -> dict[str, Any]:
    return {"examples": [RESPONSES[name]]}


class _Answer(BaseModel):
    """An answer may grow fields; it never loses those that are named here."""

    model_config = ConfigDict(extra="allow")


class ErrorBody(_Answer):
    """What went wrong."""

    code: str
    message: str
    details: Object


class ProblemDocument(_Answer):
    """The envelope of every error."""

    model_config = ConfigDict(extra="forbid", json_schema_extra=_example("Problem"))

    error: ErrorBody


class Message(_Answer):
    """Something was done."""

    success: Literal[True]
    message: str


class _Page(_Answer):
    """A page of a list; `total` counts all items."""

    total: int
    page: int
    limit: int


class WorkflowSummary(_Answer):
    """A workflow in a list."""

    workflow_id: WorkflowId
    name: str
    description: str | None
    version: str | None
    created_at: Timestamp
    updated_at: Timestamp


class Workflow(WorkflowSummary):
    """A workflow definition."""

    model_config = ConfigDict(extra="allow", json_schema_extra=_example("Workflow"))

    tasks: Object
    input_schema: Object | None


class WorkflowPage(_Page):
    """Workflows."""

    model_config = ConfigDict(extra="allow", json_schema_extra=_example("WorkflowPage"))

    items: list[WorkflowSummary]


class Execution(_Answer):
    """An execution that was accepted."""

    model_config = ConfigDict(extra="allow", json_schema_extra=_example("Execution"))

    execution_id: ExecutionId
    workflow_id: WorkflowId
    status: ExecutionStatusName
    created_at: Timestamp
    updated_at: Timestamp
    input: Object
    execution_options: Object


class TaskState(_Answer):
    """A task of an execution."""

    status: TaskStatusName
    started_at: Timestamp | None
    completed_at: Timestamp | None


class Progress(_Answer):
    """How far an execution is."""

    completed_tasks: int
    total_tasks: int
    current_task: str | None


class ExecutionState(_Answer):
    """The state of an execution."""

    model_config = ConfigDict(extra="allow", json_schema_extra=_example("ExecutionState"))

    execution_id: ExecutionId
    workflow_id: WorkflowId
    status: ExecutionStatusName
    progress: Progress
    created_at: Timestamp
    updated_at: Timestamp
    started_at: Timestamp | None
    completed_at: Timestamp | None
    task_status: dict[str, TaskState]
    edits: Object | None = Field(
        None, description="If it was restored with edits: those of input and of task_inputs"
    )
    last_seq: int | None = Field(None, description="Seq of the last event so far")
    last_id: str | None = Field(None, description="The same, or the id of log lines after it")


class ExecutionSummary(_Answer):
    """An execution in a list."""

    execution_id: ExecutionId
    workflow_id: WorkflowId
    status: ExecutionStatusName
    created_at: Timestamp
    updated_at: Timestamp
    started_at: Timestamp | None
    completed_at: Timestamp | None


class ExecutionPage(_Page):
    """Executions."""

    model_config = ConfigDict(extra="allow", json_schema_extra=_example("ExecutionPage"))

    items: list[ExecutionSummary]


class Cancellation(Message):
    """A cancel that was asked for."""

    model_config = ConfigDict(extra="allow", json_schema_extra=_example("Cancellation"))

    execution_id: ExecutionId
    status: ExecutionStatusName


class ListedTask(TaskState):
    """A task in a list."""

    task_name: str


class TaskPage(_Page):
    """Tasks of an execution, in the order of definition."""

    items: list[ListedTask]


class AuditViolation(_Answer):
    """A rule that a history breaks; `seq` and `task` say where, if it is at one place."""

    rule: str
    seq: int | None
    task: str | None
    message: str


class Audit(_Answer):
    """What an audit has found; `violations` has the first of `violations_total`."""

    execution_id: ExecutionId
    workflow_id: WorkflowId
    status: ExecutionStatusName
    complete: bool
    events: int
    tasks: int
    attempts: int
    lost_attempts: int
    violations: list[AuditViolation]
    violations_total: int


class WorkspaceFile(_Answer):
    """A file of an execution's workspace; `size` in bytes."""

    path: str
    size: int
    modified_at: Timestamp


class FileList(_Answer):
    """Files of an execution's workspace."""

    items: list[WorkspaceFile]
    total: int
    truncated: bool = Field(False, description="Whether there are more than are listed")


class Template(_Answer):
    """A template."""

    model_config = ConfigDict(extra="allow", json_schema_extra=_example("Template"))

    template_id: TemplateId
    name: str
    description: str | None
    workflow_id: WorkflowId
    created_at: Timestamp
    updated_at: Timestamp
    parameters: Object


class TemplateSummary(_Answer):
    """A template in a list."""

    template_id: TemplateId
    name: str
    description: str | None
    workflow_id: WorkflowId
    created_at: Timestamp
    updated_at: Timestamp


class TemplatePage(_Page):
    """Templates."""

    items: list[TemplateSummary]


class Instantiated(_Answer):
    """A workflow that was made from a template."""

    workflow_id: WorkflowId
    template_id: TemplateId
    name: str
    description: str | None
    created_at: Timestamp
    updated_at: Timestamp
    tasks: Object
    input_schema: Object


class CheckpointTask(_Answer):
    """A task in a checkpoint."""

    status: TaskStatusName


class CheckpointSummary(_Answer):
    """A checkpoint in a list."""

    checkpoint_id: CheckpointId
    execution_id: ExecutionId
    workflow_id: WorkflowId
    name: str
    description: str
    created_at: Timestamp
    automatic: bool = Field(False, description="Whether the execution took it by itself")


class Checkpoint(CheckpointSummary):
    """A checkpoint."""

    model_config = ConfigDict(extra="allow", json_schema_extra=_example("Checkpoint"))

    task_states: dict[str, CheckpointTask]


class CheckpointPage(_Page):
    """Checkpoints."""

    items: list[CheckpointSummary]


class Restored(_Answer):
    """An execution that was made from a checkpoint."""

    model_config = ConfigDict(extra="allow", json_schema_extra=_example("Restored"))

    execution_id: ExecutionId
    checkpoint_id: CheckpointId
    workflow_id: WorkflowId
    status: ExecutionStatusName
    created_at: Timestamp
    updated_at: Timestamp
    started_at: Timestamp | None
    task_status: dict[str, TaskState]


class Component(_Answer):
    """A component and its actions."""

    name: str
    description: str
    #: The service that carries out its actions; null for actions of Harmonia's own processes.
    url: str | None
    actions: list[Object]


class ComponentList(_Answer):
    """The components that workflows may name."""

    items: list[Component]


class Key(_Answer):
    """An API key, without its secret."""

    key_id: str
    name: str
    scopes: list[str]
    rate_limit_per_s: float | None
    created_at: Timestamp


class CreatedKey(Key):
    """An API key with its secret, which is shown this once."""

    api_key: str


class RevokedKey(Message):
    """A key that was ended."""

    key_id: str


class KeyPage(_Page):
    """API keys."""

    items: list[Key]


class Durability(_Answer):
    """What the store's own configuration allows to promise, and what that means."""

    promise: Literal["always", "everysec", "none", "unknown"]
    meaning: str
    detail: str


class Health(_Answer):
    """Whether the service lives; to whoever has a key, also what the store promises now."""

    status: str
    durability: Durability | None = None


class StreamMessage(_Answer):
    """A WebSocket message: one event."""

    type: str
    timestamp: Timestamp
    execution_id: ExecutionId
    data: Object
