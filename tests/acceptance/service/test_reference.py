"""Every REST example of the API reference, sent to the running service and held against it.

Requests go out as printed, with the ids that the service gave; where an example leaves out what
another one has in full (`{ ... }`), that stands in. `data_url` is on loopback where it is fetched.
"""

from __future__ import annotations

import copy
import io
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import pytest
from pypdf import PdfReader

from tests.acceptance.reference import ELIDED, assert_same_shape, load, operations
from tests.support.data_server import DataServer, data_server
from tests.support.exercised import Exercised, counts, expected, whole_module_runs
from tests.support.running import RunningService, until

SEEN = Exercised()
#: The reference's own, as printed.
DEFINITION = SEEN.operation("Create Workflow").request
PENDING = {"status": "pending", "started_at": None, "completed_at": None}


@pytest.fixture
def data() -> Iterator[DataServer]:
    """At its end every gate opens, so that a test that fails holds no task for the next one."""
    with data_server() as server:
        yield server


def held_definition(data: DataServer, *, process: str, report: str) -> dict[str, Any]:
    """Tasks and inputs of the reference's names; two tasks wait at gates of these names."""
    tasks = {
        "fetch_data": {"component": "harmonia", "action": "echo", "input": {"value": "fetched"}},
        "process_data": {**data.held(process), "depends_on": ["fetch_data"]},
        "generate_report": {**data.held(report), "depends_on": ["process_data"]},
    }
    return {**copy.deepcopy(DEFINITION), "tasks": tasks}


def create(service: RunningService, definition: dict[str, Any]) -> str:
    answer = service.api.post("/workflows", json=definition)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["workflow_id"])


def test_workflows_are_created_read_replaced_listed_and_deleted(service: RunningService) -> None:
    api = service.api
    sent = SEEN.request("Create Workflow")
    created = SEEN.response("Create Workflow", api.post("/workflows", json=sent))
    path = f"/workflows/{created['workflow_id']}"
    assert created == {**created, **sent}
    assert created["created_at"] == created["updated_at"]
    assert SEEN.response("Get Workflow", api.get(path)) == created

    sent = SEEN.request("Update Workflow")
    assert (sent["tasks"], sent["input_schema"]) == (ELIDED, ELIDED)
    sent.update(tasks=DEFINITION["tasks"], input_schema=DEFINITION["input_schema"])
    updated = SEEN.response("Update Workflow", api.put(path, json=sent))
    assert updated == {**created, **sent, "updated_at": updated["updated_at"]}
    assert updated["updated_at"] >= created["updated_at"]
    assert api.get(path).json() == updated

    # The newest alone: others, without a description or a version, show null for them.
    listed = SEEN.response("List Workflows", api.get("/workflows", params={"limit": 1}))
    everything = api.get("/workflows").json()
    assert (everything["page"], everything["limit"]) == (1, 20)
    assert everything["items"][:1] == listed["items"]
    summary = {key: updated[key] for key in updated if key not in ("tasks", "input_schema")}
    assert listed["items"][0] == summary

    deleted = SEEN.response("Delete Workflow", api.delete(path))
    assert deleted == SEEN.operation("Delete Workflow").response
    assert api.get(path).json()["error"]["code"] == "workflow_not_found"
    assert created["workflow_id"] not in api.get("/workflows").text


def test_the_error_example_is_answered_word_for_word(service: RunningService) -> None:
    example = load("errors")["example"]
    answer = service.api.get(f"/workflows/{example['error']['details']['requested_id']}")
    assert (answer.status_code, answer.json()) == (404, example)
    SEEN.marks.add((load("errors")["section"], "example", example["error"]["code"]))


def test_an_execution_is_shown_checkpointed_and_restored_as_printed(
    service: RunningService, data: DataServer
) -> None:
    api = service.api
    definition = held_definition(data, process="state-process", report="state-report")
    workflow_id = create(service, definition)
    sent = SEEN.request("Execute Workflow", workflow_id=workflow_id)
    started = SEEN.response("Execute Workflow", api.post("/executions", json=sent))
    assert started["status"] == "pending"
    assert started == {**started, **sent}
    execution_id = started["execution_id"]

    service.wait_running(execution_id, "process_data")
    running = SEEN.response("Get Execution Status", api.get(f"/executions/{execution_id}"))
    example = SEEN.operation("Get Execution Status").response
    assert running["status"] == example["status"]
    assert running["progress"] == {**running["progress"], **example["progress"]}
    assert statuses(running) == statuses(example)
    assert "output" not in running["task_status"]["process_data"]

    data.open("state-process")
    service.wait_running(execution_id, "generate_report")
    checkpoint = check_checkpoint(service, execution_id)
    restored = check_restore(service, checkpoint)
    data.open("state-report")
    for each in (execution_id, restored):
        assert_same_shape(done_example(), service.finish(each), "a completed execution")
    first, second = service.status(execution_id), service.status(restored)
    for name in ("fetch_data", "process_data"):
        assert second["task_status"][name] == first["task_status"][name]
    assert second["checkpoint_id"] == checkpoint["checkpoint_id"]


