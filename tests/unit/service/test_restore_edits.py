"""Restoring with edits: what is to run may be given something else, what has run may not."""

from __future__ import annotations

from typing import Any

import pytest

from harmonia_actors.core.errors import Conflict, InvalidRequest, ValidationFailed
from harmonia_actors.core.requests import Edits, Once, PageRequest
from tests.unit.service.conftest import MakeWorld, World, problems

TASKS: dict[str, Any] = {
    "a": {"input": {"value": {"n": "${workflow.input.first}"}}},
    "b": {"action": "hold", "depends_on": ["a"], "input": {"value": "${workflow.input.second}"}},
    "c": {"depends_on": ["b"], "input": {"value": {"last": "${tasks.b.output.value}"}}},
}
GIVEN = {"first": 1, "second": 2}


async def at_b(world: World, **fields: Any) -> dict[str, Any]:
    """A checkpoint in which `a` has completed and `b` runs."""
    execution_id = await world.start(TASKS, GIVEN, **fields)
    await world.began(execution_id, "b")
    return await world.gateway.create_checkpoint(execution_id, name="cp", description="")


async def restored(world: World, made: dict[str, Any], **edits: Any) -> dict[str, Any]:
    """How a restored execution ends."""
    world.gates.open("b")
    reply = await world.gateway.restore(made["checkpoint_id"], {}, edits=Edits(**edits))
    return await world.ended(reply.document["execution_id"])


async def refused(world: World, made: dict[str, Any], **edits: Any) -> Any:
    with pytest.raises((Conflict, ValidationFailed, InvalidRequest)) as caught:
        await world.gateway.restore(made["checkpoint_id"], {}, edits=Edits(**edits))
    return caught


async def test_a_task_that_has_not_completed_is_given_another_input(world: World) -> None:
    made = await at_b(world)
    new = {"value": ["${tasks.a.output.n}", "${workflow.input.second}", "x"]}
    found = await restored(world, made, task_inputs={"b": new})
    assert found["output"] == {"last": [1, 2, "x"]}
    assert found["task_status"]["a"]["output"] == {"n": 1}
    assert found["edits"] == {"input": {}, "task_inputs": {"b": new}}
    assert found["input"] == GIVEN
    workflow = await world.gateway.get_workflow(made["workflow_id"])
    assert workflow["tasks"]["b"]["input"] == TASKS["b"]["input"], "the workflow stays as it is"
    plain = await restored(world, made)
    assert plain["output"] == {"last": 2}
    assert "edits" not in plain


async def test_values_of_the_input_are_replaced(world: World) -> None:
    made = await at_b(world)
    found = await restored(world, made, input={"second": {"x": None}, "third": 3})
    assert found["output"] == {"last": {"x": None}}
    assert found["input"] == {"first": 1, "second": {"x": None}, "third": 3}
    assert found["edits"] == {"input": {"second": {"x": None}, "third": 3}, "task_inputs": {}}


async def test_both_together(world: World) -> None:
    made = await at_b(world)
    new = {"value": "${workflow.input.third}"}
    found = await restored(world, made, input={"third": 3}, task_inputs={"b": new})
    assert found["output"] == {"last": 3}


async def test_the_edits_are_those_of_what_is_restored_from_it_too(world: World) -> None:
    made = await at_b(world)
    reply = await world.gateway.restore(
        made["checkpoint_id"], {}, edits=Edits(task_inputs={"b": {"value": "edited"}})
    )
    await world.began(reply.document["execution_id"], "b")
    again = await world.gateway.create_checkpoint(
        reply.document["execution_id"], name="again", description=""
    )
    found = await restored(world, again, task_inputs={"c": {"value": ["${tasks.b.output.value}"]}})
    assert found["output"] == {"c": ["edited"]}
    assert found["edits"]["task_inputs"].keys() == {"c"}


async def test_what_failed_may_be_edited(world: World) -> None:
    tasks = {"a": {}, "b": {"action": "crash", "depends_on": ["a"]}, "c": {"depends_on": ["b"]}}
    ended = await world.run(tasks)
    made = await world.gateway.create_checkpoint(ended["execution_id"], name="x", description="")
    reply = await world.gateway.restore(
        made["checkpoint_id"], {}, edits=Edits(task_inputs={"c": {"value": 1}})
    )
    assert (await world.ended(reply.document["execution_id"]))["status"] == "failed"


# Refused: what outcomes were made of -------------------------------------------------------------


async def test_the_input_of_a_completed_task_is_not_edited(world: World) -> None:
    made = await at_b(world)
    caught = await refused(world, made, task_inputs={"a": {"value": 1}, "b": {"value": 1}})
    assert caught.type is Conflict
    assert "task 'a' is completed" in str(caught.value)
    assert "restore from an earlier checkpoint" in str(caught.value)
    assert caught.value.details == {"tasks": [{"task": "a", "status": "completed"}], "total": 1}


@pytest.mark.parametrize("value", [2, "1", True, 1.0, None])
async def test_an_input_that_a_completed_task_was_given_is_not_edited(
    world: World, value: Any
) -> None:
    made = await at_b(world)
    caught = await refused(world, made, input={"first": value, "second": 9})
    assert caught.type is Conflict
    assert "input.first: task 'a'" in str(caught.value)
    assert caught.value.details["inputs"] == {"first": [{"task": "a", "status": "completed"}]}


async def test_an_edit_that_changes_nothing_is_none(world: World) -> None:
    made = await at_b(world)
    found = await restored(world, made, input={"first": 1, "second": 5})
    assert found["output"] == {"last": 5}


