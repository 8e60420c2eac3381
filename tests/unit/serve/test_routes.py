"""Every route translates to its gateway call and back, with the statuses of the design."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute

from harmonia_actors.core.errors import (
    ComponentFailed,
    ExecutionFailed,
    HarmoniaError,
    ServiceUnavailable,
)
from harmonia_serve import schemas
from tests.unit.serve.conftest import API, Serve, connect
from tests.unit.serve.gateway import MemoryGateway

WORKFLOW: dict[str, Any] = {
    "name": "small",
    "tasks": {"a": {"component": "ergon", "action": "execute_command", "input": {}}},
}
UNKNOWN = "123e4567-e89b-12d3-a456-426614174000"


def error_of(response: httpx.Response) -> dict[str, Any]:
    """The error of an answer, whose form is checked."""
    schemas.ProblemDocument.model_validate(response.json())
    error: dict[str, Any] = response.json()["error"]
    return error


async def test_a_workflow_is_created_read_replaced_listed_and_deleted(
    client: httpx.AsyncClient,
) -> None:
    created = await client.post(f"{API}/workflows", json=WORKFLOW)
    assert created.status_code == 201
    schemas.Workflow.model_validate(created.json())
    path = created.headers["location"]
    assert path == f"{API}/workflows/{created.json()['workflow_id']}"
    assert (await client.get(path)).json() == created.json()

    replaced = await client.put(path, json={**WORKFLOW, "name": "other"})
    assert (replaced.status_code, replaced.json()["name"]) == (200, "other")

    listed = await client.get(f"{API}/workflows")
    assert listed.json()["total"] == 1
    schemas.WorkflowPage.model_validate(listed.json())

    deleted = await client.delete(path)
    assert deleted.json() == {"success": True, "message": "Workflow deleted successfully"}
    assert error_of(await client.get(path))["code"] == "workflow_not_found"


async def test_what_a_get_shows_may_be_put_back(client: httpx.AsyncClient) -> None:
    created = (await client.post(f"{API}/workflows", json=WORKFLOW)).json()
    answer = await client.put(f"{API}/workflows/{created['workflow_id']}", json=created)
    assert answer.status_code == 200, answer.text


async def test_an_execution_is_accepted_with_202_and_waited_for_with_200(
    client: httpx.AsyncClient, workflow_id: str
) -> None:
    body: dict[str, Any] = {"workflow_id": workflow_id, "input": {"x": 1}}
    accepted = await client.post(f"{API}/executions", json=body)
    assert accepted.status_code == 202
    schemas.Execution.model_validate(accepted.json())
    waited = await client.post(
        f"{API}/executions", json={**body, "execution_options": {"async": False}}
    )
    assert waited.status_code == 200
    assert waited.json()["status"] == "completed"


async def test_an_execution_is_read_listed_and_cancelled(
    client: httpx.AsyncClient, execution_id: str, gateway: MemoryGateway
) -> None:
    path = f"{API}/executions/{execution_id}"
    state = await client.get(path)
    schemas.ExecutionState.model_validate(state.json())
    assert state.json()["outputs"] is True
    assert (await client.get(f"{path}?outputs=none")).json()["outputs"] is False
    tasks = await client.get(f"{path}/tasks")
    schemas.TaskPage.model_validate(tasks.json())

    listed = await client.get(f"{API}/executions", params={"status": "pending"})
    schemas.ExecutionPage.model_validate(listed.json())
    assert listed.json()["total"] == 1
    assert (await client.get(f"{API}/executions?status=failed")).json()["total"] == 0

    cancelled = await client.post(f"{path}/cancel")
    schemas.Cancellation.model_validate(cancelled.json())
    gateway.executions[execution_id]["status"] = "cancelled"
    again = await client.post(f"{path}/cancel", json={})
    assert (again.status_code, error_of(again)["code"]) == (409, "conflict")


async def test_an_execution_is_audited(
    client: httpx.AsyncClient, execution_id: str, gateway: MemoryGateway
) -> None:
    path = f"{API}/executions/{execution_id}/audit"
    schemas.Audit.model_validate((await client.get(path)).json())
    broken = {"rule": "A1", "seq": 3, "task": None, "message": "event 3 stands where 2 belongs"}
    gateway.violations[execution_id] = [broken]
    found = await client.get(path)
    schemas.Audit.model_validate(found.json())
    assert (found.status_code, found.json()["violations"]) == (200, [broken])
    unknown = await client.get(f"{API}/executions/exec-{UNKNOWN}/audit")
    assert (unknown.status_code, error_of(unknown)["code"]) == (404, "execution_not_found")


@pytest.mark.parametrize("name", ["a", "deep.name", "with/slash", "with space", "ü"])
async def test_an_output_is_passed_on_byte_for_byte(
    client: httpx.AsyncClient, execution_id: str, gateway: MemoryGateway, name: str
) -> None:
    gateway.outputs[execution_id, name] = b'{"x": 1.50}'
    quoted = httpx.URL("http://x").copy_with(path="/" + name).raw_path.decode()[1:]
    quoted = quoted.replace("/", "%2F")
    answer = await client.get(f"{API}/executions/{execution_id}/tasks/{quoted}/output")
    assert answer.content == b'{"x": 1.50}'
    assert answer.headers["content-type"] == "application/json"


async def test_files_are_listed_and_downloaded(
    client: httpx.AsyncClient, execution_id: str, gateway: MemoryGateway
) -> None:
    content = bytes(range(256)) * 20
    gateway.files[execution_id, "out/täble.csv"] = content
    gateway.files[execution_id, "empty"] = b""
    path = f"{API}/executions/{execution_id}/files"
    schemas.FileList.model_validate((await client.get(path)).json())
    answer = await client.get(f"{path}/out/täble.csv")
    assert answer.content == content
    assert answer.headers["content-length"] == str(len(content))
    assert answer.headers["content-disposition"] == "attachment; filename*=UTF-8''t%C3%A4ble.csv"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert (await client.get(f"{path}/empty")).content == b""


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("report.pdf", "application/pdf"),
        ("table.csv", "text/csv"),
        ("table.csv.gz", "application/gzip"),
        ("table.csv.bz2", "application/x-bzip2"),
        ("table.csv.Z", "application/octet-stream"),
        ("page.html", "text/html"),
        ("no_ending", "application/octet-stream"),
    ],
)
async def test_a_file_is_what_its_name_says_and_no_more(
    client: httpx.AsyncClient, execution_id: str, gateway: MemoryGateway, name: str, kind: str
) -> None:
    gateway.files[execution_id, name] = b"\xe4"
    answer = await client.get(f"{API}/executions/{execution_id}/files/{name}")
    assert answer.headers["content-type"] == kind
    assert answer.headers["content-disposition"].startswith("attachment")


@pytest.mark.parametrize(
    "path", ["%2e%2e/x", "a/%2e%2e/b", "%2Fetc/passwd", "a%00b", "a//b", "%2e"]
)
async def test_a_path_that_leaves_the_workspace_reaches_no_gateway(
    client: httpx.AsyncClient, execution_id: str, gateway: MemoryGateway, path: str
) -> None:
    request = client.build_request("GET", f"{API}/executions/{execution_id}/files/x")
    request.url = request.url.copy_with(
        raw_path=f"{API}/executions/{execution_id}/files/{path}".encode()
    )
    answer = await client.send(request)
    assert answer.status_code == 404
    assert "open_file" not in gateway.calls


async def test_templates_checkpoints_components(
    client: httpx.AsyncClient, workflow_id: str, execution_id: str
) -> None:
    template = await client.post(
        f"{API}/templates", json={"name": "t", "workflow_id": workflow_id, "parameters": {}}
    )
    assert template.status_code == 201
    schemas.Template.model_validate(template.json())
    path = template.headers["location"]
    assert (await client.get(path)).json() == template.json()
    schemas.TemplatePage.model_validate((await client.get(f"{API}/templates")).json())
    made = await client.post(f"{path}/instantiate", json={"name": "i", "parameter_values": {}})
    assert made.status_code == 201
    schemas.Instantiated.model_validate(made.json())
    assert (await client.delete(path)).status_code == 200
    assert error_of(await client.get(path))["code"] == "template_not_found"

    checkpoint = await client.post(
        f"{API}/state/checkpoints", json={"execution_id": execution_id, "name": "c"}
    )
    assert checkpoint.status_code == 201
    schemas.Checkpoint.model_validate(checkpoint.json())
    path = checkpoint.headers["location"]
    assert (await client.get(path)).json() == checkpoint.json()
    listed = await client.get(f"{API}/state/checkpoints", params={"execution_id": execution_id})
    schemas.CheckpointPage.model_validate(listed.json())
    checkpoint_id = checkpoint.json()["checkpoint_id"]
    restored = await client.post(f"{API}/state/restore", json={"checkpoint_id": checkpoint_id})
    assert restored.status_code == 202
    schemas.Restored.model_validate(restored.json())
    assert (await client.delete(path)).status_code == 200
    assert error_of(await client.get(path))["code"] == "checkpoint_not_found"

    schemas.ComponentList.model_validate((await client.get(f"{API}/components")).json())
    schemas.Component.model_validate((await client.get(f"{API}/components/ergon")).json())
    assert (await client.get(f"{API}/components/nothing")).status_code == 404


async def test_a_template_may_bring_its_own_definition_but_not_both(
    client: httpx.AsyncClient, workflow_id: str
) -> None:
    own = await client.post(f"{API}/templates", json={"name": "t", "definition": WORKFLOW})
    assert own.status_code == 201
    null = {"name": "t", "definition": WORKFLOW, "workflow_id": None}
    assert (await client.post(f"{API}/templates", json=null)).status_code == 201
    both = {"name": "t", "definition": WORKFLOW, "workflow_id": workflow_id}
    for body in (both, {"name": "t"}):
        answer = await client.post(f"{API}/templates", json=body)
        assert (answer.status_code, error_of(answer)["code"]) == (422, "validation_error")


async def test_keys_are_made_listed_and_revoked_by_admins_only(
    app: FastAPI, client: httpx.AsyncClient, gateway: MemoryGateway
) -> None:
    assert error_of(await client.get(f"{API}/keys"))["code"] == "permission_denied"
    async with connect(app, gateway.add_key("admin")) as admin:
        made = await admin.post(f"{API}/keys", json={"name": "k", "scopes": ["read", "read"]})
        assert made.status_code == 201
        schemas.CreatedKey.model_validate(made.json())
        assert made.json()["scopes"] == ["read"]
        listed = await admin.get(f"{API}/keys")
        schemas.KeyPage.model_validate(listed.json())
        assert made.json()["api_key"] not in listed.text
        assert (await admin.delete(f"{API}/keys/{made.json()['key_id']}")).status_code == 200
        assert (await admin.delete(f"{API}/keys/{made.json()['key_id']}")).status_code == 404
        assert (await admin.delete(f"{API}/keys/a:b*")).status_code == 404
        bad = await admin.post(f"{API}/keys", json={"name": "k", "scopes": ["root"]})
        assert error_of(bad)["details"]["errors"][0]["field"] == "scopes[0]"


async def test_the_service_describes_itself(
    client: httpx.AsyncClient, gateway: MemoryGateway
) -> None:
    said = (await client.get("/health")).json()
    schemas.Health.model_validate(said)
    assert (said["status"], said["durability"]["promise"]) == ("ok", "none")
    assert (await client.get(f"{API}/ready")).json() == {"status": "ready"}
    assert "version" in (await client.get(f"{API}/service")).json()
    gateway.is_ready = False
    unready = await client.get("/ready")
    assert (unready.status_code, error_of(unready)["code"]) == (503, "service_unavailable")
    await client.get(f"{API}/workflows/wf-{UNKNOWN}")
    text = (await client.get("/metrics")).text
    assert "harmonia_executions_running 0.0" in text
    assert 'harmonia_http_requests_total{method="GET",route="/ready",status="503"} 1.0' in text
    route = f'route="{API}/workflows/{{workflow_id}}",status="404"'
    assert f'harmonia_http_requests_total{{method="GET",{route}}} 1.0' in text
    page = await client.get("/docs")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "<script" not in page.text
    assert f"{API}/workflows" in page.text


@pytest.mark.parametrize(
    ("failure", "status", "code"),
    [
        (ComponentFailed("no", {"execution_id": "x"}), 500, "component_error"),
        (ExecutionFailed("no"), 500, "execution_error"),
        (ServiceUnavailable("away", 3), 503, "service_unavailable"),
    ],
)
async def test_what_the_gateway_raises_is_answered_by_the_table(
    client: httpx.AsyncClient,
    gateway: MemoryGateway,
    failure: HarmoniaError,
    status: int,
    code: str,
) -> None:
    gateway.failure = failure
    answer = await client.get(f"{API}/workflows")
    assert (answer.status_code, error_of(answer)["code"]) == (status, code)
    assert answer.json()["error"]["details"] == failure.details
    assert ("retry-after" in answer.headers) == (status == 503)


async def test_an_unexpected_error_shows_its_id_and_nothing_else(
    client: httpx.AsyncClient, gateway: MemoryGateway, caplog: pytest.LogCaptureFixture
) -> None:
    gateway.failure = ValueError("the secret cause")
    answer = await client.get(f"{API}/workflows")
    error = error_of(answer)
    assert (answer.status_code, error["code"]) == (500, "internal_error")
    assert "secret cause" not in answer.text
    assert "Traceback" not in answer.text
    assert error["details"]["error_id"] in caplog.text
    assert "the secret cause" in caplog.text


async def test_unknown_paths_and_methods_have_the_envelope(client: httpx.AsyncClient) -> None:
    unknown = await client.get(f"{API}/nothing")
    assert (unknown.status_code, error_of(unknown)["code"]) == (404, "not_found")
    wrong = await client.patch(f"{API}/workflows")
    assert (wrong.status_code, error_of(wrong)["code"]) == (405, "method_not_allowed")
    assert wrong.headers["allow"] == "GET, HEAD, POST"
    assert (await client.post("/health")).headers["allow"] == "GET, HEAD"
    for response in (unknown, wrong):
        assert response.headers["x-content-type-options"] == "nosniff"
        assert response.headers["cache-control"] == "no-store"
        assert response.headers["content-type"] == "application/json"


async def test_a_head_is_a_get_without_its_body(
    app: FastAPI, gateway: MemoryGateway, execution_id: str, serve: Serve
) -> None:
    gateway.files[execution_id, "large"] = bytes(5_000_000)
    gateway.outputs[execution_id, "a"] = b"{}"
    names = {"execution_id": execution_id, "workflow_id": next(iter(gateway.workflows))}
    names |= {"task_name": "a", "path": "large", "name": "ergon"}
    gets = [
        route.path_format.format_map({**dict.fromkeys(route.param_convertors, "none"), **names})
        for route in app.routes
        if isinstance(route, APIRoute) and "GET" in route.methods
    ]
    assert len(gets) > 20
    key = gateway.add_key("admin")
    async with serve(app) as served, httpx.AsyncClient(base_url=served.http) as client:
        for path in [*gets, f"{API}/nothing"]:
            if path.startswith("/events"):
                continue
            headers = {"X-API-Key": key}
            whole = await client.get(path, headers=headers)
            head = await client.head(path, headers=headers)
            assert (head.status_code, head.content) == (whole.status_code, b""), path
            same = ("content-length", "content-type", "cache-control")
            assert [head.headers.get(name) for name in same] == [
                whole.headers.get(name) for name in same
            ] or path.endswith("/metrics")
            nobody = await client.head(path)
            assert nobody.status_code == (await client.get(path)).status_code
        text = (await client.get("/metrics", headers={"X-API-Key": key})).text
    assert 'method="HEAD",route="/health",status="200"' in text


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("workflows/wf-invalid", "workflow_not_found"),
        (f"workflows/exec-{UNKNOWN}", "workflow_not_found"),
        (f"workflows/wf-{UNKNOWN.upper()}", "workflow_not_found"),
        (f"workflows/wf-{UNKNOWN}%0A", "workflow_not_found"),
        ("executions/exec-*", "execution_not_found"),
        ("executions/exec-*/tasks", "execution_not_found"),
        ("executions/exec-*/audit", "execution_not_found"),
        ("templates/tmpl-:x", "template_not_found"),
        ("state/checkpoints/cp-x", "checkpoint_not_found"),
    ],
)
async def test_a_malformed_id_is_not_found_and_reaches_no_gateway(
    client: httpx.AsyncClient, gateway: MemoryGateway, path: str, code: str
) -> None:
    answer = await client.get(f"{API}/{path}")
    assert (answer.status_code, error_of(answer)["code"]) == (404, code)
    assert gateway.calls == []


@pytest.mark.parametrize(
    ("method", "path", "body", "code"),
    [
        ("POST", "executions", {"workflow_id": "wf-invalid"}, "workflow_not_found"),
        ("POST", "state/restore", {"checkpoint_id": "cp-:"}, "checkpoint_not_found"),
        (
            "POST",
            "state/checkpoints",
            {"execution_id": "x", "name": "n"},
            "execution_not_found",
        ),
        ("POST", "templates", {"name": "n", "workflow_id": "wf-*"}, "workflow_not_found"),
    ],
)
async def test_a_malformed_id_in_a_body_reaches_no_gateway(
    client: httpx.AsyncClient,
    gateway: MemoryGateway,
    method: str,
    path: str,
    body: dict[str, Any],
    code: str,
) -> None:
    answer = await client.request(method, f"{API}/{path}", json=body)
    assert (answer.status_code, error_of(answer)["code"]) == (404, code)
    assert gateway.calls == []


async def test_the_reference_example_of_an_error(client: httpx.AsyncClient) -> None:
    answer = await client.get(f"{API}/workflows/wf-invalid")
    assert answer.json() == {
        "error": {
            "code": "workflow_not_found",
            "message": "Workflow with ID 'wf-invalid' not found",
            "details": {"requested_id": "wf-invalid"},
        }
    }
