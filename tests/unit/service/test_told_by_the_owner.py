"""Who waits for a small execution is told of its end by its owner, exactly as the store has it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from harmonia_actors.core.errors import ComponentFailed
from persistence.memory_store import MemoryStore
from persistence.store import Snapshot
from tests.unit.service.conftest import MakeWorld, World

WAIT = {"async": False}


class Counting(MemoryStore):
    """Counts how often executions and outputs are read."""

    def __init__(self) -> None:
        super().__init__()
        self.reads = 0

    async def read_execution(self, execution_id: str, *, rows: bool = True) -> Snapshot | None:
        self.reads += 1
        return await super().read_execution(execution_id, rows=rows)

    async def read_outputs(self, references: Sequence[tuple[str, str]]) -> list[bytes | None]:
        self.reads += 1
        return await super().read_outputs(references)


def chain(count: int) -> dict[str, Any]:
    return {
        f"t{number}": {
            "depends_on": [f"t{number - 1}"] if number else [],
            "input": {"value": f"${{tasks.t{number - 1}.output}}" if number else {"n": 1}},
        }
        for number in range(count)
    }


@pytest.mark.parametrize(
    ("tasks", "more", "reads"),
    [
        ({"a": {"input": {"value": None}}}, {}, 0),
        (chain(3), {}, 0),
        (chain(3), {"output": {"all": "${tasks.t1.output}", "x": "${workflow.input.x}"}}, 1),
        ({f"m{number}": {"input": {"value": number}} for number in range(12)}, {}, 0),
        ({"a": {"input": {"value": "x" * 7_000}}}, {}, 3),
        ({"a": {"input": {"value": "x" * 100_000}}}, {}, 1),
    ],
    ids=["nothing", "chain", "output", "wide", "too large to be told", "a blob"],
)
async def test_who_waits_is_told_what_the_store_has(
    make_world: MakeWorld, tasks: dict[str, Any], more: dict[str, Any], reads: int
) -> None:
    store = Counting()
    world: World = await make_world(store)
    workflow_id = await world.workflow(tasks, input_schema={"x": {"default": 1}}, **more)
    await world.gateway.execute(workflow_id, {}, WAIT)
    before = store.reads
    reply = await world.gateway.execute(workflow_id, {"x": 2}, WAIT)
    # To put an output together with the input, the owner reads what it refers to.
    assert store.reads - before == reads
    execution_id = reply.document["execution_id"]
    assert reply.document == await world.gateway.get_execution(execution_id, outputs=True)


async def test_a_failure_is_told_as_it_is_stored(make_world: MakeWorld) -> None:
    store = Counting()
    world: World = await make_world(store)
    workflow_id = await world.workflow({"a": {"action": "crash", "input": {}}, "b": {}})
    with pytest.raises(ComponentFailed) as failed:
        await world.gateway.execute(workflow_id, {}, WAIT)
    assert store.reads == 0
    shown = await world.gateway.get_execution(failed.value.details["execution_id"], outputs=True)
    assert failed.value.details["error"] == shown["error"]


async def test_another_owner_than_the_first_one_leaves_it_to_the_store(world: World) -> None:
    workflow_id = await world.workflow({"a": {"input": {"value": 1}}, **chain(2)})
    first = (await world.gateway.execute(workflow_id, {}, WAIT)).document["execution_id"]
    made = await world.gateway.create_checkpoint(first, name="c", description="")
    reply = await world.gateway.restore(made["checkpoint_id"], WAIT)
    execution_id = reply.document["execution_id"]
    assert reply.document == await world.gateway.get_execution(execution_id, outputs=True)
    assert reply.document["task_status"]["a"]["output"] == 1


async def test_the_first_owner_does_not_tell_of_what_was_restored_before_it_came(
    world: World,
) -> None:
    """Whoever takes on what was created while nobody lived is its first owner, by epoch."""
    again = {"max_retries": 1, "retry_interval": 0.5}
    last = {"action": "fail_until", "input": {"attempt": 2}, "retry_policy": again}
    tasks = {"a": {"input": {"value": 1}}, "b": {**last, "depends_on": ["a"]}}
    first = await world.start(tasks)
    await world.began(first, "b")
    made = await world.gateway.create_checkpoint(first, name="c", description="")
    await world.ended(first)
    installation = world.installation
    for name in list(installation.running):
        await installation.kill_owner(name)
        assert await installation.store.retire_owner(name)
    restored = asyncio.ensure_future(world.gateway.restore(made["checkpoint_id"], WAIT))
    async with asyncio.timeout(10):
        while not await installation.store.waiting_executions():  # noqa: ASYNC110
            await asyncio.sleep(0.001)
    await installation.add_owner("late")
    reply = await restored
    execution_id = reply.document["execution_id"]
    stored = await installation.store.read_execution(execution_id)
    assert stored is not None
    assert stored.epoch == 1
    assert reply.document == await world.gateway.get_execution(execution_id, outputs=True)
    assert reply.document["task_status"]["a"]["output"] == 1
