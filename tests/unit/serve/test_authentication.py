"""Nothing is served without a key: every route, every surface, every kind of wrong key (S2-S4)."""

from __future__ import annotations

import asyncio
import pkgutil
import re
from collections.abc import Sequence
from typing import Any
from urllib.parse import unquote

import httpx
import pytest
from fastapi import APIRouter, FastAPI
from starlette.routing import WebSocketRoute

from harmonia_actors.settings import Settings
from harmonia_serve import app as apps
from harmonia_serve import routes, sse, websocket
from harmonia_serve.app import (
    build_app,
    build_event_stream_app,
    build_rest_app,
    build_websocket_app,
    guarded_routes,
)
from harmonia_serve.auth import OPEN_PATHS
from tests.unit.serve.conftest import API, connect
from tests.unit.serve.gateway import MemoryGateway

OTHER_SCOPES = {"read": "execute", "execute": "read", "write": "execute", "admin": "write"}
_UUID = "123e4567-e89b-12d3-a456-426614174000"
_VALUES = {
    "workflow_id": f"wf-{_UUID}",
    "execution_id": f"exec-{_UUID}",
    "template_id": f"tmpl-{_UUID}",
    "checkpoint_id": f"cp-{_UUID}",
}

Row = tuple[str, str, str | None]
Headers = Sequence[tuple[str, str]]


def _table() -> list[Row]:
    """Every route of every application, as method (WS for WebSocket), path and scope."""
    gateway, settings = MemoryGateway(), Settings()
    rows: dict[Row, None] = {}
    for build in (build_rest_app, build_websocket_app, build_event_stream_app, build_app):
        for route, scope in guarded_routes(build(gateway, settings)):
            path = re.sub(r"{(\w+)(:\w+)?}", lambda found: _VALUES.get(found[1], "x"), route.path)
            methods = ["WS"] if isinstance(route, WebSocketRoute) else sorted(route.methods)
            if "GET" in methods:
                methods.append("HEAD")
            rows.update(dict.fromkeys((method, path, scope) for method in methods))
    return list(rows)


TABLE = _table()
CLOSED = [row for row in TABLE if row[1] not in OPEN_PATHS]

#: Headers of a wrong credential; `{revoked}` is a key that was good a moment ago.
WRONG: dict[str, list[tuple[str, str]]] = {
    "none": [],
    "garbage": [("X-API-Key", "garbage")],
    "bearer nothing": [("Authorization", "Bearer nothing")],
    "bearer empty": [("Authorization", "Bearer ")],
    "bearer bare": [("Authorization", "Bearer")],
    "another scheme": [("Authorization", "Basic {good}")],
    "empty key": [("X-API-Key", "")],
    "spaces": [("X-API-Key", "   ")],
    "long key": [("X-API-Key", "k" * 5_000)],
    "revoked": [("X-API-Key", "{revoked}")],
    "revoked bearer": [("Authorization", "Bearer {revoked}")],
    "good and other": [("X-API-Key", "{good}"), ("Authorization", "Bearer nothing")],
    "good and empty": [("X-API-Key", "{good}"), ("Authorization", "Bearer ")],
    "two keys": [("X-API-Key", "{good}"), ("X-API-Key", "{good}")],
    "two bearers": [("Authorization", "Bearer {good}"), ("Authorization", "Bearer {good}")],
}


def test_the_table_has_all_three_surfaces() -> None:
    methods = {method for method, _, _ in TABLE}
    assert methods == {"GET", "HEAD", "POST", "PUT", "DELETE", "WS"}
    prefixes = {path.split("/")[1] for _, path, _ in TABLE}
    assert {"api", "ws", "events", "metrics", "openapi.json", "docs"} <= prefixes
    assert len(TABLE) > 40


def test_scopes_follow_the_rule() -> None:
    for method, path, scope in CLOSED:
        if "/keys" in path:
            expected = "admin"
        elif method in ("GET", "HEAD", "WS"):
            expected = "read"
        elif "/workflows" in path or "/templates" in path:
            expected = "write"
        else:
            expected = "execute"
        assert scope == (None if path == "/x" else expected), (method, path)


