"""The API described: the OpenAPI document, and a page made of it that loads nothing else."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from importlib import metadata
from typing import Any, Final

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from jinja2 import Environment, StrictUndefined
from pydantic.json_schema import models_json_schema

from harmonia_serve import once, request_schemas, schemas, sse
from harmonia_serve.auth import OPTIONAL_KEY_PATHS, Guard
from harmonia_serve.problems import json_bytes

__all__ = ["described", "described_page"]

_DESCRIPTION: Final = """\
Runs workflows (DAGs of tasks) durably on a Ray cluster and shows them live.

**Authentication.** Every request needs an API key: `X-API-Key: …` or `Authorization: Bearer …`.
Keys have scopes: `read` (all GETs and streams), `execute` (start and cancel executions, make,
delete and restore checkpoints), `write` (workflows and templates), `admin` (keys; implies all).
Only `/health` and `/ready` are open.

**Errors.** Every error has one form, `{"error": {"code", "message", "details"}}`:

| Code | Status |
|---|---|
| `invalid_request` | 400, 413 for a body that is too large |
| `authentication_failed` | 401 |
| `permission_denied` | 403 |
| `workflow_not_found`, `execution_not_found`, `template_not_found`, `checkpoint_not_found`, \
`not_found` | 404 |
| `method_not_allowed` | 405, with `Allow` |
| `conflict` | 409 |
| `validation_error` | 422, each field in `details.errors` |
| `rate_limit_exceeded` | 429, with `Retry-After` |
| `component_error`, `execution_error` | 500, in answer to `"async": false` |
| `internal_error` | 500, with the `error_id` that is in the log |
| `service_unavailable` | 503, with `Retry-After` |

**Idempotency-Key.** Send a POST that makes something with this header, and send it again if no
answer came: the same key with the same request makes it once and gives the same thing; with another
request it is a 409. A key is one caller's own and lives as long as what was made with it.
Cancelling needs none, and a POST of a key takes none.

