"""Requests with an idempotency key make one thing, however often and however they are sent."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harmonia_actors.core.errors import ComponentFailed, Conflict, ValidationFailed
from harmonia_actors.core.requests import ExecutionReply, Once
from harmonia_actors.runtime.service.once import creation_of
from harmonia_actors.runtime.service.parts import Launcher
from tests.unit.service.conftest import MakeWorld, World
from tests.unit.service.once_operations import (
    ECHO,
    NAMES,
    ONCE,
    at_rest,
    counts,
    grown,
    operations,
    uncertain,
)


class NotingLauncher:
    """Passes everything on, and notes with how much it is told to start an execution."""

    def __init__(self, launcher: Launcher) -> None:
        self.launcher = launcher
        self.starts: list[set[str]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.launcher, name)

    async def start(
        self, owner: str, execution_id: str, definition: str, fields: Mapping[str, bytes]
    ) -> None:
        self.starts.append(set(fields))
        await self.launcher.start(owner, execution_id, definition, fields)


# The same request --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
async def test_sent_again_it_is_answered_like_the_first_time(world: World, name: str) -> None:
    operation = (await operations(world))[name]
    first = await operation(world.gateway)
    before = await counts(world)
    for gateway in (world.gateway, world.installation.another_gateway()):
        again = await operation(gateway)
        assert set(again) == set(first)
        assert at_rest(again) == at_rest(first)
    assert await counts(world) == before
    made = uuid.UUID(operation.id_of(first).removeprefix(f"{operation.prefix}-"))
    assert made.variant == uuid.RFC_4122
    assert made.version == (4 if operation.prefix == "exec" else 8)


@pytest.mark.parametrize("name", NAMES)
async def test_many_at_once_make_one(make_world: MakeWorld, name: str) -> None:
    world, _ = await uncertain(make_world)
    operation = (await operations(world))[name]
    before = await counts(world)
    replicas = [world.gateway, world.installation.another_gateway()]
    sends = (operation(replicas[number % 2]) for number in range(50))
    answers = await asyncio.gather(*sends)
    assert len({operation.id_of(answer) for answer in answers}) == 1
    also = {"wf": 1} if name == "template of a definition" else {}
    assert await grown(world, before) == {operation.prefix: 1, **also}


async def test_one_execution_is_started_once(make_world: MakeWorld) -> None:
    world, _ = await uncertain(make_world)
    workflow_id = await world.workflow({"a": {"input": {"value": 1}}})
    sends = (world.gateway.execute(workflow_id, {}, {}, once=ONCE) for _ in range(50))
    (execution_id,) = {reply.document["execution_id"] for reply in await asyncio.gather(*sends)}
    done = await world.ended(execution_id)
    await world.gateway.execute(workflow_id, {}, {}, once=ONCE)
    assert (done["status"], done["output"]) == ("completed", {"a": 1})
    assert len(world.gates.began) == 1
    assert await world.gateway.get_execution(execution_id, outputs=True) == done


async def test_only_who_made_it_starts_it_from_what_was_sent(make_world: MakeWorld) -> None:
    """An owner that is given the fields believes that nobody has driven the execution before."""
    for seed in range(5):
        world, _ = await uncertain(make_world, seed)
        workflow_id = await world.workflow()
        launcher = NotingLauncher(world.gateway.parts.launcher)
        gateway = world.installation.another_gateway(launcher=launcher)
        await asyncio.gather(*(gateway.execute(workflow_id, {}, {}, once=ONCE) for _ in range(9)))
        assert len([fields for fields in launcher.starts if fields]) == 1


async def test_another_caller_or_another_key_means_another_thing(world: World) -> None:
    workflow_id = await world.workflow()
    keys = [ONCE, Once("caller", "other"), Once("other", ONCE.key), None, None]
    replies = [await world.gateway.execute(workflow_id, {}, {}, once=once) for once in keys]
    assert len({reply.document["execution_id"] for reply in replies}) == len(keys)


async def test_without_a_key_nothing_more_is_stored(world: World) -> None:
    made = await world.gateway.create_workflow(world.definition())
    reply = await world.gateway.execute(made["workflow_id"], {}, {})
    stored = await world.store.get_document("workflow", made["workflow_id"])
    snapshot = await world.store.read_execution(reply.document["execution_id"])
    assert stored is not None
    assert b'"request"' not in stored.body
    assert snapshot is not None
    assert set(snapshot.fields) == {"head", "input", "options"}


async def test_whoever_waits_waits_for_the_same_one(make_world: MakeWorld) -> None:
    world, _ = await uncertain(make_world)
    workflow_id = await world.workflow({"a": {"input": {"value": {"n": 1}}}})
    sends = (world.gateway.execute(workflow_id, {}, {"async": False}, once=ONCE) for _ in range(9))
    replies = await asyncio.gather(*sends)
    assert all(reply.ended for reply in replies)
    assert all(reply.document == replies[0].document for reply in replies)
    assert replies[0].document["output"] == {"n": 1}


async def test_a_failure_is_told_again(world: World) -> None:
    workflow_id = await world.workflow({"a": {"action": "crash"}})
    told = []
    for _ in range(2):
        with pytest.raises(ComponentFailed) as caught:
            await world.gateway.execute(workflow_id, {}, {"async": False}, once=ONCE)
        told.append((caught.value.message, caught.value.details))
    assert told[0] == told[1]


# Another request ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
async def test_another_body_is_a_conflict(world: World, name: str) -> None:
    operation = (await operations(world))[name]
    made = operation.id_of(await operation(world.gateway))
    before = await counts(world)
    with pytest.raises(Conflict) as caught:
        await operation(world.gateway, ONCE, "two")
    assert f"'{ONCE.key}'" in caught.value.message
    assert "a new key" in caught.value.message
    assert caught.value.details["idempotency_key"] == ONCE.key
    if name != "template of a definition":  # it has made two things
        assert caught.value.details["made"] == made
    assert await counts(world) == before


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("seed", range(4))
async def test_of_two_bodies_at_once_one_wins(make_world: MakeWorld, name: str, seed: int) -> None:
    world, store = await uncertain(make_world, seed)
    operation = (await operations(world))[name]
    before = await counts(world)
    bodies = [store.rng.choice(("one", "two")) for _ in range(12)]
    answers = await asyncio.gather(
        *(operation(world.gateway, ONCE, body) for body in bodies), return_exceptions=True
    )
    won = {body for body, answer in zip(bodies, answers, strict=True) if isinstance(answer, dict)}
    assert len(won) == 1
    for body, answer in zip(bodies, answers, strict=True):
        assert isinstance(answer, dict if body in won else Conflict), answer
    assert len({operation.id_of(a) for a in answers if isinstance(a, dict)}) == 1
    assert (await counts(world))[operation.prefix] == before[operation.prefix] + 1


async def test_the_winner_runs_with_its_own_input(make_world: MakeWorld) -> None:
    for seed in range(10):
        world, _ = await uncertain(make_world, seed)
        workflow_id = await world.workflow(ECHO)
        sends = (world.gateway.execute(workflow_id, {"x": x}, {}, once=ONCE) for x in range(6))
        answers = await asyncio.gather(*sends, return_exceptions=True)
        (winner,) = (answer for answer in answers if isinstance(answer, ExecutionReply))
        done = await world.ended(winner.document["execution_id"])
        assert done["output"] == {"a": winner.document["input"]["x"]}
        assert len(world.gates.began) == 1


@pytest.mark.parametrize("first", NAMES)
async def test_another_operation_is_a_conflict(world: World, first: str) -> None:
    known = await operations(world)
    await known[first](world.gateway)
    before = await counts(world)
    for name in NAMES:
        if name != first:
            with pytest.raises(Conflict):
                await known[name](world.gateway)
    assert await counts(world) == before


async def test_a_request_that_was_refused_has_used_no_key(world: World) -> None:
    workflow_id = await world.workflow({"a": {"input": {"value": "${workflow.input.x}"}}})
    with pytest.raises(ValidationFailed):
        await world.gateway.execute(workflow_id, {}, {}, once=ONCE)
    with pytest.raises(ValidationFailed):
        await world.gateway.create_workflow({"name": "w", "tasks": {}}, once=ONCE)
    assert (await counts(world))["exec"] == 0
    reply = await world.gateway.execute(workflow_id, {"x": 1}, {}, once=ONCE)
    assert (await world.ended(reply.document["execution_id"]))["output"] == {"a": 1}


# What has changed between two sends --------------------------------------------------------------


async def test_the_workflow_may_be_replaced_or_deleted_in_between(world: World) -> None:
    workflow_id = await world.workflow({"a": {"input": {"value": "old"}}})
    first = await world.gateway.execute(workflow_id, {}, {}, once=ONCE)
    needing = world.definition({"b": {"input": {"value": "${workflow.input.needed}"}}})
    await world.gateway.replace_workflow(workflow_id, needing)
    again = await world.gateway.execute(workflow_id, {}, {}, once=ONCE)
    assert at_rest(again.document) == at_rest(first.document)
    with pytest.raises(ValidationFailed):
        await world.gateway.execute(workflow_id, {}, {}, once=Once("caller", "other"))
    await world.gateway.delete_workflow(workflow_id)
    again = await world.gateway.execute(workflow_id, {}, {}, once=ONCE)
    assert at_rest(again.document) == at_rest(first.document)
    done = await world.ended(first.document["execution_id"])
    assert done["output"] == {"a": "old"}


async def test_a_workflow_that_was_replaced_is_still_the_one_that_was_made(world: World) -> None:
    definition = world.definition(version="1")
    made = await world.gateway.create_workflow(definition, once=ONCE)
    await world.gateway.replace_workflow(made["workflow_id"], world.definition(version="2"))
    again = await world.gateway.create_workflow(definition, once=ONCE)
    assert (again["workflow_id"], again["version"]) == (made["workflow_id"], "2")


async def test_a_key_goes_with_what_was_made(world: World) -> None:
    made = await world.gateway.create_workflow(world.definition(), once=ONCE)
    await world.gateway.delete_workflow(made["workflow_id"])
    other = await world.gateway.create_workflow(world.definition(version="2"), once=ONCE)
    assert other["version"] == "2"


async def test_an_execution_that_is_kept_no_longer_takes_its_key_with_it(
    make_world: MakeWorld,
) -> None:
    """The next one has an id of its own: of the first there may be outputs and files yet."""
    world, store = await uncertain(make_world)
    tasks = {**ECHO, "b": {"depends_on": ["a"], "input": {"value": "${tasks.a.output}"}}}
    workflow_id = await world.workflow(tasks)
    made = []
    for x in (1, 2):
        reply = await world.gateway.execute(workflow_id, {"x": x}, {}, once=ONCE)
        made.append(reply.document["execution_id"])
        assert (await world.ended(made[-1]))["output"] == {"b": x}
        with pytest.raises(Conflict):
            await world.gateway.execute(workflow_id, {"x": 3}, {}, once=ONCE)
        store.forget(made[-1])
    assert made[0] != made[1]


async def test_a_restored_execution_is_not_found_under_the_key_of_the_first(world: World) -> None:
    workflow_id = await world.workflow()
    first = await world.gateway.execute(workflow_id, {}, {}, once=ONCE)
    execution_id = first.document["execution_id"]
    await world.ended(execution_id)
    kept = await world.gateway.create_checkpoint(execution_id, name="c", description="")
    for once in (None, Once("caller", "other")):
        reply = await world.gateway.restore(kept["checkpoint_id"], {}, once=once)
        await world.ended(reply.document["execution_id"])
    again = await world.gateway.execute(workflow_id, {}, {}, once=ONCE)
    assert again.document["execution_id"] == execution_id


async def test_what_it_was_made_of_may_be_gone(world: World) -> None:
    known = await operations(world)
    keys = {name: Once("caller", name) for name in ("instance", "restored")}
    first = {name: await known[name](world.gateway, once) for name, once in keys.items()}
    await world.gateway.delete_template(first["instance"]["template_id"])
    await world.gateway.delete_checkpoint(first["restored"]["checkpoint_id"])
    for name, once in keys.items():
        assert at_rest(await known[name](world.gateway, once)) == at_rest(first[name])


# Fingerprints ------------------------------------------------------------------------------------

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


def turned_around(value: Any) -> Any:
    """The same JSON value, with the members of each object in the opposite order."""
    if isinstance(value, dict):
        return {name: turned_around(value[name]) for name in reversed(value)}
    return [turned_around(item) for item in value] if isinstance(value, list) else value


@given(values)
def test_the_order_of_members_makes_no_other_request(value: Any) -> None:
    assert creation_of(ONCE, "o", value) == creation_of(ONCE, "o", turned_around(value))


@given(st.lists(st.tuples(st.text(), st.text()), unique=True, min_size=2, max_size=2))
def test_no_two_callers_and_keys_mean_the_same(pairs: list[tuple[str, str]]) -> None:
    one, two = (creation_of(Once(*pair), "o", {}) for pair in pairs)
    assert one.uuid != two.uuid
    assert one.index != two.index
    assert one.fingerprint == two.fingerprint


@pytest.mark.parametrize(
    "other", [{"a": [1, 2.0]}, {"a": [2, 1]}, {"a": [True, 2]}, {"a": ["1", 2]}, {"a": None}, {}]
)
def test_another_value_is_another_request(other: Any) -> None:
    said = creation_of(ONCE, "o", {"a": [1, 2]}).fingerprint
    assert creation_of(ONCE, "o", other).fingerprint != said
    assert creation_of(ONCE, "p", {"a": [1, 2]}).fingerprint != said
