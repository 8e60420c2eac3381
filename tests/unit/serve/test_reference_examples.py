"""Every example that the API reference prints is accepted by the routes or fits their schemas."""

from __future__ import annotations

import copy
import json
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute
from pydantic import BaseModel

from harmonia_serve import examples, schemas
from harmonia_serve.gateway import StreamEvent
from harmonia_serve.openapi import described
from harmonia_serve.problems import status_of
from harmonia_serve.queries import ExecutionListQuery, WorkflowListQuery
from harmonia_serve.sse import frame
from tests.acceptance.reference import (
    ELIDED,
    Operation,
    assert_same_shape,
    load,
    operations,
    without_elisions,
)
from tests.unit.serve.conftest import API
from tests.unit.serve.gateway import MemoryGateway

OPERATIONS = operations()
MODELS: dict[str, type[BaseModel]] = {
    "Create Workflow": schemas.Workflow,
    "Get Workflow": schemas.Workflow,
    "Update Workflow": schemas.Workflow,
    "Delete Workflow": schemas.Message,
    "List Workflows": schemas.WorkflowPage,
    "Execute Workflow": schemas.Execution,
    "Get Execution Status": schemas.ExecutionState,
    "List Executions": schemas.ExecutionPage,
    "Cancel Execution": schemas.Cancellation,
    "Create Template": schemas.Template,
    "Instantiate Template": schemas.Instantiated,
    "Create Checkpoint": schemas.Checkpoint,
    "Restore from Checkpoint": schemas.Restored,
}


def test_the_data_is_complete_by_section() -> None:
    counted = {
        "Workflows API": (5, 2, 5),
        "Executions API": (4, 1, 4),
        "Templates API": (2, 2, 2),
        "State API": (2, 2, 2),
    }
    for section, expected in counted.items():
        mine = [operation for operation in OPERATIONS if operation.section == section]
        requests = sum(operation.request is not None for operation in mine)
        responses = sum(operation.response is not None for operation in mine)
        assert (len(mine), requests, responses) == expected, section
    assert len(load("websocket")["events"]) == 6
    assert len(load("sse")["events"]) == 3
    assert len(load("errors")["codes"]) == 12
    assert set(MODELS) == {operation.name for operation in OPERATIONS}


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.name)
def test_each_response_example_fits_the_documented_schema(
    app: FastAPI, operation: Operation
) -> None:
    model = MODELS[operation.name]
    model.model_validate(without_elisions(operation.response))
    route = next(
        route
        for route in app.routes
        if isinstance(route, APIRoute)
        and route.path == API + operation.path
        and operation.method in (route.methods or ())
    )
    assert route.response_model is model
    assert (route.status_code or 200) == operation.status


async def _exists(gateway: MemoryGateway, operation: Operation) -> None:
    """Put what the examples name by id into the gateway."""
    workflow = without_elisions(OPERATIONS[0].response)
    workflow["tasks"] = OPERATIONS[0].request["tasks"]
    gateway.workflows[workflow["workflow_id"]] = workflow
    state = without_elisions(_named("Get Execution Status").response)
    gateway.executions[state["execution_id"]] = state
    gateway.logs[state["execution_id"]] = []
    template = without_elisions(_named("Create Template").response)
    gateway.templates[template["template_id"]] = template
    checkpoint = without_elisions(_named("Create Checkpoint").response)
    gateway.checkpoints[checkpoint["checkpoint_id"]] = checkpoint


def _named(name: str) -> Operation:
    return next(operation for operation in OPERATIONS if operation.name == name)


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.name)
async def test_each_request_example_is_accepted_as_printed(
    client: httpx.AsyncClient, gateway: MemoryGateway, operation: Operation
) -> None:
    await _exists(gateway, operation)
    create = _named("Create Workflow").request
    body = copy.deepcopy(operation.request)
    if operation.name == "Update Workflow":
        # Printed with `{ ... }` for what the create has in full.
        assert (body["tasks"], body["input_schema"]) == (ELIDED, ELIDED)
        body.update(tasks=create["tasks"], input_schema=create["input_schema"])
    path = operation.path
    for identity in ("wf", "exec", "tmpl"):
        name = {"wf": "workflow_id", "exec": "execution_id", "tmpl": "template_id"}[identity]
        path = path.replace(f"{{{name}}}", f"{identity}-123e4567-e89b-12d3-a456-426614174000")
    raw = json.dumps(body).encode() if body is not None else None
    headers = {"Content-Type": "application/json"} if raw else {}
    answer = await client.request(operation.method, API + path, content=raw, headers=headers)
    assert answer.status_code == operation.status, answer.text
    MODELS[operation.name].model_validate(answer.json())


