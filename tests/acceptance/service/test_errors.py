"""Every way in which the running service says no, and that it always says it in one form."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import httpx
import pytest

from tests.acceptance.reference import assert_same_shape, load
from tests.support.exercised import Exercised, expected, whole_module_runs
from tests.support.running import RunningService, until
from tests.support.subscribing import by_websocket, refusal

SEEN = Exercised()
ERRORS = load("errors")
STATUS = {row["code"]: row["status"] for row in ERRORS["codes"]}
#: Those that the reference does not have.
STATUS_BESIDES = {"not_found": 404, "method_not_allowed": 405}
NOOP = {"component": "harmonia", "action": "noop"}
WORKFLOW = {"name": "errors", "tasks": {"only": NOOP}}
JSON = {"Content-Type": "application/json"}
BODY_BYTES_MAX = 10_000_000


def unknown(prefix: str) -> str:
    """An id as ours are, of something that is not there."""
    return f"{prefix}-{uuid4()}"


def problem(answer: httpx.Response, code: str) -> dict[str, Any]:
    """Hold an answer against the envelope and its code's status; the error."""
    assert answer.status_code == {**STATUS, **STATUS_BESIDES}[code], answer.text
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-content-type-options"] == "nosniff"
    document: dict[str, Any] = answer.json()
    assert set(document) == set(ERRORS["example"])
    error: dict[str, Any] = document["error"]
    assert set(error) == set(ERRORS["example"]["error"])
    assert error["code"] == code
    assert error["message"]
    assert isinstance(error["details"], dict)
    if code in STATUS:
        SEEN.marks.add((ERRORS["section"], "error", code))
    return error


def fields_of(error: dict[str, Any]) -> list[str]:
    """The fields that an error complains of; each with a message."""
    assert error["details"]["total"] == len(error["details"]["errors"])
    assert all(each["message"] for each in error["details"]["errors"])
    return [each["field"] for each in error["details"]["errors"]]


@contextlib.contextmanager
def key_with(service: RunningService, *scopes: str, **more: Any) -> Iterator[str]:
    """A key of its own, revoked at the end."""
    body = {"name": "errors", "scopes": list(scopes), **more}
    answer = service.api.post("/keys", json=body)
    assert answer.status_code == 201, answer.text
    made = answer.json()
    try:
        yield made["api_key"]
    finally:
        assert service.api.delete(f"/keys/{made['key_id']}").status_code == 200


# The twelve codes ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"not json",
        b'{"name": "x",}',
        b'{"name": "x", "name": "y", "tasks": {}}',
        b'{"name": NaN, "tasks": {}}',
        b'{"name": "x", "tasks": {}, "timeout": 1e999}',
        b'{"name": "\xff", "tasks": {}}',
        b'{"name": "\\ud800", "tasks": {}}',
        b'{"name": "x", "tasks": {}, "metadata": {"n": ' + b"9" * 5_000 + b"}}",
        b'{"name": "x", "tasks": {}, "metadata": ' + b'{"a":' * 100_000,
        b'{"name": "x", "tasks": {}, "metadata": ' + b'{"a":' * 70 + b"1" + b"}" * 71,
        b"[]",
        b'"text"',
        b"null",
        b"true",
    ],
    ids=lambda body: body[:45].decode("ascii", "replace"),
)
def test_a_body_that_is_no_json_object_is_malformed(service: RunningService, body: bytes) -> None:
    answer = service.api.post("/workflows", content=body, headers=JSON)
    problem(answer, "invalid_request")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({**WORKFLOW, "name": 5}, "name"),
        ({**WORKFLOW, "tasks": []}, "tasks"),
        ({**WORKFLOW, "tasks": {"a": {**NOOP, "depends_on": "b"}}}, "tasks.a.depends_on"),
        ({**WORKFLOW, "tasks": {"a": {**NOOP, "depends_on": [1]}}}, "tasks.a.depends_on[0]"),
        ({**WORKFLOW, "timeout": "long"}, "timeout"),
        ({**WORKFLOW, "input_schema": None, "name": None}, "name"),
    ],
)
def test_a_wrong_type_is_malformed_and_named(
    service: RunningService, body: dict[str, Any], field: str
) -> None:
    error = problem(service.api.post("/workflows", json=body), "invalid_request")
    assert fields_of(error) == [field]
    assert field in error["message"]


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Type": "text/plain"},
        {"Content-Type": "application/x-www-form-urlencoded"},
        {"Content-Type": "multipart/form-data; boundary=x"},
        {"Content-Type": "application/json; charset=latin-1"},
        {"Content-Type": ""},
        {"Content-Type": "application/json", "Content-Encoding": "gzip"},
    ],
    ids=lambda headers: ", ".join(headers.values()),
)
def test_a_body_of_another_kind_is_malformed(
    service: RunningService, headers: dict[str, str]
) -> None:
    content = json.dumps(WORKFLOW).encode()
    problem(service.api.post("/workflows", content=content, headers=headers), "invalid_request")
    accepted = {"Content-Type": "Application/JSON; charset=UTF-8"}
    assert service.api.post("/workflows", content=content, headers=accepted).status_code == 201


