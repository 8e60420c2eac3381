"""API keys: create, list, revoke. For keys with the scope admin."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from harmonia_serve import identifiers, schemas
from harmonia_serve.bodies import read_object
from harmonia_serve.once import refuses_once
from harmonia_serve.queries import SortedQuery, page_request
from harmonia_serve.request_schemas import KeyRequest
from harmonia_serve.routes.context import API, ContextOf, document, needs, request_body

__all__ = ["router"]

router = APIRouter(prefix=f"{API}/keys", tags=["Keys"])


@router.post(
    "",
    summary="Create key",
    status_code=201,
    response_model=schemas.CreatedKey,
    dependencies=[*needs("admin"), refuses_once()],
    openapi_extra=request_body(KeyRequest),
)
async def create_key(request: Request, context: ContextOf) -> Response:
    """Make an API key. Its secret, `api_key`, is shown this once."""
    _, wanted = await read_object(request, context.settings, KeyRequest)
    created = await context.gateway.create_key(
        name=wanted.name,
        scopes=list(dict.fromkeys(wanted.scopes)),
        rate_limit_per_s=wanted.rate_limit_per_s,
    )
    return document(created, status=201)


@router.get(
    "",
    summary="List keys",
    response_model=schemas.KeyPage,
    dependencies=needs("admin"),
)
async def list_keys(query: Annotated[SortedQuery, Query()], context: ContextOf) -> Response:
    """List the API keys, without their secrets."""
    return document(await context.gateway.list_keys(page_request(query, context.settings)))


@router.delete(
    "/{key_id}",
    summary="Revoke key",
    response_model=schemas.RevokedKey,
    dependencies=needs("admin"),
)
async def revoke_key(key_id: str, context: ContextOf) -> Response:
    """End a key at once."""
    return document(await context.gateway.revoke_key(identifiers.key_id(key_id)))
