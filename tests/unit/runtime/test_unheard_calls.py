"""A call that fails says nothing of whoever was called: it is made again until it is heard."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest

from harmonia_actors.core.commands import StopReason
from harmonia_actors.runtime.dispatch import DispatchLimits
from harmonia_actors.runtime.dispatch_queues import Held
from harmonia_actors.runtime.orders import AttemptOrder, QueueKey
from harmonia_actors.runtime.silence import Patience
from tests.support.desk import Desk
from tests.support.scripted_actors import ScriptedActor, ScriptedLease, order, settle, until


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


async def test_what_was_given_once_more_is_not_taken_for_what_was_given_back(
    patient: Desk,
) -> None:
    """An actor gives back again what it has given back of a batch, be it long in coming."""
    slow = patient.leases.add()
    await patient.learn(slow)
    patient.start(*orders(1, 2, 3))
    await until(slow.running)
    started = slow.tell(1)
    slow.end(1)
    await until(lambda: slow.running() == [2])
    patient.dispatcher.reported([started])
    await until(lambda: slow.taken_back == 1)
    await settle()
    slow.hold_take_back = asyncio.Event()
    patient.dispatcher.reported([started])
    await until(lambda: slow.taken_back == 2)
    slow.end(2)
    await until(lambda: "AttemptSucceeded 2 1" in patient.told())
    await settle()
    slow.hold_take_back.set()
    other = patient.leases.add()
    await until(lambda: slow.running() + other.running())
    await settle()
    assert slow.running() + other.running() == [3]


async def asked_while_idle(desk: Desk) -> ScriptedActor:
    """An actor that has done all that it had when it is still to hear that it give back."""
    actor = desk.leases.add()
    await desk.learn(actor)
    desk.start(*orders(1, 2))
    await until(actor.running)
    desk.leases.released.clear()
    actor.late_take_back = asyncio.Event()
    desk.dispatcher.reported([actor.tell(1)])
    await settle()
    actor.end(1)
    await until(lambda: actor.running() == [2])
    actor.end(2)
    await until(lambda: "AttemptSucceeded 2 1" in desk.told())
    return actor


@pytest.mark.parametrize("recalled", [True, False])
async def test_nobody_else_gets_an_actor_that_may_give_back_what_he_gives_it(
    recalled: bool,
) -> None:
    async with Desk(DispatchLimits(linger_ms=1)) as desk:
        actor = await asked_while_idle(desk)
        if recalled:
            desk.dispatcher.recall(QueueKey(), 1)
        other = desk.leases.add()
        desk.start(order(3, QueueKey(node_id="other")))
        await until(other.running)
        other.end(3)
        await until(lambda: desk.leases.released)
        assert desk.leases.released == [other.name]
        assert actor.late_take_back is not None
        actor.late_take_back.set()
        await until(lambda: desk.leases.released == [other.name, actor.name])


async def test_whoever_gives_back_in_a_way_that_nobody_understands_is_asked_no_more(
    patient: Desk,
) -> None:
    actor = await asked_while_idle(patient)
    actor.take_back_errors.append(ValueError("unforeseen"))
    patient.start(*orders(3))
    assert actor.late_take_back is not None
    actor.late_take_back.set()
    await until(lambda: actor.running() == [3])
    actor.end(3)
    await until(lambda: patient.leases.released == [actor.name])


async def test_what_comes_back_to_nobody_starts_nowhere_else(patient: Desk) -> None:
    """Its execution has another owner: it would start under the former epoch."""
    slow = patient.leases.add()
    await patient.learn(slow)
    patient.start(*orders(1, 2))
    await until(slow.running)
    slow.hold_take_back = asyncio.Event()
    patient.dispatcher.reported([slow.tell(1)])
    await until(lambda: slow.taken_back)
    patient.dispatcher.forget("exec-1")
    other = patient.leases.add()
    slow.hold_take_back.set()
    await until(lambda: other.running() or "AttemptStopped 2 1" in patient.told())
    assert other.running() == []


async def test_what_waits_is_asked_for_as_long_as_its_actor_may_be_out_of_reach() -> None:
    actor = ScriptedActor("away")
    held = Held(ScriptedLease(actor), QueueKey())
    for each in orders(1, 2):
        actor.waiting.append(each)
        held.given[each.id] = each
    actor.deaf = 300
    patience = Patience(again_s=0, again_s_max=0, silent_s_max=60)
    assert await held.take_back(patience) == [("exec-1", 1, 1), ("exec-1", 2, 1)]
    actor.deaf = 1_000_000
    assert await held.take_back(Patience(again_s=0, again_s_max=0, silent_s_max=0.01)) == ()
    held.given.clear()
    assert await held.take_back(patience) == ()


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


async def test_who_runs_what_was_adopted_and_cannot_be_reached_is_ended() -> None:
    """It may live, and run what has been given to another meanwhile."""
    async with Desk(DispatchLimits(unreachable_s_max=0.01)) as desk:
        actor = ScriptedActor("theirs")
        actor.deaf = 1_000
        desk.dispatcher.adopt(ScriptedLease(actor), [("exec-1", 1, 1)])
        await until(desk.told)
        assert (desk.told(), desk.leases.dead) == (["AttemptLost 1 1"], ["theirs"])
