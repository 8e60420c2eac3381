"""The same routes under every way of mounting: Ray Serve's prefixes, a proxy's root, none.

Ray Serve sets the ASGI `root_path` to the route prefix, behind a root of its own if it has one, and
leaves both in `path` (its proxy and its replicas alike). The scopes here are made in that form;
the pair of a proxy and a replica is played by an application that rewrites the scope so.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from fastapi import FastAPI
from httpx_sse import aconnect_sse
from starlette.types import Receive, Scope, Send

from harmonia_actors.settings import Settings
from harmonia_serve import sse, websocket
from harmonia_serve.app import build_event_stream_app, build_rest_app, build_websocket_app
from harmonia_serve.boundary import surface_path
from tests.unit.serve.conftest import Serve, messages_of
from tests.unit.serve.gateway import MemoryGateway
from tests.unit.serve.test_streams import sse_client, sse_url, web_socket

WS = websocket.PREFIX


@pytest.mark.parametrize(
    ("path", "root_path", "prefix", "expected"),
    [
        # Not mounted.
        ("/ws/harmonia/executions/x", "", WS, "/ws/harmonia/executions/x"),
        ("/api/harmonia/workflows", "", "", "/api/harmonia/workflows"),
        # Ray Serve: the prefix is in both.
        ("/ws/harmonia/executions/x", "/ws/harmonia", WS, "/ws/harmonia/executions/x"),
        ("/ws/harmonia", "/ws/harmonia", WS, "/ws/harmonia"),
        ("/health", "/", "", "/health"),
        # Ray Serve with a root path of its own.
        ("/r/ws/harmonia/executions/x", "/r/ws/harmonia", WS, "/ws/harmonia/executions/x"),
        ("/r/health", "/r", "", "/health"),
        # A server that takes the mount point out of the path.
        ("/executions/x", "/ws/harmonia", WS, "/ws/harmonia/executions/x"),
        # What only looks like the mount point is not taken out.
        (
            "/ws/harmoniax/executions/x",
            "/ws/harmonia",
            WS,
            "/ws/harmonia/ws/harmoniax/executions/x",
        ),
        ("/rx/health", "/r", "", "/rx/health"),
        ("/ws/harmonia/ws/harmonia/executions/x", "/ws/harmonia", WS, f"{WS}{WS}/executions/x"),
    ],
)
def test_the_full_path_is_found_under_any_root(
    path: str, root_path: str, prefix: str, expected: str
) -> None:
    assert surface_path(path, root_path, prefix) == expected


class ServeLike:
    """Ray Serve's proxy in short: picks the application by prefix and sets its root path."""

    def __init__(self, apps: dict[str, FastAPI], root: str = "") -> None:
        self._apps = apps
        self._root = root

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"]
        fitting = [prefix for prefix in self._apps if path.startswith(self._root + prefix)]
        prefix = max(fitting, key=len)
        mounted: dict[str, Any] = {**scope, "root_path": self._root}
        if prefix != "/":
            mounted["root_path"] += prefix
        await self._apps[prefix](mounted, receive, send)


@pytest.mark.parametrize("root", ["", "/behind"])
async def test_all_three_applications_work_behind_prefixes(
    gateway: MemoryGateway, serve: Serve, execution_id: str, key: str, root: str
) -> None:
    settings = Settings()
    front = ServeLike(
        {
            "/": build_rest_app(gateway, settings),
            websocket.PREFIX: build_websocket_app(gateway, settings),
            sse.PREFIX: build_event_stream_app(gateway, settings),
        },
        root,
    )
    await gateway.append(execution_id, "execution_completed", {})
    async with serve(front) as served, sse_client(key) as client:
        rooted = replace(served, host=served.host + root)
        async with web_socket(rooted, execution_id, key) as socket:
            messages, code, _ = await messages_of(socket)
        assert (len(messages), code) == (1, 1000)
        async with aconnect_sse(client, "GET", sse_url(rooted, execution_id)) as source:
            assert [event.id async for event in source.aiter_sse()] == ["1"]
        listed = await client.get(f"{rooted.http}/api/harmonia/executions")
        assert listed.json()["total"] == 1
        assert (await client.get(f"{rooted.http}/health", headers={"X-API-Key": ""})).is_success
        for unknown in ("/nothing", "/ws/harmonia/nothing", "/events/harmonia/nothing"):
            answer = await client.get(rooted.http + unknown)
            assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")
        for surface in ("/ws/harmonia", "/events/harmonia", ""):
            async with web_socket(rooted, "x", key) as socket:
                assert (await messages_of(socket))[1] == 4404, surface


@pytest.mark.parametrize("build", [build_rest_app, build_websocket_app, build_event_stream_app])
async def test_each_application_refuses_what_is_not_its_own(
    gateway: MemoryGateway, serve: Serve, execution_id: str, key: str, build: Any
) -> None:
    app = build(gateway, Settings())
    own = {route.path.split("/")[1] for route in app.routes}
    async with serve(app) as served, sse_client(key) as client:
        if "ws" not in own:
            async with web_socket(served, execution_id, key) as socket:
                assert (await messages_of(socket))[1] == 4404
        for name, path in (("api", "/api/harmonia/executions"), ("events", "/events/harmonia/x")):
            if name not in own:
                assert (await client.get(served.http + path)).status_code == 404
                bare = await client.get(served.http + path, headers={"X-API-Key": ""})
                assert bare.status_code == 401
