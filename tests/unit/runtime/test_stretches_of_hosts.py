"""Stretches from end to end without Ray: how many writes they take, losses, other owners."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from harmonia_actors.core import stimuli as st
from harmonia_actors.runtime.notes import encode_outcome
from harmonia_actors.runtime.orders import Report
from harmonia_actors.runtime.task_host import TaskHostLimits
from persistence.memory_store import MemoryStore
from persistence.store import Commit, InboxEntry
from tests.support.gates import Gates
from tests.support.local import LocalInstallation
from tests.unit.runtime.test_host import World


class CountingStore(MemoryStore):
    """Counts what is asked of it; inboxes are read when they may be."""

    def __init__(self) -> None:
        super().__init__()
        self.commits = 0
        self.may_read = asyncio.Event()
        self.may_read.set()

    async def commit(self, commit: Commit) -> None:
        self.commits += 1
        await super().commit(commit)

    async def read_inbox(self, execution_id: str) -> list[InboxEntry]:
        await self.may_read.wait()
        return await super().read_inbox(execution_id)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    gates = Gates()
    async with LocalInstallation(
        CountingStore(),
        tmp_path,
        workers=3,
        components=[gates.component],
        task_limits=TaskHostLimits(stretch_ms=60_000, outcome_report_ms=60_000),
    ) as installation:
        yield World(installation, gates)
        gates.open(*(name.partition("/")[2] for name, _ in gates.began))


def chain_of(length: int, **last: Any) -> dict[str, Any]:
    tasks: dict[str, Any] = {"t0": {"input": {"value": [0]}}}
    for number in range(1, length):
        given = f"${{tasks.t{number - 1}.output}}"
        tasks[f"t{number}"] = {"depends_on": [f"t{number - 1}"], "input": {"value": given}}
    tasks[f"t{length - 1}"] |= last
    return tasks


async def test_a_chain_takes_fewer_commits_than_it_has_tasks(world: World) -> None:
    execution_id = await world.start(chain_of(60))
    found = await world.ended(execution_id)
    assert found["status"] == "completed"
    assert found["task_status"]["t59"]["output"] == [0]
    kinds = await world.kinds(execution_id)
    assert kinds[1:-1] == ["task_started", "task_completed"] * 60
    assert isinstance(world.store, CountingStore)
    assert world.store.commits < 10, "one commit or two for each task would be 60 or 120"
    assert await world.store.read_inbox(execution_id) == []
    assert world.gates.running_twice() == []


async def test_a_stretch_goes_on_under_its_next_owner(world: World) -> None:
    execution_id = await world.start(chain_of(4, action="hold"))
    await world.began(execution_id, "t3")
    dead = await world.owner_of(execution_id)
    heir = next(name for name in world.installation.hosts if name != dead)
    await world.succeed(dead, heir)
    world.gates.open("t3")
    found = await world.ended(execution_id)
    assert found["status"] == "completed"
    attempts = [task["attempt"] for task in found["task_status"].values()]
    assert attempts == [1, 1, 1, 1], "what ran was adopted, what had ended was believed"
    assert world.gates.running_twice() == []


async def test_what_a_dead_worker_has_left_counts_before_its_loss(world: World) -> None:
    execution_id = await world.start({"x": {"action": "hold"}, "y": {"depends_on": ["x"]}})
    await world.began(execution_id, "x")
    host = world.installation.hosts[await world.owner_of(execution_id)]
    outcome = st.AttemptSucceeded(0, 1, 5, st.Output(4, b"null"))
    reports = [st.AttemptStarted(0, 1, 4), outcome]
    entry = InboxEntry("outcome:0:1", encode_outcome(reports))
    await world.store.append_inbox(execution_id, entry, epoch=1)
    lost = [st.AttemptLost(task, 1, 6, "its node died") for task in (1, 0)]
    host.tell([Report(execution_id, each) for each in lost])
    found = await world.ended(execution_id)
    assert found["status"] == "completed"
    assert [task["attempt"] for task in found["task_status"].values()] == [1, 2]
    assert await world.store.read_inbox(execution_id) == []


async def test_a_stop_does_not_overtake_what_a_dead_worker_has_left(world: World) -> None:
    """Its time has run out, or somebody cancels, while the store is slow to give the inbox."""
    execution_id = await world.start({"x": {"action": "hold"}, "y": {"depends_on": ["x"]}})
    await world.began(execution_id, "x")
    host = world.installation.hosts[await world.owner_of(execution_id)]
    assert isinstance(world.store, CountingStore)
    world.store.may_read.clear()
    for task in range(2):
        outcome = st.AttemptSucceeded(task, 1, 5, st.Output(4, b"null"))
        entry = InboxEntry(
            f"outcome:{task}:1", encode_outcome([st.AttemptStarted(task, 1, 4), outcome])
        )
        await world.store.append_inbox(execution_id, entry, epoch=1)
    lost = [st.AttemptLost(task, 1, 6, "its node died") for task in (1, 0)]
    host.tell([Report(execution_id, each) for each in lost])
    host.tell([Report(execution_id, st.AttemptStopped(0, 1, 7))])
    for _ in range(200):
        await asyncio.sleep(0)
    world.store.may_read.set()
    found = await world.ended(execution_id)
    assert found["status"] == "completed"
    assert [task["attempt"] for task in found["task_status"].values()] == [1, 1]
