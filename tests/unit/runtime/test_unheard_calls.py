"""A call that fails says nothing of whoever was called: it is made again until it is heard."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

import pytest

from harmonia_actors.core.commands import StopReason
from harmonia_actors.runtime.dispatch import DispatchLimits
from harmonia_actors.runtime.orders import AttemptOrder
from tests.support.desk import Desk
from tests.support.scripted_actors import order, until


@pytest.fixture
async def patient() -> AsyncIterator[Desk]:
    """A desk that gives an attempt a minute to stop."""
    async with Desk(DispatchLimits(cancel_grace_ms=60_000)) as found:
        yield found


@pytest.fixture
async def hurried() -> AsyncIterator[Desk]:
    """A desk with no patience."""
    async with Desk(DispatchLimits(cancel_grace_ms=5)) as found:
        yield found


def orders(*tasks: int) -> Sequence[AttemptOrder]:
    return [order(task) for task in tasks]


@pytest.mark.parametrize("reason", [StopReason.CANCELLED, StopReason.TIMEOUT])
async def test_a_stop_that_was_not_heard_is_told_again(patient: Desk, reason: StopReason) -> None:
    actor = patient.leases.add()
    patient.start(order(1))
    await until(actor.running)
    actor.deaf = 1
    patient.dispatcher.stop(("exec-1", 1, 1), reason)
    await until(patient.told)
    assert (patient.told(), actor.kills) == (["AttemptStopped 1 1"], 0)


async def test_what_waits_is_taken_back_though_that_was_not_heard_at_first(patient: Desk) -> None:
    actor = patient.leases.add()
    await patient.learn(actor)
    patient.start(*orders(1, 2))
    await until(actor.running)
    actor.deaf = 1
    patient.dispatcher.stop(("exec-1", 2, 1), StopReason.TAKEN_BACK)
    await until(patient.told)
    assert patient.told() == ["AttemptStopped 2 1"]


async def test_who_never_hears_of_a_stop_is_ended(hurried: Desk) -> None:
    actor = hurried.leases.add()
    hurried.start(order(1))
    await until(actor.running)
    actor.deaf = 1_000
    hurried.dispatcher.stop(("exec-1", 1, 1), StopReason.CANCELLED)
    await until(hurried.told)
    assert (hurried.told(), actor.kills) == (["AttemptStopped 1 1"], 1)


async def test_nobody_is_told_to_stop_what_has_died(patient: Desk) -> None:
    actor = patient.leases.add()
    patient.start(order(1))
    await until(actor.running)
    actor.deaf = 1_000
    patient.dispatcher.stop(("exec-1", 1, 1), StopReason.CANCELLED)
    await until(lambda: actor.deaf < 1_000)
    actor.die()
    await until(patient.told)
    assert (patient.told(), actor.kills) == (["AttemptLost 1 1"], 0)


@pytest.mark.parametrize("broken", ["deaf", "dumb"])
async def test_what_waits_behind_a_long_attempt_is_asked_for_again(
    patient: Desk, broken: str
) -> None:
    slow = patient.leases.add()
    await patient.learn(slow)
    patient.start(*orders(1, 2))
    await until(slow.running)
    assert slow.batches == [[1, 2]]
    other = patient.leases.add()
    setattr(slow, broken, 1)
    patient.dispatcher.reported([slow.tell(1)])
    await until(other.running)
    assert (slow.running(), other.running()) == ([1], [2])
    other.end(2)
    slow.end(1)
    await until(lambda: len(patient.told()) == 3)
    assert "AttemptLost 2 1" not in patient.told()


async def test_nothing_is_given_while_an_answer_may_be_given_again(patient: Desk) -> None:
    slow = patient.leases.add()
    await patient.learn(slow)
    patient.start(*orders(1, 2))
    await until(slow.running)
    slow.dumb = 1
    patient.dispatcher.reported([slow.tell(1)])
    await until(lambda: slow.taken_back)
    slow.end(1)
    await until(lambda: slow.running() == [2])
    assert slow.taken_back == 2, "it was given again before it was known to have come back"
    slow.end(2)
    await until(lambda: "AttemptSucceeded 2 1" in patient.told())
    assert slow.batches == [[1, 2], [2]]


# What became of a batch --------------------------------------------------------------------------


async def test_an_outcome_is_asked_for_if_the_answer_was_lost(patient: Desk) -> None:
    actor = patient.leases.add()
    patient.start(order(1))
    await until(actor.running)
    actor.dumb = 1
    actor.end(1)
    await until(patient.told)
    assert (patient.told(), patient.leases.dead) == (["AttemptSucceeded 1 1"], [])


async def test_what_never_arrived_is_lost_and_its_actor_goes_on(patient: Desk) -> None:
    actor = patient.leases.add()
    actor.deaf = 3
    patient.start(order(1))
    await until(patient.told)
    assert (patient.told(), patient.leases.dead) == (["AttemptLost 1 1"], [])
    patient.start(order(2))
    await until(actor.running)


async def test_who_cannot_be_reached_for_too_long_counts_as_dead() -> None:
    async with Desk(DispatchLimits(unreachable_s_max=0.01)) as desk:
        actor = desk.leases.add()
        actor.deaf = 1_000
        desk.start(order(1))
        await until(desk.told)
        assert (desk.told(), desk.leases.dead) == (["AttemptLost 1 1"], [actor.name])
