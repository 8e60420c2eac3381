"""Bodies: read within bounds, parsed strictly, each refusal with its place (S17)."""

from __future__ import annotations

import asyncio
import difflib
import gzip
import json
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from starlette.requests import Request
from starlette.types import Message

from harmonia_actors.core.errors import InvalidRequest, ValidationFailed
from harmonia_actors.settings import Settings
from harmonia_serve import queries
from harmonia_serve.app import build_app
from harmonia_serve.bodies import parse_object, read_object
from harmonia_serve.request_schemas import TaskDefinition, WorkflowRequest
from tests.unit.serve.conftest import API, Serve, connect, eventually
from tests.unit.serve.gateway import MemoryGateway

PATH = f"{API}/workflows"
JSON = {"Content-Type": "application/json"}
SMALL = Settings(body_bytes_max=2_000, body_read_timeout_s=0.2)


@pytest.mark.parametrize(
    ("raw", "told"),
    [
        (b"", "no body"),
        (b"   ", "line 1, column 4"),
        (b"{", "line 1, column 2"),
        (b'{"name": "x",}', "line 1, column"),
        (b"{'name': 1}", "line 1, column 2"),
        (b'{"a": 1} {"b": 2}', "line 1, column 10"),
        (b"[1]", "not an array"),
        (b'"x"', "not a string"),
        (b"null", "not null"),
        (b"true", "not true or false"),
        (b"17", "not a number"),
        (b'{"name": "\xff"}', "byte 0xff at offset 10"),
        (b'\xef\xbb\xbf{"name": 1}', "BOM"),
        (b'{"name": "x", "name": "y"}', "'name' comes twice"),
        (b'{"tasks": {"a": {"x": 1, "x": 2}}}', "'x' comes twice"),
        (b'{"n": NaN}', "NaN"),
        (b'{"n": Infinity}', "Infinity"),
        (b'{"n": -Infinity}', "-Infinity"),
        (b'{"n": 1e999}', "1e999"),
        (b'{"s": "\\ud800"}', "\\ud800"),
        (b'{"\\udfff": 1}', "\\udfff"),
        (b'{"s": "\\ud800\\ud800"}', "\\ud800"),
        (b'{"n": ' + b"9" * 5_000 + b"}", "more than the 4300 digits"),
        (b'{"x": ' + b"[" * 64 + b"]" * 64 + b"}", "64 levels"),
        (b'{"x": ' + b'{"y": ' * 64 + b"1" + b"}" * 65, "64 levels"),
        (b"[" * 100_000, "64 levels"),
        (b'{"a": ' * 100_000, "64 levels"),
        (b'{"s": "\x00"}', "control character"),
    ],
)
async def test_what_is_not_strict_json_is_a_400_that_says_where(
    client: httpx.AsyncClient, gateway: MemoryGateway, raw: bytes, told: str
) -> None:
    answer = await client.post(PATH, content=raw, headers=JSON)
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert error["code"] == "invalid_request"
    assert told in error["message"]
    assert gateway.calls == []


@pytest.mark.parametrize(
    "raw",
    [
        b'{"s": "\\ud83d\\ude00", "t": "\\u0000"}',
        b'{"n": ' + b"9" * 4_300 + b', "f": 1e308}',
        b'{"x": ' + b"[" * 63 + b"]" * 63 + b"}",
        b'{"s": "' + b"[{" * 500 + b'"}',
        b'{"wide": [' + b"[]," * 1_000 + b"[]]}",
    ],
)
def test_what_is_strict_json_is_parsed_whole(raw: bytes) -> None:
    assert parse_object(raw, Settings()) == json.loads(raw)


def test_a_million_keys_are_only_many() -> None:
    raw = b"{" + b",".join(b'"%d":0' % number for number in range(1_000_000)) + b"}"
    assert len(parse_object(raw, Settings())) == 1_000_000


def test_nesting_beyond_the_interpreter_is_told_as_depth() -> None:
    with pytest.raises(InvalidRequest, match="nested deeper"):
        parse_object(b'{"a":' * 5_000_000, Settings())


