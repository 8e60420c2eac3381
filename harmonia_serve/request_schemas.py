"""The bodies of requests, as pydantic models: a wrong type is found here, and an unknown field.

What a definition means is the gateway's to judge, which is given the document as it was sent.
"""

from __future__ import annotations

from itertools import islice
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidatorFunctionWrapHandler,
    WrapValidator,
)

from harmonia_serve.examples import REQUESTS

__all__ = [
    "CheckpointRequest",
    "ExecuteRequest",
    "ExecutionOptions",
    "InstantiateRequest",
    "KeyRequest",
    "RestoreRequest",
    "TemplateRequest",
    "WorkflowRequest",
]

Object = dict[str, Any]

#: Tasks of a definition that are checked before it is asked whether anything was wrong.
_AT_A_TIME = 100


def _example(name: str) -> dict[str, Any]:
    return {"examples": [REQUESTS[name]]}


class _Request(BaseModel):
    """A body: fields that it does not name are refused."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)


class RetryPolicy(_Request):
    """How a failed task is tried again."""

    max_retries: int | None = Field(None, ge=0, description="Tries after the first; default 0")
    retry_interval: float | None = Field(
        None, ge=0, description="Seconds before the first retry; default 1"
    )
    backoff: float | None = Field(
        None, description="Factor by which each wait is longer than the one before; default 1"
    )
    max_interval: float | None = Field(None, ge=0, description="Longest wait in seconds")
    jitter: float | None = Field(None, description="Share by which a wait varies, 0 to 1")


class CheckpointPolicy(_Request):
    """When an execution takes checkpoints by itself: at least one of the first two."""

    every_completions: int | None = Field(
        None, description="As soon as so many tasks have completed since the last one"
    )
    every_s: float | None = Field(
        None,
        description="As soon as so many seconds have passed since the last one, if any task has "
        "completed since",
    )
    keep: int | None = Field(None, description="How many stay, the newest; default 5")


class ExecutionOptions(_Request):
    """How an execution is run."""

    async_: bool | None = Field(
        None, alias="async", description="false: answer when the execution has ended"
    )
    timeout: float | None = Field(None, description="Seconds until the execution fails")
    retry_policy: RetryPolicy | None = Field(
        None, description="For every task that has no policy of its own"
    )
    checkpoint: CheckpointPolicy | None = Field(
        None, description="Automatic checkpoints; default: as the workflow says, else none"
    )


class TaskDefinition(BaseModel):
    """A task. Its meaning is checked with the whole workflow, and so are unknown fields."""

    model_config = ConfigDict(extra="allow", hide_input_in_errors=True)

    name: str | None = Field(None, description="The task's key in `tasks`, repeated")
    description: str | None = None
    component: str | None = Field(None, description="Component that runs it; required")
    action: str | None = Field(None, description="What the component does; required")
    input: Object | None = Field(None, description="Inputs; may hold ${…} references")
    depends_on: list[str] | None = Field(
        None, fail_fast=True, description="Tasks that must complete before"
    )
    timeout: float | None = Field(None, description="Seconds one attempt may take")
    retry_policy: Object | None = None
    resources: Object | None = Field(
        None, description="num_cpus, num_gpus, memory or custom Ray resources"
    )
    metadata: Object | None = None


def _by_and_by(value: Any, check: ValidatorFunctionWrapHandler) -> Any:
    """Check an object's values a few at a time, and leave off where something is wrong.

    Every error is kept, with its place, until all is checked; there may be a million of them.
    """
    if not isinstance(value, dict):
        return check(value)
    checked: dict[str, Any] = {}
    names = iter(value)
    while some := list(islice(names, _AT_A_TIME)):
        checked.update(check({name: value[name] for name in some}))
    return checked


class WorkflowRequest(_Request):
    """A workflow definition. What a stored one shows besides may be sent back, and is ignored."""

    model_config = ConfigDict(
        json_schema_extra=_example("WorkflowRequest"), extra="forbid", hide_input_in_errors=True
    )

    name: str
    description: str | None = None
    version: str | None = None
    tasks: Annotated[dict[str, TaskDefinition], WrapValidator(_by_and_by)]
    input_schema: Object | None = Field(
        None, description="Properties by name, or a whole JSON Schema object"
    )
    output: Any = Field(None, description="References that make up the execution's output")
    timeout: float | None = Field(None, description="Seconds until an execution fails")
    retry_policy: Object | None = None
    checkpoint: Object | None = Field(
        None, description="Automatic checkpoints of its executions, as in their options"
    )
    metadata: Object | None = None
    workflow_id: Any = Field(None, exclude=True, description="Ignored")
    template_id: Any = Field(None, exclude=True, description="Ignored")
    created_at: Any = Field(None, exclude=True, description="Ignored")
    updated_at: Any = Field(None, exclude=True, description="Ignored")


class ExecuteRequest(_Request):
    """What to execute, with which input."""

    model_config = ConfigDict(
        json_schema_extra=_example("ExecuteRequest"), extra="forbid", hide_input_in_errors=True
    )

    workflow_id: str
    input: Object | None = None
    execution_options: ExecutionOptions | None = None


class TemplateRequest(_Request):
    """A template: from a workflow, or from a definition of its own."""

    model_config = ConfigDict(
        json_schema_extra=_example("TemplateRequest"), extra="forbid", hide_input_in_errors=True
    )

    name: str
    description: str | None = None
    workflow_id: str | None = Field(None, description="Workflow to copy; or give `definition`")
    definition: WorkflowRequest | None = Field(
        None, description="Definition to use; or give `workflow_id`"
    )
    parameters: Object | None = None


class InstantiateRequest(_Request):
    """Values for a template's parameters."""

    model_config = ConfigDict(
        json_schema_extra=_example("InstantiateRequest"),
        extra="forbid",
        hide_input_in_errors=True,
    )

    name: str
    description: str | None = None
    parameter_values: Object | None = None


class CheckpointRequest(_Request):
    """Which execution to checkpoint."""

    model_config = ConfigDict(
        json_schema_extra=_example("CheckpointRequest"), extra="forbid", hide_input_in_errors=True
    )

    execution_id: str
    name: str
    description: str | None = None


class RestoreRequest(_Request):
    """Which checkpoint to restore, and what is to be different."""

    model_config = ConfigDict(
        json_schema_extra=_example("RestoreRequest"), extra="forbid", hide_input_in_errors=True
    )

    checkpoint_id: str
    execution_options: ExecutionOptions | None = None
    input: Object | None = Field(
        None, description="Values that take the place of those in the execution's input"
    )
    task_inputs: dict[str, Object] | None = Field(
        None,
        description="Whole inputs, by task, in place of the definition's; for tasks that had not "
        "completed",
    )


class KeyRequest(_Request):
    """An API key to make."""

    model_config = ConfigDict(
        json_schema_extra=_example("KeyRequest"), extra="forbid", hide_input_in_errors=True
    )

    name: Annotated[str, StringConstraints(min_length=1, max_length=128)]
    scopes: Annotated[
        list[Literal["read", "execute", "write", "admin"]], Field(min_length=1, fail_fast=True)
    ]
    rate_limit_per_s: float | None = Field(None, gt=0, description="Requests a second")
