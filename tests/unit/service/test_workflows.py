"""Workflows are checked, kept, replaced, listed and deleted; what runs keeps its own copy."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Coroutine
from typing import Any

import pytest

from harmonia_actors.core.errors import (
    ServiceUnavailable,
    ValidationFailed,
    WorkflowNotFound,
)
from harmonia_actors.core.requests import PageRequest
from persistence.errors import StoreUnavailable
from tests.unit.service.conftest import World, problems

ALL = PageRequest(page=1, limit=100)


async def test_what_was_created_is_read_back(world: World) -> None:
    definition = world.definition(
        {"a": {"input": {"value": "${workflow.input.x}"}}},
        description="d",
        version="1.2.3",
        input_schema={"x": {"type": "string"}},
        output={"r": "${tasks.a.output}"},
        timeout=60,
        metadata={"team": "data"},
    )
    made = await world.gateway.create_workflow(definition)
    assert re.fullmatch(r"wf-[0-9a-f-]{36}", made["workflow_id"])
    assert made["created_at"] == made["updated_at"]
    assert made["tasks"]["a"]["name"] == "a", "as in the reference, each task has its name"
    for key in ("name", "description", "version", "input_schema", "output", "timeout", "metadata"):
        assert made[key] == definition[key]
    assert await world.gateway.get_workflow(made["workflow_id"]) == made


async def test_a_workflow_is_replaced_by_what_is_sent(world: World) -> None:
    workflow_id = await world.workflow()
    before = await world.gateway.get_workflow(workflow_id)
    sent = {**before, "name": "renamed", "version": "2"}
    after = await world.gateway.replace_workflow(workflow_id, sent)
    assert (after["name"], after["version"]) == ("renamed", "2")
    assert after["created_at"] == before["created_at"]
    assert await world.gateway.get_workflow(workflow_id) == after


async def test_ids_and_times_cannot_be_chosen(world: World) -> None:
    made = await world.gateway.create_workflow(
        {**world.definition(), "workflow_id": "wf-mine", "created_at": "1999-01-01T00:00:00Z"}
    )
    assert made["workflow_id"] != "wf-mine"
    assert not made["created_at"].startswith("1999")


async def test_what_is_not_there_is_said_not_to_be(world: World) -> None:
    missing = "wf-123e4567-e89b-12d3-a456-426614174000"
    gateway = world.gateway
    for call in (
        gateway.get_workflow(missing),
        gateway.replace_workflow(missing, world.definition()),
        gateway.delete_workflow(missing),
        gateway.execute(missing, {}, {}),
    ):
        with pytest.raises(WorkflowNotFound) as caught:
            await call
        assert caught.value.details == {"requested_id": missing}


async def test_replacing_and_deleting_do_not_touch_what_runs(world: World) -> None:
    tasks = {"a": {"action": "hold"}, "b": {"depends_on": ["a"], "input": {"value": "first"}}}
    workflow_id = await world.workflow(tasks)
    reply = await world.gateway.execute(workflow_id, {}, {})
    execution_id = reply.document["execution_id"]
    await world.began(execution_id, "a")
    await world.gateway.replace_workflow(workflow_id, world.definition({"other": {}}))
    await world.gateway.delete_workflow(workflow_id)
    with pytest.raises(WorkflowNotFound):
        await world.gateway.get_workflow(workflow_id)
    world.gates.open("a")
    found = await world.ended(execution_id)
    assert found["status"] == "completed"
    assert found["output"] == {"b": "first"}


async def test_equal_definitions_do_not_share_their_fate(world: World) -> None:
    first, second = await world.workflow(), await world.workflow()
    await world.gateway.delete_workflow(first)
    assert (await world.gateway.get_workflow(second))["name"] == "w"


# Lists -------------------------------------------------------------------------------------------


async def test_lists_are_sorted_and_paged(world: World) -> None:
    versions = {"beta": "2", "alpha": "3", "Gamma": "1", "delta": "10"}
    for name, version in versions.items():
        definition = {**world.definition(), "name": name, "version": version}
        await world.gateway.create_workflow(definition)

    async def names(**page: Any) -> list[str]:
        found = await world.gateway.list_workflows(PageRequest(**{"page": 1, "limit": 9, **page}))
        assert found["total"] == 4
        return [item["name"] for item in found["items"]]

    assert await names(sort_by="name", descending=False) == ["Gamma", "alpha", "beta", "delta"]
    assert await names(sort_by="name", descending=True) == ["delta", "beta", "alpha", "Gamma"]
    assert await names(sort_by="version", descending=False) == ["Gamma", "delta", "beta", "alpha"]
    assert await names(sort_by="name", descending=False, page=2, limit=3) == ["delta"]
    assert await names(page=3, limit=3) == []
    assert set(await names()) == set(versions)


async def test_a_list_item_has_no_tasks(world: World) -> None:
    await world.workflow()
    (item,) = (await world.gateway.list_workflows(ALL))["items"]
    assert set(item) == {
        "workflow_id",
        "name",
        "description",
        "version",
        "created_at",
        "updated_at",
    }


@pytest.mark.parametrize("sort_by", ["__class__", "tasks", "", "id; drop"])
async def test_only_known_fields_sort(world: World, sort_by: str) -> None:
    with pytest.raises(ValidationFailed) as caught:
        await world.gateway.list_workflows(PageRequest(1, 10, sort_by=sort_by))
    expected = "must be one of: created_at, updated_at, name, version"
    assert problems(caught) == {"sort_by": expected}


async def test_what_was_replaced_moves_in_the_lists_and_what_was_deleted_leaves(
    world: World,
) -> None:
    one, two = await world.workflow(), await world.workflow()
    await world.gateway.replace_workflow(one, {**world.definition(), "name": "zz"})
    found = await world.gateway.list_workflows(PageRequest(1, 9, "name", descending=True))
    assert [item["workflow_id"] for item in found["items"]] == [one, two]
    await world.gateway.delete_workflow(one)
    assert (await world.gateway.list_workflows(ALL))["total"] == 1


# Large ones --------------------------------------------------------------------------------------


async def turns_meanwhile(work: Coroutine[Any, Any, Any]) -> int:
    """How often the loop comes to something else until the work is done."""
    task = asyncio.ensure_future(work)
    turns = 0
    while not task.done():
        await asyncio.sleep(0)
        turns += 1
    await task
    return turns


async def test_others_are_served_while_a_large_definition_is_worked_on(world: World) -> None:
    large = world.definition({f"t{n}": {"input": {"value": n}} for n in range(3_000)})
    assert await turns_meanwhile(world.gateway.create_workflow(large)) > 20
    (item,) = (await world.gateway.list_workflows(ALL))["items"]
    other = world.installation.another_gateway()
    assert await turns_meanwhile(other.get_workflow(item["workflow_id"])) > 20
    assert await turns_meanwhile(world.gateway.create_workflow(world.definition())) < 20


# What components say -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("task", "field", "words"),
    [
        ({"component": "gatez"}, "tasks.a.component", "component 'gatez' is not known"),
        ({"action": "ecko"}, "tasks.a.action", "component 'gates' has no action 'ecko'"),
        ({"input": {"valu": 1}}, "tasks.a.input.valu", "did you mean 'value'?"),
        ({"action": "fail_until"}, "tasks.a.input.attempt", "needs it"),
        ({"action": "fail_until", "input": {"attempt": "x"}}, "tasks.a.input.attempt", "integer"),
        (
            {"component": "ergon", "action": "execute_command", "input": {"command": 'curl "x'}},
            "tasks.a.input.command",
            "quot",
        ),
    ],
)
async def test_components_and_actions_are_checked_at_creation(
    world: World, task: dict[str, Any], field: str, words: str
) -> None:
    with pytest.raises(ValidationFailed) as caught:
        await world.workflow({"a": task})
    found = problems(caught)
    assert field in found, found
    assert words in found[field]


async def test_a_reference_is_not_judged_before_it_has_a_value(world: World) -> None:
    tasks = {"a": {"action": "fail_until", "input": {"attempt": "${workflow.input.n}"}}}
    workflow_id = await world.workflow(tasks)
    reply = await world.gateway.execute(workflow_id, {"n": 1}, {})
    assert (await world.ended(reply.document["execution_id"]))["status"] == "completed"


@pytest.mark.parametrize("schema", [{}, {"m": {"type": "integer"}}])
async def test_a_workflow_that_could_never_be_executed_is_refused(
    world: World, schema: dict[str, Any]
) -> None:
    tasks = {"a": {"input": {"value": {"n": ["${workflow.input.n}"]}}}}
    with pytest.raises(ValidationFailed) as caught:
        await world.workflow(tasks, input_schema=schema)
    assert "needs the input 'n'" in problems(caught)["tasks.a.input.value.n[0]"]
    workflow_id = await world.workflow(tasks)
    with pytest.raises(ValidationFailed) as caught:
        sent = world.definition(tasks, input_schema=schema)
        await world.gateway.replace_workflow(workflow_id, sent)
    assert "needs the input 'n'" in problems(caught)["tasks.a.input.value.n[0]"]


async def test_a_store_that_is_away_is_said_to_be(world: World) -> None:
    async def away(*_: object, **__: object) -> None:
        raise StoreUnavailable("refused")

    world.store.put_definition = away  # type: ignore[method-assign]
    with pytest.raises(ServiceUnavailable, match="nothing that was accepted is lost"):
        await world.workflow()