@pytest.mark.parametrize("size", [BODY_BYTES_MAX + 10, BODY_BYTES_MAX + 2_000_000])
@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_that_is_too_large_is_refused_with_413(
    service: RunningService, chunked: bool, size: int
) -> None:
    whole = b"{" + b" " * (size - 2) + b"}"
    pieces = (whole[at : at + 65_536] for at in range(0, size, 65_536))
    with service.client(service.key) as api:
        answer = api.post("/workflows", content=pieces if chunked else whole, headers=JSON)
    assert answer.status_code == 413
    error = answer.json()["error"]
    assert_same_shape(ERRORS["example"]["error"], {**error, "details": {"requested_id": ""}})
    assert (error["code"], error["details"]) == (
        "invalid_request",
        {"limit_bytes": BODY_BYTES_MAX},
    )


def test_a_body_that_is_as_large_as_may_be_is_read(service: RunningService) -> None:
    empty = json.dumps({**WORKFLOW, "metadata": {"padding": ""}}).encode()
    padding = "x" * (BODY_BYTES_MAX - len(empty))
    content = json.dumps({**WORKFLOW, "metadata": {"padding": padding}}).encode()
    assert len(content) == BODY_BYTES_MAX
    made = service.api.post("/workflows", content=content, headers=JSON)
    assert made.status_code == 201, made.text[:500]
    assert service.api.delete(f"/workflows/{made.json()['workflow_id']}").status_code == 200


def test_without_a_good_key_nothing_is_answered(service: RunningService) -> None:
    for key in (None, "wrong", f"hk_{'0' * 12}_{'x' * 43}"):
        with service.client(key) as api:
            answer = api.get("/workflows")
        problem(answer, "authentication_failed")
        assert answer.headers["www-authenticate"].startswith("Bearer")
    bearer = {"Authorization": f"Bearer {service.key}"}
    with service.client(None) as api:
        assert api.get("/workflows", headers=bearer).status_code == 200


def test_a_key_without_the_scope_is_denied(service: RunningService) -> None:
    with key_with(service, "read") as key, service.client(key) as api:
        error = problem(api.post("/workflows", json=WORKFLOW), "permission_denied")
        assert error["details"] == {"required_scope": "write", "scopes": ["read"]}
        assert api.get("/workflows").status_code == 200