def test_a_route_without_a_scope_cannot_be_built(
    gateway: MemoryGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    forgotten = APIRouter()

    @forgotten.get("/api/harmonia/forgotten")
    async def endpoint() -> None:
        """Somebody was in a hurry."""

    monkeypatch.setattr(apps, "_REST", (*apps._REST, forgotten))
    with pytest.raises(RuntimeError, match="/api/harmonia/forgotten names no scope"):
        build_rest_app(gateway, Settings())


def _wrong(gateway: MemoryGateway, kind: str) -> list[tuple[str, str]]:
    revoked, good = gateway.add_key("read"), gateway.add_key("read", "admin")
    gateway.revoke(revoked)
    return [(name, value.format(revoked=revoked, good=good)) for name, value in WRONG[kind]]


@pytest.mark.parametrize("kind", WRONG)
async def test_every_route_refuses_a_wrong_key(
    app: FastAPI, gateway: MemoryGateway, kind: str
) -> None:
    headers = _wrong(gateway, kind)
    async with connect(app) as client:
        for method, path, _ in CLOSED:
            if method == "WS":
                continue
            answer = await client.request(method, path, headers=headers)
            assert answer.status_code == 401, (method, path)
            assert answer.headers["www-authenticate"] == 'Bearer realm="harmonia"'
            if method == "HEAD":
                assert answer.content == b""
                continue
            assert answer.json()["error"]["code"] == "authentication_failed"
            assert not any(value in answer.text for _, value in headers if value.strip())
    assert gateway.calls == []


@pytest.mark.parametrize("kind", WRONG)
async def test_every_websocket_refuses_a_wrong_key(
    app: FastAPI, gateway: MemoryGateway, kind: str
) -> None:
    headers = _wrong(gateway, kind)
    for method, path, _ in CLOSED:
        if method == "WS":
            assert await _closes_with(app, path, headers) == 4401
    assert gateway.calls == []


async def test_every_route_refuses_a_key_of_another_scope(
    app: FastAPI, gateway: MemoryGateway
) -> None:
    for method, path, scope in CLOSED:
        if scope is None:
            continue
        key = gateway.add_key(OTHER_SCOPES[scope])
        if method == "WS":
            assert await _closes_with(app, path, [("X-API-Key", key)]) == 4403
            continue
        async with connect(app, key) as client:
            answer = await client.request(method, path)
            assert answer.status_code == 403, (method, path)
            if method != "HEAD":
                error = answer.json()["error"]
                assert error["code"] == "permission_denied"
                assert error["details"]["required_scope"] == scope
    assert gateway.calls == []


async def test_admin_implies_every_scope(app: FastAPI, gateway: MemoryGateway) -> None:
    async with connect(app, gateway.add_key("admin")) as client:
        for method, path, _ in CLOSED:
            if method != "WS":
                answer = await client.request(method, path)
                assert answer.status_code not in (401, 403), (method, path)


async def _closes_with(app: FastAPI, target: str, headers: Headers = ()) -> int:
    """The code with which a WebSocket is closed that was accepted and sent nothing."""
    sent: list[Any] = []

    waiting = [{"type": "websocket.connect"}]

    async def receive() -> dict[str, Any]:
        if not waiting:
            await asyncio.Event().wait()
        return waiting.pop()

    async def send(message: Any) -> None:
        sent.append(message)

    path, _, query = target.partition("?")
    await app(_scope("websocket", path, headers, query), receive, send)
    assert [message["type"] for message in sent] == ["websocket.accept", "websocket.close"]
    assert len(sent[1]["reason"].encode()) <= 123
    return int(sent[1]["code"])


def _scope(kind: str, raw_path: str, headers: Headers, query: str = "") -> dict[str, Any]:
    """A scope whose path no client library has put in order."""
    named = [(name.lower().encode(), value.encode()) for name, value in headers]
    return {
        "type": kind,
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": unquote(raw_path),
        "raw_path": raw_path.encode(),
        "root_path": "",
        "query_string": query.encode(),
        "headers": [(b"host", b"testserver"), *named],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80),
    }


VARIANTS = [
    "/health/",
    "//health",
    "/Health",
    "/HEALTH",
    "/%68ealth",
    "/health%2f",
    "/./health",
    "/%2e/health",
    "/x/../health",
    "/health;x",
    "/health%00",
    "/healthz",
    "/health.json",
    "/api/harmonia//health",
    "/api/harmonia/%68ealth",
    "/api/harmonia/ready/",
    "/api/harmonia/workflows/",
    "/api//harmonia/workflows",
    "/API/harmonia/workflows",
    "/api/harmonia/workflows/../workflows",
    "/api/harmonia/%77orkflows",
    "/api/harmonia/workflows%2f",
    "/nothing",
    "/",
    "",
]


