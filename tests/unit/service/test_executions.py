"""Executions as the API sees them: started, waited for, shown, listed, cancelled, ended."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import pytest

from harmonia_actors.core import jsontext
from harmonia_actors.core.errors import (
    ComponentFailed,
    Conflict,
    ExecutionFailed,
    ExecutionNotFound,
    InvalidRequest,
    ResourceNotFound,
    ValidationFailed,
)
from harmonia_actors.core.requests import PageRequest
from tests.support.scripted_actors import until
from tests.unit.service.conftest import MakeWorld, World, problems

MISSING = "exec-123e4567-e89b-12d3-a456-426614174000"
ALL = PageRequest(page=1, limit=100)


# Start -------------------------------------------------------------------------------------------


async def test_a_start_answers_as_in_the_reference(world: World) -> None:
    workflow_id = await world.workflow(
        {"a": {"action": "hold"}}, input_schema={"x": {"default": 1}}
    )
    options = {"async": True, "timeout": 60, "retry_policy": {"max_retries": 1}}
    reply = await world.gateway.execute(workflow_id, {}, options)
    found = reply.document
    assert not reply.ended
    assert re.fullmatch(r"exec-[0-9a-f-]{36}", found["execution_id"])
    assert (found["workflow_id"], found["status"]) == (workflow_id, "pending")
    assert (found["input"], found["execution_options"]) == ({"x": 1}, options)
    assert found["created_at"] == found["updated_at"]


async def test_the_status_tells_all(world: World) -> None:
    tasks: dict[str, Any] = {
        "a": {"input": {"value": {"n": 1}}},
        "b": {"action": "hold", "depends_on": ["a"]},
        "c": {"depends_on": ["b"]},
    }
    execution_id = await world.start(tasks)
    await world.began(execution_id, "b")
    async for events in world.gateway.events(execution_id, after=3):
        if any(event.type == "task_started" for event in events):
            break
    found = await world.gateway.get_execution(execution_id, outputs=True)
    assert found["status"] == "running"
    assert found["progress"] == {
        "completed_tasks": 1,
        "total_tasks": 3,
        "current_task": "b",
        "running_tasks": ["b"],
        "running_count": 1,
    }
    a, b, c = (found["task_status"][name] for name in "abc")
    assert (a["status"], a["output"], a["attempt"], a["progress"]) == (
        "completed",
        {"n": 1},
        1,
        1.0,
    )
    assert (b["status"], b["completed_at"]) == ("running", None)
    assert (c["status"], c["started_at"], c["attempt"]) == ("pending", None, 0)
    assert "output" not in c
    world.gates.open("b")
    found = await world.ended(execution_id)
    assert found["progress"]["running_tasks"] == []
    assert found["completed_ms"] >= found["started_ms"] >= found["created_ms"]


async def test_input_is_checked_before_anything_is_made(world: World) -> None:
    workflow_id = await world.workflow({"a": {"input": {"value": "${workflow.input.x}"}}})
    with pytest.raises(ValidationFailed) as caught:
        await world.gateway.execute(workflow_id, {}, {"timeout": -1})
    assert "execution_options.timeout" in problems(caught)
    with pytest.raises(ValidationFailed) as caught:
        await world.gateway.execute(workflow_id, {}, {})
    assert problems(caught) == {"input.x": "is required: '${workflow.input.x}' refers to it"}
    listed = await world.gateway.list_executions(ALL, workflow_id=None, status=None)
    assert listed["total"] == 0


async def test_an_input_has_a_ceiling(make_world: MakeWorld) -> None:
    world = await make_world(body_bytes_max=1_000)
    workflow_id = await world.workflow()
    with pytest.raises(InvalidRequest) as caught:
        await world.gateway.execute(workflow_id, {"x": "y" * 2_000}, {})
    assert caught.value.too_large


async def test_resources_that_nothing_can_ever_give_are_refused(world: World) -> None:
    workflow_id = await world.workflow({"a": {"resources": {"num_gpus": 4}}})
    with pytest.raises(ValidationFailed) as caught:
        await world.gateway.execute(workflow_id, {}, {})
    assert "4 GPUs" in problems(caught)["tasks.a.resources"]


# Waiting for the end -----------------------------------------------------------------------------


async def test_a_request_may_wait_for_the_end(world: World) -> None:
    workflow_id = await world.workflow({"a": {"input": {"value": {"x": 1}}}})
    reply = await world.gateway.execute(workflow_id, {}, {"async": False})
    assert reply.ended
    assert (reply.document["status"], reply.document["output"]) == ("completed", {"x": 1})


@pytest.mark.parametrize(
    ("task", "kind", "code", "inner"),
    [
        ({"action": "crash"}, ComponentFailed, "component_error", "EXCEPTION"),
        (
            {"action": "fail_until", "input": {"attempt": 9}},
            ComponentFailed,
            "component_error",
            "NOT_YET",
        ),
        (
            {"input": {"value": "${workflow.input.x.y}"}},
            ExecutionFailed,
            "execution_error",
            "MISSING_VALUE",
        ),
    ],
)
async def test_a_failure_reaches_whoever_waits(
    world: World, task: dict[str, Any], kind: type[Exception], code: str, inner: str
) -> None:
    workflow_id = await world.workflow({"a": task})
    with pytest.raises(kind) as caught:
        await world.gateway.execute(workflow_id, {"x": {}}, {"async": False})
    error = caught.value
    assert isinstance(error, ComponentFailed | ExecutionFailed)
    assert error.details["task"] == "a"
    assert error.details["error"]["code"] == code
    assert error.details["error"]["details"]["code"] == inner
    found = await world.gateway.get_execution(error.details["execution_id"], outputs=True)
    assert found["status"] == "failed"


async def test_a_timeout_reaches_whoever_waits(world: World) -> None:
    workflow_id = await world.workflow({"a": {"action": "hold_async"}})
    with pytest.raises(ExecutionFailed) as caught:
        await world.gateway.execute(workflow_id, {}, {"async": False, "timeout": 0.01})
    assert caught.value.details["error"]["code"] == "timeout"


async def test_nobody_waits_for_ever(make_world: MakeWorld) -> None:
    world = await make_world(sync_wait_s_max=0)
    workflow_id = await world.workflow({"a": {"action": "hold"}})
    reply = await world.gateway.execute(workflow_id, {}, {"async": False})
    assert not reply.ended
    assert reply.document["status"] in ("pending", "running")


async def test_whoever_waits_learns_of_a_cancel(world: World) -> None:
    workflow_id = await world.workflow({"a": {"action": "hold_async"}})
    waiting = asyncio.ensure_future(world.gateway.execute(workflow_id, {}, {"async": False}))
    await until(lambda: world.gates.began)
    execution_id = world.gates.began[0][0].partition("/")[0]
    await world.gateway.cancel_execution(execution_id)
    reply = await waiting
    assert (reply.ended, reply.document["status"]) == (True, "cancelled")


# Retries and losses ------------------------------------------------------------------------------


async def test_retries_are_told_and_counted(world: World) -> None:
    policy = {"max_retries": 2, "retry_interval": 0.001}
    found = await world.run(
        {"a": {"action": "fail_until", "input": {"attempt": 3}}}, options={"retry_policy": policy}
    )
    assert (found["status"], found["output"]) == ("completed", {"attempt": 3})
    told = [e["data"] for e in await world.events(found["execution_id"]) if "failed" in e["type"]]
    assert [(d["attempt"], d["will_retry"]) for d in told] == [(1, True), (2, True)]
    assert told[0]["error_details"] == {"code": "NOT_YET", "wants": 3}


# Cancel ------------------------------------------------------------------------------------------


async def test_what_has_ended_cannot_be_cancelled(world: World) -> None:
    found = await world.run()
    with pytest.raises(Conflict) as caught:
        await world.gateway.cancel_execution(found["execution_id"])
    assert caught.value.details["status"] == "completed"
    with pytest.raises(ExecutionNotFound):
        await world.gateway.cancel_execution(MISSING)


async def test_a_cancel_may_be_asked_for_twice(world: World) -> None:
    execution_id = await world.start({"a": {"action": "hold_async"}})
    await world.began(execution_id, "a")
    first, second = await asyncio.gather(
        *(world.gateway.cancel_execution(execution_id) for _ in range(2))
    )
    assert first == second
    assert (await world.ended(execution_id))["status"] == "cancelled"
    kinds = [event["type"] for event in await world.events(execution_id)]
    assert kinds.count("execution_cancelled") == 1


# Lists -------------------------------------------------------------------------------------------


async def test_executions_are_listed_by_workflow_and_status(world: World) -> None:
    good = await world.workflow()
    bad = await world.workflow({"a": {"action": "crash"}})
    ids = []
    for workflow_id in (good, bad, good):
        reply = await world.gateway.execute(workflow_id, {}, {})
        ids.append(reply.document["execution_id"])
        await world.ended(ids[-1])

    async def listed(**filters: Any) -> set[str]:
        wanted = {"workflow_id": None, "status": None, **filters}
        found = await world.gateway.list_executions(ALL, **wanted)
        assert found["total"] == len(found["items"])
        return {item["execution_id"] for item in found["items"]}

    assert await listed() == set(ids)
    assert await listed(workflow_id=good) == {ids[0], ids[2]}
    assert await listed(status="failed") == {ids[1]}
    assert await listed(workflow_id=good, status="failed") == set()
    assert await listed(workflow_id="wf-nobody") == set()
    with pytest.raises(ValidationFailed):
        await listed(status="done")


async def test_running_ones_move_between_the_lists(world: World) -> None:
    execution_id = await world.start({"a": {"action": "hold"}})
    await world.began(execution_id, "a")
    filters: dict[str, Any] = {"workflow_id": None}
    found = await world.gateway.list_executions(ALL, status="running", **filters)
    assert [item["execution_id"] for item in found["items"]] == [execution_id]
    world.gates.open("a")
    await world.ended(execution_id)
    found = await world.gateway.list_executions(ALL, status="running", **filters)
    assert found["items"] == []


# Tasks and outputs -------------------------------------------------------------------------------


async def test_tasks_are_paged_in_the_order_of_definition(world: World) -> None:
    tasks: dict[str, Any] = {f"t{i}": {"input": {"value": i}} for i in range(5)}
    tasks["t0"]["depends_on"] = ["t4"]
    found = await world.run(tasks)
    page = await world.gateway.list_tasks(found["execution_id"], PageRequest(1, 2))
    assert [(t["task_name"], t["task_index"]) for t in page["items"]] == [("t0", 0), ("t1", 1)]
    assert (page["total"], page["items"][0]["depends_on"]) == (5, ["t4"])
    assert page["items"][1]["output"] == 1
    last = await world.gateway.list_tasks(found["execution_id"], PageRequest(3, 2))
    assert [t["task_name"] for t in last["items"]] == ["t4"]
    with pytest.raises(ExecutionNotFound):
        await world.gateway.list_tasks(MISSING, ALL)


async def test_the_status_tells_how_many_events_there_are(world: World) -> None:
    execution_id = await world.start({"a": {"action": "hold"}})
    await world.began(execution_id, "a")
    before = len(await world.events(execution_id))
    found = await world.gateway.get_execution(execution_id, outputs=False)
    assert before <= found["last_seq"] <= len(await world.events(execution_id))
    world.gates.open("a")
    assert (await world.ended(execution_id))["last_seq"] == 4
    assert len(await world.events(execution_id)) == 4


async def test_outputs_can_be_left_out(world: World) -> None:
    found = await world.run({"a": {"input": {"value": {"x": 1}}}})
    bare = await world.gateway.get_execution(found["execution_id"], outputs=False)
    assert bare["output"] is None
    assert "output" not in bare["task_status"]["a"]


@pytest.mark.parametrize("value", [None, 0, False, "", [], {}, "text", 10**30, {"a": None}])
async def test_every_json_value_is_an_output(world: World, value: Any) -> None:
    tasks = {
        "a": {"input": {"value": value}},
        "b": {"depends_on": ["a"], "input": {"value": {"got": "${tasks.a.output}"}}},
    }
    found = await world.run(tasks)
    assert found["task_status"]["a"]["output"] == value
    assert found["output"] == {"got": value}
    body = await world.gateway.get_task_output(found["execution_id"], "a")
    assert jsontext.decode(body) == value


async def test_outputs_that_are_not_there(world: World) -> None:
    execution_id = await world.start({"a": {"action": "hold"}})
    for call in (
        world.gateway.get_task_output(execution_id, "a"),
        world.gateway.get_task_output(execution_id, "nope"),
        world.gateway.get_execution_output(execution_id),
    ):
        with pytest.raises(ResourceNotFound):
            await call
    with pytest.raises(ExecutionNotFound):
        await world.gateway.get_execution_output(MISSING)


async def test_large_outputs_are_shown_by_where_they_are_and_used_in_full(
    make_world: MakeWorld,
) -> None:
    world = await make_world(inline_output_bytes_max=1_000)
    large = {"rows": ["x" * 100] * 50, "n": 5}
    tasks = {
        "big": {"input": {"value": large}},
        "use": {
            "depends_on": ["big"],
            "input": {
                "value": {"n": "${tasks.big.output.n}", "last": "${tasks.big.output.rows[49]}"}
            },
        },
        "copy": {"depends_on": ["big"], "input": {"value": "${tasks.big.output}"}},
    }
    found = await world.run(tasks)
    execution_id = found["execution_id"]
    size = len(jsontext.encode(large))
    descriptor = found["task_status"]["big"]["output"]
    assert descriptor["$ref"] == f"/executions/{execution_id}/tasks/big/output"
    assert descriptor["size"] == size
    assert jsontext.encode(large).decode().startswith(descriptor["preview"])
    assert found["task_status"]["use"]["output"] == {"n": 5, "last": "x" * 100}
    assert set(found["output"]) == {"use", "copy"}, "large sinks are not merged"
    assert found["output"]["copy"]["size"] == size
    body = await world.gateway.get_task_output(execution_id, "copy")
    assert jsontext.decode(body) == large
    (completed,) = [
        event["data"]["output"]
        for event in await world.events(execution_id)
        if event["type"] == "task_completed" and event["data"]["task_name"] == "big"
    ]
    assert completed == descriptor


async def test_the_outputs_in_one_answer_are_bounded(make_world: MakeWorld) -> None:
    world = await make_world(response_outputs_bytes_max=250)
    tasks = {f"t{i}": {"input": {"value": "x" * 98}} for i in range(4)}
    found = await world.run(tasks)
    shown = [type(found["task_status"][f"t{i}"]["output"]) for i in range(4)]
    assert shown == [str, str, dict, dict]
    assert set(found["output"]) == {"$ref", "size", "preview"}
    body = await world.gateway.get_execution_output(found["execution_id"])
    assert set(jsontext.decode(body)) == set(tasks)


async def test_the_tasks_in_one_answer_are_bounded(make_world: MakeWorld) -> None:
    world = await make_world(status_tasks_max=3)
    found = await world.run({f"t{i}": {} for i in range(5)})
    assert list(found["task_status"]) == ["t0", "t1", "t2"]
    assert found["task_status_truncated"] is True
    assert found["tasks_url"] == f"/executions/{found['execution_id']}/tasks"


async def test_the_output_may_be_a_mapping(world: World) -> None:
    output = {
        "n": "${tasks.a.output.n}",
        "text": "n is ${tasks.a.output.n}",
        "given": "${workflow.input.x}",
        "list": ["${tasks.a.output}", 5],
        "default": "${tasks.a.output.nope ?? 1}",
    }
    found = await world.run({"a": {"input": {"value": {"n": 7}}}}, {"x": [1]}, output=output)
    assert found["output"] == {
        "n": 7,
        "text": "n is 7",
        "given": [1],
        "list": [{"n": 7}, 5],
        "default": 1,
    }


async def test_an_output_that_cannot_be_made_fails_the_execution(world: World) -> None:
    found = await world.run({"a": {}}, output={"x": "${tasks.a.output.nope}"})
    assert found["status"] == "failed"
    assert found["task_status"]["a"]["status"] == "completed"
    assert found["error"]["code"] == "execution_error"
    assert "${tasks.a.output.nope}" in found["error"]["message"]


async def test_doubling_again_and_again_ends_at_the_ceiling(make_world: MakeWorld) -> None:
    """Forty levels of twice the former output would be a hundred terabytes."""
    world = await make_world(resolved_input_bytes_max=20_000)
    tasks: dict[str, Any] = {"t0": {"input": {"value": "x" * 100}}}
    for level in range(1, 40):
        before = f"${{tasks.t{level - 1}.output}}"
        tasks[f"t{level}"] = {
            "depends_on": [f"t{level - 1}"],
            "input": {"value": before + before if level % 2 else [before, before]},
        }
    found = await world.run(tasks)
    assert found["status"] == "failed"
    failed = [view for view in found["task_status"].values() if view["status"] == "failed"]
    assert [view["error"]["code"] for view in failed] == ["INPUT_TOO_LARGE"]
    assert failed[0]["error"]["details"] == {"type": "validation_error"}
    assert "larger than 20000 bytes" in failed[0]["error"]["message"]


async def test_what_a_task_returns_is_never_taken_for_a_reference(world: World) -> None:
    payload = "${workflow.input.secret} ${tasks.a.output} {{7*7}} %s {0.__class__}"
    tasks = {
        "a": {"input": {"value": "${workflow.input.payload}"}},
        "b": {"depends_on": ["a"], "input": {"value": {"got": "<${tasks.a.output}>"}}},
    }
    found = await world.run(tasks, {"payload": payload, "secret": "s3cret"})
    assert found["output"] == {"got": f"<{payload}>"}


# The rest of the door ----------------------------------------------------------------------------


async def test_health_tells_little_unless_asked(world: World) -> None:
    assert await world.gateway.health(detailed=False) == {"status": "ok"}
    await world.run()
    found = await world.gateway.health(detailed=True)
    assert found["durability"] == await world.gateway.durability()
    assert found["durability"]["promise"] == "none"
    assert found["executions"]["completed"] == 1
    assert await world.gateway.ready()
    metrics = await world.gateway.metrics()
    assert metrics["harmonia_executions_completed"] == 1.0
    promised = {name: value for name, value in metrics.items() if "store_promise" in name}
    assert promised == {
        "harmonia_store_promise_always": 0.0,
        "harmonia_store_promise_everysec": 0.0,
        "harmonia_store_promise_none": 1.0,
        "harmonia_store_promise_unknown": 0.0,
    }


async def test_components_are_listed(world: World) -> None:
    found = await world.gateway.list_components()
    assert {"ergon", "gates", "harmonia", "rhetor", "sophia"} <= {c["name"] for c in found["items"]}
    assert (await world.gateway.get_component("gates"))["name"] == "gates"
    with pytest.raises(ResourceNotFound, match="there are:"):
        await world.gateway.get_component("nope")