@pytest.mark.parametrize("shape", ["id", "invalid"])
def test_what_is_not_there_is_named_by_its_kind(service: RunningService, shape: str) -> None:
    def named(prefix: str) -> str:
        return unknown(prefix) if shape == "id" else f"{prefix}-invalid"

    wf, ex, tmpl, cp = (named(prefix) for prefix in ("wf", "exec", "tmpl", "cp"))
    calls: list[tuple[str, str, Any, str, str]] = [
        ("GET", f"/workflows/{wf}", None, "workflow_not_found", wf),
        ("PUT", f"/workflows/{wf}", WORKFLOW, "workflow_not_found", wf),
        ("DELETE", f"/workflows/{wf}", None, "workflow_not_found", wf),
        ("POST", "/executions", {"workflow_id": wf}, "workflow_not_found", wf),
        ("POST", "/templates", {"name": "t", "workflow_id": wf}, "workflow_not_found", wf),
        ("GET", f"/executions/{ex}", None, "execution_not_found", ex),
        ("POST", f"/executions/{ex}/cancel", None, "execution_not_found", ex),
        ("GET", f"/executions/{ex}/tasks", None, "execution_not_found", ex),
        ("GET", f"/executions/{ex}/output", None, "execution_not_found", ex),
        ("GET", f"/executions/{ex}/tasks/a/output", None, "execution_not_found", ex),
        ("GET", f"/executions/{ex}/audit", None, "execution_not_found", ex),
        ("GET", f"/executions/{ex}/files", None, "execution_not_found", ex),
        ("GET", f"/executions/{ex}/files/a.txt", None, "execution_not_found", ex),
        (
            *("POST", "/state/checkpoints"),
            *({"execution_id": ex, "name": "c"}, "execution_not_found", ex),
        ),
        ("GET", f"/templates/{tmpl}", None, "template_not_found", tmpl),
        ("DELETE", f"/templates/{tmpl}", None, "template_not_found", tmpl),
        (
            *("POST", f"/templates/{tmpl}/instantiate"),
            *({"name": "t"}, "template_not_found", tmpl),
        ),
        ("GET", f"/state/checkpoints/{cp}", None, "checkpoint_not_found", cp),
        ("DELETE", f"/state/checkpoints/{cp}", None, "checkpoint_not_found", cp),
        ("POST", "/state/restore", {"checkpoint_id": cp}, "checkpoint_not_found", cp),
    ]
    for method, path, body, code, requested_id in calls:
        error = problem(service.api.request(method, path, json=body), code)
        assert error["details"] == {"requested_id": requested_id}, (method, path)
        assert requested_id in error["message"]


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        ({"tasks": {"only": NOOP}}, ["name"]),
        ({**WORKFLOW, "taks": {}}, ["taks"]),
        ({**WORKFLOW, "tasks": {}}, ["tasks"]),
        ({**WORKFLOW, "tasks": {"a": {**NOOP, "depends_on": ["b"]}}}, ["tasks.a.depends_on[0]"]),
        ({**WORKFLOW, "tasks": {"a": {**NOOP, "action": "noob"}}}, ["tasks.a.action"]),
        ({**WORKFLOW, "tasks": {"a": {**NOOP, "component": "argon"}}}, ["tasks.a.component"]),
        ({**WORKFLOW, "input_schema": {"n": {"type": "whole"}}}, ["input_schema.n.type"]),
        (
            {**WORKFLOW, "input_schema": {"type": "object", "properties": {"n": {"enum": 3}}}},
            ["input_schema.properties.n.enum"],
        ),
        ({**WORKFLOW, "input_schema": {"type": "object", "$ref": "#/gone"}}, ["input_schema"]),
    ],
)
def test_what_is_not_valid_is_told_field_by_field(
    service: RunningService, body: dict[str, Any], fields: list[str]
) -> None:
    error = problem(service.api.post("/workflows", json=body), "validation_error")
    assert fields_of(error) == fields
    assert fields[0] in error["message"]


def test_a_cycle_is_named_in_the_error(service: RunningService) -> None:
    tasks = {name: {**NOOP, "depends_on": [other]} for name, other in ("ab", "bc", "ca")}
    answer = service.api.post("/workflows", json={**WORKFLOW, "tasks": tasks})
    text = problem(answer, "validation_error")["message"]
    assert "cycle" in text
    assert all(f"{name}" in text for name in tasks)


def test_what_has_ended_cannot_be_cancelled(service: RunningService) -> None:
    done = service.run({"only": NOOP})
    answer = service.api.post(f"/executions/{done['execution_id']}/cancel")
    error = problem(answer, "conflict")
    assert error["details"]["status"] == "completed"


def waited_for(service: RunningService, tasks: dict[str, Any], **options: Any) -> httpx.Response:
    """The answer to an execution that the request waits for."""
    body = {
        "workflow_id": service.create(tasks),
        "execution_options": {"async": False, **options},
    }
    return service.api.post("/executions", json=body)


def test_a_component_that_fails_is_an_error_of_a_request_that_waits(
    service: RunningService,
) -> None:
    fail = {"component": "harmonia", "action": "fail"}
    tasks = {"first": NOOP, "bad": {**fail, "input": {"message": "no luck", "code": "LUCK"}}}
    error = problem(waited_for(service, tasks), "component_error")
    assert error["details"]["task"] == "bad"
    assert error["details"]["error"]["details"]["code"] == "LUCK"
    assert "no luck" in error["message"]
    status = service.status(error["details"]["execution_id"])
    assert (status["status"], status["error"]) == ("failed", error["details"]["error"])