**Retention.** Executions expire some time after their end, and are answered with 404 then.
Automatic checkpoints (`checkpoint` in an execution's options) go with them; others stay until they
are deleted, with what they need of their executions.

**WebSocket.** `ws://…/ws/harmonia/executions/{execution_id}?after=SEQ` sends every event after
`SEQ`, what has happened first, then live, as
`{"seq", "type", "timestamp", "timestamp_ms", "execution_id", "data"}`, and closes with 1000 after
the last one. The key goes into a header or, for browsers, into `?api_key=`. Other close codes: 4400
(bad request), 4401, 4403, 4404, 4429 (as the HTTP statuses; 4429 also for too many open streams),
1001 (greatest age: resume with `?after=`), 1012 (the replica is going: the same), 4408 (slow
consumer: the same), 1008 (too many messages), 1011 (internal error), 1013 (try later).

**Server-Sent Events.** `/events/harmonia/executions/{execution_id}` sends the same events with
`id:` (the `seq`), `event:` and `data:`; it resumes after `Last-Event-ID` or `?after=SEQ`, and
answers 204 if nothing is to come. A slow consumer gets `slow_consumer` as its last event, without
an `id:`, and resumes like any other.

**Summaries.** With `?detail=summary` both send, in place of the tasks' events, now and then an
`execution_progress`: `{"status", "progress", "total_tasks", "tasks": {"pending": 3, …},
"running_tasks": […], "failed_tasks": […]}`, how things stand after the event of its `seq`.

**All executions.** `/ws/harmonia/executions` and `/events/harmonia/executions` send the events of
all executions in the order of their commits, in the WebSocket's envelope with a `cursor`, which is
also the `id:`. They begin now, or after `?after=CURSOR` (`0`: all that is kept), and do not end by
themselves. An event `gap` says that events are missing.

**Log lines.** What tasks write are events `task_log`: `{"task_name", "attempt", "lines":
[{"stream": "log", "stdout" or "stderr", "level", "text", "timestamp_ms"}, …], "dropped"}`, where
`dropped` lines are missing before these. They are sent with `?logs=true`, or if `?type=` names
them. They have the `seq` of the event before and a `part`; their id is both, like `12-3`.

**An end.** `?until=ID` ends the stream of an execution with that event.

**Filters.** All streams take `?type=` and `?status=` (with commas between them) and `?task=`; those
of all executions also `?workflow_id=`. They do not change ids. Where nothing is wanted for long, an
`id:` without data (on WebSocket `{"cursor", "type": "cursor"}`) says how far it has come.
"""

_SECURITY: Final = {
    "ApiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
    "Bearer": {"type": "http", "scheme": "bearer"},
    "QueryKey": {
        "type": "apiKey",
        "in": "query",
        "name": "api_key",
        "description": "On WebSocket and Server-Sent Events only",
    },
}

_ALWAYS: Final = {
    "400": "Malformed: not JSON, a wrong type",
    "401": "No API key, or a wrong or revoked one",
    "403": "The key lacks the scope",
    "422": "Well-formed but not valid",
    "429": "Too many requests, or too many executions live; see Retry-After",
    "500": "Unexpected; `error_id` is in the log",
    "503": "The store cannot be reached; see Retry-After",
}


#: Operations whose bodies name something by its id.
_NAME_IDS: Final = ("execute", "create_template", "create_checkpoint", "restore")


def described(app: FastAPI) -> bytes:
    """The OpenAPI document of REST and SSE, as JSON."""
    return json_bytes(_document(app))


def described_page(app: FastAPI) -> bytes:
    """The OpenAPI document as HTML."""
    document = _document(app)
    page = _PAGE.render(document=document, operations=list(_operations(document)), dump=_dump)
    return page.encode()


def _document(app: FastAPI) -> dict[str, Any]:
    """Made once for each application: it does not change."""
    if app.openapi_schema is None:
        routes = {id(route): route for route in [*app.routes, *sse.router.routes]}
        document = get_openapi(
            title="Harmonia",
            version=_version(),
            description=_DESCRIPTION,
            routes=list(routes.values()),
        )
        document["components"]["securitySchemes"] = _SECURITY
        document["components"]["schemas"].update(_schemas())
        guards = _scopes(routes.values())
        once_only = set(_once_only(routes.values()))
        for path, method, operation in _operations(document):
            if (path, method) in once_only:
                operation.setdefault("parameters", []).append(dict(once.PARAMETER))
            _complete(operation, path, guards.get((path, method)))
        app.openapi_schema = document
    return app.openapi_schema


def _scopes(routes: Iterable[Any]) -> dict[tuple[str, str], str]:
    """The scope that each operation needs."""
    return {
        (route.path_format, method.lower()): dependency.call.scope
        for route in routes
        for method in getattr(route, "methods", ())
        for dependency in route.dependant.dependencies
        if isinstance(dependency.call, Guard)
    }


def _once_only(routes: Iterable[Any]) -> Iterator[tuple[str, str]]:
    """The operations that take an Idempotency-Key."""
    for route in routes:
        if once.takes_once(route):
            yield from ((route.path_format, method.lower()) for method in route.methods)


def _schemas() -> dict[str, Any]:
    """The schemas of all documents. FastAPI's own lack the requests, and nulls in examples."""
    models = [
        getattr(module, name) for module in (request_schemas, schemas) for name in module.__all__
    ]
    _, definitions = models_json_schema(
        [(model, "validation") for model in models], ref_template="#/components/schemas/{model}"
    )
    found: dict[str, Any] = definitions["$defs"]
    return found


def _operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield path, method, operation


def _complete(operation: dict[str, Any], path: str, scope: str | None) -> None:
    """Add what holds for every route: its security and its errors."""
    problem = {"application/json": {"schema": {"$ref": "#/components/schemas/ProblemDocument"}}}
    answers = operation["responses"]
    if scope is None:
        operation["security"] = []
        if path in OPTIONAL_KEY_PATHS:
            operation["security"] = [{}, {"ApiKey": []}, {"Bearer": []}]
        answers["503"] = {"description": _ALWAYS["503"], "content": problem}
        return
    accepted = ["ApiKey", "Bearer", *(["QueryKey"] if path.startswith(sse.PREFIX) else [])]
    operation["security"] = [{name: []} for name in accepted]
    operation["x-required-scope"] = scope
    errors = dict(_ALWAYS)
    named = path.startswith(sse.PREFIX) or operation.get("operationId", "").startswith(_NAME_IDS)
    if "{" in path or named:
        errors["404"] = "Not found"
    if "requestBody" in operation:
        errors["413"] = "The body is too large"
    changes = ("cancel", "create", "delete", "execute", "instantiate", "replace", "restore")
    if operation.get("operationId", "").startswith(changes):
        errors["409"] = "At odds with the current state"
    for status, description in errors.items():
        answers[status] = {"description": description, "content": problem}


def _version() -> str:
    return metadata.version("harmonia")


def _dump(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False)


_PAGE: Final = Environment(autoescape=True, undefined=StrictUndefined).from_string(
    """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Harmonia API</title><style>
body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}
pre{background:#f4f4f4;padding:.7rem;overflow:auto;font-size:13px;white-space:pre-wrap}
summary{cursor:pointer;padding:.2rem 0}code{font-size:14px}b.m{display:inline-block;width:4.5rem}
</style></head><body><h1>Harmonia API</h1><pre>{{ document.info.description }}</pre>
<h2>Operations</h2>
{% for path, method, operation in operations %}<details><summary><b class="m">{{ method|upper }}</b>
<code>{{ path }}</code> {{ operation.summary }}</summary><p>{{ operation.description }}</p>
<p>Scope: {{ operation.get("x-required-scope", "none") }}.
Answers: {{ operation.responses|join(", ") }}.</p>
{% if operation.get('parameters') %}<pre>{{ dump(operation.parameters) }}</pre>{% endif %}
{% if operation.get('requestBody') %}<pre>{{ dump(operation.requestBody) }}</pre>{% endif %}
</details>
{% endfor %}<h2>Schemas</h2>
{% for name, schema in document.components.schemas|dictsort %}<details id="{{ name }}">
<summary><code>{{ name }}</code></summary><pre>{{ dump(schema) }}</pre></details>
{% endfor %}</body></html>
"""
)
