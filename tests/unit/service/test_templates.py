"""Templates keep a definition of their own, bind parameters to inputs, and make workflows."""

from __future__ import annotations

import re
from typing import Any

import pytest

from harmonia_actors.core.errors import TemplateNotFound, ValidationFailed, WorkflowNotFound
from harmonia_actors.core.requests import PageRequest
from tests.unit.service.conftest import MakeWorld, World, problems

USING = {"a": {"input": {"value": {"x": "${workflow.input.x}", "y": "${workflow.input.y ?? 0}"}}}}
SCHEMA = {
    "x": {"type": "integer", "required": True},
    "y": {"type": "integer", "default": 7},
}
ALL = PageRequest(page=1, limit=100)


async def template(world: World, **request: Any) -> dict[str, Any]:
    if "workflow_id" not in request and "definition" not in request:
        request["workflow_id"] = await world.workflow(USING, input_schema=SCHEMA)
    return await world.gateway.create_template({"name": "t", **request})


async def instance(world: World, made: dict[str, Any], **request: Any) -> dict[str, Any]:
    return await world.gateway.instantiate_template(made["template_id"], {"name": "i", **request})


async def output_of(world: World, workflow_id: str, given: dict[str, Any] | None = None) -> Any:
    reply = await world.gateway.execute(workflow_id, given or {}, {})
    return (await world.ended(reply.document["execution_id"]))["output"]


async def test_a_template_shows_its_parameters_and_where_it_is_from(world: World) -> None:
    workflow_id = await world.workflow(USING, input_schema=SCHEMA)
    parameters = {"x": {"type": "integer", "required": True}}
    made = await template(world, workflow_id=workflow_id, description="d", parameters=parameters)
    assert re.fullmatch(r"tmpl-[0-9a-f-]{36}", made["template_id"])
    assert made["workflow_id"] == workflow_id
    assert made["parameters"] == parameters
    assert (made["name"], made["description"]) == ("t", "d")
    shown = await world.gateway.get_template(made["template_id"])
    assert {**shown} == {**made, "tasks": shown["tasks"]}
    assert set(shown["tasks"]) == {"a"}


async def test_without_parameters_the_workflows_inputs_are_they(world: World) -> None:
    assert (await template(world))["parameters"] == SCHEMA
    whole = {
        "type": "object",
        "properties": {"x": {"type": "integer"}, "y": {"type": "integer"}},
        "required": ["x"],
    }
    made = await template(world, definition=world.definition(USING, input_schema=whole))
    with pytest.raises(ValidationFailed) as caught:
        await instance(world, made)
    assert problems(caught) == {"parameter_values.x": "is required"}
    bare = await template(world, definition=world.definition(USING))
    assert bare["parameters"] == {"x": {"required": True}}
    with pytest.raises(ValidationFailed):
        await instance(world, bare)
    made = await instance(world, bare, parameter_values={"x": 1})
    assert await output_of(world, made["workflow_id"]) == {"x": 1, "y": 0}


async def test_an_instance_runs_with_an_empty_input(world: World) -> None:
    made = await instance(world, await template(world), parameter_values={"x": 3})
    assert await output_of(world, made["workflow_id"]) == {"x": 3, "y": 7}
    assert await output_of(world, made["workflow_id"], {"x": 4, "y": 5}) == {"x": 4, "y": 5}


async def test_an_instance_is_a_workflow_that_knows_its_template(world: World) -> None:
    base = await template(world, description="of the template")
    made = await instance(world, base, parameter_values={"x": 3}, description="January")
    assert (made["name"], made["description"]) == ("i", "January")
    assert made["template_id"] == base["template_id"]
    assert re.fullmatch(r"wf-[0-9a-f-]{36}", made["workflow_id"])
    assert made["input_schema"]["x"]["default"] == 3
    shown = await world.gateway.get_workflow(made["workflow_id"])
    assert shown["template_id"] == base["template_id"]
    unnamed = await world.gateway.instantiate_template(
        base["template_id"], {"parameter_values": {"x": 1}}
    )
    assert (unnamed["name"], unnamed["description"]) == ("t", "of the template")


@pytest.mark.parametrize(
    ("values", "field", "words"),
    [
        ({}, "parameter_values.x", "is required"),
        ({"x": "three"}, "parameter_values.x", "integer"),
        ({"x": 1, "z": 1}, "parameter_values.z", "there is no such input"),
    ],
)
async def test_values_are_checked(
    world: World, values: dict[str, Any], field: str, words: str
) -> None:
    made = await template(world)
    with pytest.raises(ValidationFailed) as caught:
        await instance(world, made, parameter_values=values)
    assert words in problems(caught)[field]


async def test_inputs_that_are_no_parameters_stay_inputs(world: World) -> None:
    bare = world.definition(USING)
    made = await template(world, definition=bare, parameters={"y": {"type": "integer"}})
    one = await instance(world, made, parameter_values={"y": 2})
    assert await output_of(world, one["workflow_id"], {"x": 1}) == {"x": 1, "y": 2}
    with pytest.raises(ValidationFailed) as caught:
        await world.gateway.execute(one["workflow_id"], {}, {})
    assert "input.x" in problems(caught)