@pytest.mark.parametrize(
    "sent",
    [
        "",
        "text/plain",
        "application/x-www-form-urlencoded",
        "application/jsonx",
        "application/json; charset=utf-16",
    ],
)
async def test_another_content_type_is_refused(client: httpx.AsyncClient, sent: str) -> None:
    answer = await client.post(PATH, content=b"{}", headers={"Content-Type": sent})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_request")
    assert "application/json" in answer.text or "utf-8" in answer.text


@pytest.mark.parametrize("sent", ["application/json", "Application/JSON; charset=UTF-8"])
async def test_json_may_name_its_charset(client: httpx.AsyncClient, sent: str) -> None:
    raw = b'{"name": "x", "tasks": {"a": {}}}'
    answer = await client.post(PATH, content=raw, headers={"Content-Type": sent})
    assert answer.status_code == 201


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "identity, gzip"])
async def test_an_encoded_body_is_refused_unread(client: httpx.AsyncClient, encoding: str) -> None:
    bomb = gzip.compress(b" " * 50_000_000)
    headers = {**JSON, "Content-Encoding": encoding}
    answer = await client.post(PATH, content=bomb, headers=headers)
    assert answer.status_code == 400
    assert "uncompressed" in answer.text


async def test_a_body_over_the_cap_is_a_413_with_or_without_its_length(
    gateway: MemoryGateway, serve: Serve, key: str
) -> None:
    sent = 0

    async def several(count: int) -> AsyncIterator[bytes]:
        nonlocal sent
        for _ in range(count):
            sent += 1_000
            yield b" " * 1_000
            await asyncio.sleep(0)

    async with serve(build_app(gateway, SMALL)) as served, httpx.AsyncClient() as client:
        headers = {**JSON, "X-API-Key": key}
        for content in (b" " * 2_001, b" " * 9_000, several(3), several(9)):
            answer = await client.post(served.http + PATH, content=content, headers=headers)
            assert answer.status_code == 413
            assert answer.json()["error"]["code"] == "invalid_request"
            assert answer.json()["error"]["details"] == {"limit_bytes": 2_000}
            assert answer.headers["connection"] == "close"
        # One that never ends is cut off; whether its sender still sees the answer is its affair.
        with suppress(httpx.TransportError):
            await client.post(served.http + PATH, content=several(10**9), headers=headers)
    assert sent < 100_000_000


async def test_a_body_may_pass_the_cap_with_its_last_piece() -> None:
    pieces = [
        {"type": "http.request", "body": b" " * 1_500, "more_body": True},
        {"type": "http.request", "body": b" " * 1_500, "more_body": False},
    ]

    async def receive() -> Message:
        return pieces.pop(0)

    scope = {"type": "http", "headers": [(b"content-type", b"application/json")]}
    with pytest.raises(InvalidRequest) as refused:
        await read_object(Request(scope, receive), SMALL, WorkflowRequest)
    assert refused.value.too_large
    assert pieces == []


def half_a_request(key: str) -> bytes:
    """A request whose body has one of its 99 bytes."""
    lines = (
        f"POST {PATH} HTTP/1.1",
        "Host: harmonia.test",
        f"X-API-Key: {key}",
        "Content-Type: application/json",
        "Content-Length: 99",
        "",
        "{",
    )
    return "\r\n".join(lines).encode()


async def test_a_body_that_drips_is_given_up(
    gateway: MemoryGateway, serve: Serve, key: str
) -> None:
    async with serve(build_app(gateway, SMALL)) as served:
        host, port = served.host.split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(half_a_request(key))
        async with asyncio.timeout(10):
            answer = await reader.readuntil(b"}}")
        assert answer.startswith(b"HTTP/1.1 400 ")
        assert b"did not arrive within 0.2 s" in answer
        writer.close()