def statuses(document: dict[str, Any]) -> dict[str, str]:
    return {name: task["status"] for name, task in document["task_status"].items()}


def done_example() -> dict[str, Any]:
    """The printed status, as it is once all has completed."""
    example = copy.deepcopy(SEEN.operation("Get Execution Status").response)
    example["progress"]["current_task"] = None
    example["completed_at"] = example["updated_at"]
    fetched = example["task_status"]["fetch_data"]
    example["task_status"] = dict.fromkeys(example["task_status"], fetched)
    return dict(example)


def check_checkpoint(service: RunningService, execution_id: str) -> dict[str, Any]:
    """Checkpoint an execution whose report runs, as printed; the document."""
    sent = SEEN.request("Create Checkpoint", execution_id=execution_id)
    answer = service.api.post("/state/checkpoints", json=sent)
    checkpoint = SEEN.response("Create Checkpoint", answer)
    assert checkpoint == {**checkpoint, **sent}
    example = SEEN.operation("Create Checkpoint").response["task_states"]
    states = checkpoint["task_states"]
    assert {name: set(state) for name, state in states.items()} == {
        name: set(state) for name, state in example.items()
    }
    assert {name: state["status"] for name, state in states.items()} == {
        name: state["status"] for name, state in example.items()
    }
    assert states["fetch_data"]["output"] == {"value": "fetched"}
    return checkpoint


def check_restore(service: RunningService, checkpoint: dict[str, Any]) -> str:
    """Restore as printed; the new execution's id. Its report runs when this returns."""
    example = SEEN.operation("Restore from Checkpoint").response
    first = copy.deepcopy(example)
    first["task_status"]["generate_report"] = PENDING
    sent = SEEN.request("Restore from Checkpoint", checkpoint_id=checkpoint["checkpoint_id"])
    answer = service.api.post("/state/restore", json=sent)
    restored = SEEN.response("Restore from Checkpoint", answer, first)
    for name in ("checkpoint_id", "workflow_id"):
        assert restored[name] == checkpoint[name]
    assert restored["execution_id"] != checkpoint["execution_id"]
    assert restored["status"] == example["status"]
    assert restored["execution_options"] == sent["execution_options"]
    now = service.wait_running(restored["execution_id"], "generate_report")
    # The example shows the report as running: that is how the same document looks by now.
    assert_same_shape(example, now, "the restored execution")
    assert statuses(now) == statuses(example)
    return str(restored["execution_id"])


def test_an_execution_is_cancelled_as_printed(service: RunningService, data: DataServer) -> None:
    workflow_id = create(service, held_definition(data, process="cancel", report="cancel"))
    sent = SEEN.request("Execute Workflow", workflow_id=workflow_id)
    execution_id = service.api.post("/executions", json=sent).json()["execution_id"]
    service.wait_running(execution_id, "process_data")
    answer = service.api.post(f"/executions/{execution_id}/cancel")
    cancelled = SEEN.response("Cancel Execution", answer)
    example = SEEN.operation("Cancel Execution").response
    assert cancelled == {**example, "execution_id": execution_id}
    assert service.finish(execution_id)["status"] == "cancelled"