def test_a_failure_of_no_component_is_an_execution_error(service: RunningService) -> None:
    echo = {"component": "harmonia", "action": "echo", "input": {"value": {}}}
    read = {**echo, "input": {"value": "${tasks.made.output.value.gone}"}, "depends_on": ["made"]}
    error = problem(waited_for(service, {"made": echo, "read": read}), "execution_error")
    assert error["details"]["task"] == "read"
    assert "gone" in error["message"]
    status = service.status(error["details"]["execution_id"])
    assert (status["status"], status["error"]) == ("failed", error["details"]["error"])

    sleep = {"component": "harmonia", "action": "sleep", "input": {"seconds": 600}}
    error = problem(waited_for(service, {"long": sleep}, timeout=0.2), "execution_error")
    assert error["details"]["error"]["code"] == "timeout"


def test_a_key_of_few_requests_is_told_when_to_come_again(service: RunningService) -> None:
    with key_with(service, "read", rate_limit_per_s=0.5) as key, service.client(key) as api:
        assert api.get("/workflows").status_code == 200
        answer = api.get("/workflows")
        error = problem(answer, "rate_limit_exceeded")
        wait_s = int(answer.headers["retry-after"])
        assert error["details"] == {"retry_after_seconds": wait_s}
        assert 1 <= wait_s <= math.ceil(1 / 0.5)
        # All surfaces draw on the one limit.
        path = f"/executions/{unknown('exec')}"
        events = httpx.get(
            f"{service.url}/events/harmonia{path}", headers={"X-API-Key": key}, trust_env=False
        )
        problem(events, "rate_limit_exceeded")
        assert refusal(service, path, key=key)[0] == 4429
        assert service.api.get("/workflows").status_code == 200
        until(lambda: api.get("/workflows").status_code == 200, 10, "another request's turn")


# Paths, methods, query parameters --------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/nothing",
        "/api/harmonia",
        "/api/harmonia/",
        "/api/harmonia/nothing",
        "/api/harmonia/workflows/",
        "/api/harmonia/workflows/wf-1/nothing",
        "/api/harmoniam/workflows",
        "/events/harmonia/executions/",
        "/events/harmonia/nothing",
        "/ws/harmonia/nothing",
        "/ws/harmonia/executions/exec-1",
    ],
)
def test_an_unknown_path_is_answered_in_the_same_envelope(
    service: RunningService, path: str
) -> None:
    for method in ("GET", "POST", "DELETE"):
        answer = httpx.request(
            method, f"{service.url}{path}", headers={"X-API-Key": service.key}, trust_env=False
        )
        error = problem(answer, "not_found")
        assert error["details"] == {"path": path}
    problem(httpx.get(f"{service.url}{path}", trust_env=False), "authentication_failed")


def test_another_method_is_refused_with_those_that_are_allowed(service: RunningService) -> None:
    headers = {"X-API-Key": service.key}
    with httpx.Client(base_url=service.url, headers=headers, trust_env=False) as client:
        paths = client.get("/openapi.json").json()["paths"]
        assert len(paths) > 20
        for template, operations in paths.items():
            path = template.replace("{", "").replace("}", "")
            known = {method.upper() for method in operations}
            for method in ("PATCH", "PUT", "TRACE", "OPTIONS"):
                if method in known:
                    continue
                answer = client.request(method, path)
                error = problem(answer, "method_not_allowed")
                allowed = [name.strip() for name in answer.headers["allow"].split(",")]
                assert known <= set(allowed) <= {*known, "HEAD"}, template
                assert error["details"] == {"path": path, "allowed_methods": allowed}


@pytest.mark.parametrize(
    ("path", "query", "field", "hint"),
    [
        ("/workflows", "pgae=2", "pgae", "did you mean 'page'?"),
        ("/workflows", "colour=red", "colour", "there are: page, limit, sort_by, sort_order"),
        ("/workflows", "page=1&page=2", "page", "more than once"),
        ("/workflows", "page=0", "page", "1"),
        ("/workflows", "page=two", "page", "two"),
        ("/workflows", "limit=0", "limit", "1"),
        ("/workflows", "limit=101", "limit", "100"),
        ("/workflows", "sort_by=size", "sort_by", "size"),
        ("/workflows", "sort_order=up", "sort_order", "up"),
        ("/executions", "status=done", "status", "'completed'"),
        ("/executions", "workflow_id=mine", "workflow_id", "wf-"),
        ("/executions", "sort_by=name", "sort_by", "created_at"),
        ("/templates", "after=1", "after", "page"),
        ("/state/checkpoints", "execution_id=wf-1", "execution_id", "exec-"),
        (f"/executions/{unknown('exec')}", "outputs=some", "outputs", "'none'"),
        (f"/workflows/{unknown('wf')}", "page=1", "page", "no such query parameter"),
        ("/workflows", "api_key=x", None, "query string"),
    ],
)
def test_a_query_parameter_that_says_nothing_here_is_refused(
    service: RunningService, path: str, query: str, field: str | None, hint: str
) -> None:
    answer = service.api.get(f"{path}?{query}")
    if field is None:
        assert hint in problem(answer, "authentication_failed")["message"]
        return
    error = problem(answer, "validation_error")
    assert fields_of(error) == [field]
    assert hint in error["details"]["errors"][0]["message"]


