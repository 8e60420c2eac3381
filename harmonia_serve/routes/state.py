"""State: checkpoints of executions, and executions restored from them."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from harmonia_serve import identifiers, schemas
from harmonia_serve.bodies import read_object
from harmonia_serve.gateway import Edits
from harmonia_serve.once import OnceOf
from harmonia_serve.queries import CheckpointQuery, page_request
from harmonia_serve.request_schemas import CheckpointRequest, RestoreRequest
from harmonia_serve.routes.context import (
    API,
    ContextOf,
    document,
    execution_answer,
    needs,
    request_body,
)

__all__ = ["router"]

router = APIRouter(prefix=f"{API}/state", tags=["State"])


@router.post(
    "/checkpoints",
    summary="Create checkpoint",
    status_code=201,
    response_model=schemas.Checkpoint,
    dependencies=needs("execute"),
    openapi_extra=request_body(CheckpointRequest),
)
async def create_checkpoint(request: Request, context: ContextOf, once: OnceOf) -> Response:
    """Create a checkpoint of the current workflow execution state."""
    _, wanted = await read_object(request, context.settings, CheckpointRequest)
    created = await context.gateway.create_checkpoint(
        identifiers.execution_id(wanted.execution_id),
        name=wanted.name,
        description=wanted.description or "",
        once=once,
    )
    location = f"/state/checkpoints/{created['checkpoint_id']}"
    return document(created, status=201, location=location)


@router.get(
    "/checkpoints",
    summary="List checkpoints",
    response_model=schemas.CheckpointPage,
    dependencies=needs("read"),
)
async def list_checkpoints(
    query: Annotated[CheckpointQuery, Query()], context: ContextOf
) -> Response:
    """Retrieve a list of checkpoints."""
    page = page_request(query, context.settings)
    execution_id = identifiers.filter_id("exec", "execution_id", query.execution_id)
    return document(await context.gateway.list_checkpoints(page, execution_id=execution_id))


@router.get(
    "/checkpoints/{checkpoint_id}",
    summary="Get checkpoint",
    response_model=schemas.Checkpoint,
    dependencies=needs("read"),
)
async def get_checkpoint(checkpoint_id: str, context: ContextOf) -> Response:
    """Retrieve a checkpoint by ID."""
    return document(await context.gateway.get_checkpoint(identifiers.checkpoint_id(checkpoint_id)))


@router.delete(
    "/checkpoints/{checkpoint_id}",
    summary="Delete checkpoint",
    response_model=schemas.Message,
    dependencies=needs("execute"),
)
async def delete_checkpoint(checkpoint_id: str, context: ContextOf) -> Response:
    """Delete a checkpoint by ID. Executions that were restored from it are not touched."""
    await context.gateway.delete_checkpoint(identifiers.checkpoint_id(checkpoint_id))
    return document({"success": True, "message": "Checkpoint deleted successfully"})


@router.post(
    "/restore",
    summary="Restore from checkpoint",
    status_code=202,
    response_model=schemas.Restored,
    responses={
        200: {
            "model": schemas.ExecutionState,
            "description": 'With `"async": false`: the execution has ended',
        }
    },
    dependencies=needs("execute"),
    openapi_extra=request_body(RestoreRequest),
)
async def restore(request: Request, context: ContextOf, once: OnceOf) -> Response:
    """Restore a workflow execution from a checkpoint, as a new execution.

    Completed tasks keep their outputs, all others run. `input` and `task_inputs` edit what these
    are given; edits of what a completed task was given are refused.
    """
    body, _ = await read_object(request, context.settings, RestoreRequest)
    edits = Edits(input=body.get("input") or {}, task_inputs=body.get("task_inputs") or {})
    reply = await context.gateway.restore(
        identifiers.checkpoint_id(body["checkpoint_id"]),
        body.get("execution_options") or {},
        edits=edits,
        once=once,
    )
    return execution_answer(reply)
