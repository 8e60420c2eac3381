"""How attempts are handed to task actors: in batches, taken back, stopped, lost, adopted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest

from harmonia_actors.core import stimuli as st
from harmonia_actors.core.commands import StopReason
from harmonia_actors.core.resources import ResourceRequest
from harmonia_actors.runtime.dispatch import DispatchLimits
from harmonia_actors.runtime.orders import AttemptOrder, QueueKey, Report
from tests.support.desk import Desk
from tests.support.scripted_actors import ScriptedActor, ScriptedLease, order, settle, until

SHARED = QueueKey(shared=True)


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    async with Desk() as found:
        yield found


@pytest.fixture
async def hurried() -> AsyncIterator[Desk]:
    """A desk with no patience."""
    async with Desk(DispatchLimits(cancel_grace_ms=5, linger_ms=1, waiting_after_ms=1)) as found:
        yield found


@pytest.fixture
async def patient() -> AsyncIterator[Desk]:
    """A desk that gives an attempt a minute to stop, and a shared actor three at a time."""
    async with Desk(DispatchLimits(cancel_grace_ms=60_000, shared_attempts_max=3)) as found:
        yield found


def orders(*tasks: int, key: QueueKey | None = None) -> Sequence[AttemptOrder]:
    return [order(task, key) for task in tasks]


# Batches -----------------------------------------------------------------------------------------


async def test_an_attempt_is_run_and_its_outcome_told_once(desk: Desk) -> None:
    actor = desk.leases.add()
    desk.start(order(1))
    await until(actor.running)
    actor.end(1)
    await until(desk.told)
    await settle()
    assert desk.told() == ["AttemptSucceeded 1 1"]
    assert desk.dispatcher.idle()


async def test_an_action_that_was_never_seen_goes_alone(desk: Desk) -> None:
    actor = desk.leases.add()
    desk.start(*orders(1, 2, 3))
    await until(actor.running)
    assert actor.batches == [[1]]


async def test_short_actions_go_together_up_to_the_target(desk: Desk) -> None:
    actor = desk.leases.add()
    await desk.learn(actor, 0.004)
    desk.start(*orders(*range(12)))
    await until(actor.running)
    assert actor.batches == [[0, 1, 2, 3, 4]], "5 times 4 ms make 20 ms"


async def test_nobody_gets_more_than_an_even_share(desk: Desk) -> None:
    first, second = desk.leases.add(), desk.leases.add()
    first.seconds = second.seconds = 0.003
    desk.start(*orders(900, 901))
    await until(lambda: first.running() and second.running())
    first.end(first.running()[0])
    second.end(second.running()[0])
    await until(desk.dispatcher.idle)
    await settle()
    desk.start(*orders(0, 1, 2, 3))
    await until(lambda: first.running() and second.running())
    assert [first.batches[-1], second.batches[-1]] == [[0, 1], [2]], "one is left for the fastest"


async def test_the_same_attempt_is_not_run_twice(desk: Desk) -> None:
    actor = desk.leases.add()
    desk.start(order(1))
    desk.start(order(1))
    await until(actor.running)
    desk.start(order(1))
    await settle()
    assert actor.batches == [[1]]


async def test_a_lease_is_given_back_when_nothing_has_come_for_a_while(hurried: Desk) -> None:
    actor = hurried.leases.add()
    hurried.start(order(1))
    await until(actor.running)
    actor.end(1)
    await until(lambda: hurried.leases.released == [actor.name])
    hurried.start(order(2))
    await until(actor.running)


async def test_what_an_actor_says_nothing_of_is_lost_and_does_not_hang(desk: Desk) -> None:
    actor = desk.leases.add()
    desk.start(order(1))
    await until(actor.running)
    actor.end(1)
    await settle(3)
    actor.ended.clear()
    await until(desk.told)
    assert desk.told() in (["AttemptLost 1 1"], ["AttemptSucceeded 1 1"])


async def test_outcomes_told_before_the_end_of_a_batch_are_not_told_again(desk: Desk) -> None:
    actor = desk.leases.add()
    await desk.learn(actor)
    desk.start(*orders(1, 2))
    await until(actor.running)
    actor.end(1)
    await until(lambda: actor.running() == [2])
    desk.dispatcher.reported([actor.tell(1, "outcome")])
    assert desk.told() == ["AttemptSucceeded 1 1"]
    actor.end(2)
    await until(lambda: len(desk.told()) == 2)
    assert desk.told() == ["AttemptSucceeded 1 1", "AttemptSucceeded 2 1"]


async def test_reports_about_what_is_not_here_are_dropped(desk: Desk) -> None:
    desk.dispatcher.reported([Report("exec-9", st.AttemptStarted(1, 1, 1))])
    assert desk.told() == []
    assert desk.stale == {"reports_ignored": 1}


# Taking back -------------------------------------------------------------------------------------


async def test_what_waits_behind_a_long_attempt_goes_to_others(desk: Desk) -> None:
    slow = desk.leases.add()
    await desk.learn(slow)
    desk.start(*orders(1, 2, 3))
    await until(slow.running)
    assert slow.batches == [[1, 2, 3]]
    other = desk.leases.add()
    desk.dispatcher.reported([slow.tell(1)])
    await until(other.running)
    assert other.batches[0][0] == 2
    assert slow.waiting == type(slow.waiting)()
    slow.end(1)
    other.end(2)
    await until(lambda: slow.running() == [3] or other.running() == [3])
    (slow if slow.running() else other).end(3)
    await until(lambda: len(desk.told()) == 4)
    assert sorted(desk.told()) == [
        "AttemptStarted 1 1",
        "AttemptSucceeded 1 1",
        "AttemptSucceeded 2 1",
        "AttemptSucceeded 3 1",
    ]


async def test_a_stop_reaches_an_attempt_that_is_just_being_taken_back(desk: Desk) -> None:
    slow = desk.leases.add()
    await desk.learn(slow)
    slow.hold_take_back = asyncio.Event()
    desk.start(*orders(1, 2))
    await until(slow.running)
    desk.dispatcher.reported([slow.tell(1)])
    await until(lambda: slow.taken_back)
    desk.dispatcher.stop(("exec-1", 2, 1), StopReason.CANCELLED)
    await settle()
    slow.hold_take_back.set()
    await until(lambda: "AttemptStopped 2 1" in desk.told())
    slow.end(1)
    await until(lambda: "AttemptSucceeded 1 1" in desk.told())
    await settle()
    assert slow.batches == [[1, 2]], "it was started again"
    assert desk.dispatcher.idle()


async def test_what_is_being_taken_back_when_its_batch_ends_is_not_lost(desk: Desk) -> None:
    slow = desk.leases.add()
    await desk.learn(slow)
    slow.hold_take_back = asyncio.Event()
    desk.start(*orders(1, 2))
    await until(slow.running)
    desk.dispatcher.reported([slow.tell(1)])
    await until(lambda: slow.taken_back)
    slow.end(1)
    await until(lambda: "AttemptSucceeded 1 1" in desk.told())
    await settle()
    slow.hold_take_back.set()
    await until(lambda: slow.running() == [2])
    slow.end(2)
    await until(lambda: "AttemptSucceeded 2 1" in desk.told())
    assert "AttemptLost 2 1" not in desk.told()


# Stopping ----------------------------------------------------------------------------------------


async def test_what_waits_here_is_taken_back_at_once(desk: Desk) -> None:
    desk.start(order(1))
    await settle()
    desk.dispatcher.stop(("exec-1", 1, 1), StopReason.TAKEN_BACK)
    assert desk.told() == ["AttemptStopped 1 1"]
    actor = desk.leases.add()
    await settle()
    assert actor.batches == []


async def test_what_nobody_knows_is_answered_as_stopped(desk: Desk) -> None:
    desk.dispatcher.stop(("exec-1", 1, 1), StopReason.CANCELLED)
    assert desk.told() == ["AttemptStopped 1 1"]


@pytest.mark.parametrize("reason", StopReason)
async def test_what_waits_at_an_actor_never_starts(desk: Desk, reason: StopReason) -> None:
    actor = desk.leases.add()
    await desk.learn(actor)
    desk.start(*orders(1, 2))
    await until(actor.running)
    desk.dispatcher.stop(("exec-1", 2, 1), reason)
    await until(desk.told)
    assert desk.told() == ["AttemptStopped 2 1"]
    actor.end(1)
    await until(desk.dispatcher.idle)
    assert desk.told() == ["AttemptStopped 2 1", "AttemptSucceeded 1 1"]


async def test_what_runs_is_stopped_where_it_runs(desk: Desk) -> None:
    actor = desk.leases.add()
    desk.start(order(1))
    await until(actor.running)
    desk.dispatcher.stop(("exec-1", 1, 1), StopReason.TIMEOUT)
    await until(desk.told)
    assert (desk.told(), actor.kills) == (["AttemptStopped 1 1"], 0)


async def test_what_runs_is_not_stopped_only_to_take_it_back(desk: Desk) -> None:
    actor = desk.leases.add()
    desk.start(order(1))
    await until(actor.running)
    desk.dispatcher.stop(("exec-1", 1, 1), StopReason.TAKEN_BACK)
    await until(lambda: actor.stops == [(1, True)])
    await settle()
    assert (actor.running(), desk.told()) == ([1], [])


async def test_what_does_not_stop_is_ended_with_its_process(hurried: Desk) -> None:
    actor = hurried.leases.add()
    await hurried.learn(actor)
    actor.obeys = False
    hurried.start(*orders(1, 2))
    await until(actor.running)
    hurried.dispatcher.stop(("exec-1", 1, 1), StopReason.CANCELLED)
    await until(lambda: len(hurried.told()) == 2)
    assert actor.kills == 1
    assert sorted(hurried.told()) == ["AttemptLost 2 1", "AttemptStopped 1 1"]
    assert hurried.leases.dead == [actor.name]


async def test_an_attempt_that_ends_within_the_grace_saves_its_process(patient: Desk) -> None:
    actor = patient.leases.add()
    actor.obeys = False
    patient.start(order(1))
    await until(actor.running)
    patient.dispatcher.stop(("exec-1", 1, 1), StopReason.CANCELLED)
    await until(lambda: actor.stops)
    actor.end(1)
    await until(patient.told)
    await settle()
    assert (patient.told(), actor.kills) == (["AttemptSucceeded 1 1"], 0)


# Deaths ------------------------------------------------------------------------------------------


async def test_a_death_loses_what_the_actor_had_and_the_rest_goes_on(desk: Desk) -> None:
    actor = desk.leases.add()
    await desk.learn(actor, 0.01)
    desk.start(*orders(1, 2, 3))
    await until(actor.running)
    assert actor.batches == [[1, 2]]
    actor.die()
    await until(lambda: len(desk.told()) == 2)
    assert sorted(desk.told()) == ["AttemptLost 1 1", "AttemptLost 2 1"]
    other = desk.leases.add()
    await until(other.running)
    assert other.batches == [[3]]


async def test_a_new_attempt_of_what_was_lost_can_run(desk: Desk) -> None:
    actor = desk.leases.add()
    desk.start(order(1))
    await until(actor.running)
    actor.die()
    await until(desk.told)
    other = desk.leases.add()
    desk.start(order(1, attempt=2))
    await until(other.running)
    other.end(1)
    await until(lambda: len(desk.told()) == 2)
    assert desk.told() == ["AttemptLost 1 1", "AttemptSucceeded 1 2"]


# Leases ------------------------------------------------------------------------------------------


async def test_what_can_never_run_fails_and_says_why(desk: Desk) -> None:
    key = QueueKey(ResourceRequest(num_gpus=8))
    desk.start(*orders(1, 2, key=key))
    await settle()
    desk.leases.refuse("no node has 8 GPUs")
    await until(desk.told)
    assert desk.told() == ["AttemptFailed 1 1", "AttemptFailed 2 1"]
    stimulus = desk.reports[0].stimulus
    assert isinstance(stimulus, st.AttemptFailed)
    failure = stimulus.failure
    assert (failure.code, failure.message) == ("UNPLACEABLE", "no node has 8 GPUs")
    assert not failure.retriable
    assert failure.origin == "engine"


async def test_what_waits_for_long_is_said_to_wait_and_what_comes_later_too(hurried: Desk) -> None:
    key = QueueKey(ResourceRequest(num_cpus=2))
    hurried.start(order(1, key))
    await until(hurried.told)
    assert hurried.told() == ["AttemptWaiting 1 1"]
    stimulus = hurried.reports[0].stimulus
    assert isinstance(stimulus, st.AttemptWaiting)
    assert stimulus.reason == "no task actor is free that has 2 CPUs"
    hurried.start(order(2, key))
    await until(lambda: "AttemptWaiting 2 1" in hurried.told())


async def test_having_been_cancelled_while_waiting_uses_up_no_notice(hurried: Desk) -> None:
    for task in range(150):
        hurried.start(order(task))
        await until(lambda wanted=f"AttemptWaiting {task} 1": wanted in hurried.told())  # type: ignore[misc]
        hurried.dispatcher.stop(("exec-1", task, 1), StopReason.CANCELLED)


async def test_each_class_has_its_own_actors(desk: Desk) -> None:
    big = QueueKey(ResourceRequest(num_cpus=2))
    desk.start(order(1), order(2, big), order(3, SHARED))
    await settle()
    assert {key for key, _ in desk.leases.asked} == {QueueKey(), big, SHARED}


async def test_a_recalled_actor_is_given_back_when_it_is_idle(desk: Desk) -> None:
    actor = desk.leases.add()
    await desk.learn(actor)
    desk.dispatcher.recall(QueueKey(), 1)
    assert desk.leases.released == [actor.name]


async def test_a_recalled_actor_ends_its_batch_first_and_others_wait(desk: Desk) -> None:
    actor = desk.leases.add()
    desk.start(*orders(1, 2))
    await until(actor.running)
    desk.dispatcher.recall(QueueKey(), 1)
    assert desk.leases.released == []
    desk.clock.at_ms += DispatchLimits().turn_ms
    actor.end(1)
    await until(lambda: desk.leases.released == [actor.name])
    await until(lambda: actor.running() == [2])


async def test_a_recalled_actor_is_kept_for_its_turn_as_long_as_there_is_work(desk: Desk) -> None:
    actor = desk.leases.add()
    desk.start(*orders(1, 2))
    await until(actor.running)
    desk.dispatcher.recall(QueueKey(), 1)
    desk.clock.at_ms += DispatchLimits().turn_ms - 1
    actor.end(1)
    await until(lambda: actor.running() == [2])
    assert desk.leases.released == []
    actor.end(2)
    await until(lambda: actor.name in desk.leases.released)


async def test_a_clock_that_is_set_back_lets_nobody_keep_a_recalled_actor(desk: Desk) -> None:
    actor = desk.leases.add()
    desk.start(*orders(1, 2))
    await until(actor.running)
    desk.dispatcher.recall(QueueKey(), 1)
    desk.clock.at_ms -= 60_000
    actor.end(1)
    await settle()
    assert desk.leases.released == [actor.name]


async def test_forgetting_an_execution_drops_what_waits_only(desk: Desk) -> None:
    actor = desk.leases.add()
    desk.start(order(1), order(2), order(3, execution="exec-2"))
    await until(actor.running)
    desk.dispatcher.forget("exec-1")
    actor.end(1)
    await until(lambda: actor.running() == [3])
    assert desk.told() == ["AttemptSucceeded 1 1"]


# Shared actors -----------------------------------------------------------------------------------


async def test_async_attempts_run_side_by_side_in_one_actor(desk: Desk) -> None:
    actor = desk.leases.add(shared=True)
    desk.start(*orders(1, 2, 3, key=SHARED))
    await until(lambda: len(actor.running()) == 3)
    desk.start(order(4, SHARED))
    await until(lambda: len(actor.running()) == 4)
    assert len(desk.leases.asked) == 1


async def test_room_in_a_shared_actor_is_used_as_soon_as_it_is_there(patient: Desk) -> None:
    """Even while one of the batch goes on for long."""
    actor = patient.leases.add(shared=True)
    patient.start(*orders(1, 2, 3, 4, 5, key=SHARED))
    await until(lambda: len(actor.running()) == 3)
    actor.end(1)
    await until(lambda: len(actor.running()) == 2)
    patient.dispatcher.reported([actor.tell(1, "outcome")])
    await until(lambda: actor.running() == [2, 3, 4])
    actor.end(2)
    await until(lambda: len(actor.running()) == 2)
    patient.dispatcher.reported([actor.tell(2, "outcome")])
    await until(lambda: actor.running() == [3, 4, 5])


# Adoption ----------------------------------------------------------------------------------------


async def adopted(desk: Desk) -> ScriptedActor:
    """An actor on which a former owner's attempt runs."""
    actor = ScriptedActor("theirs")
    actor.waiting.append(order(1))
    desk.former = asyncio.ensure_future(actor._one())  # type: ignore[attr-defined]
    await until(actor.running)
    desk.dispatcher.adopt(ScriptedLease(actor), [("exec-1", 1, 1)])
    await settle()
    return actor


async def test_the_outcome_of_an_adopted_attempt_is_told(desk: Desk) -> None:
    actor = await adopted(desk)
    actor.end(1)
    await until(desk.told)
    assert desk.told() == ["AttemptSucceeded 1 1"]
    assert desk.leases.released == []


async def test_an_adopted_attempt_can_be_stopped(desk: Desk) -> None:
    actor = await adopted(desk)
    desk.dispatcher.stop(("exec-1", 1, 1), StopReason.CANCELLED)
    await until(desk.told)
    assert (desk.told(), actor.stops) == (["AttemptStopped 1 1"], [(1, False)])


async def test_the_death_of_an_adopted_attempt_is_noticed(desk: Desk) -> None:
    actor = await adopted(desk)
    actor.die()
    await until(desk.told)
    assert desk.told() == ["AttemptLost 1 1"]
    with pytest.raises(Exception, match="has died"):
        await desk.former  # type: ignore[attr-defined]