def test_list_parameters_are_those_of_the_reference() -> None:
    for name, model in (
        ("List Workflows", WorkflowListQuery),
        ("List Executions", ExecutionListQuery),
    ):
        assert set(_named(name).query_parameters) <= set(model.model_fields)
    assert WorkflowListQuery().model_dump() == {
        "page": 1,
        "limit": 20,
        "sort_by": "created_at",
        "sort_order": "desc",
    }


def test_each_event_example_fits_the_message_schema() -> None:
    section = load("websocket")
    assert set(section["message_format"]) == set(schemas.StreamMessage.model_fields)
    for event in section["events"]:
        schemas.StreamMessage.model_validate(without_elisions(event["message"]))


async def test_sse_frames_have_the_form_of_the_examples() -> None:
    for event in load("sse")["events"]:
        data = json.dumps(event["data"], separators=(",", ":")).encode()
        told = StreamEvent(7, event["event"], b'{"data":' + data + b"}", len(b'{"data":'), False)
        lines = frame(told).decode().split("\n")
        assert lines == ["id: 7", f"event: {event['event']}", f"data: {data.decode()}", "", ""]


def test_each_error_code_has_its_status_in_the_table() -> None:
    from harmonia_actors.core import errors

    section = load("errors")
    schemas.ProblemDocument.model_validate(section["example"])
    classes = {
        kind.code: kind
        for kind in vars(errors).values()
        if isinstance(kind, type)
        and issubclass(kind, errors.HarmoniaError)
        and "code" in vars(kind)
    }
    for row in section["codes"]:
        kind = classes[row["code"]]
        error = kind.__new__(kind)
        assert not getattr(error, "too_large", False)
        error.too_large = False  # type: ignore[attr-defined]
        assert status_of(error) == row["status"], row["code"]


def test_the_openapi_document_shows_the_examples(app: FastAPI) -> None:
    document = json.loads(described(app))
    shown = document["components"]["schemas"]
    requests = {
        "Create Workflow": "WorkflowRequest",
        "Execute Workflow": "ExecuteRequest",
        "Create Template": "TemplateRequest",
        "Instantiate Template": "InstantiateRequest",
        "Create Checkpoint": "CheckpointRequest",
        "Restore from Checkpoint": "RestoreRequest",
    }
    for name, schema in requests.items():
        operation = _named(name)
        assert shown[schema]["examples"] == [operation.request]
        documented = document["paths"][API + operation.path][operation.method.lower()]
        reference = documented["requestBody"]["content"]["application/json"]["schema"]["$ref"]
        assert reference == f"#/components/schemas/{schema}"
    for name, example in examples.RESPONSES.items():
        assert shown[name if name != "Problem" else "ProblemDocument"]["examples"] == [example]


def test_every_reference_in_the_openapi_document_leads_somewhere(app: FastAPI) -> None:
    document = json.loads(described(app))
    text = json.dumps(document)
    for name in {part.split('"')[0] for part in text.split("#/components/schemas/")[1:]}:
        assert name in document["components"]["schemas"]
    code = {row["code"] for row in load("errors")["codes"]}
    assert all(f"`{name}`" in document["info"]["description"] for name in code)


@pytest.mark.parametrize(
    ("example", "actual"),
    [
        ({"a": 1}, {}),
        ({"a": 1}, {"a": "1"}),
        ({"a": 1}, {"a": True}),
        ({"a": "x"}, {"a": None}),
        ({"a": []}, {"a": {}}),
        ({"a": [{"b": 1}, ELIDED]}, {"a": [{"b": 1}, {"c": 1}]}),
        ({"a": [1]}, {"a": []}),
        ("2025-01-15T12:00:00Z", "2025-01-15 12:00:00"),
        ("2025-01-15T12:00:00Z", None),
        ("wf-123e4567-e89b-12d3-a456-426614174000", "exec-123e4567-e89b-12d3-a456-426614174000"),
        ("wf-123e4567-e89b-12d3-a456-426614174000", "wf-1"),
        (None, {}),
    ],
)
def test_another_shape_is_told_from_the_example(example: Any, actual: Any) -> None:
    with pytest.raises(AssertionError):
        assert_same_shape(example, actual)


def test_the_same_shape_may_have_other_values_and_more_keys() -> None:
    example = {"id": "wf-123e4567-e89b-12d3-a456-426614174000", "n": 1, "at": None, "t": ELIDED}
    actual = {
        "id": "wf-abcde123-f456-789d-e012-3456789abcde",
        "n": 1.5,
        "at": "now",
        "t": 3,
        "u": 1,
    }
    assert_same_shape(example, actual)
    assert_same_shape({"items": [{"a": 1}, ELIDED]}, {"items": [{"a": 2}, {"a": 3, "b": 4}]})
