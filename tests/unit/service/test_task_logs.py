"""Log lines through a whole installation: from an action's mouth to a subscriber's ear."""

from __future__ import annotations

import sys
from typing import Any

from harmonia_actors.components.contract import Component, TaskContext
from harmonia_actors.runtime.attempt_log import LogLimits
from harmonia_actors.runtime.task_host import TaskHostLimits
from tests.support.scripted_actors import until
from tests.unit.service.conftest import MakeWorld, World

component = Component("talks")


@component.action
def say(texts: list[str], *, context: TaskContext) -> None:
    for text in texts:
        context.log(text)


@component.action
async def say_async(texts: list[str], *, context: TaskContext) -> None:
    for text in texts:
        context.log(text, "warning")


@component.action
def flood(lines: int, *, context: TaskContext) -> None:
    for number in range(lines):
        context.log(f"line {number}")


def task(action: str, **given: Any) -> dict[str, Any]:
    return {"component": "talks", "action": action, "input": given}


async def lines_of(world: World, execution_id: str, name: str) -> list[tuple[str, str, str]]:
    """Stream, level and text of each line of a task; for those left out, how many."""
    found = []
    for event in await world.events(execution_id):
        data = event["data"]
        if event["type"] != "task_log" or data["task_name"] != name:
            continue
        assert data["attempt"] == 1
        if data.get("dropped"):
            found.append(("dropped", "", str(data["dropped"])))
        found += [(each["stream"], each.get("level", ""), each["text"]) for each in data["lines"]]
    return found


async def test_what_tasks_say_is_in_the_log_once_and_in_order(make_world: MakeWorld) -> None:
    world: World = await make_world(components=[component])
    texts = [str(number) for number in range(500)]
    code = "import sys; print('out'); print('err', file=sys.stderr); print('\\x1b[1mend', end='')"
    execution_id = await world.start(
        {
            "plain": task("say", texts=texts),
            "async": task("say_async", texts=["a", "b\nc"]),
            "command": {
                "component": "ergon",
                "action": "execute_command",
                "input": {"command": [sys.executable, "-c", code]},
            },
        }
    )
    final = await world.ended(execution_id)
    assert final["status"] == "completed"
    assert await lines_of(world, execution_id, "plain") == [("log", "info", t) for t in texts]
    said = [("log", "warning", text) for text in "abc"]
    assert await lines_of(world, execution_id, "async") == said
    assert sorted(await lines_of(world, execution_id, "command")) == [
        ("stderr", "", "err"),
        ("stdout", "", "end"),
        ("stdout", "", "out"),
    ]
    assert sum(event["type"] == "task_log" for event in await world.events(execution_id)) < 20


async def test_a_flood_is_bounded_and_says_so(make_world: MakeWorld) -> None:
    world: World = await make_world(components=[component])
    execution_id = await world.start({"flood": task("flood", lines=100_000)})
    assert (await world.ended(execution_id))["status"] == "completed"
    lines = await lines_of(world, execution_id, "flood")
    kept = [text for stream, level, text in lines if level == "info"]
    assert kept == [f"line {number}" for number in range(len(kept))]
    assert [level for stream, level, _ in lines[len(kept) :]] == ["warning", ""]
    assert lines[-1] == ("dropped", "", str(100_000 - len(kept)))
    assert 64 * len(kept) < LogLimits().bytes_max


async def test_lines_come_while_the_task_runs_and_survive_their_owner(
    make_world: MakeWorld,
) -> None:
    gates: list[TaskContext] = []
    holding = Component("holding")

    @holding.action
    def hold(*, context: TaskContext) -> None:
        context.log("before")
        gates.append(context)
        world.gates.hold(context=context)
        context.log("after")

    world: World = await make_world(components=[holding])
    execution_id = await world.start({"a": {"component": "holding", "action": "hold"}})
    await until(lambda: bool(gates))

    async for batch in world.gateway.events(execution_id, after=0):
        if any(event.type == "task_log" for event in batch):
            break
    hosts = world.installation.hosts
    owner = next(name for name in hosts if execution_id in hosts[name]._drivers)
    await world.installation.kill_owner(owner)
    while await world.store.orphan(owner, limit=100):
        pass
    for host in world.installation.hosts.values():
        await host.pick_up()
    world.gates.open("a")
    final = await world.ended(execution_id)
    assert final["task_status"]["a"]["attempt"] == 1
    assert [text for _, _, text in await lines_of(world, execution_id, "a")] == ["before", "after"]


def test_the_limits_of_task_hosts_are_those_of_the_settings() -> None:
    assert TaskHostLimits().log == LogLimits()
