"""An owner that cannot be certain to be one gives nothing out."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from harmonia_actors.core.commands import StopReason
from harmonia_actors.runtime.clock import SteadyClock, StoreClock
from harmonia_actors.runtime.tenure import NotOwner, Tenure
from persistence.errors import StoreUnavailable
from persistence.memory_store import MemoryStore
from persistence.store import NewExecution
from tests.simulation.virtual_loop import VirtualLoop, pass_time, run_virtually
from tests.support.desk import Desk
from tests.support.local import LocalInstallation
from tests.support.scripted_actors import ManualClock, order, settle, until

LEASE_MS = 10_000


@dataclass
class Rig:
    """A tenure, its clock, and a store that answers after so long."""

    at_s: float = 100.0
    takes_s: float = 0.0
    says: bool = True
    tenure: Tenure = field(init=False)

    def __post_init__(self) -> None:
        self.tenure = Tenure(lambda: self.at_s)

    async def renew(self) -> bool:
        return await self.tenure.renew(self._ask, LEASE_MS)

    async def _ask(self) -> bool:
        self.at_s += self.takes_s
        return self.says


def test_nobody_is_certain_before_the_store_has_registered_him() -> None:
    assert not Rig().tenure.is_certain


async def test_a_lease_is_certain_from_when_it_was_asked_for() -> None:
    rig = Rig(takes_s=4.0)
    assert await rig.renew()
    assert rig.tenure.is_certain
    rig.at_s += 5.9
    assert rig.tenure.is_certain
    rig.at_s += 0.2
    assert not rig.tenure.is_certain


async def test_each_renewal_makes_it_certain_for_longer() -> None:
    rig = Rig()
    for _ in range(3):
        assert await rig.renew()
        rig.at_s += 9.0
        assert rig.tenure.is_certain


async def test_an_answer_that_comes_after_a_later_one_takes_nothing_away() -> None:
    rig = Rig()

    async def slow() -> bool:
        assert await rig.renew()
        return True

    rig.at_s += 5.0
    assert await rig.tenure.renew(slow, LEASE_MS)
    rig.at_s += 9.0
    assert rig.tenure.is_certain


async def test_what_the_store_does_not_renew_is_not_certain_for_longer() -> None:
    rig = Rig()
    assert await rig.renew()
    rig.at_s, rig.says = rig.at_s + 9.0, False
    assert not await rig.renew()
    assert not rig.tenure.is_certain


async def test_who_was_refused_once_is_never_certain_again() -> None:
    rig = Rig(says=False)
    assert not await rig.renew()
    rig.says = True
    assert not await rig.renew()
    assert not rig.tenure.is_certain


async def test_an_answer_that_was_on_its_way_makes_nobody_certain_who_was_refused() -> None:
    rig = Rig()

    async def slow() -> bool:
        rig.says = False
        assert not await rig.renew()
        return True

    assert not await rig.tenure.renew(slow, LEASE_MS)
    assert not rig.tenure.is_certain


@dataclass
class Certainty:
    """Whether the owner at the desk is certain."""

    is_certain: bool = True

    def __call__(self) -> bool:
        return self.is_certain


@pytest.fixture
def certainty() -> Certainty:
    return Certainty()


@pytest.fixture
async def desk(certainty: Certainty) -> AsyncIterator[Desk]:
    async with Desk(may_give=certainty) as found:
        yield found


async def test_nothing_is_given_out_until_it_is_certain_again(
    desk: Desk, certainty: Certainty
) -> None:
    actor = desk.leases.add()
    certainty.is_certain = False
    desk.start(order(1))
    await settle()
    assert actor.batches == []
    assert desk.leases.asked == []
    certainty.is_certain = True
    await until(actor.running)
    assert actor.batches == [[1]]


async def test_neither_are_those_whose_turn_comes_behind_others(
    desk: Desk, certainty: Certainty
) -> None:
    actor = desk.leases.add()
    desk.start(order(1), order(2))
    await until(actor.running)
    assert actor.batches == [[1]]
    certainty.is_certain = False
    actor.end(1)
    await until(desk.told)
    await settle()
    assert actor.batches == [[1]]
    certainty.is_certain = True
    await until(lambda: actor.batches == [[1], [2]])


async def test_what_is_held_back_can_be_stopped(desk: Desk, certainty: Certainty) -> None:
    actor = desk.leases.add()
    certainty.is_certain = False
    desk.start(order(1))
    desk.dispatcher.stop(order(1).id, StopReason.CANCELLED)
    assert desk.told() == ["AttemptStopped 1 1"]
    certainty.is_certain = True
    desk.start(order(2))
    await until(actor.running)
    assert actor.batches == [[2]]


class _DistantStore(MemoryStore):
    """Leases cannot be renewed while it is away, or are not while it refuses that."""

    is_away = refuses = False

    async def renew_owner(self, owner: str, **how: Any) -> bool:
        if self.is_away:
            raise StoreUnavailable("away")
        if self.refuses:
            return False
        return await super().renew_owner(owner, **how)


class _SlowStore(MemoryStore):
    """A registration takes so long to get there."""

    takes_s = 0.0

    async def renew_owner(self, owner: str, **how: Any) -> bool:
        await pass_time(self.takes_s)
        return await super().renew_owner(owner, **how)


def test_an_owner_is_certain_as_long_as_it_renews_its_lease(tmp_path: Path) -> None:
    async def run(loop: VirtualLoop) -> None:
        store = _DistantStore(lambda: int(loop.time() * 1000))
        async with LocalInstallation(store, tmp_path, owners=1) as installation:
            host = next(iter(installation.hosts.values()))
            lease_s = host.limits.lease_ms / 1000
            for _ in range(20):
                await pass_time(lease_s / 4)
                assert host.tenure.is_certain
            store.is_away = True
            await pass_time(lease_s + 0.1)
            assert not host.tenure.is_certain
            store.is_away = False
            await pass_time(1.1)
            assert host.tenure.is_certain

    run_virtually(run)


def test_who_was_given_nothing_waits_until_he_hears_that_he_is_registered(tmp_path: Path) -> None:
    async def run(loop: VirtualLoop) -> None:
        store = MemoryStore(lambda: int(loop.time() * 1000))
        async with LocalInstallation(store, tmp_path, owners=1) as installation:
            ((name, host),) = installation.hosts.items()
            keeper = installation.running[name].loops[0]
            lease_s = host.limits.lease_ms / 1000
            host.tenure = Tenure(loop.time)
            assert await store.retire_owner(name)
            await pass_time(10 * lease_s)
            assert not keeper.done()
            assert await store.owners() == [], "whoever serves registers first"
            await host.register()
            await pass_time(10 * lease_s)
            assert host.tenure.is_certain
            assert not keeper.done()

    run_virtually(run)


def test_who_was_succeeded_is_no_owner_again_whoever_asks_it_to_be(tmp_path: Path) -> None:
    async def run(loop: VirtualLoop) -> None:
        store = MemoryStore(lambda: int(loop.time() * 1000))
        async with LocalInstallation(store, tmp_path, owners=1) as installation:
            ((name, host),) = installation.hosts.items()
            keeper = installation.running[name].loops[0]
            assert await store.orphan(name, limit=100) == 0
            for _ in range(2):
                with pytest.raises(NotOwner, match="was succeeded"):
                    await host.register()
                assert not host.tenure.is_certain
            assert await store.owners() == []
            await pass_time(host.limits.lease_ms / 1000)
            assert keeper.done()

    run_virtually(run)


def test_a_claim_makes_no_owner_of_who_was_succeeded(tmp_path: Path) -> None:
    """It may have been on its way when that happened."""

    async def run(loop: VirtualLoop) -> None:
        store = MemoryStore(lambda: int(loop.time() * 1000))
        async with LocalInstallation(store, tmp_path, owners=1) as installation:
            ((name, host),) = installation.hosts.items()
            keeper = installation.running[name].loops[0]
            assert await store.orphan(name, limit=100) == 0
            await store.put_definition("d", b"")
            await store.create_execution(NewExecution("e", "d", {}), owners_max=1)
            await host.claim("e")
            assert host.load == 0
            assert (await store.owners(), await store.waiting_executions()) == ([], 1)
            await pass_time(host.limits.lease_ms / 1000)
            assert keeper.done()

    run_virtually(run)


def test_a_registration_that_came_too_late_makes_no_owner(tmp_path: Path) -> None:
    """It may be a repeat of one that did, and what it had be others' by now."""

    async def run(loop: VirtualLoop) -> None:
        store = _SlowStore(lambda: int(loop.time() * 1000))
        async with LocalInstallation(store, tmp_path, owners=1) as installation:
            ((name, host),) = installation.hosts.items()
            lease_s = host.limits.lease_ms / 1000
            clock = StoreClock(ManualClock(0), store.time_ms, lambda at: SteadyClock(at, loop.time))
            host.clock, host.learn_time = clock, clock.learn
            for takes_s, is_one in ((lease_s - 0.1, True), (lease_s + 0.1, False)):
                host.tenure = Tenure(loop.time)
                assert await store.retire_owner(name)
                store.takes_s = takes_s
                registering = loop.create_task(host.register())
                await pass_time(lease_s + 0.2)
                assert registering.done()
                assert (registering.exception() is None) == is_one
                assert (name in {one.owner for one in await store.owners()}) == is_one

    run_virtually(run)


def test_who_is_succeeded_before_it_has_heard_anything_ends(tmp_path: Path) -> None:
    async def run(loop: VirtualLoop) -> None:
        store = _DistantStore(lambda: int(loop.time() * 1000))
        async with LocalInstallation(store, tmp_path, owners=1) as installation:
            ((name, host),) = installation.hosts.items()
            keeper = installation.running[name].loops[0]
            host.tenure = Tenure(loop.time)
            store.refuses = True
            with pytest.raises(NotOwner):
                await host.register()
            store.refuses = False
            await pass_time(host.limits.lease_ms / 1000)
            assert keeper.done()

    run_virtually(run)
