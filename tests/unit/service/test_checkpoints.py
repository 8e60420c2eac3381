"""Checkpoints copy a moment; restoring makes another execution that goes on from there."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import pytest

from harmonia_actors.components.contract import TaskContext
from harmonia_actors.core import jsontext
from harmonia_actors.core.errors import CheckpointNotFound, ExecutionNotFound, ValidationFailed
from harmonia_actors.core.records import decode_head
from harmonia_actors.core.requests import PageRequest
from tests.unit.service.conftest import MakeWorld, World, problems

MISSING = "cp-123e4567-e89b-12d3-a456-426614174000"
ALL = PageRequest(page=1, limit=100)
CHAIN: dict[str, Any] = {
    "a": {"input": {"value": {"n": 1}}},
    "b": {"action": "hold", "depends_on": ["a"], "input": {"value": "${tasks.a.output.n}"}},
    "c": {"depends_on": ["b"], "input": {"value": {"last": "${tasks.b.output.value}"}}},
}


async def at_b(world: World) -> str:
    execution_id = await world.start(CHAIN)
    await world.began(execution_id, "b")
    return execution_id


async def checkpoint(world: World, execution_id: str, name: str = "cp") -> dict[str, Any]:
    return await world.gateway.create_checkpoint(execution_id, name=name, description="d")


@pytest.mark.parametrize(
    ("texts", "field"),
    [
        ({"name": ""}, "name"),
        ({"name": "  "}, "name"),
        ({"name": "x" * 129}, "name"),
        ({"name": "x", "description": "x" * 10_001}, "description"),
    ],
)
async def test_names_and_descriptions_are_bounded(
    world: World, texts: dict[str, str], field: str
) -> None:
    execution_id = await world.start()
    with pytest.raises(ValidationFailed) as caught:
        await world.gateway.create_checkpoint(execution_id, **{"description": "", **texts})
    assert set(problems(caught)) == {field}
    page = PageRequest(page=1, limit=10)
    assert (await world.gateway.list_checkpoints(page, execution_id=None))["total"] == 0


async def restored(world: World, made: dict[str, Any], **options: Any) -> dict[str, Any]:
    reply = await world.gateway.restore(made["checkpoint_id"], options)
    return reply.document


async def test_a_checkpoint_shows_what_had_been_reached(world: World) -> None:
    execution_id = await at_b(world)
    made = await checkpoint(world, execution_id, "half way")
    assert re.fullmatch(r"cp-[0-9a-f-]{36}", made["checkpoint_id"])
    assert (made["execution_id"], made["name"], made["description"]) == (
        execution_id,
        "half way",
        "d",
    )
    assert made["task_states"] == {
        "a": {"status": "completed", "output": {"n": 1}},
        "b": {"status": "pending"},
        "c": {"status": "pending"},
    }
    world.gates.open("b")
    await world.ended(execution_id)
    assert await world.gateway.get_checkpoint(made["checkpoint_id"]) == made, "it does not move"
    told = [e["data"] for e in await world.events(execution_id) if "checkpoint" in e["type"]]
    assert told == [{"checkpoint_id": made["checkpoint_id"], "name": "half way"}]


async def test_a_restored_execution_goes_on_from_there(world: World) -> None:
    execution_id = await at_b(world)
    made = await checkpoint(world, execution_id)
    world.gates.open("b")
    former = await world.ended(execution_id)
    document = await restored(world, made)
    assert document["execution_id"] != execution_id
    assert document["checkpoint_id"] == made["checkpoint_id"]
    assert document["status"] == "running"
    a = document["task_status"]["a"]
    assert (a["status"], a["output"]) == ("completed", {"n": 1})
    assert a["started_ms"] == former["task_status"]["a"]["started_ms"]
    found = await world.ended(document["execution_id"])
    assert (found["status"], found["output"]) == ("completed", {"last": 1})
    began = [name for name, _ in world.gates.began if name.startswith(document["execution_id"])]
    assert [name.partition("/")[2] for name in began] == ["b", "c"]
    assert {attempt for name, attempt in world.gates.began if name in began} == {1}


async def test_restoring_twice_gives_two_that_know_nothing_of_each_other(world: World) -> None:
    made = await checkpoint(world, await at_b(world))
    one = await restored(world, made)
    two = await restored(world, made)
    assert one["execution_id"] != two["execution_id"]
    await world.gateway.cancel_execution(one["execution_id"])
    assert (await world.ended(one["execution_id"]))["status"] == "cancelled"
    world.gates.open("b")
    assert (await world.ended(two["execution_id"]))["status"] == "completed"


async def test_restoring_may_have_options_of_its_own(world: World) -> None:
    made = await checkpoint(world, await at_b(world))
    document = await restored(world, made, timeout=0.01)
    found = await world.ended(document["execution_id"])
    assert (found["status"], found["error"]["code"]) == ("failed", "timeout")
    with pytest.raises(ValidationFailed):
        await restored(world, made, timeout=-1)
    world.gates.open("b")
    reply = await world.gateway.restore(made["checkpoint_id"], {"async": False})
    assert (reply.ended, reply.document["status"]) == (True, "completed")


async def test_a_failed_execution_goes_on_where_it_failed(world: World) -> None:
    tasks = {
        "a": {"input": {"value": 5}},
        "b": {"action": "crash", "depends_on": ["a"]},
        "c": {"depends_on": ["b"]},
    }
    former = await world.run(tasks)
    assert former["status"] == "failed"
    made = await checkpoint(world, former["execution_id"])
    assert [state["status"] for state in made["task_states"].values()] == [
        "completed",
        "pending",
        "pending",
    ]
    found = await world.ended((await restored(world, made))["execution_id"])
    assert found["status"] == "failed"
    assert found["task_status"]["a"]["output"] == 5
    runs = [name.partition("/")[2] for name, _ in world.gates.began]
    assert runs == ["a", "b", "b"]


async def test_what_had_completed_completes_at_once(world: World) -> None:
    former = await world.run({"a": {"input": {"value": {"x": 1}}}})
    made = await checkpoint(world, former["execution_id"])
    found = await world.ended((await restored(world, made))["execution_id"])
    assert (found["status"], found["output"]) == ("completed", {"x": 1})
    assert len(world.gates.began) == 1
    kinds = [event["type"] for event in await world.events(found["execution_id"])]
    assert kinds == ["execution_started", "execution_completed"]


async def test_a_checkpoint_before_the_start_is_a_start_from_the_beginning(world: World) -> None:
    for name in list(world.installation.hosts):
        await world.installation.kill_owner(name)
        await world.store.retire_owner(name)
    execution_id = await world.start({"a": {"input": {"value": 3}}})
    made = await checkpoint(world, execution_id)
    await world.installation.add_owner("late")
    found = await world.ended((await restored(world, made))["execution_id"])
    assert found["output"] == {"a": 3}


async def test_large_outputs_are_taken_over_by_their_place(make_world: MakeWorld) -> None:
    world = await make_world(inline_output_bytes_max=100)
    large = {"rows": ["x"] * 200}
    tasks = {
        "a": {"input": {"value": large}},
        "b": {"depends_on": ["a"], "input": {"value": "${tasks.a.output.rows[199]}"}},
    }
    former = await world.run(tasks)
    made = await checkpoint(world, former["execution_id"])
    assert made["task_states"]["a"]["output"]["size"] == len(jsontext.encode(large))
    document = await restored(world, made)
    body = await world.gateway.get_task_output(document["execution_id"], "a")
    assert jsontext.decode(body) == large


async def test_a_wide_execution_is_copied_in_one_moment(world: World) -> None:
    tasks: dict[str, Any] = {f"t{i}": {"input": {"value": i}} for i in range(40)}
    tasks["end"] = {"action": "hold", "depends_on": list(tasks)}
    execution_id = await world.start(tasks)
    made = []
    while not any(name.endswith("/end") for name, _ in world.gates.began):
        made.append(await checkpoint(world, execution_id))
        # The store in memory gives nobody else a turn, and the threads of the tasks need a while.
        await asyncio.sleep(0.002)
    made.append(await checkpoint(world, execution_id))
    for each in made:
        completed = {n for n, s in each["task_states"].items() if s["status"] == "completed"}
        events = [e for e in await world.events(execution_id) if e["seq"] <= each["seq"]]
        told = {e["data"]["task_name"] for e in events if e["type"] == "task_completed"}
        assert completed == told, "not what the log says of that moment"


async def test_checkpoints_are_listed_by_execution(world: World) -> None:
    one = (await world.run())["execution_id"]
    two = (await world.run())["execution_id"]
    made = [
        await checkpoint(world, one),
        await checkpoint(world, one),
        await checkpoint(world, two),
    ]

    async def listed(execution_id: str | None) -> set[str]:
        found = await world.gateway.list_checkpoints(ALL, execution_id=execution_id)
        assert all("task_states" not in item for item in found["items"])
        return {item["checkpoint_id"] for item in found["items"]}

    assert await listed(None) == {each["checkpoint_id"] for each in made}
    assert await listed(two) == {made[2]["checkpoint_id"]}
    await world.gateway.delete_checkpoint(made[0]["checkpoint_id"])
    assert await listed(one) == {made[1]["checkpoint_id"]}
    with pytest.raises(CheckpointNotFound):
        await world.gateway.get_checkpoint(made[0]["checkpoint_id"])


async def test_what_was_restored_lives_on_without_its_checkpoint(world: World) -> None:
    made = await checkpoint(world, await at_b(world))
    document = await restored(world, made)
    await world.gateway.delete_checkpoint(made["checkpoint_id"])
    world.gates.open("b")
    found = await world.ended(document["execution_id"])
    assert (found["status"], found["output"]) == ("completed", {"last": 1})


async def test_a_deleted_workflow_can_still_be_restored(world: World) -> None:
    execution_id = await at_b(world)
    made = await checkpoint(world, execution_id)
    await world.gateway.delete_workflow(made["workflow_id"])
    world.gates.open("b")
    await world.ended(execution_id)
    found = await world.ended((await restored(world, made))["execution_id"])
    assert found["status"] == "completed"


async def test_what_is_not_there(world: World) -> None:
    gateway = world.gateway
    for call in (
        gateway.get_checkpoint(MISSING),
        gateway.delete_checkpoint(MISSING),
        gateway.restore(MISSING, {}),
    ):
        with pytest.raises(CheckpointNotFound):
            await call
    with pytest.raises(ExecutionNotFound):
        await checkpoint(world, "exec-123e4567-e89b-12d3-a456-426614174000")


async def test_the_owner_of_a_restored_execution_may_die_before_it_drives_it(world: World) -> None:
    made = await checkpoint(world, await at_b(world))
    told: list[str] = []

    async def lost(owner: str, *_: Any) -> None:
        told.append(owner)

    world.gateway.parts.launcher.start = lost  # type: ignore[assignment,method-assign]
    document = await restored(world, made)
    (dead,) = told
    await world.installation.kill_owner(dead)
    while await world.store.orphan(dead, limit=9):
        pass
    for host in world.installation.hosts.values():
        await host.pick_up()
    world.gates.open("b")
    found = await world.ended(document["execution_id"])
    assert found["status"] == "completed"
    assert found["task_status"]["b"]["attempt"] == 1, "nobody had handed it out before"
    assert world.gates.running_twice() == []


# Files -------------------------------------------------------------------------------------------

FILES: dict[str, Any] = {
    "a": {"action": "write", "input": {"name": "report.txt"}},
    "b": {"action": "hold", "depends_on": ["a"]},
    "c": {"action": "write", "input": {"name": "c.txt"}, "depends_on": ["b"]},
}


def write(name: str, *, context: TaskContext) -> list[str]:
    """Write a file; returns what else there is."""
    listing = [path.name for path in context.workspace.directory.iterdir()]
    context.workspace.write_file(name, f"of {context.task_name}".encode())
    return listing


async def files_of(world: World, execution_id: str) -> dict[str, bytes]:
    found = {}
    for item in (await world.gateway.list_files(execution_id))["items"]:
        opened = await world.gateway.open_file(execution_id, item["path"])
        found[item["path"]] = b"".join([chunk async for chunk in opened.chunks])
    return found


async def test_files_are_there_however_often_an_execution_is_restored(world: World) -> None:
    world.gates.component.action(uses_files=True)(write)
    first = await world.start(FILES)
    await world.began(first, "b")
    latest = first
    for _ in range(20):
        latest = (await restored(world, await checkpoint(world, latest)))["execution_id"]
        assert await files_of(world, latest) == {"report.txt": b"of a"}
        stored = await world.store.read_execution(latest)
        assert stored is not None
        assert decode_head(stored.fields["head"]).files_from == (first,)
    world.gates.open("b")
    found = await world.ended(latest)
    assert "report.txt" in found["output"]["c"]
    assert await files_of(world, latest) == {"report.txt": b"of a", "c.txt": b"of c"}


async def test_the_nearest_files_come_first(world: World) -> None:
    world.gates.component.action(uses_files=True)(write)
    tasks = {**FILES, "d": {"action": "hold", "depends_on": ["c"]}}
    first = await world.start(tasks)
    await world.began(first, "b")
    second = (await restored(world, await checkpoint(world, first)))["execution_id"]
    world.gates.open("b")
    await world.began(first, "d")
    await world.began(second, "d")
    third = (await restored(world, await checkpoint(world, second)))["execution_id"]
    assert set(await files_of(world, third)) == {"report.txt", "c.txt"}
    stored = await world.store.read_execution(third)
    assert stored is not None
    assert decode_head(stored.fields["head"]).files_from == (second, first)
    for execution_id in (first, second):
        await world.gateway.cancel_execution(execution_id)
        await world.ended(execution_id)
    made = await checkpoint(world, third)
    assert await world.store.expire(age_ms=0, limit=10) == 2
    assert await world.store.known([first, second]) == {first, second}, "they may be needed"
    await restored(world, made)


async def test_of_executions_that_may_have_files_only_the_nearest_few_are_kept(
    world: World,
) -> None:
    world.gates.component.action(uses_files=True, name="break")(world.gates.crash)
    ids = [(await world.run({"a": {"action": "break"}}))["execution_id"]]
    for _ in range(20):
        made = await checkpoint(world, ids[0])
        ids.insert(0, (await restored(world, made))["execution_id"])
        await world.ended(ids[0])
    stored = await world.store.read_execution(ids[0])
    assert stored is not None
    assert decode_head(stored.fields["head"]).files_from == tuple(ids[1:17])
