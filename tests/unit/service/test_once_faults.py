"""A reply of the store that is lost in mid-request costs nothing but another send of the same."""

from __future__ import annotations

import pytest

from harmonia_actors.core.errors import Conflict, HarmoniaError, ServiceUnavailable
from tests.unit.service.conftest import MakeWorld, World
from tests.unit.service.once_operations import (
    ALL,
    ECHO,
    NAMES,
    ONCE,
    UNCERTAIN,
    counts,
    grown,
    operations,
    uncertain,
)


@pytest.mark.parametrize("name", NAMES)
async def test_a_lost_reply_loses_nothing_and_doubles_nothing(
    make_world: MakeWorld, name: str
) -> None:
    world, store = await uncertain(make_world)
    operation = (await operations(world))[name]
    before = await counts(world)
    store.lost = [operation.write]
    with pytest.raises(ServiceUnavailable):
        await operation(world.gateway)
    assert store.lost == []
    assert (await counts(world)) != before, "the write was carried out"
    made = await operation(world.installation.another_gateway())
    assert operation.id_of(made) == operation.id_of(await operation(world.gateway))
    assert (await counts(world))[operation.prefix] == before[operation.prefix] + 1


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("call", sorted(UNCERTAIN))
async def test_the_store_may_be_away_at_any_call(
    make_world: MakeWorld, name: str, call: str
) -> None:
    world, store = await uncertain(make_world)
    operation = (await operations(world))[name]
    before = await counts(world)
    store.lost = [call] * 3
    made = None
    for _ in range(5):
        try:
            made = await operation(world.gateway)
        except HarmoniaError as error:
            assert isinstance(error, ServiceUnavailable)
    assert made is not None
    store.lost = []
    also = {"wf": 1} if name == "template of a definition" else {}
    assert await grown(world, before) == {operation.prefix: 1, **also}


async def test_who_sends_again_starts_what_nobody_was_told_of(make_world: MakeWorld) -> None:
    world, store = await uncertain(make_world)
    workflow_id = await world.workflow({"a": {"input": {"value": 1}}})
    for owner in world.installation.running.values():
        owner.blind()
    store.lost = ["create_execution"]
    with pytest.raises(ServiceUnavailable):
        await world.gateway.execute(workflow_id, {}, {"async": False}, once=ONCE)
    reply = await world.gateway.execute(workflow_id, {}, {"async": False}, once=ONCE)
    assert (reply.ended, reply.document["output"]) == (True, {"a": 1})
    assert len(world.gates.began) == 1


async def test_an_execution_without_an_owner_is_wanted_again(world: World) -> None:
    for name in list(world.installation.running):
        await world.installation.kill_owner(name)
        await world.store.retire_owner(name)
    workflow_id = await world.workflow({"a": {"input": {"value": 1}}})
    first = await world.gateway.execute(workflow_id, {}, {}, once=ONCE)
    host = await world.installation.add_owner("late")
    world.installation.running["late"].blind()
    again = await world.gateway.execute(workflow_id, {}, {}, once=ONCE)
    assert again.document["execution_id"] == first.document["execution_id"]
    done = await world.ended(first.document["execution_id"])
    assert done["status"] == "completed"
    assert host.load == 0


async def test_a_template_that_was_half_made_is_finished(make_world: MakeWorld) -> None:
    world, store = await uncertain(make_world)
    request = {"name": "t", "definition": world.definition(ECHO)}
    store.lost = ["put_document"]
    with pytest.raises(ServiceUnavailable):
        await world.gateway.create_template(request, once=ONCE)
    assert (await counts(world))["tmpl"] == 0
    (half,) = (await world.gateway.list_workflows(ALL))["items"]
    with pytest.raises(Conflict):
        await world.gateway.create_template({**request, "name": "u"}, once=ONCE)
    await world.gateway.replace_workflow(half["workflow_id"], world.definition({"other": {}}))
    made = await world.gateway.create_template(request, once=ONCE)
    assert made["workflow_id"] == half["workflow_id"]
    shown = await world.gateway.get_template(made["template_id"])
    assert set(shown["tasks"]) == {"a"}, "what was sent, not what stands there now"
