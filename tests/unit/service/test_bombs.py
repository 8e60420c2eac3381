"""Actions that say far too much hurt neither the log nor those who follow it (S21)."""

from __future__ import annotations

from typing import Any

from tests.support import actions
from tests.unit.service.conftest import MakeWorld, World

REPORTS = 100_000


def bomb(action: str, **given: Any) -> dict[str, Any]:
    return {"component": actions.component.name, "action": action, "input": given}


async def test_progress_without_end_becomes_a_few_events(make_world: MakeWorld) -> None:
    world: World = await make_world(components=[actions.component])
    tasks = {"bomb": bomb("progress_steps", steps=REPORTS, pause_seconds=0)}
    found = await world.run(tasks)
    assert found["status"] == "completed"
    told = [e for e in await world.events(found["execution_id"]) if e["type"] == "task_progress"]
    assert 1 <= len(told) < REPORTS / 100
    assert told[-1]["data"]["progress"] == 1.0, "the latest wins"


async def test_an_output_without_end_fails_its_task_and_is_not_kept(make_world: MakeWorld) -> None:
    world: World = await make_world(components=[actions.component], output_bytes_max=100_000)
    found = await world.run({"bomb": bomb("big", size=20_000_000)})
    assert found["status"] == "failed"
    assert "100000" in found["error"]["message"].replace(",", "")
    assert sum(len(str(event)) for event in await world.events(found["execution_id"])) < 10_000


async def test_an_output_that_is_large_is_told_by_where_it_is(make_world: MakeWorld) -> None:
    world: World = await make_world(components=[actions.component])
    found = await world.run({"bomb": bomb("big", size=20_000_000)})
    assert found["status"] == "completed"
    events = await world.events(found["execution_id"])
    assert sum(len(str(event)) for event in events) < 10_000
    (done,) = [e for e in events if e["type"] == "task_completed"]
    assert done["data"]["output"]["size"] > 20_000_000
