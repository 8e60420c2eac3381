"""Requests that are too large, too deep or too clever: refused at a bounded cost."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from tests.support.running import RunningService


def task(*depends_on: str) -> dict[str, Any]:
    return {"component": "harmonia", "action": "noop", "depends_on": list(depends_on)}


def workflow(tasks: dict[str, Any]) -> bytes:
    return json.dumps({"name": "w", "tasks": tasks}).encode()


def post(service: RunningService, content: bytes, **headers: str) -> httpx.Response:
    sent = {"Content-Type": "application/json", **headers}
    return service.api.post("/workflows", content=content, headers=sent)


def error_of(answer: httpx.Response, status: int) -> dict[str, Any]:
    """The error of a refusal: the envelope, small, and nothing of the inside."""
    assert answer.status_code == status, answer.text[:500]
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert len(answer.content) < 50_000
    document = answer.json()
    assert set(document) == {"error"}
    assert set(document["error"]) == {"code", "message", "details"}
    for inside in ("Traceback", '.py"', "harmonia_actors", "redis"):
        assert inside not in answer.text
    error: dict[str, Any] = document["error"]
    return error


VALID = workflow({"t": task()})

BODIES: dict[str, tuple[int, Callable[[], bytes], dict[str, str]]] = {
    "too large": (413, lambda: VALID[:-1] + b" " * 10_000_001 + b"}", {}),
    "too deep": (400, lambda: b'{"name":' + b"[" * 65 + b"]" * 65 + b"}", {}),
    "far too deep": (400, lambda: b"[" * 200_000, {}),
    "long integer": (400, lambda: b'{"name":' + b"9" * 5_000 + b"}", {}),
    "large float": (400, lambda: b'{"name":1e999}', {}),
    "key twice": (400, lambda: b'{"name":"a","name":"b","tasks":{}}', {}),
    "NaN": (400, lambda: b'{"name":NaN}', {}),
    "Infinity": (400, lambda: b'{"name":-Infinity}', {}),
    "lone surrogate": (400, lambda: b'{"name":"\\ud800","tasks":{}}', {}),
    "not UTF-8": (400, lambda: b'{"name":"\xff"}', {}),
    "many keys": (413, lambda: json.dumps({str(n): n for n in range(1_000_000)}).encode(), {}),
    "no object": (400, lambda: b'["name"]', {}),
    "nothing": (400, lambda: b"", {}),
    "gzip": (400, lambda: gzip.compress(VALID), {"Content-Encoding": "gzip"}),
    "bomb": (400, lambda: gzip.compress(b" " * 50_000_000), {"Content-Encoding": "gzip"}),
    "text": (400, lambda: VALID, {"Content-Type": "text/plain"}),
    "form": (400, lambda: b"name=w", {"Content-Type": "application/x-www-form-urlencoded"}),
}


@pytest.mark.parametrize("what", BODIES)
def test_bodies_are_read_within_bounds(service: RunningService, what: str) -> None:
    status, body, headers = BODIES[what]
    error = error_of(post(service, body(), **headers), status)
    assert error["code"] == "invalid_request"


def graph(edges: int) -> dict[str, Any]:
    """Two layers, each task of the second after all of the first."""
    side = int(edges**0.5) + 1
    first = [f"a{number}" for number in range(side)]
    return {name: task() for name in first} | {f"b{number}": task(*first) for number in range(side)}


GRAPHS: dict[str, Callable[[], dict[str, Any]]] = {
    "itself": lambda: {"a": task("a")},
    "two in a circle": lambda: {"a": task("b"), "b": task("a")},
    "a large circle": lambda: {f"t{n}": task(f"t{(n + 1) % 9_000}") for n in range(9_000)},
    "nobody": lambda: {"a": task("b")},
    "twice": lambda: {"a": task(), "b": task("a", "a")},
    "too many tasks": lambda: {f"t{n}": task() for n in range(10_001)},
    "too many edges": lambda: graph(100_001),
    "no task": dict,
    "long name": lambda: {"a" * 129: task()},
}


@pytest.mark.parametrize("what", GRAPHS)
def test_graphs_that_cannot_run_are_refused(service: RunningService, what: str) -> None:
    error = error_of(post(service, workflow(GRAPHS[what]())), 422)
    assert error["code"] == "validation_error"
    assert error["details"]["errors"][0]["field"].startswith("tasks")


def test_a_very_long_chain_is_only_long(service: RunningService) -> None:
    chain = {f"t{n}": task(*[f"t{n - 1}"] * (n > 0)) for n in range(10_000)}
    answer = post(service, workflow(chain))
    assert answer.status_code == 201
    assert service.api.delete(f"/workflows/{answer.json()['workflow_id']}").status_code == 200


def test_patterns_cannot_be_made_slow(service: RunningService) -> None:
    body = {
        "name": "w",
        "tasks": {"t": task()},
        "input_schema": {"text": {"type": "string", "pattern": "^(a+)+$"}},
    }
    created = service.api.post("/workflows", json=body, timeout=20)
    if created.status_code == 422:
        error_of(created, 422)
        return
    execute = {"workflow_id": created.json()["workflow_id"], "input": {"text": "a" * 50_000 + "!"}}
    error = error_of(service.api.post("/executions", json=execute, timeout=20), 422)
    assert error["details"]["errors"][0]["field"] == "input.text"


def test_a_schema_that_never_comes_to_an_end_holds_up_nobody(service: RunningService) -> None:
    """Each level refers twice to the next: 2^60 paths through a few KB of JSON."""
    levels = {f"d{n}": {"oneOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 2} for n in range(60)}
    schema = {
        "type": "object",
        "$defs": {**levels, "d60": {"type": "string"}},
        "properties": {"x": {"$ref": "#/$defs/d0"}},
    }
    body = {"name": "w", "tasks": {"t": task()}, "input_schema": schema}
    created = service.api.post("/workflows", json=body, timeout=60)
    assert created.status_code == 201, created.text
    execute = {"workflow_id": created.json()["workflow_id"], "input": {"x": "s"}}
    with ThreadPoolExecutor() as pool:
        asked = pool.submit(service.api.post, "/executions", json=execute, timeout=60)
        answered = 0
        while not asked.done():
            assert service.api.get("/components", timeout=20).status_code == 200
            answered += 1
    assert answered > 1
    error = error_of(asked.result(), 422)
    assert "2 s of processor time" in json.dumps(error)


def test_schemas_fetch_nothing(service: RunningService) -> None:
    for address in ("http://127.0.0.1:8265/", "file:///etc/passwd", "http://169.254.169.254/"):
        body = {
            "name": "w",
            "tasks": {"t": task()},
            "input_schema": {"type": "object", "properties": {"x": {"$ref": address}}},
        }
        error_of(service.api.post("/workflows", json=body, timeout=20), 422)


@pytest.mark.parametrize(
    "query",
    [
        *("limit=1000000000", "limit=0", "limit=-1", "limit=x", "limit=1e3", "page=-1", "page=0"),
        *("page=99999999999999999999", "sort_by=__class__", "sort_order=sideways"),
        *("limit=10&limit=20", "unknown=1", "limit="),
    ],
)
def test_lists_take_no_odd_questions(service: RunningService, query: str) -> None:
    answer = service.api.get(f"/workflows?{query}")
    assert answer.status_code in (400, 422)
    error_of(answer, answer.status_code)


def test_errors_are_data_and_show_nothing_of_the_inside(service: RunningService) -> None:
    script = "<script>alert(1)</script>"
    answers = {
        404: service.api.get(f"/workflows/{script}"),
        405: service.api.patch("/workflows", json={}),
        422: service.api.post("/workflows", json={"name": script, "tasks": {script: 1}}),
        400: service.api.post("/workflows", content=script),
        401: service.client(None).get("/workflows"),
    }
    for status, answer in answers.items():
        # A type that is no type is malformed.
        status = 400 if status == 422 and answer.status_code == 400 else status  # noqa: PLW2901
        error_of(answer, status)
        assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert service.key not in "".join(answer.text for answer in answers.values())


def test_what_the_service_decides_cannot_be_sent_along(service: RunningService) -> None:
    created = service.create({"t": task()})
    for field in ("status", "execution_id", "owner", "created_at", "epoch", "task_status"):
        body = {"workflow_id": created, field: "completed"}
        error_of(service.api.post("/executions", json=body), 422)
