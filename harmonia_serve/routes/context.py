"""What all route modules share: the gateway and settings of the application, and its answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final, cast

from fastapi import Depends, params
from pydantic import BaseModel
from starlette.requests import HTTPConnection
from starlette.responses import Response

from harmonia_actors.settings import Settings
from harmonia_serve.auth import Guard
from harmonia_serve.gateway import ExecutionReply, Gateway, JsonObject
from harmonia_serve.observation import CONTENT_TYPE, Observation
from harmonia_serve.problems import json_bytes
from harmonia_serve.streams import StreamSlots

__all__ = [
    "API",
    "Context",
    "ContextOf",
    "document",
    "execution_answer",
    "needs",
    "observed",
    "request_body",
]

#: Where the REST routes lie.
API: Final = "/api/harmonia"


@dataclass(frozen=True, slots=True)
class Context:
    """What an application was built with."""

    gateway: Gateway
    settings: Settings
    observation: Observation
    slots: StreamSlots


async def _context(connection: HTTPConnection) -> Context:
    return cast("Context", connection.app.state.context)


#: A route's parameter of this type is the application's context.
ContextOf = Annotated[Context, Depends(_context)]


def needs(scope: str) -> list[params.Depends]:
    """The dependencies of a route that needs a key with this scope."""
    return [Depends(Guard(scope))]


def request_body(model: type[BaseModel]) -> dict[str, Any]:
    """How a route's body is documented; `openapi` puts the schema in its place."""
    schema = {"$ref": f"#/components/schemas/{model.__name__}"}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def document(value: JsonObject, *, status: int = 200, location: str | None = None) -> Response:
    """A JSON answer."""
    headers = {"Location": f"{API}{location}"} if location else None
    return Response(json_bytes(value), status, headers, "application/json")


def observed(context: Context, gauges: Mapping[str, float] | None = None) -> Response:
    """What a surface counts about itself, and the given gauges, for Prometheus."""
    text = context.observation.render(gauges or {})
    return Response(text, headers={"Content-Type": CONTENT_TYPE})


def execution_answer(reply: ExecutionReply) -> Response:
    """202 for an execution that goes on, 200 for one that the request has waited for."""
    location = f"/executions/{reply.document['execution_id']}"
    return document(reply.document, status=200 if reply.ended else 202, location=location)
