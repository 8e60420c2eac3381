"""Executions: start, status, list, cancel, tasks and their outputs, audits."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from harmonia_serve import identifiers, schemas
from harmonia_serve.bodies import read_object, read_optional_object
from harmonia_serve.once import OnceOf
from harmonia_serve.queries import ExecutionListQuery, OutputsQuery, PageQuery, page_request
from harmonia_serve.request_schemas import ExecuteRequest
from harmonia_serve.routes.context import (
    API,
    ContextOf,
    document,
    execution_answer,
    needs,
    request_body,
)

__all__ = ["router"]

router = APIRouter(prefix=f"{API}/executions", tags=["Executions"])


@router.post(
    "",
    summary="Execute workflow",
    status_code=202,
    response_model=schemas.Execution,
    responses={
        200: {
            "model": schemas.ExecutionState,
            "description": 'With `"async": false`: the execution has ended',
        }
    },
    dependencies=needs("execute"),
    openapi_extra=request_body(ExecuteRequest),
)
async def execute(request: Request, context: ContextOf, once: OnceOf) -> Response:
    """Execute a workflow with input parameters. It is durable once this answers."""
    body, _ = await read_object(request, context.settings, ExecuteRequest)
    reply = await context.gateway.execute(
        identifiers.workflow_id(body["workflow_id"]),
        body.get("input") or {},
        body.get("execution_options") or {},
        once=once,
    )
    return execution_answer(reply)


@router.get(
    "",
    summary="List executions",
    response_model=schemas.ExecutionPage,
    dependencies=needs("read"),
)
async def list_executions(
    query: Annotated[ExecutionListQuery, Query()], context: ContextOf
) -> Response:
    """Retrieve a list of workflow executions."""
    page = page_request(query, context.settings)
    workflow_id = identifiers.filter_id("wf", "workflow_id", query.workflow_id)
    return document(
        await context.gateway.list_executions(page, workflow_id=workflow_id, status=query.status)
    )


@router.get(
    "/{execution_id}",
    summary="Get execution status",
    response_model=schemas.ExecutionState,
    dependencies=needs("read"),
)
async def get_execution(
    execution_id: str, query: Annotated[OutputsQuery, Query()], context: ContextOf
) -> Response:
    """Retrieve the status of a workflow execution."""
    execution_id = identifiers.execution_id(execution_id)
    outputs = query.outputs == "all"
    return document(await context.gateway.get_execution(execution_id, outputs=outputs))


@router.post(
    "/{execution_id}/cancel",
    summary="Cancel execution",
    response_model=schemas.Cancellation,
    dependencies=needs("execute"),
)
async def cancel_execution(execution_id: str, request: Request, context: ContextOf) -> Response:
    """Cancel a running workflow execution. One that has ended is a conflict."""
    execution_id = identifiers.execution_id(execution_id)
    await read_optional_object(request, context.settings)
    return document(await context.gateway.cancel_execution(execution_id))


@router.get(
    "/{execution_id}/tasks",
    summary="List tasks",
    response_model=schemas.TaskPage,
    dependencies=needs("read"),
)
async def list_tasks(
    execution_id: str, query: Annotated[PageQuery, Query()], context: ContextOf
) -> Response:
    """Page through the tasks of an execution, in the order of definition."""
    execution_id = identifiers.execution_id(execution_id)
    page = page_request(query, context.settings)
    return document(await context.gateway.list_tasks(execution_id, page))


@router.get(
    "/{execution_id}/output",
    summary="Get execution output",
    response_model=None,
    responses={
        200: {
            "description": "The execution's output. What the workflow's `output` names is in it, "
            "however large. Without one, the outputs of the last tasks are: those that are kept in "
            'the blob store, or are too large together, as `{"$ref", "size", "preview"}`, where '
            "`$ref` is the route that has the output whole",
            "content": {"application/json": {}},
        }
    },
    dependencies=needs("read"),
)
async def get_execution_output(execution_id: str, context: ContextOf) -> Response:
    """Retrieve the output of a completed execution.

    Where it is made of the outputs of tasks by default, large ones are told by where they are.
    """
    execution_id = identifiers.execution_id(execution_id)
    output = await context.gateway.get_execution_output(execution_id)
    return Response(output, media_type="application/json")


@router.get(
    "/{execution_id}/tasks/{task_name:path}/output",
    summary="Get task output",
    response_model=None,
    responses={
        200: {"description": "The task's output, whole", "content": {"application/json": {}}}
    },
    dependencies=needs("read"),
)
async def get_task_output(execution_id: str, task_name: str, context: ContextOf) -> Response:
    """Retrieve the whole output of a completed task, however large."""
    execution_id = identifiers.execution_id(execution_id)
    output = await context.gateway.get_task_output(execution_id, task_name)
    return Response(output, media_type="application/json")


@router.get(
    "/{execution_id}/audit",
    summary="Audit execution",
    response_model=schemas.Audit,
    dependencies=needs("read"),
)
async def audit_execution(execution_id: str, context: ContextOf) -> Response:
    """Hold the whole event log of an execution, and its stored state, against the rules.

    While the execution goes on, `complete` is false, and only what has happened is judged.
    """
    execution_id = identifiers.execution_id(execution_id)
    return document(await context.gateway.audit_execution(execution_id))
