"""What may come between when an owner takes an execution over and when it drives it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from harmonia_actors.core import jsontext
from harmonia_actors.runtime.host import ExecutionHost
from harmonia_actors.runtime.host_limits import HostLimits
from harmonia_actors.runtime.notes import encode_note
from persistence.memory_store import MemoryStore
from persistence.store import Commit, InboxEntry
from tests.support.gates import Gates
from tests.support.local import LocalInstallation
from tests.support.scripted_actors import settle, until
from tests.unit.runtime.test_host import World

HELD: dict[str, Any] = {
    "a": {"action": "hold_async"},
    "b": {"action": "echo", "depends_on": ["a"]},
}


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    gates, limits = Gates(), HostLimits(owners_max=1, lease_ms=60_000, broken_s=0.001)
    async with LocalInstallation(
        MemoryStore(), tmp_path, owners=1, components=[gates.component], host_limits=limits
    ) as installation:
        yield World(installation, gates)
        gates.open("a")


async def left_behind(world: World) -> str:
    """An execution that runs, and whose owner has died."""
    execution_id = await world.start(HELD)
    await world.began(execution_id, "a")
    dead = await world.owner_of(execution_id)
    await world.installation.kill_owner(dead)
    while await world.store.orphan(dead, limit=100):
        pass
    return execution_id


class SlowDefinitions:
    """Each reading of a definition from the store waits until the test lets it go on."""

    def __init__(self, world: World) -> None:
        self.waiting: list[asyncio.Event] = []
        self._read = world.store.get_definition
        world.store.get_definition = self._wait  # type: ignore[method-assign]

    async def _wait(self, digest: str) -> bytes | None:
        gate = asyncio.Event()
        self.waiting.append(gate)
        await gate.wait()
        return await self._read(digest)


async def heir_of(world: World) -> ExecutionHost:
    """An owner that looks around only when the test says so."""
    heir = await world.installation.add_owner("heir")
    world.installation.running["heir"].blind()
    heir._maker._planned.clear()
    return heir


async def test_a_cancel_that_comes_while_its_driver_is_made_is_heard(world: World) -> None:
    execution_id = await left_behind(world)
    definitions = SlowDefinitions(world)
    heir = await heir_of(world)
    taking = asyncio.create_task(heir.pick_up())
    await until(lambda: definitions.waiting)
    note = InboxEntry("cancel", encode_note("cancel", 5))
    assert await world.store.append_inbox(execution_id, note) == heir.owner
    await heir.nudge(execution_id)
    definitions.waiting[0].set()
    await taking
    assert (await world.ended(execution_id))["status"] == "cancelled"
    assert [name for name, _ in world.gates.began] == [f"{execution_id}/a"]


@pytest.mark.parametrize("is_first", [True, False])
async def test_of_two_claims_the_later_one_drives(world: World, is_first: bool) -> None:
    """Whichever of them has read the definition first."""
    execution_id = await left_behind(world)
    definitions = SlowDefinitions(world)
    heir = await heir_of(world)
    first = await world.store.claim_next(heir.owner, owners_max=1)
    second = await world.store.claim(execution_id, heir.owner)
    assert first is not None
    assert second is not None
    driving = [asyncio.create_task(heir._drive(one)) for one in (first, second)]
    await until(lambda: len(definitions.waiting) == 2)
    for gate in definitions.waiting if is_first else reversed(definitions.waiting):
        gate.set()
        await settle()
    await asyncio.gather(*driving)
    assert [driver.epoch for driver in heir._drivers.values()] == [second.epoch]
    world.gates.open("a")
    assert (await world.ended(execution_id))["status"] == "completed"
    await until(lambda: not heir._running)


async def test_whatever_a_driver_cannot_be_made_for_counts_as_a_crash(world: World) -> None:
    execution_id = await left_behind(world)
    heir = await heir_of(world)
    real, tries = heir._maker.make, list[str]()

    async def make(loaded: Any) -> Any:
        tries.append(loaded.execution_id)
        if len(tries) == 1:
            raise KeyError("a defect")
        return await real(loaded)

    heir._maker.make = make  # type: ignore[method-assign]
    await heir.pick_up()
    await until(lambda: len(tries) == 2)
    claimed = await world.store.claim(execution_id, heir.owner)
    assert claimed is not None
    assert claimed.crashes == 1


async def test_an_execution_that_ended_between_two_looks_is_not_remembered(world: World) -> None:
    real, late = world.gateway.parts.launcher.start, list[Any]()

    async def hold(*told: Any) -> None:
        late.append(told)

    world.gateway.parts.launcher.start = hold  # type: ignore[method-assign]
    (host,) = world.installation.hosts.values()
    world.installation.running[host.owner].blind()
    for _ in range(5):
        execution_id = await world.start({"x": {}})
        await host._claim_untold()
        await real(*late.pop())
        await world.ended(execution_id)
    await until(lambda: not host.load)
    await host._claim_untold()
    assert host._untold == set()


async def test_suspects_that_cannot_be_read_hold_up_nobody(world: World) -> None:
    """Another version has written them: no owner that is there can drive them."""
    odd = [await world.start(HELD) for _ in range(4)]
    for execution_id in odd:
        await world.began(execution_id, "a")
    dead = await world.owner_of(odd[0])
    await world.installation.kill_owner(dead)
    for execution_id in odd:
        await _write_as_another_version(world, execution_id, dead)
    while await world.store.orphan(dead, limit=100, blame=True):
        pass
    for name in ("one", "two"):
        await (await world.installation.add_owner(name)).pick_up()
    await until(lambda: _is_empty(world))
    fresh = await world.start({"y": {}})
    assert (await world.ended(fresh))["status"] == "completed"
    assert await world.store.waiting_executions() == 0
    await world.store.renew_owner("of-the-other-version", lease_ms=60_000)
    taken = await world.store.claim_next("of-the-other-version", owners_max=9)
    assert taken is not None
    assert (taken.execution_id, taken.crashes) == (odd[0], 1)


def _is_empty(world: World) -> bool:
    return not any(world.store._roster.owned(name) for name in world.installation.hosts)


async def _write_as_another_version(world: World, execution_id: str, owner: str) -> None:
    snapshot = await world.store.read_execution(execution_id)
    assert snapshot is not None
    head = jsontext.encode({**jsontext.decode(snapshot.fields["head"]), "v": 99})
    number, seq = snapshot.version + 1, snapshot.seq + 1
    await world.store.commit(
        Commit(execution_id, owner, snapshot.epoch, number, seq, fields={"head": head})
    )