async def test_a_completed_task_that_was_given_the_whole_input_was_given_each(
    world: World,
) -> None:
    tasks = {**TASKS, "a": {"input": {"value": "${workflow.input}"}}}
    execution_id = await world.start(tasks, GIVEN)
    await world.began(execution_id, "b")
    made = await world.gateway.create_checkpoint(execution_id, name="cp", description="")
    for edit in ({"second": 9}, {"third": 3}):
        caught = await refused(world, made, input=edit)
        assert caught.type is Conflict
    page = PageRequest(page=1, limit=10)
    listed = await world.gateway.list_executions(page, workflow_id=None, status=None)
    assert listed["total"] == 1, "nothing was made"


async def test_many_inputs_of_many_completed_tasks_are_counted_and_a_few_are_named(
    world: World,
) -> None:
    """Pairs of them are many more than either: 145,000 inputs and 10,000 tasks fit in bodies."""
    whole = {"input": {"value": "${workflow.input}"}}
    tasks = {f"a{n:02}": whole for n in range(60)}
    execution_id = await world.start({**tasks, "b": {"action": "hold", "depends_on": [*tasks]}}, {})
    await world.began(execution_id, "b")
    made = await world.gateway.create_checkpoint(execution_id, name="cp", description="")
    names = [f"new{n:04}" for n in range(2_000)]
    caught = await refused(world, made, input=dict.fromkeys(reversed(names)))
    assert caught.type is Conflict
    assert "input.new0000: task 'a00' refers to it (and 59 more like it)" in str(caught.value)
    assert caught.value.details["total"] == 2_000
    told = caught.value.details["inputs"]
    assert [*told] == names[:50]
    for users in told.values():
        assert [user["task"] for user in users] == [*tasks][:50]


# Refused: what is not valid ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("task_inputs", "field", "says"),
    [
        ({"bb": {}}, "task_inputs.bb", "did you mean 'b'?"),
        ({"b": {"value": "${tasks.c.output}"}}, "task_inputs.b", "depends_on"),
        ({"b": {"value": "${tasks.zz.output}"}}, "task_inputs.b.value", "zz"),
        ({"b": {"value": ["${"]}}, "task_inputs.b.value[0]", "${"),
        ({"b": {"nothing": 1}}, "task_inputs.b.nothing", "no such input"),
        ({"b": 3}, "task_inputs.b", "object"),
        ({"b": {"value": "${workflow.input.third}"}}, "input.third", "is required"),
    ],
)
async def test_an_edited_input_is_checked_like_a_new_one(
    world: World, task_inputs: dict[str, Any], field: str, says: str
) -> None:
    made = await at_b(world)
    caught = await refused(world, made, task_inputs=task_inputs)
    assert caught.type is ValidationFailed
    found = problems(caught)
    assert says in found[field]


async def test_of_many_unknown_tasks_the_first_are_named_and_likeness_is_sought_for_few(
    world: World,
) -> None:
    """Each guess holds the loop for milliseconds, and a body has room for 100,000 names."""
    made = await at_b(world)
    names = [f"b{chr(ord('一') + n)}" for n in range(5_000)]
    caught = await refused(world, made, task_inputs={name: {"value": 1} for name in names})
    told = problems(caught)
    assert [*told] == [f"task_inputs.{name}" for name in names[:50]]
    assert caught.value.details["total"] == 5_000
    assert sum("did you mean 'b'?" in message for message in told.values()) == 10


async def test_the_input_is_held_against_its_schema(world: World) -> None:
    schema = {"first": {"type": "integer"}, "second": {"type": "integer", "default": 4}}
    made = await at_b(world, input_schema=schema)
    for edit, field in (({"second": "x"}, "input.second"), ({"secnd": 1}, "input.secnd")):
        assert list(problems(await refused(world, made, input=edit))) == [field]
    assert (await restored(world, made, input={"second": 7}))["output"] == {"last": 7}
    unnamed = {"b": {"value": "${workflow.input.third}"}}
    assert list(problems(await refused(world, made, task_inputs=unnamed))) == [
        "task_inputs.b.value"
    ]


async def test_sizes_are_bounded_as_those_of_requests(make_world: MakeWorld) -> None:
    world = await make_world(body_bytes_max=1_000)
    made = await at_b(world)
    large = "x" * 1_000
    for edits in ({"input": {"second": large}}, {"task_inputs": {"b": {"value": large}}}):
        caught = await refused(world, made, **edits)
        assert caught.type is InvalidRequest
        assert caught.value.too_large


async def test_components_of_other_tasks_may_be_gone(world: World) -> None:
    """As without edits: what has completed needs them no more."""
    made = await at_b(world)
    action = world.gates.component.actions.pop("echo")
    try:
        caught = await refused(world, made, task_inputs={"c": {"value": 1}})
        assert [*problems(caught)] == ["tasks.c.action"]
        reply = await world.gateway.restore(
            made["checkpoint_id"], {}, edits=Edits(task_inputs={"b": {"value": 1}})
        )
    finally:
        world.gates.component.actions["echo"] = action
    assert reply.document["task_status"]["a"]["status"] == "completed"


# Once --------------------------------------------------------------------------------------------


async def test_edits_are_part_of_the_request_that_a_key_stands_for(world: World) -> None:
    made = await at_b(world)
    once, edits = Once("me", "k"), Edits(input={"second": 3})
    restore = world.gateway.restore
    first = await restore(made["checkpoint_id"], {}, edits=edits, once=once)
    again = await restore(made["checkpoint_id"], {}, edits=edits, once=once)
    assert again.document["execution_id"] == first.document["execution_id"]
    for other in (None, Edits(), Edits(input={"second": 4})):
        with pytest.raises(Conflict):
            await restore(made["checkpoint_id"], {}, edits=other, once=once)
