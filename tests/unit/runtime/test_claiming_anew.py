"""An owner may claim an execution that it had before: it was thought dead, or lost count."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from harmonia_actors.runtime.dispatch import Dispatcher, DispatchLimits
from harmonia_actors.runtime.orders import Report
from persistence.memory_store import MemoryStore
from tests.support.gates import Gates
from tests.support.local import LocalInstallation
from tests.support.scripted_actors import (
    ManualClock,
    ScriptedLease,
    ScriptedLeases,
    order,
    settle,
    until,
)


async def test_an_attempt_that_was_given_out_here_is_not_adopted_too() -> None:
    """Its task actor comes back when it has ended, as if nothing had been."""
    leases = ScriptedLeases()
    told: list[Report] = []
    dispatcher = Dispatcher(
        leases=leases, tell=told.extend, clock=ManualClock(), limits=DispatchLimits()
    )
    actor = leases.add()
    dispatcher.start([order(1)])
    await until(actor.running)
    dispatcher.adopt(ScriptedLease(actor), [("exec-1", 1, 1)])
    await settle()
    actor.end(1)
    await until(lambda: leases.released == [actor.name])
    assert [type(report.stimulus).__name__ for report in told] == ["AttemptSucceeded"]
    assert dispatcher.idle()
    await dispatcher.close()


@pytest.fixture
async def installation(tmp_path: Path) -> AsyncIterator[LocalInstallation]:
    gates = Gates()
    async with LocalInstallation(
        MemoryStore(), tmp_path, workers=1, owners=1, components=[gates.component]
    ) as made:
        made.gates = gates  # type: ignore[attr-defined]
        yield made
        gates.open("a", "b", "c")


async def test_a_host_that_claims_anew_goes_on_with_one_driver(
    installation: LocalInstallation,
) -> None:
    """What the former one gave up must not be taken from the one that goes on."""
    gates: Gates = installation.gates  # type: ignore[attr-defined]
    tasks = {name: {"component": "gates", "action": "hold"} for name in ("a", "b", "c")}
    gateway, store = installation.gateway, installation.store
    workflow = await gateway.create_workflow({"name": "w", "tasks": tasks})
    reply = await gateway.execute(workflow["workflow_id"], {}, {})
    execution_id = str(reply.document["execution_id"])
    await until(lambda: gates.began)
    (host,) = installation.hosts.values()
    former = host._drivers[execution_id]
    await store.orphan(host.owner, limit=10)
    await store.renew_owner(host.owner, lease_ms=60_000)
    assert await host.pick_up() == 1
    assert host._drivers[execution_id] is not former
    await until(former.ended.is_set)
    assert (host.load, len(host._running)) == (1, 1)
    gates.open("a", "b", "c")
    async for _ in gateway.events(execution_id, after=0):
        pass
    snapshot = await store.read_execution(execution_id, rows=False)
    assert snapshot is not None
    assert snapshot.epoch == 2, "nobody had to claim it a third time"
    assert gates.running_twice() == []
