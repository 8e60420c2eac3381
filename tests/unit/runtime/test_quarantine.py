"""Executions that end their owners: alone after the first time, at last failed; others go on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from harmonia_actors.core import jsontext
from harmonia_actors.runtime.census import Census
from harmonia_actors.runtime.host_limits import HostLimits
from harmonia_actors.runtime.tenure import Tenure
from persistence.errors import StoreUnavailable
from persistence.memory_store import MemoryStore
from persistence.store import Commit
from tests.support.gates import Gates
from tests.support.local import LocalInstallation
from tests.support.scripted_actors import until
from tests.unit.runtime.test_host import World

HELD = {"x": {"action": "hold_async"}, "y": {"depends_on": ["x"]}}


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    gates = Gates()
    limits = HostLimits(owners_max=2, lease_ms=2_000, calm_s=0.02, broken_s=0.001)
    async with LocalInstallation(
        MemoryStore(), tmp_path, workers=3, components=[gates.component], host_limits=limits
    ) as installation:
        yield World(installation, gates)
        gates.open("x", "y")


async def orphaned(world: World, owner: str) -> None:
    """An owner's process has died, and nobody knows why."""
    await world.installation.kill_owner(owner)
    while await world.store.orphan(owner, limit=100, blame=True):
        pass


async def owned(world: World, execution_id: str) -> str:
    """Who has the execution, once somebody has; "" if it has ended."""
    async with asyncio.timeout(10):
        while True:
            found = await world.status(execution_id)
            owner = await world.owner_of(execution_id)
            if found["status"] in ("failed", "completed"):
                return ""
            if owner and world.installation.hosts.get(owner):
                return owner
            for host in list(world.installation.hosts.values()):
                await host.pick_up()
            await asyncio.sleep(0.001)


async def test_who_kills_its_owner_again_and_again_is_failed_and_others_go_on(world: World) -> None:
    started = [await world.start(HELD) for _ in range(6)]
    for execution_id in started:
        await world.began(execution_id, "x")
    poison = started[2]
    number = 0
    while owner := await owned(world, poison):
        neighbours = [i for i in started if i != poison and await world.owner_of(i) == owner]
        assert not number or not neighbours, "after the first death it is alone"
        await orphaned(world, owner)
        number += 1
        await world.installation.add_owner(f"another-{number}")
    assert number == 3
    found = await world.ended(poison)
    assert (found["status"], found["error"]["code"]) == ("failed", "quarantined")
    assert found["error"]["details"] == {"crashes": 3}
    assert {n: t["status"] for n, t in found["task_status"].items()} == {
        "x": "cancelled",
        "y": "skipped",
    }
    world.gates.open("x")
    for execution_id in started:
        if execution_id != poison:
            assert await owned(world, execution_id) in ("", *world.installation.hosts)
            done = await world.ended(execution_id)
            assert done["status"] == "completed"
            assert done["task_status"]["x"]["attempt"] == 1, "what ran was adopted each time"
    assert world.gates.running_twice() == []


async def test_a_suspect_that_makes_room_for_the_next_is_offered_to_the_others(
    world: World,
) -> None:
    """Or it would stand still until somebody looks around."""
    started = [await world.start(HELD) for _ in range(4)]
    for execution_id in started:
        await world.began(execution_id, "x")
    dead, offered = await world.owner_of(started[0]), []
    spare = await world.installation.add_owner("spare")
    call = spare.call_others

    async def call_others() -> None:
        offered.append(await world.store.waiting_executions())
        await call()

    spare.call_others = call_others
    await orphaned(world, dead)
    await spare.pick_up()
    await until(lambda: offered)
    assert offered[0] == 2, "one that is calm, and one that has yet to show it"
    world.gates.open("x")
    for execution_id in started:
        assert (await world.ended(execution_id))["status"] == "completed"


async def test_an_execution_whose_driver_breaks_each_time_is_failed(world: World) -> None:
    odd = await world.start(HELD)
    await world.began(odd, "x")
    tries: list[int] = []
    for host in world.installation.hosts.values():

        async def census(execution_id: str, epoch: int, real: Any = host.take_census) -> Census:
            if execution_id == odd and len(tries) < 2:
                tries.append(epoch)
                raise RuntimeError("a defect")
            found: Census = await real(execution_id, epoch)
            return found

        host.take_census = census
    await orphaned(world, await world.owner_of(odd))
    found = await world.ended(odd)
    assert (found["status"], found["error"]["code"]) == ("failed", "quarantined")
    assert len(tries) == 2, "the death of its owner was the first"
    assert (await world.ended(await world.start({"z": {}})))["status"] == "completed"


