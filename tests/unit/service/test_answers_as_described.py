"""Whatever the real service answers is what its own description says of that operation."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.acceptance.reference import operations
from tests.support.described import Described
from tests.support.local_service import local_service

REFERENCE = {operation.name: operation for operation in operations()}
API = "/api/harmonia"
MISSING = "123e4567-e89b-12d3-a456-426614174000"


class Api:
    """The service, whose every answer is checked as it comes."""

    def __init__(self, client: httpx.Client, described: Described) -> None:
        self.client = client
        self.described = described

    def send(self, method: str, path: str, expected: int, body: Any = None, **query: Any) -> Any:
        answer = self.client.request(method, path, json=body, params=query)
        assert answer.status_code == expected, f"{method} {path}: {answer.text[:2000]}"
        is_json = answer.headers.get("content-type") == "application/json"
        return answer.json() if is_json else answer.content

    def get(self, path: str, expected: int = 200, **query: Any) -> Any:
        return self.send("GET", API + path, expected, **query)

    def post(self, path: str, body: Any, expected: int) -> Any:
        return self.send("POST", API + path, expected, body)

    def workflow(self, **fields: Any) -> str:
        return str(self.post("/workflows", {**MINIMAL, **fields}, 201)["workflow_id"])

    def run(self, workflow_id: str, expected: int = 200, **options: Any) -> Any:
        options = {"async": False, **options}
        body = {"workflow_id": workflow_id, "execution_options": options}
        return self.post("/executions", body, expected)


ECHO = {"component": "harmonia", "action": "echo", "input": {"value": {"n": 1}}}
MINIMAL: dict[str, Any] = {"name": "minimal", "tasks": {"a": ECHO}}
FAILING = {"a": {"component": "harmonia", "action": "fail"}, "b": {**ECHO, "depends_on": ["a"]}}


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    with (
        local_service(tmp_path_factory.mktemp("service")) as service,
        httpx.Client(
            base_url=service.url, headers={"X-API-Key": service.api_key}, timeout=30
        ) as client,
    ):
        described = Described(client.get("/openapi.json").json())
        client.event_hooks = {"response": [described.check]}
        yield Api(client, described)


def test_workflows(api: Api) -> None:
    full = REFERENCE["Create Workflow"].request
    for definition in (MINIMAL, full, {**MINIMAL, "description": "", "input_schema": {}}):
        made = api.post("/workflows", definition, 201)
        path = f"/workflows/{made['workflow_id']}"
        assert api.get(path) == made
        api.send("PUT", API + path, 200, MINIMAL)
        api.get("/workflows", sort_by="name")
        api.send("DELETE", API + path, 200)
        api.get(path, 404)
    api.post("/workflows", {"name": "x"}, 422)
    api.post("/workflows", {"name": 1}, 400)
    api.post("/workflows", {"name": "x" * 11_000_000}, 413)


def test_executions(api: Api) -> None:
    workflow_id = api.workflow()
    execution = api.post("/executions", {"workflow_id": workflow_id}, 202)
    path = f"/executions/{execution['execution_id']}"
    events = api.send("GET", f"/events/harmonia{path}", 200)
    assert b"execution_completed" in events
    for query in ({}, {"outputs": "none"}):
        api.get(path, **query)
    for page in ("/tasks", "/output", "/tasks/a/output", "/files", "/audit"):
        api.get(path + page)
    api.get("/executions", workflow_id=workflow_id, status="completed")
    api.post(f"{path}/cancel", {}, 409)
    api.get(f"{path}/tasks/b/output", 404)
    api.get(f"{path}/files/none", 404)
    last = events.count(b"\nid: ")
    api.send("GET", f"/events/harmonia{path}", 204, after=last)
    everything = "/events/harmonia/executions"
    found = api.send("GET", everything, 200, after="0", follow="false", workflow_id=workflow_id)
    assert found.count(b"\ndata: ") == last + 1
    api.send("GET", everything, 204, follow="false")
    api.send("GET", everything, 422, type="none")
    api.send("GET", everything, 404, workflow_id=f"wf-{MISSING}")
    api.run(workflow_id)
    api.post("/executions", {"workflow_id": f"wf-{MISSING}"}, 404)
    api.post("/executions", {"workflow_id": workflow_id, "execution_options": {"x": 1}}, 422)


def test_an_execution_that_fails_or_is_cancelled(api: Api) -> None:
    failing = api.workflow(tasks=FAILING)
    failed = api.run(failing, 500)["error"]["details"]["execution_id"]
    api.get(f"/executions/{failed}")
    api.get(f"/executions/{failed}/tasks")
    api.get(f"/executions/{failed}/audit")
    api.get(f"/executions/exec-{MISSING}/audit", 404)
    api.get(f"/executions/{failed}/output", 404)
    api.get("/executions", status="failed")
    waits = {"component": "harmonia", "action": "sleep", "input": {"seconds": 600}}
    waiting = api.workflow(tasks={"a": waits, "b": {**ECHO, "depends_on": ["a"]}})
    execution = api.post("/executions", {"workflow_id": waiting}, 202)["execution_id"]
    api.get(f"/executions/{execution}")
    api.post(f"/executions/{execution}/cancel", None, 200)
    api.send("GET", f"/events/harmonia/executions/{execution}", 200)
    api.get(f"/executions/{execution}")


def test_files(api: Api, tmp_path: Path) -> None:
    command = {"command": "touch plain archive.csv.gz", "timeout": 60}
    task = {"component": "ergon", "action": "execute_command", "input": command}
    execution = api.run(api.workflow(tasks={"a": task}))["execution_id"]
    listed = api.get(f"/executions/{execution}/files")
    assert len(listed["items"]) == 2
    for item in listed["items"]:
        api.get(f"/executions/{execution}/files/{item['path']}")


def test_templates(api: Api) -> None:
    full = {**REFERENCE["Create Template"].request}
    workflow_id = api.post("/workflows", REFERENCE["Create Workflow"].request, 201)["workflow_id"]
    values = REFERENCE["Instantiate Template"].request
    made = api.post("/templates", {**full, "workflow_id": workflow_id}, 201)
    api.post(f"/templates/{made['template_id']}/instantiate", values, 201)
    bare = api.post("/templates", {"name": "bare", "definition": MINIMAL}, 201)
    path = f"/templates/{bare['template_id']}"
    api.get(path)
    api.get("/templates")
    api.post(f"{path}/instantiate", {"name": "instance"}, 201)
    api.send("DELETE", API + path, 200)
    api.get(path, 404)
    api.post(f"{path}/instantiate", {"name": "instance"}, 404)
    api.post("/templates", {"name": "x", "workflow_id": f"wf-{MISSING}"}, 404)


def test_checkpoints(api: Api) -> None:
    execution = api.run(api.workflow())["execution_id"]
    made = api.post("/state/checkpoints", {"execution_id": execution, "name": "bare"}, 201)
    path = f"/state/checkpoints/{made['checkpoint_id']}"
    assert api.get(path) == made
    api.get("/state/checkpoints", execution_id=execution)
    body = {"checkpoint_id": made["checkpoint_id"]}
    api.post("/state/restore", body, 202)
    api.post("/state/restore", {**body, "execution_options": {"async": False}}, 200)
    api.send("DELETE", API + path, 200)
    api.get(path, 404)
    api.post("/state/restore", body, 404)
    missing = {"execution_id": f"exec-{MISSING}", "name": "x"}
    api.post("/state/checkpoints", missing, 404)


def test_keys_components_and_the_service_itself(api: Api) -> None:
    key = api.post("/keys", {"name": "k", "scopes": ["read"]}, 201)
    api.get("/keys")
    with httpx.Client(
        base_url=api.client.base_url,
        headers={"X-API-Key": key["api_key"]},
        event_hooks={"response": [api.described.check]},
    ) as reader:
        assert reader.get(f"{API}/keys").status_code == 403
    api.send("DELETE", f"{API}/keys/{key['key_id']}", 200)
    api.send("DELETE", f"{API}/keys/{key['key_id']}", 404)
    with httpx.Client(
        base_url=api.client.base_url, event_hooks={"response": [api.described.check]}
    ) as nobody:
        assert nobody.get(f"{API}/keys").status_code == 401
        assert nobody.get("/health").status_code == 200
    for component in api.get("/components")["items"]:
        api.get(f"/components/{component['name']}")
    api.get("/components/none", 404)
    api.get("/service")
    for path in ("/health", "/ready", "/metrics"):
        api.send("GET", path, 200)


def test_every_operation_was_answered(api: Api, request: pytest.FixtureRequest) -> None:
    module = [item for item in request.session.items if item.fspath == request.node.fspath]
    if len(module) < 8:
        pytest.skip("only some tests of this file run")
    assert api.described.operations - api.described.done == set()
