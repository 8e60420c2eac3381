"""The Idempotency-Key header on every route that makes something, and on the others."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from harmonia_actors.settings import Settings
from harmonia_serve import schemas
from harmonia_serve.app import build_app
from harmonia_serve.once import KEY_LENGTH_MAX
from harmonia_serve.openapi import described
from tests.unit.serve.conftest import API, Serve, connect
from tests.unit.serve.gateway import MemoryGateway

HEADER = "Idempotency-Key"
WORKFLOW: dict[str, Any] = {
    "name": "small",
    "tasks": {"a": {"component": "ergon", "action": "execute_command", "input": {}}},
}
MAKING = {
    "/workflows", "/executions", "/templates", "/templates/{template_id}/instantiate",
    "/state/checkpoints", "/state/restore",
}  # fmt: skip


@pytest.fixture
async def bodies(gateway: MemoryGateway, execution_id: str) -> dict[str, dict[str, Any]]:
    """A good body for each path that makes something."""
    workflow_id = gateway.executions[execution_id]["workflow_id"]
    template = await gateway.create_template({"name": "t", "workflow_id": workflow_id})
    checkpoint = await gateway.create_checkpoint(execution_id, name="c", description="")
    gateway.calls.clear()
    return {
        "/workflows": WORKFLOW,
        "/executions": {"workflow_id": workflow_id, "input": {"x": 1}},
        "/templates": {"name": "t", "workflow_id": workflow_id},
        f"/templates/{template['template_id']}/instantiate": {"name": "i"},
        "/state/checkpoints": {"execution_id": execution_id, "name": "c"},
        "/state/restore": {"checkpoint_id": checkpoint["checkpoint_id"]},
    }


def refusal(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """The error of an answer, in the one envelope."""
    assert answer.status_code == status, answer.text
    schemas.ProblemDocument.model_validate(answer.json())
    error: dict[str, Any] = answer.json()["error"]
    assert error["code"] == code
    return error


async def test_sent_again_it_makes_nothing_new(
    client: httpx.AsyncClient, gateway: MemoryGateway, bodies: dict[str, dict[str, Any]]
) -> None:
    for number, (path, body) in enumerate(bodies.items()):
        headers = {HEADER: f"key-{number}"}
        first = await client.post(f"{API}{path}", json=body, headers=headers)
        again = await client.post(f"{API}{path}", json=body, headers=headers)
        assert first.is_success
        assert (again.status_code, again.json()) == (first.status_code, first.json())
        assert again.headers["location"] == first.headers["location"]
        other = await client.post(f"{API}{path}", json=body, headers={HEADER: f"other-{number}"})
        without = await client.post(f"{API}{path}", json=body)
        assert len({a.headers["location"] for a in (first, other, without)}) == 3
    assert len(gateway.calls) == 3 * len(bodies)


async def test_another_body_or_path_is_a_conflict(
    client: httpx.AsyncClient, bodies: dict[str, dict[str, Any]]
) -> None:
    headers = {HEADER: "monthly"}
    first, *others = bodies
    await client.post(f"{API}{first}", json=bodies[first], headers=headers)
    changed = {**bodies[first], "description": "changed"}
    for path, body in ((first, changed), *((path, bodies[path]) for path in others)):
        answer = await client.post(f"{API}{path}", json=body, headers=headers)
        error = refusal(answer, 409, "conflict")
        assert "'monthly'" in error["message"]
        assert error["details"]["idempotency_key"] == "monthly"


async def test_a_key_is_its_callers_own(
    app: FastAPI, client: httpx.AsyncClient, gateway: MemoryGateway
) -> None:
    headers = {HEADER: "monthly"}
    mine = await client.post(f"{API}/workflows", json=WORKFLOW, headers=headers)
    async with connect(app, gateway.add_key("write")) as other:
        theirs = await other.post(
            f"{API}/workflows", json={**WORKFLOW, "name": "other"}, headers=headers
        )
    assert theirs.status_code == 201
    assert theirs.json()["workflow_id"] != mine.json()["workflow_id"]


@pytest.mark.parametrize("sent", ["x", "!~", '"quoted"', "a,b", "x" * KEY_LENGTH_MAX])
async def test_visible_ascii_is_a_key(client: httpx.AsyncClient, sent: str) -> None:
    answer = await client.post(f"{API}/workflows", json=WORKFLOW, headers={HEADER: sent})
    assert answer.status_code == 201, answer.text


@pytest.mark.parametrize(
    "sent", ["", "a b", "a\tb", "schlüssel", "\x7f", "x" * (KEY_LENGTH_MAX + 1), "x" * 10_000]
)
async def test_anything_else_is_refused_and_named(
    client: httpx.AsyncClient, gateway: MemoryGateway, bodies: dict[str, Any], sent: str
) -> None:
    headers = [(HEADER.encode(), sent.encode("latin-1"))]
    for path, body in bodies.items():
        answer = await client.post(f"{API}{path}", json=body, headers=headers)
        error = refusal(answer, 400, "invalid_request")
        assert HEADER in error["message"]
        assert "from 1 to 255 visible ASCII characters" in error["message"]
        assert error["details"] == {"header": HEADER, "value": sent[:100]}
        assert len(error["message"]) < 300
    assert gateway.calls == []


async def test_two_headers_are_refused(serve: Serve, gateway: MemoryGateway, key: str) -> None:
    """Over a real connection, where a client may write what it likes; also if both are the same."""
    async with (
        serve(build_app(gateway, Settings())) as served,
        httpx.AsyncClient(base_url=served.http) as client,
    ):
        for second in ("one", "two"):
            headers = [("X-API-Key", key), (HEADER, "one"), (HEADER.lower(), second)]
            answer = await client.post(f"{API}/workflows", json=WORKFLOW, headers=headers)
            error = refusal(answer, 400, "invalid_request")
            assert error["message"] == "Idempotency-Key is given more than once; send one"
    assert gateway.calls == []


async def test_whoever_may_not_make_it_learns_nothing_of_keys(
    app: FastAPI, gateway: MemoryGateway
) -> None:
    async with connect(app, gateway.add_key("read")) as reader:
        answer = await reader.post(f"{API}/workflows", json=WORKFLOW, headers={HEADER: "a b"})
    refusal(answer, 403, "permission_denied")


async def test_a_secret_cannot_be_shown_again(app: FastAPI, gateway: MemoryGateway) -> None:
    async with connect(app, gateway.add_key("admin")) as admin:
        body = {"name": "k", "scopes": ["read"]}
        answer = await admin.post(f"{API}/keys", json=body, headers={HEADER: "x"})
        error = refusal(answer, 400, "invalid_request")
        assert HEADER in error["message"]
        assert "shown once" in error["message"]
        assert (await admin.post(f"{API}/keys", json=body)).status_code == 201
    assert gateway.calls == ["create_key"]


async def test_where_nothing_is_made_the_header_says_nothing(
    client: httpx.AsyncClient, execution_id: str
) -> None:
    path = f"{API}/executions/{execution_id}"
    for sent in ("x", "a b"):
        answer = await client.post(f"{path}/cancel", headers={HEADER: sent})
        assert answer.status_code == 200
        assert (await client.get(path, headers={HEADER: sent})).status_code == 200


async def test_a_request_that_was_refused_may_be_sent_right(client: httpx.AsyncClient) -> None:
    headers = {HEADER: "monthly"}
    wrong = await client.post(f"{API}/workflows", json={**WORKFLOW, "tasks": {}}, headers=headers)
    refusal(wrong, 422, "validation_error")
    right = await client.post(f"{API}/workflows", json=WORKFLOW, headers=headers)
    assert right.status_code == 201


async def test_a_failure_that_was_waited_for_is_told_again(
    client: httpx.AsyncClient, gateway: MemoryGateway, workflow_id: str
) -> None:
    options = {"async": False}
    body = {"workflow_id": workflow_id, "input": {"fail": True}, "execution_options": options}
    told = []
    for _ in range(2):
        answer = await client.post(f"{API}/executions", json=body, headers={HEADER: "monthly"})
        told.append(refusal(answer, 500, "component_error"))
    assert told[0] == told[1]
    assert len(gateway.executions) == 1


def test_the_openapi_document_has_the_header_where_it_counts(app: FastAPI) -> None:
    document = json.loads(described(app))
    found = {}
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            for parameter in operation.get("parameters", ()):
                if parameter["in"] == "header" and parameter["name"] == HEADER:
                    found[path.removeprefix(API)] = parameter
                    assert method == "post"
                    assert "409" in operation["responses"]
    assert set(found) == MAKING
    for parameter in found.values():
        assert parameter["required"] is False
        assert parameter["schema"]["maxLength"] == KEY_LENGTH_MAX
        assert parameter["description"]
    posts = {path for path, methods in document["paths"].items() if "post" in methods}
    others = {f"{API}/keys", f"{API}/executions/{{execution_id}}/cancel"}
    assert posts == {f"{API}{path}" for path in MAKING} | others
    assert HEADER in document["info"]["description"]
