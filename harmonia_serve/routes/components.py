"""The catalogue of components and their actions."""

from __future__ import annotations

from fastapi import APIRouter, Response

from harmonia_serve import schemas
from harmonia_serve.routes.context import API, ContextOf, document, needs

__all__ = ["router"]

router = APIRouter(prefix=f"{API}/components", tags=["Components"])


@router.get(
    "",
    summary="List components",
    response_model=schemas.ComponentList,
    dependencies=needs("read"),
)
async def list_components(context: ContextOf) -> Response:
    """List the components that workflows may name, with their actions."""
    return document(await context.gateway.list_components())


@router.get(
    "/{name}",
    summary="Get component",
    response_model=schemas.Component,
    dependencies=needs("read"),
)
async def get_component(name: str, context: ContextOf) -> Response:
    """Retrieve a component with its actions."""
    return document(await context.gateway.get_component(name))