@pytest.mark.parametrize("variant", VARIANTS)
async def test_a_variant_of_a_path_reaches_nothing_without_a_key(
    app: FastAPI, gateway: MemoryGateway, variant: str
) -> None:
    answer = await _raw_get(app, variant)
    assert answer == 401
    assert gateway.calls == []


@pytest.mark.parametrize("variant", [v for v in VARIANTS if "%6" not in v and "%7" not in v])
async def test_a_variant_of_a_path_is_no_path_with_a_key_either(
    app: FastAPI, gateway: MemoryGateway, key: str, variant: str
) -> None:
    assert await _raw_get(app, variant, key) == 404
    assert gateway.calls == []


async def _raw_get(app: FastAPI, raw_path: str, key: str | None = None) -> int:
    status = 0

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        nonlocal status
        status = message.get("status", status)

    headers = [("X-API-Key", key)] if key else []
    await app(_scope("http", raw_path, headers), receive, send)
    return status


async def test_the_open_paths_are_open_and_say_little(app: FastAPI, gateway: MemoryGateway) -> None:
    async with connect(app) as client:
        for path in sorted(OPEN_PATHS):
            assert (await client.get(path)).status_code == 200
            assert list((await client.get(path)).json()) == ["status"]
            assert (await client.head(path)).status_code == 200
            assert (await client.get(path, headers={"X-API-Key": "wrong"})).status_code == 200
            assert (await client.post(path)).status_code == 401
    assert gateway.anonymous


async def test_one_key_may_come_in_both_headers(app: FastAPI, key: str) -> None:
    async with connect(app) as client:
        for headers in (
            {"X-API-Key": key},
            {"Authorization": f"Bearer {key}"},
            {"authorization": f"bearer {key}", "x-api-key": key},
        ):
            assert (await client.get(f"{API}/workflows", headers=headers)).status_code == 200


async def test_a_query_key_is_for_streams_only(
    app: FastAPI, gateway: MemoryGateway, execution_id: str, key: str
) -> None:
    await gateway.append(execution_id, "execution_completed", {})
    stream = f"{sse.PREFIX}/executions/{execution_id}"
    async with connect(app) as client:
        refused = await client.get(f"{API}/workflows?api_key={key}")
        assert refused.status_code == 401
        assert "X-API-Key" in refused.text
        assert key not in refused.text
        assert (await client.get(f"{stream}?api_key={key}")).status_code == 200
        assert (await client.get(f"{stream}?api_key={key}&after=0")).status_code == 200
        for query in (f"api_key={key}&api_key={key}", f"api_key={key}&API_KEY=x", "api_key="):
            assert (await client.get(f"{stream}?{query}")).status_code == 401
        other = await client.get(f"{stream}?api_key={key}", headers={"X-API-Key": "other"})
        assert other.status_code == 401


@pytest.mark.parametrize("path", ["/metrics", "/executionsx", "/executions.", "/other"])
async def test_a_query_key_is_for_no_other_path_below_the_streams(
    app: FastAPI, key: str, path: str
) -> None:
    """A page of numbers is no stream: whoever reads it can set a header."""
    async with connect(app) as client:
        assert (await client.get(f"{sse.PREFIX}{path}?api_key={key}")).status_code == 401
        headers = {"X-API-Key": key}
        answer = await client.get(f"{sse.PREFIX}{path}", headers=headers)
        assert answer.status_code == (200 if path == "/metrics" else 404)


async def test_a_query_key_is_taken_on_the_stream_of_everything(app: FastAPI, key: str) -> None:
    async with connect(app) as client:
        stream = f"{sse.PREFIX}/executions?api_key={key}"
        # It is let in, and then refused for something else: as it is, it would never end.
        assert (await client.get(f"{stream}&after=nonsense")).status_code == 422


async def test_query_keys_can_be_switched_off(
    gateway: MemoryGateway, execution_id: str, key: str
) -> None:
    app = build_app(gateway, Settings(query_keys=False))
    path = f"/executions/{execution_id}?api_key={key}"
    async with connect(app) as client:
        assert (await client.get(sse.PREFIX + path)).status_code == 401
    assert await _closes_with(app, websocket.PREFIX + path) == 4401