async def test_a_store_that_is_away_is_no_reason_to_leave_tasks_as_they_stand(
    world: World,
) -> None:
    odd = await world.start(HELD)
    await world.began(odd, "x")
    for name in list(world.installation.hosts):
        await orphaned(world, name)
    for name in ("dead-1", "dead-2"):
        await world.store.renew_owner(name, lease_ms=1_000)
        assert await world.store.claim_next(name, owners_max=1) is not None
        await world.store.orphan(name, limit=10, blame=True)
    read, tries = world.store.get_definition, 0

    async def away_at_first(digest: str) -> bytes | None:
        nonlocal tries
        tries += 1
        if tries == 1:
            raise StoreUnavailable("away")
        return await read(digest)

    world.store.get_definition = away_at_first  # type: ignore[method-assign]
    host = await world.installation.add_owner("heir")
    await host.pick_up()
    found = await world.ended(odd)
    assert (tries, found["error"]["code"]) == (2, "quarantined")
    assert {t["status"] for t in found["task_status"].values()} <= {"cancelled", "skipped"}


async def test_whoever_claims_anew_before_the_quarantine_fails_it_instead(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    odd = await world.start(HELD)
    await world.began(odd, "x")
    for name in list(world.installation.hosts):
        await orphaned(world, name)
    for name in ("dead-1", "dead-2"):
        await world.store.renew_owner(name, lease_ms=1_000)
        assert await world.store.claim_next(name, owners_max=1) is not None
        await world.store.orphan(name, limit=10, blame=True)
    write, epochs = world.store.commit, list[int]()
    host = await world.installation.add_owner("heir")

    async def overtaken(commit: Commit) -> None:
        epochs.append(commit.epoch)
        if len(epochs) == 1:
            await world.store.claim(odd, host.owner)
        await write(commit)

    world.store.commit = overtaken  # type: ignore[method-assign]
    await host.pick_up()
    found = await world.ended(odd)
    assert found["error"]["code"] == "quarantined"
    assert len(epochs) == 2
    assert epochs[1] > epochs[0]
    assert [one for one in caplog.records if one.exc_info] == []


async def test_what_cannot_even_be_read_is_failed_by_its_head(world: World) -> None:
    odd = await world.start(HELD)
    await world.began(odd, "x")
    owner = await world.owner_of(odd)
    await world.installation.kill_owner(owner)
    snapshot = await world.store.read_execution(odd)
    assert snapshot is not None
    broken = Commit(
        odd,
        owner,
        snapshot.epoch,
        snapshot.version + 1,
        snapshot.seq + 1,
        rows={"0": b'["no such status"]'},
    )
    await world.store.commit(broken)
    while await world.store.orphan(owner, limit=10):
        pass
    events = [e async for batch in world.gateway.events(odd, after=0) for e in batch]
    last = jsontext.decode(events[-1].body)
    assert (last["type"], last["data"]["error"]["code"]) == ("execution_failed", "quarantined")
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    listed = await world.store.page("executions:*:failed", offset=0, limit=9, descending=True)
    assert listed.ids == (odd,)


async def test_an_execution_that_breaks_before_it_has_begun_is_failed_too(world: World) -> None:
    for name in list(world.installation.hosts):
        await world.installation.kill_owner(name)
        await world.store.retire_owner(name)
    odd = await world.start(HELD)
    await world.store.renew_owner("dead", lease_ms=60_000)
    for _ in range(3):
        loaded = await world.store.claim_next("dead", owners_max=1)
        assert loaded is not None
        await world.store.give_on(odd, epoch=loaded.epoch, blame=True)
    await world.store.retire_owner("dead")
    await world.installation.add_owner("new")
    found = await world.ended(odd)
    assert (found["status"], found["error"]["code"]) == ("failed", "quarantined")
    kinds = await world.kinds(odd)
    assert kinds == ["execution_started", "task_skipped", "task_skipped", "execution_failed"]


async def test_an_owner_that_was_succeeded_while_it_slept_learns_it(world: World) -> None:
    execution_id = await world.start(HELD)
    await world.began(execution_id, "x")
    slept = await world.owner_of(execution_id)
    keeper = world.installation.running[slept].loops[0]
    while await world.store.orphan(slept, limit=100):
        pass
    await until(keeper.done)
    assert slept not in {owner.owner for owner in await world.store.owners()}
    world.gates.open("x")
    assert (await world.ended(execution_id))["status"] == "completed"
    assert world.gates.running_twice() == []


async def test_an_owner_that_never_heard_that_it_is_one_knows_it_by_what_it_has(
    world: World,
) -> None:
    """The answer may be lost for ever, because all others take it for dead."""
    execution_id = await world.start(HELD)
    await world.began(execution_id, "x")
    unheard = await world.owner_of(execution_id)
    host = world.installation.hosts[unheard]
    host.tenure = Tenure()
    await until(lambda: host.tenure.is_certain)
    host.tenure = Tenure()
    while await world.store.orphan(unheard, limit=100):
        pass
    await until(world.installation.running[unheard].loops[0].done)
    world.gates.open("x")
    assert (await world.ended(execution_id))["status"] == "completed"
