"""Owners go by the store's clock, and what is waited for comes in its time whatever is set."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from harmonia_actors.runtime.clock import SteadyClock, StoreClock, SystemClock
from persistence.errors import StoreUnavailable
from persistence.memory_store import MemoryStore
from tests.simulation.virtual_loop import VirtualLoop, pass_time, run_virtually
from tests.support.local import LocalInstallation
from tests.support.scripted_actors import ManualClock

HOUR_MS = 3_600_000


class Seconds:
    """A clock that nobody sets."""

    def __init__(self) -> None:
        self.at_s = 5.0

    def __call__(self) -> float:
        return self.at_s


def test_a_steady_clock_goes_on_from_the_time_of_day_that_it_was_given() -> None:
    seconds = Seconds()
    clock = SteadyClock(1_000, seconds)
    assert clock.now_ms() == 1_000
    seconds.at_s += 2.5
    assert clock.now_ms() == 3_500
    assert clock.steady() is clock


def test_the_machines_clock_has_a_steady_one_that_says_the_same() -> None:
    clock = SystemClock()
    before_ms, steady_ms, after_ms = clock.now_ms(), clock.steady().now_ms(), clock.now_ms()
    assert before_ms - 1 <= steady_ms <= after_ms + 1


class Rig:
    """An owner whose machine has a wrong clock, and a store that answers after a while."""

    def __init__(self, *, ahead_ms: int, way_s: float = 0.0) -> None:
        self.seconds = Seconds()
        self.ahead_ms, self.way_s = ahead_ms, way_s
        self.is_away = False
        self.clock = StoreClock(self, self.ask, self.after)

    def true_ms(self) -> int:
        return int(self.seconds() * 1000)

    def now_ms(self) -> int:
        return self.true_ms() + self.ahead_ms

    def steady(self) -> SteadyClock:
        return SteadyClock(self.now_ms(), self.seconds)

    def after(self, at_ms: int) -> SteadyClock:
        return SteadyClock(at_ms, self.seconds)

    async def ask(self) -> int:
        if self.is_away:
            raise StoreUnavailable("the store is away")
        self.seconds.at_s += self.way_s
        at_ms = self.true_ms()
        self.seconds.at_s += self.way_s
        return at_ms


@pytest.mark.parametrize("ahead_ms", [-HOUR_MS, -3, 3, HOUR_MS])
async def test_owners_whose_machines_disagree_have_the_same_time(ahead_ms: int) -> None:
    rig = Rig(ahead_ms=ahead_ms)
    assert rig.clock.now_ms() == rig.true_ms() + ahead_ms
    await rig.clock.learn()
    assert rig.clock.now_ms() == rig.true_ms()
    rig.seconds.at_s += 100
    assert rig.clock.now_ms() == rig.true_ms()


async def test_what_the_answer_does_not_contradict_is_kept() -> None:
    """Each answer is as late as its way here was long, and would put the clock back by that."""
    rig = Rig(ahead_ms=0, way_s=0.2)
    for _ in range(3):
        await rig.clock.learn()
    assert rig.clock.now_ms() == rig.true_ms()


async def test_what_goes_by_the_time_that_it_had_is_not_moved_by_what_is_learned() -> None:
    rig = Rig(ahead_ms=HOUR_MS)
    early = rig.clock.steady()
    await rig.clock.learn()
    assert early.now_ms() == rig.true_ms() + HOUR_MS
    assert rig.clock.steady().now_ms() == rig.true_ms()


async def test_while_the_store_is_away_the_clock_goes_on() -> None:
    rig = Rig(ahead_ms=HOUR_MS)
    await rig.clock.learn()
    rig.is_away = True
    with pytest.raises(StoreUnavailable):
        await rig.clock.learn()
    rig.seconds.at_s += 1
    assert rig.clock.now_ms() == rig.true_ms()


def test_an_owner_learns_the_time_before_it_serves_and_with_each_renewal(tmp_path: Path) -> None:
    async def run(loop: VirtualLoop) -> None:
        store = MemoryStore(lambda: int(loop.time() * 1000))
        async with LocalInstallation(store, tmp_path, owners=1) as installation:
            host = next(iter(installation.hosts.values()))
            learned: list[float] = []
            clock = StoreClock(ManualClock(HOUR_MS), store.time_ms, steadily(loop.time))

            async def learn() -> None:
                learned.append(loop.time())
                await clock.learn()

            host.learn_time = learn
            await host.register()
            assert learned == [loop.time()]
            assert clock.now_ms() == int(loop.time() * 1000)
            await pass_time(host.limits.lease_ms / 1000)
            assert len(learned) >= 3

    run_virtually(run)


def test_a_lease_is_renewed_in_time_while_the_store_does_not_say_what_time_it_is(
    tmp_path: Path,
) -> None:
    async def run(loop: VirtualLoop) -> None:
        store = MemoryStore(lambda: int(loop.time() * 1000))
        async with LocalInstallation(store, tmp_path, owners=1) as installation:
            host = next(iter(installation.hosts.values()))

            async def learn() -> None:
                await asyncio.Event().wait()

            host.learn_time = learn
            for _ in range(10):
                await pass_time(host.limits.lease_ms / 1000)
                assert [each.expired for each in await store.owners()] == [False]

    run_virtually(run)


def steadily(seconds: Callable[[], float]) -> Callable[[int], SteadyClock]:
    return lambda at_ms: SteadyClock(at_ms, seconds)