async def test_a_template_keeps_its_own_copy(world: World) -> None:
    workflow_id = await world.workflow(USING, input_schema=SCHEMA)
    made = await template(world, workflow_id=workflow_id)
    await world.gateway.replace_workflow(workflow_id, world.definition({"other": {}}))
    await world.gateway.delete_workflow(workflow_id)
    one = await instance(world, made, parameter_values={"x": 3})
    assert set(one["tasks"]) == {"a"}


async def test_a_template_from_a_definition_makes_the_workflow_it_shows(world: World) -> None:
    made = await template(world, definition=world.definition(USING, input_schema=SCHEMA))
    shown = await world.gateway.get_workflow(made["workflow_id"])
    assert shown["input_schema"] == SCHEMA


async def test_what_is_refused_leaves_no_workflow_behind(world: World) -> None:
    definition = world.definition(USING, input_schema=SCHEMA)
    with pytest.raises(ValidationFailed) as caught:
        await template(world, definition=definition, parameters={"xx": {"type": "integer"}})
    expected = "the workflow has no such input; did you mean 'x'?"
    assert problems(caught) == {"parameters.xx": expected}
    with pytest.raises(ValidationFailed):
        await template(world, definition=definition, parameters={"x": {"type": "nope"}})
    assert (await world.gateway.list_workflows(ALL))["total"] == 0
    assert (await world.gateway.list_templates(ALL))["total"] == 0


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        ({"name": "t"}, "workflow_id"),
        ({"name": "t", "workflow_id": "wf-1", "definition": {}}, "workflow_id"),
        ({"name": " ", "workflow_id": "wf-1"}, "name"),
        ({"name": "x" * 129, "workflow_id": "wf-1"}, "name"),
        ({"name": "t", "description": 5, "workflow_id": "wf-1"}, "description"),
        ({"name": "t", "description": "x" * 10_001, "workflow_id": "wf-1"}, "description"),
        ({"name": "t", "workflow_id": None, "definition": None}, "workflow_id"),
    ],
)
async def test_requests_that_are_not_good(
    world: World, request_: dict[str, Any], field: str
) -> None:
    with pytest.raises(ValidationFailed) as caught:
        await world.gateway.create_template(request_)
    assert set(problems(caught)) == {field}


async def test_what_is_not_there(world: World) -> None:
    missing = "tmpl-123e4567-e89b-12d3-a456-426614174000"
    gateway = world.gateway
    for call in (
        gateway.get_template(missing),
        gateway.delete_template(missing),
        gateway.instantiate_template(missing, {"name": "i"}),
    ):
        with pytest.raises(TemplateNotFound):
            await call
    with pytest.raises(WorkflowNotFound):
        await template(world, workflow_id="wf-123e4567-e89b-12d3-a456-426614174000")


async def test_null_means_that_nothing_is_given(world: World) -> None:
    workflow_id = await world.workflow(USING, input_schema=SCHEMA)
    made = await template(world, workflow_id=workflow_id, definition=None, parameters=None)
    assert made["parameters"] == SCHEMA
    own = world.definition(USING, input_schema=SCHEMA)
    made = await template(world, definition=own, workflow_id=None)
    assert made["parameters"] == SCHEMA


async def test_a_description_may_be_empty(world: World) -> None:
    made = await template(world, description="")
    assert made["description"] == ""
    instantiated = await instance(world, made, parameter_values={"x": 1}, description="")
    assert instantiated["description"] == ""


async def test_a_list_of_templates_leaves_their_parameters_out(world: World) -> None:
    made = await template(world, parameters={"x": {"type": "integer", "required": True}})
    (item,) = (await world.gateway.list_templates(ALL))["items"]
    assert item == {name: value for name, value in made.items() if name != "parameters"}


async def test_parameters_of_a_template_are_bounded(make_world: MakeWorld) -> None:
    world: World = await make_world(template_parameters_bytes_max=1_000)
    parameters = {"x": {"type": "integer", "required": True, "description": "d" * 1_000}}
    with pytest.raises(ValidationFailed) as caught:
        await template(world, parameters=parameters)
    assert "at most 1000" in problems(caught)["parameters"]
    schema = {**SCHEMA, "x": {"type": "integer", "description": "d" * 1_000}}
    of_workflow = await template(world, definition=world.definition(USING, input_schema=schema))
    assert of_workflow["parameters"] == schema, "those of the workflow are not kept twice"


async def test_templates_are_listed_and_deleted_without_their_workflows(world: World) -> None:
    one = await template(world)
    two = await template(world)
    made = await instance(world, one, parameter_values={"x": 1})
    found = await world.gateway.list_templates(ALL)
    assert found["total"] == 2
    assert {item["template_id"] for item in found["items"]} == {
        one["template_id"],
        two["template_id"],
    }
    await world.gateway.delete_template(one["template_id"])
    assert (await world.gateway.list_templates(ALL))["total"] == 1
    assert await output_of(world, made["workflow_id"]) == {"x": 1, "y": 7}
