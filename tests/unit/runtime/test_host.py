"""A host claims executions, drives them, takes notes in, and can be succeeded at any moment."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harmonia_actors.core import jsontext
from harmonia_actors.core import stimuli as st
from harmonia_actors.core.log_lines import LogLine
from harmonia_actors.runtime import host as host_module
from harmonia_actors.runtime.census import Census
from harmonia_actors.runtime.host_limits import HostLimits
from harmonia_actors.runtime.notes import decode_note, encode_note, encode_outcome, outcomes_in
from harmonia_actors.settings import Settings
from persistence.memory_store import MemoryStore
from persistence.store import Commit, InboxEntry
from tests.support.gates import Gates
from tests.support.local import LocalInstallation
from tests.support.scripted_actors import settle, until


class World:
    def __init__(self, installation: LocalInstallation, gates: Gates) -> None:
        self.installation = installation
        self.gateway = installation.gateway
        self.store = installation.store
        self.gates = gates

    async def start(self, tasks: dict[str, Any], **options: Any) -> str:
        written = {
            name: {"component": "gates", "action": "echo", **task} for name, task in tasks.items()
        }
        workflow = await self.gateway.create_workflow({"name": "w", "tasks": written})
        reply = await self.gateway.execute(workflow["workflow_id"], {}, options)
        return str(reply.document["execution_id"])

    async def status(self, execution_id: str) -> dict[str, Any]:
        return await self.gateway.get_execution(execution_id, outputs=True)

    async def ended(self, execution_id: str) -> dict[str, Any]:
        async for _ in self.gateway.events(execution_id, after=0):
            pass
        return await self.status(execution_id)

    async def kinds(self, execution_id: str) -> list[str]:
        stored = await self.store.read_events(execution_id, after=0, limit=1_000)
        return [jsontext.decode(event.body)["type"] for event in stored]

    async def owner_of(self, execution_id: str) -> str:
        snapshot = await self.store.read_execution(execution_id, rows=False)
        assert snapshot is not None
        return snapshot.owner

    async def began(self, execution_id: str, *names: str) -> None:
        await until(
            lambda: {f"{execution_id}/{name}" for name in names} <= {n for n, _ in self.gates.began}
        )

    async def succeed(self, dead: str, heir: str) -> None:
        """One owner dies, and the other takes what it had."""
        await self.installation.kill_owner(dead)
        while await self.store.orphan(dead, limit=100):
            pass
        await self.installation.hosts[heir].pick_up()


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    gates = Gates()
    async with LocalInstallation(
        MemoryStore(), tmp_path, workers=3, components=[gates.component]
    ) as installation:
        yield World(installation, gates)
        gates.open(*(name.partition("/")[2] for name, _ in gates.began))


CHAIN = {
    "a": {"action": "echo", "input": {"value": 1}},
    "b": {"action": "hold", "depends_on": ["a"], "input": {"value": "${tasks.a.output}"}},
    "c": {"action": "hold", "depends_on": ["b"], "input": {"value": "${tasks.b.output.value}"}},
}


async def test_each_execution_has_an_owner_and_is_gone_when_it_has_ended(world: World) -> None:
    first = await world.start({"x": {"action": "hold"}})
    second = await world.start({"y": {"action": "hold"}})
    owners = {await world.owner_of(first), await world.owner_of(second)}
    assert owners == {"owner-0", "owner-1"}, "an idle one is preferred"
    world.gates.open("x", "y")
    await world.ended(first)
    await world.ended(second)
    await until(lambda: not any(host.load for host in world.installation.hosts.values()))
    assert await world.owner_of(first) == ""


async def test_beyond_the_ceiling_an_owner_hosts_several(world: World) -> None:
    started = [await world.start({f"t{i}": {"action": "hold_async"}}) for i in range(5)]
    hosts = world.installation.hosts.values()
    await until(lambda: sorted(host.load for host in hosts) == [2, 3])
    world.gates.open(*(f"t{i}" for i in range(5)))
    for execution_id in started:
        assert (await world.ended(execution_id))["status"] == "completed"


async def test_what_waits_for_an_owner_is_picked_up(world: World) -> None:
    for name in list(world.installation.hosts):
        await world.installation.kill_owner(name)
        await world.store.retire_owner(name)
    execution_id = await world.start({"x": {}})
    assert await world.owner_of(execution_id) == ""
    host = await world.installation.add_owner("late")
    assert await host.pick_up() in (0, 1)
    assert (await world.ended(execution_id))["status"] == "completed"


async def test_an_execution_that_its_owner_was_never_told_of_is_found(world: World) -> None:
    told: list[str] = []

    async def lost(owner: str, *_: Any) -> None:
        told.append(owner)

    world.gateway.parts.launcher.start = lost  # type: ignore[assignment,method-assign]
    execution_id = await world.start({"x": {}})
    host = world.installation.hosts[told[0]]
    assert host.load == 0
    await host._claim_untold()
    assert host.load == 0, "the call that tells of it may still be under way"
    await host._claim_untold()
    assert (await world.ended(execution_id))["status"] == "completed"


async def test_by_looking_around_an_owner_finds_what_nobody_told_it_of(tmp_path: Path) -> None:
    """Both what is its own already, and what waits for whoever may take it."""

    async def lost(*_: Any) -> None:
        pass

    gates, limits = Gates(), HostLimits(owners_max=2, lease_ms=600)
    installation = LocalInstallation(
        MemoryStore(), tmp_path, components=[gates.component], host_limits=limits
    )
    async with installation, asyncio.timeout(20):
        world = World(installation, gates)
        world.gateway.parts.launcher.start = lost  # type: ignore[method-assign]
        world.gateway.parts.launcher.wanted = lost  # type: ignore[method-assign]
        mine = await world.start({"x": {}})
        assert await world.owner_of(mine) != ""
        assert (await world.ended(mine))["status"] == "completed"
        for name in list(installation.hosts):
            await installation.kill_owner(name)
            await world.store.retire_owner(name)
        nobodys = await world.start({"x": {}})
        assert await world.owner_of(nobodys) == ""
        await installation.add_owner("late")
        assert (await world.ended(nobodys))["status"] == "completed"


async def test_however_many_an_owner_was_never_told_of_all_are_found(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host_module, "_OWNED_PAGE", 3)

    async def lost(*_: Any) -> None:
        pass

    world.gateway.parts.launcher.start = lost  # type: ignore[assignment,method-assign]
    started = [await world.start({"x": {}}) for _ in range(20)]
    host = world.installation.hosts[await world.owner_of(started[0])]
    host.limits = replace(host.limits, executions_max=2)
    mine = [one for one in started if await world.owner_of(one) == host.owner]
    assert len(mine) == 10
    await host._claim_untold()
    await host._claim_untold()
    for execution_id in mine:
        assert (await world.ended(execution_id))["status"] == "completed"


async def test_an_owner_gets_no_more_executions_than_it_may_host(tmp_path: Path) -> None:
    gates = Gates()
    settings = Settings(executions_per_actor_max=2)
    async with LocalInstallation(
        MemoryStore(), tmp_path, components=[gates.component], settings=settings
    ) as installation:
        world = World(installation, gates)
        hosts = installation.hosts.values()
        started = []
        for at in range(6):
            started.append(await world.start({f"x{at}": {"action": "hold"}}))
            await until(lambda: sum(host.load for host in hosts) == min(4, len(started)))
        assert [host.load for host in hosts] == [2, 2]
        assert [await world.owner_of(one) for one in started[4:]] == ["", ""]
        for at, execution_id in enumerate(started):
            gates.open(f"x{at}")
            assert (await world.ended(execution_id))["status"] == "completed"


async def test_a_cancel_comes_through_the_inbox(world: World) -> None:
    execution_id = await world.start({"x": {"action": "hold"}, "y": {"depends_on": ["x"]}})
    await world.began(execution_id, "x")
    reply = await world.gateway.cancel_execution(execution_id)
    assert reply["status"] == "cancelling"
    found = await world.ended(execution_id)
    assert found["status"] == "cancelled"
    statuses = {name: task["status"] for name, task in found["task_status"].items()}
    assert statuses == {"x": "cancelled", "y": "cancelled"}
    assert await world.store.read_inbox(execution_id) == []


async def test_a_note_that_nobody_told_of_is_found(world: World) -> None:
    execution_id = await world.start({"x": {"action": "hold"}})
    await world.began(execution_id, "x")
    note = InboxEntry("cancel", encode_note("cancel", 5))
    owner = await world.store.append_inbox(execution_id, note)
    for waiting in await world.store.inboxes_waiting(owner):
        await world.installation.hosts[owner].nudge(waiting)
    assert (await world.ended(execution_id))["status"] == "cancelled"


async def test_a_note_of_a_later_version_is_dropped(world: World) -> None:
    execution_id = await world.start({"x": {"action": "hold"}})
    owner = await world.store.append_inbox(
        execution_id, InboxEntry("n", encode_note("pause", 5, until="monday"))
    )
    await world.gateway.parts.launcher.nudge(owner, execution_id)
    world.gates.open("x")
    assert (await world.ended(execution_id))["status"] == "completed"
    assert await world.store.read_inbox(execution_id) == []


def test_notes_read_back_as_stimuli() -> None:
    assert decode_note(encode_note("cancel", 5)) == [st.CancelRequested(5)]
    body = encode_note("checkpoint", 6, checkpoint_id="cp-1", name="n")
    assert decode_note(body) == [st.CheckpointTaken(6, "cp-1", "n")]
    assert decode_note(encode_note("signal", 7)) == []


@pytest.mark.parametrize(
    "output",
    [
        st.Output(14, '{"a": "\\ud800é"}'.encode()),
        st.Output(70_000, None, "file:///blobs/x.json", '{"a": "…'),
    ],
)
def test_an_outcome_reads_back_byte_by_byte(output: st.Output) -> None:
    outcome = st.AttemptSucceeded(3, 2, 9, output)
    line = LogLine("log", "hello \u2028", 8, "info")
    reports: list[st.AttemptStimulus] = [
        st.AttemptStarted(3, 2, 7),
        st.LinesReported(3, 2, 8, 5, (line, LogLine("stdout", "", 8)), last=True),
        st.ProgressReported(3, 2, 8, 0.25, "on"),
        outcome,
    ]
    entry = InboxEntry("o", encode_outcome(reports))
    assert decode_note(entry.body) == reports
    note = InboxEntry("cancel", encode_note("cancel", 5))
    assert outcomes_in([note, entry]) == {"o": reports}


async def test_a_host_starts_and_claims_the_same_execution_once(world: World) -> None:
    execution_id = await world.start({"x": {"action": "hold"}})
    await world.began(execution_id, "x")
    owner = await world.owner_of(execution_id)
    snapshot = await world.store.read_execution(execution_id)
    assert snapshot is not None
    host = world.installation.hosts[owner]
    await host.start(execution_id, snapshot.definition, snapshot.fields)
    await host.claim(execution_id)
    after = await world.store.read_execution(execution_id)
    assert after is not None
    assert after.epoch == snapshot.epoch
    world.gates.open("x")
    await world.ended(execution_id)
    assert world.gates.running_twice() == []


# What is odd --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body", [b"not JSON", b"[]", b'{"kind":"cancel"}', b'{"kind":"checkpoint"}']
)
async def test_a_note_that_cannot_be_read_is_dropped_and_hurts_nobody(
    world: World, body: bytes
) -> None:
    execution_id = await world.start({"x": {"action": "hold"}})
    await world.began(execution_id, "x")
    owner = await world.store.append_inbox(execution_id, InboxEntry("odd", body))
    await world.gateway.parts.launcher.nudge(owner, execution_id)
    world.gates.open("x")
    assert (await world.ended(execution_id))["status"] == "completed"
    assert await world.store.read_inbox(execution_id) == []


@pytest.mark.parametrize("newer", [{"v": 99}, {"newer": 1}])
async def test_an_execution_that_cannot_be_read_is_set_aside_and_others_go_on(
    world: World, newer: dict[str, Any]
) -> None:
    odd = await world.start({"x": {"action": "hold"}})
    await world.began(odd, "x")
    dead = await world.owner_of(odd)
    await world.installation.kill_owner(dead)
    snapshot = await world.store.read_execution(odd)
    assert snapshot is not None
    head = {**jsontext.decode(snapshot.fields["head"]), **newer}
    version = snapshot.version + 1
    await world.store.commit(
        Commit(
            odd,
            dead,
            snapshot.epoch,
            version,
            snapshot.seq + 1,
            fields={"head": jsontext.encode(head)},
        )
    )
    while await world.store.orphan(dead, limit=100):
        pass
    (heir,) = world.installation.hosts.values()
    await heir.pick_up()
    snapshot = await world.store.read_execution(odd)
    assert snapshot is not None
    for _ in range(3):
        await heir._claim_untold()
    after = await world.store.read_execution(odd)
    assert after is not None
    assert after.epoch == snapshot.epoch, "it is not claimed again and again"
    await world.installation.add_owner("another")
    assert (await world.ended(await world.start({"y": {}})))["status"] == "completed"


async def test_a_host_survives_a_census_that_fails_and_tries_again(world: World) -> None:
    execution_id = await world.start(CHAIN)
    await world.began(execution_id, "b")
    dead = await world.owner_of(execution_id)
    await world.installation.kill_owner(dead)
    (heir,) = world.installation.hosts.values()
    real, failures = heir.take_census, [RuntimeError("a defect")]

    async def census(execution_id: str, epoch: int) -> Census:
        if failures:
            raise failures.pop()
        return await real(execution_id, epoch)

    heir.take_census = census
    while await world.store.orphan(dead, limit=100):
        pass
    await heir.pick_up()
    assert failures == []
    assert heir.load == 0, "nothing half made is left"
    await heir._claim_untold()
    await heir._claim_untold()
    world.gates.open("b", "c")
    assert (await world.ended(execution_id))["status"] == "completed"
    assert world.gates.running_twice() == []


async def test_an_owner_that_gets_its_own_execution_again_drives_it_once(world: World) -> None:
    execution_id = await world.start(CHAIN)
    await world.began(execution_id, "b")
    owner = await world.owner_of(execution_id)
    host = world.installation.hosts[owner]
    while await world.store.orphan(owner, limit=100):
        pass
    await world.store.renew_owner(owner, lease_ms=60_000)
    for name in list(world.installation.hosts):
        if name != owner:
            await world.installation.kill_owner(name)
    assert await host.pick_up() == 1
    world.gates.open("b", "c")
    assert (await world.ended(execution_id))["status"] == "completed"
    assert world.gates.running_twice() == []
    await until(lambda: host.load == 0)
    dispatcher = world.installation.running[owner].dispatcher
    await until(dispatcher.idle)
    await until(lambda: world.installation.free.qsize() == len(world.installation.actors))


# Succession --------------------------------------------------------------------------------------


@pytest.mark.parametrize("action", ["hold", "hold_async"])
async def test_what_runs_survives_its_owner(world: World, action: str) -> None:
    tasks = {"long": {"action": action}, "after": {"depends_on": ["long"]}}
    execution_id = await world.start(tasks)
    await world.began(execution_id, "long")
    dead = await world.owner_of(execution_id)
    heir = "owner-1" if dead == "owner-0" else "owner-0"
    await world.succeed(dead, heir)
    await until(lambda: world.installation.hosts[heir].load == 1)
    world.gates.open("long")
    found = await world.ended(execution_id)
    assert found["status"] == "completed"
    assert found["task_status"]["long"]["attempt"] == 1
    assert world.gates.running_twice() == []
    began = [name for name, _ in world.gates.began]
    assert began == [f"{execution_id}/long", f"{execution_id}/after"]


async def test_an_outcome_that_nobody_took_in_is_not_run_again(world: World) -> None:
    """The task ended while nobody owned its execution."""
    execution_id = await world.start({"x": {"action": "hold"}})
    await world.began(execution_id, "x")
    dead = await world.owner_of(execution_id)
    await world.installation.kill_owner(dead)
    world.gates.open("x")
    actors = world.installation.actors
    await until(lambda: any(actor.host._held.of(execution_id) for actor in actors))
    while await world.store.orphan(dead, limit=100):
        pass
    (heir,) = world.installation.hosts.values()
    await heir.pick_up()
    found = await world.ended(execution_id)
    assert found["status"] == "completed"
    assert len(world.gates.began) == 1


async def test_whatever_was_under_way_no_attempt_runs_twice(world: World) -> None:
    """More tasks than task actors: some run, some wait in a batch, some are not handed out."""
    tasks: dict[str, Any] = {f"t{i}": {"action": "hold"} for i in range(9)}
    tasks["last"] = {"depends_on": list(tasks)}
    execution_id = await world.start(tasks)
    await until(lambda: len(world.gates.began) == 3)
    dead = await world.owner_of(execution_id)
    heir = "owner-1" if dead == "owner-0" else "owner-0"
    await world.succeed(dead, heir)
    await world.installation.add_owner(dead)
    await world.succeed(heir, dead)
    world.gates.open(*tasks)
    found = await world.ended(execution_id)
    assert found["status"] == "completed"
    assert world.gates.running_twice() == []
    kinds = await world.kinds(execution_id)
    assert kinds.count("task_completed") == 10
    assert kinds.count("execution_completed") == 1
    assert "task_failed" not in kinds, "nothing was lost: it ran, or had not started"


async def test_an_execution_taken_from_a_living_owner_is_left_by_it(world: World) -> None:
    execution_id = await world.start(CHAIN)
    await world.began(execution_id, "b")
    former = await world.owner_of(execution_id)
    other = next(h for name, h in world.installation.hosts.items() if name != former)
    await other.claim(execution_id)
    world.gates.open("b", "c")
    found = await world.ended(execution_id)
    assert found["output"] == {"task": "c", "value": 1}
    await until(lambda: world.installation.hosts[former].load == 0)
    assert world.gates.running_twice() == []


async def test_a_cancel_that_came_while_nobody_owned_it_is_taken_in(world: World) -> None:
    execution_id = await world.start(CHAIN)
    await world.began(execution_id, "b")
    dead = await world.owner_of(execution_id)
    await world.installation.kill_owner(dead)
    assert (await world.gateway.cancel_execution(execution_id))["success"]
    while await world.store.orphan(dead, limit=100):
        pass
    (heir,) = world.installation.hosts.values()
    await heir.pick_up()
    assert (await world.ended(execution_id))["status"] == "cancelled"


async def test_closing_a_host_leaves_what_is_stored(world: World) -> None:
    execution_id = await world.start(CHAIN)
    await world.began(execution_id, "b")
    while "task_completed" not in await world.kinds(execution_id):
        await settle()
    dead = await world.owner_of(execution_id)
    await world.installation.kill_owner(dead)
    found = await world.status(execution_id)
    assert (found["status"], found["task_status"]["a"]["status"]) == ("running", "completed")