async def test_a_client_that_leaves_in_its_body_is_no_error(
    gateway: MemoryGateway, serve: Serve, key: str, caplog: pytest.LogCaptureFixture
) -> None:
    app = build_app(gateway, Settings())
    async with serve(app) as served:
        host, port = served.host.split(":")
        _, writer = await asyncio.open_connection(host, int(port))
        writer.write(half_a_request(key))
        await writer.drain()
        writer.close()
        seen = app.state.context.observation
        await eventually(lambda: f'route="{PATH}",status="499"' in seen.render({}).decode())
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


@pytest.mark.parametrize(
    ("body", "status", "field", "told"),
    [
        ({"tasks": {}}, 422, "name", "is required"),
        ({"name": "x"}, 422, "tasks", "is required"),
        ({"name": 7, "tasks": {}}, 400, "name", "must be a string, not a number"),
        ({"name": None, "tasks": {}}, 400, "name", "must be a string, not null"),
        ({"name": "x", "tasks": []}, 400, "tasks", "must be an object, not an array"),
        ({"name": "x", "tasks": {"a": 1}}, 400, "tasks.a", "must be an object"),
        (
            {"name": "x", "tasks": {"a.b": {"depends_on": "c"}}},
            400,
            "tasks.a.b.depends_on",
            "must be an array, not a string",
        ),
        (
            {"name": "x", "tasks": {"a": {"depends_on": ["c", 1]}}},
            400,
            "tasks.a.depends_on[1]",
            "must be a string",
        ),
        ({"name": "x", "tasks": {}, "tsks": 1}, 422, "tsks", "did you mean 'tasks'?"),
        ({"name": "x", "tasks": {}, "status": 1}, 422, "status", "no such field"),
        ({"name": "x", "tasks": {}}, 422, "tasks", "at least one task"),
    ],
)
async def test_wrong_types_are_400_and_wrong_fields_422(
    client: httpx.AsyncClient, body: dict[str, Any], status: int, field: str, told: str
) -> None:
    answer = await client.post(PATH, json=body)
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert error["code"] == {400: "invalid_request", 422: "validation_error"}[status]
    assert error["details"]["errors"][0]["field"] == field
    assert told in error["details"]["errors"][0]["message"]


MANY = 200_000
NUMBERED = {f"key{number}": 1 for number in range(MANY)}