# Streams ---------------------------------------------------------------------------------------


def event_stream(service: RunningService, path: str, key: str | None = None) -> httpx.Response:
    secret = service.key if key is None else key
    headers = {"X-API-Key": secret} if secret else {}
    return httpx.get(f"{service.url}/events/harmonia{path}", headers=headers, trust_env=False)


@pytest.mark.parametrize("execution_id", [unknown("exec"), "exec-invalid", unknown("wf"), "x"])
def test_streams_of_unknown_executions(service: RunningService, execution_id: str) -> None:
    path = f"/executions/{execution_id}"
    error = problem(event_stream(service, path), "execution_not_found")
    assert error["details"] == {"requested_id": execution_id}
    code, reason = refusal(service, path)
    assert (code, reason) == (4404, error["message"])


def test_streams_without_a_good_key(service: RunningService) -> None:
    path = f"/executions/{service.run({'only': NOOP})['execution_id']}"
    for key in ("", "wrong", f"hk_{'0' * 12}_{'x' * 43}"):
        error = problem(event_stream(service, path, key), "authentication_failed")
        assert refusal(service, path, key=key) == (4401, error["message"][:123])


def test_streams_with_a_key_that_may_not_read(service: RunningService) -> None:
    path = f"/executions/{service.run({'only': NOOP})['execution_id']}"
    with key_with(service, "write", "execute") as key:
        problem(event_stream(service, path, key), "permission_denied")
        code, reason = refusal(service, path, key=key)
        assert code == 4403
        assert "'read'" in reason
        # Whether there is such an execution is not said to who may not read.
        assert refusal(service, f"/executions/{unknown('exec')}", key=key)[0] == 4403


def test_streams_take_a_key_in_the_query_and_refuse_two(service: RunningService) -> None:
    path = f"/executions/{service.run({'only': NOOP})['execution_id']}"
    with by_websocket(service, path, key="", query=f"?api_key={service.key}") as messages:
        assert len(list(messages)) == 4
        assert messages.code == 1000
    answer = event_stream(service, f"{path}?api_key={service.key}", "")
    assert answer.text.count("event: ") == 4
    assert refusal(service, path, key="", query="?api_key=wrong")[0] == 4401
    twice = f"?api_key={service.key}&api_key={service.key}"
    assert refusal(service, path, key="", query=twice)[0] == 4401


@pytest.mark.parametrize("query", ["?after=-1", "?after=last", "?afer=1", "?after=1&after=2"])
def test_streams_refuse_queries_that_say_nothing(service: RunningService, query: str) -> None:
    path = f"/executions/{unknown('exec')}"
    error = problem(event_stream(service, path + query), "validation_error")
    code, reason = refusal(service, path, query=query)
    assert (code, reason) == (4400, error["message"][:123])


def test_other_websocket_paths_are_refused_with_a_reason(service: RunningService) -> None:
    for path in ("/nothing", f"/executions/{unknown('exec')}/more"):
        code, reason = refusal(service, path)
        assert code == 4404
        assert path[1:] in reason
        assert refusal(service, path, key="")[0] == 4401


def test_an_event_stream_that_has_nothing_to_come_is_no_content(service: RunningService) -> None:
    execution_id = service.run({"only": NOOP})["execution_id"]
    last = service.events(str(execution_id))[-1]["id"]
    answer = event_stream(service, f"/executions/{execution_id}?after={last}")
    assert (answer.status_code, answer.content) == (204, b"")
    with by_websocket(service, f"/executions/{execution_id}", query=f"?after={last}") as none:
        assert list(none) == []
        assert none.code == 1000


def test_every_code_of_the_reference_was_provoked(request: pytest.FixtureRequest) -> None:
    if not whole_module_runs(request):
        pytest.skip("only a part of this module runs")
    assert expected("error") == SEEN.marks
    assert len(SEEN.marks) == 12
