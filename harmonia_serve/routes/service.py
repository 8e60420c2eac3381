"""The service itself: health, readiness, metrics, and its own description.

Only health and readiness are open, and they say little. With a key, health says what is promised,
too; `/api/harmonia/service` says more.
"""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from harmonia_actors.core.errors import ServiceUnavailable
from harmonia_serve import schemas
from harmonia_serve.auth import is_identified
from harmonia_serve.observation import CONTENT_TYPE
from harmonia_serve.openapi import described, described_page
from harmonia_serve.routes.context import API, ContextOf, document, needs

__all__ = ["router"]

router = APIRouter(tags=["Service"])


@router.get("/health", summary="Health", response_model=schemas.Health)
@router.get(f"{API}/health", include_in_schema=False)
async def health(request: Request, context: ContextOf) -> Response:
    """Whether the service lives. Needs no key; with one, also what the store promises now.

    A key that is wrong is as good as none here.
    """
    found = await context.gateway.health(detailed=False)
    if is_identified(request):
        found = {**found, "durability": await context.gateway.durability()}
    return document(found)


@router.get("/ready", summary="Readiness", response_model=schemas.Health)
@router.get(f"{API}/ready", include_in_schema=False)
async def ready(context: ContextOf) -> Response:
    """Whether requests can be served now; 503 if not. Needs no key."""
    if not await context.gateway.ready():
        raise ServiceUnavailable("The service is not ready: its store does not answer")
    return document({"status": "ready"})


@router.get(
    f"{API}/service",
    summary="Service details",
    response_model=schemas.Health,
    dependencies=needs("read"),
)
async def service(context: ContextOf) -> Response:
    """Version, what the store promises now, pools and counts."""
    return document(await context.gateway.health(detailed=True))


@router.get(
    "/metrics",
    summary="Metrics",
    response_model=None,
    responses={200: {"description": "Prometheus text", "content": {"text/plain": {}}}},
    dependencies=needs("read"),
)
@router.get(f"{API}/metrics", include_in_schema=False, dependencies=needs("read"))
async def metrics(context: ContextOf) -> Response:
    """Gauges of the engine, and the requests and streams of this replica, for Prometheus."""
    text = context.observation.render(await context.gateway.metrics())
    return Response(text, headers={"Content-Type": CONTENT_TYPE})


@router.get("/openapi.json", include_in_schema=False, dependencies=needs("read"))
@router.get(f"{API}/openapi.json", include_in_schema=False, dependencies=needs("read"))
async def openapi(request: Request) -> Response:
    """Describe this API as an OpenAPI document."""
    return Response(described(request.app), media_type="application/json")


@router.get("/docs", include_in_schema=False, dependencies=needs("read"))
@router.get(f"{API}/docs", include_in_schema=False, dependencies=needs("read"))
async def docs(request: Request) -> Response:
    """The OpenAPI document as one page that loads nothing else."""
    return Response(
        described_page(request.app),
        media_type="text/html; charset=utf-8",
        headers={"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'"},
    )
