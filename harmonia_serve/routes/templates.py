"""Templates: create, get, list, delete, instantiate."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from harmonia_actors.core.errors import Problem, ValidationFailed
from harmonia_serve import identifiers, schemas
from harmonia_serve.bodies import read_object
from harmonia_serve.once import OnceOf
from harmonia_serve.queries import SortedQuery, page_request
from harmonia_serve.request_schemas import InstantiateRequest, TemplateRequest
from harmonia_serve.routes.context import API, ContextOf, document, needs, request_body

__all__ = ["router"]

router = APIRouter(prefix=f"{API}/templates", tags=["Templates"])


@router.post(
    "",
    summary="Create template",
    status_code=201,
    response_model=schemas.Template,
    dependencies=needs("write"),
    openapi_extra=request_body(TemplateRequest),
)
async def create_template(request: Request, context: ContextOf, once: OnceOf) -> Response:
    """Create a workflow template from an existing workflow or a new definition."""
    body, template = await read_object(request, context.settings, TemplateRequest)
    if (template.workflow_id is None) == (template.definition is None):
        message = "give either `workflow_id` or `definition`, one of them"
        raise ValidationFailed("template", [Problem("workflow_id", message)])
    if template.workflow_id is not None:
        identifiers.workflow_id(template.workflow_id)
    created = await context.gateway.create_template(body, once=once)
    return document(created, status=201, location=f"/templates/{created['template_id']}")


@router.get(
    "",
    summary="List templates",
    response_model=schemas.TemplatePage,
    dependencies=needs("read"),
)
async def list_templates(query: Annotated[SortedQuery, Query()], context: ContextOf) -> Response:
    """Retrieve a list of templates."""
    page = page_request(query, context.settings)
    return document(await context.gateway.list_templates(page))


@router.get(
    "/{template_id}",
    summary="Get template",
    response_model=schemas.Template,
    dependencies=needs("read"),
)
async def get_template(template_id: str, context: ContextOf) -> Response:
    """Retrieve a template by ID."""
    return document(await context.gateway.get_template(identifiers.template_id(template_id)))


@router.delete(
    "/{template_id}",
    summary="Delete template",
    response_model=schemas.Message,
    dependencies=needs("write"),
)
async def delete_template(template_id: str, context: ContextOf) -> Response:
    """Delete a template by ID. Workflows that were made from it stay."""
    await context.gateway.delete_template(identifiers.template_id(template_id))
    return document({"success": True, "message": "Template deleted successfully"})


@router.post(
    "/{template_id}/instantiate",
    summary="Instantiate template",
    status_code=201,
    response_model=schemas.Instantiated,
    dependencies=needs("write"),
    openapi_extra=request_body(InstantiateRequest),
)
async def instantiate_template(
    template_id: str, request: Request, context: ContextOf, once: OnceOf
) -> Response:
    """Create a workflow instance from a template."""
    template_id = identifiers.template_id(template_id)
    body, _ = await read_object(request, context.settings, InstantiateRequest)
    made = await context.gateway.instantiate_template(template_id, body, once=once)
    return document(made, status=201, location=f"/workflows/{made['workflow_id']}")