def test_executions_are_listed_by_workflow_and_status_page_by_page(
    service: RunningService, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    # More at a time than there are CPUs: an async action takes none.
    task = {"component": "testing", "action": "wait_for_file_async", "input": {"path": str(gate)}}
    workflow_id = create(service, {**copy.deepcopy(DEFINITION), "tasks": {"fetch_data": task}})
    body = SEEN.request("Execute Workflow", workflow_id=workflow_id)
    ids = [service.api.post("/executions", json=body).json()["execution_id"] for _ in range(3)]
    for execution_id in ids:
        service.wait_running(execution_id, "fetch_data")

    def listed(**parameters: Any) -> dict[str, Any]:
        query = SEEN.parameters("List Executions", **parameters)
        return SEEN.response("List Executions", service.api.get("/executions", params=query))

    def listed_ids(**parameters: Any) -> list[str]:
        found = listed(workflow_id=workflow_id, **parameters)
        assert found["total"] == len(ids)
        return [item["execution_id"] for item in found["items"]]

    assert listed_ids() == ids[::-1]
    assert listed(workflow_id=workflow_id)["limit"] == 20
    assert listed_ids(status="running") == ids[::-1]
    assert [listed_ids(page=page, limit=1) for page in (1, 2, 3)] == [[each] for each in ids[::-1]]
    beyond = service.api.get("/executions", params={"workflow_id": workflow_id, "page": 2}).json()
    assert beyond == {"items": [], "total": 3, "page": 2, "limit": 20}
    gate.touch()
    for execution_id in ids:
        service.finish(execution_id)
    assert listed_ids(status="completed") == ids[::-1]
    running = {"workflow_id": workflow_id, "status": "running"}
    assert service.api.get("/executions", params=running).json()["total"] == 0
    everything = listed()
    assert (everything["page"], everything["limit"]) == (1, 20)
    assert everything["total"] >= len(ids)


def test_workflows_are_sorted_and_paged_as_the_reference_says(service: RunningService) -> None:
    task = {"only": {"component": "harmonia", "action": "noop"}}
    named = [("sorted-b", "2.0"), ("sorted-c", "1.0"), ("sorted-a", "3.0")]
    made = {}
    for name, version in named:
        definition = {"name": name, "version": version, "tasks": task}
        made[create(service, definition)] = name
    second = next(iter(made))
    again = {"name": "sorted-b", "version": "2.0", "tasks": task}
    # Times are shown in whole seconds: a later one is one that shows.
    until(
        lambda: (
            (answer := service.api.put(f"/workflows/{second}", json=again).json())["updated_at"]
            > answer["created_at"]
        ),
        what="a later second",
    )
    by_creation = ["sorted-b", "sorted-c", "sorted-a"]
    orders = {
        "created_at": by_creation,
        "updated_at": ["sorted-c", "sorted-a", "sorted-b"],
        "name": ["sorted-a", "sorted-b", "sorted-c"],
        "version": ["sorted-c", "sorted-b", "sorted-a"],
    }
    for sort_by, order in orders.items():
        for sort_order in ("asc", "desc"):
            found = all_workflows(service, sort_by=sort_by, sort_order=sort_order)
            values = [item[sort_by] or "" for item in found]
            pairs = pairwise(values if sort_order == "asc" else values[::-1])
            assert all(one <= other for one, other in pairs), (sort_by, sort_order, values)
            mine = [made[item["workflow_id"]] for item in found if item["workflow_id"] in made]
            assert mine == (order if sort_order == "asc" else order[::-1]), (sort_by, sort_order)
    assert all_workflows(service) == all_workflows(service, sort_by="created_at", sort_order="desc")


def all_workflows(service: RunningService, **order: str) -> list[dict[str, Any]]:
    """The whole list, in pages of 7."""
    found: list[dict[str, Any]] = []
    page, total = 1, 1
    while len(found) < total:
        query = SEEN.parameters("List Workflows", page=page, limit=7, **order)
        listed = service.api.get("/workflows", params=query).json()
        total = listed["total"]
        assert (listed["page"], listed["limit"]) == (page, 7)
        assert len(listed["items"]) == min(7, total - len(found))
        found += listed["items"]
        page += 1
    assert len({item["workflow_id"] for item in found}) == total
    return found


def test_templates_are_created_and_instantiated_as_printed(
    service: RunningService, data: DataServer
) -> None:
    api = service.api
    workflow_id = create(service, DEFINITION)
    sent = SEEN.request("Create Template", workflow_id=workflow_id)
    template = SEEN.response("Create Template", api.post("/templates", json=sent))
    assert template == {**template, **sent}
    # A template has a copy of its own.
    assert api.delete(f"/workflows/{workflow_id}").status_code == 200

    path = f"/templates/{template['template_id']}/instantiate"
    sent = SEEN.request("Instantiate Template")
    made = SEEN.response("Instantiate Template", api.post(path, json=sent))
    assert made["template_id"] == template["template_id"]
    assert (made["name"], made["description"]) == (sent["name"], sent["description"])
    assert made["tasks"] == DEFINITION["tasks"]
    values = sent.pop("parameter_values")
    assert defaults(made) == values
    # The same, with data that is there: it needs no input any more.
    values.update(data_url=data.data_url, output_file="jan2025.csv")
    made = api.post(path, json={**sent, "parameter_values": values}).json()
    done = service.finish(service.start(made["workflow_id"]))
    assert done["status"] == "completed", done["error"]
    assert done["input"] == values
    analysis = done["task_status"]["process_data"]["output"]["results"]
    assert "comprehensive" in str(analysis)


def defaults(workflow: dict[str, Any]) -> dict[str, Any]:
    return {name: schema["default"] for name, schema in workflow["input_schema"].items()}


def test_the_references_own_workflow_runs_to_its_pdf(
    service: RunningService, data: DataServer
) -> None:
    api = service.api
    workflow_id = create(service, SEEN.request("Create Workflow"))
    body = SEEN.request("Execute Workflow", workflow_id=workflow_id)
    body["input"] = {
        "data_url": data.data_url,
        "output_file": "penguins.csv",
        "analysis_type": "comprehensive",
    }
    execution_id = api.post("/executions", json=body).json()["execution_id"]
    done = service.finish(execution_id)
    assert done["status"] == "completed", done["error"]
    assert_same_shape(done_example(), done, "the completed execution")
    report = done["output"]
    assert done["task_status"]["generate_report"]["output"] == report

    files = {
        item["path"]: item for item in api.get(f"/executions/{execution_id}/files").json()["items"]
    }
    assert {"penguins.csv", "generate_report.pdf"} <= set(files)
    assert report["report_file"].endswith("/generate_report.pdf")
    path = f"/executions/{execution_id}/files/generate_report.pdf"
    check_pdf(api.get(path), report)
    fetched = api.get(f"/executions/{execution_id}/files/penguins.csv").content
    assert fetched == httpx.get(data.data_url, trust_env=False).content


def check_pdf(answer: httpx.Response, report: dict[str, Any]) -> None:
    """A PDF with a picture for each chart, and with the data's own names and numbers."""
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/pdf"
    assert len(answer.content) == report["size_bytes"]
    pdf = PdfReader(io.BytesIO(answer.content))
    pictures = {image.data for page in pdf.pages for image in page.images}
    assert len(pictures) == report["generated_charts"] >= 3
    assert all(len(picture) > 1_000 for picture in pictures)
    text = " ".join(page.extract_text() for page in pdf.pages)
    for word in ("penguins", "344 rows", "Adelie", "bill", "flipper"):
        assert word in text, word


def test_the_openapi_document_has_the_references_examples(service: RunningService) -> None:
    answer = httpx.get(
        f"{service.url}/openapi.json", headers={"X-API-Key": service.key}, trust_env=False
    )
    assert answer.status_code == 200
    document = answer.json()
    schemas = document["components"]["schemas"]

    def examples(place: dict[str, Any]) -> Any:
        content = place["content"]["application/json"]["schema"]["$ref"]
        return schemas[content.rpartition("/")[2]].get("examples")

    for operation in operations():
        shown = document["paths"][f"/api/harmonia{operation.path}"][operation.method.lower()]
        if operation.request is not None and ELIDED not in operation.request.values():
            assert examples(shown["requestBody"]) == [operation.request], operation.name
        else:
            assert ("requestBody" in shown) == (operation.request is not None), operation.name
        if operation.name not in ("Delete Workflow", "Instantiate Template"):
            (example,) = examples(shown["responses"][str(operation.status)])
            assert_same_shape(operation.response, example, operation.name)
        named = {item["name"] for item in shown.get("parameters", ()) if item["in"] == "query"}
        assert set(operation.query_parameters) <= named, operation.name
    assert schemas["ProblemDocument"]["examples"] == [load("errors")["example"]]


def test_nothing_of_the_reference_was_left_out(request: pytest.FixtureRequest) -> None:
    if not whole_module_runs(request):
        pytest.skip("only a part of this module runs")
    wanted = expected("request", "response", "parameter", "example")
    assert wanted == SEEN.marks
    assert counts(SEEN.marks) == {
        ("Workflows API", "request"): 2,
        ("Workflows API", "response"): 5,
        ("Workflows API", "parameter"): 4,
        ("Executions API", "request"): 1,
        ("Executions API", "response"): 4,
        ("Executions API", "parameter"): 4,
        ("Templates API", "request"): 2,
        ("Templates API", "response"): 2,
        ("State API", "request"): 2,
        ("State API", "response"): 2,
        ("Error Responses", "example"): 1,
    }