async def test_failed_authentications_are_counted_by_the_peers_address(
    app: FastAPI, gateway: MemoryGateway, key: str
) -> None:
    gateway.anonymous_max = 2
    async with connect(app) as client:
        spoofed = {"X-Forwarded-For": "10.0.0.1", "Forwarded": "for=10.0.0.2"}
        statuses = [
            (await client.get(f"{API}/workflows", headers=spoofed)).status_code for _ in range(3)
        ]
        assert statuses == [401, 401, 429]
        assert set(gateway.anonymous) == {"127.0.0.1"}
        limited = await client.get("/nothing")
        assert (limited.status_code, limited.headers["retry-after"]) == (429, "9")
        good = await client.get(f"{API}/workflows", headers={"X-API-Key": key})
        assert good.status_code == 200


async def test_requests_over_the_limit_are_429_with_retry_after(
    client: httpx.AsyncClient, app: FastAPI, gateway: MemoryGateway, key: str
) -> None:
    gateway.requests_max = 1
    assert (await client.get(f"{API}/workflows")).status_code == 200
    answer = await client.get(f"{API}/workflows")
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "7")
    assert answer.json()["error"]["code"] == "rate_limit_exceeded"
    path = f"{websocket.PREFIX}/executions/exec-{_UUID}"
    assert await _closes_with(app, path, [("X-API-Key", key)]) == 4429


@pytest.mark.parametrize(
    ("origins", "code"),
    [
        ([], 4404),
        (["http://testserver"], 4404),
        (["https://allowed.example"], 4404),
        (["https://dash.example"], 4404),
        (["http://testserver:8080"], 4403),
        (["https://testserver"], 4404),
        (["https://evil.example"], 4403),
        (["https://allowed.example.evil.example"], 4403),
        (["http://testserver.evil.example"], 4403),
        (["http://evil.example#testserver"], 4403),
        (["null"], 4403),
        ([""], 4403),
        (["http://testserver", "https://evil.example"], 4403),
    ],
)
async def test_a_browser_may_come_from_our_own_or_an_allowed_site_only(
    gateway: MemoryGateway, key: str, origins: list[str], code: int
) -> None:
    app = build_app(
        gateway, Settings(allowed_origins=("https://allowed.example", "https://Dash.Example/"))
    )
    headers = [("X-API-Key", key), *(("Origin", origin) for origin in origins)]
    assert await _closes_with(app, f"{websocket.PREFIX}/executions/exec-{_UUID}", headers) == code


def test_every_module_of_routes_is_served() -> None:
    """A route module that is not in the table would be dead code."""
    modules = {module.name for module in pkgutil.iter_modules(routes.__path__)} - {"context"}
    assert modules == {name for name in vars(apps) if name in modules}
    assert len(apps._REST) == len(modules)


# Health, which says more to whoever has a key ----------------------------------------------------


@pytest.mark.parametrize("path", ["/health", f"{API}/health"])
async def test_health_says_more_only_to_a_good_key(
    app: FastAPI, gateway: MemoryGateway, path: str
) -> None:
    little = {"status": "ok"}
    async with connect(app) as nobody:
        assert (await nobody.get(path)).json() == little
        # A key in the query is no key here, as on all of REST, and an empty header has none.
        key = gateway.add_key("execute")
        assert (await nobody.get(f"{path}?api_key={key}")).json() == little
        assert (await nobody.get(path, headers={"X-API-Key": ""})).json() == little
        for headers in ({"X-API-Key": key}, {"Authorization": f"Bearer {key}"}):
            said = (await nobody.get(path, headers=headers)).json()
            assert said == {**little, "durability": await gateway.durability()}
        gateway.requests_max = 0
        assert (await nobody.get(path, headers={"X-API-Key": key})).json() == little
        gateway.requests_max = None
        gateway.keys_away = True
        assert (await nobody.get(path, headers={"X-API-Key": key})).json() == little


@pytest.mark.parametrize(
    "headers",
    [
        {"X-API-Key": "hk_wrong"},
        {"Authorization": "Bearer hk_wrong"},
        {"Authorization": "Basic aGtfd3Jvbmc="},
    ],
)
async def test_a_wrong_key_gets_no_more_of_health_than_none_and_is_counted(
    app: FastAPI, gateway: MemoryGateway, headers: dict[str, str]
) -> None:
    gateway.anonymous_max = 1
    async with connect(app) as nobody:
        for tries in (1, 2, 3):
            answer = await nobody.get("/health", headers=headers)
            assert (answer.status_code, answer.json()) == (200, {"status": "ok"})
            assert len(gateway.anonymous) == tries
        assert "durability" not in gateway.calls
