"""Executions whose files are on one node: chosen at the beginning, or when one has come."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from harmonia_actors.components.contract import TaskContext
from harmonia_actors.core.records import Head, decode_head
from harmonia_actors.core.resources import Capacity
from harmonia_actors.runtime.nodes import WorkspaceNodes
from persistence.memory_store import MemoryStore
from tests.support.gates import Gates
from tests.support.local import LocalInstallation
from tests.support.scripted_actors import ScriptedLeases, until
from tests.unit.service.conftest import World

SMALL = {"CPU": 4.0, "memory": 8e9}
LARGE = {"CPU": 2.0, "memory": 8e9, "GPU": 1.0}
BEFORE = Capacity({"small": SMALL}, (LARGE,))
AFTER = Capacity({"small": SMALL, "late": LARGE}, (LARGE,))
FILES = {"action": "keep"}
GPU = {"resources": {"num_gpus": 1}}


def keep(value: Any = None, *, context: TaskContext) -> Any:
    """Leave a file."""
    context.workspace.write_file(f"{context.task_name}.txt", b"x")
    return value


class Nodes(WorkspaceNodes):
    """Those of a cluster to which a node with a GPU may be added."""

    def __init__(self) -> None:
        self.has = BEFORE
        self.leases = ScriptedLeases()
        super().__init__(self.leases, self.capacity, again_s=0.001)

    async def capacity(self) -> Capacity:
        return self.has

    async def come(self, capacity: Capacity = AFTER) -> None:
        self.has = capacity
        await self.look()


@pytest.fixture
async def nodes() -> Nodes:
    made = Nodes()
    await made.look()
    return made


@pytest.fixture
async def world(nodes: Nodes, tmp_path: Path) -> AsyncIterator[World]:
    gates = Gates()
    gates.component.action(uses_files=True)(keep)
    async with LocalInstallation(
        MemoryStore(),
        tmp_path,
        workers=3,
        components=[gates.component],
        nodes=nodes,
        capacity=BEFORE,
    ) as installation:
        yield World(installation, gates)
        gates.open(*{name.partition("/")[2] for name, _ in gates.began})


async def head_of(world: World, execution_id: str) -> Head:
    stored = await world.store.read_execution(execution_id)
    assert stored is not None
    return decode_head(stored.fields["head"])


async def waiting(world: World, execution_id: str) -> dict[str, str]:
    shown = await world.gateway.get_execution(execution_id, outputs=True)
    return {n: task["waiting"] for n, task in shown["task_status"].items() if "waiting" in task}


async def until_waiting(world: World, execution_id: str, *names: str) -> dict[str, str]:
    async def do_wait() -> bool:
        return set(await waiting(world, execution_id)) == set(names)

    await until_true(do_wait)
    return await waiting(world, execution_id)


async def until_true(ask: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(10):
        # What is stored has to be asked for again and again.
        while not await ask():  # noqa: ASYNC110
            await asyncio.sleep(0.001)


async def restored(world: World, execution_id: str) -> str:
    made = await world.gateway.create_checkpoint(execution_id, name="here", description="")
    reply = await world.gateway.restore(made["checkpoint_id"], {})
    return str(reply.document["execution_id"])


async def test_a_node_that_is_there_is_chosen_at_the_beginning(world: World, nodes: Nodes) -> None:
    found = await world.run({"a": FILES, "b": {**GPU, "depends_on": ["a"]}})
    assert found["status"] == "completed", "what uses no files may run anywhere"
    assert (await head_of(world, found["execution_id"])).labels == {"node": "small"}
    assert nodes.leases.asked == []


async def test_what_uses_no_files_has_no_node(world: World) -> None:
    found = await world.run({"a": GPU})
    assert (await head_of(world, found["execution_id"])).labels == {}


async def test_all_that_uses_files_waits_for_the_node_that_has_it_all(
    world: World, nodes: Nodes
) -> None:
    tasks = {
        "a": {},
        "b": {**FILES, "depends_on": ["a"]},
        "c": {**FILES, **GPU, "depends_on": ["b"]},
    }
    execution_id = await world.start(tasks)
    shown = await until_waiting(world, execution_id, "b")
    assert "no node is there yet that has 1 CPU and 1 GPU" in shown["b"]
    status = await world.gateway.get_execution(execution_id, outputs=True)
    states = {name: task["status"] for name, task in status["task_status"].items()}
    assert states == {"a": "completed", "b": "pending", "c": "pending"}
    await nodes.come()
    found = await world.ended(execution_id)
    assert found["status"] == "completed"
    assert {task["attempt"] for task in found["task_status"].values()} == {1}
    assert (await head_of(world, execution_id)).labels == {"node": "late"}


async def test_what_fits_no_node_together_is_not_waited_for(world: World, nodes: Nodes) -> None:
    """Its turn comes, and the pool says what is wrong and what the way out is."""
    large = {"resources": {"num_cpus": 4}}
    found = await world.run({"a": {**FILES, **GPU}, "b": {**FILES, **large}})
    assert (await head_of(world, found["execution_id"])).labels == {"node": "small"}
    assert nodes.leases.asked == []


async def test_a_cancel_ends_the_wait(world: World) -> None:
    execution_id = await world.start({"a": {**FILES, **GPU}})
    await until_waiting(world, execution_id, "a")
    await world.gateway.cancel_execution(execution_id)
    found = await world.ended(execution_id)
    assert (found["status"], found["task_status"]["a"]["started_at"]) == ("cancelled", None)


async def test_whoever_takes_over_waits_on(world: World, nodes: Nodes) -> None:
    execution_id = await world.start({"a": {**FILES, **GPU}})
    await until_waiting(world, execution_id, "a")
    stored = await world.store.read_execution(execution_id)
    assert stored is not None
    await world.installation.kill_owner(stored.owner)
    while await world.store.orphan(stored.owner, limit=100):
        pass
    (heir,) = world.installation.hosts.values()
    await heir.pick_up()
    await until(lambda: len(nodes.leases.asked) == 2)
    assert (await head_of(world, execution_id)).labels == {}
    await nodes.come()
    assert (await world.ended(execution_id))["status"] == "completed"
    assert (await head_of(world, execution_id)).labels == {"node": "late"}


async def test_what_is_restored_has_the_node_of_its_files_or_waits_as_they_did(
    world: World, nodes: Nodes
) -> None:
    tasks = {"a": {**FILES, **GPU}, "b": {"action": "hold", "depends_on": ["a"]}}
    first = await world.start(tasks)
    await until_waiting(world, first, "a")
    second = await restored(world, first)
    await until_waiting(world, second, "a")
    await nodes.come()
    for execution_id in (first, second):
        await world.began(execution_id, "b")
        assert (await head_of(world, execution_id)).labels["node"] == "late"
    # Where its files are counts, not what would fit now.
    await nodes.come(Capacity({"another": LARGE}))
    third = await restored(world, first)
    await world.began(third, "b")
    assert (await head_of(world, third)).labels["node"] == "late"
    world.gates.open("b")
    for execution_id in (first, second, third):
        assert (await world.ended(execution_id))["status"] == "completed"