@pytest.mark.parametrize(
    ("path", "body", "status", "first"),
    [
        (
            "workflows",
            {"name": "x", "tasks": {"a": {"depends_on": [7] * MANY}}},
            400,
            "tasks.a.depends_on[0]",
        ),
        ("workflows", {"name": "x", "tasks": NUMBERED}, 400, "tasks.key0"),
        (
            "workflows",
            {"name": "x", "tasks": {f"t{n}": {"name": 1, "input": 1} for n in range(MANY // 4)}},
            400,
            "tasks.t0.name",
        ),
        (
            "templates",
            {"name": "x", "definition": {"name": "x", "tasks": NUMBERED}},
            400,
            "definition.tasks.key0",
        ),
        ("keys", {"name": "x", "scopes": ["root"] * MANY}, 422, "scopes[0]"),
        ("keys", {"name": "x", "scopes": [1] * MANY}, 400, "scopes[0]"),
    ],
)
async def test_of_many_wrong_values_only_the_first_are_looked_at(
    app: FastAPI,
    gateway: MemoryGateway,
    path: str,
    body: dict[str, Any],
    status: int,
    first: str,
) -> None:
    async with connect(app, gateway.add_key("admin")) as client:
        answer = await client.post(f"{API}/{path}", json=body)
    assert answer.status_code == status, answer.text[:500]
    details = answer.json()["error"]["details"]
    assert details["errors"][0]["field"] == first
    assert details["total"] <= 100 * len(TaskDefinition.model_fields)
    assert gateway.calls == []


@pytest.mark.parametrize(
    ("path", "body", "where"),
    [
        ("workflows", {"name": "x", "tasks": {"a": {}}, **NUMBERED}, ""),
        ("templates", {"name": "x", "definition": {"tasks": {}, **NUMBERED}}, "definition."),
        (
            "executions",
            {"workflow_id": "wf-1", "execution_options": {"retry_policy": NUMBERED}},
            "execution_options.retry_policy.",
        ),
    ],
)
async def test_many_unknown_fields_are_counted_and_the_first_are_named(
    client: httpx.AsyncClient,
    monkeypatch: pytest.MonkeyPatch,
    path: str,
    body: dict[str, Any],
    where: str,
) -> None:
    guesses = 0
    find = difflib.get_close_matches

    def counted(*arguments: Any, **options: Any) -> list[str]:
        nonlocal guesses
        guesses += 1
        return find(*arguments, **options)

    monkeypatch.setattr(queries, "get_close_matches", counted)
    answer = await client.post(f"{API}/{path}", json=body)
    assert answer.status_code == 422
    details = answer.json()["error"]["details"]
    assert details["total"] == MANY
    assert len(details["errors"]) == ValidationFailed.SHOWN_MAX
    assert details["errors"][0]["field"] == f"{where}key0"
    assert 0 < guesses <= ValidationFailed.SHOWN_MAX


async def test_a_number_beyond_all_floats_is_told_as_such(
    client: httpx.AsyncClient, workflow_id: str
) -> None:
    options = {"timeout": int("9" * 400)}
    body = {"workflow_id": workflow_id, "execution_options": options}
    answer = await client.post(f"{API}/executions", json=body)
    assert answer.status_code == 400
    assert "must be a number that fits a float" in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("options", "status", "field", "told"),
    [
        ({"asnyc": True}, 422, "execution_options.asnyc", "did you mean 'async'?"),
        ({"async": "no"}, 400, "execution_options.async", "true or false, not a string"),
        ({"timeout": "1h"}, 400, "execution_options.timeout", "a number, not a string"),
        ({"timeout": True}, 400, "execution_options.timeout", "a number, not true or false"),
        (
            {"retry_policy": {"max_retries": 1.5}},
            400,
            "execution_options.retry_policy.max_retries",
            "a whole number, not 1.5",
        ),
        (
            {"retry_policy": {"max_retry": 1}},
            422,
            "execution_options.retry_policy.max_retry",
            "did you mean 'max_retries'?",
        ),
        (
            {"retry_policy": {"max_retries": -1}},
            422,
            "execution_options.retry_policy.max_retries",
            "must be greater than or equal to 0",
        ),
    ],
)
async def test_execution_options_are_checked_with_their_paths(
    client: httpx.AsyncClient,
    workflow_id: str,
    options: dict[str, Any],
    status: int,
    field: str,
    told: str,
) -> None:
    body = {"workflow_id": workflow_id, "execution_options": options}
    answer = await client.post(f"{API}/executions", json=body)
    assert answer.status_code == status, answer.text
    found = answer.json()["error"]["details"]["errors"][0]
    assert found["field"] == field
    assert told in found["message"]


async def test_a_cancel_takes_no_body(client: httpx.AsyncClient, execution_id: str) -> None:
    path = f"{API}/executions/{execution_id}/cancel"
    assert (await client.post(path, json={"force": True})).status_code == 400
    assert (await client.post(path, content=b"[" * 99)).status_code == 400
    long = await client.post(path, content=b" " * 5_000)
    assert (long.status_code, long.json()["error"]["details"]) == (413, {"limit_bytes": 4_096})
    assert (await client.post(path, content=b"{}")).status_code == 200


async def test_a_large_body_reaches_the_gateway_as_it_was_sent(
    client: httpx.AsyncClient, gateway: MemoryGateway
) -> None:
    tasks = {
        f"t{number}": {"component": "c", "input": {"x": [1.5, None]}} for number in range(9_000)
    }
    answer = await client.post(PATH, json={"name": "large", "tasks": tasks})
    assert answer.status_code == 201
    assert gateway.workflows[answer.json()["workflow_id"]]["tasks"] == tasks
