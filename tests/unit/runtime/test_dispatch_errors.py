"""What a dispatcher does with answers that never come, and with attempts that come back to it."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from harmonia_actors.core.commands import StopReason
from tests.support.scripted_actors import ScriptedLease, order, settle, until
from tests.unit.runtime.test_dispatcher import Desk, orders


async def test_an_answer_that_cannot_be_had_is_a_death() -> None:
    async with Desk() as desk:
        actor = desk.leases.add()
        await desk.learn(actor, 0.01)
        desk.start(*orders(1, 2, 3))
        await until(actor.running)
        actor.break_with(RuntimeError("out of memory"))
        await until(lambda: len(desk.told()) == 2)
        assert sorted(desk.told()) == ["AttemptLost 1 1", "AttemptLost 2 1"]
        assert desk.leases.dead == [actor.name]
        other = desk.leases.add()
        await until(other.running)
        assert (actor.batches, other.batches) == ([[1, 2]], [[3]])


async def test_what_waits_is_asked_for_again_whatever_a_request_ends_with() -> None:
    async with Desk() as desk:
        desk.leases.errors += [RuntimeError("no such thing"), OSError("a broken line")]
        desk.start(order(1))
        await until(lambda: not desk.leases.errors)
        actor = desk.leases.add()
        await until(actor.running)
        actor.end(1)
        await until(desk.told)
        assert desk.told() == ["AttemptSucceeded 1 1"]


@pytest.mark.parametrize("drop", ["stop", "forget"])
async def test_no_task_actor_is_wanted_for_what_does_not_wait_any_more(drop: str) -> None:
    """Where there is none of its class, a node would be asked for, for as long as none comes."""
    async with Desk() as desk:
        desk.start(*orders(1, 2))
        await until(lambda: len(desk.leases.asked) == 1)
        desk.dispatcher.stop(("exec-1", 1, 1), StopReason.CANCELLED)
        await settle()
        assert desk.leases.given_up == 0
        if drop == "stop":
            desk.dispatcher.stop(("exec-1", 2, 1), StopReason.CANCELLED)
        else:
            desk.dispatcher.forget("exec-1")
        await until(lambda: desk.leases.given_up == 1)
        desk.start(order(3))
        actor = desk.leases.add()
        await until(lambda: actor.running() == [3])


async def test_no_task_actor_is_asked_for_once_nothing_waits() -> None:
    async with Desk() as desk:
        desk.start(order(1))
        # The next look at the queue asks; what has waited there is gone before it does.
        asyncio.get_running_loop().call_soon(
            desk.dispatcher.stop, ("exec-1", 1, 1), StopReason.CANCELLED
        )
        await settle()
        assert (desk.told(), desk.leases.asked) == (["AttemptStopped 1 1"], [])


async def test_what_comes_while_a_request_is_given_up_is_asked_for_anew() -> None:
    async with Desk() as desk:
        desk.start(order(1))
        await until(lambda: len(desk.leases.asked) == 1)
        desk.dispatcher.stop(("exec-1", 1, 1), StopReason.CANCELLED)
        desk.start(order(2))
        actor = desk.leases.add()
        await until(lambda: actor.running() == [2])


async def test_a_batch_has_so_many_bytes() -> None:
    async with Desk() as desk:
        actor = desk.leases.add()
        await desk.learn(actor, 0.000_001)
        desk.start(*(replace(order(n), input=b"x" * 3_000_000) for n in range(1, 6)))
        await until(actor.running)
        assert actor.batches == [[1, 2]]


async def test_an_attempt_of_its_own_that_is_adopted_is_told_once_and_its_actor_is_free() -> None:
    async with Desk() as desk:
        actor = desk.leases.add()
        desk.start(order(1))
        await until(actor.running)
        desk.dispatcher.adopt(ScriptedLease(actor), [("exec-1", 1, 1)])
        await settle()
        actor.end(1)
        await until(desk.told)
        await until(lambda: desk.leases.released == [actor.name])
        assert desk.told() == ["AttemptSucceeded 1 1"]
        assert desk.dispatcher.idle()
