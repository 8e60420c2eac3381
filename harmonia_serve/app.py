"""Builds the ASGI applications: REST, WebSocket, SSE, or all three in one.

Only builders: nothing is made when this module is imported. Every application has the same two
layers before its routes, `Boundary` and `Authentication`, and refuses to be built with a route
that names neither a scope nor an open path.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any, Final, NoReturn

from fastapi import APIRouter, FastAPI, Request, WebSocket
from fastapi.exceptions import RequestValidationError, WebSocketRequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.routing import BaseRoute, Match

from harmonia_actors.core.errors import InvalidRequest, ResourceNotFound, ValidationFailed
from harmonia_actors.settings import Settings
from harmonia_serve import sse, websocket
from harmonia_serve.auth import OPEN_PATHS, Authentication, Guard
from harmonia_serve.boundary import Boundary
from harmonia_serve.gateway import Gateway
from harmonia_serve.observation import Observation
from harmonia_serve.problems import MethodNotAllowed
from harmonia_serve.queries import query_problems
from harmonia_serve.routes import (
    components,
    executions,
    files,
    keys,
    service,
    state,
    templates,
    workflows,
)
from harmonia_serve.routes.context import Context
from harmonia_serve.streams import StreamSlots

__all__ = [
    "build_app",
    "build_event_stream_app",
    "build_rest_app",
    "build_websocket_app",
    "guarded_routes",
]

_REST: Final = (
    workflows.router,
    executions.router,
    files.router,
    templates.router,
    state.router,
    components.router,
    keys.router,
    service.router,
)


def build_rest_app(gateway: Gateway, settings: Settings) -> FastAPI:
    """`/api/harmonia/…`, health, readiness, metrics and the API's description."""
    return _build(gateway, settings, _REST, prefix="")


def build_websocket_app(gateway: Gateway, settings: Settings) -> FastAPI:
    """`/ws/harmonia/executions/{execution_id}`."""
    return _build(gateway, settings, (websocket.router,), prefix=websocket.PREFIX)


def build_event_stream_app(gateway: Gateway, settings: Settings) -> FastAPI:
    """`/events/harmonia/executions/{execution_id}`."""
    return _build(gateway, settings, (sse.router,), prefix=sse.PREFIX)


def build_app(gateway: Gateway, settings: Settings) -> FastAPI:
    """All three in one, for tests and for set-ups of one process."""
    return _build(gateway, settings, (*_REST, websocket.router, sse.router), prefix="")


def guarded_routes(app: FastAPI) -> Iterator[tuple[Any, str | None]]:
    """Every route of an application with the scope it needs; None for what is open."""
    for route in app.routes:
        yield route, _scope_of(route)


def _build(
    gateway: Gateway, settings: Settings, routers: Iterable[APIRouter], *, prefix: str
) -> FastAPI:
    observation = Observation()
    routes: list[BaseRoute] = [route for router in routers for route in router.routes]
    app = FastAPI(
        title="Harmonia",
        routes=[*routes, *websocket.catch_all.routes],
        middleware=[
            Middleware(
                Boundary,
                prefix=prefix,
                observation=observation,
                readable=partial(sse.readable_by, allowed=settings.allowed_origins),
            ),
            Middleware(Authentication, gateway=gateway, settings=settings),
        ],
        exception_handlers={
            HTTPException: _raise_ours,
            RequestValidationError: _raise_invalid,
            WebSocketRequestValidationError: _raise_invalid,
        },
        # A path is what it is: a slash more is another path. The description has its own routes,
        # behind authentication.
        redirect_slashes=False,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        # It would record the query string before the key is taken out of it.
        telemetry={"tracing": False, "metrics": False, "logs": False, "operation_spans": False},
    )
    app.state.context = Context(
        gateway,
        settings,
        observation,
        StreamSlots(settings.streams_per_replica_max, settings.streams_per_key_max),
    )
    _refuse_unguarded(app)
    return app


def _scope_of(route: Any) -> str | None:
    guards = [
        dependency.call.scope
        for dependency in route.dependant.dependencies
        if isinstance(dependency.call, Guard)
    ]
    return guards[0] if guards else None


def _refuse_unguarded(app: FastAPI) -> None:
    """Raise RuntimeError for a route that somebody has forgotten to guard."""
    catch_all = {route.path for route in websocket.catch_all.routes}  # type: ignore[attr-defined]
    for route, scope in guarded_routes(app):
        if scope is None and route.path not in OPEN_PATHS | catch_all:
            raise RuntimeError(f"the route {route.path} names no scope: give it needs(…)")


async def _raise_ours(request: Request, error: Any) -> NoReturn:
    """Starlette's own HTTPException, as ours, for the boundary to answer."""
    path = request.scope["path"][:200]
    if error.status_code == 405:
        allowed = {
            method
            for route in request.app.routes
            if route.matches(request.scope)[0] is not Match.NONE
            for method in route.methods
        }
        if "GET" in allowed:
            allowed.add("HEAD")
        raise MethodNotAllowed(request.method, path, sorted(allowed)) from None
    if error.status_code == 404:
        raise ResourceNotFound(f"There is nothing at '{path}'", {"path": path}) from None
    raise InvalidRequest(str(error.detail)) from None


async def _raise_invalid(_: Request | WebSocket, error: Any) -> NoReturn:
    """FastAPI's complaints about query parameters, as ours."""
    raise ValidationFailed("query", query_problems(error.errors())) from None
