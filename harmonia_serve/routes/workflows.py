"""Workflow definitions: create, get, replace, delete, list."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from harmonia_serve import identifiers, schemas
from harmonia_serve.bodies import read_object
from harmonia_serve.once import OnceOf
from harmonia_serve.queries import WorkflowListQuery, page_request
from harmonia_serve.request_schemas import WorkflowRequest
from harmonia_serve.routes.context import API, ContextOf, document, needs, request_body

__all__ = ["router"]

router = APIRouter(prefix=f"{API}/workflows", tags=["Workflows"])


@router.post(
    "",
    summary="Create workflow",
    status_code=201,
    response_model=schemas.Workflow,
    dependencies=needs("write"),
    openapi_extra=request_body(WorkflowRequest),
)
async def create_workflow(request: Request, context: ContextOf, once: OnceOf) -> Response:
    """Create a new workflow definition."""
    definition, _ = await read_object(request, context.settings, WorkflowRequest)
    created = await context.gateway.create_workflow(definition, once=once)
    return document(created, status=201, location=f"/workflows/{created['workflow_id']}")


@router.get(
    "",
    summary="List workflows",
    response_model=schemas.WorkflowPage,
    dependencies=needs("read"),
)
async def list_workflows(
    query: Annotated[WorkflowListQuery, Query()], context: ContextOf
) -> Response:
    """Retrieve a list of workflow definitions."""
    page = page_request(query, context.settings)
    return document(await context.gateway.list_workflows(page))


@router.get(
    "/{workflow_id}",
    summary="Get workflow",
    response_model=schemas.Workflow,
    dependencies=needs("read"),
)
async def get_workflow(workflow_id: str, context: ContextOf) -> Response:
    """Retrieve a workflow definition by ID."""
    workflow_id = identifiers.workflow_id(workflow_id)
    return document(await context.gateway.get_workflow(workflow_id))


@router.put(
    "/{workflow_id}",
    summary="Update workflow",
    response_model=schemas.Workflow,
    dependencies=needs("write"),
    openapi_extra=request_body(WorkflowRequest),
)
async def replace_workflow(workflow_id: str, request: Request, context: ContextOf) -> Response:
    """Replace a workflow definition. Executions that run keep the one they started with."""
    workflow_id = identifiers.workflow_id(workflow_id)
    definition, _ = await read_object(request, context.settings, WorkflowRequest)
    return document(await context.gateway.replace_workflow(workflow_id, definition))


@router.delete(
    "/{workflow_id}",
    summary="Delete workflow",
    response_model=schemas.Message,
    dependencies=needs("write"),
)
async def delete_workflow(workflow_id: str, context: ContextOf) -> Response:
    """Delete a workflow definition by ID. Executions that run are not touched."""
    await context.gateway.delete_workflow(identifiers.workflow_id(workflow_id))
    return document({"success": True, "message": "Workflow deleted successfully"})
